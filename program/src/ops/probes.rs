//! The routes `/livez`, `/readyz` and `/metrics`, for any [`Health`].

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Body as _;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;

/// `Ok` for yes, `Err` for no, each with a reason in one line.
pub type Verdict = Result<String, String>;

/// The health of a process. The thread that serves the port calls these methods: they read state that other threads
/// have published, and never block.
pub trait Health: Send + Sync + 'static {
    /// Whether the process is alive. "No" means that it should be restarted.
    fn live(&self) -> Verdict;
    /// Whether the process can do its work now. "No" means that requests should go elsewhere.
    fn ready(&self) -> Verdict;
    /// The process's metrics.
    fn registry(&self) -> &Registry;
}

/// `/livez` checks again after this time before it reports "no": a process that was stopped and continues may need a
/// moment.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// A router with the three paths; the caller may add more.
pub fn probes(health: impl Health) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(async || line(StatusCode::NOT_FOUND, "not found: there are /livez, /readyz and /metrics"))
        .method_not_allowed_fallback(async || line(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD"))
        .with_state(Arc::new(health))
}

async fn livez<H: Health>(State(health): State<Arc<H>>, _: NoBody) -> Response {
    if health.live().is_err() {
        tokio::time::sleep(SECOND_LOOK).await;
    }
    verdict(health.live())
}

async fn readyz<H: Health>(State(health): State<Arc<H>>, _: NoBody) -> Response {
    verdict(health.ready())
}

async fn metrics<H: Health>(State(health): State<Arc<H>>, _: NoBody) -> Response {
    let mut text = String::new();
    match prometheus_text::encode(&mut text, health.registry()) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus_text::CONTENT_TYPE)], text).into_response(),
        Err(_) => line(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"),
    }
}

fn verdict(verdict: Verdict) -> Response {
    match verdict {
        Ok(why) => line(StatusCode::OK, &why),
        Err(why) => line(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

fn line(status: StatusCode, text: &str) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{text}\n")).into_response()
}

/// Rejects a request that has a body: nothing here uses one, so none is read.
struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        if request.body().is_end_stream() {
            Ok(Self)
        } else {
            Err(line(StatusCode::PAYLOAD_TOO_LARGE, "no body is taken here"))
        }
    }
}
