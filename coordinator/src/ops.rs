//! The ops port of a coordinator: what [`millefeuille_program::ops`] serves, over a cluster's [`View`].
//!
//! - [`metrics`]: the table of everything at `/metrics`.
//! - [`ask`](mod@ask): the client's side, for `coordinator health --ops`.
//!
//! The training path knows nothing of this: readers get the snapshot that the driver publishes anyway, and the table
//! is written from it when somebody asks. What is counted elsewhere (by whoever accepts connections, by whoever holds
//! certificates) is registered in the [`registry`] before it is served.

pub mod ask;
pub mod metrics;

use axum::Router;
use millefeuille_program::ops::{Health, Verdict, probes};
use prometheus_client::registry::Registry;

use crate::cluster::View;

pub use metrics::registry;

/// Everything on the port.
pub fn router(view: View, registry: Registry) -> Router {
    probes(Watched { view, registry })
}

struct Watched {
    view: View,
    registry: Registry,
}

impl Health for Watched {
    fn live(&self) -> Verdict {
        self.view.live()
    }

    fn ready(&self) -> Verdict {
        self.view.ready()
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }
}
