//! `coordinator serve`: a long-running cluster.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use millefeuille_core::control::ControlConfig;
use millefeuille_core::failure::FailureKind;
use millefeuille_core::job::{BlasKernel, Job};
use millefeuille_program::kernel;
use millefeuille_program::ops::Listen;
use millefeuille_program::output::{self, LogFormat};
use millefeuille_program::process;
use millefeuille_proto::tls::date;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tracing::info;

use super::settings::SettingsFlags;
use super::{Failed, Result, ask_for_files, runtime};
use crate::admission::{Admission, ServerCertificate};
use crate::cluster::{Cluster, ClusterConfig, ClusterSettings, DriverMessage};
use crate::ops;
use crate::runs::Lock;

/// Run a cluster: workers join and leave, jobs queue, results stay available
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The address to listen on
    #[arg(long, value_name = "HOST:PORT", env = "MILLEFEUILLE_LISTEN", default_value = "127.0.0.1:7070", value_parser = process::address)]
    listen: String,
    /// The address of the ops port, for probes and metrics (/livez, /readyz, /metrics), or `off`
    #[arg(
        long,
        value_name = "HOST:PORT|off",
        env = "MILLEFEUILLE_OPS_LISTEN",
        default_value = "127.0.0.1:7071"
    )]
    ops_listen: Listen,
    /// A job to submit at the start
    #[arg(long, value_name = "JOB.toml", env = "MILLEFEUILLE_JOB")]
    job: Option<PathBuf>,
    /// The directory of run directories
    #[arg(long, value_name = "DIR", env = "MILLEFEUILLE_RUNS_DIR", default_value = "runs")]
    runs_dir: PathBuf,
    #[command(flatten)]
    settings: SettingsFlags,
    /// Time limit for waiting for enough workers, in seconds [default: without limit]
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_WAIT_WORKERS", value_parser = process::seconds, allow_negative_numbers = true)]
    wait_workers: Option<Duration>,
    /// The directory of its certificate: ca.crt, tls.crt, tls.key [default: no encryption]
    #[arg(long, value_name = "DIR", env = "MILLEFEUILLE_TLS")]
    tls: Option<PathBuf>,
    /// Listen on an address that others can reach, without encryption
    #[arg(long, env = "MILLEFEUILLE_INSECURE")]
    insecure: bool,
    /// Format of the log
    #[arg(long, value_enum, env = "MILLEFEUILLE_LOG_FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// Two connections, and as many that come while others go.
const FILES_OF_A_WORKER: u64 = 4;

const EXAMPLES: &str = "Examples:
  coordinator serve --listen 127.0.0.1:7070
  coordinator serve --job jobs/article.toml --min-workers 2
  coordinator serve --listen 0.0.0.0:7070 --tls certs/coordinator

A port of 0 picks a free one; the log says which.";

pub(super) fn run(args: Args) -> Result {
    let settings = args.settings.resolve()?;
    ask_for_files(settings.min_workers.into(), FILES_OF_A_WORKER, "lower --min-workers")?;
    // The coordinator computes only when workers disagree, one node at a time.
    kernel::own_kernel(&BlasKernel::Native, 1)?;
    let job = args.job.as_deref().map(read_job).transpose()?;
    output::start_log(args.log_format, "info");
    kernel::say_native();
    // Files are read before the runtime starts.
    let certificate = certificate(args.tls.as_deref())?;
    crate::input::check_directory(&args.runs_dir)
        .map_err(|failure| failure.with_hint("--runs-dir names where runs are made"))?;
    runtime()?.block_on(serve(args, settings, certificate, job))
}

fn read_job(path: &Path) -> Result<String> {
    let text = super::job::flags::read_job(path)?;
    Ok(Job::parse(&path.display().to_string(), &text)?.to_toml())
}

/// Reads the certificate in this directory.
fn certificate(directory: Option<&Path>) -> Result<Option<Arc<ServerCertificate>>> {
    let Some(directory) = directory else { return Ok(None) };
    let read = ServerCertificate::read(directory);
    let certificate =
        read.map_err(|message| Failed::new(FailureKind::NotAllowed, format!("--tls: {message}")))?;
    info!("TLS 1.3 for peers with a certificate; its own is valid until {}", date(certificate.not_after()));
    Ok(Some(Arc::new(certificate)))
}

/// Rejects plain text on an address that others can reach, unless `--insecure` allows it.
fn in_the_open(listen: &str, address: SocketAddr, insecure: bool) -> Result {
    if !insecure {
        let message = format!(
            "--listen {listen}: others can reach this address, and nothing is encrypted: name a certificate's \
             directory with --tls (coordinator certs init makes one), listen on 127.0.0.1, or say --insecure if the \
             network is yours alone"
        );
        return Err(Failed::new(FailureKind::NotAllowed, message));
    }
    tracing::warn!("--insecure: anybody who can reach {address} can use this cluster, without encryption");
    Ok(())
}

async fn serve(
    args: Args,
    settings: ClusterSettings,
    certificate: Option<Arc<ServerCertificate>>,
    job: Option<String>,
) -> Result {
    let cannot = |error: io::Error| {
        let message = process::cannot_listen("--listen", &args.listen, &error, "name another port");
        Failed::new(FailureKind::NotAllowed, message)
    };
    let listener = TcpListener::bind(&args.listen).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let ops_port = args.ops_listen.bind().map_err(|message| Failed::new(FailureKind::NotAllowed, message))?;
    if certificate.is_none() && !address.ip().is_loopback() {
        in_the_open(&args.listen, address, args.insecure)?;
    }
    // Held until the last file is written: another cluster would not see what this one adds.
    let _runs = Lock::of_cluster(&args.runs_dir, address)?;
    // If the job was submitted before, it is that same job, running or done.
    let job =
        job.map(|job_toml| (format!("serve --job {}", hex::encode(Sha256::digest(&job_toml))), job_toml));
    let tls = if args.tls.is_some() { " --tls DIR" } else { "" };
    let joined =
        if address.ip().is_unspecified() { format!("HOST:{}", address.port()) } else { address.to_string() };
    let join = format!("worker --coordinator {joined}{tls}");
    let config = ClusterConfig::new(args.runs_dir, &settings);
    let config = ClusterConfig {
        control: ControlConfig { wait_workers: args.wait_workers, ..config.control },
        admission: Admission { certificate, ..config.admission },
        resumes: true,
        join: Some(join.clone()),
        job_key: job.as_ref().map(|(key, _)| key.clone()),
        ..config
    };
    let admission = config.admission.clone();
    let cluster = Cluster::new(config);
    let handle = cluster.handle();
    let registry = ops::registry(cluster.view(), admission);
    let router = ops::router(cluster.view(), registry);
    let ops_server = ops_port.map(|port| port.serve(router)).transpose();
    let ops_server = ops_server.map_err(|error| {
        Failed::new(FailureKind::Unexpected, format!("cannot serve the ops port: {error}"))
    })?;
    info!("listening on {address}; workers join with: {join}");
    if let Some((client_key, job_toml)) = job {
        let (reply, answer) = tokio::sync::oneshot::channel();
        handle.send(DriverMessage::Submit { job_toml, client_key, reply }).await;
        tokio::spawn(async move {
            match answer.await {
                Ok(Ok(id)) => info!("--job is job {id}"),
                Ok(Err(failure)) => tracing::error!("--job: {failure}"),
                Err(_) => {}
            }
        });
    }
    let served = cluster.run(listener, process::shutdown_signal()).await;
    // Open to the end, so that probes learn that the cluster is shutting down.
    if let Some(server) = ops_server {
        server.end();
    }
    Ok(served?)
}
