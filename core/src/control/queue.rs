//! The jobs of the cluster: one runs, the others wait in the order in which they came.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::{JobId, Outcome};

/// Where a job is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Another job runs.
    Queued,
    /// It waits for its data or for workers.
    Waiting,
    /// It trains.
    Running,
    /// It has ended.
    Ended(Outcome),
}

impl fmt::Display for JobState {
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

/// A job as the queue knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEntry {
    /// Where it is in its life.
    pub state: JobState,
}

/// Every job, and the order of those that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: BTreeMap<JobId, JobEntry>,
    waiting: VecDeque<JobId>,
}

impl Queue {
    /// Puts a job at the end.
    pub(super) fn push(&mut self, job: JobId) {
        self.entries.insert(job, JobEntry { state: JobState::Queued });
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

    /// Forgets a job that has ended.
    pub(super) fn forget(&mut self, job: JobId) {
        if matches!(self.state(job), Some(JobState::Ended(_))) {
            self.entries.remove(&job);
        }
    }

    /// Notes where a job is now.
    pub(super) fn set(&mut self, job: JobId, state: JobState) {
        if let Some(entry) = self.entries.get_mut(&job) {
            entry.state = state;
        }
    }

    /// Where a job is now.
    pub(super) fn state(&self, job: JobId) -> Option<&JobState> {
        self.entries.get(&job).map(|entry| &entry.state)
    }

    /// How many jobs run before this one is done, itself included; none if it is not queued.
    pub(super) fn place(&self, job: JobId) -> Option<usize> {
        self.waiting.iter().position(|&other| other == job).map(|index| index + 1)
    }

    /// How many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}
