//! Random faults on a real cluster, chosen by a seed.
//!
//! A cluster trains one job after another. Meanwhile workers are killed, stopped, continued, added and drained, and
//! the coordinator is killed, by signals at any time and by failpoints. A supervisor restarts a killed coordinator
//! at the same address with the same runs. After each job its run is compared with the reference run.
//!
//! The seed determines the faults, their order and the pauses between them. It does not determine how far a process
//! has got at that time: to reproduce a failure, a seed may have to be repeated several times.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::data::random;
use crate::home::Home;
use crate::patience::Wait;
use crate::process::{Process, Signal};
use crate::undisturbed::Undisturbed;

/// The jobs, in turn. They differ in the numbers of shards and epochs.
const JOBS: [&str; 3] = ["--epochs 12", "--epochs 6 --shards 3", "--epochs 20 --shards 16 --seed 5"];
/// Short deadlines and frequent checkpoints.
const SETTINGS: &str =
    "--heartbeat-interval 0.2 --heartbeat-deadline 1.5 --checkpoint-interval 0.1 --audit 0.05";
/// The largest number of workers.
const MOST_WORKERS: usize = 5;
/// The time in which faults are injected into a job.
const DISTURBED: Duration = Duration::from_secs(8);
/// The longest pause between two faults, in milliseconds.
const LONGEST_PAUSE: u64 = 300;

/// Failpoints of workers.
const WORKER_POINTS: [&str; 8] = [
    "worker-before-piece=90*off->return",
    "worker-before-send=40*off->return",
    "worker-mid-message=20*off->return",
    "worker-after-send=60*off->return",
    "worker-mid-fetch=9*off->return",
    "worker-before-evaluation=7*off->return",
    "worker-slow=sleep(5)",
    "worker-nan=70*off->1*return",
];
/// Failpoints of coordinators.
const COORDINATOR_POINTS: [&str; 9] = [
    "checkpoint-before-fsync=4*off->return",
    "checkpoint-after-fsync=7*off->return",
    "checkpoint-before-rename=5*off->return",
    "checkpoint-after-rename=6*off->return",
    "checkpoint-before-manifest=3*off->return",
    "history-after-append=2*off->return",
    "record-after-rename=1*off->return",
    "receipt-after-fsync=return",
    "receipt-after-rename=return",
];

/// The report of a chaos run.
#[derive(Debug, Default)]
pub struct Report {
    /// The number of trained jobs.
    pub rounds: usize,
    /// How often each fault was injected.
    pub faults: BTreeMap<&'static str, usize>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<_> = self.faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
        let all: usize = self.faults.values().sum();
        write!(f, "{} rounds, {all} faults survived: {}", self.rounds, faults.join(", "))
    }
}

/// Injects faults into a cluster for about so long.
///
/// # Panics
/// If a job fails or has other results than the reference run; prints how to repeat the run.
pub fn run(seed: u64, seconds: u64) -> Report {
    let home = Home::new();
    home.small_job();
    let alone = JOBS.map(|settings| home.undisturbed(&format!("small.toml {settings}")));
    let mut chaos = Chaos::new(&home, seed);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline {
        let round = chaos.report.rounds;
        let disturbed = catch_unwind(AssertUnwindSafe(|| chaos.round(&alone[round % JOBS.len()])));
        if let Err(panic) = disturbed {
            eprintln!(
                "chaos: round {} failed; again with: make chaos SECONDS={seconds} SEED={seed}",
                round + 1
            );
            eprintln!("chaos: its faults: {}", chaos.done.join("; "));
            eprintln!("chaos: the last output of the coordinator:\n{}", tail(&chaos.cluster.serve.stderr()));
            resume_unwind(panic);
        }
        chaos.report.rounds += 1;
    }
    chaos.report
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A worker, and whether it is stopped.
struct Worker {
    process: Process,
    stopped: bool,
}

struct Chaos<'h> {
    home: &'h Home,
    cluster: Cluster<'h>,
    workers: Vec<Worker>,
    seed: u64,
    drawn: u64,
    report: Report,
    /// The faults of this round.
    done: Vec<String>,
}

impl<'h> Chaos<'h> {
    fn new(home: &'h Home, seed: u64) -> Self {
        let cluster = home.lasting_cluster(SETTINGS);
        let (report, done) = (Report::default(), Vec::new());
        Self { home, cluster, workers: Vec::new(), seed, drawn: 0, report, done }
    }

    /// The next random number below `below`.
    fn draw(&mut self, below: u64) -> u64 {
        self.drawn += 1;
        random(self.drawn, self.seed) % below
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.draw(from.len() as u64) as usize]
    }

    fn note(&mut self, fault: &'static str, what: impl fmt::Display) {
        *self.report.faults.entry(fault).or_default() += 1;
        self.done.push(format!("{fault} {what}"));
    }

    /// Trains one job while faults are injected.
    fn round(&mut self, alone: &Undisturbed) {
        self.done.clear();
        let round = self.report.rounds;
        let job = format!("small.toml --name round-{round} {}", JOBS[round % JOBS.len()]);
        let begun = Instant::now();
        let mut wait = Wait::new(format_args!("round {} ends", round + 1));
        let mut following = self.cluster.coordinator(&format!("train --wait {job}")).start();
        while following.is_running() {
            self.supervise();
            if begun.elapsed() < DISTURBED {
                self.inject_fault();
            } else {
                self.continue_workers();
            }
            wait.poll()
                .unwrap_or_else(|timeout| panic!("{timeout}; its last output:\n{}", following.stderr()));
            let pause = self.draw(LONGEST_PAUSE);
            std::thread::sleep(Duration::from_millis(pause));
        }
        following.wait().with_code(0);
        let run_dir = self.run_dir(&format!("round-{round}"));
        alone.is_equalled_by(&self.home.run(&run_dir));
    }

    /// The run directory of this round. An interrupted submission may have used the first name.
    fn run_dir(&self, name: &str) -> String {
        let runs = std::fs::read_dir(self.home.path("runs")).expect("there are runs");
        let names = runs.flatten().map(|run| run.file_name().to_string_lossy().into_owned());
        let mut names = names.filter(|run| run.rsplit_once('-').is_some_and(|(of, _)| of == name));
        let done = names.find(|run| self.home.run(&format!("runs/{run}")).has("receipt.json"));
        format!("runs/{}", done.unwrap_or_else(|| panic!("no run of {name} is done")))
    }

    /// Restarts a coordinator that has exited, and adds a worker if none runs.
    fn supervise(&mut self) {
        if !self.cluster.serve.is_running() {
            let serve = self.home.serve(&self.cluster.address, SETTINGS);
            let dies_again = self.draw(3) == 0;
            let serve = if dies_again {
                let point = self.pick(&COORDINATOR_POINTS);
                self.note("coordinator set to die", point);
                serve.env("FAILPOINTS", point)
            } else {
                serve
            };
            self.cluster.comes_back_as(serve);
        }
        self.workers.retain_mut(|worker| worker.process.is_running());
        if self.workers.iter().all(|worker| worker.stopped) {
            self.add("");
        }
    }

    fn add(&mut self, failpoints: &'static str) {
        let process = self.cluster.worker("--slots 1").env("FAILPOINTS", failpoints).start();
        self.workers.push(Worker { process, stopped: false });
    }

    /// Injects one fault, or none.
    fn inject_fault(&mut self) {
        let worker = (!self.workers.is_empty()).then(|| self.draw(self.workers.len() as u64) as usize);
        match (self.draw(12), worker) {
            (0..=3, _) if self.workers.len() < MOST_WORKERS => {
                let well = self.draw(2) == 0;
                let point = if well { "" } else { self.pick(&WORKER_POINTS) };
                self.note(if well { "worker added" } else { "worker set to fail" }, point);
                self.add(point);
            }
            (4..=5, Some(worker)) => self.signal("worker killed", worker, Signal::KILL),
            (6, Some(worker)) if !self.workers[worker].stopped => {
                self.workers[worker].stopped = true;
                self.signal("worker stopped", worker, Signal::STOP);
            }
            (7, Some(worker)) if self.workers[worker].stopped => {
                self.workers[worker].stopped = false;
                self.signal("worker continued", worker, Signal::CONT);
            }
            (8, Some(worker)) => self.signal("worker drained", worker, Signal::TERM),
            (9, _) => {
                self.note("coordinator killed", "");
                self.cluster.serve.signal(Signal::KILL);
                self.cluster.serve.wait();
            }
            (10, _) => self.stop_coordinator_briefly(),
            _ => {}
        }
    }

    fn signal(&mut self, fault: &'static str, worker: usize, signal: Signal) {
        let process = &mut self.workers[worker].process;
        if process.is_running() {
            process.signal(signal);
            let pid = process.pid();
            self.note(fault, pid);
        }
    }

    /// Stops the coordinator for a short time.
    fn stop_coordinator_briefly(&mut self) {
        let pause = self.draw(400);
        self.note("coordinator stopped", format_args!("for {pause} ms"));
        self.cluster.serve.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(pause));
        self.cluster.serve.signal(Signal::CONT);
    }

    /// Continues all stopped workers, and injects no more faults.
    fn continue_workers(&mut self) {
        for worker in self.workers.iter_mut().filter(|worker| worker.stopped) {
            worker.stopped = false;
            if worker.process.is_running() {
                worker.process.signal(Signal::CONT);
            }
        }
    }
}
