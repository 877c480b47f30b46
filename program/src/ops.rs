//! The ops port: plain HTTP/1.1 for supervisors and monitoring.
//!
//! `/livez` says whether the process is alive, `/readyz` whether it can do its work now, and `/metrics` returns its
//! metrics. A type that implements [`Health`] gets all three from [`probes()`]. [`Listener::serve`] serves any
//! router, so the same port can serve more.
//!
//! The port has its own thread and its own runtime. So it answers a probe while the process computes, and also when
//! the rest of the process is stuck, which is when it matters. Requests to this port take nothing from training but
//! one thread's processor time.
//!
//! Anybody who reaches the port may send requests, so the port limits its resources: one request per connection,
//! small headers, no body, a time limit on every wait, and a maximum number of connections, beyond which a new
//! connection replaces the oldest. So a probe is answered even under a flood of silent connections. By design there
//! is no encryption, and no request changes anything.

mod page;
mod probes;
mod pulse;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::{debug, info};

use crate::process;

pub use page::{Page, table};
pub use probes::{Health, Verdict, probes};
pub use pulse::{Pulse, STUCK};

/// Maximum number of connections.
pub const CONNECTIONS: usize = 64;
/// Maximum bytes of a request's first line and headers.
pub const HEADER_BYTES: usize = 8 << 10;
/// Maximum number of headers in a request.
const HEADERS: usize = 64;
/// Time limit for a request to arrive.
const ARRIVAL: Duration = Duration::from_secs(5);
/// Time limit for a connection, including the response.
const CONNECTION: Duration = Duration::from_secs(10);
/// Time for responses in progress once the port closes.
const LAST_ANSWERS: Duration = Duration::from_millis(250);
/// Pause after a failed `accept`, for example when file descriptors run out.
const RECOVERY: Duration = Duration::from_millis(100);

/// The ops port's address, from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// No ops port.
    Off,
    /// The port listens at this address, `host:port`.
    At(String),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => process::address(text).map(Self::At).map_err(|message| format!("{message}, or off")),
        }
    }
}

impl Listen {
    /// Binds the port, unless it is [`Listen::Off`].
    ///
    /// # Errors
    /// If binding fails. The error is the line for the user.
    pub fn bind(&self) -> Result<Option<Listener>, String> {
        match self {
            Self::Off => Ok(None),
            Self::At(address) => Listener::bind(address).map(Some),
        }
    }
}

/// The ops port, bound but not served yet.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
}

impl Listener {
    fn bind(address: &str) -> Result<Self, String> {
        let cannot = |error: io::Error| {
            process::cannot_listen("--ops-listen", address, &error, "say --ops-listen off or another port")
        };
        let socket = std::net::TcpListener::bind(address).map_err(cannot)?;
        socket.set_nonblocking(true).map_err(cannot)?;
        let address = socket.local_addr().map_err(cannot)?;
        Ok(Self { socket, address })
    }

    /// Logs the address and serves this router until [`Server::end`] is called.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub fn serve(self, router: Router) -> io::Result<Server> {
        let Self { socket, address } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _context = runtime.enter();
            TcpListener::from_std(socket)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("ops".into()).spawn(move || {
            runtime.block_on(serve(&listener, &router, stopped));
        })?;
        info!("probes and metrics are at http://{address}: /livez, /readyz, /metrics");
        Ok(Server { stop, thread })
    }
}

/// A port that is being served, until [`Server::end`] or the end of the process.
#[derive(Debug)]
pub struct Server {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Accepts no more requests, and gives those in progress a moment to finish.
    pub fn end(self) {
        // The server may have ended already.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

async fn serve(listener: &TcpListener, router: &Router, mut stopped: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    let mut connections = Connections::default();
    loop {
        let stream = tokio::select! {
            // An error means that the sender is gone and the server cannot be ended: keep serving.
            Ok(()) = &mut stopped => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!("the ops port takes no connection: {error}");
                    tokio::time::sleep(RECOVERY).await;
                    continue;
                }
            },
        };
        connections.add(tokio::spawn(connection(stream, router.clone(), &graceful)).abort_handle());
        // Let this connection run before later ones can replace it: most have sent their request by now, and get a
        // response at once.
        tokio::task::yield_now().await;
    }
    // Connections that have sent no request by now are not waited for.
    let _ = tokio::time::timeout(LAST_ANSWERS, graceful.shutdown()).await;
}

/// Serves one request on a connection.
fn connection(
    stream: TcpStream,
    router: Router,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + use<> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).keep_alive(false).header_read_timeout(ARRIVAL);
    http.max_header_size(HEADER_BYTES).max_headers(HEADERS).max_buf_size(2 * HEADER_BYTES);
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let served = graceful.watch(served);
    async move {
        match tokio::time::timeout(CONNECTION, served).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!("a client of the ops port: {error}"),
            Err(_) => debug!("a client of the ops port does not read its answer"),
        }
    }
}

/// The open connections, oldest first.
#[derive(Default)]
struct Connections(VecDeque<AbortHandle>);

impl Connections {
    fn add(&mut self, connection: AbortHandle) {
        self.0.retain(|there| !there.is_finished());
        if self.0.len() >= CONNECTIONS
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_an_address_or_off() {
        assert_eq!("off".parse(), Ok(Listen::Off));
        assert_eq!("0.0.0.0:7071".parse(), Ok(Listen::At("0.0.0.0:7071".into())));
        let error = "7071".parse::<Listen>().unwrap_err();
        assert!(error.contains("host:port") && error.ends_with("or off"), "{error}");
    }

    #[test]
    fn a_port_in_use_is_reported_with_the_remedy() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();

        let error = Listen::At(address.clone()).bind().unwrap_err();

        assert!(error.starts_with(&format!("--ops-listen {address}: ")), "{error}");
        assert!(error.contains("--ops-listen off or another port"), "{error}");
    }

    #[tokio::test]
    async fn a_connection_beyond_the_limit_replaces_the_oldest() {
        let mut connections = Connections::default();
        let tasks: Vec<_> = (0..=CONNECTIONS).map(|_| tokio::spawn(std::future::pending::<()>())).collect();

        tasks.iter().for_each(|task| connections.add(task.abort_handle()));

        let mut tasks = tasks.into_iter();
        assert!(tasks.next().unwrap().await.unwrap_err().is_cancelled());
        assert!(tasks.all(|task| !task.is_finished()), "all others go on");
        assert_eq!(connections.0.len(), CONNECTIONS);
    }
}
