//! A network with faults between workers and their coordinator: a proxy that forwards connections.
//!
//! Each direction of the link can be stalled (no bytes are forwarded, and connections stay open), slowed to a
//! number of bytes per second, or delayed. The link can be cut (both ends of every connection are closed, and new
//! ones are refused), and it can close its connections on the workers' side only, so that the coordinator does not
//! detect it. [`Proxy::heal`] ends every fault. Bytes of a stalled direction are then forwarded, as with TCP after
//! a network outage.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A direction of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From workers to the coordinator.
    Up,
    /// From the coordinator to workers.
    Down,
}

/// The link. It is closed when the value is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Its address for workers.
    pub address: String,
    link: Arc<Link>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Link {
    upstream: String,
    state: Mutex<State>,
    changed: Condvar,
    /// Held while sending: all connections share the bandwidth.
    ways: [Mutex<()>; 2],
}

#[derive(Debug, Default)]
struct State {
    stalled: [bool; 2],
    bytes_per_second: Option<u32>,
    delay: Duration,
    is_cut: bool,
    is_over: bool,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    worker: TcpStream,
    coordinator: TcpStream,
    /// Whether its end is hidden from the coordinator.
    lost: Arc<AtomicBool>,
}

/// The size of a forwarded chunk on a slow link, so that connections take turns.
const SLICE: usize = 4096;

impl Proxy {
    /// A link to the coordinator at this address.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn to(upstream: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        let link = Arc::new(Link {
            upstream: upstream.to_string(),
            state: Mutex::default(),
            changed: Condvar::new(),
            ways: Default::default(),
        });
        let accepting = Arc::clone(&link);
        let accepting = std::thread::spawn(move || accepting.accept(&listener));
        Self { address, link, accepting: Some(accepting) }
    }

    /// Stalls a direction.
    pub fn stall(&self, way: Way) {
        self.change(|state| state.stalled[way as usize] = true);
    }

    /// Limits each direction to so many bytes per second, for all connections together.
    pub fn throttle(&self, bytes_per_second: u32) {
        self.change(|state| state.bytes_per_second = Some(bytes_per_second));
    }

    /// Delays everything.
    pub fn delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// Closes every connection at both ends, and refuses new ones.
    pub fn cut(&self) {
        self.change(|state| {
            state.is_cut = true;
            state.close();
        });
    }

    /// Closes every connection at the worker's end only. New ones are accepted.
    pub fn lose(&self) {
        self.change(|state| {
            for connection in &state.connections {
                connection.lost.store(true, Ordering::SeqCst);
                // It may be closed already.
                let _ = connection.worker.shutdown(Shutdown::Both);
            }
        });
    }

    /// Ends every fault.
    pub fn heal(&self) {
        self.change(|state| {
            state.stalled = [false; 2];
            state.bytes_per_second = None;
            state.delay = Duration::ZERO;
            state.is_cut = false;
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.link.state());
        self.link.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|state| {
            state.is_over = true;
            state.close();
        });
        // A last connection wakes the listener.
        let _ = TcpStream::connect(&self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl State {
    fn close(&mut self) {
        for Connection { worker, coordinator, .. } in self.connections.drain(..) {
            // It may be closed already.
            let _ = worker.shutdown(Shutdown::Both);
            let _ = coordinator.shutdown(Shutdown::Both);
        }
    }
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for worker in listener.incoming() {
            if self.state().is_over {
                return;
            }
            // A refused connection is closed at once.
            if let Ok(worker) = worker
                && !self.state().is_cut
                && let Ok(coordinator) = TcpStream::connect(&self.upstream)
            {
                self.join(worker, coordinator).expect("streams can be cloned");
            }
        }
    }

    fn join(self: &Arc<Self>, worker: TcpStream, coordinator: TcpStream) -> std::io::Result<()> {
        worker.set_nodelay(true)?;
        coordinator.set_nodelay(true)?;
        let lost = Arc::new(AtomicBool::new(false));
        self.state().connections.push(Connection {
            worker: worker.try_clone()?,
            coordinator: coordinator.try_clone()?,
            lost: Arc::clone(&lost),
        });
        let ways =
            [(Way::Up, worker.try_clone()?, coordinator.try_clone()?), (Way::Down, coordinator, worker)];
        for (way, from, mut to) in ways {
            let (link, lost) = (Arc::clone(self), Arc::clone(&lost));
            std::thread::spawn(move || {
                link.pass(way, from, &mut to);
                if !lost.load(Ordering::SeqCst) {
                    // It may be closed already.
                    let _ = to.shutdown(Shutdown::Both);
                }
            });
        }
        Ok(())
    }

    /// Forwards bytes until an end closes; the close is not forwarded while the direction is stalled.
    fn pass(&self, way: Way, mut from: TcpStream, to: &mut TcpStream) {
        let mut buffer = [0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            for slice in buffer[..count].chunks(self.slice()) {
                self.wait_for_turn(way, slice.len());
                if to.write_all(slice).is_err() {
                    return;
                }
            }
        }
        self.wait_for_turn(way, 0);
    }

    fn slice(&self) -> usize {
        if self.state().bytes_per_second.is_some() { SLICE } else { 1 << 16 }
    }

    /// Waits until so many bytes may be forwarded.
    fn wait_for_turn(&self, way: Way, bytes: usize) {
        std::thread::sleep(self.state().delay);
        let _turn = self.ways[way as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = |state: &mut State| state.stalled[way as usize] && !state.is_over;
        let state = self.changed.wait_while(self.state(), stalled);
        let rate = state.unwrap_or_else(PoisonError::into_inner).bytes_per_second;
        std::thread::sleep(rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) * bytes as u32 / rate));
    }
}
