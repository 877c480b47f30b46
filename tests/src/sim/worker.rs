//! A model of a worker process (`worker/src`), as a small state machine.
//!
//! It sends its hello, learns of a job, fetches the shards to hold, computes its assigned nodes on its slots, and
//! returns their sums. Further nodes of the same unit of work are added; another unit of work replaces the pieces
//! that were not begun. Samples are kept from one session to the next. It reconnects by itself, with a back-off
//! that doubles.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use millefeuille_core::control::{Hello, JobId, WorkId};
use millefeuille_core::data::shard::Shard;
use millefeuille_core::learn::tree::{Node, Reduction};

use super::mutation::Mutation;
use super::random::mix;
use super::scenario::{ComputeFault, WorkerProfile, arithmetic};
use super::simulation::{Down, Due, NodeResult, Partition, ProcessDue, Simulation, Up, Wire, trace};
use super::toy::Sum;

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// More unanswered heartbeats than this end a session.
const MOST_UNANSWERED: u32 = 10;

/// A worker: one process after another.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) profile: WorkerProfile,
    /// The number of its current process.
    pub(crate) incarnation: u64,
    pub(crate) alive: bool,
    pub(crate) stopped_until: Duration,
    pub(crate) partition: Partition,
    /// How many times slower it is than its profile says.
    pub(crate) slow: f64,
    /// The time from the end of a drain to the next process.
    down: Option<Duration>,
    wait: Duration,
    held: BTreeSet<(u64, Shard)>,
    pub(crate) session: Option<Session>,
}

/// A session with the coordinator.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) wire: Wire,
    welcome: bool,
    job: Option<JobId>,
    parameters: Option<(u64, u64)>,
    wanted: Vec<Shard>,
    generation: u64,
    fetching: Option<Shard>,
    work: Option<WorkId>,
    tasks: VecDeque<(Node, u32)>,
    nodes: BTreeMap<(WorkId, Node), OpenNode>,
    computing: u32,
    unanswered: u32,
}

/// A node whose pieces are being computed.
#[derive(Debug)]
struct OpenNode {
    parameters: u64,
    reduction: Reduction<Sum>,
    computing: u32,
    samples: u64,
    busy: Duration,
}

impl Session {
    fn new(wire: Wire) -> Self {
        Self {
            wire,
            welcome: false,
            job: None,
            parameters: None,
            wanted: Vec::new(),
            generation: 0,
            fetching: None,
            work: None,
            tasks: VecDeque::new(),
            nodes: BTreeMap::new(),
            computing: 0,
            unanswered: 0,
        }
    }

    /// Whether it has no pieces to compute.
    pub(crate) fn is_idle(&self) -> bool {
        self.tasks.is_empty() && self.computing == 0
    }

    /// Drops the pieces that were not begun.
    fn drop_tasks(&mut self) {
        self.tasks.clear();
        self.nodes.retain(|_, node| node.computing > 0);
    }
}

impl Process {
    /// The name of a process; it is its instance id, too, which is random in the real worker.
    pub(crate) fn name(index: usize, incarnation: u64) -> String {
        format!("{index}.{incarnation}")
    }
}

impl Simulation {
    pub(crate) fn add_process(&mut self, profile: WorkerProfile, after: Duration) {
        self.processes.push(Process {
            profile,
            incarnation: 0,
            alive: false,
            stopped_until: Duration::ZERO,
            partition: Partition::default(),
            slow: 1.0,
            down: None,
            wait: FIRST_WAIT,
            held: BTreeSet::new(),
            session: None,
        });
        self.due(after, Due::Start(self.processes.len() - 1));
    }

    pub(crate) fn start(&mut self, index: usize) {
        let process = &mut self.processes[index];
        if process.alive {
            return;
        }
        process.incarnation += 1;
        (process.alive, process.down, process.wait) = (true, None, FIRST_WAIT);
        process.held.clear();
        let incarnation = process.incarnation;
        if process.profile.compute_fault != ComputeFault::None {
            self.faulty.insert(Process::name(index, incarnation));
        }
        trace!(self, "process {index}.{incarnation} starts: {:?}", self.processes[index].profile);
        self.process_soon(index, Duration::ZERO, ProcessDue::Connect);
    }

    fn process_soon(&mut self, index: usize, after: Duration, due: ProcessDue) {
        let incarnation = self.processes[index].incarnation;
        self.due(after, Due::Process(index, incarnation, due));
    }

    /// Ends a process. Another one starts after `down`, if given.
    pub(crate) fn crash_process(&mut self, index: usize, down: Option<Duration>) {
        let Some(process) = self.processes.get_mut(index).filter(|process| process.alive) else { return };
        process.alive = false;
        process.stopped_until = Duration::ZERO;
        if let Some(session) = process.session.take() {
            self.close_at_worker(session.wire);
        }
        if let Some(down) = down {
            self.due(down, Due::Start(index));
        }
    }

    /// Closes the worker's end of a connection. The coordinator may not detect it.
    fn close_at_worker(&mut self, wire: Wire) {
        self.connections[wire].open_at_worker = false;
        if self.faults_have_stopped() || self.random.chance(0.8) {
            let delay = self.delay();
            self.due(delay, Due::ClosedAtCoordinator(wire));
        }
    }

    pub(crate) fn drain(&mut self, index: usize, down: Duration) {
        let Some(process) = self.processes.get_mut(index).filter(|process| process.alive) else { return };
        process.down = Some(down);
        match &process.session {
            Some(session) if session.welcome => {
                let wire = session.wire;
                self.send_to_coordinator(wire, Up::Drain);
                self.process_soon(index, DRAIN_TIMEOUT, ProcessDue::DrainOver);
            }
            _ => self.crash_process(index, Some(down)),
        }
    }

    pub(crate) fn process_due(&mut self, index: usize, incarnation: u64, due: ProcessDue) {
        if self.processes[index].incarnation != incarnation || !self.processes[index].alive {
            return;
        }
        let wire = self.processes[index].session.as_ref().map(|session| session.wire);
        match due {
            ProcessDue::Connect => self.send_hello(index),
            ProcessDue::Quick => self.processes[index].slow = 1.0,
            ProcessDue::DrainOver => {
                if let Some(wire) = wire {
                    self.send_to_coordinator(wire, Up::Goodbye);
                }
                let down = self.processes[index].down;
                self.crash_process(index, down);
            }
            ProcessDue::WelcomeDue(of) if wire == Some(of) => {
                let welcome = self.processes[index].session.as_ref().is_some_and(|session| session.welcome);
                if !welcome {
                    self.end_session(index);
                }
            }
            ProcessDue::Heartbeat(of) if wire == Some(of) => self.send_next_heartbeat(index, of),
            ProcessDue::Shapes(of, job) if wire == Some(of) => {
                self.send_to_coordinator(of, Up::Accepted(job))
            }
            ProcessDue::Piece(of, work, node, shard, busy) if wire == Some(of) => {
                self.piece(index, (work, node, shard), busy);
            }
            ProcessDue::WelcomeDue(_)
            | ProcessDue::Heartbeat(_)
            | ProcessDue::Shapes(..)
            | ProcessDue::Piece(..) => {}
        }
    }

    fn send_hello(&mut self, index: usize) {
        if self.processes[index].session.is_some() {
            return;
        }
        let Some(wire) = self.connect(index) else { return self.wait_and_connect(index) };
        let process = &mut self.processes[index];
        process.session = Some(Session::new(wire));
        let name = Process::name(index, process.incarnation);
        // The mistake: each session looks like another process.
        let forgotten = self.mutation == Some(Mutation::EarlierSessionsForgotten);
        let instance_id = if forgotten { format!("{name} {wire}") } else { name.clone() };
        let hello = Hello {
            name,
            instance_id,
            slots: process.profile.slots,
            arithmetic: arithmetic(),
            cache_bytes: process.profile.cache_bytes,
            started_for: "native".into(),
        };
        self.send_to_coordinator(wire, Up::Hello(hello));
        self.process_soon(index, CONNECT_TIMEOUT, ProcessDue::WelcomeDue(wire));
    }

    fn wait_and_connect(&mut self, index: usize) {
        let share = 0.5 + 0.5 * self.random.share();
        let process = &mut self.processes[index];
        let wait = process.wait.mul_f64(share);
        process.wait = (process.wait * 2).min(LONGEST_WAIT);
        self.process_soon(index, wait, ProcessDue::Connect);
    }

    fn end_session(&mut self, index: usize) {
        let Some(session) = self.processes[index].session.take() else { return };
        self.close_at_worker(session.wire);
        if let Some(down) = self.processes[index].down {
            return self.crash_process(index, Some(down));
        }
        self.wait_and_connect(index);
    }

    pub(crate) fn closed_at_worker(&mut self, wire: Wire) {
        let index = self.connections[wire].process;
        let current = self.processes[index].session.as_ref().is_some_and(|session| session.wire == wire);
        if current && self.processes[index].alive {
            self.end_session(index);
        }
    }

    fn send_next_heartbeat(&mut self, index: usize, wire: Wire) {
        let Some(session) = &mut self.processes[index].session else { return };
        session.unanswered += 1;
        if session.unanswered > MOST_UNANSWERED {
            return self.end_session(index);
        }
        self.send_heartbeat(wire);
        self.process_soon(index, self.scenario.heartbeat_interval, ProcessDue::Heartbeat(wire));
    }

    pub(crate) fn heartbeat_answered(&mut self, wire: Wire, known: bool) {
        let index = self.connections[wire].process;
        let session = self.processes[index].session.as_mut().filter(|session| session.wire == wire);
        let Some(session) = session else { return };
        if known {
            session.unanswered = 0;
        } else {
            self.end_session(index);
        }
    }

    /// Handles a coordinator's message.
    pub(crate) fn coordinator_message(&mut self, wire: Wire, down: Down) {
        let index = self.connections[wire].process;
        let process = &mut self.processes[index];
        let Some(session) = process.session.as_mut().filter(|session| session.wire == wire) else { return };
        trace!(self, "    process {index} receives {down:?}");
        match down {
            Down::Welcome => {
                session.welcome = true;
                process.wait = FIRST_WAIT;
                self.process_soon(index, Duration::ZERO, ProcessDue::Heartbeat(wire));
            }
            Down::StartJob(job) => {
                session.drop_tasks();
                (session.job, session.parameters, session.wanted) = (Some(job), None, Vec::new());
                let time = self.random.millis(1..=50);
                if self.processes[index].down.is_none() {
                    self.process_soon(index, time, ProcessDue::Shapes(wire, job));
                }
            }
            Down::EndJob(job) => {
                if session.job == Some(job) {
                    session.drop_tasks();
                    (session.job, session.parameters) = (None, None);
                }
            }
            Down::Hold(job, generation, shards) => self.hold(index, job, generation, shards),
            Down::Work(work, nodes, parameters) => self.assign(index, work, &nodes, parameters),
            Down::Goodbye => {
                let down = self.processes[index].down;
                if down.is_some() {
                    return self.crash_process(index, down);
                }
                self.end_session(index);
            }
            Down::Evict => {
                // An evicted process is replaced by a healthy one.
                self.processes[index].profile.compute_fault = ComputeFault::None;
                self.crash_process(index, Some(Duration::from_secs(1)));
            }
            Down::Close => self.end_session(index),
        }
    }

    fn data(&self, job: JobId) -> u64 {
        self.scenario.jobs[job.0 as usize - 1].data
    }

    fn hold(&mut self, index: usize, job: JobId, generation: u64, shards: Vec<Shard>) {
        let data = self.data(job);
        let process = &mut self.processes[index];
        let Some(session) = &mut process.session else { return };
        session.generation = generation;
        process.held.retain(|(of, shard)| *of == data && shards.contains(shard));
        session.wanted = shards;
        let wire = session.wire;
        let held: Vec<_> = process.held.iter().map(|&(_, shard)| shard).collect();
        held.into_iter().for_each(|shard| self.send_to_coordinator(wire, Up::Held(job, generation, shard)));
        self.fetch_next(index);
    }

    fn fetch_next(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let Some(session) = process.session.as_mut().filter(|session| session.fetching.is_none()) else {
            return;
        };
        let (Some(job), wire) = (session.job, session.wire) else { return };
        let data = self.scenario.jobs[job.0 as usize - 1].data;
        let next = session.wanted.iter().find(|&&shard| !process.held.contains(&(data, shard))).copied();
        if let Some(shard) = next.filter(|_| process.down.is_none()) {
            session.fetching = Some(shard);
            self.send_to_coordinator(wire, Up::Fetch(job, shard));
        }
    }

    /// Handles the end of a fetch. If there are no samples, the job no longer runs.
    pub(crate) fn fetched(&mut self, wire: Wire, job: JobId, shard: Shard, there: bool) {
        let index = self.connections[wire].process;
        let data = self.data(job);
        let process = &mut self.processes[index];
        let Some(session) = process.session.as_mut().filter(|session| session.wire == wire) else { return };
        session.fetching = None;
        if there && session.job == Some(job) && session.wanted.contains(&shard) {
            process.held.insert((data, shard));
            let generation = session.generation;
            self.send_to_coordinator(wire, Up::Held(job, generation, shard));
        }
        self.fetch_next(index);
    }

    /// Accepts assigned nodes.
    fn assign(&mut self, index: usize, work: WorkId, nodes: &[Node], parameters: Option<u64>) {
        let job = self.scenario.jobs[work.job.0 as usize - 1].clone();
        let process = &mut self.processes[index];
        let Some(session) = process.session.as_mut().filter(|session| session.job == Some(work.job)) else {
            return;
        };
        if let Some(parameters) = parameters {
            session.parameters = Some((work.parameter_tag, parameters));
        }
        let Some((_, parameters)) = session.parameters.filter(|&(tag, _)| tag == work.parameter_tag) else {
            return self.fail(format!(
                "process {index} was assigned nodes of {work}, but does not have its parameters"
            ));
        };
        if session.work != Some(work) {
            session.drop_tasks();
            session.work = Some(work);
        }
        let present = job.facts.present(work.phase, work.step);
        for &node in nodes {
            let shards: BTreeSet<u32> = present.range(node.first..node.end).copied().collect();
            let split = work.phase.split();
            let lacks = |&&index: &&u32| !process.held.contains(&(job.data, Shard { split, index }));
            if let Some(shard) = shards.iter().find(lacks) {
                return self.fail(format!(
                    "process {index} was assigned {node} of {work}, but does not hold {shard}"
                ));
            }
            if session.nodes.contains_key(&(work, node)) {
                continue;
            }
            let reduction = Reduction::over(node, &shards);
            let open = OpenNode { parameters, reduction, computing: 0, samples: 0, busy: Duration::ZERO };
            session.nodes.insert((work, node), open);
            session.tasks.extend(shards.into_iter().map(|shard| (node, shard)));
        }
        self.fill_slots(index);
    }

    fn fill_slots(&mut self, index: usize) {
        loop {
            let process = &mut self.processes[index];
            let Some(session) = process.session.as_mut().filter(|it| it.computing < process.profile.slots)
            else {
                return;
            };
            let (Some(work), Some((node, shard))) = (session.work, session.tasks.pop_front()) else { return };
            session.computing += 1;
            session.nodes.entry((work, node)).and_modify(|node| node.computing += 1);
            let facts = &self.scenario.jobs[work.job.0 as usize - 1].facts;
            let samples = facts.samples(work.phase, work.step, shard);
            let wire = session.wire;
            let time = process
                .profile
                .pace
                .mul_f64(f64::from(samples) * process.slow * (0.8 + 0.4 * self.random.share()));
            self.process_soon(index, time, ProcessDue::Piece(wire, work, node, shard, time));
        }
    }

    /// Adds a piece that a slot has computed.
    fn piece(&mut self, index: usize, (work, node, shard): (WorkId, Node, u32), busy: Duration) {
        let job = self.scenario.jobs[work.job.0 as usize - 1].clone();
        let swaps = self.mutation == Some(Mutation::AddedInAnotherOrder);
        let Some(session) = &mut self.processes[index].session else { return };
        session.computing -= 1;
        let add = |left: &mut Sum, mut right: Sum| {
            if swaps {
                std::mem::swap(left, &mut right);
            }
            left.add(right);
        };
        if let Some(open) = session.nodes.get_mut(&(work, node)) {
            open.computing -= 1;
            open.busy += busy;
            open.samples += u64::from(job.facts.samples(work.phase, work.step, shard));
            open.reduction.insert(Node::leaf(shard), job.piece(open.parameters, work, shard), add);
            if let Some(sum) = open.reduction.take_root(add) {
                let result = NodeResult { work, node, sum, samples: open.samples, busy: open.busy };
                session.nodes.remove(&(work, node));
                let wire = session.wire;
                self.return_result(index, wire, result);
            }
        }
        self.fill_slots(index);
    }

    fn return_result(&mut self, index: usize, wire: Wire, mut result: NodeResult) {
        match self.processes[index].profile.compute_fault {
            ComputeFault::Flips(share) if self.random.chance(share) => {
                // Random bits: two workers that flip the same bit would agree.
                result.sum.value ^= self.random.next();
                trace!(self, "    process {index} flips bits");
            }
            ComputeFault::Infinities(share) if self.random.chance(share) => {
                result.sum.value = mix(result.sum.value, self.random.next());
                result.sum.finite = false;
                trace!(self, "    process {index} computes an infinity");
            }
            _ => {}
        }
        self.send_to_coordinator(wire, Up::Result(Box::new(result)));
    }
}
