//! Every job except the current one: queued jobs, in order of submission, and jobs that have ended.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::ids::JobId;
use super::outcome::Outcome;

/// A job's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState<'a> {
    /// Another job runs.
    Queued,
    /// It waits for its data or for workers.
    Waiting,
    /// It trains.
    Running,
    /// It has ended.
    Ended(&'a Outcome),
}

impl fmt::Display for JobState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JobState::Queued => "queued",
            JobState::Waiting => "waiting",
            JobState::Running => "running",
            JobState::Ended(Outcome::Done) => "done",
            JobState::Ended(Outcome::Cancelled) => "cancelled",
            JobState::Ended(_) => "failed",
        })
    }
}

/// Every job except the current one.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<JobId>,
    ended: BTreeMap<JobId, Outcome>,
}

impl Queue {
    /// Puts a job at the end.
    pub(super) fn push(&mut self, job: JobId) {
        self.waiting.push_back(job);
    }

    /// Takes the first job.
    pub(super) fn pop(&mut self) -> Option<JobId> {
        self.waiting.pop_front()
    }

    /// Takes this job out of those that wait; whether it was there.
    pub(super) fn remove(&mut self, job: JobId) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|&other| other != job);
        self.waiting.len() < before
    }

    /// Records how a job ended.
    pub(super) fn end(&mut self, job: JobId, outcome: Outcome) {
        self.ended.insert(job, outcome);
    }

    /// Forgets a job that has ended.
    pub(super) fn forget(&mut self, job: JobId) {
        self.ended.remove(&job);
    }

    /// A job's state; `None` if the job is neither queued nor ended.
    pub(super) fn state(&self, job: JobId) -> Option<JobState<'_>> {
        let queued = self.waiting.contains(&job).then_some(JobState::Queued);
        queued.or_else(|| self.ended.get(&job).map(JobState::Ended))
    }

    /// The job's place in the queue, from 1; `None` if it is not queued.
    pub(super) fn place(&self, job: JobId) -> Option<usize> {
        self.waiting.iter().position(|&other| other == job).map(|index| index + 1)
    }

    /// The queued jobs, the next one first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = JobId> {
        self.waiting.iter().copied()
    }

    /// How many jobs are queued.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}
