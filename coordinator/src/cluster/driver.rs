//! The driver: the one task that owns the cluster's state.
//!
//! It takes messages from its inbox one at a time, passes them to the control machine, and carries out the machine's
//! actions in order. It never waits for a peer: if a worker's full outbox does not take a message, that worker's
//! session ends. It never waits for the disk: a separate thread ([`disk`](super::disk)) does all writing. The driver
//! does the arithmetic of each step.
//!
//! [`workers`] handles workers, [`jobs`] handles jobs.

mod finished;
mod jobs;
mod submissions;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millefeuille_core::control::{Action, Control, Event, Failure, JobId, Note, WorkerId};
use millefeuille_program::ops::Pulse;
use millefeuille_proto::session::ToWorker;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, trace, warn};

use super::board::Board;
use super::config::ClusterConfig;
use super::disk::{Disk, DiskReport, LAST_ORDERS};
use super::load::{Loading, Readers};
use super::messages::{DriverMessage, Handle, Serving, SessionOutput};
use super::notes::{self, disconnection, shutdown_notice};
use super::pace::Pace;
use super::records::{JobRecord, Session};
use super::snapshot::{self, DriverState};
use super::tally::Tally;
use super::training::Training;
use crate::failpoints;
pub(super) use finished::Finished;
use finished::Look;
use submissions::{Cancelled, Submissions};

/// Interval at which the control machine is told the time.
const TICK: Duration = Duration::from_millis(100);

pub(super) struct Driver {
    config: ClusterConfig,
    start: Instant,
    control: Control,
    sessions: BTreeMap<WorkerId, Session>,
    jobs: BTreeMap<JobId, JobRecord>,
    /// Submissions that the disk thread is writing, by client key.
    submissions: Submissions,
    /// Callers of `cancel` that wait until the job's end is on disk.
    cancelled: BTreeMap<JobId, Vec<Cancelled>>,
    /// The job whose data is being read.
    loading: Option<Loading>,
    readers: Readers,
    /// Jobs whose run directory is with a thread that begins or resumes the run.
    beginning: BTreeSet<JobId>,
    training: Option<Training>,
    /// Events caused by actions, not yet passed to the control machine.
    happened: VecDeque<Event>,
    handle: Handle,
    inbox: mpsc::Receiver<DriverMessage>,
    disk: Disk,
    /// Publishes snapshots for readers.
    board: Board,
    /// Time at which the control machine was last told the time.
    ticked: Duration,
    /// Whether this process was suspended before `ticked`.
    slept: bool,
    serving: watch::Sender<Option<Arc<Serving>>>,
    /// Counts of events so far.
    tally: Tally,
    /// When ended jobs were looked at: others may have finished them.
    look: Look,
    /// The rate of lines about workers.
    pace: Pace,
    /// Beats once per turn of the loop.
    pulse: Pulse,
}

impl Driver {
    pub(super) fn new(
        config: ClusterConfig,
        handle: Handle,
        inbox: mpsc::Receiver<DriverMessage>,
        board: Board,
        serving: watch::Sender<Option<Arc<Serving>>>,
        pulse: Pulse,
    ) -> Self {
        Self {
            control: Control::new(config.control.clone()),
            config,
            start: Instant::now(),
            sessions: BTreeMap::new(),
            jobs: BTreeMap::new(),
            submissions: Submissions::default(),
            cancelled: BTreeMap::new(),
            loading: None,
            readers: Readers::default(),
            beginning: BTreeSet::new(),
            training: None,
            happened: VecDeque::new(),
            disk: Disk::start(report_to(handle.clone())),
            handle,
            inbox,
            board,
            ticked: Duration::ZERO,
            slept: false,
            serving,
            tally: Tally::default(),
            look: Look::default(),
            pace: Pace::default(),
            pulse,
        }
    }

    /// Runs until the cluster is shut down, and everything is on disk.
    ///
    /// # Errors
    /// If that takes too long.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        self.board.attend();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.pulse.beat();
            failpoints::at("driver-turn");
            tokio::select! {
                input = self.inbox.recv() => match input {
                    None | Some(DriverMessage::Stop) => break,
                    Some(input) => self.take(input),
                },
                _ = ticks.tick() => self.tick(),
                () = self.board.due() => self.publish(),
            }
        }
        let last = snapshot::of(&self.state());
        self.board.leave(last);
        self.last_checkpoint();
        self.announce_shutdown();
        // Close the inbox before waiting for the disk thread, which would otherwise block on sending to it.
        self.inbox.close();
        self.disk.end(LAST_ORDERS).await
    }

    fn announce_shutdown(&mut self) {
        for session in self.sessions.values() {
            // A worker that has stopped reading notices only that the connection closes.
            let _ =
                session.outbox.try_send(SessionOutput::Message(shutdown_notice("the cluster has shut down")));
        }
    }

    fn take(&mut self, input: DriverMessage) {
        match input {
            DriverMessage::Connected(connected) => self.connected(*connected),
            DriverMessage::Result(result) => self.result(*result),
            DriverMessage::Arbitrated(arbitrated) => self.arbitrated(*arbitrated),
            DriverMessage::SharesMemory(worker, job) => self.shares_memory(worker, job),
            DriverMessage::Event(event) => {
                if let Event::Leave { worker, .. } = &event {
                    self.close(*worker, None);
                }
                self.handle(event);
            }
            DriverMessage::Submit { job_toml, client_key, reply } => {
                self.submit(&job_toml, client_key, reply)
            }
            DriverMessage::Claimed(claimed) => self.claimed(*claimed),
            DriverMessage::Cancel { job_id, reply } => self.cancel(&job_id, reply),
            DriverMessage::Loaded { job, loaded } => self.loaded(job, *loaded),
            DriverMessage::Ready { job, ready } => self.ready(job, *ready),
            DriverMessage::Written { job, written } => self.written(job, written),
            DriverMessage::Finished(found) => self.finished(found),
            DriverMessage::NoLocalWorkers(failure) => self.no_local_workers(failure),
            DriverMessage::Stop => {}
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Passes an event to the control machine and carries out its actions. Events that result are passed in turn.
    pub(super) fn handle(&mut self, event: Event) {
        // Of these there are many: readers see what they change a moment later.
        let quiet = matches!(
            event,
            Event::Result { .. } | Event::ShardHeld { .. } | Event::Tick | Event::Heard { .. }
        );
        self.happened.push_back(event);
        while let Some(event) = self.happened.pop_front() {
            for action in self.control.handle(self.now(), event) {
                self.act(action);
            }
        }
        if quiet { self.board.moved() } else { self.board.changed() }
    }

    fn tick(&mut self) {
        self.look_for_finished();
        let now = self.now();
        let heard = |(&worker, session): (&WorkerId, &Session)| {
            (worker, now.saturating_sub(session.traffic.silence()), session.traffic.moved())
        };
        let heard: Vec<_> = self.sessions.iter().map(heard).collect();
        for (worker, at, moved) in heard {
            self.handle(Event::Heard { worker, at, moved });
        }
        // If this process was suspended, workers get a grace period, once: their messages are still waiting to be
        // read.
        let long = (self.config.control.heartbeat_deadline / 2).max(5 * TICK);
        self.slept = !self.slept && now.saturating_sub(self.ticked) > long;
        self.ticked = now;
        if !self.slept {
            self.handle(Event::Tick);
        }
    }

    /// The state from which a snapshot is made.
    fn state(&self) -> DriverState<'_> {
        DriverState {
            now: self.now(),
            control: &self.control,
            sessions: &self.sessions,
            jobs: &self.jobs,
            training: self.training.as_ref(),
            tally: &self.tally,
            join: self.config.join.as_deref(),
        }
    }

    fn publish(&mut self) {
        let snapshot = snapshot::of(&self.state());
        self.board.pin(snapshot);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Welcome { worker } => self.welcome(worker),
            Action::Disconnect { worker, reason } => self.close(worker, Some(disconnection(&reason))),
            Action::Release { worker } => {
                self.say(worker, shutdown_notice("this worker is drained"));
                self.close(worker, None);
            }
            Action::Evict { worker, reason } => {
                self.say(worker, ToWorker::Evict { reason });
                self.close(worker, None);
            }
            Action::UseKernel { worker, kernel } => {
                self.say(worker, ToWorker::UseKernel { kernel });
                self.close(worker, None);
            }
            Action::Load { job } => self.load(job),
            Action::StartJob { worker, job } => self.start_job(worker, job),
            Action::Hold { worker, job, generation, shards, standby } => {
                self.hold(worker, job, generation, &shards, standby);
            }
            Action::Begin { work } => self.training.iter_mut().for_each(|training| training.begin(work)),
            Action::Send { worker, work, nodes } => self.send_work(worker, work, nodes),
            Action::Accept { result, work, node, source } => self.accept(result, work, node, source),
            Action::Discard { result, reason } => {
                debug!("a result is discarded: {reason:?}");
                self.training.iter_mut().for_each(|training| training.discard(result));
            }
            Action::Arbitrate { work, node } => self.arbitrate(work, node),
            Action::Close { work } => {
                let finite = self.training.as_mut().is_some_and(|training| training.close(work));
                self.tally.closed(work, self.training.as_ref().map_or(0, |training| training.samples(work)));
                trace!("{work} is closed");
                let row = self.training.as_ref().and_then(|training| training.row_after(work));
                self.happened.push_back(Event::Closed { work, finite, row });
            }
            Action::Checkpoint { from, .. } => self.checkpoint(from),
            Action::EndEpoch { job, epoch, best, stopped } => self.end_epoch(job, epoch, best, stopped),
            Action::Save { job, stopped, restored } => self.save(job, stopped, restored),
            Action::End { job, outcome } => self.end(job, &outcome),
            Action::Note(note) => self.note(&note),
        }
    }

    fn note(&mut self, note: &Note) {
        if let (Some(training), Note::Evicted { instance_id, name, .. }) = (&mut self.training, note) {
            training.mark_suspect(instance_id, name);
        }
        self.tally.note(note);
        let (kind, text) = notes::note(note);
        if self.has_room() {
            info!("{text}");
            self.event(kind, text, None);
        }
    }

    /// Whether there is room for one more line about a worker.
    fn has_room(&mut self) -> bool {
        let left_out = self.pace.pass(self.now());
        if let Some(left_out @ 1..) = left_out {
            let text = format!("{left_out} lines about workers were left out: there were too many");
            warn!("{text}");
            self.event("left_out", text, None);
        }
        left_out.is_some()
    }

    fn event(&self, kind: &'static str, text: String, failure: Option<Failure>) {
        self.disk.event(kind, text, failure);
    }
}

/// Forwards the disk thread's reports to the driver's inbox.
fn report_to(inbox: Handle) -> impl Fn(DiskReport) {
    move |report| {
        let input = match report {
            DiskReport::Claimed(claimed) => DriverMessage::Claimed(claimed),
            DiskReport::Written { job, written } => DriverMessage::Written { job, written },
        };
        inbox.send_from_thread(input);
    }
}
