//! Resuming after a crash: the newest whole checkpoint is used, and the other files are cut back to match it.
//!
//! Each step can be interrupted and repeated: nothing that the checkpoint needs is removed, and the checkpoint itself
//! is not changed.

use std::path::Path;

use millefeuille_core::arithmetic::Arithmetic;
use millefeuille_core::control::Start;
use millefeuille_core::failure::Failure;
use millefeuille_core::job::Job;

use super::arithmetic::{described, described_shapes};
use super::checkpoint::{Checkpoint, Damaged, Newest, Read};
use super::directory::RunDir;
use super::history::History;
use super::ledger::{self, Ledger};
use super::receipt::Grown;
use super::record::RunState;
use super::saved::{SavedRun, without_a_job};
use super::{BEST, CHECKPOINTS, EVENTS, HISTORY, INIT, JOB, LEDGER, files, of_run};

/// The state from which a run is resumed.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// The checkpoint; `None` if the run starts over because it never wrote one.
    pub checkpoint: Option<Checkpoint>,
    /// The history so far.
    pub history: History,
    /// The ledger so far.
    pub ledger: Ledger,
    /// The text for `events.jsonl`: which checkpoint, what was damaged, what was cut.
    pub text: String,
}

impl RunDir {
    /// Resumes the run in this directory. `job_sha256` is the hash of its job with the data as it is now;
    /// `arithmetic` and `shapes_fingerprint` are those that compute the job from now on.
    ///
    /// # Errors
    /// If the run has no job, or a different one; if another arithmetic computed it so far; if it has checkpoints and
    /// none is whole, or one can't be read; if the history or the ledger does not match the checkpoint; if something can't be
    /// written.
    pub fn resume(
        &mut self,
        job_sha256: &str,
        arithmetic: &Arithmetic,
        shapes_fingerprint: &str,
    ) -> Result<Resumed, Failure> {
        if !self.file(JOB).is_file() {
            return Err(without_a_job(self.path()));
        }
        let job = SavedRun::open(self.path())?.job()?;
        let resumed = match self.checkpoints().newest(&job)? {
            None => {
                self.record().check(self.path(), &job)?;
                self.over_again()?
            }
            Some(newest) => {
                let Read { path, checkpoint, .. } = &newest.read;
                // With another arithmetic, the kernel's name in the job's hash may differ too, so the arithmetic is
                // compared first. The shapes are the job's, and can only be compared for the same job.
                same_arithmetic(path, checkpoint, arithmetic)?;
                let grown = |grown: &Grown| grown.job_sha256 == checkpoint.job_sha256;
                if !self.record().grown_from.iter().any(grown) {
                    same_job(path, checkpoint, job_sha256)?;
                }
                same_shapes(path, checkpoint, shapes_fingerprint)?;
                self.back_to(newest, &job)?
            }
        };
        for name in [JOB, HISTORY, LEDGER, EVENTS, BEST, INIT] {
            self.kept.adopt(name)?;
        }
        self.event("resumed", &resumed.text)?;
        files::sync(&self.file(EVENTS))?;
        Ok(resumed)
    }

    fn over_again(&mut self) -> Result<Resumed, Failure> {
        let text = format!("from the beginning: there is no checkpoint{}", self.thrown_away()?);
        self.clear_result()?;
        for name in [HISTORY, LEDGER, EVENTS, BEST] {
            self.kept.remove(name)?;
        }
        self.kept.remove_directory(CHECKPOINTS)?;
        self.start_over()?;
        Ok(Resumed { checkpoint: None, history: History::default(), ledger: Ledger::default(), text })
    }

    /// Describes what a run that starts over loses: little if checkpoints are far apart, everything if somebody has
    /// removed them.
    fn thrown_away(&self) -> Result<String, Failure> {
        let header = ledger::header().len();
        let lost = |name, kept: usize| -> Result<Option<String>, Failure> {
            let there = files::read(&self.file(name))?.unwrap_or_default();
            Ok((there.len() > kept).then(|| difference(name, &there, kept)))
        };
        let cuts = [lost(HISTORY, 0)?, lost(LEDGER, header)?, lost(EVENTS, 0)?];
        let worth = cuts[..2].iter().any(Option::is_some);
        let cause = if worth { "; none was written yet, or they were removed" } else { "" };
        Ok(format!("{cause}{}", listed_cuts(cuts)))
    }

    fn back_to(&mut self, newest: Newest, job: &Job) -> Result<Resumed, Failure> {
        let Newest { read: Read { path, checkpoint, events_bytes }, damaged } = newest;
        // Both are checked before either is cut.
        let (history, ledger) = (self.history_of(&checkpoint)?, self.ledger_of(&checkpoint)?);
        let cut = [
            self.cut(HISTORY, checkpoint.history.bytes)?,
            self.cut(LEDGER, checkpoint.ledger.bytes)?,
            self.cut_events(events_bytes)?,
        ];
        self.clear_result()?;
        self.checkpoints().remove_newer_than(checkpoint.parameter_tag)?;
        self.enter(RunState::Running)?;
        let place = checkpoint.place(job.fit.epochs);
        let text = format!("from {}, {place}{}{}", path.display(), listed(&damaged), listed_cuts(cut));
        Ok(Resumed { checkpoint: Some(checkpoint), history, ledger, text })
    }

    fn history_of(&self, checkpoint: &Checkpoint) -> Result<History, Failure> {
        let state = &checkpoint.history;
        let path = self.file(HISTORY);
        let there = match files::read(&path)? {
            None if state.bytes > 0 => return Err(wrong_file(&path, "missing")),
            there => there.unwrap_or_default(),
        };
        History::restore(state, &there).map_err(|what| wrong_file(&path, &what))
    }

    fn ledger_of(&self, checkpoint: &Checkpoint) -> Result<Ledger, Failure> {
        let path = self.file(LEDGER);
        let there = files::read(&path)?.ok_or_else(|| wrong_file(&path, "missing"))?;
        Ledger::restore(&checkpoint.ledger, &there).map_err(|what| wrong_file(&path, &what))
    }

    /// Cuts a file, which has at least this many bytes.
    fn cut(&self, name: &str, bytes: u64) -> Result<Option<String>, Failure> {
        let path = self.file(name);
        let there = files::read(&path)?.unwrap_or_default();
        if there.len() as u64 == bytes {
            return Ok(None);
        }
        files::cut(&path, bytes)?;
        Ok(Some(difference(name, &there, bytes as usize)))
    }

    fn cut_events(&self, bytes: u64) -> Result<Option<String>, Failure> {
        let there = files::read(&self.file(EVENTS))?.unwrap_or_default();
        let belongs = &there[..there.len().min(bytes as usize)];
        // Events are only informative: if some are lost, the remaining whole lines stay.
        let whole = belongs.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if whole == there.len() {
            return Ok(None);
        }
        files::cut(&self.file(EVENTS), whole as u64)?;
        Ok(Some(difference(EVENTS, &there, whole)))
    }
}

fn same_job(path: &Path, checkpoint: &Checkpoint, now: &str) -> Result<(), Failure> {
    let then = &checkpoint.job_sha256;
    if then == now {
        return Ok(());
    }
    let what = format!(
        "a checkpoint of another job: job_sha256 was {then} and is now {now}; the data or {JOB} has changed since (put \
         it back, or start over with --overwrite)"
    );
    Err(of_run(path, what))
}

fn same_arithmetic(path: &Path, checkpoint: &Checkpoint, now: &Arithmetic) -> Result<(), Failure> {
    let then = &checkpoint.arithmetic;
    if (&then.version, &then.fingerprint) == (&now.version, &now.fingerprint) {
        return Ok(());
    }
    Err(computed_otherwise(path, then, &described(then), &described(now)))
}

fn same_shapes(path: &Path, checkpoint: &Checkpoint, now: &str) -> Result<(), Failure> {
    let then = &checkpoint.shapes_fingerprint;
    if then == now {
        return Ok(());
    }
    Err(computed_otherwise(path, &checkpoint.arithmetic, &described_shapes(then), &described_shapes(now)))
}

/// The failure if the rest of the run would be computed with different bits.
fn computed_otherwise(path: &Path, needed: &Arithmetic, then: &str, now: &str) -> Failure {
    let Arithmetic { kernel, version, .. } = needed;
    let what = format!(
        "computed with a different BLAS kernel: it was {then}, and here it is {now} (resume on a machine with OpenBLAS \
         {version} and its kernel {kernel}, with the same variables of OpenBLAS in the environment if the job began \
         with --blas-kernel environment; or start over with --overwrite)"
    );
    of_run(path, what)
}

fn wrong_file(path: &Path, what: &str) -> Failure {
    of_run(path, format!("{what} (put the file back, or start over with --overwrite)"))
}

/// Describes how a file is cut.
fn difference(name: &str, there: &[u8], kept: usize) -> String {
    let cut = there.get(kept..).unwrap_or_default();
    let lines = cut.split_inclusive(|&byte| byte == b'\n').count();
    format!("{lines} {} of {name} cut", if lines == 1 { "line" } else { "lines" })
}

fn listed(damaged: &[Damaged]) -> String {
    let one = |damaged: &Damaged| format!("; not from {damaged}");
    damaged.iter().map(one).collect()
}

fn listed_cuts(cuts: [Option<String>; 3]) -> String {
    cuts.iter().flatten().map(|cut| format!("; {cut}")).collect()
}

impl Resumed {
    /// Where the job continues.
    pub fn start(&self) -> Start {
        let start = |checkpoint: &Checkpoint| Start {
            position: checkpoint.position,
            parameter_tag: checkpoint.parameter_tag,
        };
        self.checkpoint.as_ref().map_or(Start::BEGINNING, start)
    }
}
