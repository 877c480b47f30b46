//! "Why are we waiting?": what the job waits for, how long it has waited, and what happens next, in words.

use std::collections::BTreeMap;
use std::time::Duration;

use millefeuille_core::control::{Control, Pending, Waiting, WorkId, WorkerId};

/// A worker whose work has been pending for less than this is simply computing, and its job is well.
const WORTH_SAYING: Duration = Duration::from_secs(1);

/// What the running job waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wait {
    /// What the job waits for; the text stays the same for the same wait.
    pub(super) what: String,
    /// How long the wait has lasted.
    pub(super) lasts: Duration,
    /// What happens if the wait continues; empty if nothing does.
    pub(super) next: String,
}

/// The waits of the job and of its workers at one moment.
pub(super) struct Waits<'c> {
    control: &'c Control,
    now: Duration,
    /// The command by which a worker joins; `None` if the coordinator starts its workers itself.
    join: Option<&'c str>,
    waiting: Waiting,
    /// What is pending with each worker.
    pending: BTreeMap<WorkerId, Pending>,
}

impl<'c> Waits<'c> {
    /// Determines the current waits.
    pub(super) fn of(control: &'c Control, now: Duration, join: Option<&'c str>) -> Self {
        let waiting = control.waiting();
        let pending = match &waiting {
            Waiting::Results { pending, .. } => pending.iter().map(|of| (of.worker, of.clone())).collect(),
            _ => BTreeMap::new(),
        };
        Self { control, now, join, waiting, pending }
    }

    /// What the running job waits for.
    pub(super) fn of_job(&self) -> Wait {
        let Self { control, now, join, waiting, .. } = self;
        let (now, without_end) = (*now, |what: &str| Wait { what: what.to_string(), ..Wait::default() });
        match waiting {
            Waiting::Nothing => Wait::default(),
            Waiting::Data => without_end("reading the data"),
            Waiting::Workers { present, needed, since } => Wait {
                what: format!(
                    "waiting for workers: {present} of at least {needed} are present{}",
                    join.map_or_else(String::new, |join| format!(" (start some with: {join})"))
                ),
                lasts: now.saturating_sub(*since),
                next: gives_up(control.config().wait_workers, now.saturating_sub(*since)),
            },
            Waiting::Samples(workers) => Wait {
                what: format!("waiting for samples to reach {}", listed(workers)),
                lasts: Duration::ZERO,
                next: format!(
                    "a worker that receives nothing for {:.0} s is disconnected",
                    control.config().stall_deadline.as_secs_f64()
                ),
            },
            Waiting::Results { work, pending, unheld } => Wait::for_results(now, *work, pending, unheld),
            Waiting::Disk => without_end("waiting for the disk"),
        }
    }

    /// What this worker keeps the job waiting for; empty if nothing.
    pub(super) fn of_worker(&self, worker: WorkerId) -> String {
        let Self { control, now, waiting, pending, .. } = self;
        let Some(member) = control.members().get(&worker) else { return String::new() };
        let Waiting::Results { work, .. } = waiting else { return String::new() };
        let lasts = |pending: &&Pending| pending.overdue || now.saturating_sub(pending.since) >= WORTH_SAYING;
        match pending.get(&worker).filter(lasts) {
            Some(Pending { since, overdue, .. }) => {
                let overdue = if *overdue { ", overdue" } else { "" };
                format!("pending: {work}, for {:.1} s{overdue}", now.saturating_sub(*since).as_secs_f64())
            }
            None if member.straggler => "straggler: has yet to return a result".to_string(),
            None => String::new(),
        }
    }
}

impl Wait {
    fn for_results(now: Duration, work: WorkId, pending: &[Pending], unheld: &[u32]) -> Self {
        let since = pending.iter().map(|pending| pending.since).min().unwrap_or(now);
        let lasts = now.saturating_sub(since);
        let is_usual = lasts < WORTH_SAYING && !pending.iter().any(|pending| pending.overdue);
        if unheld.is_empty() && is_usual {
            return Self::default();
        }
        let workers: Vec<_> = pending.iter().map(|pending| pending.worker).collect();
        let fetched = if unheld.is_empty() {
            String::new()
        } else {
            format!("{}samples of shards {unheld:?}", if workers.is_empty() { "" } else { " and for " })
        };
        let from = if workers.is_empty() { String::new() } else { format!("from {}", listed(&workers)) };
        let next = match pending.iter().any(|pending| pending.overdue) {
            _ if !unheld.is_empty() => "another worker fetches the samples",
            true => "it takes long: backup tasks run on other workers",
            false => "backup tasks start on other workers if it takes too long",
        };
        Self { what: format!("waiting for {work} {from}{fetched}"), lasts, next: next.to_string() }
    }
}

fn listed(workers: &[WorkerId]) -> String {
    workers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn gives_up(limit: Option<Duration>, waited: Duration) -> String {
    limit.map_or(String::new(), |limit| {
        format!("gives up in {:.0} s", limit.saturating_sub(waited).as_secs_f64())
    })
}
