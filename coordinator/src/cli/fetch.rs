//! `coordinator fetch`: well-known data sets from their mirrors.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{Result, print};
use crate::fetch::{self, DataSet};

/// Download a well-known data set: checked, and resumed if it was interrupted
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator fetch fashion-mnist --into data/fashion
  coordinator train --data data/fashion

MNIST is part of the program and needs no download; here are its files for other
programs. The 26 letters of EMNIST have labels from 1 on. They come out of an
archive of 560 MB.")]
pub(super) struct Args {
    /// The data set
    #[arg(value_name = "NAME")]
    name: DataSet,
    /// The directory to write its files into
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Another address below which the files lie [default: the public mirrors]
    #[arg(long, value_name = "ADDRESS")]
    mirror: Option<String>,
}

pub(super) fn run(args: Args) -> Result {
    let Args { name, into, mirror } = args;
    fetch::fetch(name, mirror.as_deref(), &into, &mut |line| print(&format!("{line}\n")))?;
    print(&format!("train with: coordinator train --data {}\n", into.display()));
    Ok(())
}
