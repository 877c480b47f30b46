//! `coordinator evaluate`: loss and accuracy of a saved model, without training.
//!
//! The pieces and the tree are those of training, so the bits are those of the history's last row.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use millefeuille_core::control::Phase;
use millefeuille_program::machine::Cores;
use serde::Serialize;

use super::saved::Trained;
use super::{Result, print};
use crate::replay::Replay;

/// Evaluate a saved model on its validation split and its test set, without training
#[derive(Clone, Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  coordinator evaluate runs/article-1\n  coordinator evaluate runs/article-1 --json"
)]
pub(super) struct Args {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The data's directory, if it is not where it was
    #[arg(long, value_name = "DIR", env = "MILLEFEUILLE_DATA")]
    data: Option<String>,
    /// Print a JSON object, numbers unrounded
    #[arg(long)]
    json: bool,
}

/// The fields of the history's last row that a saved model can be asked for again.
#[derive(Debug, Serialize)]
struct Evaluation {
    val_loss: Option<f64>,
    val_accuracy: Option<f64>,
    test_loss: f64,
    test_accuracy: f64,
}

pub(super) fn run(args: Args) -> Result {
    let trained = Trained::open(&args.run, args.data.as_deref())?;
    let mut replay =
        Replay::new(&trained.store, &trained.spec, &trained.model, Cores::of_this_process().usable());
    let mut evaluate = |phase| replay.evaluate(&trained.parameters, phase);
    let validation = evaluate(Phase::Validate);
    let test = evaluate(Phase::Test).unwrap_or_default();
    let evaluation = Evaluation {
        val_loss: validation.map(|sums| sums.loss()),
        val_accuracy: validation.map(|sums| sums.accuracy()),
        test_loss: test.loss(),
        test_accuracy: test.accuracy(),
    };
    if args.json {
        print(&(serde_json::to_string(&evaluation).unwrap_or_default() + "\n"));
        return Ok(());
    }
    if let Some((loss, accuracy)) = validation.map(|sums| (sums.loss(), sums.accuracy())) {
        print(&format!("Validation loss:     {loss:.3}\nValidation accuracy: {accuracy:.3}\n"));
    }
    print(&format!("Test loss:           {:.3}\nTest accuracy:       {:.3}\n", test.loss(), test.accuracy()));
    Ok(())
}
