//! How the driver handles jobs: submissions, loaded data, finished writes, ends.
//!
//! A submission is acknowledged once its run directory is on disk: the disk thread claims the directory and replies
//! with `Claimed`. From then on, [`Driver::find_runs`] finds the job after a crash, whether queued or running.

use std::cell::OnceCell;
use std::sync::Arc;

use millefeuille_core::control::{Event, JobId, JobState, Outcome, Start};
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::Job;
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
use crate::runs::{Ending, Existing, Found, RunDir, RunState, scan};

/// Number of ended jobs that are listed. Of older jobs only the run directories remain.
const ENDED_JOBS: usize = 1000;

impl Driver {
    /// Takes over the runs of an earlier coordinator process: queued and unfinished runs continue, ended ones are
    /// shown.
    pub(in crate::cluster) fn find_runs(&mut self) {
        if !self.config.resumes {
            return;
        }
        failpoints::at("runs-before-scan");
        let scanned = match scan(&self.config.runs_dir) {
            Ok(scanned) => scanned,
            Err(error) => return warn!("the runs directory cannot be scanned: {error}"),
        };
        scanned.skipped.iter().for_each(|error| warn!("a run is skipped: {error}"));
        for found in scanned.runs {
            self.find_run(found);
        }
        self.publish();
    }

    fn find_run(&mut self, found: Found) {
        let Found { id, path, job, record, history } = found;
        let ended = match record.state {
            RunState::Ended { outcome } if !self.is_to_be_served(&record.client_key, &outcome) => {
                Some(outcome)
            }
            RunState::Ended { .. } | RunState::Queued | RunState::Running => None,
        };
        let run = match ended {
            Some(_) => None,
            None => match RunDir::claim(&path, Existing::Resume) {
                Ok(run) => Some(run),
                Err(error) => return warn!("an unfinished run is skipped: {error}"),
            },
        };
        let number = self.submissions.at_least(record.number);
        let resumes = run.is_some();
        if resumes {
            info!("job {id} is resumed; its run directory is {}", path.display());
        }
        let run_dir = path.display().to_string();
        let client_key = record.client_key;
        let steps_per_epoch = 0;
        let record = JobRecord {
            id,
            job,
            client_key,
            found: true,
            run,
            run_dir,
            history: history.into(),
            steps_per_epoch,
            shown: Vec::new(),
            checkpoint: None,
            ended,
            frozen: OnceCell::new(),
        };
        self.jobs.insert(number, record);
        if resumes {
            self.handle(Event::Submit { job: number });
        }
    }

    /// Whether an ended run belongs to the job that this cluster must serve, and should be tried again.
    fn is_to_be_served(&self, client_key: &str, ending: &Ending) -> bool {
        let over = matches!(ending.exit_code, exit::DONE | exit::DIVERGED | exit::INTERRUPTED);
        !over && self.config.job_key.as_deref() == Some(client_key)
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
                let (id, run_dir) = (run.id(), run.path().display().to_string());
                info!("job {id} is queued; its run directory is {run_dir}");
                let record = JobRecord {
                    id: id.clone(),
                    job,
                    client_key,
                    found: false,
                    run: Some(run),
                    run_dir,
                    history: Arc::default(),
                    steps_per_epoch: 0,
                    shown: Vec::new(),
                    checkpoint: None,
                    ended: None,
                    frozen: OnceCell::new(),
                };
                self.jobs.insert(number, record);
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
        let found = if job_id.is_empty() {
            self.control.running()
        } else {
            self.jobs.iter().find(|(_, record)| record.id == job_id).map(|(&job, _)| job)
        };
        found.ok_or_else(|| snapshot::no_job(job_id, "no job runs"))
    }

    /// Starts to read a job's data.
    pub(super) fn load(&mut self, job: JobId) {
        let Some(record) = self.jobs.get(&job) else { return };
        let place = match self.readers.one_more(&record.job) {
            Ok(place) => place,
            Err(failure) => return self.happened.push_back(Event::Broken { job, failure }),
        };
        let reading = Arc::new(Reading::default());
        self.loading = Some(Loading { job, reading: Arc::clone(&reading) });
        let limit = self.config.control.stall_deadline;
        let (read, handle) = (load::read(record.job.clone(), reading, place, limit), self.handle.clone());
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
            store: Arc::clone(training.store()),
            pool: training.pool.clone(),
            parameter_slots: training.parameter_slots.clone(),
        })));
        record.job = training.job.clone();
        record.steps_per_epoch = facts.plan.steps();
        record.history = history.clone().into();
        if let Some(run) = record.run.take() {
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
        for (worker, member) in self.control.members() {
            let hello = &member.hello;
            self.event("joined", notes::joined(*worker, &hello.name, hello.slots), None);
        }
        let evicted = self.training.as_ref().map(Training::evicted).unwrap_or_default();
        self.handle(Event::Loaded { job, facts, from, evicted });
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

    pub(super) fn end_epoch(&mut self, job: JobId, epoch: u32) {
        let on = self.config.control.checkpoint_interval.is_some();
        let Some(training) = self.training.as_mut().filter(|_| self.control.running() == Some(job)) else {
            return;
        };
        let row = training.row(epoch);
        let ledger = training.end_epoch(epoch);
        let snapshot = training.snapshot(Start::of_epoch(epoch + 1, training.steps_taken()));
        self.disk.order(WriteCommand::Epoch { row, ledger, snapshot: Box::new(snapshot), checkpoint: on });
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
                Arc::make_mut(&mut record.history).push(row);
                self.handle(Event::EpochWritten { job });
            }
            Ok(Written::Checkpoint(checkpoint)) => {
                record.checkpoint = Some(checkpoint.tag);
                self.tally.wrote(&checkpoint);
                self.handle(Event::CheckpointWritten { job });
            }
            Ok(Written::Ended) => self.end_noted(job),
            Ok(Written::Result(shown)) => {
                record.shown = shown;
                self.handle(Event::Saved { job });
            }
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

    /// Forgets jobs that ended long ago. Their run directories remain.
    fn forget_old_jobs(&mut self) {
        let over = |(job, record): (&JobId, &JobRecord)| {
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
            Some(run) => self.disk.order(WriteCommand::GiveBack { job, run, found, ending }),
            None if !self.beginning.contains(&job) => self.end_noted(job),
            None => {}
        }
    }
}

/// The outcome of looking up a submission.
enum Submission {
    /// Submitted before, as this job.
    Known(String),
    /// Submitted before, and still being written.
    OnItsWay(JobId),
    New(Box<Job>),
}
