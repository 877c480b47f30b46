//! The gRPC client for commands that talk to a running cluster.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::view::{JobReport, JobView, Metrics, WorkerView};
use millefeuille_program::backoff::Backoff;
use millefeuille_program::process;
use millefeuille_proto::tls::{self, Dialer};
use millefeuille_proto::v1::cluster_client::ClusterClient;
use millefeuille_proto::{convert, v1, wire};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{Failed, Result};

/// Which cluster.
#[derive(Clone, Debug, Args)]
pub(super) struct ClusterArgs {
    /// The coordinator's address
    #[arg(long, value_name = "HOST:PORT", env = "MILLEFEUILLE_CLUSTER", value_parser = process::address)]
    pub(super) cluster: String,
    /// The directory of a client certificate: ca.crt, tls.crt, tls.key
    #[arg(long, value_name = "DIR", env = "MILLEFEUILLE_CLUSTER_TLS")]
    pub(super) tls: Option<PathBuf>,
    /// Time limit for connecting to it, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_CONNECT_TIMEOUT", default_value = process::CONNECT_TIMEOUT, value_parser = process::seconds)]
    pub(super) connect_timeout: Duration,
    /// Wait for the coordinator if nobody listens at the address yet
    #[arg(long)]
    pub(super) wait: bool,
}

/// Time limit for one connection attempt: if a host comes back, the next attempt finds it.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// The service that a coordinator has.
const CLUSTER: &str = "millefeuille.v1.Cluster";
/// Time limit for a unary call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

impl ClusterArgs {
    /// Connects, and retries until the time limit. If nobody listens at the address, it fails at once, unless it is to wait.
    pub(super) async fn connect(&self) -> Result<Client> {
        let unusable = |error: tonic::transport::Error| {
            Failed::new(
                FailureKind::Usage,
                format!("--cluster {}: {} (expected host:port)", self.cluster, process::root_cause(&error)),
            )
        };
        let dialer = Dialer::new(self.tls.clone());
        let endpoint = dialer.endpoint(&self.cluster).map_err(unusable)?;
        let endpoint = wire::endpoint(endpoint).connect_timeout(ATTEMPT_TIMEOUT);
        let deadline = Instant::now() + self.connect_timeout;
        let mut backoff = Backoff::new();
        loop {
            let limit = deadline.min(Instant::now() + ATTEMPT_TIMEOUT);
            let attempt = tokio::time::timeout_at(limit, attempt(&dialer, &endpoint)).await;
            if let Some(reason) = dialer.refusal() {
                return Err(Failed::new(FailureKind::NotAllowed, reason));
            }
            let reason = match attempt {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(Fault::Refused(failed))) => return Err(failed),
                Ok(Err(Fault::Unused(reason))) if !self.wait => return Err(self.unused(&reason)),
                Ok(Err(Fault::Absent(reason) | Fault::Unused(reason))) => reason,
                Err(_) => "no answer".to_string(),
            };
            let wait = backoff.next_wait();
            if Instant::now() + wait >= deadline {
                let (address, seconds) = (&self.cluster, self.connect_timeout.as_secs_f64());
                return Err(Failed::new(
                    FailureKind::NotAllowed,
                    format!(
                        "no coordinator at {address} within {seconds} s: {reason} (is it running? start one with: coordinator serve)"
                    ),
                ));
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn unused(&self, reason: &str) -> Failed {
        let address = &self.cluster;
        let what = format!(
            "no coordinator at {address}: {reason} (is it running? start one with: coordinator serve; --wait waits for it)"
        );
        Failed::new(FailureKind::NotAllowed, what)
    }
}

/// Why an attempt to connect failed.
enum Fault {
    /// No coordinator answers; the next attempt may succeed.
    Absent(String),
    /// The host is there, and nobody listens at the address.
    Unused(String),
    /// The coordinator refuses this client.
    Refused(Failed),
}

/// Connects once. An open port may not be a coordinator: it must also know the service.
async fn attempt(dialer: &Dialer, endpoint: &Endpoint) -> Result<Client, Fault> {
    let connected = dialer.connect(endpoint.clone()).await;
    let channel = connected.map_err(|error| {
        let absent = if is_refused(&error) { Fault::Unused } else { Fault::Absent };
        absent(process::root_cause(&error))
    })?;
    match HealthClient::new(channel.clone()).check(HealthCheckRequest { service: CLUSTER.into() }).await {
        Ok(_) => Ok(Client(ClusterClient::new(channel))),
        Err(status) if tls::asks_for_tls(&status) => {
            let message = "the coordinator asks for TLS: name the directory of a certificate with --tls";
            Err(Fault::Refused(Failed::new(FailureKind::NotAllowed, message)))
        }
        Err(status) if status.code() == Code::PermissionDenied => {
            Err(Fault::Refused(convert::failure_of(&status).into()))
        }
        Err(status) => Err(Fault::Absent(convert::reason(&status))),
    }
}

/// Whether a connection was refused: nobody listens.
fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    error.downcast_ref().is_some_and(refused) || error.source().is_some_and(is_refused)
}

/// A connection to a coordinator. It returns plain values: the protobuf types stay in this module.
#[derive(Clone, Debug)]
pub(super) struct Client(ClusterClient<Channel>);

/// Why a call failed.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) failure: Failure,
    /// Whether the coordinator is gone, and may come back. Any other error is final.
    pub(super) is_gone: bool,
}

impl From<Status> for Unanswered {
    fn from(status: Status) -> Self {
        Self { failure: convert::failure_of(&status), is_gone: convert::is_gone(&status) }
    }
}

impl From<Unanswered> for Failed {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.failure.into()
    }
}

impl Client {
    /// All jobs, the newest first.
    pub(super) async fn jobs(&mut self) -> Result<Vec<JobView>, Unanswered> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let asked = request(v1::ListJobsRequest { page_size: JOBS_PAGE, page_token });
            let v1::ListJobsResponse { jobs, next_page_token } = self.0.list_jobs(asked).await?.into_inner();
            all.extend(jobs.into_iter().map(JobView::from));
            if next_page_token.is_empty() {
                return Ok(all);
            }
            page_token = next_page_token;
        }
    }

    /// All workers.
    pub(super) async fn workers(&mut self) -> Result<Vec<WorkerView>, Unanswered> {
        let workers = self.0.list_workers(request(v1::ListWorkersRequest {})).await?.into_inner().workers;
        Ok(workers.into_iter().map(Into::into).collect())
    }

    /// Metrics of a job and of the cluster. An empty id means the newest job. Of the history, what is `known` of the same
    /// job is not asked for again.
    pub(super) async fn metrics(&mut self, job_id: &str, known: &Metrics) -> Result<Metrics, Unanswered> {
        let mut rows = known.history.to_vec();
        let mut of = known.job.as_ref().map(|job| job.id.clone());
        loop {
            let after_epoch = rows.last().map_or(0, |row| row.epoch as u32);
            let asked = request(v1::GetMetricsRequest { job_id: job_id.to_string(), after_epoch });
            let page = self.0.get_metrics(asked).await?.into_inner();
            let epochs_ended = u64::from(page.epochs_ended);
            let metrics = Metrics::from(page);
            let job = metrics.job.as_ref().map(|job| job.id.clone());
            if of.is_some() && of != job {
                // Another job has become the newest: its history from the beginning.
                (rows, of) = (Vec::new(), job);
                continue;
            }
            of = job;
            let ended = metrics.history.is_empty();
            rows.extend(metrics.history.iter().cloned());
            if ended || rows.last().is_none_or(|row| row.epoch >= epochs_ended) {
                return Ok(Metrics { history: rows.into(), ..metrics });
            }
        }
    }

    /// Submits a job and returns its id. Submitting again with the same key has no effect.
    pub(super) async fn submit(&mut self, job_toml: &str, client_key: &str) -> Result<String, Unanswered> {
        let (job_toml, client_key) = (job_toml.to_string(), client_key.to_string());
        let submission = request(v1::SubmitJobRequest { job_toml, client_key });
        Ok(convert::name(&self.0.submit_job(submission).await?.into_inner().job_id))
    }

    /// Cancels a job. An empty id means the running job.
    pub(super) async fn cancel(&mut self, job_id: &str) -> Result<JobView, Unanswered> {
        let asked = request(v1::CancelJobRequest { job_id: job_id.to_string() });
        Ok(self.0.cancel_job(asked).await?.into_inner().job.unwrap_or_default().into())
    }

    /// Watches a job, of which the epochs up to `after_epoch` are known.
    pub(super) async fn watch(&mut self, job_id: &str, after_epoch: u64) -> Result<Watching, Unanswered> {
        let asked = v1::WatchJobRequest { job_id: job_id.to_string(), after_epoch: after_epoch as u32 };
        Ok(Watching(self.0.watch_job(asked).await?.into_inner()))
    }
}

/// Jobs to ask for at a time.
const JOBS_PAGE: u32 = 500;

/// The stream of a watched job's updates.
pub(super) struct Watching(Streaming<v1::WatchJobResponse>);

impl Watching {
    /// The next update of the job. Its history has only the epochs that were not sent before.
    pub(super) async fn next(&mut self) -> Result<JobReport, Unanswered> {
        let message = self.0.message().await?;
        Ok(message.ok_or_else(|| Status::unavailable("it closed the stream"))?.into())
    }
}

/// A request with a deadline.
fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}
