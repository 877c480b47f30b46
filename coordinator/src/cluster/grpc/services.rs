//! What the services need of the cluster.

use std::sync::Arc;

use tokio::sync::watch;

use crate::cluster::board::Reader;
use crate::cluster::messages::{Handle, Serving};

/// What the services need of the cluster.
pub(in crate::cluster) struct Services {
    /// The way into the driver.
    pub(in crate::cluster) driver: Handle,
    /// What the driver shows.
    pub(in crate::cluster) board: Reader,
    /// The running job, as those who check results need it.
    pub(in crate::cluster) serving: watch::Receiver<Option<Arc<Serving>>>,
    /// What workers must know to be admitted.
    pub(in crate::cluster) token: Option<String>,
    /// Which life of the coordinator this is.
    pub(in crate::cluster) incarnation: u64,
}
