//! A long-running cluster: `coordinator serve`, and workers that join it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use serde_json::Value;

use crate::home::{Call, Home};
use crate::process::{Process, Signal, until};
use crate::rpc::Client;

/// A running `coordinator serve`. Its runs are in the home's `runs`.
#[derive(Debug)]
pub struct Cluster<'h> {
    home: &'h Home,
    /// The process.
    pub serve: Process,
    /// Where it listens.
    pub address: String,
}

impl Home {
    /// Starts a cluster on a free port, with these settings.
    pub fn cluster(&self, settings: &str) -> Cluster<'_> {
        Cluster::start(self, self.serve("127.0.0.1:0", settings))
    }

    /// Starts a cluster whose coordinator can be [restarted](Cluster::comes_back) at its address.
    pub fn lasting_cluster(&self, settings: &str) -> Cluster<'_> {
        Cluster::start(self, self.serve(&closed_port(), settings))
    }

    /// The command that serves a cluster at an address, with these settings.
    pub fn serve(&self, address: &str, settings: &str) -> Call {
        self.coordinator(&format!("serve --listen {address} --runs-dir runs {settings}"))
    }
}

impl<'h> Cluster<'h> {
    /// Starts a command that serves a cluster, and waits until it listens.
    pub fn start(home: &'h Home, call: Call) -> Self {
        let mut serve = call.start();
        let line = serve.says("listening on ");
        let address = line["listening on ".len()..].split(';').next().unwrap_or_default().to_string();
        Self { home, serve, address }
    }

    /// Restarts the coordinator at the same address with the same runs.
    pub fn comes_back(&mut self, settings: &str) {
        self.comes_back_as(self.home.serve(&self.address, settings));
    }

    /// The same, with another command.
    pub fn comes_back_as(&mut self, call: Call) {
        self.serve = Self::start(self.home, call).serve;
    }

    /// Kills the coordinator with SIGKILL, and waits for its end.
    pub fn is_killed(&mut self) {
        self.serve.signal(Signal::KILL);
        self.serve.wait();
    }

    /// The command of a worker for it.
    pub fn worker(&self, settings: &str) -> Call {
        self.home.worker(&format!("--coordinator {} {settings}", self.address))
    }

    /// Starts a worker, and waits until it has joined.
    pub fn joined_by(&self, settings: &str) -> Process {
        let mut worker = self.worker(settings).start();
        worker.says("joined as worker");
        worker
    }

    /// A client command for this cluster.
    pub fn coordinator(&self, arguments: &str) -> Call {
        self.home.coordinator(&format!("{arguments} --cluster {}", self.address))
    }

    /// The JSON output of a command, one object per line.
    pub fn ask(&self, command: &str) -> Vec<Value> {
        self.coordinator(&format!("{command} --json")).succeeds().json()
    }

    /// A new gRPC client.
    pub fn client(&self) -> Client {
        Client::connect(&self.address)
    }

    /// Waits until the job of this id is in this state.
    pub fn job_is(&self, client: &Client, id: &str, state: &str) {
        until(format!("job {id} is {state}"), || (client.job_state(id) == state).then_some(()));
    }

    /// Starts a worker with these failpoints, and waits until it has joined.
    pub fn joined_with(&self, failpoints: &str) -> Process {
        let mut worker = self.worker("--slots 1").env("FAILPOINTS", failpoints).start();
        worker.says("joined as worker");
        worker
    }

    /// Starts so many workers, and waits until all have joined.
    pub fn joined_by_many(&self, count: usize, settings: &str) -> Vec<Process> {
        let mut workers: Vec<_> = (0..count).map(|_| self.worker(settings).start()).collect();
        workers.iter_mut().for_each(|worker| _ = worker.says("joined as worker"));
        workers
    }

    /// Waits until so many workers are in this state.
    pub fn workers_are(&self, client: &Client, count: usize, state: &str) {
        until(format!("{count} workers are {state}"), || {
            let workers = client.workers();
            let there = workers.iter().filter(|worker| worker.state == state).count();
            (there == count).then_some(())
        });
    }
}

/// A local address on which nothing listens, outside of the range of ephemeral ports, so that the system does not
/// assign it to another process.
///
/// # Panics
/// If there is no free port.
pub fn closed_port() -> String {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end: u16 = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32768);
    let ports = 10_000..end.max(20_000);
    // Concurrent tests begin their search at different ports.
    let first = std::process::id() as usize * 61 % ports.len();
    let candidates = ports.clone().cycle().skip(first).take(ports.len());
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    format!("127.0.0.1:{}", candidates.into_iter().find(free).expect("a port is free"))
}

/// A listener that never sends anything.
///
/// # Panics
/// If there is no free port.
pub fn silent_listener() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address").to_string();
    (listener, address)
}
