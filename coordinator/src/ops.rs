//! The ops port of a coordinator: what [`millefeuille_program::ops`] serves, over a cluster's [`View`].
//!
//! - [`metrics`]: the table of everything at `/metrics`.
//! - [`ask`](mod@ask): the client's side, for `coordinator health --ops`.
//!
//! The training path does not know of the ops port: a request registers as a reader, the driver publishes a snapshot,
//! and the table is written from it. Counts kept elsewhere (of admission, of certificates) are registered in the
//! [`registry`] before it is served.

pub mod ask;
pub mod metrics;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use millefeuille_program::ops::{Health, Verdict, probes};
use prometheus_client::registry::Registry;

use crate::cluster::View;

pub use metrics::registry;

/// All routes of the port. The table is written from a snapshot taken at the request.
pub fn router(view: View, registry: Registry) -> Router {
    let seen = view.clone();
    let refreshed = from_fn(move |request: Request, next: Next| {
        let view = seen.clone();
        async move {
            if request.uri().path() == METRICS {
                view.refresh().await;
            }
            next.run(request).await
        }
    });
    probes(Watched { view, registry }).layer(refreshed)
}

const METRICS: &str = "/metrics";

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
