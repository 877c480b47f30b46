//! `coordinator show`: prints data, a model's summary, or a run's report.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use millefeuille_core::data::schema::{Schema, Target};
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::data::split::Split;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::Job;
use millefeuille_core::learn::model::Model;

use super::given::Given;
use super::job::JobFlags;
use super::saved::{Trained, Which};
use super::{Failed, Result, columns, ink, print, watch_job};
use crate::report::{self, PICTURED};
use crate::runs::SavedRun;
use crate::see::data::{Overview, overview};
use crate::see::{digits, summary};

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
    Data {
        #[command(flatten)]
        job: JobArgs,
        /// Also write the images into this SVG file
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// The model's layers, as Keras' summary
    Model {
        #[command(flatten)]
        job: JobArgs,
    },
    /// A run's history as table and chart, and its predictions
    Run {
        /// The run directory
        #[arg(value_name = "RUN")]
        run: PathBuf,
    },
}

#[derive(Clone, Debug, ClapArgs)]
struct JobArgs {
    /// The job file [default: the article's job]
    #[arg(value_name = "JOB.toml")]
    job: Option<PathBuf>,
    #[command(flatten)]
    flags: JobFlags,
}

impl JobArgs {
    fn resolve(&self, given: &Given) -> Result<Job> {
        self.flags.resolve_here(self.job.as_deref(), given)
    }
}

pub(super) fn run(args: Args, given: &Given) -> Result {
    match args.what {
        What::Data { job, svg } => data(&job.resolve(given)?, svg),
        What::Model { job } => model(&job.resolve(given)?),
        What::Run { run } => report(&SavedRun::open(&run)?),
    }
}

fn data(job: &Job, svg: Option<PathBuf>) -> Result {
    let store = store(job)?;
    let images = report::first_images(&store, Split::Train);
    let first = images.into_iter().map(|(_, label)| (label, one_hot(label, store.schema().target)));
    let sizes = store.sizes();
    print(&format!("The first {PICTURED} training images:\n"));
    let tiles = report::first_training_tiles(&store);
    print(&digits::terminal(&tiles, columns(), ink()));
    print(
        &("\n".to_string()
            + &overview(
                &Overview {
                    train: (sizes.train + sizes.validation) as usize,
                    test: sizes.test as usize,
                    schema: Schema::clone(store.schema()),
                    values: (0.0, 255.0 * job.data.scale),
                    validation_split: job.data.validation_split,
                    validation: sizes.validation as usize,
                    first: first.collect(),
                },
                columns(),
            )),
    );
    if let Some(path) = svg {
        std::fs::write(&path, digits::svg(&tiles))
            .map_err(|error| Failure::of_file(path.display(), "cannot be written", &error))?;
        print(&format!("\nThe pictures are in {}\n", path.display()));
    }
    Ok(())
}

fn store(job: &Job) -> Result<ShardStore> {
    let dataset = crate::data::read(&job.data.source)?;
    Ok(ShardStore::new(dataset, job.data.validation_split, job.shards))
}

fn one_hot(label: u32, target: Target) -> Vec<f32> {
    let Target::Class { classes } = target else { return Vec::new() };
    (0..classes).map(|class| if class == label { 1.0 } else { 0.0 }).collect()
}

fn model(job: &Job) -> Result {
    let inputs = store(job)?.schema().features.width();
    let layers = Model::new(inputs, &job.layers).summary().into_iter().map(|row| summary::Layer {
        name: row.name,
        kind: row.kind.to_string(),
        output: row.output_shape,
        params: row.parameters as u64,
    });
    print(&summary::summary("sequential", &layers.collect::<Vec<_>>(), columns()));
    Ok(())
}

/// Prints history, chart, test figures and, for a run that is done, the first test images with their predictions.
pub(super) fn report(run: &SavedRun) -> Result {
    let history = if run.is_done() { run.history()? } else { run.whole_history()? };
    if history.is_empty() {
        let message = format!("{}: no epoch is finished yet", run.path().display());
        return Err(Failed::new(FailureKind::Data, message));
    }
    let receipt = run.receipt()?;
    let shown = match &receipt {
        None => Vec::new(),
        Some(_) => {
            let trained = Trained::open(run.path(), None, Which::Model)?;
            report::first_test_images(&trained.store, &trained.workload, &trained.parameters)
        }
    };
    print(&watch_job::summary(&history, &shown));
    match receipt {
        Some(receipt) => print(&format!("\nweights_sha256 {}\n", receipt.weights_sha256)),
        None => print(&format!("\nThe job is not done: {} epochs are finished.\n", history.len())),
    }
    Ok(())
}
