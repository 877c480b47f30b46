//! `coordinator evaluate`: loss and accuracy of a saved model, without training.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use millefeuille_core::data::shard::Shard;
use millefeuille_core::data::split::Split;
use millefeuille_core::learn::piece::{Learner, PieceOutcome, Scratch, ShardSamples};
use millefeuille_core::learn::tree::{Node, Reduction, Tree};
use serde::Serialize;

use super::saved::Trained;
use super::{Result, print};

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
    let validation = (trained.spec.sizes.validation > 0).then(|| evaluate(&trained, Split::Validation));
    let (test_loss, test_accuracy) = evaluate(&trained, Split::Test);
    let evaluation = Evaluation {
        val_loss: validation.map(|(loss, _)| loss),
        val_accuracy: validation.map(|(_, accuracy)| accuracy),
        test_loss,
        test_accuracy,
    };
    if args.json {
        print(&(serde_json::to_string(&evaluation).unwrap_or_default() + "\n"));
        return Ok(());
    }
    if let Some((loss, accuracy)) = validation {
        print(&format!("Validation loss:     {loss:.3}\nValidation accuracy: {accuracy:.3}\n"));
    }
    print(&format!("Test loss:           {test_loss:.3}\nTest accuracy:       {test_accuracy:.3}\n"));
    Ok(())
}

/// Mean loss and accuracy over a split: the pieces and the tree of training, so the bits are those of the history.
fn evaluate(trained: &Trained, split: Split) -> (f64, f64) {
    let Trained { store, spec, model, parameters, .. } = trained;
    let learner = Learner { model, spec, parameters };
    let present = (0..spec.shards.min(spec.sizes.of(split))).collect();
    let mut reduction = Reduction::new(Tree::new(spec.shards), &present);
    let mut scratch = Scratch::default();
    let add = |left: &mut PieceOutcome, right: PieceOutcome| {
        left.loss_sum += right.loss_sum;
        left.correct += right.correct;
        left.count += right.count;
    };
    for index in present {
        let Some(stored) = store.get(Shard { split, index }) else { continue };
        let samples = &stored.samples;
        let samples = ShardSamples {
            shard: index,
            shards: spec.shards,
            width: samples.width(),
            pixels: samples.pixels(),
            labels: samples.labels(),
        };
        reduction.insert(Node::leaf(index), learner.evaluate_piece(&samples, &mut scratch), add);
    }
    let total = reduction.take_root(add);
    total.map_or((0.0, 0.0), |total| {
        (total.loss_sum / total.count as f64, total.correct as f64 / total.count as f64)
    })
}
