//! Counts of events since this coordinator started.
//!
//! The driver counts each event where it learns of it, and readers get the counts with the snapshot: nothing is
//! counted twice, and a step costs one or two additions.

use std::sync::atomic::Ordering;
use std::time::Duration;

use millefeuille_core::control::{Note, Outcome, Phase, WorkId};

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
    /// Workers that left in order: they drained, shut down, or restarted with another kernel.
    pub(crate) left: u64,
    /// Workers that were lost.
    pub(crate) lost: u64,
    /// Processes that were evicted from a job.
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
}

impl Tally {
    /// Counts an event that is also noted for people.
    pub(super) fn note(&mut self, note: &Note) {
        match note {
            Note::Joined { .. } => self.joined += 1,
            Note::Left { in_order: true, .. } => self.left += 1,
            Note::Left { in_order: false, .. } => self.lost += 1,
            Note::Evicted { .. } => self.evicted += 1,
            Note::Reassigned { straggler: true, .. } => self.backup_tasks += 1,
            Note::Reassigned { straggler: false, .. } => self.reassigned += 1,
            Note::Draining { .. }
            | Note::Short { .. }
            | Note::Recovered { .. }
            | Note::Stopped { .. }
            | Note::Assigned { .. } => {}
        }
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
    use millefeuille_core::control::WorkerId;

    use super::*;

    fn left(worker: u64, in_order: bool) -> Note {
        Note::Left { worker: WorkerId(worker), name: "worker".into(), how: "somehow".into(), in_order }
    }

    #[test]
    fn the_order_in_which_workers_leave_changes_no_count() {
        let notes = [left(1, true), left(2, false), left(3, true)];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut tally = Tally::default();
            order.into_iter().for_each(|index| tally.note(&notes[index]));
            assert_eq!((tally.left, tally.lost), (2, 1), "{order:?}");
        }
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
