//! The driver's notes for people: for departing workers, for the log, for `events.jsonl`.

use millefeuille_core::control::{Disconnection, Note, WorkId, WorkerId};
use millefeuille_core::learn::tree::Node;
use millefeuille_core::text;
use millefeuille_proto::session::{EndCause, Ended, ToWorker};

/// The log's target of warnings about a job. Whoever follows the job prints them as well.
pub(crate) const LOG_OF_JOBS: &str = "millefeuille_coordinator::jobs";

/// A note's kind and its text.
pub(super) fn note(note: &Note) -> (&'static str, String) {
    match note {
        Note::Joined { worker, name, slots } => ("joined", joined(*worker, name, *slots)),
        Note::Left { worker, name, how, .. } => ("left", format!("{worker} ({name}) left: {how}")),
        Note::Draining { worker, name, reason } => {
            ("draining", format!("{worker} ({name}) drains: {reason}"))
        }
        Note::Reassigned { work, pending_with, straggler, to } => {
            ("reassigned", reassigned(*work, *pending_with, *straggler, to))
        }
        Note::Evicted { worker, name, reason, .. } => {
            ("evicted", format!("{worker} ({name}) is evicted from the job: {reason}"))
        }
        Note::Short { present, needed, .. } => {
            ("waiting", format!("the job waits for workers: {present} of at least {needed} are present"))
        }
        Note::Recovered { continues: true, .. } => {
            ("recovered", "enough workers are present again: the job continues".to_string())
        }
        Note::Recovered { continues: false, .. } => ("recovered", "enough workers are present".to_string()),
        Note::Stopped { stopped, .. } => ("stopped", format!("training is {stopped}")),
        Note::Assigned { placement, from, .. } => {
            let runs =
                placement.iter().map(|(worker, run)| format!("{worker}: {}–{}", run.start, run.end - 1));
            (
                "assigned",
                format!("from {from} on, shards are assigned: {}", runs.collect::<Vec<_>>().join(", ")),
            )
        }
    }
}

pub(super) fn shutdown_notice(reason: &str) -> ToWorker {
    ToWorker::Goodbye { reason: reason.to_string() }
}

fn reassigned(work: WorkId, pending_with: WorkerId, straggler: bool, to: &[(WorkerId, Vec<Node>)]) -> String {
    let nodes = |nodes: &[Node]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let to: Vec<_> = to.iter().map(|(worker, of)| format!("{worker} computes {}", nodes(of))).collect();
    let why = if straggler { "is a straggler in" } else { "is lost in" };
    format!("{pending_with} {why} {work}: {}", to.join(", "))
}

pub(super) fn joined(worker: WorkerId, name: &str, slots: u32) -> String {
    let slots = if slots == 1 { "1 slot".to_string() } else { format!("{slots} slots") };
    format!("{worker} ({name}) joined with {slots}")
}

/// The message to a worker that is disconnected.
pub(super) fn disconnection(reason: &Disconnection) -> Ended {
    let lost = |reason: String| Ended::new(EndCause::Lost, reason);
    let unfit = |reason: String| Ended::new(EndCause::Unfit, reason);
    match reason {
        Disconnection::Silent { silence } => {
            lost(format!("nothing came from this worker for {:.1} s", silence.as_secs_f64()))
        }
        Disconnection::Superseded => lost("this process has joined again since".to_string()),
        Disconnection::Hung { work, asked } => lost(format!(
            "this worker has not returned {work} for {:.0} s, though it is alive",
            asked.as_secs_f64()
        )),
        Disconnection::Stalled { stalled } => lost(format!(
            "this worker has to fetch samples, and has received none for {:.0} s",
            stalled.as_secs_f64()
        )),
        Disconnection::Unassigned { answers } => {
            lost(format!("this worker has sent {answers} results that were not assigned to it"))
        }
        Disconnection::Full { limit } => {
            Ended::new(EndCause::Full, format!("there are {limit} workers already"))
        }
        Disconnection::Arithmetic { theirs, needed } => unfit(format!(
            "it computes other bits than the job needs: it has OpenBLAS {} with kernel {} (fingerprint {}), \
             the job needs {} with {} ({}); use the same OpenBLAS version, and pin blas_kernel in the job",
            theirs.version,
            theirs.kernel,
            short(&theirs.fingerprint),
            needed.version,
            needed.kernel,
            short(&needed.fingerprint),
        )),
        Disconnection::Shapes { theirs, needed } => unfit(format!(
            "it computes other bits than the job needs, on the job's own shapes (fingerprint {}, needed {})",
            short(theirs),
            short(needed),
        )),
    }
}

fn short(fingerprint: &str) -> &str {
    text::beginning(fingerprint, 12)
}
