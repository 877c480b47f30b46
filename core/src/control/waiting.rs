//! What the running job is waiting for.

use std::time::Duration;

use super::config::ControlConfig;
use super::ids::{WorkId, WorkerId};
use super::members::Members;
use super::open::{Open, Pending};
use super::run::{Run, Stage};

/// What the running job is waiting for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// No job runs.
    Nothing,
    /// Its data is read.
    Data,
    /// Not enough workers are there.
    Workers {
        /// How many can compute it.
        present: usize,
        /// How many are needed or, for a moment, expected.
        needed: usize,
        /// Since when.
        since: Duration,
    },
    /// These workers fetch samples.
    Samples(Vec<WorkerId>),
    /// These workers compute.
    Results {
        /// What.
        work: WorkId,
        /// Who, and since when.
        pending: Vec<Pending>,
        /// Shards whose samples nobody has who could compute them: they are fetched first.
        unheld: Vec<u32>,
    },
    /// The coordinator writes the result.
    Disk,
}

impl Run {
    pub(super) fn waiting(&self, config: &ControlConfig, members: &Members) -> Waiting {
        match &self.stage {
            Stage::Gathering { since } if self.target.is_none() => {
                let present = self.candidates(members).len();
                let &ControlConfig { min_workers, expected_workers, .. } = config;
                let needed = if present < min_workers { min_workers } else { expected_workers };
                Waiting::Workers { present, needed, since: *since }
            }
            Stage::Gathering { .. } => Waiting::Samples(self.fetching(members)),
            Stage::Short { since, .. } => Waiting::Workers {
                present: self.candidates(members).len(),
                needed: config.min_workers,
                since: *since,
            },
            Stage::Stepping(open) | Stage::Closing(open) => self.results(open, members),
            Stage::Resting | Stage::Saving => Waiting::Disk,
        }
    }

    fn results(&self, open: &Open, members: &Members) -> Waiting {
        Waiting::Results { work: open.work, pending: open.pending(), unheld: self.unheld(open, members) }
    }

    fn fetching(&self, members: &Members) -> Vec<WorkerId> {
        let lacks = |worker: &WorkerId| {
            let part = members.get(worker).and_then(|member| member.part(self.job));
            part.is_none_or(|part| part.told.iter().any(|shard| !part.held.contains(shard)))
        };
        self.target.iter().flat_map(|target| target.keys()).copied().filter(lacks).collect()
    }
}
