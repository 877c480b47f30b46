//! The ops port: plain HTTP/1.1 for those who keep a process running.
//!
//! `/livez` says whether the process is worth keeping, `/readyz` whether it can be of use now, `/metrics` what it has
//! counted. Whoever has a [`Health`] gets all three by [`probes()`]; [`Listener::serve`] serves any router, so that
//! there is room for more on the same port.
//!
//! The port is served by a thread of its own, with a runtime of its own. A probe is answered while the process
//! computes, and also when the rest of it has come to a halt, which is when it matters; and whatever is done to this
//! port takes nothing from training but the processor time of one thread.
//!
//! Anybody who reaches the port may ask, so it takes little and keeps nothing: a request a connection, small headers,
//! no body, a limit on every wait, and a number of connections beyond which a new one takes the place of the oldest.
//! Under a flood of connections that stay silent a probe is thus still answered. What is absent on purpose:
//! encryption, and any answer that changes something.

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

/// Connections at once.
pub const CONNECTIONS: usize = 64;
/// Bytes of a request's first line and headers.
pub const HEADER_BYTES: usize = 8 << 10;
/// Headers of a request.
const HEADERS: usize = 64;
/// How long a request may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(5);
/// How long a connection may last, its answer included.
const CONNECTION: Duration = Duration::from_secs(10);
/// How long answers that are under way have, once the port closes.
const LAST_ANSWERS: Duration = Duration::from_millis(250);
/// How long to wait after a connection that could not be taken, such as for want of file descriptors.
const RECOVERY: Duration = Duration::from_millis(100);

/// Where the ops port is, from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// At this address, `host:port`.
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
    /// Takes the port, if there is to be one.
    ///
    /// # Errors
    /// If it can't be had: the line for the user.
    pub fn bind(&self) -> Result<Option<Listener>, String> {
        match self {
            Self::Off => Ok(None),
            Self::At(address) => Listener::bind(address).map(Some),
        }
    }
}

/// The ops port, taken and not yet served.
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

    /// Serves this router, and says where, until the server is ended.
    ///
    /// # Errors
    /// If the operating system gives no thread.
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

/// A port that is being served. It goes on until it is ended, or with the process.
#[derive(Debug)]
pub struct Server {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Takes no more requests, and gives those that are being answered a moment.
    pub fn end(self) {
        // It may have ended already.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

async fn serve(listener: &TcpListener, router: &Router, mut stopped: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    let mut connections = Connections::default();
    loop {
        let stream = tokio::select! {
            // An error means that nobody can end it: it goes on.
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
        // Its turn comes before that of those who may push it out: most have asked by now, and are answered at once.
        tokio::task::yield_now().await;
    }
    // Who has not asked by now is not waited for.
    let _ = tokio::time::timeout(LAST_ANSWERS, graceful.shutdown()).await;
}

/// One connection, for one request.
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

/// The connections that there are, the oldest first.
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
    fn a_port_that_is_taken_is_named_with_the_remedy() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();

        let error = Listen::At(address.clone()).bind().unwrap_err();

        assert!(error.starts_with(&format!("--ops-listen {address}: ")), "{error}");
        assert!(error.contains("--ops-listen off or another port"), "{error}");
    }

    #[tokio::test]
    async fn a_connection_too_many_takes_the_place_of_the_oldest() {
        let mut connections = Connections::default();
        let tasks: Vec<_> = (0..=CONNECTIONS).map(|_| tokio::spawn(std::future::pending::<()>())).collect();

        tasks.iter().for_each(|task| connections.add(task.abort_handle()));

        let mut tasks = tasks.into_iter();
        assert!(tasks.next().unwrap().await.unwrap_err().is_cancelled());
        assert!(tasks.all(|task| !task.is_finished()), "all others go on");
        assert_eq!(connections.0.len(), CONNECTIONS);
    }
}
