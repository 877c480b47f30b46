//! A simulated cluster: a virtual clock, a queue of events by time, and the network between the processes.
//!
//! A connection delivers messages in order in both directions. A lost message breaks it, as it would eventually break a
//! TCP connection, and each end detects that at a time of its own. Heartbeats are separate calls that are lost one by
//! one. A stopped process handles its messages when it continues.

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
use super::scenario::{Fault, NetworkConditions, Scenario};
use super::toy::Sum;
use super::worker::Process;

/// How long after the end of all faults every job must have ended.
const END_LIMIT: Duration = Duration::from_secs(2500);
/// The longest queue of messages to a worker. A worker with more is disconnected: it has stopped reading.
pub(crate) const OUTBOX: usize = 64;

/// Prints a line of the trace, if it is enabled.
macro_rules! trace {
    ($simulation:expr, $($line:tt)*) => {
        if $simulation.traces {
            println!("{:>11.6}  {}", $simulation.now.as_secs_f64(), format_args!($($line)*));
        }
    };
}
pub(crate) use trace;

/// A connection, by its number.
pub(crate) type Wire = usize;

/// A worker's message.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    Hello(Hello),
    Accepted(JobId),
    Held(JobId, u64, Shard),
    Result(Box<NodeResult>),
    Drain,
    Goodbye,
    Fetch(JobId, Shard),
}

/// A node's sum.
#[derive(Clone, Debug)]
pub(crate) struct NodeResult {
    pub(crate) work: WorkId,
    pub(crate) node: Node,
    pub(crate) sum: Sum,
    pub(crate) samples: u64,
    pub(crate) busy: Duration,
}

/// A coordinator's message.
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

/// An event of the simulation.
#[derive(Debug)]
pub(crate) enum Due {
    Up(Wire, Up),
    Down(Wire, Down),
    ClosedAtCoordinator(Wire),
    ClosedAtWorker(Wire),
    /// A part of a shard arrives, and so many are left.
    Samples(Wire, JobId, Shard, u32),
    HeartbeatArrives(Wire),
    HeartbeatAnswered(Wire, bool),
    Process(usize, u64, ProcessDue),
    Coordinator(u64, CoordinatorDue),
    Start(usize),
    StartCoordinator,
    Submit(usize),
    Fault(Fault),
}

/// An event in one incarnation of a worker's process.
#[derive(Debug)]
pub(crate) enum ProcessDue {
    Connect,
    WelcomeDue(Wire),
    Heartbeat(Wire),
    Shapes(Wire, JobId),
    Piece(Wire, WorkId, Node, u32, Duration),
    DrainOver,
    Quick,
}

/// An event in one incarnation of the coordinator.
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
    pub(crate) incarnation: u64,
    /// The coordinator's incarnation.
    pub(crate) coordinator: u64,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) open_at_worker: bool,
    pub(crate) open_at_coordinator: bool,
    /// Whether messages no longer arrive.
    pub(crate) broken: bool,
    last_up: Duration,
    last_down: Duration,
    /// The number of messages under way.
    pub(crate) ups: usize,
    pub(crate) downs: usize,
}

/// Until when a worker's messages do not arrive, by direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Partition {
    pub(crate) up_until: Duration,
    pub(crate) down_until: Duration,
}

/// The state of one simulated cluster.
pub(crate) struct Simulation {
    pub(crate) scenario: Scenario,
    pub(crate) random: Random,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) traces: bool,
    pub(crate) now: Duration,
    queue: BinaryHeap<Entry>,
    sequence: u64,
    pub(crate) processes: Vec<Process>,
    /// The instance ids of processes with a compute fault.
    pub(crate) faulty: BTreeSet<String>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) coordinator: Option<Box<Coordinator>>,
    pub(crate) incarnation: u64,
    pub(crate) files: Files,
    pub(crate) oracle: Oracle,
    /// The first violated invariant.
    pub(crate) violation: Option<String>,
}

impl Simulation {
    pub(crate) fn new(seed: u64, mutation: Option<Mutation>, traces: bool) -> Self {
        let scenario = Scenario::new(seed);
        let oracle = Oracle::new(&scenario);
        let mut simulation = Self {
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
            incarnation: 0,
            files: Files::default(),
            oracle,
            violation: None,
            scenario,
        };
        simulation.begin();
        simulation
    }

    fn begin(&mut self) {
        self.due(Duration::ZERO, Due::StartCoordinator);
        for profile in self.scenario.workers.clone() {
            let after = self.random.millis(0..=500);
            self.add_process(profile, after);
        }
        for job in 0..self.scenario.jobs.len() {
            self.due(Duration::from_millis(100 * job as u64), Due::Submit(job));
        }
        for (at, fault) in self.scenario.faults.clone() {
            self.due(at, Due::Fault(fault));
        }
    }

    /// Runs until every job has ended, or an invariant is violated.
    pub(crate) fn run(&mut self) {
        let limit = self.scenario.faults_stop + END_LIMIT;
        while self.violation.is_none() && !self.oracle.all_ended() {
            let Some(Entry { at, due, .. }) = self.queue.pop() else {
                return self.fail("no event is left, but a job has not ended");
            };
            if at > limit {
                self.now = at;
                let waiting = self.coordinator.as_ref().map(|coordinator| coordinator.control.waiting());
                return self.fail(format!(
                    "{END_LIMIT:?} after the end of all faults a job has not ended: the coordinator waits for {waiting:?}"
                ));
            }
            self.now = at;
            self.take(due);
        }
        if self.violation.is_none() {
            self.check_saved_results();
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
                    self.worker_message(wire, up);
                } else if let (Up::Result(result), Some(worker)) = (up, self.connections[wire].worker) {
                    // A duplicate may arrive after the end of its connection, and even at a later incarnation of
                    // the coordinator.
                    self.result(worker, *result);
                }
            }
            Due::Down(wire, down) => {
                self.connections[wire].downs -= 1;
                if self.reaches_worker(wire) {
                    self.coordinator_message(wire, down);
                }
            }
            Due::ClosedAtCoordinator(wire) => self.closed_at_coordinator(wire),
            Due::ClosedAtWorker(wire) => self.closed_at_worker(wire),
            Due::Samples(wire, job, shard, left) => self.samples(wire, job, shard, left),
            Due::HeartbeatArrives(wire) => self.heartbeat_arrives(wire),
            Due::HeartbeatAnswered(wire, known) => self.heartbeat_answered(wire, known),
            Due::Process(process, incarnation, due) => self.process_due(process, incarnation, due),
            Due::Coordinator(incarnation, due) => self.coordinator_due(incarnation, due),
            Due::Start(process) => self.start(process),
            Due::StartCoordinator => self.start_coordinator(),
            Due::Submit(job) => self.submit(job),
            Due::Fault(fault) => self.inject_fault(fault),
        }
    }

    /// Until when the process of this event is stopped.
    fn stopped_until(&self, due: &Due) -> Option<Duration> {
        match *due {
            Due::Down(wire, _) | Due::ClosedAtWorker(wire) | Due::HeartbeatAnswered(wire, _) => {
                Some(self.processes[self.connections[wire].process].stopped_until)
            }
            Due::Process(process, incarnation, _) => Some(self.processes[process].stopped_until)
                .filter(|_| self.processes[process].incarnation == incarnation),
            Due::Up(..)
            | Due::ClosedAtCoordinator(_)
            | Due::HeartbeatArrives(_)
            | Due::Coordinator(..)
            | Due::Submit(_) => self.coordinator.as_ref().map(|coordinator| coordinator.stopped_until),
            Due::Samples(..) | Due::Start(_) | Due::StartCoordinator | Due::Fault(_) => None,
        }
    }

    // The network.

    pub(crate) fn faults_have_stopped(&self) -> bool {
        self.now >= self.scenario.faults_stop
    }

    fn network_conditions(&self) -> NetworkConditions {
        if self.faults_have_stopped() {
            NetworkConditions { delay: 2, loss: 0.0, heartbeat_loss: 0.0, duplicates: 0.0, reorders: false }
        } else {
            self.scenario.network.clone()
        }
    }

    pub(crate) fn delay(&mut self) -> Duration {
        let most = self.network_conditions().delay;
        let usual = self.random.chance(0.9);
        self.random.millis(0..=if usual { most.div_ceil(10) } else { most })
    }

    /// Opens a connection, if the coordinator can be reached.
    pub(crate) fn connect(&mut self, process: usize) -> Option<Wire> {
        let incarnation = self
            .coordinator
            .as_ref()
            .filter(|coordinator| coordinator.stopped_until <= self.now)?
            .incarnation;
        let Partition { up_until, down_until } = self.processes[process].partition;
        if up_until > self.now || down_until > self.now {
            return None;
        }
        self.connections.push(Connection {
            process,
            incarnation: self.processes[process].incarnation,
            coordinator: incarnation,
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

    pub(crate) fn send_to_coordinator(&mut self, wire: Wire, up: Up) {
        let connection = &self.connections[wire];
        if connection.broken || !connection.open_at_worker {
            return;
        }
        let Some(held) = self.passes(wire, true) else { return };
        let result = matches!(up, Up::Result(_));
        let NetworkConditions { duplicates, reorders, .. } = self.network_conditions();
        let at = (self.now + held + self.delay()).max(self.connections[wire].last_up);
        let late = if result && reorders { self.delay() } else { Duration::ZERO };
        // Fetches are separate calls, and may overtake the session's messages.
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

    pub(crate) fn send_on_wire(&mut self, wire: Wire, down: Down) {
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

    /// The delay of a message by a partition; none if the message breaks its connection.
    fn passes(&mut self, wire: Wire, up: bool) -> Option<Duration> {
        let Partition { up_until, down_until } = self.processes[self.connections[wire].process].partition;
        let until = if up { up_until } else { down_until };
        let held = until.saturating_sub(self.now);
        let sent_again = held < Duration::from_secs(3) && self.random.chance(0.5);
        let loss = self.network_conditions().loss;
        if !held.is_zero() && !sent_again || self.random.chance(loss) {
            self.break_connection(wire);
            return None;
        }
        Some(held)
    }

    /// Both ends detect it, each at a time of its own.
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
        !connection.broken
            && connection.open_at_worker
            && process.alive
            && process.incarnation == connection.incarnation
    }

    /// Whether the current coordinator process has this connection open. It may be broken nevertheless.
    pub(crate) fn is_open(&self, wire: Wire) -> bool {
        let connection = &self.connections[wire];
        let incarnation = self.coordinator.as_ref().map(|coordinator| coordinator.incarnation);
        connection.open_at_coordinator && incarnation == Some(connection.coordinator)
    }

    /// Sends a heartbeat. A lost heartbeat has no effect by itself.
    pub(crate) fn send_heartbeat(&mut self, wire: Wire) {
        let cut = self.processes[self.connections[wire].process].partition.up_until > self.now;
        let loss = self.network_conditions().heartbeat_loss;
        if !cut && !self.random.chance(loss) {
            let delay = self.delay();
            self.due(delay, Due::HeartbeatArrives(wire));
        }
    }

    fn heartbeat_arrives(&mut self, wire: Wire) {
        if self.coordinator.is_none() {
            return;
        }
        let known = self.is_open(wire);
        if known {
            self.hear(wire);
        }
        if self.processes[self.connections[wire].process].partition.down_until <= self.now {
            let delay = self.delay();
            self.due(delay, Due::HeartbeatAnswered(wire, known));
        }
    }

    // Faults.

    fn inject_fault(&mut self, fault: Fault) {
        trace!(self, "FAULT {fault:?}");
        let now = self.now;
        // Every fault ends by the time faults stop.
        let until = |length: Duration| (now + length).min(self.scenario.faults_stop);
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
                let incarnation = process.incarnation;
                self.due(length, Due::Process(worker, incarnation, ProcessDue::Quick));
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
                    coordinator.crashes_after.get_or_insert((actions, down));
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
    /// The greatest entry of the heap is the earliest event; of simultaneous events, the one that was queued first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}
