//! Events and actions as a person reads them in a trace.

use millefeuille_core::control::{Action, Event, Note, Source, WorkId};
use millefeuille_core::data::shard::Shard;
use millefeuille_core::data::split::Split;
use millefeuille_core::learn::tree::Node;

pub(crate) fn event(event: &Event) -> String {
    match event {
        Event::Join { worker, hello } => {
            format!("{worker} joins: process {}, {} slots", hello.name, hello.slots)
        }
        Event::Leave { worker, end } => format!("{worker} leaves: {end:?}"),
        Event::Drain { worker, .. } => format!("{worker} drains"),
        Event::ShardHeld { worker, generation, shard, .. } => {
            format!("{worker} holds {shard} (hold {generation})")
        }
        Event::JobAccepted { worker, job, .. } => format!("{worker} accepts job {}", job.0),
        Event::Result { worker, work, node, finite, digest, .. } => {
            let finite = if *finite { "" } else { ", not finite" };
            let digest = digest
                .map_or(String::new(), |digest| format!(", digest {:02x}{:02x}…", digest[0], digest[1]));
            format!("{worker} answers {node} of {}{finite}{digest}", unit(work))
        }
        Event::Closed { work, finite } => {
            format!("closed {}{}", unit(work), if *finite { "" } else { ", not finite" })
        }
        Event::Arbitrated { work, node, computed } => {
            format!(
                "arbitrated {node} of {}: {}",
                unit(work),
                if computed.is_some() { "computed" } else { "cannot" }
            )
        }
        Event::Loaded { job, from, facts, .. } => {
            let (position, tag) = (from.position, from.parameter_tag);
            let (epochs, plan, shards) = (facts.epochs, facts.plan, facts.shards);
            format!(
                "loaded job {}: {epochs} epochs of {} steps, {shards} shards; from epoch {} step {}, parameters {tag}",
                job.0,
                plan.steps(),
                position.epoch + 1,
                position.step + 1
            )
        }
        other => format!("{other:?}"),
    }
}

pub(crate) fn action(action: &Action) -> String {
    match action {
        Action::Hold { worker, generation, shards, standby, .. } => {
            let standby = if *standby { ", on standby" } else { "" };
            format!("tell {worker} to hold {}{standby} (hold {generation})", indices(shards))
        }
        Action::Begin { work } => format!("begin {}", unit(work)),
        Action::Send { worker, work, nodes } => format!("ask {worker} for {} of {}", list(nodes), unit(work)),
        Action::Accept { node, source, .. } => format!("accept {node} of {}", who(source)),
        Action::Arbitrate { work, node } => format!("compute {node} of {} here", unit(work)),
        Action::Close { work } => format!("close {}", unit(work)),
        Action::Disconnect { worker, reason } => format!("disconnect {worker}: {reason:?}"),
        Action::Note(note) => format!("note: {}", noted(note)),
        other => format!("{other:?}"),
    }
}

fn noted(note: &Note) -> String {
    match note {
        Note::Reassigned { work, pending_with, straggler, to } => {
            let to: Vec<_> = to.iter().map(|(worker, nodes)| format!("{worker} {}", list(nodes))).collect();
            let why = if *straggler { "slow" } else { "gone" };
            format!("what {pending_with} owes of {} goes to {}: it is {why}", unit(work), to.join(", "))
        }
        Note::Assigned { placement, from, .. } => {
            let runs: Vec<_> = placement.iter().map(|(worker, run)| format!("{worker} {run:?}")).collect();
            format!("placed from {} on: {}", unit(from), runs.join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn unit(work: &WorkId) -> String {
    format!("{work} (job {}, parameters {})", work.job.0, work.parameter_tag)
}

fn who(source: &Source) -> String {
    match source {
        Source::Worker(worker) => worker.to_string(),
        Source::Coordinator => "the coordinator".into(),
    }
}

fn list(nodes: &[Node]) -> String {
    nodes.iter().map(Node::to_string).collect::<Vec<_>>().join(" ")
}

fn indices(shards: &[Shard]) -> String {
    let of = |split: Split| {
        let indices = shards.iter().filter(|shard| shard.split == split).map(|shard| shard.index.to_string());
        format!("{split} {}", indices.collect::<Vec<_>>().join(","))
    };
    Split::ALL.map(of).join(" · ")
}
