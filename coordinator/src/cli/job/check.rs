//! `coordinator job check`: whether a job is valid, what it will read, and what it will cost.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use millefeuille_core::data::dataset::DataFile;
use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::schema::Target;
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::job::{Job, Source};
use millefeuille_core::learn::memory;
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::spec::Spec;
use millefeuille_program::machine::Cores;
use serde::Serialize;

use super::flags::JobFlags;
use crate::cli::given::Given;
use crate::cli::watch::json_line;
use crate::cli::{Result, columns, print, show};
use crate::cluster::load;
use crate::data::Reading;
use crate::init;
use crate::see::{self, summary, thousands};

/// Check a job: is it valid, what will it read, and what will it cost
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator job check houses.toml
  coordinator job check houses.toml --set layers[0].units=512 --json

Reads the data, trains nothing. A job that is not valid exits with 2, data that
cannot be read with 3. Bytes and memory are estimates for this machine's cores.")]
pub(super) struct Args {
    /// The job file [default: the article's job]
    #[arg(value_name = "FILE")]
    job: Option<PathBuf>,
    #[command(flatten)]
    flags: JobFlags,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    data: DataReport,
    layers: Vec<summary::Layer>,
    parameters: u64,
    /// Mini-batches of an epoch.
    steps_per_epoch: u32,
    /// Steps of the optimizer in all epochs.
    optimizer_steps: u64,
    /// Bytes to each worker in a step, over the wire or through shared memory; at least as many come back.
    step_bytes: u64,
    memory: MemoryReport,
}

#[derive(Debug, Serialize)]
struct DataReport {
    source: String,
    files: Vec<String>,
    train_samples: u32,
    validation_samples: u32,
    test_samples: u32,
    /// The shape of a sample's inputs, and the type that they are kept in.
    shape: Vec<u32>,
    element: String,
    /// The names of the classes; empty if the target is numbers.
    classes: Vec<String>,
    /// The names of the numbers to learn, as far as they have any.
    targets: Vec<String>,
    /// How many classes or numbers there are.
    target: String,
}

#[derive(Debug, Serialize)]
struct MemoryReport {
    coordinator_bytes: u64,
    /// Of a worker with this many slots, apart from its samples.
    worker_bytes: u64,
    slots: u32,
    /// Samples of all workers together.
    sample_bytes: u64,
}

pub(super) fn run(args: Args, given: &Given) -> Result {
    let job = args.flags.resolve_here(args.job.as_deref(), given)?;
    let (store, spec, init) = load::read_checked(&job, None, &Reading::default())?;
    init::parameters(&job, &Model::new(spec.inputs(), &job.layers), init.as_ref())?;
    let report = Report::new(&job, &store, &spec);
    print(&if args.json { json_line(&report) } else { text(&report) });
    Ok(())
}

impl Report {
    fn new(job: &Job, store: &ShardStore, spec: &Spec) -> Self {
        let steps_per_epoch = Plan::new(spec.sizes.train, spec.batch_size, spec.shards).steps();
        let optimizer_steps = u64::from(steps_per_epoch.div_ceil(job.fit.accumulate));
        Self {
            name: job.name.clone(),
            data: DataReport::new(&job.data.source, store),
            layers: show::layers(&Model::new(spec.inputs(), &job.layers)),
            parameters: spec.parameters(),
            steps_per_epoch,
            optimizer_steps: optimizer_steps * u64::from(job.fit.epochs),
            step_bytes: memory::of_parameters(spec),
            memory: MemoryReport::new(job, spec),
        }
    }
}

impl DataReport {
    fn new(source: &Source, store: &ShardStore) -> Self {
        let (sizes, schema, inputs) = (store.sizes(), store.schema(), store.inputs());
        let classes = match schema.target {
            Target::Class { classes } => (0..classes).map(|class| inputs.class_name(class)).collect(),
            Target::Reals { .. } => Vec::new(),
        };
        Self {
            source: source.to_string(),
            files: store.files().iter().map(|DataFile { name, .. }| name.clone()).collect(),
            train_samples: sizes.train,
            validation_samples: sizes.validation,
            test_samples: sizes.test,
            shape: schema.features.shape.clone(),
            element: schema.features.element.to_string(),
            classes,
            targets: inputs.targets.clone(),
            target: schema.target.to_string(),
        }
    }
}

impl MemoryReport {
    fn new(job: &Job, spec: &Spec) -> Self {
        let slots = Cores::of_this_process().usable();
        Self {
            coordinator_bytes: memory::of_coordinator(spec, &job.compile.optimizer),
            worker_bytes: memory::of_job(spec, slots),
            slots,
            sample_bytes: memory::of_all_samples(spec),
        }
    }
}

fn text(report: &Report) -> String {
    let Report { name, data, layers, steps_per_epoch, optimizer_steps, step_bytes, memory, .. } = report;
    let MemoryReport { coordinator_bytes, worker_bytes, slots, sample_bytes } = memory;
    let epoch = thousands((*steps_per_epoch).into());
    let lines = [
        format!("The job {name} is valid."),
        String::new(),
        format!("data:    {}", of_data(data)),
        format!("inputs:  {} {} → {}", sides(&data.shape), data.element, data.target),
        format!("steps:   {epoch} an epoch; {} of the optimizer in all", thousands(*optimizer_steps)),
        format!("wire:    {} to each worker in a step, and at least as much from it", megabytes(*step_bytes)),
        format!(
            "memory:  about {} in the coordinator, {} in a worker with {slots} slots, {} of samples in all workers",
            megabytes(*coordinator_bytes),
            megabytes(*worker_bytes),
            megabytes(*sample_bytes)
        ),
        String::new(),
    ];
    let lines = lines.iter().map(|line| see::folded(line, columns(), INDENT) + "\n");
    lines.chain([summary::summary("sequential", layers, columns())]).collect()
}

/// The column at which the text after a name begins.
const INDENT: usize = 9;

fn of_data(data: &DataReport) -> String {
    let DataReport { source, train_samples, validation_samples, test_samples, .. } = data;
    let samples = |count: u32| thousands(count.into());
    format!(
        "{source}: {} train / {} validation / {} test",
        samples(*train_samples),
        samples(*validation_samples),
        samples(*test_samples)
    )
}

fn sides(shape: &[u32]) -> String {
    shape.iter().map(u32::to_string).collect::<Vec<_>>().join(" × ")
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
