//! The calls that a peer may make, by the role in its certificate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use http::{Request, Response};
use millefeuille_proto::tls::Role;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::memory::Meter;
use super::{Reason, Rejections};

/// The peer of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address from which it connects.
    pub address: SocketAddr,
    /// The role in its certificate.
    pub role: Option<Role>,
    /// What the connection holds in memory.
    pub meter: Arc<Meter>,
}

/// The kind of a call, by who may make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Calls for every role.
    Everybody,
    /// Calls that read a cluster.
    Reading,
    /// Calls that change a cluster.
    Operating,
    /// Calls that workers make.
    Working,
}

/// The methods that only read. Any other method requires the operator role, until it is listed here.
const READING: [&str; 6] = ["GetMetrics", "GetModel", "ListJobs", "ListWorkers", "WatchJob", "WatchMetrics"];

impl Access {
    /// The kind of a path such as `/millefeuille.v1.Cluster/ListJobs`.
    fn to(path: &str) -> Self {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        match service {
            "millefeuille.v1.Worker" => Self::Working,
            "millefeuille.v1.Cluster" if READING.contains(&method) => Self::Reading,
            "millefeuille.v1.Cluster" => Self::Operating,
            // Health, reflection, and unknown paths.
            _ => Self::Everybody,
        }
    }

    fn allows(self, role: Role) -> bool {
        match self {
            Self::Everybody => true,
            Self::Reading => matches!(role, Role::Operator | Role::Reader),
            Self::Operating => role == Role::Operator,
            Self::Working => role == Role::Worker,
        }
    }

    const fn required(self) -> &'static str {
        match self {
            Self::Everybody => "any role",
            Self::Reading => "role operator or reader",
            Self::Operating => "role operator",
            Self::Working => "role worker",
        }
    }
}

/// Why this peer may not make this call; `None` if it may.
fn refused(peer: Option<&Peer>, path: &str) -> Option<String> {
    let access = Access::to(path);
    let method = shown(path.rsplit('/').next().unwrap_or_default());
    match peer.and_then(|peer| peer.role) {
        Some(role) if access.allows(role) => None,
        Some(role) => Some(format!(
            "a certificate with role {role} does not allow {method}, which requires {}",
            access.required()
        )),
        None => Some(format!(
            "the certificate has no role, and {method} requires {} (a URI such as {})",
            access.required(),
            Role::Operator.uri()
        )),
    }
}

/// A method's name, shortened for the log.
fn shown(method: &str) -> &str {
    const LONGEST: usize = 64;
    method.char_indices().nth(LONGEST).map_or(method, |(end, _)| &method[..end])
}

/// Puts [`Roles`] before a service.
#[derive(Clone, Debug)]
pub struct RolesLayer {
    required: bool,
    rejections: Arc<Rejections>,
}

impl RolesLayer {
    /// Checks roles if they are `required`, and otherwise allows every call.
    pub(super) fn new(required: bool, rejections: Arc<Rejections>) -> Self {
        Self { required, rejections }
    }
}

impl<S> Layer<S> for RolesLayer {
    type Service = Roles<S>;

    fn layer(&self, inner: S) -> Roles<S> {
        Roles { inner, layer: self.clone() }
    }
}

/// Allows the calls that the peer's role permits, and answers the others with `PERMISSION_DENIED`.
#[derive(Clone, Debug)]
pub struct Roles<S> {
    inner: S,
    layer: RolesLayer,
}

impl<S> Service<Request<Body>> for Roles<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        let refused = self.layer.required.then(|| refused(peer, request.uri().path())).flatten();
        match refused {
            None => Either::Right(self.inner.call(request)),
            Some(message) => {
                let address = peer.map_or_else(String::new, |peer| peer.address.to_string());
                self.layer.rejections.reject(Reason::Role, address, &message);
                Either::Left(ready(Ok(Status::permission_denied(message).into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(role: Option<Role>) -> Peer {
        let meter = Arc::new(Meter::new(Arc::default()));
        Peer { address: ([127, 0, 0, 1], 1).into(), role, meter }
    }

    fn allowed(role: Role) -> Vec<&'static str> {
        let paths = [
            "/millefeuille.v1.Worker/Session",
            "/millefeuille.v1.Worker/FetchShard",
            "/millefeuille.v1.Worker/Heartbeat",
            "/millefeuille.v1.Cluster/SubmitJob",
            "/millefeuille.v1.Cluster/CancelJob",
            "/millefeuille.v1.Cluster/WatchJob",
            "/millefeuille.v1.Cluster/ListJobs",
            "/millefeuille.v1.Cluster/GetModel",
            "/millefeuille.v1.Cluster/SomethingNew",
            "/grpc.health.v1.Health/Check",
        ];
        let peer = peer(Some(role));
        let allowed = paths.into_iter().filter(|path| refused(Some(&peer), path).is_none());
        allowed.map(|path| path.rsplit('/').next().expect("a method")).collect()
    }

    #[test]
    fn a_role_allows_its_half_and_nothing_else() {
        let reading = ["WatchJob", "ListJobs", "GetModel"];
        assert_eq!(allowed(Role::Worker), ["Session", "FetchShard", "Heartbeat", "Check"]);
        assert_eq!(
            allowed(Role::Operator),
            [&["SubmitJob", "CancelJob"][..], &reading, &["SomethingNew", "Check"]].concat()
        );
        assert_eq!(allowed(Role::Reader), [&reading[..], &["Check"]].concat());
        assert_eq!(allowed(Role::Coordinator), ["Check"]);
    }

    #[test]
    fn without_a_role_nothing_is_allowed() {
        let peer = peer(None);
        for peer in [Some(&peer), None] {
            assert!(refused(peer, "/grpc.health.v1.Health/Check").is_some());
            assert!(refused(peer, "/millefeuille.v1.Worker/Heartbeat").is_some());
        }
    }

    #[test]
    fn every_method_that_reads_is_one_of_the_service() {
        let reflected = String::from_utf8_lossy(millefeuille_proto::DESCRIPTORS);
        for method in READING {
            assert!(reflected.contains(method), "{method}");
        }
    }
}
