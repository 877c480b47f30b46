//! The way to a running cluster, for the commands that ask it.

use std::time::Duration;

use clap::Args;
use millefeuille_proto::v1::cluster_client::ClusterClient;
use millefeuille_proto::{v1, wire};
use millefeuille_worker::process::{self, exit};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::{Failed, Result};

/// Which cluster.
#[derive(Clone, Debug, Args)]
pub(super) struct ClusterArgs {
    /// The coordinator's address
    #[arg(long, value_name = "HOST:PORT", env = "MILLEFEUILLE_CLUSTER", value_parser = process::address)]
    pub(super) cluster: String,
    /// How long to try to reach it, in seconds
    #[arg(long, value_name = "SECONDS", env = "MILLEFEUILLE_CONNECT_TIMEOUT", default_value = "10", value_parser = process::seconds)]
    pub(super) connect_timeout: Duration,
}

const FIRST_WAIT: Duration = Duration::from_millis(50);
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
        let endpoint = Endpoint::from_shared(format!("http://{}", self.cluster)).map_err(unusable)?;
        let endpoint = wire::endpoint(endpoint).connect_timeout(self.connect_timeout);
        let deadline = tokio::time::Instant::now() + self.connect_timeout;
        let mut wait = FIRST_WAIT;
        loop {
            let attempt = tokio::time::timeout_at(deadline, attempt(&endpoint)).await;
            let reason = match attempt {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(reason)) => reason,
                Err(_) => "no answer".to_string(),
            };
            if tokio::time::Instant::now() + wait >= deadline {
                let (address, seconds) = (&self.cluster, self.connect_timeout.as_secs_f64());
                return Err(Failed::new(
                    exit::NOT_ALLOWED,
                    format!(
                        "no coordinator at {address} within {seconds} s: {reason} (is it running? start one with: coordinator serve)"
                    ),
                ));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(1));
        }
    }
}

/// Connects once. Whoever only listens is no coordinator: it has to answer too.
async fn attempt(endpoint: &Endpoint) -> Result<Client, String> {
    let channel = endpoint.connect().await.map_err(|error| process::root_cause(&error))?;
    let mut client = ClusterClient::new(channel);
    match client.list_jobs(v1::ListJobsRequest {}).await {
        Ok(_) => Ok(client),
        Err(status) => Err(status.message().to_string()),
    }
}

/// A request with a deadline.
pub(super) fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
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
