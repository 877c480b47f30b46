//! A cluster that lives on: `coordinator serve`, and workers that join it.

use std::net::{Ipv4Addr, TcpListener};

use serde_json::Value;

use crate::home::{Call, Home};
use crate::process::{Process, until};
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
        Cluster::start(
            self,
            self.coordinator(&format!("serve --listen 127.0.0.1:0 --runs-dir runs {settings}")),
        )
    }
}

impl<'h> Cluster<'h> {
    fn start(home: &'h Home, call: Call) -> Self {
        let mut serve = call.start();
        let line = serve.says("listening on ");
        let address = line["listening on ".len()..].split(';').next().unwrap_or_default().to_string();
        Self { home, serve, address }
    }

    /// A worker for it, which may still be on its way.
    pub fn worker(&self, settings: &str) -> Call {
        self.home.worker(&format!("--coordinator {} {settings}", self.address))
    }

    /// Starts a worker, and waits until it has joined.
    pub fn joined_by(&self, settings: &str) -> Process {
        let mut worker = self.worker(settings).start();
        worker.says("joined as worker");
        worker
    }

    /// A command that asks this cluster.
    pub fn coordinator(&self, arguments: &str) -> Call {
        self.home.coordinator(&format!("{arguments} --cluster {}", self.address))
    }

    /// What a command says in JSON, an object a line.
    pub fn ask(&self, command: &str) -> Vec<Value> {
        self.coordinator(&format!("{command} --json")).succeeds().json()
    }

    /// A client of its own.
    pub fn client(&self) -> Client {
        Client::connect(&self.address)
    }

    /// Waits until the job of this id is in this state.
    pub fn job_is(&self, client: &Client, id: &str, state: &str) {
        until(format!("job {id} is {state}"), || (client.job_state(id) == state).then_some(()));
    }

    /// Waits until as many workers are in this state.
    pub fn workers_are(&self, client: &Client, count: usize, state: &str) {
        until(format!("{count} workers are {state}"), || {
            let workers = client.workers();
            let there = workers.iter().filter(|worker| worker.state == state).count();
            (there == count).then_some(())
        });
    }
}

/// A port of this machine that nobody listens on.
///
/// # Panics
/// If there is no free port.
pub fn closed_port() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("a listener has an address").to_string()
}

/// Somebody who listens, and never says a word.
///
/// # Panics
/// If there is no free port.
pub fn silent_listener() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address").to_string();
    (listener, address)
}
