//! The state of each worker in the control machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::ids::{JobId, Phase, WorkerId};
use crate::data::shard::Shard;

pub use crate::arithmetic::Arithmetic;

/// What a worker reports when it joins.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// A random id, made when the process first starts and kept over reconnections.
    pub instance_id: String,
    /// A name for display, such as `host:1234`.
    pub name: String,
    /// How many pieces the worker computes at once.
    pub slots: u32,
    /// The worker's arithmetic.
    pub arithmetic: Arithmetic,
    /// How many bytes of samples the worker may hold.
    pub cache_bytes: u64,
    /// The kernel that the worker was started for: `native`, `environment` or an OpenBLAS core name.
    pub started_for: String,
}

/// A member's state in the running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It has no part in a job.
    Idle,
    /// It fetches samples before work is assigned to it.
    Fetching,
    /// It has shards to compute.
    Computing,
    /// It finishes its pending nodes and takes no new work.
    Draining,
    /// On standby: it has no shards to compute.
    Standby,
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MemberState::Idle => "idle",
            MemberState::Fetching => "fetching",
            MemberState::Computing => "computing",
            MemberState::Draining => "draining",
            MemberState::Standby => "standby",
        })
    }
}

/// A worker that was admitted.
#[derive(Clone, Debug)]
pub struct Member {
    /// What the worker reported when it joined.
    pub hello: Hello,
    /// When the last message from the worker arrived.
    pub heard: Duration,
    /// Bytes sent to the worker and received from it, and when that number last grew.
    pub moved: (u64, Duration),
    /// Seconds that one slot takes for a training sample, a moving average, and when it was last measured.
    pub pace: Option<(f64, Duration)>,
    /// Seconds per sample from assignment to result, in training and in evaluation.
    pub turnaround: [Option<f64>; 2],
    /// Whether the worker drains: no new work is assigned to it.
    pub draining: bool,
    /// Whether a unit of work closed before the worker's result arrived, and it has returned no result since.
    pub straggler: bool,
    /// How many results it sent that were not assigned to it.
    pub unassigned: u32,
    /// The worker's part in the running job.
    pub job: Option<JobMembership>,
}

/// A member's part in the running job.
#[derive(Clone, Debug)]
pub struct JobMembership {
    /// The job that the worker was told about.
    pub job: JobId,
    /// Whether the worker's results on the job's own shapes were correct.
    pub accepted: bool,
    /// The shards that the worker was last told to hold.
    pub told: Vec<Shard>,
    /// When the worker was last told which shards to hold, or last received one of them.
    pub moved: Duration,
    /// Whether the worker was told that it is on standby.
    pub standby: bool,
    /// How many times the worker was told which shards to hold.
    pub generation: u64,
    /// The shards in `told` that the worker holds.
    pub held: BTreeSet<Shard>,
    /// The other shards in `told`: the worker fetches them.
    pub lacks: BTreeSet<Shard>,
}

impl JobMembership {
    /// The part of a worker that has just been told about the job.
    pub(super) fn new(now: Duration, job: JobId) -> Self {
        Self {
            job,
            accepted: false,
            told: Vec::new(),
            moved: now,
            standby: false,
            generation: 0,
            held: BTreeSet::new(),
            lacks: BTreeSet::new(),
        }
    }

    /// Whether the worker has to be told of these shards. It need not know that their order changed if it holds all.
    pub(super) fn differs(&self, shards: &[Shard], standby: bool) -> bool {
        let holds_them = self.lacks.is_empty()
            && self.held.len() == shards.len()
            && shards.iter().all(|shard| self.held.contains(shard));
        self.standby != standby || !holds_them && self.told != shards
    }

    /// Records what the worker is told to hold. It keeps what it holds of that; returns what it drops.
    pub(super) fn tell(&mut self, now: Duration, shards: &[Shard], standby: bool) -> Vec<Shard> {
        let wanted: BTreeSet<Shard> = shards.iter().copied().collect();
        let dropped = self.held.extract_if(.., |shard| !wanted.contains(shard)).collect();
        self.lacks = wanted.difference(&self.held).copied().collect();
        self.told = shards.to_vec();
        self.generation += 1;
        (self.moved, self.standby) = (now, standby);
        dropped
    }
}

impl Member {
    /// A member that was just admitted.
    pub fn new(now: Duration, hello: Hello) -> Self {
        Self {
            hello,
            heard: now,
            moved: (0, now),
            pace: None,
            turnaround: [None; 2],
            draining: false,
            straggler: false,
            unassigned: 0,
            job: None,
        }
    }

    /// The member's part in this job, once it has shown that it can compute the job.
    pub fn part(&self, job: JobId) -> Option<&JobMembership> {
        self.job.as_ref().filter(|part| part.job == job && part.accepted)
    }

    /// Whether the member can compute this job and does not drain.
    pub(super) fn is_able(&self, job: JobId) -> bool {
        !self.draining && self.part(job).is_some()
    }

    /// Records how long the slots were busy with `samples` training samples. Recent results weigh more.
    pub fn measure(&mut self, now: Duration, samples: u64, busy: Duration) {
        if samples > 0 {
            let new = busy.as_secs_f64() / samples as f64;
            self.pace = Some((self.pace.map_or(new, |(old, _)| old + (new - old) * NEWEST), now));
        }
    }

    /// Records the seconds per sample from assignment to result.
    pub fn answered(&mut self, phase: Phase, seconds_a_sample: f64) {
        let mean = &mut self.turnaround[kind(phase)];
        *mean = Some(mean.map_or(seconds_a_sample, |old| old + (seconds_a_sample - old) * NEWEST));
    }

    /// The pace, unless the measurement is too old.
    fn known_pace(&self, now: Duration) -> Option<f64> {
        self.pace
            .filter(|&(pace, at)| pace > 0.0 && now.saturating_sub(at) < PACE_HOLDS)
            .map(|(pace, _)| pace)
    }
}

/// The weight of the newest measurement in a moving average.
const NEWEST: f64 = 0.1;
/// A pace is forgotten after this time: a worker that was slow may have recovered.
const PACE_HOLDS: Duration = Duration::from_secs(30);

fn kind(phase: Phase) -> usize {
    usize::from(phase != Phase::Train)
}

/// The median of the members' seconds per sample from assignment to result; of an even number, the lower median.
pub(super) fn usual_turnaround(members: &Members, phase: Phase) -> Option<f64> {
    let mut all: Vec<f64> = members.values().filter_map(|member| member.turnaround[kind(phase)]).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len().saturating_sub(1) / 2).copied()
}

/// The share of work that each member gets: its slots times its measured speed.
///
/// A member without a measurement counts as the median of the measured ones. So does a member whose pace differs
/// from the median by less than half: on a shared machine that is noise, and a placement that follows noise moves
/// samples for nothing.
pub(super) fn weights(now: Duration, members: &[(WorkerId, &Member)]) -> Vec<(WorkerId, f64)> {
    let mut paces: Vec<f64> = members.iter().filter_map(|(_, member)| member.known_pace(now)).collect();
    paces.sort_by(f64::total_cmp);
    let median = paces.get(paces.len().saturating_sub(1) / 2).copied().unwrap_or(1.0);
    let speed = |member: &Member| match member.known_pace(now) {
        Some(pace) if !(2.0 / 3.0..=1.5).contains(&(pace / median)) => median / pace,
        _ => 1.0,
    };
    members.iter().map(|&(worker, member)| (worker, f64::from(member.hello.slots) * speed(member))).collect()
}

/// All members, in the order in which they joined.
pub(super) type Members = BTreeMap<WorkerId, Member>;
