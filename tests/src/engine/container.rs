//! A container, and what can happen to it.

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

    /// What the engine says about it.
    pub fn inspect(&self) -> Value {
        inspected(&self.engine.docker(&format!("container inspect {}", self.id)).succeeds())
    }

    /// A command in it, with arguments as in a shell without quotes.
    pub fn exec(&self, command: &str) -> Call {
        self.engine.docker(&format!("exec {} {command}", self.id))
    }

    /// What a shell in it says to a script.
    pub fn shell(&self, script: &str) -> String {
        self.exec("sh -c").arg(script).succeeds().stdout
    }

    /// What it has said so far, on both outputs.
    pub fn log(&self) -> String {
        let ended = self.engine.docker(&format!("logs {}", self.id)).succeeds();
        ended.stdout + &ended.stderr
    }

    /// Kills its process, as a fault would: the engine, which was not asked, does what its restart policy says.
    ///
    /// (`docker kill` counts as a wish that it be stopped, and nothing starts it again.) The process is one of the
    /// engine's machine, where a container can be root though the test may not be.
    pub fn is_killed(&self) {
        let state = self.inspect();
        let (pid, image) = (&state["State"]["Pid"], state["Image"].as_str().unwrap_or_default());
        let name = fresh_name("kill");
        let flags = format!("--rm --name {name} --user 0 --pid host --network none --entrypoint sh");
        self.engine.docker(&format!("run {flags} {image} -c")).arg(format!("kill -9 {pid}")).succeeds();
    }

    /// How often the engine has started it again by itself, since somebody started it.
    pub fn restarts(&self) -> u64 {
        self.inspect()["RestartCount"].as_u64().unwrap_or_default()
    }

    /// Waits until the engine has started it again.
    pub fn is_restarted(&self, before: u64) {
        until("the engine starts a container again", || {
            (self.restarts() > before && self.is_running()).then_some(())
        });
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        self.inspect()["State"]["Running"] == true
    }

    /// Waits until its health check says this.
    pub fn health_is(&self, wanted: &str) {
        until(format!("a container is {wanted}"), || {
            (self.inspect()["State"]["Health"]["Status"] == wanted).then_some(())
        });
    }

    /// Stops all that runs in it, without a word to anybody.
    pub fn is_paused(&self) {
        self.engine.docker(&format!("pause {}", self.id)).succeeds();
    }

    /// And on it goes.
    pub fn is_unpaused(&self) {
        self.engine.docker(&format!("unpause {}", self.id)).succeeds();
    }

    /// Cuts it from a network.
    pub fn is_cut_from(&self, network: &str) {
        self.engine.docker(&format!("network disconnect {network} {}", self.id)).succeeds();
    }

    /// Heals the cut.
    pub fn is_connected_to(&self, network: &str) {
        self.engine.docker(&format!("network connect {network} {}", self.id)).succeeds();
    }
}
