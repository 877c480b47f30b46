//! A cluster whose workers are killed or stopped: `coordinator serve`, and workers that this program starts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use millefeuille_core::data::split::Split;
use millefeuille_core::job::Job;
use rustix::process::Signal;
use serde::Deserialize;
use tempfile::TempDir;

use super::log::{Entry, FILTER, Log, What};
use crate::coordinator;
use crate::process::Process;

/// Number of workers, with one slot each.
pub(super) const WORKERS: usize = 3;

/// Time limit for every wait, far longer than needed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two checks whether the workers are ready.
const POLL: Duration = Duration::from_millis(100);

/// The article's job, which does not end by itself.
const JOB: &str = "[fit]\nepochs = 1000000\n";

/// A running cluster.
pub(super) struct Cluster {
    // Dropped in this order.
    workers: Vec<Process>,
    serve: Process,
    log: Log,
    address: String,
    binary: PathBuf,
    /// The coordinator's name for the worker of each process.
    names: BTreeMap<u32, String>,
    reassigned: usize,
    place: TempDir,
}

/// A worker, as `coordinator workers --json` shows it.
#[derive(Deserialize)]
struct Shown {
    name: String,
    state: String,
    shards: Vec<u32>,
    shards_held: usize,
}

impl Cluster {
    /// Starts a cluster that computes the article's job with these settings.
    pub(super) fn start(binary: &Path, settings: &[&str]) -> anyhow::Result<Self> {
        let place = tempfile::tempdir().context("cannot make a directory for the run")?;
        fs::write(place.path().join("job.toml"), JOB).context("the job")?;
        let mut command = coordinator::undisturbed(binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--job", "job.toml", "--log-format", "json"]);
        command
            .args(settings)
            .env("MILLEFEUILLE_LOG", FILTER)
            .env("MILLEFEUILLE_OPS_LISTEN", "off")
            .current_dir(place.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut serve = Process::start(&mut command)?;
        let mut log = Log::of(serve.stderr().context("the standard error is not piped")?);
        let address = loop {
            if let What::Listening { address } = log.next(PATIENCE)?.what {
                break address;
            }
        };
        let (binary, names) = (binary.to_owned(), BTreeMap::new());
        let mut cluster =
            Self { workers: Vec::new(), serve, log, address, binary, names, reassigned: 0, place };
        for _ in 0..WORKERS {
            cluster.add_worker()?;
        }
        Ok(cluster)
    }

    /// Starts a worker and adds it after the others (see [`Self::first`]).
    pub(super) fn add_worker(&mut self) -> anyhow::Result<()> {
        let mut command = coordinator::undisturbed(&self.binary.with_file_name("worker"));
        command.args(["--coordinator", &self.address, "--slots", "1"]).env("MILLEFEUILLE_LOG", "error");
        command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir(self.place.path());
        self.workers.push(Process::start(&mut command)?);
        Ok(())
    }

    /// The oldest worker, and the coordinator's name for it.
    pub(super) fn first(&self) -> anyhow::Result<(&Process, &str)> {
        let process = self.workers.first().context("the cluster has no worker")?;
        let name = self.names.get(&process.id()).context("the worker has not joined")?;
        Ok((process, name))
    }

    /// Kills that worker, whatever its state.
    pub(super) fn remove_first(&mut self) {
        drop(self.workers.remove(0));
    }

    /// Waits until every worker computes and holds all samples: if any is lost, the others can take over at once.
    pub(super) fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut shown = self.shown()?;
        while !self.are_ready(&shown) {
            ensure!(Instant::now() < deadline, "not all workers have begun to compute:\n{shown}");
            self.still_run()?;
            thread::sleep(POLL);
            shown = self.shown()?;
        }
        while let Some(entry) = self.log.next_there()? {
            self.note(&entry);
        }
        Ok(())
    }

    /// The next line of the log.
    pub(super) fn next(&mut self) -> anyhow::Result<Entry> {
        let entry = self.log.next(PATIENCE)?;
        self.note(&entry);
        Ok(entry)
    }

    /// Stops the cluster. Returns an error if its log and the events in the run's directory disagree.
    ///
    /// Returns how often pending nodes of a worker were assigned to others, in total.
    pub(super) fn stop(mut self) -> anyhow::Result<usize> {
        self.serve.signal(Signal::TERM)?;
        self.serve.end_within(PATIENCE)?;
        while let Ok(entry) = self.log.next(PATIENCE) {
            self.note(&entry);
        }
        let written = self.written("reassigned")?;
        ensure!(
            written == self.reassigned,
            "nodes were reassigned {written} times, but the log has {} of them",
            self.reassigned
        );
        Ok(written)
    }

    fn note(&mut self, entry: &Entry) {
        match &entry.what {
            What::Joined { worker, process } => drop(self.names.insert(*process, worker.clone())),
            What::Reassigned { .. } => self.reassigned += 1,
            _ => {}
        }
    }

    /// The cluster's list of its workers.
    fn shown(&self) -> anyhow::Result<String> {
        let mut command = coordinator::undisturbed(&self.binary);
        command.args(["workers", "--json", "--cluster", &self.address]).stdin(Stdio::null());
        let output = command.output().context("cannot list the workers")?;
        ensure!(
            output.status.success(),
            "cannot list the workers: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).context("the list of workers is not text")
    }

    fn are_ready(&self, shown: &str) -> bool {
        let all = Split::ALL.len() * Job::default().shards as usize;
        let ready = |worker: &Shown| {
            worker.state == "computing" && !worker.shards.is_empty() && worker.shards_held == all
        };
        let ready: Vec<_> =
            shown.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(ready).collect();
        let is_ready = |process: &Process| {
            ready.iter().any(|worker| worker.name.ends_with(&format!(":{}", process.id())))
        };
        self.workers.iter().all(is_ready)
    }

    /// Returns an error if a worker has ended without being killed.
    fn still_run(&mut self) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            if let Some(status) = worker.ended()? {
                bail!("a worker has ended by itself: {status}");
            }
        }
        Ok(())
    }

    /// The number of events of this kind in the run's directory.
    fn written(&self, kind: &str) -> anyhow::Result<usize> {
        let runs = fs::read_dir(self.place.path().join("runs")).context("the runs")?;
        let run = runs.flatten().find(|entry| entry.path().is_dir()).context("a run")?.path();
        let events = fs::read_to_string(run.join("events.jsonl")).context("the run's events")?;
        let kinds = events.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        Ok(kinds.filter(|event| event["event"] == kind).count())
    }
}
