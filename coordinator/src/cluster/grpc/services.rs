//! What the services need of the cluster.

use std::sync::Arc;

use tokio::sync::watch;

use crate::cluster::board::Reader;
use crate::cluster::messages::{Handle, Serving};

/// What the services need of the cluster.
pub(in crate::cluster) struct Services {
    /// Sends messages to the driver.
    pub(in crate::cluster) driver: Handle,
    /// Reads the driver's snapshots.
    pub(in crate::cluster) board: Reader,
    /// What the services know of the running job.
    pub(in crate::cluster) serving: watch::Receiver<Option<Arc<Serving>>>,
    /// The token that workers must present for admission.
    pub(in crate::cluster) token: Option<String>,
    /// Identifies this start of the coordinator.
    pub(in crate::cluster) incarnation: u64,
}
