//! `coordinator errors`: what a saved model got most confidently wrong.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use millefeuille_core::data::inputs::Inputs;
use millefeuille_core::data::split::Split;
use millefeuille_core::failure::{Failure, FailureKind};
use serde::Serialize;

use super::saved::{Trained, Which};
use super::watch::json_line;
use super::{Result, columns, ink, print, table_columns};
use crate::mistakes::{Miss, Mistake, Mistakes, WrongClass};
use crate::see::digits::{self, Tile};
use crate::see::picture::Grey;
use crate::see::table::{Column, Table};
use crate::see::thousands;

/// Show what a saved model got most confidently wrong
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator errors runs/article-1
  coordinator errors runs/houses-1 --split validation --count 30 --json

Of classes: the wrong answers with the highest probabilities, with pictures where
the data is pictures. Of numbers: the answers that are farthest from the truth.
Samples are numbered from 0 in their split; with shuffle_split, in its order.")]
pub(super) struct Args {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The split that is looked at
    #[arg(long, value_enum, default_value_t = SplitName::Test)]
    split: SplitName,
    /// How many to show at most
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// The data's directory, if it has moved
    #[arg(long, value_name = "DIR", env = "MILLEFEUILLE_DATA")]
    data: Option<String>,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

/// A split, as Keras' users call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SplitName {
    Test,
    Validation,
    Training,
}

impl From<SplitName> for Split {
    fn from(name: SplitName) -> Self {
        match name {
            SplitName::Test => Self::Test,
            SplitName::Validation => Self::Validation,
            SplitName::Training => Self::Train,
        }
    }
}

pub(super) fn run(args: Args) -> Result {
    let Trained { store, workload, parameters } =
        Trained::open(&args.run, args.data.as_deref(), Which::Model)?;
    let split = Split::from(args.split);
    if store.sizes().of(split) == 0 {
        let what = format!("its data has no {split} split (name another --split)");
        return Err(Failure::at(FailureKind::Data, args.run.display(), what).into());
    }
    let mistakes = Mistakes::find(&store, &workload, &parameters, split, args.count as usize);
    if args.json {
        mistakes.worst.iter().for_each(|mistake| print(&as_json(mistake, store.inputs())));
        return Ok(());
    }
    print(&headline(&mistakes, split));
    if !mistakes.worst.is_empty() {
        print(&format!("\n{}", as_table(&mistakes.worst, store.inputs()).fitting(table_columns())));
    }
    let size = store.schema().features.rows_and_columns();
    let tile = |mistake: &Mistake| tile(mistake, size?, store.sample(split, mistake.index)?.0);
    let tiles: Vec<Tile> = mistakes.worst.iter().filter_map(tile).collect();
    if !tiles.is_empty() {
        print(&format!("\n{}", digits::terminal(&tiles, columns(), ink())));
    }
    Ok(())
}

fn headline(mistakes: &Mistakes, split: Split) -> String {
    let (samples, shown) = (thousands(mistakes.samples.into()), mistakes.worst.len());
    match mistakes.wrong {
        Some(0) => format!("All {samples} samples of the {split} split are predicted right.\n"),
        Some(wrong) => {
            let wrong = thousands(wrong.into());
            format!(
                "{wrong} of {samples} samples of the {split} split are wrong; the {shown} most confident ones:\n"
            )
        }
        None => format!("The {shown} largest errors of {samples} samples of the {split} split:\n"),
    }
}

/// What `--json` prints of a class.
#[derive(Debug, Serialize)]
struct ClassLine {
    index: u32,
    label: u32,
    label_name: String,
    class: u32,
    class_name: String,
    probability: f32,
}

/// What `--json` prints of numbers.
#[derive(Debug, Serialize)]
struct ValuesLine<'a> {
    index: u32,
    targets: &'a [f32],
    values: &'a [f32],
    error: f32,
}

fn as_json(Mistake { index, miss }: &Mistake, inputs: &Inputs) -> String {
    let index = *index;
    match miss {
        &Miss::Class(WrongClass { label, class, probability }) => {
            let (label_name, class_name) = (inputs.class_name(label), inputs.class_name(class));
            json_line(&ClassLine { index, label, label_name, class, class_name, probability })
        }
        Miss::Values { targets, values, error } => {
            json_line(&ValuesLine { index, targets, values, error: *error })
        }
    }
}

fn as_table(mistakes: &[Mistake], inputs: &Inputs) -> Table<'static> {
    let are_classes = mistakes.iter().all(|mistake| matches!(mistake.miss, Miss::Class(_)));
    let last = Column::Right(if are_classes { "probability" } else { "error" });
    let mut table =
        Table::new([Column::Right("sample"), Column::Right("true"), Column::Right("predicted"), last]);
    for Mistake { index, miss } in mistakes {
        let cells = match miss {
            &Miss::Class(WrongClass { label, class, probability }) => {
                [inputs.class_name(label), inputs.class_name(class), format!("{probability:.4}")]
            }
            Miss::Values { targets, values, error } => [listed(targets), listed(values), error.to_string()],
        };
        table.row([index.to_string()].into_iter().chain(cells));
    }
    table
}

fn listed(values: &[f32]) -> String {
    values.iter().map(f32::to_string).collect::<Vec<_>>().join(", ")
}

fn tile(mistake: &Mistake, (rows, columns): (usize, usize), pixels: &[u8]) -> Option<Tile> {
    let Miss::Class(WrongClass { label, class, .. }) = mistake.miss else { return None };
    Some(Tile::predicted(Grey::new(columns, rows, pixels.to_vec())?, class, label))
}
