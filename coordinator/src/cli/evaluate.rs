//! `coordinator evaluate`: loss and accuracy of a saved model, without training.
//!
//! Pieces and reduction tree are those of training, so the results match the history's last row bit for bit.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use millefeuille_core::data::split::Split;
use millefeuille_program::machine::Cores;
use serde::Serialize;

use super::saved::{Trained, Which};
use super::{Result, print};
use crate::replay::Replay;

/// Evaluate a saved model on its validation split and its test set, without training
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator evaluate runs/article-1
  coordinator evaluate runs/article-1 --json
  coordinator evaluate runs/article-1 --checkpoint")]
pub(super) struct Args {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The data's directory, if it has moved
    #[arg(long, value_name = "DIR", env = "MILLEFEUILLE_DATA")]
    data: Option<String>,
    /// Evaluate the newest checkpoint, as of a run that is not done
    #[arg(long)]
    checkpoint: bool,
    /// Print a JSON object with unrounded numbers
    #[arg(long)]
    json: bool,
}

/// The fields of the history's last row that can be computed from a saved model.
#[derive(Debug, Serialize)]
struct Evaluation {
    val_loss: Option<f64>,
    val_accuracy: Option<f64>,
    test_loss: Option<f64>,
    test_accuracy: Option<f64>,
}

pub(super) fn run(args: Args) -> Result {
    let which = if args.checkpoint { Which::NewestCheckpoint } else { Which::Model };
    let trained = Trained::open(&args.run, args.data.as_deref(), which)?;
    let mut replay = Replay::new(&trained.store, &trained.workload, Cores::of_this_process().usable());
    let mut evaluate = |split| replay.evaluate(&trained.parameters, split);
    let validation = evaluate(Split::Validation);
    let test = evaluate(Split::Test);
    let evaluation = Evaluation {
        val_loss: validation.map(|sums| sums.loss()),
        val_accuracy: validation.and_then(|figures| trained.workload.accuracy(&figures)),
        test_loss: test.map(|sums| sums.loss()),
        test_accuracy: test.and_then(|figures| trained.workload.accuracy(&figures)),
    };
    if args.json {
        print(&(serde_json::to_string(&evaluation).unwrap_or_default() + "\n"));
        return Ok(());
    }
    let Evaluation { val_loss, val_accuracy, test_loss, test_accuracy } = evaluation;
    let lines = [
        ("Validation loss:", val_loss),
        ("Validation accuracy:", val_accuracy),
        ("Test loss:", test_loss),
        ("Test accuracy:", test_accuracy),
    ];
    for (name, figure) in lines.into_iter().filter_map(|(name, figure)| Some((name, figure?))) {
        print(&format!("{name:<20} {figure:.3}\n"));
    }
    Ok(())
}
