//! A cluster: the gRPC services, and the driver that stands between them and the control machine.
//!
//! [`Cluster::run`] serves on a listener until it is shut down. The gRPC handlers ([`grpc`]) only decode requests,
//! send them to the driver's inbox, and read the newest [`Snapshot`], in plain values, from the driver's [`board`].
//! The driver ([`driver`]) is one task that owns the state: it feeds the control machine of `millefeuille-core`,
//! carries out its actions, and does the arithmetic of a step ([`training`]). Anything that may take long (reading
//! data, writing files) happens in separate threads ([`load`], [`disk`]), which report back to the driver's inbox.
//!
//! `coordinator train` without a cluster runs exactly this on a free loopback port, with worker processes of its
//! own ([`local`]).

mod arbiter;
mod board;
mod config;
mod disk;
mod driver;
mod grpc;
pub mod load;
mod loaded;
pub mod local;
mod messages;
mod notes;
mod pace;
mod records;
mod snapshot;
mod sums;
mod tally;
mod training;
mod view;
mod waiting;

use std::fmt::Display;
use std::time::Duration;

pub use config::{ClusterConfig, ClusterSettings};
pub use messages::{DriverMessage, Handle};
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_program::ops::Pulse;
use millefeuille_program::process::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;
pub use view::{ServingState, View};

use crate::admission::Admission;
use board::Board;
use driver::Driver;
use grpc::Services;
pub(crate) use notes::LOG_OF_JOBS;
pub(crate) use snapshot::{Listed, Snapshot};
pub(crate) use tally::Tally;

/// Capacity of the driver's inbox, in messages; senders wait when it is full.
const INBOX: usize = 256;
/// Time limit for the driver to take the message that stops it.
const STUCK: Duration = Duration::from_secs(20);

/// A cluster that is set up and does not run yet.
pub struct Cluster {
    driver: Driver,
    handle: Handle,
    services: Services,
    admission: Admission,
    phase: watch::Sender<ServingState>,
    view: View,
}

impl Cluster {
    /// Sets a cluster up.
    pub fn new(config: ClusterConfig) -> Self {
        let (sender, inbox) = mpsc::channel(INBOX);
        let (board, (serving_sender, serving)) = (Board::new(), watch::channel(None));
        let handle = Handle::new(sender);
        let services = Services {
            driver: handle.clone(),
            board: board.reader(),
            serving,
            token: config.token.clone(),
            incarnation: config.control.incarnation,
        };
        let admission = config.admission.clone();
        let (phase, pulse) = (watch::Sender::new(ServingState::Starting), Pulse::default());
        let view = View::new(board.reader(), phase.subscribe(), pulse.clone());
        let driver = Driver::new(config, handle.clone(), inbox, board, serving_sender, pulse);
        Self { driver, handle, services, admission, phase, view }
    }

    /// A view of the cluster from outside, which stays valid while it runs.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// A handle that sends messages to the driver.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `shutdown` resolves, then announces the shutdown to workers and clients.
    ///
    /// # Errors
    /// If the server fails, or if what is left to write is not on disk in time.
    pub async fn run(self, listener: TcpListener, shutdown: impl Shutdown) -> Result<(), Failure> {
        let Self { mut driver, handle, services, admission, phase, .. } = self;
        // Before the server starts: a client that reconnects must find its job.
        driver.find_runs().await;
        let (stop, stopped) = watch::channel(false);
        let mut driver = tokio::spawn(driver.run());
        let mut server = tokio::spawn(grpc::serve(listener, admission, services, stopped));
        phase.send_replace(ServingState::Serving);
        tokio::select! {
            () = shutdown => {}
            ended = &mut server => return joined(ended)?.map_err(failed),
            ended = &mut driver => {
                joined(ended)??;
                return Err(failed("the driver has ended"));
            }
        }
        tracing::info!("stopping");
        phase.send_replace(ServingState::Stopping);
        let ended = async {
            handle.send(DriverMessage::Stop).await;
            joined((&mut driver).await)?
        };
        let ended = tokio::time::timeout(disk::LAST_ORDERS + STUCK, ended).await;
        let written = ended.unwrap_or_else(|_| Err(failed("the driver does not stop")));
        stop.send_replace(true);
        // Watchers' streams end with the driver; a client that keeps its connection open is cut off.
        match tokio::time::timeout(Duration::from_secs(2), &mut server).await {
            Ok(ended) => written.and(joined(ended)?.map_err(failed)),
            Err(_) => {
                server.abort();
                written
            }
        }
    }
}

fn failed(what: impl Display) -> Failure {
    Failure::new(FailureKind::Unexpected, format!("the cluster failed: {what:#}"))
}

/// What a task came to.
fn joined<T>(ended: Result<T, JoinError>) -> Result<T, Failure> {
    ended.map_err(failed)
}
