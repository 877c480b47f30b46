//! `coordinator train`: trains a job, on this machine or on a running cluster, and reports.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use millefeuille_core::control::{ControlConfig, MAX_WORKERS};
use millefeuille_core::failure::FailureKind;
use millefeuille_core::job::{BlasKernel, Fit, Job};
use millefeuille_program::backoff::Backoff;
use millefeuille_program::kernel;
use millefeuille_program::machine::{Cores, address_space};
use millefeuille_program::output::{self, LogFormat};
use millefeuille_program::process;
use millefeuille_proto::shared::SharedMemory;
use millefeuille_worker::cli::THREADS;
use tokio::net::TcpListener;

use super::client::{Client, ClusterArgs};
use super::given::Given;
use super::job::flags::JobFlags;
use super::settings::{HEADING, SettingsFlags};
use super::watch_job::{WatchedJob, watch_job};
use super::{Failed, Result, ask_for_files, ask_for_threads, runtime, show};
use crate::cluster::local::Local;
use crate::cluster::{Cluster, ClusterConfig, ClusterSettings, LOG_OF_JOBS};
use crate::runs::{Existing, RunDir, SavedRun, holds_a_run};

/// Train a job, watch it, and report. Without --cluster, on this machine with its own worker processes
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The job file [default: the article's job]
    #[arg(value_name = "JOB.toml")]
    job: Option<PathBuf>,
    #[command(flatten)]
    job_flags: JobFlags,
    /// Train on the cluster with this coordinator
    #[arg(long, value_name = "HOST:PORT", env = "MILLEFEUILLE_CLUSTER", value_parser = process::address)]
    cluster: Option<String>,
    /// With --cluster: the directory of a client certificate: ca.crt, tls.crt, tls.key
    #[arg(long, value_name = "DIR", env = "MILLEFEUILLE_CLUSTER_TLS")]
    tls: Option<PathBuf>,
    /// Time limit for connecting to it, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_CONNECT_TIMEOUT", default_value = process::CONNECT_TIMEOUT, value_parser = process::seconds, allow_negative_numbers = true)]
    connect_timeout: Duration,
    /// With --cluster: wait for the coordinator if nobody listens at the address yet
    #[arg(long)]
    wait: bool,
    /// With --cluster: time limit for each reconnection to a lost coordinator, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_RECONNECT_TIMEOUT", default_value = "60", value_parser = process::seconds, allow_negative_numbers = true)]
    reconnect_timeout: Duration,
    /// Worker processes on this machine [default: one for each core, at least 2, at most one for each shard; never below --min-workers]
    #[arg(long, value_name = "N", env = "MILLEFEUILLE_WORKERS", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_WORKERS)), allow_negative_numbers = true)]
    workers: Option<u32>,
    /// Pieces that each worker computes at once [default: cores / workers, rounded up]
    #[arg(long, value_name = "N", env = "MILLEFEUILLE_SLOTS", value_parser = clap::value_parser!(u32).range(1..=process::MAX_SLOTS), allow_negative_numbers = true)]
    slots: Option<u32>,
    /// The run directory [default: runs/JOB-NUMBER]
    #[arg(long, value_name = "DIR", env = "MILLEFEUILLE_RUN_DIR")]
    run_dir: Option<PathBuf>,
    /// Resume the run in the run directory
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Replace the run in the run directory
    #[arg(long)]
    overwrite: bool,
    /// Time limit for waiting for enough workers, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_WAIT_WORKERS", default_value = "60", value_parser = process::seconds, allow_negative_numbers = true)]
    wait_workers: Duration,
    #[command(flatten)]
    settings: SettingsFlags,
    /// Format of the log
    #[arg(long, value_enum, env = "MILLEFEUILLE_LOG_FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

const EXAMPLES: &str = "Examples:
  coordinator train --epochs 5
  coordinator train jobs/article.toml --workers 4 --run-dir runs/four
  coordinator train --data ~/fashion-mnist --scale 1/255 --batch-size 100 --learning-rate 0.5
  coordinator train --cluster 127.0.0.1:7070 --epochs 5";

pub(super) fn run(args: Args, given: &Given) -> Result {
    let settings = args.settings.resolve()?;
    let file = args.job.as_deref();
    let flags = &args.job_flags;
    let job =
        if args.cluster.is_some() { flags.resolve(file, given) } else { flags.resolve_here(file, given) }?;
    let job = of_the_run(&args, given).unwrap_or(Ok(job))?;
    if args.cluster.is_some() {
        check_flags_of_a_cluster(given)?;
    } else if given.typed("tls").is_some() {
        let message =
            "--tls without --cluster: says how to ask a cluster; name its coordinator with --cluster, too";
        return Err(Failed::new(FailureKind::Usage, message));
    }
    match Place::new(args, settings, &job)? {
        Place::Cluster(cluster) => on_cluster(cluster, &job),
        Place::ThisMachine(local) => alone(local, job),
    }
}

/// Where the job is trained.
enum Place {
    Cluster(OnCluster),
    ThisMachine(OnThisMachine),
}

/// Training on a running cluster.
struct OnCluster {
    cluster: ClusterArgs,
    reconnect_timeout: Duration,
    log_format: LogFormat,
}

/// Training on this machine, with a cluster of its own.
struct OnThisMachine {
    workers: u32,
    /// Slots of each worker.
    slots: u32,
    /// `None`: a new one below `runs`.
    run_dir: Option<PathBuf>,
    existing: Existing,
    wait_workers: Duration,
    connect_timeout: Duration,
    settings: ClusterSettings,
    log_format: LogFormat,
}

impl Place {
    fn new(args: Args, settings: ClusterSettings, job: &Job) -> Result<Self> {
        let Args { connect_timeout, log_format, .. } = args;
        if let Some(cluster) = args.cluster {
            let cluster = ClusterArgs { cluster, tls: args.tls, connect_timeout, wait: args.wait };
            let reconnect_timeout = args.reconnect_timeout;
            return Ok(Self::Cluster(OnCluster { cluster, reconnect_timeout, log_format }));
        }
        let workers = workers(args.workers, settings.min_workers.into(), job)?;
        let existing = match (args.resume, args.overwrite) {
            (true, _) => Existing::Resume,
            (_, true) => Existing::Overwrite,
            _ => Existing::Refuse,
        };
        Ok(Self::ThisMachine(OnThisMachine {
            workers,
            slots: args.slots.unwrap_or_else(|| own_slots(workers)),
            run_dir: args.run_dir,
            existing,
            wait_workers: args.wait_workers,
            connect_timeout,
            settings,
            log_format,
        }))
    }
}

/// The arguments for training on this machine, besides the settings of a cluster.
const ALONE: [&str; 5] = ["resume", "overwrite", "workers", "slots", "wait_workers"];

/// Rejects flags that have no effect with `--cluster`. A variable may be meant for another command and is ignored,
/// except one that names the run directory.
fn check_flags_of_a_cluster(given: &Given) -> Result {
    let alone = || ALONE.iter().find_map(|id| given.typed(id)).or_else(|| given.typed_under(HEADING));
    let Some(flag) = given.name("run_dir").or_else(alone) else { return Ok(()) };
    let message = match given.name("cluster") {
        Some("--cluster") | None => {
            format!("{flag} with --cluster: the cluster decides this; leave out one of them")
        }
        Some(variable) => format!(
            "{flag} with {variable}, which is set in the environment: the cluster decides this; \
             leave {flag} out, or unset {variable} to train on this machine"
        ),
    };
    Err(Failed::new(FailureKind::Usage, message))
}

/// With `--resume` and no job file, the job comes from the run directory.
fn of_the_run(args: &Args, given: &Given) -> Option<Result<Job>> {
    let run = args.run_dir.as_deref().filter(|_| args.resume && args.job.is_none())?;
    let file = SavedRun::open(run).ok()?.job_file();
    let job = args.job_flags.resolve(Some(&file), given);
    Some(job.map_err(|failed| failed.exits_as(FailureKind::Data)))
}

fn on_cluster(place: OnCluster, job: &Job) -> Result {
    let OnCluster { cluster, reconnect_timeout, log_format } = place;
    output::start_log(log_format, "warn");
    runtime()?.block_on(async {
        let mut client = cluster.connect().await?;
        let job_id = submit(&mut client, job, cluster.connect_timeout).await?;
        let reconnect = Some(ClusterArgs { connect_timeout: reconnect_timeout, wait: true, ..cluster });
        watch_job(WatchedJob { client, job_id, reconnect, log: log_format }).await
    })
}

/// Submits a job and returns its id. If the coordinator is lost before it replies, submits again with the same key,
/// which has no effect if the first submission arrived.
async fn submit(client: &mut Client, job: &Job, limit: Duration) -> Result<String> {
    let (job_toml, client_key) = (job.to_toml(), process::random_hex());
    let deadline = Instant::now() + limit;
    let mut backoff = Backoff::new();
    loop {
        let unanswered = match client.submit(&job_toml, &client_key).await {
            Ok(id) => return Ok(id),
            Err(unanswered) => unanswered,
        };
        let wait = backoff.next_wait();
        if !unanswered.is_gone || Instant::now() + wait >= deadline {
            return Err(unanswered.into());
        }
        tokio::time::sleep(wait).await;
    }
}

fn alone(place: OnThisMachine, job: Job) -> Result {
    warn_of_idle_workers(place.workers, job.shards);
    let job = crate::data::absolute(&job)?;
    let there = run_to_resume(&place)?;
    there.as_ref().map_or_else(|| crate::init::check(&job), |_| Ok(()))?;
    let job = there.as_ref().map_or(Ok(job.clone()), |run| resumed(run, job))?;
    ask_the_system(&place)?;
    // Before anything is created, because this may restart the process.
    kernel::own_kernel(&job.blas_kernel, place.slots)?;
    let mut run = claim(&place, &job)?;
    match there {
        Some(fewer) if fewer.job()?.fit.epochs < job.fit.epochs => run.grow(&job)?,
        Some(done) if done.is_done() => return show::report(&done),
        None if place.existing == Existing::Resume => {
            let path = run.path().display();
            output::warn(&format!("{path}: there is no run to resume; a new one begins"));
        }
        _ => {}
    }
    output::start_log(place.log_format, &default_log(place.log_format));
    kernel::say_native();
    runtime()?.block_on(train(place, job, run))
}

/// What is logged unless asked otherwise. Warnings about the job are printed with its progress, which a log of JSON replaces.
fn default_log(format: LogFormat) -> String {
    let of_job = if format == LogFormat::Text { "off" } else { "warn" };
    format!("warn,{}=info,{LOG_OF_JOBS}={of_job}", kernel::LOG)
}

/// Number of workers to start: at least as many as the job waits for, since no others can join.
fn workers(asked: Option<u32>, least: u32, job: &Job) -> Result<u32> {
    match asked {
        Some(workers) if workers < least => Err(Failed::new(
            FailureKind::Usage,
            format!(
                "--workers {workers} --min-workers {least}: the job would wait for {least} workers, and {workers} \
                 are started; raise --workers, or lower --min-workers"
            ),
        )),
        Some(workers) => Ok(workers),
        None => Ok(Cores::of_this_process().usable().max(2).min(job.shards).max(least)),
    }
}

/// Asks for the files and threads of this process and of its workers.
fn ask_the_system(&OnThisMachine { workers, slots, .. }: &OnThisMachine) -> Result {
    ask_for_files(workers, FILES_OF_A_WORKER, FEWER)?;
    ask_for_threads(workers as usize * (slots as usize + THREADS), Some(FEWER))
}

/// Two connections, a pipe and shared memory, and as many that come while others go.
const FILES_OF_A_WORKER: u64 = 8;
const FEWER: &str = "start fewer --workers";

/// Slots of each worker: its part of the cores, as far as they have room.
fn own_slots(workers: u32) -> u32 {
    address_space::threads_with_room(Cores::of_this_process().usable().div_ceil(workers)).max(1)
}

/// Warns of worker processes that will have no work.
fn warn_of_idle_workers(workers: u32, shards: u32) {
    if workers > shards {
        output::warn(&format!(
            "--workers {workers}: the job has {shards} shards, and at most one worker for each has work; {} of them stand by \
             (lower --workers, or raise --shards, which changes the weights)",
            workers - shards
        ));
    }
}

/// With `--resume`: the existing run, if any.
fn run_to_resume(place: &OnThisMachine) -> Result<Option<SavedRun>> {
    match &place.run_dir {
        _ if place.existing != Existing::Resume => Ok(None),
        None => {
            let what = "--resume needs the run to resume: coordinator train --run-dir RUN --resume";
            Err(Failed::new(FailureKind::Usage, what))
        }
        Some(path) if holds_a_run(path) => Ok(Some(SavedRun::open(path)?)),
        Some(_) => Ok(None),
    }
}

/// The job of a resumed run, with the kernel with which the run began. A different job is an error, unless it only has more
/// epochs.
fn resumed(run: &SavedRun, job: Job) -> Result<Job> {
    let there = run.job()?;
    let there = crate::data::absolute(&there)?;
    let kernel = match job.blas_kernel {
        BlasKernel::Native | BlasKernel::Environment => there.blas_kernel.clone(),
        named @ BlasKernel::Named(_) => named,
    };
    let job = Job { blas_kernel: kernel, name: there.name.clone(), ..job };
    let differences = there.differences(&job);
    let longer = Job { fit: Fit { epochs: job.fit.epochs, ..there.fit }, ..there.clone() };
    if differences.is_empty() || there.fit.epochs < job.fit.epochs && longer.differences(&job).is_empty() {
        return Ok(job);
    }
    let (path, differences) = (run.path().display(), differences.join(", "));
    Err(Failed::new(
        FailureKind::Usage,
        format!(
            "{path}: --resume with another job: {differences} (coordinator train --run-dir {path} --resume continues the \
             run's own; --overwrite instead starts over)"
        ),
    ))
}

fn claim(place: &OnThisMachine, job: &Job) -> Result<RunDir> {
    match &place.run_dir {
        Some(path) => {
            crate::input::check_directory(path)
                .map_err(|failure| failure.with_hint("--run-dir names where the run goes"))?;
            Ok(RunDir::claim(path, place.existing)?)
        }
        None => Ok(RunDir::claim_next(Path::new("runs"), &job.name, |_| false)?),
    }
}

/// Runs a cluster on loopback, with one job and its own workers.
async fn train(place: OnThisMachine, job: Job, run: RunDir) -> Result {
    let path = run.path().to_path_buf();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener =
        listener.map_err(|error| Failed::new(FailureKind::NotAllowed, format!("cannot listen: {error}")))?;
    let address =
        listener.local_addr().map_err(|error| Failed::new(FailureKind::Unexpected, error.to_string()))?;
    let (token, shared_memory) = (process::random_hex(), shared_memory());

    let config = ClusterConfig::new(PathBuf::from("runs"), &place.settings);
    let cluster = Cluster::new(ClusterConfig {
        control: ControlConfig {
            expected_workers: place.workers.min(job.shards) as usize,
            wait_workers: Some(place.wait_workers),
            ..config.control
        },
        first_run: Some(run),
        token: Some(token.clone()),
        shared_memory: shared_memory.clone(),
        ..config
    });
    let handle = cluster.handle();
    let OnThisMachine { workers, slots, connect_timeout, log_format, .. } = place;
    let json_log = log_format == LogFormat::Json;
    let kernel = job.blas_kernel.clone();
    let local = Local { coordinator: address, token, workers, slots, kernel, json_log, shared_memory };
    let local = local.start(handle);

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let cluster = tokio::spawn(cluster.run(listener, async move { _ = stopped.await }));
    let own = ClusterArgs { cluster: address.to_string(), tls: None, connect_timeout, wait: false };
    let begin = async {
        let mut client = own.connect().await?;
        let job_id = submit(&mut client, &job, connect_timeout).await?;
        Ok(WatchedJob { client, job_id, reconnect: None, log: log_format })
    };
    let begun = tokio::select! {
        begun = begin => begun,
        () = process::shutdown_signal() => Err(Failed::new(FailureKind::Interrupted, NOTHING_KEPT)),
    };
    let watched = match begun {
        Ok(watched) => watch_job(watched).await,
        Err(failed) => Err(failed),
    };
    let _ = stop.send(());
    local.stop().await;
    cluster.await.map_err(|error| Failed::new(FailureKind::Unexpected, error.to_string()))??;
    watched.map_err(|failed| if failed.is(FailureKind::Interrupted) { interrupted(&path) } else { failed })
}

/// Shared memory for the parameters and gradients of workers on this machine.
fn shared_memory() -> Option<Arc<SharedMemory>> {
    let host = SharedMemory::new();
    let host =
        host.inspect_err(|error| tracing::debug!("bulk data goes over the wire: no shared memory: {error}"));
    host.ok().map(Arc::new)
}

/// Describes what an interruption has left, by the run directory: this process may not have seen the last epoch.
fn interrupted(path: &Path) -> Failed {
    if !holds_a_run(path) {
        return Failed::new(FailureKind::Interrupted, NOTHING_KEPT);
    }
    let rows = SavedRun::open(path).and_then(|run| run.whole_history()).map_or(0, |rows| rows.len());
    let path = path.display();
    let message = format!(
        "interrupted; epochs finished and kept in {path}: {rows} (coordinator train --run-dir {path} --resume finishes it)"
    );
    Failed::new(FailureKind::Interrupted, message)
}

const NOTHING_KEPT: &str = "interrupted before the run had begun; nothing is kept";
