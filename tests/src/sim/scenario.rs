//! The scenario of a seed: the cluster, its jobs, and its faults until a time at which all faults stop.

use std::sync::Arc;
use std::time::Duration;

use millefeuille_core::arithmetic::Arithmetic;
use millefeuille_core::control::{ControlConfig, Facts};
use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::split::Sizes;
use millefeuille_core::learn::accumulation::Accumulation;
use millefeuille_core::learn::monitor::Monitor;
use millefeuille_core::learn::stopping::{EarlyStopping, StopAt, Stopping};

use super::random::Random;
use super::toy::Job;

/// The size of a sample.
pub(crate) const SAMPLE_BYTES: u64 = 785;

/// The properties of a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerProfile {
    pub(crate) slots: u32,
    /// The time for one sample.
    pub(crate) pace: Duration,
    pub(crate) cache_bytes: u64,
    pub(crate) compute_fault: ComputeFault,
}

/// The fault of a worker's computations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ComputeFault {
    None,
    /// It flips bits in this share of its results.
    Flips(f64),
    /// This share of its results is not finite.
    Infinities(f64),
}

/// Faults, and other events from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The process dies. Another one starts after `down`.
    Crash {
        worker: usize,
        down: Duration,
    },
    /// SIGSTOP, and SIGCONT after `length`.
    Pause {
        worker: usize,
        length: Duration,
    },
    /// The worker computes more slowly for a time.
    Slow {
        worker: usize,
        times: f64,
        length: Duration,
    },
    /// SIGTERM. Another process starts `down` after the drain.
    Drain {
        worker: usize,
        down: Duration,
    },
    /// Several workers join at once.
    Join {
        workers: usize,
    },
    /// Messages in these directions do not arrive.
    Partition {
        worker: usize,
        up: bool,
        down: bool,
        length: Duration,
    },
    /// The coordinator crashes after so many more actions.
    CrashCoordinator {
        actions: u64,
        down: Duration,
    },
    PauseCoordinator {
        length: Duration,
    },
    Cancel {
        job: usize,
    },
}

/// Delays, losses and duplicates, until faults stop.
#[derive(Clone, Debug)]
pub(crate) struct NetworkConditions {
    /// The longest delay of a message, in milliseconds.
    pub(crate) delay: u64,
    /// The probability that a message is lost, which breaks its connection.
    pub(crate) loss: f64,
    pub(crate) heartbeat_loss: f64,
    /// The probability that a result arrives a second time, at any later time.
    pub(crate) duplicates: f64,
    /// Whether results overtake each other within a session.
    pub(crate) reorders: bool,
}

/// The disk of the coordinator.
#[derive(Clone, Debug)]
pub(crate) struct DiskProfile {
    /// The longest duration of an operation, in milliseconds.
    pub(crate) delay: u64,
    /// The probability that a crash damages the newest checkpoint.
    pub(crate) damage: f64,
}

/// Everything that a seed determines.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) control: ControlConfig,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) jobs: Vec<Arc<Job>>,
    pub(crate) workers: Vec<WorkerProfile>,
    pub(crate) joiners: Vec<WorkerProfile>,
    pub(crate) network: NetworkConditions,
    pub(crate) disk: DiskProfile,
    /// Whether the coordinator can compute the jobs itself.
    pub(crate) arbiter: bool,
    pub(crate) faults: Vec<(Duration, Fault)>,
    /// When all faults stop.
    pub(crate) faults_stop: Duration,
}

impl Scenario {
    pub(crate) fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let compute_faults = ComputeFaults::new(random);
        let workers: Vec<_> = (0..random.within(1..=9)).map(|_| compute_faults.profile(random)).collect();
        let joiners = (0..random.within(0..=4)).map(|_| compute_faults.profile(random)).collect();
        let count = workers.len() as u64;
        let without_faults = random.chance(0.1);
        let faults_stop = Duration::from_secs(random.within(3..=60));
        let jobs = (0..1 + u64::from(random.chance(0.2)))
            .map(|_| Arc::new(job(random, compute_faults.may_diverge)))
            .collect();
        let mut scenario = Self {
            control: control(random, count),
            heartbeat_interval: Duration::from_secs(1),
            jobs,
            workers,
            joiners,
            network: if without_faults {
                NetworkConditions::without_faults()
            } else {
                network_conditions(random)
            },
            disk: DiskProfile { delay: random.pick(&[1, 5, 20, 400]), damage: random.pick(&[0.0, 0.0, 0.2]) },
            arbiter: random.chance(0.9),
            faults: Vec::new(),
            faults_stop,
        };
        scenario.control.audit_rate = compute_faults.audit_rate;
        if scenario.healthy_worker_may_be_evicted() {
            // A duplicated result would look like a second, independent result.
            scenario.network.duplicates = 0.0;
        }
        if !without_faults {
            scenario.faults = faults(random, &scenario);
        }
        scenario
    }

    /// Whether a wrong result may be accepted: a worker flips bits, and either not every node is audited, or no other
    /// worker and no arbiter can compute the node too.
    pub(crate) fn wrong_results_may_be_accepted(&self) -> bool {
        let audited = self.control.audit_rate >= 1.0 && self.arbiter;
        !audited && self.profiles().any(|profile| matches!(profile.compute_fault, ComputeFault::Flips(_)))
    }

    /// Whether results are ever compared.
    pub(crate) fn compares(&self) -> bool {
        let infinities =
            self.profiles().any(|profile| matches!(profile.compute_fault, ComputeFault::Infinities(_)));
        let diverges = self.jobs.iter().any(|job| job.diverges_at.is_some());
        self.control.audit_rate > 0.0 || infinities || diverges
    }

    /// Whether there are faulty workers but no arbiter that could tell which of two is faulty.
    pub(crate) fn healthy_worker_may_be_evicted(&self) -> bool {
        !self.arbiter && self.profiles().any(|profile| profile.compute_fault != ComputeFault::None)
    }

    fn profiles(&self) -> impl Iterator<Item = &WorkerProfile> {
        self.workers.iter().chain(&self.joiners)
    }
}

impl NetworkConditions {
    fn without_faults() -> Self {
        Self { delay: 2, loss: 0.0, heartbeat_loss: 0.0, duplicates: 0.0, reorders: false }
    }
}

/// The faults of the workers' computations in this scenario, and how often nodes are audited.
struct ComputeFaults {
    /// The share of faulty workers.
    share: f64,
    infinities: bool,
    rate: f64,
    audit_rate: f64,
    /// Whether a job may diverge without a faulty worker.
    may_diverge: bool,
}

impl ComputeFaults {
    fn new(random: &mut Random) -> Self {
        let share = random.pick(&[0.0, 0.0, 0.0, 0.3]);
        let infinities = random.chance(0.5);
        let audit_rate = match (share > 0.0, infinities) {
            (true, false) => random.pick(&[1.0, 1.0, 1.0, 0.3]),
            _ => random.pick(&[0.0, 0.0, 0.0, 0.1, 0.5, 1.0]),
        };
        let rate = random.pick(&[0.02, 0.3, 1.0]);
        Self { share, infinities, rate, audit_rate, may_diverge: random.chance(0.06) }
    }

    fn profile(&self, random: &mut Random) -> WorkerProfile {
        let compute_fault = match (random.chance(self.share), self.infinities) {
            (false, _) => ComputeFault::None,
            (true, true) => ComputeFault::Infinities(self.rate),
            (true, false) => ComputeFault::Flips(self.rate),
        };
        WorkerProfile {
            slots: random.within(1..=3) as u32,
            pace: Duration::from_micros(random.pick(&[200, 2000, 10_000])).mul_f64(0.5 + random.share()),
            cache_bytes: random.pick(&[0, 30, 100_000]) * SAMPLE_BYTES,
            compute_fault,
        }
    }
}

fn control(random: &mut Random, workers: u64) -> ControlConfig {
    let seconds = Duration::from_secs;
    ControlConfig {
        incarnation: 0,
        min_workers: random.pick(&[1, 1, 2, 3]).min(workers) as usize,
        expected_workers: random.within(1..=workers) as usize,
        settle: random.millis(100..=2000),
        wait_workers: random.chance(0.08).then(|| random.millis(2000..=20_000)),
        max_workers: random.pick(&[9, 16, 16]).max(workers as usize),
        heartbeat_deadline: seconds(random.pick(&[3, 5])),
        stall_deadline: seconds(random.pick(&[5, 30])),
        checkpoint_interval: random.chance(0.85).then(|| random.millis(50..=4000)),
        audit_rate: 0.0,
    }
}

fn job(random: &mut Random, may_diverge: bool) -> Job {
    let shards = random.within(1..=13) as u32;
    let steps = random.within(1..=12);
    let batch = random.within(1..=60);
    let train = ((steps - 1) * batch + random.within(1..=batch)) as u32;
    let split = |random: &mut Random, least: u64| random.pick(&[least, 1, 3, 20, 40]).max(least) as u32;
    let sizes = Sizes { train, validation: split(random, 0), test: split(random, 1) };
    let epochs = random.within(1..=4) as u32;
    let plan = Plan::new(train, batch as u32, shards);
    let step = random.within(0..=u64::from(plan.steps()) - 1) as u32;
    let epoch = random.within(0..=u64::from(epochs) - 1) as u32;
    // From the seeds that are there, so that all else stays as it was for a seed.
    let (seed, data) = (random.next(), random.next());
    let accumulation =
        Accumulation { batches: [1, 1, 2, 5][(seed >> 40) as usize % 4], of_epoch: plan.steps() };
    let diverges_at = (may_diverge && random.chance(0.7)).then_some((epoch, step));
    Job {
        facts: Facts {
            epochs,
            plan,
            accumulation,
            shards,
            sizes,
            sample_bytes: SAMPLE_BYTES,
            kernel_request: "native".into(),
            arithmetic: arithmetic(),
            shapes_fingerprint: "shapes".into(),
        },
        seed,
        data,
        // One that stops might not come to the step in which it diverges.
        stopping: if diverges_at.is_some() { Stopping::default() } else { stopping(data) },
        diverges_at,
    }
}

/// Rules that stop some jobs early.
fn stopping(word: u64) -> Stopping {
    let monitor = Monitor { validation: false, metric: None };
    let early =
        EarlyStopping { monitor, patience: (word >> 8) as u32 % 3, min_delta: 0.1, restore_best: false };
    let at = StopAt { metric: monitor, value: 0.2 };
    let stops = |bits: u32, of: u64| (word >> bits).is_multiple_of(of);
    Stopping { early: stops(16, 4).then_some(early), at: stops(32, 5).then_some(at) }
}

/// The arithmetic of all processes.
pub(crate) fn arithmetic() -> Arithmetic {
    Arithmetic { kernel: "toy".into(), version: "0".into(), fingerprint: "hash".into() }
}

fn network_conditions(random: &mut Random) -> NetworkConditions {
    NetworkConditions {
        delay: random.pick(&[2, 20, 200, 1500]),
        loss: random.pick(&[0.0, 0.0, 0.002, 0.02]),
        heartbeat_loss: random.pick(&[0.0, 0.1, 0.5]),
        duplicates: random.pick(&[0.0, 0.0, 0.1]),
        reorders: random.chance(0.2),
    }
}

fn faults(random: &mut Random, scenario: &Scenario) -> Vec<(Duration, Fault)> {
    let count = random.pick(&[0, 2, 8, 30]);
    let coordinator_crashes = random.pick(&[0.0, 0.2, 0.5]);
    let until = scenario.faults_stop.as_millis() as u64;
    let mut faults: Vec<_> = (0..count)
        .map(|_| {
            // Most faults are early, while the job still runs.
            let at = Duration::from_secs_f64(scenario.faults_stop.as_secs_f64() * random.share().powi(2));
            let fault = if random.chance(coordinator_crashes) {
                let (actions, down) = (random.within(1..=200), random.millis(100..=4000));
                Fault::CrashCoordinator { actions, down }
            } else {
                fault(random, scenario)
            };
            (at, fault)
        })
        .collect();
    if random.chance(0.04) {
        let job = random.within(0..=scenario.jobs.len() as u64 - 1) as usize;
        faults.push((random.millis(0..=until), Fault::Cancel { job }));
    }
    faults
}

fn fault(random: &mut Random, scenario: &Scenario) -> Fault {
    let worker = random.within(0..=(scenario.workers.len() + scenario.joiners.len()) as u64 - 1) as usize;
    let down = random.millis(50..=8000);
    let length = random.millis(200..=9000);
    match random.within(0..=9) {
        0..=2 => Fault::Crash { worker, down },
        3 => Fault::Pause { worker, length },
        4 => Fault::Slow { worker, times: 2.0 + 30.0 * random.share(), length: length * 3 },
        5 => Fault::Drain { worker, down },
        6 => Fault::Join { workers: random.within(1..=4) as usize },
        7 | 8 => {
            let (up, down) = random.pick(&[(true, true), (true, false), (false, true)]);
            Fault::Partition { worker, up, down, length }
        }
        _ => Fault::PauseCoordinator { length },
    }
}
