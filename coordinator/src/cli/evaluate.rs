//! `coordinator evaluate`: loss and metrics of a saved model, without training, and the confusion matrix of classes.
//!
//! Pieces and reduction tree are those of training, so the results match the history's last row bit for bit.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use millefeuille_core::data::split::Split;
use millefeuille_core::learn::metrics::OfClass;
use millefeuille_core::learn::sum::Figures;
use millefeuille_core::learn::work::Workload;
use millefeuille_program::machine::Cores;
use serde::Serialize;

use super::saved::{Trained, Which};
use super::{Result, columns, print};
use crate::replay::Replay;
use crate::see::confusion;

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

/// The fields of the history's last row that can be computed from a saved model, and the confusion matrices.
#[derive(Debug, Serialize)]
struct Evaluation {
    val_loss: Option<f64>,
    val_accuracy: Option<f64>,
    test_loss: Option<f64>,
    test_accuracy: Option<f64>,
    #[serde(flatten)]
    more: BTreeMap<String, Option<f64>>,
    #[serde(flatten)]
    classes: BTreeMap<String, Vec<OfClass>>,
    #[serde(flatten)]
    matrices: BTreeMap<String, Vec<Vec<u64>>>,
}

pub(super) fn run(args: Args) -> Result {
    let which = if args.checkpoint { Which::NewestCheckpoint } else { Which::Model };
    let trained = Trained::open(&args.run, args.data.as_deref(), which)?;
    let mut replay = Replay::new(&trained.store, &trained.workload, Cores::of_this_process().usable());
    let mut evaluate = |split| replay.evaluate(&trained.parameters, split);
    let (validation, test) = (evaluate(Split::Validation), evaluate(Split::Test));
    if args.json {
        let evaluation = as_json(&trained.workload, validation.as_ref(), test.as_ref());
        print(&(serde_json::to_string(&evaluation).unwrap_or_default() + "\n"));
        return Ok(());
    }
    let splits = [(Split::Validation, validation, "Validation"), (Split::Test, test, "Test")];
    for (split, figures, name) in &splits {
        if let Some(figures) = figures {
            print(&figures_as_text(&trained.workload, *split, figures, name));
        }
    }
    for (_, figures, name) in splits {
        if let Some(confusion) = figures.and_then(|figures| trained.workload.confusion(&figures)) {
            print(&format!("\n{name} by class:\n{}", confusion::tables(&confusion, columns())));
        }
    }
    Ok(())
}

fn as_json(workload: &Workload, validation: Option<&Figures>, test: Option<&Figures>) -> Evaluation {
    let (mut more, mut classes, mut matrices) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (split, figures, prefix) in [(Split::Validation, validation, "val_"), (Split::Test, test, "test_")] {
        let Some(figures) = figures else { continue };
        let metrics = workload.metrics(split, figures);
        more.extend(metrics.map(|(name, figure)| (format!("{prefix}{name}"), figure)));
        if let Some(confusion) = workload.confusion(figures) {
            classes.insert(format!("{prefix}classes"), confusion.by_class().collect());
            matrices.insert(format!("{prefix}confusion_matrix"), confusion.matrix);
        }
    }
    Evaluation {
        val_loss: validation.map(Figures::loss),
        val_accuracy: validation.and_then(|figures| workload.accuracy(figures)),
        test_loss: test.map(Figures::loss),
        test_accuracy: test.and_then(|figures| workload.accuracy(figures)),
        more,
        classes,
        matrices,
    }
}

/// A line for the loss and for each metric of a split.
fn figures_as_text(workload: &Workload, split: Split, figures: &Figures, name: &str) -> String {
    let line = |(metric, figure): (String, Option<f64>)| {
        let figure = figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.3}"));
        format!("{:<20} {figure}\n", format!("{name} {metric}:"))
    };
    let loss = ("loss".to_owned(), Some(figures.loss()));
    let accuracy = workload.accuracy(figures).map(|accuracy| ("accuracy".to_owned(), Some(accuracy)));
    std::iter::once(loss).chain(accuracy).chain(workload.metrics(split, figures)).map(line).collect()
}
