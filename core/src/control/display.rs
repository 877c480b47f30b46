//! Events and actions in one line each, as traces and test scripts show them.
//!
//! These lines are for developers. What users read comes from the coordinator's notes.

use std::fmt::{self, Display, Formatter};

use super::action::{Action, Discard, Note};
use super::event::Event;
use super::facts::{Facts, Start};
use super::ids::{JobId, WorkId};
use super::outcome::Outcome;
use super::validation::{Digest, Source};
use crate::data::shard::Shard;
use crate::data::split::Split;

impl Display for JobId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "job {}", self.0)
    }
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Source::Worker(worker) => worker.fmt(f),
            Source::Coordinator => f.write_str("the coordinator"),
        }
    }
}

impl Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Event::Join { worker, hello } => {
                write!(f, "{worker} joins: process {}, slots {}", hello.name, hello.slots)
            }
            Event::Leave { worker, end } => write!(f, "{worker} leaves: {end}"),
            Event::Drain { worker, reason } => write!(f, "{worker} drains: {reason}"),
            Event::Heard { worker, at, moved } => {
                write!(f, "{worker} is heard at {} s, {moved} bytes moved", at.as_secs_f64())
            }
            Event::JobAccepted { worker, job, .. } => write!(f, "{worker} accepts {job}"),
            Event::ShardHeld { worker, generation, shard, .. } => {
                write!(f, "{worker} holds {shard} (hold {generation})")
            }
            Event::Result { worker, work, node, finite, digest, .. } => {
                write!(f, "{worker} returns {node} of {}{}", Unit(work), Finite(*finite))?;
                digest.map_or(Ok(()), |digest| write!(f, ", digest {}", Short(digest)))
            }
            Event::Arbitrated { work, node, computed } => {
                let computed = if computed.is_some() { "computed" } else { "could not compute" };
                write!(f, "the coordinator {computed} {node} of {}", Unit(work))
            }
            Event::Closed { work, finite, .. } => write!(f, "closed {}{}", Unit(work), Finite(*finite)),
            Event::Submit { job } => write!(f, "{job} is submitted"),
            Event::Loaded { job, facts, from, .. } => write!(f, "loaded {job}: {}", Loaded(facts, from)),
            Event::CheckpointWritten { job } => write!(f, "the checkpoint of {job} is written"),
            Event::EpochWritten { job } => write!(f, "the epoch of {job} is written"),
            Event::Saved { job } => write!(f, "the result of {job} is written"),
            Event::Broken { job, failure } => write!(f, "{job} fails: {failure}"),
            Event::Cancel { job } => write!(f, "{job} is cancelled"),
            Event::Tick => f.write_str("tick"),
        }
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Action::Welcome { worker } => write!(f, "admit {worker}"),
            Action::Disconnect { worker, reason } => write!(f, "disconnect {worker}: {reason:?}"),
            Action::Release { worker } => write!(f, "release {worker}"),
            Action::Evict { worker, reason } => write!(f, "evict {worker}: {reason}"),
            Action::UseKernel { worker, kernel } => write!(f, "restart {worker} with kernel {kernel}"),
            Action::Load { job } => write!(f, "load {job}"),
            Action::StartJob { worker, job } => write!(f, "tell {worker} about {job}"),
            Action::Hold { worker, generation, shards, standby, .. } => {
                let standby = if *standby { ", on standby" } else { "" };
                write!(f, "tell {worker} to hold {}{standby} (hold {generation})", Indices(shards))
            }
            Action::Begin { work } => write!(f, "begin {}", Unit(work)),
            Action::Send { worker, work, nodes } => {
                write!(f, "assign {} of {} to {worker}", List(nodes), Unit(work))
            }
            Action::Accept { node, source, .. } => write!(f, "accept {node} of {source}"),
            Action::Arbitrate { work, node } => write!(f, "compute {node} of {} here", Unit(work)),
            Action::Discard { reason, .. } => write!(f, "discard the result: {reason}"),
            Action::Close { work } => write!(f, "close {}", Unit(work)),
            Action::Checkpoint { job, from } => write!(f, "checkpoint {job}, {}", At(from)),
            Action::EndEpoch { job, epoch, .. } => write!(f, "end epoch {} of {job}", epoch + 1),
            Action::Save { job, .. } => write!(f, "save {job}"),
            Action::End { job, outcome } => write!(f, "end {job}: {outcome}"),
            Action::Note(note) => write!(f, "note: {note}"),
        }
    }
}

impl Display for Discard {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Discard::Late => "its unit of work is over",
            Discard::Duplicate => "its node is in the tree already",
            Discard::Unassigned => "its node was not assigned to this worker",
        })
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done => f.write_str("done"),
            Outcome::Cancelled => f.write_str("cancelled"),
            Outcome::Diverged { work } => write!(f, "diverged in {work}"),
            Outcome::TooFewWorkers { present, needed, waited } => {
                write!(f, "too few workers: {present} of {needed} after {} s", waited.as_secs_f64())
            }
            Outcome::Broken(failure) => write!(f, "failed: {failure}"),
        }
    }
}

impl Display for Note {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Note::Joined { worker, name, slots } => write!(f, "{worker} has joined: {name}, slots {slots}"),
            Note::Left { worker, how, .. } => write!(f, "{worker} has left: {how}"),
            Note::Draining { worker, reason, .. } => write!(f, "{worker} drains: {reason}"),
            Note::Reassigned { work, pending_with, straggler, to } => {
                let why = if *straggler { "is a straggler" } else { "is gone" };
                write!(f, "{pending_with} {why}: its nodes of {} are reassigned:", Unit(work))?;
                to.iter().try_for_each(|(worker, nodes)| write!(f, " {} to {worker};", List(nodes)))
            }
            Note::Evicted { worker, reason, .. } => write!(f, "{worker} is evicted: {reason}"),
            Note::Short { job, present, needed } => {
                write!(f, "{job} waits for workers: {present} of {needed}")
            }
            Note::Stopped { job, stopped } => write!(f, "{job} {stopped}"),
            Note::Recovered { job, .. } => write!(f, "{job} has enough workers"),
            Note::Assigned { placement, from, .. } => {
                write!(f, "shards from {} on:", Unit(from))?;
                placement.iter().try_for_each(|(worker, shards)| write!(f, " {shards:?} to {worker};"))
            }
        }
    }
}

/// A unit of work with its job and the version of its parameters.
struct Unit<'a>(&'a WorkId);

impl Display for Unit<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(work) = self;
        write!(f, "{work} ({}, parameters {})", work.job, work.parameter_tag)
    }
}

/// Nodes or other items, separated by spaces.
struct List<'a, T>(&'a [T]);

impl<T: Display> Display for List<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(f, "{separator}{item}")?;
        }
        Ok(())
    }
}

/// Shards, by split.
struct Indices<'a>(&'a [Shard]);

impl Display for Indices<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(shards) = self;
        let of = |split: Split| {
            let indices = shards.iter().filter(|shard| shard.split == split);
            let indices: Vec<_> = indices.map(|shard| shard.index.to_string()).collect();
            (!indices.is_empty()).then(|| format!("{split} {}", indices.join(",")))
        };
        let splits: Vec<_> = Split::ALL.into_iter().filter_map(of).collect();
        f.write_str(if splits.is_empty() { "nothing" } else { "" })?;
        f.write_str(&splits.join(" · "))
    }
}

/// What was loaded, and where the job begins.
struct Loaded<'a>(&'a Facts, &'a Start);

impl Display for Loaded<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(facts, from) = self;
        let (epochs, steps, shards) = (facts.epochs, facts.plan.steps(), facts.shards);
        write!(f, "{epochs} epochs of {steps} steps, {shards} shards; {}", At(from))
    }
}

/// Where a job begins or resumes.
struct At<'a>(&'a Start);

impl Display for At<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (position, tag) = (self.0.position, self.0.parameter_tag);
        write!(f, "from epoch {} step {}, parameters {tag}", position.epoch + 1, position.step + 1)
    }
}

/// Empty for a finite number, a remark for others.
struct Finite(bool);

impl Display for Finite {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "" } else { ", not finite" })
    }
}

/// The first bytes of a digest.
struct Short(Digest);

impl Display for Short {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}…", self.0[0], self.0[1])
    }
}
