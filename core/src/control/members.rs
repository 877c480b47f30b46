//! The workers of the cluster, as the control machine sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::{JobId, WorkerId};
use crate::data::shard::Shard;

pub use crate::blas::Arithmetic;

/// What a worker says of itself when it joins.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// Random, made once when the process first starts; the same over reconnections.
    pub instance_id: String,
    /// For people, such as `host:1234`.
    pub name: String,
    /// Pieces computed at once.
    pub slots: u32,
    /// How it computes.
    pub arithmetic: Arithmetic,
    /// Bytes of samples that it may hold.
    pub cache_bytes: u64,
    /// Which kernel it was started for: `native`, `environment` or an OpenBLAS core name.
    pub started_for: String,
}

/// What a member does for the running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has no part in a job.
    Idle,
    /// It fetches samples before it is given work.
    Fetching,
    /// It has shards to compute.
    Computing,
    /// It stands by: there are more workers than shards.
    Spare,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Idle => "idle",
            Role::Fetching => "fetching",
            Role::Computing => "computing",
            Role::Spare => "spare",
        })
    }
}

/// A worker that was let in.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it said of itself.
    pub hello: Hello,
    /// When anything last came from it.
    pub heard: Duration,
    /// Seconds that one of its slots takes for a training sample, as measured lately.
    pub pace: Option<f64>,
    /// Its part in the running job.
    pub job: Option<Part>,
}

/// A member's part in the running job.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which job it was told of.
    pub job: JobId,
    /// Whether its results on the job's own shapes were right.
    pub accepted: bool,
    /// What it was last told to hold.
    pub told: Vec<Shard>,
    /// Whether it was told that it is a spare.
    pub spare: bool,
    /// How often it was told.
    pub generation: u64,
    /// What it holds of what it was last told.
    pub held: BTreeSet<Shard>,
}

impl Member {
    /// A member that was just let in.
    pub fn new(now: Duration, hello: Hello) -> Self {
        Self { hello, heard: now, pace: None, job: None }
    }

    /// Its part in this job, once it can compute it.
    pub fn part(&self, job: JobId) -> Option<&Part> {
        self.job.as_ref().filter(|part| part.job == job && part.accepted)
    }

    /// Takes in how long its slots were busy with `samples` training samples; recent results count more.
    pub fn measure(&mut self, samples: u64, busy: Duration) {
        if samples > 0 {
            let new = busy.as_secs_f64() / samples as f64;
            self.pace = Some(self.pace.map_or(new, |old| old + (new - old) * 0.1));
        }
    }
}

/// How much work each of these gets beside the others: slots by measured speed.
///
/// Who was not measured yet counts as the median of those who were, and so does who differs from it by less than
/// half: on a shared machine that much is noise, and a placement that follows noise moves samples for nothing.
pub(super) fn weights(members: &[(WorkerId, &Member)]) -> Vec<(WorkerId, f64)> {
    let mut paces: Vec<f64> = members.iter().filter_map(|(_, member)| member.pace).collect();
    paces.sort_by(f64::total_cmp);
    let median = paces.get(paces.len() / 2).copied().filter(|&pace| pace > 0.0).unwrap_or(1.0);
    let speed = |member: &Member| match member.pace {
        Some(pace) if pace > 0.0 && !(2.0 / 3.0..=1.5).contains(&(pace / median)) => median / pace,
        _ => 1.0,
    };
    members.iter().map(|&(worker, member)| (worker, f64::from(member.hello.slots) * speed(member))).collect()
}

/// All members, in the order in which they came.
pub(super) type Members = BTreeMap<WorkerId, Member>;
