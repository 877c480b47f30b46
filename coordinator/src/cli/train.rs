//! `coordinator train`: trains a job, on this machine or on a running cluster, and reports.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{ArgAction, Args as ClapArgs};
use millefeuille_core::data::dataset::CLASSES;
use millefeuille_core::job::{BlasKernel, Data, Job, Overrides};
use millefeuille_proto::v1;
use millefeuille_worker::backoff::Backoff;
use millefeuille_worker::process::{self, LogFormat, exit};
use tokio::net::TcpListener;

use super::client::{Client, ClusterArgs, is_gone, request};
use super::follow::{Following, follow};
use super::settings::Settings;
use super::{Failed, Result, runtime};
use crate::cluster::local::Local;
use crate::cluster::{Cluster, Config};
use crate::runs::{Existing, RunDir, SavedRun, holds_a_run};

/// Train a job, follow it, and report. Without --cluster, on this machine with worker processes of its own
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The job file; without one, the article's job
    #[arg(value_name = "JOB.toml")]
    job: Option<PathBuf>,
    #[command(flatten)]
    job_flags: JobFlags,
    /// Train on the cluster of this coordinator
    #[arg(long, value_name = "HOST:PORT", env = "MILLEFEUILLE_CLUSTER", value_parser = process::address, conflicts_with_all = ["run_dir", "resume", "overwrite"])]
    cluster: Option<String>,
    /// How long to try to reach it, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_CONNECT_TIMEOUT", default_value = "10", value_parser = process::seconds)]
    connect_timeout: Duration,
    /// With --cluster: how long to look for a coordinator that was lost, in seconds, each time
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_RECONNECT_TIMEOUT", default_value = "60", value_parser = process::seconds)]
    reconnect_timeout: Duration,
    /// Worker processes on this machine [default: one a core, at least 2, at most the shards]
    #[arg(long, value_name = "N", env = "MILLEFEUILLE_WORKERS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: Option<u32>,
    /// Pieces that each worker computes at once [default: cores / workers, rounded up]
    #[arg(long, value_name = "N", env = "MILLEFEUILLE_SLOTS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,
    /// Where the run goes [default: runs/JOB-NUMBER]
    #[arg(long, value_name = "DIR", env = "MILLEFEUILLE_RUN_DIR")]
    run_dir: Option<PathBuf>,
    /// Go on with the run that is there
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Remove the run that is there first
    #[arg(long)]
    overwrite: bool,
    /// How long to wait for enough workers, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_WAIT_WORKERS", default_value = "60", value_parser = process::seconds)]
    wait_workers: Duration,
    #[command(flatten)]
    settings: Settings,
    /// How the log is written
    #[arg(long, value_enum, env = "MILLEFEUILLE_LOG_FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

const EXAMPLES: &str = "Examples:
  coordinator train --epochs 5
  coordinator train jobs/article.toml --workers 4 --run-dir runs/four
  coordinator train --data ~/fashion-mnist --scale 1/255 --batch-size 100 --learning-rate 0.5
  coordinator train --cluster 127.0.0.1:7070 --epochs 5";

/// What flags say about a job; a flag wins over the job file.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Job")]
pub(super) struct JobFlags {
    /// A name for people and for the run directory
    #[arg(long, env = "MILLEFEUILLE_NAME")]
    name: Option<String>,
    /// `mnist`, or a directory with the four IDX files, gzipped or raw
    #[arg(long, value_name = "DIR", env = "MILLEFEUILLE_DATA")]
    data: Option<String>,
    /// Multiplies every input value: a number, or a fraction such as 1/255
    #[arg(long, env = "MILLEFEUILLE_SCALE", value_parser = millefeuille_core::job::parse_scale, allow_hyphen_values = true)]
    scale: Option<f32>,
    /// The share of the training samples, at the end, that validates
    #[arg(long, value_name = "SHARE", env = "MILLEFEUILLE_VALIDATION_SPLIT", allow_hyphen_values = true)]
    validation_split: Option<f64>,
    /// How often the training samples are gone through
    #[arg(long, env = "MILLEFEUILLE_EPOCHS", allow_hyphen_values = true)]
    epochs: Option<u32>,
    /// Samples in a step, over the whole cluster
    #[arg(long, env = "MILLEFEUILLE_BATCH_SIZE", allow_hyphen_values = true)]
    batch_size: Option<u32>,
    /// Multiplies the batch size, whatever workers do the work
    #[arg(long, env = "MILLEFEUILLE_REPLICAS", allow_hyphen_values = true)]
    replicas: Option<u32>,
    /// The optimizer's learning rate
    #[arg(long, value_name = "RATE", env = "MILLEFEUILLE_LEARNING_RATE", allow_hyphen_values = true)]
    learning_rate: Option<f32>,
    /// Into how many shards each split is cut
    #[arg(long, env = "MILLEFEUILLE_SHARDS", allow_hyphen_values = true)]
    shards: Option<u32>,
    /// The seed of every random number
    #[arg(long, env = "MILLEFEUILLE_SEED", allow_hyphen_values = true)]
    seed: Option<u64>,
    /// Whether each epoch has an order of its own
    #[arg(long, value_name = "true|false", env = "MILLEFEUILLE_SHUFFLE", action = ArgAction::Set)]
    shuffle: Option<bool>,
    /// The BLAS kernel: native, environment, or an OpenBLAS core name
    #[arg(long, value_name = "KERNEL", env = "MILLEFEUILLE_BLAS_KERNEL")]
    blas_kernel: Option<BlasKernel>,
}

impl JobFlags {
    fn overrides(&self) -> Overrides {
        let Self { name, data, scale, validation_split, epochs, batch_size, .. } = self.clone();
        let Self { replicas, learning_rate, shards, seed, shuffle, blas_kernel, .. } = self.clone();
        Overrides {
            name,
            data,
            scale,
            validation_split,
            epochs,
            batch_size,
            replicas,
            learning_rate,
            shards,
            seed,
            shuffle,
            blas_kernel,
        }
    }

    /// The job of this file and these flags, checked.
    pub(super) fn resolve(&self, file: Option<&Path>) -> Result<Job> {
        let text = match file {
            None => None,
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                Failed::new(exit::USAGE, format!("{}: cannot be read: {error}", path.display()))
            })?),
        };
        let name = file.map(|path| path.display().to_string()).unwrap_or_default();
        let job = Job::resolve(text.as_deref().map(|text| (name.as_str(), text)), &self.overrides())?;
        job.check_output(CLASSES.into())?;
        Ok(job)
    }
}

pub(super) fn run(args: Args) -> Result {
    args.settings.check()?;
    let job = args.job_flags.resolve(args.job.as_deref())?;
    match args.cluster.clone() {
        Some(cluster) => on_cluster(&args, cluster, &job),
        None => alone(&args, job),
    }
}

fn on_cluster(args: &Args, cluster: String, job: &Job) -> Result {
    process::start_log(args.log_format, "warn");
    let cluster = ClusterArgs { cluster, connect_timeout: args.connect_timeout };
    runtime()?.block_on(async {
        let mut client = cluster.connect().await?;
        let job_id = submit(&mut client, job, args.connect_timeout).await?;
        let reconnect = Some(ClusterArgs { connect_timeout: args.reconnect_timeout, ..cluster });
        follow(Following { client, job_id, reconnect, log: args.log_format }).await
    })
}

/// Submits a job, and gives its id. Where the coordinator is lost before it answers, this is done again with the same
/// key, which submits it once.
async fn submit(client: &mut Client, job: &Job, limit: Duration) -> Result<String> {
    let submission = v1::SubmitJobRequest { job_toml: job.to_toml(), client_key: process::random_hex() };
    let deadline = Instant::now() + limit;
    let mut backoff = Backoff::new();
    loop {
        let status = match client.submit_job(request(submission.clone())).await {
            Ok(submitted) => return Ok(submitted.into_inner().job_id),
            Err(status) => status,
        };
        let wait = backoff.next_wait();
        if !is_gone(&status) || Instant::now() + wait >= deadline {
            return Err(status.into());
        }
        tokio::time::sleep(wait).await;
    }
}

fn alone(args: &Args, job: Job) -> Result {
    let source =
        crate::data::absolute(&job.data.source).map_err(|message| Failed::new(exit::DATA, message))?;
    let job = Job { data: Data { source, ..job.data }, ..job };
    let there = run_to_resume(args)?;
    let job = there.as_ref().map_or(Ok(job.clone()), |run| resumed(run, job))?;
    // Before anything is made or begun: this may start the process again.
    process::own_kernel(&job.blas_kernel).map_err(|message| Failed::new(exit::USAGE, message))?;
    let run = claim(args, &job)?;
    if let Some(done) = there.filter(|run| run.is_done()) {
        return super::show::report(&done);
    }
    process::start_log(args.log_format, "warn");
    runtime()?.block_on(train(args, job, run))
}

/// With `--resume`: the run that is there, if any.
fn run_to_resume(args: &Args) -> Result<Option<SavedRun>> {
    match &args.run_dir {
        _ if !args.resume => Ok(None),
        None => Err(Failed::new(exit::USAGE, "--resume needs --run-dir, which names the run to go on with")),
        Some(path) if holds_a_run(path) => Ok(Some(SavedRun::open(path)?)),
        Some(_) => Ok(None),
    }
}

/// The job of a run that is resumed, with the kernel that it was begun with. Another job is refused.
fn resumed(run: &SavedRun, job: Job) -> Result<Job> {
    let there = run.job()?;
    let kernel = match job.blas_kernel {
        BlasKernel::Native | BlasKernel::Environment => there.blas_kernel.clone(),
        named @ BlasKernel::Named(_) => named,
    };
    let job = Job { blas_kernel: kernel, name: there.name.clone(), ..job };
    let differences = there.differences(&job);
    if differences.is_empty() {
        return Ok(job);
    }
    let (path, differences) = (run.path().display(), differences.join(", "));
    Err(Failed::new(
        exit::USAGE,
        format!("{path}: --resume with another job: {differences} (--overwrite starts anew)"),
    ))
}

fn claim(args: &Args, job: &Job) -> Result<RunDir> {
    let existing = match (args.resume, args.overwrite) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Overwrite,
        _ => Existing::Refuse,
    };
    match &args.run_dir {
        Some(path) => Ok(RunDir::claim(path, existing)?),
        None => Ok(RunDir::claim_next(Path::new("runs"), &job.name, |_| false)?),
    }
}

/// A cluster on loopback, with one job and workers of its own.
async fn train(args: &Args, job: Job, run: RunDir) -> Result {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener =
        listener.map_err(|error| Failed::new(exit::NOT_ALLOWED, format!("cannot listen: {error}")))?;
    let address = listener.local_addr().map_err(|error| Failed::new(exit::UNEXPECTED, error.to_string()))?;
    let cores = process::cores();
    let workers = args.workers.unwrap_or_else(|| cores.max(2).min(job.shards));
    let slots = args.slots.unwrap_or_else(|| cores.div_ceil(workers));
    let token = process::random_hex();

    let mut config = Config::new(PathBuf::from("runs"));
    config.first_run = Some(run);
    config.token = Some(token.clone());
    args.settings.apply(&mut config);
    config.control.expected_workers = workers.min(job.shards) as usize;
    config.control.wait_workers = Some(args.wait_workers);
    let cluster = Cluster::new(config);
    let handle = cluster.handle();
    let json_log = args.log_format == LogFormat::Json;
    let kernel = job.blas_kernel.clone();
    let local = Local { coordinator: address, token, workers, slots, kernel, json_log }.start(handle);

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let cluster = tokio::spawn(cluster.run(listener, async move { _ = stopped.await }));
    let own = ClusterArgs { cluster: address.to_string(), connect_timeout: args.connect_timeout };
    let followed = async {
        let mut client = own.connect().await?;
        let job_id = submit(&mut client, &job, args.connect_timeout).await?;
        follow(Following { client, job_id, reconnect: None, log: args.log_format }).await
    };
    let followed = followed.await;
    let _ = stop.send(());
    local.stop().await;
    let ended = cluster.await.map_err(anyhow::Error::from).and_then(|ended| ended);
    ended.map_err(|error| Failed::new(exit::UNEXPECTED, format!("the cluster failed: {error:#}")))?;
    followed
}
