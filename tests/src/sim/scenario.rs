//! What happens, as the seed says: the cluster, its jobs, and everything that goes wrong until the network heals.

use std::sync::Arc;
use std::time::Duration;

use millefeuille_core::arithmetic::Arithmetic;
use millefeuille_core::control::{ControlConfig, Facts};
use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::split::Sizes;

use super::random::Random;
use super::toy::Job;

/// Bytes of a sample.
pub(crate) const SAMPLE_BYTES: u64 = 785;

/// What a worker is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nature {
    pub(crate) slots: u32,
    /// For one sample.
    pub(crate) pace: Duration,
    pub(crate) cache_bytes: u64,
    pub(crate) flaw: Flaw,
}

/// What is wrong with a worker's arithmetic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Flaw {
    None,
    /// It flips bits in this share of its results.
    Flips(f64),
    /// This share of its results is not finite.
    Infinities(f64),
}

/// What goes wrong, or just happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The process dies, and comes back as another after a while.
    Crash {
        worker: usize,
        down: Duration,
    },
    /// SIGSTOP, and SIGCONT after a while.
    Pause {
        worker: usize,
        length: Duration,
    },
    /// So many times as slow for a while.
    Slow {
        worker: usize,
        times: f64,
        length: Duration,
    },
    /// SIGTERM; another comes after a while.
    Drain {
        worker: usize,
        down: Duration,
    },
    /// New workers come, all at once.
    Join {
        workers: usize,
    },
    /// What is sent in these directions does not arrive.
    Partition {
        worker: usize,
        up: bool,
        down: bool,
        length: Duration,
    },
    /// The coordinator dies after so many more actions.
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

/// How the network is until it heals.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// Of a message, in milliseconds, at most.
    pub(crate) delay: u64,
    /// Of a message that breaks its connection.
    pub(crate) loss: f64,
    pub(crate) beat_loss: f64,
    /// Of a result that comes once more, at any time.
    pub(crate) duplicates: f64,
    /// Whether results overtake each other within a session.
    pub(crate) reorders: bool,
}

/// The disk of the coordinator.
#[derive(Clone, Debug)]
pub(crate) struct DiskNature {
    /// Of one operation, in milliseconds, at most.
    pub(crate) delay: u64,
    /// How likely the newest checkpoint is damaged when the coordinator comes back.
    pub(crate) damage: f64,
}

/// Everything that a seed says.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) control: ControlConfig,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) jobs: Vec<Arc<Job>>,
    pub(crate) workers: Vec<Nature>,
    pub(crate) joiners: Vec<Nature>,
    pub(crate) weather: Weather,
    pub(crate) disk: DiskNature,
    /// Whether the coordinator can compute the jobs itself.
    pub(crate) arbiter: bool,
    pub(crate) faults: Vec<(Duration, Fault)>,
    /// From then on nothing goes wrong any more.
    pub(crate) heals: Duration,
}

impl Scenario {
    pub(crate) fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let flaws = Flaws::new(random);
        let workers: Vec<_> = (0..random.within(1..=9)).map(|_| flaws.nature(random)).collect();
        let joiners = (0..random.within(0..=4)).map(|_| flaws.nature(random)).collect();
        let count = workers.len() as u64;
        let calm = random.chance(0.1);
        let heals = Duration::from_secs(random.within(3..=60));
        let jobs =
            (0..1 + u64::from(random.chance(0.2))).map(|_| Arc::new(job(random, flaws.wild))).collect();
        let mut scenario = Self {
            control: control(random, count),
            heartbeat_interval: Duration::from_secs(1),
            jobs,
            workers,
            joiners,
            weather: if calm { Weather::calm() } else { weather(random) },
            disk: DiskNature { delay: random.pick(&[1, 5, 20, 400]), damage: random.pick(&[0.0, 0.0, 0.2]) },
            arbiter: random.chance(0.9),
            faults: Vec::new(),
            heals,
        };
        scenario.control.audit_rate = flaws.audit_rate;
        if scenario.may_blame_the_healthy() {
            // A copy of an answer would pass for its author's second opinion. No connection makes copies.
            scenario.weather.duplicates = 0.0;
        }
        if !calm {
            scenario.faults = faults(random, &scenario);
        }
        scenario
    }

    /// Whether a wrong number may get into the model: somebody's bits flip, and not everything is audited, or a worker
    /// that alone holds its samples has nobody but itself to compare it with.
    pub(crate) fn may_be_harmed(&self) -> bool {
        let audited = self.control.audit_rate >= 1.0 && self.arbiter;
        !audited && self.natures().any(|nature| matches!(nature.flaw, Flaw::Flips(_)))
    }

    /// Whether answers are ever compared.
    pub(crate) fn compares(&self) -> bool {
        let infinities = self.natures().any(|nature| matches!(nature.flaw, Flaw::Infinities(_)));
        let diverges = self.jobs.iter().any(|job| job.diverges_at.is_some());
        self.control.audit_rate > 0.0 || infinities || diverges
    }

    /// Whether there are faulty workers of which nobody can tell that it is them.
    pub(crate) fn may_blame_the_healthy(&self) -> bool {
        !self.arbiter && self.natures().any(|nature| nature.flaw != Flaw::None)
    }

    fn natures(&self) -> impl Iterator<Item = &Nature> {
        self.workers.iter().chain(&self.joiners)
    }
}

impl Weather {
    fn calm() -> Self {
        Self { delay: 2, loss: 0.0, beat_loss: 0.0, duplicates: 0.0, reorders: false }
    }
}

/// What is wrong with workers' arithmetic in this world, and what is done about it.
struct Flaws {
    /// How many workers are faulty.
    share: f64,
    infinities: bool,
    rate: f64,
    audit_rate: f64,
    /// Whether a job may diverge by itself.
    wild: bool,
}

impl Flaws {
    fn new(random: &mut Random) -> Self {
        let share = random.pick(&[0.0, 0.0, 0.0, 0.3]);
        let infinities = random.chance(0.5);
        let audit_rate = match (share > 0.0, infinities) {
            (true, false) => random.pick(&[1.0, 1.0, 1.0, 0.3]),
            _ => random.pick(&[0.0, 0.0, 0.0, 0.1, 0.5, 1.0]),
        };
        let rate = random.pick(&[0.02, 0.3, 1.0]);
        Self { share, infinities, rate, audit_rate, wild: random.chance(0.06) }
    }

    fn nature(&self, random: &mut Random) -> Nature {
        let flaw = match (random.chance(self.share), self.infinities) {
            (false, _) => Flaw::None,
            (true, true) => Flaw::Infinities(self.rate),
            (true, false) => Flaw::Flips(self.rate),
        };
        Nature {
            slots: random.within(1..=3) as u32,
            pace: Duration::from_micros(random.pick(&[200, 2000, 10_000])).mul_f64(0.5 + random.share()),
            cache_bytes: random.pick(&[0, 30, 100_000]) * SAMPLE_BYTES,
            flaw,
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

fn job(random: &mut Random, wild: bool) -> Job {
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
    Job {
        facts: Facts {
            epochs,
            plan,
            shards,
            sizes,
            sample_bytes: SAMPLE_BYTES,
            kernel_request: "native".into(),
            arithmetic: arithmetic(),
            shapes_fingerprint: "shapes".into(),
        },
        seed: random.next(),
        data: random.next(),
        diverges_at: (wild && random.chance(0.7)).then_some((epoch, step)),
    }
}

/// Everybody's.
pub(crate) fn arithmetic() -> Arithmetic {
    Arithmetic { kernel: "toy".into(), version: "0".into(), fingerprint: "hash".into() }
}

fn weather(random: &mut Random) -> Weather {
    Weather {
        delay: random.pick(&[2, 20, 200, 1500]),
        loss: random.pick(&[0.0, 0.0, 0.002, 0.02]),
        beat_loss: random.pick(&[0.0, 0.1, 0.5]),
        duplicates: random.pick(&[0.0, 0.0, 0.1]),
        reorders: random.chance(0.2),
    }
}

fn faults(random: &mut Random, scenario: &Scenario) -> Vec<(Duration, Fault)> {
    let count = random.pick(&[0, 2, 8, 30]);
    let coordinator_dies = random.pick(&[0.0, 0.2, 0.5]);
    let until = scenario.heals.as_millis() as u64;
    let mut faults: Vec<_> = (0..count)
        .map(|_| {
            // Early ones are more likely to find the job still running.
            let at = Duration::from_secs_f64(scenario.heals.as_secs_f64() * random.share().powi(2));
            let fault = if random.chance(coordinator_dies) {
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
