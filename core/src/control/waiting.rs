//! What the running job waits for.

use std::time::Duration;

use super::config::ControlConfig;
use super::ids::{WorkId, WorkerId};
use super::members::Members;
use super::open::{Open, Pending};
use super::run::{Run, Stage};

/// What the running job waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// No job runs.
    Nothing,
    /// The coordinator reads the job's data.
    Data,
    /// There are too few workers.
    Workers {
        /// How many workers can compute the job.
        present: usize,
        /// How many workers are needed; once there are enough, how many are expected.
        needed: usize,
        /// When the wait began.
        since: Duration,
    },
    /// These workers fetch samples.
    Samples(Vec<WorkerId>),
    /// These workers compute.
    Results {
        /// The unit of work.
        work: WorkId,
        /// The workers, and when their nodes were assigned.
        pending: Vec<Pending>,
        /// Shards whose samples no able worker holds: they have to be fetched first.
        unheld: Vec<u32>,
    },
    /// The coordinator writes the result.
    Disk,
}

impl Run {
    pub(super) fn waiting(&self, config: &ControlConfig, members: &Members) -> Waiting {
        match &self.stage {
            Stage::Gathering { since } if self.target.is_none() => {
                let present = self.present(members);
                let &ControlConfig { min_workers, expected_workers, .. } = config;
                let needed = if present < min_workers { min_workers } else { expected_workers };
                let since = self.shortage.map_or(*since, |shortage| shortage.since);
                Waiting::Workers { present, needed, since }
            }
            Stage::Gathering { .. } => Waiting::Samples(self.fetching(members)),
            Stage::Short { .. } => Waiting::Workers {
                present: self.present(members),
                needed: config.min_workers,
                since: self.shortage.map_or(Duration::ZERO, |shortage| shortage.since),
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
            part.is_none_or(|part| !part.lacks.is_empty())
        };
        self.target.iter().flat_map(|target| target.placement.keys()).copied().filter(lacks).collect()
    }
}
