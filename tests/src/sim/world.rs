//! The world: a virtual clock, what is due when, and the network between the processes.
//!
//! A connection carries messages in order in both directions. A lost message breaks it, as it would break TCP in the
//! end, and each end notices in its own time, or not at all. Heartbeats are calls of their own and get lost one by
//! one. A stopped process takes in what came for it once it goes on.

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::Duration;

use millefeuille_core::control::{Hello, JobId, WorkId, WorkerId};
use millefeuille_core::data::shard::Shard;
use millefeuille_core::learn::tree::Node;

use super::coordinator::Coordinator;
use super::disk::Files;
use super::mutation::Mutation;
use super::oracle::Oracle;
use super::random::Random;
use super::scenario::{Fault, Scenario, Weather};
use super::toy::Sum;
use super::worker::Process;

/// How long after the network has healed every job must have ended.
const PATIENCE: Duration = Duration::from_secs(2500);
/// Messages to a worker that may wait; more, and it has stopped reading.
pub(crate) const OUTBOX: usize = 64;

/// Writes a line of the trace, if somebody wants to read it.
macro_rules! trace {
    ($world:expr, $($line:tt)*) => {
        if $world.traces {
            println!("{:>11.6}  {}", $world.now.as_secs_f64(), format_args!($($line)*));
        }
    };
}
pub(crate) use trace;

/// A connection, by its number.
pub(crate) type Wire = usize;

/// What a worker says.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    Hello(Hello),
    Accepted(JobId),
    Held(JobId, u64, Shard),
    Result(Box<Answer>),
    Drain,
    Goodbye,
    Fetch(JobId, Shard),
}

/// A node's sum, on its way.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) work: WorkId,
    pub(crate) node: Node,
    pub(crate) sum: Sum,
    pub(crate) samples: u64,
    pub(crate) busy: Duration,
}

/// What the coordinator says.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    Welcome,
    StartJob(JobId),
    EndJob(JobId),
    Hold(JobId, u64, Vec<Shard>),
    Work(WorkId, Vec<Node>, Option<u64>),
    Goodbye,
    Evict,
    Close,
}

/// What is due.
#[derive(Debug)]
pub(crate) enum Due {
    Up(Wire, Up),
    Down(Wire, Down),
    ClosedAtCoordinator(Wire),
    ClosedAtWorker(Wire),
    /// So many parts of a shard are still to come.
    Samples(Wire, JobId, Shard, u32),
    BeatArrives(Wire),
    BeatAnswered(Wire, bool),
    Process(usize, u64, ProcessDue),
    Coordinator(u64, CoordinatorDue),
    Start(usize),
    StartCoordinator,
    Submit(usize),
    Fault(Fault),
}

/// What is due in a worker's process, in one life of it.
#[derive(Debug)]
pub(crate) enum ProcessDue {
    Connect,
    WelcomeDue(Wire),
    Beat(Wire),
    Shapes(Wire, JobId),
    Piece(Wire, WorkId, Node, u32, Duration),
    DrainOver,
    Quick,
}

/// What is due in the coordinator, in one life of it.
#[derive(Debug)]
pub(crate) enum CoordinatorDue {
    Tick,
    Loaded(JobId),
    Disk,
    Arbitrated(WorkId, Node, Option<Box<Sum>>),
}

struct Entry {
    at: Duration,
    sequence: u64,
    due: Due,
}

/// Both ends of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) process: usize,
    pub(crate) life: u64,
    /// Which life of the coordinator it leads to.
    pub(crate) coordinator: u64,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) open_at_worker: bool,
    pub(crate) open_at_coordinator: bool,
    /// Nothing arrives any more.
    pub(crate) broken: bool,
    last_up: Duration,
    last_down: Duration,
    /// On their way.
    pub(crate) ups: usize,
    pub(crate) downs: usize,
}

/// A worker that is cut off.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Partition {
    pub(crate) up_until: Duration,
    pub(crate) down_until: Duration,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) random: Random,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) traces: bool,
    pub(crate) now: Duration,
    queue: BinaryHeap<Entry>,
    sequence: u64,
    pub(crate) processes: Vec<Process>,
    /// The instance ids of those who compute wrong bits.
    pub(crate) faulty: BTreeSet<String>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) coordinator: Option<Box<Coordinator>>,
    pub(crate) lives: u64,
    pub(crate) files: Files,
    pub(crate) oracle: Oracle,
    /// What was found to be wrong first.
    pub(crate) violation: Option<String>,
}

impl World {
    pub(crate) fn new(seed: u64, mutation: Option<Mutation>, traces: bool) -> Self {
        let scenario = Scenario::new(seed);
        let oracle = Oracle::new(&scenario);
        let mut world = Self {
            random: Random::new(seed ^ 0x5eed),
            mutation,
            traces,
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            sequence: 0,
            processes: Vec::new(),
            faulty: BTreeSet::new(),
            connections: Vec::new(),
            coordinator: None,
            lives: 0,
            files: Files::default(),
            oracle,
            violation: None,
            scenario,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.due(Duration::ZERO, Due::StartCoordinator);
        for nature in self.scenario.workers.clone() {
            let after = self.random.millis(0..=500);
            self.add_process(nature, after);
        }
        for job in 0..self.scenario.jobs.len() {
            self.due(Duration::from_millis(100 * job as u64), Due::Submit(job));
        }
        for (at, fault) in self.scenario.faults.clone() {
            self.due(at, Due::Fault(fault));
        }
    }

    /// Runs until every job has ended, or something is wrong.
    pub(crate) fn run(&mut self) {
        let limit = self.scenario.heals + PATIENCE;
        while self.violation.is_none() && !self.oracle.all_ended() {
            let Some(Entry { at, due, .. }) = self.queue.pop() else {
                return self.fail("nothing is due any more, and a job has not ended");
            };
            if at > limit {
                self.now = at;
                let waiting = self.coordinator.as_ref().map(|coordinator| coordinator.control.waiting());
                return self.fail(format!(
                    "{PATIENCE:?} after the network has healed a job has not ended: the coordinator waits for {waiting:?}"
                ));
            }
            self.now = at;
            self.take(due);
        }
        if self.violation.is_none() {
            self.judge();
        }
    }

    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        let what = what.into();
        trace!(self, "WRONG: {what}");
        self.violation.get_or_insert(what);
    }

    pub(crate) fn due(&mut self, after: Duration, due: Due) {
        self.due_at(self.now + after, due);
    }

    fn due_at(&mut self, at: Duration, due: Due) {
        self.sequence += 1;
        self.queue.push(Entry { at, sequence: self.sequence, due });
    }

    fn take(&mut self, due: Due) {
        if let Some(until) = self.stopped_until(&due).filter(|&until| until > self.now) {
            return self.due_at(until, due);
        }
        match due {
            Due::Up(wire, up) => {
                self.connections[wire].ups -= 1;
                if self.is_open(wire) && !self.connections[wire].broken {
                    self.hear(wire);
                    self.said(wire, up);
                } else if let (Up::Result(answer), Some(worker)) = (up, self.connections[wire].worker) {
                    // A copy outlives its connection, and even the coordinator that asked.
                    self.result(worker, *answer);
                }
            }
            Due::Down(wire, down) => {
                self.connections[wire].downs -= 1;
                if self.reaches_worker(wire) {
                    self.told(wire, down);
                }
            }
            Due::ClosedAtCoordinator(wire) => self.closed_at_coordinator(wire),
            Due::ClosedAtWorker(wire) => self.closed_at_worker(wire),
            Due::Samples(wire, job, shard, left) => self.samples(wire, job, shard, left),
            Due::BeatArrives(wire) => self.beat_arrives(wire),
            Due::BeatAnswered(wire, known) => self.beat_answered(wire, known),
            Due::Process(process, life, due) => self.process_due(process, life, due),
            Due::Coordinator(life, due) => self.coordinator_due(life, due),
            Due::Start(process) => self.start(process),
            Due::StartCoordinator => self.start_coordinator(),
            Due::Submit(job) => self.submit(job),
            Due::Fault(fault) => self.strike(fault),
        }
    }

    /// Until when the process that this is for is stopped.
    fn stopped_until(&self, due: &Due) -> Option<Duration> {
        match *due {
            Due::Down(wire, _) | Due::ClosedAtWorker(wire) | Due::BeatAnswered(wire, _) => {
                Some(self.processes[self.connections[wire].process].stopped_until)
            }
            Due::Process(process, life, _) => {
                Some(self.processes[process].stopped_until).filter(|_| self.processes[process].life == life)
            }
            Due::Up(..)
            | Due::ClosedAtCoordinator(_)
            | Due::BeatArrives(_)
            | Due::Coordinator(..)
            | Due::Submit(_) => self.coordinator.as_ref().map(|coordinator| coordinator.stopped_until),
            Due::Samples(..) | Due::Start(_) | Due::StartCoordinator | Due::Fault(_) => None,
        }
    }

    // The network.

    pub(crate) fn healed(&self) -> bool {
        self.now >= self.scenario.heals
    }

    fn weather(&self) -> Weather {
        if self.healed() {
            Weather { delay: 2, loss: 0.0, beat_loss: 0.0, duplicates: 0.0, reorders: false }
        } else {
            self.scenario.weather.clone()
        }
    }

    pub(crate) fn delay(&mut self) -> Duration {
        let most = self.weather().delay;
        let usual = self.random.chance(0.9);
        self.random.millis(0..=if usual { most.div_ceil(10) } else { most })
    }

    /// Opens a connection, if the coordinator can be reached.
    pub(crate) fn connect(&mut self, process: usize) -> Option<Wire> {
        let life =
            self.coordinator.as_ref().filter(|coordinator| coordinator.stopped_until <= self.now)?.life;
        let Partition { up_until, down_until } = self.processes[process].partition;
        if up_until > self.now || down_until > self.now {
            return None;
        }
        self.connections.push(Connection {
            process,
            life: self.processes[process].life,
            coordinator: life,
            worker: None,
            open_at_worker: true,
            open_at_coordinator: true,
            broken: false,
            last_up: self.now,
            last_down: self.now,
            ups: 0,
            downs: 0,
        });
        Some(self.connections.len() - 1)
    }

    pub(crate) fn say(&mut self, wire: Wire, up: Up) {
        let connection = &self.connections[wire];
        if connection.broken || !connection.open_at_worker {
            return;
        }
        let Some(held) = self.passes(wire, true) else { return };
        let result = matches!(up, Up::Result(_));
        let Weather { duplicates, reorders, .. } = self.weather();
        let at = (self.now + held + self.delay()).max(self.connections[wire].last_up);
        let late = if result && reorders { self.delay() } else { Duration::ZERO };
        // Fetches are calls of their own, and overtake what is said in the session.
        if !matches!(up, Up::Fetch(..)) && late.is_zero() {
            self.connections[wire].last_up = at;
        }
        if result && self.random.chance(duplicates) {
            let again = at + self.random.millis(0..=6000);
            self.connections[wire].ups += 1;
            self.due_at(again, Due::Up(wire, up.clone()));
        }
        self.connections[wire].ups += 1;
        self.due_at(at + late, Due::Up(wire, up));
    }

    pub(crate) fn tell(&mut self, wire: Wire, down: Down) {
        let connection = &self.connections[wire];
        if connection.broken || !connection.open_at_coordinator {
            return;
        }
        let Some(held) = self.passes(wire, false) else { return };
        let at = (self.now + held + self.delay()).max(self.connections[wire].last_down);
        self.connections[wire].last_down = at;
        self.connections[wire].downs += 1;
        self.due_at(at, Due::Down(wire, down));
    }

    /// How long a message is held up; none if it breaks its connection.
    fn passes(&mut self, wire: Wire, up: bool) -> Option<Duration> {
        let Partition { up_until, down_until } = self.processes[self.connections[wire].process].partition;
        let until = if up { up_until } else { down_until };
        let held = until.saturating_sub(self.now);
        let sent_again = held < Duration::from_secs(3) && self.random.chance(0.5);
        let loss = self.weather().loss;
        if !held.is_zero() && !sent_again || self.random.chance(loss) {
            self.break_connection(wire);
            return None;
        }
        Some(held)
    }

    /// Both ends notice, each in its own time.
    fn break_connection(&mut self, wire: Wire) {
        trace!(self, "connection {wire} is broken");
        self.connections[wire].broken = true;
        let longest = self.random.pick(&[10, 2000, 8000]);
        let (one, other) = (self.random.millis(0..=longest), self.random.millis(0..=longest));
        self.due(one, Due::ClosedAtCoordinator(wire));
        self.due(other, Due::ClosedAtWorker(wire));
    }

    pub(crate) fn reaches_worker(&self, wire: Wire) -> bool {
        let connection = &self.connections[wire];
        let process = &self.processes[connection.process];
        !connection.broken && connection.open_at_worker && process.alive && process.life == connection.life
    }

    /// Whether this life of the coordinator has this connection open; it may be broken all the same.
    pub(crate) fn is_open(&self, wire: Wire) -> bool {
        let connection = &self.connections[wire];
        let life = self.coordinator.as_ref().map(|coordinator| coordinator.life);
        connection.open_at_coordinator && life == Some(connection.coordinator)
    }

    /// Sends a heartbeat; a lost one is nobody's loss.
    pub(crate) fn beat(&mut self, wire: Wire) {
        let cut = self.processes[self.connections[wire].process].partition.up_until > self.now;
        let loss = self.weather().beat_loss;
        if !cut && !self.random.chance(loss) {
            let delay = self.delay();
            self.due(delay, Due::BeatArrives(wire));
        }
    }

    fn beat_arrives(&mut self, wire: Wire) {
        if self.coordinator.is_none() {
            return;
        }
        let known = self.is_open(wire);
        if known {
            self.hear(wire);
        }
        if self.processes[self.connections[wire].process].partition.down_until <= self.now {
            let delay = self.delay();
            self.due(delay, Due::BeatAnswered(wire, known));
        }
    }

    // What goes wrong.

    fn strike(&mut self, fault: Fault) {
        trace!(self, "FAULT {fault:?}");
        let now = self.now;
        // Nothing outlasts the day on which the network heals.
        let until = |length: Duration| (now + length).min(self.scenario.heals);
        match fault {
            Fault::Crash { worker, down } => self.crash_process(worker, Some(down)),
            Fault::Pause { worker, length } => {
                let until = until(length);
                self.processes
                    .get_mut(worker)
                    .into_iter()
                    .for_each(|process| process.stopped_until = until.max(process.stopped_until));
            }
            Fault::Slow { worker, times, length } => {
                let Some(process) = self.processes.get_mut(worker) else { return };
                process.slow = times;
                let life = process.life;
                self.due(length, Due::Process(worker, life, ProcessDue::Quick));
            }
            Fault::Drain { worker, down } => self.drain(worker, down),
            Fault::Join { workers } => {
                let most = self.scenario.workers.len() + self.scenario.joiners.len() - self.processes.len();
                for _ in 0..workers.min(most) {
                    let joined = self.processes.len() - self.scenario.workers.len();
                    self.add_process(self.scenario.joiners[joined], Duration::ZERO);
                }
            }
            Fault::Partition { worker, up, down, length } => {
                let until = until(length);
                let Some(process) = self.processes.get_mut(worker) else { return };
                let of = |cut: bool, old: Duration| if cut { until.max(old) } else { old };
                let Partition { up_until, down_until } = process.partition;
                process.partition =
                    Partition { up_until: of(up, up_until), down_until: of(down, down_until) };
            }
            Fault::CrashCoordinator { actions, down } => {
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.dies_after.get_or_insert((actions, down));
                }
            }
            Fault::PauseCoordinator { length } => {
                let until = until(length);
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.stopped_until = until.max(coordinator.stopped_until);
                }
            }
            Fault::Cancel { job } => self.cancel(job),
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The heap's greatest comes first: what is due soonest, of equals what was planned first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}
