//! A cluster of containers: the project's `compose.yaml`, as it is, under a name of the test's own.
//!
//! The image is built from existing binaries (`Dockerfile.prebuilt`), and ports are free ones, both set with the
//! variables of `compose.yaml`.

use std::path::PathBuf;

use serde_json::Value;

use super::container::Container;
use super::{Engine, fresh_name, remove};
use crate::home::{Call, project};
use crate::patience::{Wait, until, without_progress};
use crate::process::{Ended, Process};
use crate::run::Run;

/// A cluster of containers. Its containers, network, volumes and images are removed when the value is dropped.
#[derive(Debug)]
pub struct Compose<'e> {
    engine: &'e Engine,
    name: String,
}

impl Engine {
    /// A cluster without any container yet.
    ///
    /// # Panics
    /// If the release binaries are not built.
    pub fn cluster(&self) -> Compose<'_> {
        let path = project().join("target/release/millefeuille");
        assert!(path.is_file(), "{} is not built; build it with: make build", path.display());
        Compose { engine: self, name: fresh_name("cluster") }
    }
}

impl<'e> Compose<'e> {
    /// The name that compose knows it by.
    pub fn project_name(&self) -> &str {
        &self.name
    }

    /// A command of compose on this cluster, with arguments as in a shell without quotes.
    pub fn call(&self, arguments: &str) -> Call {
        self.engine
            .compose(&format!("--project-name {} {arguments}", self.name))
            .env("MILLEFEUILLE_DOCKERFILE", "Dockerfile.prebuilt")
            .env("MILLEFEUILLE_PORT", "0")
            .env("MILLEFEUILLE_OPS_PORT", "0")
    }

    /// Runs a command of compose on this cluster.
    pub fn does(&self, arguments: &str) -> Ended {
        self.call(arguments).succeeds()
    }

    /// `up` with so many workers, in the background; returns when all have been started.
    pub fn up(&self, workers: usize) -> Ended {
        self.call(&format!("up --detach --scale worker={workers}")).succeeds()
    }

    /// The existing containers of a service, running or not.
    pub fn containers(&self, service: &str) -> Vec<Container<'e>> {
        let labels = [("project", self.name.as_str()), ("service", service), ("oneoff", "False")]
            .map(|(label, value)| format!("--filter label=com.docker.compose.{label}={value}"));
        let ids = self.engine.docker_says(&format!("ps --all --quiet --no-trunc {}", labels.join(" ")));
        ids.lines().map(|id| Container::new(self.engine, id)).collect()
    }

    /// The workers' containers.
    pub fn workers(&self) -> Vec<Container<'e>> {
        self.containers("worker")
    }

    /// The coordinator's container.
    ///
    /// # Panics
    /// If there is none.
    pub fn coordinator(&self) -> Container<'e> {
        self.containers("coordinator").pop().expect("there is a coordinator")
    }

    /// The command `coordinator` in the coordinator's container, by `docker exec`: a tenth of the cost of compose,
    /// which matters when a test polls.
    pub fn ask(&self, arguments: &str) -> Call {
        self.coordinator().exec(&format!("coordinator {arguments}"))
    }

    /// The JSON output of such a command, one object per line.
    pub fn ask_json(&self, command: &str) -> Vec<Value> {
        self.ask(&format!("{command} --json")).succeeds().json()
    }

    /// The state of each job, newest first.
    pub fn jobs(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        self.ask_json("jobs").iter().map(|job| (text(&job["id"]), text(&job["state"]))).collect()
    }

    /// The state of a job, and what it waits for; empty while the coordinator does not respond.
    fn state(&self, job: &str) -> (String, String) {
        let ended = self.ask("jobs --json").run();
        let jobs = if ended.code() == Some(0) { ended.json() } else { Vec::new() };
        let line = jobs.into_iter().find(|line| line["id"] == job).unwrap_or_default();
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_string();
        (text("state"), text("detail"))
    }

    /// Waits until a job is done. Polls the container, since its progress is not visible from outside.
    pub fn is_done(&self, job: &str) {
        let mut wait = Wait::new(format_args!("job {job} is done"));
        loop {
            let state = without_progress(|| self.state(job));
            if state.0 == "done" {
                return;
            }
            wait.observe(&state);
            wait.pause().unwrap_or_else(|timeout| panic!("{timeout}; it is {state:?}"));
        }
    }

    /// Waits until so many workers have joined.
    pub fn has_workers(&self, count: usize) {
        until(format!("{count} workers are there"), || {
            (self.ask_json("workers").len() == count).then_some(())
        });
    }

    /// Submits a job and waits until its first epoch is done. The returned process follows it.
    pub fn begins(&self, job: &str) -> Process {
        let mut following = self.coordinator().exec(&format!("coordinator train {job}")).start();
        following.says("Epoch 1/");
        following
    }

    /// A copy of a run directory.
    pub fn run(&self, job: &str) -> Run {
        let place = self.place(&fresh_name(job));
        let from = format!("{}:/millefeuille/runs/{job}", self.coordinator().id);
        self.engine.docker(&format!("cp {from}")).arg(&place).succeeds();
        Run::new(place)
    }

    /// A path on this machine for files of this cluster.
    pub fn place(&self, name: &str) -> PathBuf {
        self.engine.home().path(name)
    }

    /// The network of the cluster.
    pub fn network(&self) -> String {
        format!("{}_default", self.name)
    }

    /// The address on this machine at which a port of the coordinator's is published.
    pub fn published(&self, port: u16) -> String {
        self.call(&format!("port coordinator {port}")).succeeds().stdout.trim().to_string()
    }
}

impl Drop for Compose<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.call("logs --no-color --tail 40").run());
        }
        remove(self.call("down --volumes --rmi local --remove-orphans --timeout 0"));
    }
}
