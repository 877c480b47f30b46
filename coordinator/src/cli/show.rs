//! `coordinator show`: prints data, a model's summary, or a run's report.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use millefeuille_core::data::schema::{Schema, Target};
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::data::split::Split;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::{Job, Metric};
use millefeuille_core::learn::metrics::{Confusion, OfClass};
use millefeuille_core::learn::model::Model;
use millefeuille_core::view::{EpochRow, Prediction};
use millefeuille_program::machine::Cores;
use serde::Serialize;

use super::given::Given;
use super::job::{DataFlags, SourceFlag};
use super::saved::{Trained, Which};
use super::watch::json_line;
use super::{Failed, Result, columns, ink, print, watch_job};
use crate::replay::Replay;
use crate::report::{self, PICTURED};
use crate::runs::SavedRun;
use crate::see::data::{self, Overview};
use crate::see::{confusion, digits, summary};

/// Print data, a model's summary, or a run's report
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator show data --svg digits.svg
  coordinator show model
  coordinator show run runs/article-1")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// The first training images, before and after preprocessing
    #[command(
        after_help = "Examples:\n  coordinator show data\n  coordinator show data --data ~/fashion-mnist --svg clothes.svg"
    )]
    Data {
        /// The job file [default: the article's job]
        #[arg(value_name = "JOB.toml")]
        job: Option<PathBuf>,
        #[command(flatten)]
        flags: DataFlags,
        /// Also write the images into this SVG file
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        #[command(flatten)]
        form: Form,
    },
    /// The model's layers, as Keras' summary
    #[command(after_help = "Examples:\n  coordinator show model jobs/article.toml")]
    Model {
        /// The job file [default: the article's job]
        #[arg(value_name = "JOB.toml")]
        job: Option<PathBuf>,
        #[command(flatten)]
        flag: SourceFlag,
        #[command(flatten)]
        form: Form,
    },
    /// A run's history as table and chart, and its predictions
    #[command(
        after_help = "Examples:\n  coordinator show run runs/article-1\n  coordinator show run runs/article-1 --json"
    )]
    Run {
        /// The run directory
        #[arg(value_name = "RUN")]
        run: PathBuf,
        #[command(flatten)]
        form: Form,
    },
}

/// For people, or for programs.
#[derive(Clone, Copy, Debug, ClapArgs)]
struct Form {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args, given: &Given) -> Result {
    match args.what {
        What::Data { job, flags, svg, form } => data(&flags.resolve(job.as_deref(), given)?, svg, form),
        What::Model { job, flag, form } => model(&flag.resolve(job.as_deref(), given)?, form),
        What::Run { run, form } if form.json => run_as_json(&SavedRun::open(&run)?),
        What::Run { run, .. } => report(&SavedRun::open(&run)?),
    }
}

fn data(job: &Job, svg: Option<PathBuf>, form: Form) -> Result {
    let store = store(job)?;
    let (tiles, overview) = (report::first_training_tiles(&store), of_data(job, &store));
    if form.json {
        print(&json_line(&DataReport::of(&overview)));
    } else {
        print(&format!("The first {PICTURED} training images:\n"));
        print(&digits::terminal(&tiles, columns(), ink()));
        print(&format!("\n{}", data::overview(&overview, columns())));
    }
    if let Some(path) = svg {
        std::fs::write(&path, digits::svg(&tiles))
            .map_err(|error| Failure::of_file(path.display(), "cannot be written", &error))?;
        if !form.json {
            print(&format!("\nThe pictures are in {}\n", path.display()));
        }
    }
    Ok(())
}

/// What `show data --json` prints.
#[derive(Debug, Serialize)]
struct DataReport {
    train_samples: usize,
    validation_samples: usize,
    test_samples: usize,
    /// The sides of an image.
    shape: Vec<u32>,
    /// The smallest and the largest input after preprocessing.
    values: (f32, f32),
    /// The first training labels.
    first_labels: Vec<u32>,
}

impl DataReport {
    fn of(overview: &Overview) -> Self {
        Self {
            train_samples: overview.train - overview.validation,
            validation_samples: overview.validation,
            test_samples: overview.test,
            shape: overview.schema.features.shape.clone(),
            values: overview.values,
            first_labels: overview.first.iter().map(|(label, _)| *label).collect(),
        }
    }
}

fn of_data(job: &Job, store: &ShardStore) -> Overview {
    let images = report::first_images(store, Split::Train);
    let first = images.into_iter().map(|(_, label)| (label, one_hot(label, store.schema().target)));
    let sizes = store.sizes();
    Overview {
        train: (sizes.train + sizes.validation) as usize,
        test: sizes.test as usize,
        schema: Schema::clone(store.schema()),
        values: (0.0, 255.0 * job.data.scale),
        validation_split: job.data.validation_split,
        validation: sizes.validation as usize,
        first: first.collect(),
    }
}

fn store(job: &Job) -> Result<ShardStore> {
    let dataset = crate::data::read(&job.data.source)?;
    Ok(ShardStore::new(dataset, job.data.validation_split, job.shards))
}

fn one_hot(label: u32, target: Target) -> Vec<f32> {
    let Target::Class { classes } = target else { return Vec::new() };
    (0..classes).map(|class| if class == label { 1.0 } else { 0.0 }).collect()
}

fn model(job: &Job, form: Form) -> Result {
    let inputs = store(job)?.schema().features.width();
    let layers = Model::new(inputs, &job.layers).summary().into_iter().map(|row| summary::Layer {
        name: row.name,
        kind: row.kind.to_string(),
        output: row.output_shape,
        params: row.parameters as u64,
    });
    let layers: Vec<_> = layers.collect();
    if form.json {
        print(&json_line(&layers));
    } else {
        print(&summary::summary("sequential", &layers, columns()));
    }
    Ok(())
}

/// What `show run --json` prints.
#[derive(Debug, Serialize)]
struct RunReport {
    run_dir: String,
    /// Whether the job is done.
    done: bool,
    epochs: u32,
    history: Vec<EpochRow>,
    /// Of a job that is done.
    weights_sha256: Option<String>,
    /// The classes that the model predicts for the first test images, and the true ones.
    predictions: Vec<Shown>,
    /// The figures of each class on the test set, if the job asks for metrics by class.
    #[serde(skip_serializing_if = "Option::is_none")]
    test_classes: Option<Vec<OfClass>>,
    /// The confusion matrix of the test set, under the same condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    test_confusion_matrix: Option<Vec<Vec<u64>>>,
}

#[derive(Debug, Serialize)]
struct Shown {
    class: u32,
    label: u32,
}

fn run_as_json(run: &SavedRun) -> Result {
    let receipt = run.receipt()?;
    let Results { shown, confusion } = receipt.as_ref().map_or(Ok(Results::default()), |_| results(run))?;
    print(&json_line(&RunReport {
        run_dir: run.path().display().to_string(),
        done: receipt.is_some(),
        epochs: run.job()?.fit.epochs,
        history: if receipt.is_some() { run.history()? } else { run.whole_history()? },
        weights_sha256: receipt.map(|receipt| receipt.weights_sha256),
        predictions: shown.iter().map(|shown| Shown { class: shown.class, label: shown.label }).collect(),
        test_classes: confusion.as_ref().map(|confusion| confusion.by_class().collect()),
        test_confusion_matrix: confusion.map(|confusion| confusion.matrix),
    }));
    Ok(())
}

/// What the model of a run that is done makes of the test set.
#[derive(Debug, Default)]
struct Results {
    /// The first test images with the model's answers.
    shown: Vec<Prediction>,
    /// If the job asks for metrics by class.
    confusion: Option<Confusion>,
}

fn results(run: &SavedRun) -> Result<Results> {
    let trained = Trained::open(run.path(), None, Which::Model)?;
    let by_class = [Metric::Precision, Metric::Recall, Metric::F1Score, Metric::ConfusionMatrix];
    let is_asked_for = run.job()?.compile.metrics.iter().any(|metric| by_class.contains(metric));
    let confusion = is_asked_for.then(|| {
        let mut replay = Replay::new(&trained.store, &trained.workload, Cores::of_this_process().usable());
        trained.workload.confusion(&replay.evaluate(&trained.parameters, Split::Test)?)
    });
    let shown = report::first_test_images(&trained.store, &trained.workload, &trained.parameters);
    Ok(Results { shown, confusion: confusion.flatten() })
}

/// Prints history, chart, test figures and, for a run that is done, the first test images with their predictions.
pub(super) fn report(run: &SavedRun) -> Result {
    let history = if run.is_done() { run.history()? } else { run.whole_history()? };
    if history.is_empty() {
        let message = format!("{}: no epoch is finished yet", run.path().display());
        return Err(Failed::new(FailureKind::Data, message));
    }
    let receipt = run.receipt()?;
    let Results { shown, confusion } = match &receipt {
        None => Results::default(),
        Some(_) => results(run)?,
    };
    print(&watch_job::summary(&history, &shown));
    if let Some(confusion) = confusion {
        print(&format!("\nTest by class:\n{}", confusion::tables(&confusion, columns())));
    }
    match receipt {
        Some(receipt) => {
            if let Some(stopped) = receipt.stopped {
                print(&format!("\nTraining {stopped}.\n"));
            }
            print(&format!("\nweights_sha256 {}\n", receipt.weights_sha256));
        }
        None => print(&format!("\nThe job is not done: {} epochs are finished.\n", history.len())),
    }
    Ok(())
}
