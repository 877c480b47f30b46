//! The way to a running cluster, for the commands that ask it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use millefeuille_program::backoff::Backoff;
use millefeuille_program::process::{self, exit};
use millefeuille_proto::tls::{self, Dialer};
use millefeuille_proto::v1::cluster_client::ClusterClient;
use millefeuille_proto::{v1, wire};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::{Failed, Result};

/// Which cluster.
#[derive(Clone, Debug, Args)]
pub(super) struct ClusterArgs {
    /// The coordinator's address
    #[arg(long, value_name = "HOST:PORT", env = "MILLEFEUILLE_CLUSTER", value_parser = process::address)]
    pub(super) cluster: String,
    /// The directory of a certificate to ask it with: ca.crt, tls.crt, tls.key
    #[arg(long, value_name = "DIR", env = "MILLEFEUILLE_CLUSTER_TLS")]
    pub(super) tls: Option<PathBuf>,
    /// How long to try to reach it, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_CONNECT_TIMEOUT", default_value = "10", value_parser = process::seconds)]
    pub(super) connect_timeout: Duration,
}

/// One attempt to connect takes no longer: a host that comes back is found by the next.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// A call that is not a stream takes no longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) type Client = ClusterClient<Channel>;

impl ClusterArgs {
    /// Connects; tries again until the time is over.
    pub(super) async fn connect(&self) -> Result<Client> {
        let unusable = |error: tonic::transport::Error| {
            Failed::new(
                exit::USAGE,
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
                return Err(Failed::new(exit::NOT_ALLOWED, reason));
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
                    exit::NOT_ALLOWED,
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
        Ok(_) => Ok(client),
        Err(status) if tls::asks_for_tls(&status) => {
            let message = "the coordinator asks for TLS: name the directory of a certificate with --tls";
            Err(Fault::Refused(Failed::new(exit::NOT_ALLOWED, message)))
        }
        Err(status) if status.code() == Code::PermissionDenied => Err(Fault::Refused(status.into())),
        Err(status) => Err(Fault::Absent(process::reason(&status))),
    }
}

/// A request with a deadline.
pub(super) fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// Whether the coordinator is gone, and may come back. Any other answer is an answer.
pub(super) fn is_gone(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}

/// What a refusal means for the command.
impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::InvalidArgument | Code::NotFound => exit::USAGE,
            Code::FailedPrecondition => exit::DATA,
            _ => exit::NOT_ALLOWED,
        };
        let message = if status.message().is_empty() {
            status.code().to_string()
        } else {
            status.message().to_string()
        };
        Self::new(code, message)
    }
}
