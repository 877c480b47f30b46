//! Jobs that ended without a result, and were finished by hand since: `coordinator train --run-dir RUN --resume`.
//!
//! Nobody tells the cluster, so a thread looks at their directories from time to time.

use std::path::PathBuf;
use std::time::Duration;

use millefeuille_core::control::JobId;
use millefeuille_core::view::EpochRow;

use super::Driver;
use crate::cluster::messages::DriverMessage;
use crate::runs::{Ending, SavedRun, names};

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// When the directories were looked at.
#[derive(Debug, Default)]
pub(super) struct Look {
    last: Duration,
    /// Whether a thread looks now. If its disk hangs, no other one does.
    under_way: bool,
}

/// A job that is done by now.
#[derive(Debug)]
pub struct Finished {
    job: JobId,
    history: Vec<EpochRow>,
    trained_sha256: String,
}

impl Driver {
    /// Looks whether jobs have been finished by others, if it is time.
    pub(super) fn look_for_finished(&mut self) {
        let now = self.now();
        if !self.config.resumes || self.look.under_way || now.saturating_sub(self.look.last) < LOOK_INTERVAL {
            return;
        }
        let without_result =
            self.jobs.iter().filter(|(_, record)| record.ended.as_ref().is_some_and(|end| !end.is_done()));
        let runs: Vec<_> = without_result.map(|(&job, record)| (job, record.run_dir.clone())).collect();
        self.look = Look { last: now, under_way: !runs.is_empty() };
        if runs.is_empty() {
            return;
        }
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let look = move || runs.into_iter().filter_map(finished).collect();
            let found = tokio::task::spawn_blocking(look).await.unwrap_or_default();
            handle.send(DriverMessage::Finished(found)).await;
        });
    }

    pub(super) fn finished(&mut self, found: Vec<Finished>) {
        self.look.under_way = false;
        for Finished { job, history, trained_sha256 } in found {
            if let Some(record) = self.jobs.get_mut(&job) {
                record.ended = Some(Ending::done());
                record.set_history(&history);
                record.trained_sha256 = Some(trained_sha256);
                record.frozen.take();
                self.board.changed();
            }
        }
    }
}

/// The job, if its run is done.
fn finished((job, path): (JobId, PathBuf)) -> Option<Finished> {
    // Nearly all have none, and are looked at every two seconds.
    path.join(names::RECEIPT).exists().then_some(())?;
    let run = SavedRun::open(&path).ok()?;
    // Somebody may have put another run there.
    let same = run.record().is_some_and(|record| record.number == job.0);
    let receipt = run.receipt().ok()?.filter(|_| same)?;
    Some(Finished { job, history: run.history().ok()?, trained_sha256: receipt.weights_sha256 })
}
