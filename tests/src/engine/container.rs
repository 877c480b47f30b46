//! A container, and the faults that a test can cause.

use serde_json::Value;

use super::{Engine, fresh_name, inspected};
use crate::home::Call;
use crate::process::until;

/// A container of a cluster, which removes it.
#[derive(Clone, Debug)]
pub struct Container<'e> {
    engine: &'e Engine,
    /// Its id.
    pub id: String,
}

impl<'e> Container<'e> {
    pub(super) fn new(engine: &'e Engine, id: &str) -> Self {
        Self { engine, id: id.to_string() }
    }

    /// What `docker inspect` reports about it.
    pub fn inspect(&self) -> Value {
        inspected(&self.engine.docker(&format!("container inspect {}", self.id)).succeeds())
    }

    /// A command in it, with arguments as in a shell without quotes.
    pub fn exec(&self, command: &str) -> Call {
        self.engine.docker(&format!("exec {} {command}", self.id))
    }

    /// The output of a script in a shell in it.
    pub fn shell(&self, script: &str) -> String {
        self.exec("sh -c").arg(script).succeeds().stdout
    }

    /// Its output so far, from both streams.
    pub fn log(&self) -> String {
        let ended = self.engine.docker(&format!("logs {}", self.id)).succeeds();
        ended.stdout + &ended.stderr
    }

    /// Kills its process, as a fault would. The engine follows its restart policy.
    ///
    /// (After `docker kill` the engine would not restart it.) The process is killed from another container, which
    /// is root on the engine's machine even if the test is not.
    pub fn is_killed(&self) {
        let state = self.inspect();
        let (pid, image) = (&state["State"]["Pid"], state["Image"].as_str().unwrap_or_default());
        let name = fresh_name("kill");
        let flags = format!("--rm --name {name} --user 0 --pid host --network none --entrypoint sh");
        self.engine.docker(&format!("run {flags} {image} -c")).arg(format!("kill -9 {pid}")).succeeds();
    }

    /// How often the engine has restarted it by itself.
    pub fn restarts(&self) -> u64 {
        self.inspect()["RestartCount"].as_u64().unwrap_or_default()
    }

    /// Waits until the engine has restarted it.
    pub fn is_restarted(&self, before: u64) {
        until("the engine starts a container again", || {
            (self.restarts() > before && self.is_running()).then_some(())
        });
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        self.inspect()["State"]["Running"] == true
    }

    /// Waits until its health check reports this.
    pub fn health_is(&self, wanted: &str) {
        until(format!("a container is {wanted}"), || {
            (self.inspect()["State"]["Health"]["Status"] == wanted).then_some(())
        });
    }

    /// Pauses the container.
    pub fn is_paused(&self) {
        self.engine.docker(&format!("pause {}", self.id)).succeeds();
    }

    /// Resumes it.
    pub fn is_unpaused(&self) {
        self.engine.docker(&format!("unpause {}", self.id)).succeeds();
    }

    /// Disconnects it from a network.
    pub fn is_cut_from(&self, network: &str) {
        self.engine.docker(&format!("network disconnect {network} {}", self.id)).succeeds();
    }

    /// Connects it to a network again.
    pub fn is_connected_to(&self, network: &str) {
        self.engine.docker(&format!("network connect {network} {}", self.id)).succeeds();
    }
}
