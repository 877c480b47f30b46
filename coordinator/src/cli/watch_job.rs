//! Watches a job to its end: progress while it runs, the report when it is done.
//!
//! The coordinator of a running cluster may be lost and come back. Then the job is found again by its id, and the stream
//! goes on after the last epoch that is known. The job may have been set back: epochs that have to be computed again come
//! out as they were, and are not printed again.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::pin::pin;
use std::time::{Duration, Instant};

use millefeuille_core::failure::FailureKind;
use millefeuille_core::view::{
    EpochRow, JobReport, JobStatus, JobView, OutcomeView, Prediction, Progress as Place,
};
use millefeuille_program::output::{self, LogFormat};
use millefeuille_program::process::{self, exit};

use super::client::{Client, ClusterArgs, Unanswered};
use super::{Failed, Result, columns, columns_of, ink, ink_of, print, table_columns};
use crate::report;
use crate::runs::record::DONE_BECAUSE;
use crate::see::history;
use crate::see::progress::{Progress, Style};
use crate::see::{WIDTH, chart, digits};

/// Pause after losing the coordinator: a coordinator that shuts down still answers for a moment.
const BREATH: Duration = Duration::from_millis(200);

/// The job to watch.
pub(super) struct WatchedJob {
    pub(super) client: Client,
    pub(super) job_id: String,
    /// How to reconnect to a cluster; `None` for this process' own cluster, whose job ends with Ctrl-C.
    pub(super) reconnect: Option<ClusterArgs>,
    pub(super) log: LogFormat,
}

/// Watches the job to its end. The command's exit code is the job's.
pub(super) async fn watch_job(mut watched: WatchedJob) -> Result {
    let mut view = View::new(watched.log);
    let mut stop = pin!(process::shutdown_signal());
    let mut cancelled = false;
    let outcome = loop {
        tokio::select! {
            ended = watch_with_reconnects(&mut watched, &mut view) => break ended?,
            () = &mut stop, if !cancelled => {
                view.finish();
                if watched.reconnect.is_some() {
                    return Err(stopped_watching(&watched.job_id));
                }
                cancelled = true;
                watched.client.cancel(&watched.job_id).await?;
            }
        }
    };
    view.finish();
    let (job, rows) = (view.job.clone(), view.rows());
    if outcome.exit_code == exit::DONE {
        print_report(&rows, &outcome, &job);
        return Ok(());
    }
    if !rows.is_empty() {
        print(&history::table(&rows, table_columns()));
    }
    Err(match outcome {
        OutcomeView { failure: Some(failure), .. } => failure.into(),
        OutcomeView { exit_code: exit::INTERRUPTED, .. } => {
            Failed::new(FailureKind::Interrupted, cancelled_job(&job, rows.len()))
        }
        // From an earlier version, only the message and the exit code are known.
        OutcomeView { exit_code, message, .. } => {
            process::error(&message);
            Failed::silently(exit_code)
        }
    })
}

/// Describes a job that somebody has cancelled, and what remains of it.
fn cancelled_job(job: &JobView, epochs: usize) -> String {
    let JobView { id, run_dir, .. } = job;
    if epochs == 0 && job.started.is_none() {
        return format!("job {id} was cancelled before it began; nothing is kept");
    }
    format!(
        "job {id} was cancelled; epochs finished and kept in {run_dir}: {epochs} (on the coordinator's machine, \
         coordinator train --run-dir {run_dir} --resume finishes it)"
    )
}

/// Watches to the job's end, across any number of coordinator restarts: jobs keep their ids.
async fn watch_with_reconnects(watched: &mut WatchedJob, view: &mut View) -> Result<OutcomeView> {
    loop {
        let unanswered = match watch(&mut watched.client, &watched.job_id, view).await {
            Ok(outcome) => return Ok(outcome),
            Err(unanswered) => unanswered,
        };
        let Some(cluster) = watched.reconnect.as_ref().filter(|_| unanswered.is_gone) else {
            return Err(unanswered.into());
        };
        view.note(&format!("the coordinator is gone ({}); looking for it", unanswered.failure.what));
        tokio::time::sleep(BREATH).await;
        watched.client = cluster.connect().await?;
        view.note("the coordinator is back");
    }
}

fn stopped_watching(id: &str) -> Failed {
    eprintln!("stopped watching; job {id} continues (coordinator cancel {id} ends it)");
    Failed::silently(exit::INTERRUPTED)
}

async fn watch(client: &mut Client, job_id: &str, view: &mut View) -> Result<OutcomeView, Unanswered> {
    let mut watching = client.watch(job_id, view.printed).await?;
    loop {
        if let Some(outcome) = view.take(watching.next().await?) {
            return Ok(outcome);
        }
    }
}

/// The display of the running job.
struct View {
    style: Style,
    progress: Option<Progress>,
    /// The job's history, by epoch.
    rows: BTreeMap<u64, EpochRow>,
    /// The last epoch that is known and printed. A coordinator that has resumed the job may send it again.
    printed: u64,
    /// Whether the last epoch printed came with a warning.
    warned: bool,
    job: JobView,
    waiting: Option<WaitNote>,
}

/// What the job waits for. It is printed only after a while: most waits are over before they can be read.
struct WaitNote {
    text: String,
    since: Instant,
    said: bool,
}

const WHILE: Duration = Duration::from_secs(1);

impl View {
    fn new(log: LogFormat) -> Self {
        let stderr = std::io::stderr();
        let style = match log {
            LogFormat::Json => Style::Silent,
            LogFormat::Text if output::is_quiet() => Style::Silent,
            LogFormat::Text if stderr.is_terminal() => Style::Terminal(ink_of(&stderr)),
            LogFormat::Text => Style::Plain,
        };
        Self {
            style,
            progress: None,
            rows: BTreeMap::new(),
            printed: 0,
            warned: false,
            job: JobView::default(),
            waiting: None,
        }
    }

    fn take(&mut self, report: JobReport) -> Option<OutcomeView> {
        let JobReport { job, history, progress, outcome } = report;
        self.job = job;
        if matches!(self.job.state, JobStatus::Queued | JobStatus::Waiting) {
            self.wait();
        }
        history.iter().for_each(|row| self.epoch(row.clone()));
        // Epochs that a set-back has lost are computed again, with the same bits. Only at the end is it known which were not.
        if let Some(done) = self.job.epochs_done.filter(|_| outcome.is_some()) {
            self.rows.retain(|&epoch, _| epoch <= done.into());
        }
        // An epoch is drawn once the one before is there in full. The disk is slower than the next epoch's first steps.
        if let Some(place) = progress.filter(|place| u64::from(place.epoch) == self.printed + 1) {
            self.step(place);
        }
        outcome
    }

    /// The job's history so far.
    fn rows(&self) -> Vec<EpochRow> {
        self.rows.values().cloned().collect()
    }

    fn wait(&mut self) {
        let text = match self.job.queue_place {
            0 => self.job.detail.clone(),
            place => format!("job {} is queued, number {place} in line", self.job.id),
        };
        let new = || WaitNote { text: text.clone(), since: Instant::now(), said: false };
        let waiting = self.waiting.take_if(|waiting| waiting.text == text).unwrap_or_else(new);
        let due = !waiting.said && waiting.since.elapsed() >= WHILE;
        self.waiting = Some(WaitNote { said: waiting.said || due, ..waiting });
        if due {
            self.note(&text);
        }
    }

    fn progress(&mut self) -> &mut Progress {
        let (style, job) = (self.style, &self.job);
        let new = || Progress::new(style, job.epochs.into(), job.steps_per_epoch.into());
        let progress = self.progress.get_or_insert_with(new);
        // The terminal may have another width by now.
        progress.fit(columns_of(std::io::stderr()).unwrap_or(WIDTH));
        progress
    }

    fn note(&mut self, text: &str) {
        match &mut self.progress {
            Some(progress) => progress.note(text),
            None if self.style == Style::Silent => {}
            None => eprintln!("{text}"),
        }
    }

    fn epoch(&mut self, row: EpochRow) {
        if row.epoch > self.printed {
            self.printed = row.epoch;
            self.progress().epoch(&row);
            let warning = row.warning(self.job.constant_loss);
            if let Some(warning) = warning.as_ref().filter(|_| !self.warned) {
                self.note(&format!("warning: {warning}"));
            }
            self.warned = warning.is_some();
        }
        self.rows.insert(row.epoch, row);
    }

    fn step(&mut self, place: Place) {
        let elapsed = Duration::try_from_secs_f64(place.epoch_seconds).unwrap_or_default();
        let Place { epoch, step, loss, .. } = place;
        let metrics: Vec<_> = place.all_metrics().collect();
        self.progress().step(epoch.into(), step.into(), loss, &metrics, elapsed);
    }

    fn finish(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress.finish();
        }
    }
}

fn print_report(rows: &[EpochRow], outcome: &OutcomeView, job: &JobView) {
    print(&summary(rows, &outcome.predictions));
    if let Some(stopped) = outcome.message.strip_prefix(DONE_BECAUSE) {
        print(&format!("\nTraining {stopped}.\n"));
    }
    print(&format!("\nweights_sha256 {}\nrun directory  {}\n", outcome.weights_sha256, job.run_dir));
}

/// History as table and chart, test figures, and the first test images with their predictions.
pub(super) fn summary(rows: &[EpochRow], shown: &[Prediction]) -> String {
    let mut text = history::table(rows, table_columns()) + "\n" + &chart::chart(rows, columns(), ink());
    if let Some(last) = rows.last() {
        text += &last.test_loss.map_or_else(String::new, |loss| format!("\nTest loss:     {loss:.3}\n"));
        for metric in last.all_metrics() {
            if let Some(figure) = metric.test {
                text += &format!("{:<14} {figure:.3}\n", format!("Test {}:", metric.name));
            }
        }
    }
    if !shown.is_empty() {
        let tiles: Vec<_> = shown.iter().filter_map(report::tile).collect();
        let right = shown.iter().filter(|shown| shown.class == shown.label).count();
        text += &format!("\nThe first {} test images and their predictions:\n", shown.len());
        text += &digits::terminal(&tiles, columns(), ink());
        text += &format!("{right} of {} are right.\n", shown.len());
    }
    text
}
