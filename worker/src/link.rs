//! The connection to a coordinator: a thin gRPC client. The wire types stay inside this module.

use std::fmt;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use millefeuille_core::control::{JobId, WorkerId};
use millefeuille_core::data::shard::Shard;
use millefeuille_program::process;
use millefeuille_proto::convert::{self, Malformed};
use millefeuille_proto::session::{FromWorker, ToWorker};
use millefeuille_proto::tls::{self, Dialer};
use millefeuille_proto::v1::worker_client::WorkerClient;
use millefeuille_proto::{v1, wire};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::WorkerConfig;

/// Why a session could not start, or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The coordinator rejected this worker: trying again would not help.
    Refused(String),
    /// The coordinator cannot be reached, or sent an invalid message: trying again may help.
    Lost(String),
    /// The job needs more memory than this worker may use.
    TooLarge(String),
}

impl Trouble {
    /// An error after which trying again may help.
    pub(crate) fn lost(reason: impl Into<String>) -> Self {
        Self::Lost(reason.into())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) | Self::Lost(reason) | Self::TooLarge(reason) => f.write_str(reason),
        }
    }
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        let reason = if tls::asks_for_tls(&status) {
            "it asks for TLS: name the directory of a certificate with --tls".into()
        } else {
            convert::reason(&status)
        };
        if convert::is_refused(&status) { Self::Refused(reason) } else { Self::Lost(reason) }
    }
}

impl From<Malformed> for Trouble {
    fn from(malformed: Malformed) -> Self {
        Self::Lost(malformed.to_string())
    }
}

/// Two connections, so that bulk data cannot delay heartbeats.
pub(crate) struct Link {
    bulk: Channel,
    heartbeats: Channel,
}

impl Link {
    /// Opens both connections.
    ///
    /// # Errors
    /// If the coordinator cannot be reached.
    pub(crate) async fn connect(config: &WorkerConfig, dialer: &Dialer) -> Result<Self, Trouble> {
        let endpoint = dialer.endpoint(&config.coordinator);
        let endpoint = endpoint.map_err(|error| Trouble::lost(error.to_string()))?;
        let endpoint = endpoint.connect_timeout(config.connect_timeout);
        let connect = async |endpoint: Endpoint| {
            let connected = dialer.connect(endpoint).await;
            connected.map_err(|error| Trouble::lost(process::root_cause(&error)))
        };
        let bulk = connect(wire::bulk_endpoint(endpoint.clone())).await?;
        Ok(Self { bulk, heartbeats: connect(wire::endpoint(endpoint)).await? })
    }

    /// Opens a session that sends `outgoing`. The first message introduces this worker.
    ///
    /// # Errors
    /// If the coordinator rejects the session.
    pub(crate) async fn begin(
        &self,
        outgoing: impl Stream<Item = FromWorker> + Send + 'static,
    ) -> Result<Incoming, Trouble> {
        let mut client = self.client();
        Ok(Incoming(client.session(outgoing.map(v1::SessionRequest::from)).await?.into_inner()))
    }

    /// A client that fetches samples.
    pub(crate) fn samples(&self) -> Samples {
        Samples(self.client())
    }

    /// A client that sends heartbeats.
    pub(crate) fn heartbeats(&self) -> Heartbeats {
        Heartbeats(WorkerClient::new(self.heartbeats.clone()))
    }

    fn client(&self) -> WorkerClient<Channel> {
        WorkerClient::new(self.bulk.clone()).max_decoding_message_size(wire::MESSAGE_BYTES)
    }
}

/// The messages that a coordinator sends in a session.
pub(crate) struct Incoming(Streaming<v1::SessionResponse>);

impl Incoming {
    /// The next message; `None` once the coordinator has closed the session.
    ///
    /// # Errors
    /// If the stream breaks, or the message is invalid.
    pub(crate) async fn next(&mut self) -> Result<Option<ToWorker>, Trouble> {
        let message = self.0.message().await?;
        Ok(message.map(ToWorker::try_from).transpose()?)
    }
}

/// Fetches samples.
#[derive(Clone)]
pub(crate) struct Samples(WorkerClient<Channel>);

impl Samples {
    /// Requests a shard of the running job.
    ///
    /// # Errors
    /// If the coordinator does not have the shard.
    pub(crate) async fn fetch(
        &mut self,
        worker: WorkerId,
        job: JobId,
        shard: Shard,
    ) -> Result<Parts, Trouble> {
        let request = v1::FetchShardRequest { worker_id: worker.0, job: job.0, id: Some(shard.into()) };
        Ok(Parts(self.0.fetch_shard(request).await?.into_inner()))
    }
}

/// The parts of a shard, as they arrive.
pub(crate) struct Parts(Streaming<v1::FetchShardResponse>);

impl Parts {
    /// The next part; `None` after the last.
    ///
    /// # Errors
    /// If the stream breaks.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        Ok(self.0.message().await?.map(|part| part.data))
    }
}

/// Sends heartbeats.
pub(crate) struct Heartbeats(WorkerClient<Channel>);

impl Heartbeats {
    /// Sends one heartbeat.
    ///
    /// # Errors
    /// If the coordinator does not know this worker.
    pub(crate) async fn send(&mut self, worker: WorkerId, incarnation: u64) -> Result<(), Trouble> {
        self.0.heartbeat(v1::HeartbeatRequest { worker_id: worker.0, incarnation }).await?;
        Ok(())
    }
}
