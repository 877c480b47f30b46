//! `coordinator show`: prints data, a model's summary, or a run's report.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use millefeuille_core::data::inputs::{Column, ColumnKind, Inputs};
use millefeuille_core::data::normalize::Normalizer;
use millefeuille_core::data::schema::{Element, Features, Schema, Target};
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::data::split::Split;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::{Job, Metric};
use millefeuille_core::learn::metrics::{Confusion, OfClass};
use millefeuille_core::learn::model::{Model, SummaryRow};
use millefeuille_core::view::{EpochRow, Prediction};
use millefeuille_program::machine::Cores;
use serde::Serialize;

use super::given::Given;
use super::job::flags::{DataFlags, SourceFlag};
use super::saved::{Trained, Which};
use super::watch::json_line;
use super::{Failed, Result, columns, ink, print, watch_job};
use crate::replay::Replay;
use crate::report::{self, PICTURED};
use crate::runs::SavedRun;
use crate::see::data::{self, ColumnOverview, Overview};
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
        if !tiles.is_empty() {
            print(&format!("The first {PICTURED} training images:\n"));
            print(&(digits::terminal(&tiles, columns(), ink()) + "\n"));
        }
        print(&data::overview(&overview, columns()));
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
    /// A table's columns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    columns: Vec<ColumnOverview>,
    /// The classes, with the training samples that each has.
    classes: Vec<(String, usize)>,
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
            columns: overview.columns.clone(),
            classes: overview.classes.clone(),
        }
    }
}

fn of_data(job: &Job, store: &ShardStore) -> Overview {
    let target = store.schema().target;
    let first = match target {
        Target::Class { .. } => report::first_images(store, Split::Train),
        Target::Reals { .. } => Vec::new(),
    };
    let first = first.into_iter().map(|(_, label)| (label, one_hot(label, target)));
    let (sizes, ranges) = (store.sizes(), ranges(store));
    let low = ranges.iter().fold(f32::INFINITY, |low, range| low.min(range.0));
    let high = ranges.iter().fold(f32::NEG_INFINITY, |high, range| high.max(range.1));
    Overview {
        train: (sizes.train + sizes.validation) as usize,
        test: sizes.test as usize,
        schema: Schema::clone(store.schema()),
        values: match store.schema().features.element {
            Element::U8 => (0.0, 255.0 * job.data.scale),
            Element::F32 => (low * job.data.scale, high * job.data.scale),
        },
        columns: columns_of(store.inputs(), &ranges),
        classes: class_counts(store),
        targets: store.inputs().targets.clone(),
        validation_split: job.data.validation_split,
        validation: sizes.validation as usize,
        first: first.collect(),
    }
}

/// The smallest and the largest value of each feature in the training split, if features are numbers of 32 bits.
fn ranges(store: &ShardStore) -> Vec<(f32, f32)> {
    let Features { element: Element::F32, .. } = store.schema().features else { return Vec::new() };
    let width = store.schema().features.width();
    let mut ranges = vec![(f32::INFINITY, f32::NEG_INFINITY); width];
    for (_, stored) in store.iter().filter(|(shard, _)| shard.split == Split::Train) {
        let values =
            stored.samples.features().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        for (place, value) in values.enumerate() {
            let (low, high) = &mut ranges[place % width];
            (*low, *high) = (low.min(value), high.max(value));
        }
    }
    ranges
}

/// A table's columns with their ranges: as the file has them, and as the model sees them.
fn columns_of(inputs: &Inputs, seen: &[(f32, f32)]) -> Vec<ColumnOverview> {
    let mut first = 0;
    let column = |column: &Column| {
        let (place, raw) = (first, |place: usize, value: f32| match &inputs.normalization {
            None => value,
            Some(Normalizer { offset, divisor }) => value * divisor[place] + offset[place],
        });
        first += column.width();
        let (name, (low, high)) = (column.name.clone(), seen.get(place).copied().unwrap_or_default());
        match &column.kind {
            ColumnKind::Number { .. } => ColumnOverview {
                name,
                range: Some((raw(place, low), raw(place, high))),
                seen: (low, high),
                categories: Vec::new(),
            },
            ColumnKind::Categories(categories) => {
                ColumnOverview { name, range: None, seen: (low, high), categories: categories.clone() }
            }
        }
    };
    inputs.columns.iter().map(column).collect()
}

/// The classes with their training samples; none if the target has none.
fn class_counts(store: &ShardStore) -> Vec<(String, usize)> {
    let target = store.schema().target;
    let Target::Class { classes } = target else { return Vec::new() };
    let mut counts = vec![0; classes as usize];
    for (_, stored) in store.iter().filter(|(shard, _)| shard.split == Split::Train) {
        for bytes in stored.samples.targets().chunks_exact(target.bytes()) {
            counts[target.class(bytes) as usize] += 1;
        }
    }
    counts
        .into_iter()
        .enumerate()
        .map(|(class, count)| (store.inputs().class_name(class as u32), count))
        .collect()
}

fn store(job: &Job) -> Result<ShardStore> {
    let dataset = crate::data::read(job)?;
    Ok(ShardStore::new(dataset, job.shards))
}

fn one_hot(label: u32, target: Target) -> Vec<f32> {
    let Target::Class { classes } = target else { return Vec::new() };
    (0..classes).map(|class| if class == label { 1.0 } else { 0.0 }).collect()
}

/// The model's layers for the summary.
pub(super) fn layers(model: &Model) -> Vec<summary::Layer> {
    let layer = |row: SummaryRow| summary::Layer {
        name: row.name,
        kind: row.kind.to_string(),
        output: row.output_shape,
        params: row.parameters as u64,
    };
    model.summary().into_iter().map(layer).collect()
}

fn model(job: &Job, form: Form) -> Result {
    let inputs = store(job)?.schema().features.width();
    let layers = layers(&Model::new(inputs, &job.layers));
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
