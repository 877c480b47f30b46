//! Counts of events since this coordinator started.
//!
//! The driver counts each event where it learns of it, and readers get the counts with the snapshot: nothing is
//! counted twice, and a step costs one or two additions.

use std::sync::atomic::Ordering;
use std::time::Duration;

use millefeuille_core::control::{Note, Outcome, Phase, SessionEnd, WorkId, WorkerId};

use super::disk::Checkpointed;
use super::messages::Traffic;

/// The counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Optimizer steps taken.
    pub(crate) steps: u64,
    /// Training samples in them.
    pub(crate) samples: u64,
    /// Workers that were admitted.
    pub(crate) joined: u64,
    /// Workers that left in order: they drained, or restarted with another kernel.
    pub(crate) left: u64,
    /// Workers that were lost.
    pub(crate) lost: u64,
    /// Workers that were evicted for wrong results.
    pub(crate) evicted: u64,
    /// Times that a lost worker's pending work was reassigned.
    pub(crate) reassigned: u64,
    /// Times that backup tasks were started for a straggler.
    pub(crate) backup_tasks: u64,
    /// Checkpoints written.
    pub(crate) checkpoints: u64,
    /// How long writing them took.
    pub(crate) checkpoint_time: Duration,
    /// Jobs that were resumed from a checkpoint.
    pub(crate) resumes: u64,
    /// Jobs that were done.
    pub(crate) done: u64,
    /// Jobs that failed.
    pub(crate) failed: u64,
    /// Jobs that were cancelled.
    pub(crate) cancelled: u64,
    /// Payload bytes to workers.
    pub(crate) sent: u64,
    /// Payload bytes from workers.
    pub(crate) received: u64,
    /// The worker that is about to leave in order.
    leaving: Option<WorkerId>,
}

impl Tally {
    /// Counts an event that is also noted for people.
    pub(super) fn note(&mut self, note: &Note) {
        match note {
            Note::Joined { .. } => self.joined += 1,
            Note::Left { worker, .. } if self.leaving.take() == Some(*worker) => self.left += 1,
            Note::Left { .. } => self.lost += 1,
            Note::Evicted { .. } => self.evicted += 1,
            Note::Reassigned { straggler: true, .. } => self.backup_tasks += 1,
            Note::Reassigned { straggler: false, .. } => self.reassigned += 1,
            Note::Draining { .. } | Note::Short { .. } | Note::Recovered { .. } | Note::Assigned { .. } => {}
        }
    }

    /// Counts the end of a worker's session.
    pub(super) fn leaves(&mut self, worker: WorkerId, end: &SessionEnd) {
        if matches!(end, SessionEnd::Shutdown(_)) {
            self.leaves_in_order(worker);
        }
    }

    /// Marks that a worker leaves in order. If it was admitted, a note follows that it left.
    pub(super) fn leaves_in_order(&mut self, worker: WorkerId) {
        self.leaving = Some(worker);
    }

    /// Counts a closed unit of work, with its training samples.
    pub(super) fn closed(&mut self, work: WorkId, samples: u64) {
        self.steps += u64::from(work.phase == Phase::Train);
        self.samples += samples;
    }

    pub(super) fn wrote(&mut self, checkpoint: &Checkpointed) {
        self.checkpoints += 1;
        self.checkpoint_time += checkpoint.took;
    }

    pub(super) fn ended(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Done => self.done += 1,
            Outcome::Cancelled => self.cancelled += 1,
            Outcome::Diverged { .. } | Outcome::TooFewWorkers { .. } | Outcome::Broken(_) => self.failed += 1,
        }
    }

    /// Adds the traffic of an ended session.
    pub(super) fn moved(&mut self, traffic: &Traffic) {
        self.sent += traffic.sent.load(Ordering::Relaxed);
        self.received += traffic.received.load(Ordering::Relaxed);
    }

    /// The counts, including the traffic of open sessions.
    pub(super) fn with_sessions<'t>(&self, sessions: impl Iterator<Item = &'t Traffic>) -> Self {
        let mut all = self.clone();
        sessions.for_each(|traffic| all.moved(traffic));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(worker: u64) -> Note {
        Note::Left { worker: WorkerId(worker), name: "worker".into(), how: "somehow".into() }
    }

    #[test]
    fn who_shuts_down_is_not_lost() {
        let mut tally = Tally::default();
        tally.leaves_in_order(WorkerId(1));
        tally.note(&left(1));
        tally.leaves(WorkerId(2), &SessionEnd::Shutdown("told to stop".into()));
        tally.note(&left(2));
        tally.leaves(WorkerId(3), &SessionEnd::Closed);
        tally.note(&left(3));

        assert_eq!((tally.left, tally.lost), (2, 1));
    }

    #[test]
    fn who_parted_before_it_was_in_says_nothing_of_others() {
        let mut tally = Tally::default();
        tally.leaves_in_order(WorkerId(1));
        tally.note(&left(2));
        tally.note(&left(1));

        assert_eq!((tally.left, tally.lost), (0, 2));
    }

    #[test]
    fn bytes_of_a_session_count_once() {
        let (gone, there) = (Traffic::new(), Traffic::new());
        gone.send(10);
        there.send(5);
        there.hear(3);
        let mut tally = Tally::default();
        tally.moved(&gone);

        for _ in 0..2 {
            let all = tally.with_sessions([&there].into_iter());
            assert_eq!((all.sent, all.received), (15, 3));
        }
    }
}
