//! The workers of the cluster, as the control machine sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::ids::{JobId, Phase, WorkerId};
use crate::data::shard::Shard;

pub use crate::arithmetic::Arithmetic;

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
pub enum MemberState {
    /// It has no part in a job.
    Idle,
    /// It fetches samples before it is given work.
    Fetching,
    /// It has shards to compute.
    Computing,
    /// It finishes what is pending with it, and takes no new work.
    Draining,
    /// On standby: there are more workers than shards.
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
    /// What it said of itself.
    pub hello: Hello,
    /// When anything last came from it.
    pub heard: Duration,
    /// Bytes that went to it and came from it, and when there were last more of them.
    pub moved: (u64, Duration),
    /// Seconds that one of its slots takes for a training sample, as measured lately, and when.
    pub pace: Option<(f64, Duration)>,
    /// Seconds from a question to its answer for each sample of it: training and evaluation.
    pub turnaround: [Option<f64>; 2],
    /// It drains: no new work is assigned to it.
    pub draining: bool,
    /// Work was over before its answer came, and it has not answered since.
    pub straggler: bool,
    /// Results of it that were not assigned to it.
    pub unassigned: u32,
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
    /// When it was told, or last had another shard of it.
    pub moved: Duration,
    /// Whether it was told that it is a standby.
    pub standby: bool,
    /// How often it was told.
    pub generation: u64,
    /// What it holds of what it was last told.
    pub held: BTreeSet<Shard>,
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

    /// Its part in this job, once it can compute it.
    pub fn part(&self, job: JobId) -> Option<&Part> {
        self.job.as_ref().filter(|part| part.job == job && part.accepted)
    }

    /// Takes in how long its slots were busy with `samples` training samples; recent results count more.
    pub fn measure(&mut self, now: Duration, samples: u64, busy: Duration) {
        if samples > 0 {
            let new = busy.as_secs_f64() / samples as f64;
            self.pace = Some((self.pace.map_or(new, |(old, _)| old + (new - old) * NEWEST), now));
        }
    }

    /// Takes in how long a sample took from question to answer.
    pub fn answered(&mut self, phase: Phase, seconds_a_sample: f64) {
        let mean = &mut self.turnaround[kind(phase)];
        *mean = Some(mean.map_or(seconds_a_sample, |old| old + (seconds_a_sample - old) * NEWEST));
    }

    /// The pace, unless it was measured too long ago to say anything.
    fn known_pace(&self, now: Duration) -> Option<f64> {
        self.pace
            .filter(|&(pace, at)| pace > 0.0 && now.saturating_sub(at) < PACE_HOLDS)
            .map(|(pace, _)| pace)
    }
}

/// What the newest measurement counts in a mean.
const NEWEST: f64 = 0.1;
/// A pace is forgotten after this: who was slow a while ago may have recovered.
const PACE_HOLDS: Duration = Duration::from_secs(30);

fn kind(phase: Phase) -> usize {
    usize::from(phase != Phase::Train)
}

/// Seconds from question to answer for a sample, of the faster half of the members.
pub(super) fn usual_turnaround(members: &Members, phase: Phase) -> Option<f64> {
    let mut all: Vec<f64> = members.values().filter_map(|member| member.turnaround[kind(phase)]).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len().saturating_sub(1) / 2).copied()
}

/// How much work each of these gets beside the others: slots by measured speed.
///
/// Who was not measured yet counts as the median of those who were, and so does who differs from it by less than
/// half: on a shared machine that much is noise, and a placement that follows noise moves samples for nothing.
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

/// All members, in the order in which they came.
pub(super) type Members = BTreeMap<WorkerId, Member>;
