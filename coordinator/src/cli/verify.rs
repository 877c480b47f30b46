//! `coordinator verify`: checks that a run is what it claims to be.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::Job;
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::work::Workload;
use millefeuille_program::kernel::{self, Unusable};
use millefeuille_program::machine::Cores;

use super::{Failed, Result, print};
use crate::cluster::load;
use crate::data::Reading;
use crate::init::{self, InitFile};
use crate::replay::{Replay, ReplayState};
use crate::runs::{SavedRun, names};
use crate::verify::{Evidence, Finding};

/// Verify a run: compare its files, its data and its plan, and compute the training again
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Compare files, data and plan only, without training
    #[arg(long, conflicts_with = "epoch")]
    quick: bool,
    /// Compute this epoch only (from 1), from the newest checkpoint before it
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    epoch: Option<u32>,
    /// The data's directory, if it has moved
    #[arg(long, value_name = "DIR", env = "MILLEFEUILLE_DATA")]
    data: Option<String>,
}

const EXAMPLES: &str = "Examples:
  coordinator verify runs/article-1
  coordinator verify runs/article-1 --quick
  coordinator verify runs/article-1 --epoch 5

Exit codes: 0 verified · 7 something differs: the first file, or the first epoch · 8 cannot be verified on this machine ·
3 something cannot be read, or the run is not finished (what there is was verified)";

impl From<Finding> for Failed {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Differs(what) => Self::new(FailureKind::Differs, what),
            Finding::CannotVerify(what) => Self::new(FailureKind::CannotCompute, what),
            Finding::Unreadable(failure) => failure.into(),
        }
    }
}

pub(super) fn run(args: Args) -> Result {
    let run = SavedRun::open(&args.run).map_err(Finding::from)?;
    let job = run.job().map_err(Finding::from)?;
    // The files of a finished run no longer change, even if its owner has not yet exited.
    if let Some(owner) = run.owner().filter(|_| !run.is_done()) {
        let (finished, all) = (run.whole_history()?.len(), job.fit.epochs);
        let what = format!("not finished: {finished} of {all} epochs; {owner} is using this run directory");
        return Err(Failure::at(FailureKind::InUse, args.run.display(), what).into());
    }
    // Before any output, because this may restart the process. A missing kernel is reported last.
    let kernel = if args.quick { Ok(()) } else { own_kernel(&run, &job) };
    let evidence = Evidence::read(&run)?;
    let epochs = asked_for(&args, &evidence)?;
    evidence.agrees_with_itself()?.iter().for_each(|line| say(line));
    let job = super::saved::with_data(job, args.data.as_deref())?;
    let mut dataset = crate::data::read_for(&job, None)?;
    let init = InitFile::read(&job, Some(&args.run.join(names::INIT)), &Reading::default())?;
    dataset.files.extend(init.as_ref().map(|init| init.file.clone()));
    let store = ShardStore::new(dataset, evidence.job.shards);
    say(&evidence.agrees_with_data(&store)?);
    let spec = load::spec(&evidence.job, &store);
    say(&evidence.ledger_agrees(&spec)?);
    if !args.quick {
        kernel?;
        compute_again(&args, &evidence, &store, &spec, init.as_ref(), epochs)?;
    }
    settle(&args, &evidence);
    finish(&args.run, &evidence)
}

/// The epochs to recompute, from 0, and whether to start from a checkpoint.
#[derive(Clone, Copy)]
enum Epochs {
    All,
    Only(u32),
}

fn asked_for(args: &Args, evidence: &Evidence) -> Result<Epochs> {
    let (finished, all) = (evidence.epochs(), evidence.job.fit.epochs);
    match args.epoch {
        None => Ok(Epochs::All),
        Some(epoch) if epoch > all => {
            Err(Failed::new(FailureKind::Usage, format!("--epoch {epoch}: the job has {all} epochs")))
        }
        Some(epoch) if epoch > finished => {
            let run = args.run.display();
            Err(Failed::new(
                FailureKind::Data,
                format!("{run}: not finished: {finished} of {all} epochs; there is no epoch {epoch} yet"),
            ))
        }
        Some(epoch) => Ok(Epochs::Only(epoch - 1)),
    }
}

/// Selects the kernel that computed the run, and no other.
fn own_kernel(run: &SavedRun, job: &Job) -> Result {
    let loaded = kernel::own_kernel(&job.blas_kernel, Cores::of_this_process().usable());
    loaded.map_err(|error| cannot_verify(run.path(), &error))
}

fn cannot_verify(run: &Path, error: &Unusable) -> Failed {
    let what = format!("{}: cannot be verified here: {error}", run.display());
    match error {
        Unusable::Unexpected(_) => Failed::new(FailureKind::Unexpected, what),
        _ => Failed::new(FailureKind::CannotCompute, what),
    }
}

fn compute_again(
    args: &Args,
    evidence: &Evidence,
    store: &ShardStore,
    spec: &Spec,
    init: Option<&InitFile>,
    epochs: Epochs,
) -> Result {
    let cores = Cores::of_this_process().usable();
    kernel::is_right_for(spec).map_err(|error| cannot_verify(&args.run, &error))?;
    let arithmetic = evidence.can_be_computed_here(spec)?;
    let workload = Workload::new(spec.clone());
    let (from, end) = match epochs {
        Epochs::All => (None, evidence.epochs()),
        Epochs::Only(epoch) => (evidence.before(epoch), epoch + 1),
    };
    let mut state = match from {
        Some(read) => evidence.state_at(read, &workload),
        None => {
            let parameters = init::parameters(&evidence.job, workload.model(), init)?;
            ReplayState::beginning(&evidence.job, &workload, parameters)
        }
    };
    let all = evidence.job.fit.epochs;
    let place = from.map_or_else(
        || "from its beginning".to_string(),
        |read| format!("from {}, {}", read.path.display(), read.checkpoint.place(all)),
    );
    say(&format!("computing again {place}: {arithmetic}, on {cores} cores"));
    let mut replay = Replay::new(store, &workload, cores);
    while state.epoch < end {
        let row = evidence.epoch_agrees(&mut replay, &mut state)?;
        say(&format!(
            "epoch {}/{all}: agrees, weights_sha256 {} ({:.1} s)",
            row.epoch, row.weights_sha256, row.seconds
        ));
    }
    Ok(())
}

/// Reports on evicted workers.
fn settle(args: &Args, evidence: &Evidence) {
    for suspect in evidence.receipt.iter().flat_map(|receipt| &receipt.suspects) {
        let (name, instance_id, steps) = (&suspect.name, &suspect.instance_id, &suspect.steps);
        let verdict = match (args.quick, args.epoch) {
            (false, None) => "right: all was computed again and agrees",
            _ => "not checked: run it without --quick and --epoch to compute the whole run again",
        };
        say(&format!(
            "{name} ({instance_id}) was evicted; the steps that it took part in ({steps}) are {verdict}"
        ));
    }
}

fn finish(run: &Path, evidence: &Evidence) -> Result {
    let run = run.display();
    if evidence.is_done() {
        say(&format!("verified: {run}"));
        return Ok(());
    }
    let (finished, all) = (evidence.epochs(), evidence.job.fit.epochs);
    Err(Failed::new(
        FailureKind::Data,
        format!("{run}: not finished: {finished} of {all} epochs; what there is agrees"),
    ))
}

fn say(line: &str) {
    print(&format!("{line}\n"));
}
