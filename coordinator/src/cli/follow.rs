//! Follows a job to its end: progress while it runs, the report when it is done.
//!
//! A cluster of others may lose its coordinator and get it back. Then the job is found again by its id; epochs come
//! again from the first, and those that were printed are not printed twice.

use std::io::IsTerminal as _;
use std::pin::pin;
use std::time::{Duration, Instant};

use millefeuille_program::process::{self, LogFormat, exit};
use millefeuille_proto::v1;
use tonic::Status;

use super::client::{Client, ClusterArgs, is_gone, request};
use super::{Failed, Result, columns, ink, print};
use crate::report::Shown;
use crate::see::history::{self, Row};
use crate::see::progress::{Progress, Style};
use crate::see::{Ink, chart, digits};

/// Who has just lost the coordinator lets it go first: one that ends still answers for a moment.
const BREATH: Duration = Duration::from_millis(200);

/// What is followed.
pub(super) struct Following {
    pub(super) client: Client,
    pub(super) job_id: String,
    /// How to find a cluster of others again; none for a cluster of one's own, whose job ends with Ctrl-C.
    pub(super) reconnect: Option<ClusterArgs>,
    pub(super) log: LogFormat,
}

/// Follows to the end; the command's own end is the job's.
pub(super) async fn follow(mut following: Following) -> Result {
    let mut view = View::new(following.log);
    let mut stop = pin!(process::told_to_stop());
    let mut cancelled = false;
    let outcome = loop {
        tokio::select! {
            ended = attend(&mut following, &mut view) => break ended?,
            () = &mut stop, if !cancelled => {
                view.finish();
                if following.reconnect.is_some() {
                    return Err(stopped_following(&following.job_id));
                }
                cancelled = true;
                cancel(&mut following.client, &following.job_id).await?;
            }
        }
    };
    view.finish();
    let job = view.job.clone();
    if outcome.exit_code == u32::from(exit::DONE) {
        report(&view.history, &outcome, &job);
        return Ok(());
    }
    if !view.history.is_empty() {
        print(&history::table(&view.history));
    }
    let code = u8::try_from(outcome.exit_code).unwrap_or(exit::UNEXPECTED);
    let message = match code {
        exit::INTERRUPTED => {
            format!("interrupted; epochs finished and kept in {}: {}", job.run_dir, view.history.len())
        }
        _ => outcome.message,
    };
    Err(Failed::new(code, message))
}

/// Watches to the job's end, over any number of the coordinator's restarts: jobs keep their ids.
async fn attend(following: &mut Following, view: &mut View) -> Result<v1::Outcome> {
    loop {
        let status = match watch(&mut following.client, &following.job_id, view).await {
            Ok(outcome) => return Ok(outcome),
            Err(status) => status,
        };
        let Some(cluster) = following.reconnect.as_ref().filter(|_| is_gone(&status)) else {
            return Err(status.into());
        };
        view.note(&format!("the coordinator is gone ({}); looking for it", status.message()));
        tokio::time::sleep(BREATH).await;
        following.client = cluster.connect().await?;
        view.note("the coordinator is back");
    }
}

fn stopped_following(id: &str) -> Failed {
    eprintln!("stopped following; job {id} goes on (coordinator cancel {id} ends it)");
    Failed::silently(exit::INTERRUPTED)
}

async fn cancel(client: &mut Client, job_id: &str) -> Result {
    client.cancel_job(request(v1::CancelJobRequest { job_id: job_id.to_string() })).await?;
    Ok(())
}

async fn watch(client: &mut Client, job_id: &str, view: &mut View) -> Result<v1::Outcome, Status> {
    view.history.clear();
    let mut stream = client.watch_job(v1::WatchJobRequest { job_id: job_id.to_string() }).await?.into_inner();
    while let Some(message) = stream.message().await? {
        if let Some(outcome) = view.take(message) {
            return Ok(outcome);
        }
    }
    Err(Status::unavailable("it closed the stream"))
}

/// What is shown of the job while it runs.
struct View {
    style: Style,
    progress: Option<Progress>,
    history: Vec<Row>,
    /// Epochs whose line is printed; after a reconnection they come again.
    printed: u64,
    job: v1::Job,
    waiting: Option<Waiting>,
}

/// What the job waits for. Said only once it takes a while: most waits are over before they can be read.
struct Waiting {
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
            LogFormat::Text if stderr.is_terminal() => Style::Terminal(Ink::of(&stderr)),
            LogFormat::Text => Style::Plain,
        };
        Self {
            style,
            progress: None,
            history: Vec::new(),
            printed: 0,
            job: v1::Job::default(),
            waiting: None,
        }
    }

    fn take(&mut self, message: v1::WatchJobResponse) -> Option<v1::Outcome> {
        if let Some(job) = message.job {
            self.job = job;
        }
        if matches!(self.job.state(), v1::JobState::Queued | v1::JobState::Waiting) {
            self.wait();
        }
        for epoch in message.new_epochs {
            self.epoch(row(epoch));
        }
        if let Some(progress) = message.progress.filter(|progress| u64::from(progress.epoch) > self.printed) {
            self.step(&progress);
        }
        message.outcome
    }

    fn wait(&mut self) {
        let text = match self.job.queue_place {
            0 => self.job.detail.clone(),
            place => format!("job {} is queued, number {place} in line", self.job.id),
        };
        let new = || Waiting { text: text.clone(), since: Instant::now(), said: false };
        let waiting = self.waiting.take_if(|waiting| waiting.text == text).unwrap_or_else(new);
        let due = !waiting.said && waiting.since.elapsed() >= WHILE;
        self.waiting = Some(Waiting { said: waiting.said || due, ..waiting });
        if due {
            self.note(&text);
        }
    }

    fn progress(&mut self) -> &mut Progress {
        let (style, job) = (self.style, &self.job);
        let new = || Progress::new(style, job.epochs.into(), job.steps_per_epoch.into());
        self.progress.get_or_insert_with(new)
    }

    fn note(&mut self, text: &str) {
        match &mut self.progress {
            Some(progress) => progress.note(text),
            None if self.style == Style::Silent => {}
            None => eprintln!("{text}"),
        }
    }

    fn epoch(&mut self, row: Row) {
        if row.epoch > self.printed {
            self.printed = row.epoch;
            self.progress().epoch(&row);
        }
        self.history.push(row);
    }

    fn step(&mut self, progress: &v1::Progress) {
        let elapsed = Duration::try_from_secs_f64(progress.epoch_seconds).unwrap_or_default();
        let v1::Progress { epoch, step, loss, accuracy, .. } = *progress;
        self.progress().step(epoch.into(), step.into(), loss, accuracy, elapsed);
    }

    fn finish(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress.finish();
        }
    }
}

pub(super) fn row(epoch: v1::Epoch) -> Row {
    Row {
        epoch: epoch.epoch.into(),
        loss: epoch.loss,
        accuracy: epoch.accuracy,
        val_loss: epoch.val_loss,
        val_accuracy: epoch.val_accuracy,
        test_loss: epoch.test_loss,
        test_accuracy: epoch.test_accuracy,
        seconds: epoch.seconds,
        weights_sha256: epoch.weights_sha256,
    }
}

fn report(rows: &[Row], outcome: &v1::Outcome, job: &v1::Job) {
    let shown = outcome.predictions.iter().map(|prediction| Shown {
        image: (prediction.rows as usize, prediction.columns as usize),
        pixels: prediction.pixels.to_vec(),
        label: prediction.label as u8,
        class: prediction.class as u8,
    });
    print(&summary(rows, &shown.collect::<Vec<_>>()));
    print(&format!("\nweights_sha256 {}\nrun directory  {}\n", outcome.weights_sha256, job.run_dir));
}

/// History as table and chart, the test's figures, the first test images with their predictions.
pub(super) fn summary(rows: &[Row], shown: &[Shown]) -> String {
    let mut text = history::table(rows) + "\n" + &chart::chart(rows, columns(), ink());
    if let Some(last) = rows.last() {
        text +=
            &format!("\nTest loss:     {:.3}\nTest accuracy: {:.3}\n", last.test_loss, last.test_accuracy);
    }
    if !shown.is_empty() {
        let tiles: Vec<_> = shown.iter().filter_map(Shown::tile).collect();
        let right = shown.iter().filter(|shown| shown.class == shown.label).count();
        text += &format!("\nThe first {} test images and their predictions:\n", shown.len());
        text += &digits::terminal(&tiles, columns(), ink());
        text += &format!("{right} of {} are right.\n", shown.len());
    }
    text
}
