//! The way to a running cluster, for the commands that ask it: the thin client over gRPC.

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
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_CONNECT_TIMEOUT", default_value = "10", value_parser = process::seconds)]
    pub(super) connect_timeout: Duration,
}

/// One attempt to connect takes no longer: a host that comes back is found by the next.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// A call that is not a stream takes no longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

impl ClusterArgs {
    /// Connects; tries again until the time is over.
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
                Ok(Err(Fault::Absent(reason))) => reason,
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
}

/// Why an attempt gave no client.
enum Fault {
    /// Nobody is there who can be asked; the next attempt may find one.
    Absent(String),
    /// It is there, and does not answer this client.
    Refused(Failed),
}

/// Connects once. Whoever only listens is no coordinator: it has to answer too.
async fn attempt(dialer: &Dialer, endpoint: &Endpoint) -> Result<Client, Fault> {
    let connected = dialer.connect(endpoint.clone()).await;
    let channel = connected.map_err(|error| Fault::Absent(process::root_cause(&error)))?;
    let mut client = ClusterClient::new(channel);
    match client.list_jobs(v1::ListJobsRequest {}).await {
        Ok(_) => Ok(Client(client)),
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

/// A connection to a coordinator. Answers are plain values: nobody beyond this module sees the wire.
#[derive(Clone, Debug)]
pub(super) struct Client(ClusterClient<Channel>);

/// Why a call has no answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) failure: Failure,
    /// Whether the coordinator is gone, and may come back. Any other answer is an answer.
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
        let jobs = self.0.list_jobs(request(v1::ListJobsRequest {})).await?.into_inner().jobs;
        Ok(jobs.into_iter().map(Into::into).collect())
    }

    /// All workers.
    pub(super) async fn workers(&mut self) -> Result<Vec<WorkerView>, Unanswered> {
        let workers = self.0.list_workers(request(v1::ListWorkersRequest {})).await?.into_inner().workers;
        Ok(workers.into_iter().map(Into::into).collect())
    }

    /// A job and the cluster; of the newest job if the id is empty.
    pub(super) async fn metrics(&mut self, job_id: &str) -> Result<Metrics, Unanswered> {
        let asked = request(v1::GetMetricsRequest { job_id: job_id.to_string() });
        Ok(self.0.get_metrics(asked).await?.into_inner().into())
    }

    /// Submits a job; gives its id. The same key again submits nothing more.
    pub(super) async fn submit(&mut self, job_toml: &str, client_key: &str) -> Result<String, Unanswered> {
        let (job_toml, client_key) = (job_toml.to_string(), client_key.to_string());
        let submission = request(v1::SubmitJobRequest { job_toml, client_key });
        Ok(self.0.submit_job(submission).await?.into_inner().job_id)
    }

    /// Cancels a job; the one that runs if the id is empty.
    pub(super) async fn cancel(&mut self, job_id: &str) -> Result<JobView, Unanswered> {
        let asked = request(v1::CancelJobRequest { job_id: job_id.to_string() });
        Ok(self.0.cancel_job(asked).await?.into_inner().job.unwrap_or_default().into())
    }

    /// Watches a job.
    pub(super) async fn watch(&mut self, job_id: &str) -> Result<Watching, Unanswered> {
        let asked = v1::WatchJobRequest { job_id: job_id.to_string() };
        Ok(Watching(self.0.watch_job(asked).await?.into_inner()))
    }
}

/// A job that is watched.
pub(super) struct Watching(Streaming<v1::WatchJobResponse>);

impl Watching {
    /// What is new of it: its history has the epochs that were not told before.
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
