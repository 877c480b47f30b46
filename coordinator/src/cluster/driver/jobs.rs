//! How the driver handles jobs: submissions, loaded data, finished writes, ends.
//!
//! A submission is acknowledged once its run directory is on disk: the disk thread claims the directory and replies
//! with `Claimed`. From then on, [`Driver::find_runs`] finds the job after a crash, whether queued or running.

use std::path::Path;
use std::sync::Arc;

use millefeuille_core::control::{Event, JobId, JobState, Outcome, Start};
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::Job;
use millefeuille_core::learn::stopping::{Stopped, Stopping, Watch};
use millefeuille_core::learn::tree::Tree;
use millefeuille_program::process::exit;
use millefeuille_proto::session::ToWorker;
use tracing::{debug, info, warn};

use super::Driver;
use super::submissions::{Cancelled, Reply};
use crate::cluster::disk::{Claimed, Content, RunClaim, WriteCommand, Written};
use crate::cluster::load::{self, Beginning, Loaded, Loading, Ready};
use crate::cluster::messages::{DriverMessage, Serving};
use crate::cluster::records::JobRecord;
use crate::cluster::training::Training;
use crate::cluster::{notes, snapshot};
use crate::data::Reading;
use crate::failpoints;
use crate::runs::{Ending, Existing, Found, RunDir, RunState, Scanned, scan};

/// Number of ended jobs that are listed. Of older jobs only the run directories remain.
const ENDED_JOBS: usize = 1000;
/// Number of jobs whose predictions are kept, for those who watched them to their end.
const SHOWN_JOBS: usize = 4;

impl Driver {
    /// Takes over the runs of an earlier coordinator process: queued and unfinished runs continue, ended ones are
    /// shown.
    pub(in crate::cluster) async fn find_runs(&mut self) {
        if !self.config.resumes {
            return;
        }
        let (runs_dir, job_key) = (self.config.runs_dir.clone(), self.config.job_key.clone());
        // In a thread: this takes as long as the disk does.
        let found = tokio::task::spawn_blocking(move || find_runs(&runs_dir, job_key.as_deref())).await;
        for found in found.expect("scanning does not panic") {
            self.take_over(found);
        }
        self.forget_old_jobs();
        self.publish();
    }

    fn take_over(&mut self, (found, run): (Found, FoundRun)) {
        let Found { id, path, job, record, epochs, last, seconds, trained_sha256 } = found;
        let (run, ended) = match run {
            FoundRun::Unfinished(run) => (Some(*run), None),
            FoundRun::Ended(ending) => (None, Some(ending)),
        };
        let number = self.submissions.at_least(record.number);
        let resumes = run.is_some();
        if resumes {
            info!("job {id} is resumed; its run directory is {}", path.display());
        }
        let found = JobRecord::new(id, job, path, record.client_key);
        let mut found =
            JobRecord { found: true, run, ended, started: record.started, trained_sha256, ..found };
        // How many epochs of a run remain is known once it is resumed, from its checkpoint.
        if !resumes {
            (found.job, found.epochs_ended, found.last, found.seconds) = (None, epochs, last, seconds);
        }
        self.jobs.insert(number, found);
        if resumes {
            self.handle(Event::Submit { job: number });
        }
    }

    pub(super) fn submit(&mut self, job_toml: &str, client_key: String, reply: Reply) {
        match self.check_submission(job_toml, &client_key) {
            // The caller may have hung up.
            Err(refusal) => _ = reply.send(Err(refusal)),
            Ok(Submission::Known(id)) => _ = reply.send(Ok(id)),
            Ok(Submission::OnItsWay(number)) => {
                self.submissions.waiting.entry(number).and_modify(|(_, replies)| replies.push(reply));
            }
            Ok(Submission::New(job)) => {
                let number = self.submissions.next();
                self.submissions.waiting.insert(number, (client_key.clone(), vec![reply]));
                self.disk.order(WriteCommand::Claim(Box::new(RunClaim {
                    number,
                    job: *job,
                    client_key,
                    runs_dir: self.config.runs_dir.clone(),
                    run: self.config.first_run.take(),
                    taken: self.jobs.values().map(|record| record.id.clone()).collect(),
                })));
            }
        }
    }

    fn check_submission(&self, job_toml: &str, client_key: &str) -> Result<Submission, Failure> {
        let same = |key: &str| !client_key.is_empty() && key == client_key;
        if let Some(record) = self.jobs.values().find(|record| same(&record.client_key)) {
            return Ok(Submission::Known(record.id.clone()));
        }
        if let Some((&number, _)) = self.submissions.waiting.iter().find(|(_, (key, _))| same(key)) {
            return Ok(Submission::OnItsWay(number));
        }
        let queued = self.control.queued() + self.submissions.waiting.len();
        if queued >= self.config.max_queued {
            let limit = self.config.max_queued;
            return Err(Failure::new(FailureKind::QueueFull, format!("{limit} jobs are queued already")));
        }
        let job = Job::parse("job", job_toml)?;
        Ok(Submission::New(Box::new(job)))
    }

    /// Handles a submission that is on disk, or that could not be written.
    pub(super) fn claimed(&mut self, claimed: Claimed) {
        let Claimed { number, job, client_key, run } = claimed;
        let replies =
            self.submissions.waiting.remove(&number).map(|(_, replies)| replies).unwrap_or_default();
        let answer = match run {
            Err(failure) => Err(failure),
            Ok(run) => {
                let (id, run_dir) = (run.id(), run.path().to_path_buf());
                info!("job {id} is queued; its run directory is {}", run_dir.display());
                let record = JobRecord::new(id.clone(), job, run_dir, client_key);
                self.jobs.insert(number, JobRecord { run: Some(run), ..record });
                self.handle(Event::Submit { job: number });
                Ok(id)
            }
        };
        // Callers may have hung up.
        replies.into_iter().for_each(|reply| _ = reply.send(answer.clone()));
    }

    /// Cancels a job. Replies once the cancellation is on disk, so that no crash brings the job back. If its run is
    /// just being begun or resumed, replies at once.
    pub(super) fn cancel(&mut self, job_id: &str, reply: Cancelled) {
        let job = match self.find(job_id) {
            Ok(job) => job,
            Err(refusal) => {
                // The caller may have hung up.
                let _ = reply.send(Err(refusal));
                return;
            }
        };
        let ended = |driver: &Self| matches!(driver.control.job_state(job), Some(JobState::Ended(_)) | None);
        let before = ended(self);
        self.handle(Event::Cancel { job });
        let noted_soon = self.jobs.contains_key(&job) && !self.beginning.contains(&job);
        if !before && ended(self) && noted_soon {
            self.cancelled.entry(job).or_default().push(reply);
        } else {
            let _ = reply.send(Ok(snapshot::job(&self.state(), job)));
        }
    }

    /// Handles a job whose end is on disk.
    pub(super) fn end_noted(&mut self, job: JobId) {
        let answer = snapshot::job(&self.state(), job);
        for reply in self.cancelled.remove(&job).unwrap_or_default() {
            let _ = reply.send(Ok(answer.clone()));
        }
    }

    fn find(&self, job_id: &str) -> Result<JobId, Failure> {
        if job_id.is_empty() {
            let what = "the request names no job to cancel (job_id is empty; ListJobs has the jobs' ids)";
            return Err(Failure::new(FailureKind::Usage, what));
        }
        let found = self.jobs.iter().find(|(_, record)| record.id == job_id).map(|(&job, _)| job);
        found.ok_or_else(|| snapshot::no_job(job_id, "no job was submitted"))
    }

    /// Starts to read a job's data.
    pub(super) fn load(&mut self, job: JobId) {
        let Some(record) = self.jobs.get_mut(&job) else { return };
        let kept_init = record.run.as_ref().and_then(RunDir::kept_init);
        let Some(config) = record.job.take() else { return };
        let place = match self.readers.one_more(&config) {
            Ok(place) => place,
            Err(failure) => return self.happened.push_back(Event::Broken { job, failure }),
        };
        let reading = Arc::new(Reading::default());
        self.loading = Some(Loading { job, reading: Arc::clone(&reading) });
        let limit = self.config.control.stall_deadline;
        let (read, handle) = (load::read(*config, kept_init, reading, place, limit), self.handle.clone());
        tokio::spawn(async move {
            let loaded = Box::new(read.await);
            handle.send(DriverMessage::Loaded { job, loaded }).await;
        });
    }

    /// Handles data that has been read: begins or resumes the run, unless the job has ended meanwhile.
    pub(super) fn loaded(&mut self, job: JobId, loaded: Result<Loaded, Failure>) {
        if self.loading.take_if(|loading| loading.job == job).is_none() {
            return;
        }
        let run = self.jobs.get_mut(&job).and_then(|record| record.run.take());
        let (loaded, run) = match (loaded, run) {
            (Ok(loaded), Some(run)) => (loaded, run),
            (Err(failure), run) => {
                if let Some(record) = self.jobs.get_mut(&job) {
                    record.run = run;
                }
                return self.handle(Event::Broken { job, failure });
            }
            (Ok(_), None) => return,
        };
        self.beginning.insert(job);
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let ready = Box::new(load::make_ready(run, loaded).await);
            handle.send(DriverMessage::Ready { job, ready }).await;
        });
    }

    /// Handles a run that has begun or is resumed.
    pub(super) fn ready(&mut self, job: JobId, ready: Ready) {
        self.beginning.remove(&job);
        let Some(record) = self.jobs.get_mut(&job) else { return };
        record.run = ready.run;
        if self.control.running() != Some(job) {
            return self.give_back(job);
        }
        let Beginning { mut training, from, history, resumed } = match ready.training {
            Ok(beginning) => *beginning,
            Err(failure) => return self.handle(Event::Broken { job, failure }),
        };
        if let Some(host) = &self.config.shared_memory {
            training.share(host);
        }
        let facts = training.loaded.facts.clone();
        info!(
            "data is ready: {} training, {} validation, {} test samples; kernel {}, OpenBLAS {}",
            facts.sizes.train,
            facts.sizes.validation,
            facts.sizes.test,
            facts.arithmetic.kernel,
            facts.arithmetic.version
        );
        if let Some(text) = resumed {
            info!("job {} resumes {text}", record.id);
            self.tally.resumes += 1;
        }
        self.serving.send_replace(Some(Arc::new(Serving {
            job,
            tree: Tree::new(facts.shards),
            parameters: training.workload.model().parameter_count(),
            workload: Arc::clone(&training.workload),
            store: Arc::clone(training.store()),
            pool: training.pool.clone(),
            parameter_slots: training.parameter_slots.clone(),
        })));
        record.steps_per_epoch = facts.plan.steps();
        record.set_history(history.rows());
        record.constant_loss = training.constant_loss;
        if let Some(run) = record.run.take() {
            record.started = run.record().started;
            let content = Arc::new(Content {
                job: training.job.clone(),
                job_sha256: training.job_sha256.clone(),
                workload: Arc::clone(&training.workload),
                store: Arc::clone(training.store()),
                arithmetic: facts.arithmetic.clone(),
                shapes_fingerprint: facts.shapes_fingerprint.clone(),
                openblas_picks: training.loaded.openblas_picks.clone(),
            });
            self.disk.order(WriteCommand::Begin { job, run, content, history });
        }
        self.training = Some(training);
        // There are no more of them than a cluster may have.
        for (worker, member) in self.control.members() {
            let hello = &member.hello;
            self.event("joined", notes::joined(*worker, &hello.name, hello.slots), None);
        }
        let evicted = self.training.as_ref().map(Training::evicted).unwrap_or_default();
        let rules = Stopping::default();
        let watch = self.training.as_ref().map_or_else(|| Watch::new(rules), Training::watch);
        self.handle(Event::Loaded { job, facts, from, evicted, watch });
    }

    /// Copies the state between two steps and passes it to the disk thread.
    pub(super) fn checkpoint(&mut self, from: Start) {
        if let Some(training) = &self.training {
            self.disk.order(WriteCommand::Checkpoint(Box::new(training.snapshot(from))));
        }
    }

    /// Writes a last checkpoint when the coordinator shuts down.
    pub(super) fn last_checkpoint(&mut self) {
        let on = self.config.control.checkpoint_interval.is_some();
        if let Some(from) = self.control.checkpoint_position().filter(|_| on) {
            self.checkpoint(from);
        }
    }

    pub(super) fn save(&mut self, job: JobId, stopped: Option<Stopped>, restored: Option<u64>) {
        if let Some(record) = self.jobs.get_mut(&job) {
            record.stopped = stopped;
        }
        if let Some(training) = &self.training {
            let (parameters, suspects) = (training.parameters(), training.suspects().clone());
            self.disk.order(WriteCommand::Save { parameters, suspects, stopped, restored });
        }
    }

    pub(super) fn end_epoch(&mut self, job: JobId, epoch: u32, best: bool, stopped: Option<Stopped>) {
        let on = self.config.control.checkpoint_interval.is_some();
        let Some(training) = self.training.as_mut().filter(|_| self.control.running() == Some(job)) else {
            return;
        };
        let row = training.end_row(epoch);
        let ledger = training.end_epoch(epoch, stopped.as_ref());
        let snapshot = training.snapshot(Start::of_epoch(epoch + 1, training.steps_taken()));
        let snapshot = Box::new(snapshot);
        let warning = training.warning(&row);
        self.disk.order(WriteCommand::Epoch { row, ledger, snapshot, checkpoint: on, best });
        // Now, since nothing can be added to a run whose result has been ordered.
        if let Some(warning) = warning {
            self.warn_of_job(job, warning);
        }
    }

    pub(super) fn written(&mut self, job: JobId, written: Result<Written, Failure>) {
        let Some(record) = self.jobs.get_mut(&job) else { return };
        // Data of the ended job may still have been on its way to the disk.
        record.frozen.take();
        match written {
            Err(failure) => self.handle(Event::Broken { job, failure }),
            Ok(Written::Epoch(row, checkpoint)) => {
                debug!("epoch {} is written", row.epoch);
                if let Some(checkpoint) = checkpoint {
                    record.checkpoint = Some(checkpoint.tag);
                    self.tally.wrote(&checkpoint);
                }
                record.add_epoch(row);
                self.handle(Event::EpochWritten { job });
            }
            Ok(Written::Checkpoint(checkpoint)) => {
                record.checkpoint = Some(checkpoint.tag);
                self.tally.wrote(&checkpoint);
                self.handle(Event::CheckpointWritten { job });
            }
            Ok(Written::Ended) => self.end_noted(job),
            Ok(Written::Result { shown, trained_sha256 }) => {
                record.shown = shown;
                record.trained_sha256 = Some(trained_sha256);
                self.forget_old_predictions();
                self.handle(Event::Saved { job });
            }
        }
    }

    /// Tells people of something about a job that it survives: in the log, and in its events.
    fn warn_of_job(&self, job: JobId, warning: String) {
        if let Some(record) = self.jobs.get(&job) {
            warn!(target: notes::LOG_OF_JOBS, "job {}: {warning}", record.id);
            self.event("warning", warning, None);
        }
    }

    pub(super) fn no_local_workers(&mut self, failure: Failure) {
        if let Some(job) = self.control.running() {
            self.handle(Event::Broken { job, failure });
        }
    }

    pub(super) fn end(&mut self, job: JobId, outcome: &Outcome) {
        let Some(record) = self.jobs.get_mut(&job) else { return };
        let (id, ending) = (record.id.clone(), snapshot::ending(record, outcome));
        record.ended = Some(ending.clone());
        let (text, failure) = (ending.message.clone(), ending.failure.clone());
        self.tally.ended(outcome);
        self.loading.take_if(|loading| loading.job == job);
        match outcome {
            Outcome::Done => info!("job {id} is done"),
            _ => info!("job {id} has ended: {text}"),
        }
        let ran = self.serving.borrow().as_ref().is_some_and(|serving| serving.job == job);
        if !ran {
            self.give_back(job);
            return self.forget_old_jobs();
        }
        self.serving.send_replace(None);
        self.training = None;
        self.event("end", text, failure);
        self.disk.order(WriteCommand::End { ending });
        let workers: Vec<_> = self.sessions.keys().copied().collect();
        workers.into_iter().for_each(|worker| self.say(worker, ToWorker::JobEnd { job }));
        self.forget_old_jobs();
    }

    /// Forgets the predictions of all jobs but those that were saved last.
    fn forget_old_predictions(&mut self) {
        let shown = self.jobs.values_mut().rev().filter(|record| !record.shown.is_empty());
        for record in shown.skip(SHOWN_JOBS) {
            record.shown = Vec::new();
            record.frozen.take();
        }
    }

    /// Forgets jobs that ended long ago. Their run directories remain.
    fn forget_old_jobs(&mut self) {
        let over = |(job, record): (&JobId, &JobRecord)| {
            // The end of a job that was cancelled while it began is still to be written.
            if self.beginning.contains(job) {
                return None;
            }
            let state = self.control.job_state(*job);
            (record.ended.is_some() || matches!(state, Some(JobState::Ended(_)))).then_some(*job)
        };
        let over: Vec<_> = self.jobs.iter().filter_map(over).collect();
        for job in &over[..over.len().saturating_sub(ENDED_JOBS)] {
            self.jobs.remove(job);
            self.control.forget(*job);
        }
    }

    /// Gives back the directory of a job that ended before it ran, once the driver has the directory again.
    fn give_back(&mut self, job: JobId) {
        let Some(record) = self.jobs.get_mut(&job) else { return };
        let (found, run) = (record.found, record.run.take());
        let Some(JobState::Ended(outcome)) = self.control.job_state(job) else { return };
        let ending = snapshot::ending(record, outcome);
        match run {
            Some(run) => {
                let lasting = self.config.resumes;
                self.disk.order(WriteCommand::GiveBack { job, run, found, lasting, ending });
            }
            None if !self.beginning.contains(&job) => self.end_noted(job),
            None => {}
        }
    }
}

/// A run that a cluster found at its start.
enum FoundRun {
    /// It continues, in its directory.
    Unfinished(Box<RunDir>),
    /// It is only shown.
    Ended(Ending),
}

/// Scans the runs, and claims the directories of those that continue.
fn find_runs(runs_dir: &Path, job_key: Option<&str>) -> Vec<(Found, FoundRun)> {
    failpoints::at("runs-before-scan");
    let scanned = scan(runs_dir).unwrap_or_else(|error| {
        warn!("the runs directory cannot be scanned: {error}");
        Scanned::default()
    });
    scanned.skipped.iter().for_each(|error| warn!("a run is skipped: {error}"));
    let claimed = |found: Found| match &found.record.state {
        RunState::Ended { outcome } if !is_to_be_served(&found, outcome, job_key) => {
            let ending = outcome.clone();
            Some((found, FoundRun::Ended(ending)))
        }
        _ => match RunDir::claim(&found.path, Existing::Resume) {
            Ok(run) => Some((found, FoundRun::Unfinished(Box::new(run)))),
            Err(error) => {
                warn!("an unfinished run is skipped: {error}");
                None
            }
        },
    };
    scanned.runs.into_iter().filter_map(claimed).collect()
}

/// Whether an ended run belongs to the job that this cluster must serve, and should be tried again.
fn is_to_be_served(found: &Found, ending: &Ending, job_key: Option<&str>) -> bool {
    let over = matches!(ending.exit_code, exit::DONE | exit::DIVERGED | exit::INTERRUPTED);
    !over && job_key == Some(&found.record.client_key)
}

/// The outcome of looking up a submission.
enum Submission {
    /// Submitted before, as this job.
    Known(String),
    /// Submitted before, and still being written.
    OnItsWay(JobId),
    New(Box<Job>),
}
