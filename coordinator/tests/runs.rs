//! Run directories: locks, files and errors.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::Training;
use millefeuille_coordinator::runs::{Ending, Existing, RunDir, RunState, SavedRun, model, names};
use millefeuille_core::data::inputs::Inputs;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::Job;
use millefeuille_core::learn::layers::Layer;
use millefeuille_core::learn::model::Model;
use millefeuille_core::view::EpochRow;
use tempfile::TempDir;

fn row(epoch: u64) -> EpochRow {
    EpochRow {
        epoch,
        loss: 0.1 + 0.2,
        accuracy: Some(1.0 / 3.0),
        test_loss: Some(1e-300),
        test_accuracy: Some(0.5),
        seconds: 1.25,
        weights_sha256: "ab".into(),
        ..EpochRow::default()
    }
}

fn begun(path: &Path) -> RunDir {
    let mut run = RunDir::claim(path, Existing::Refuse).expect("the directory is free");
    run.begin(&Job::default()).expect("the directory can be written");
    run
}

#[test]
fn a_run_keeps_its_job_and_its_history_exactly() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("run");
    let mut run = begun(&path);
    run.append_history(&row(1)).unwrap();
    run.append_history(&row(2)).unwrap();
    let saved = SavedRun::open(&path).unwrap();
    assert_eq!(saved.job().unwrap(), Job::default());
    assert_eq!(saved.history().unwrap(), [row(1), row(2)]);
    assert!(saved.receipt().unwrap().is_none());
}

#[test]
fn an_existing_run_is_refused_by_default() {
    let place = TempDir::new().unwrap();
    let mut run = begun(place.path());
    run.append_history(&row(1)).unwrap();
    drop(run);
    let refused = RunDir::claim(place.path(), Existing::Refuse).unwrap_err().to_string();
    assert!(refused.starts_with(&place.path().display().to_string()), "{refused}");
    assert!(refused.contains("there is a run already") && refused.contains("--overwrite"), "{refused}");

    drop(RunDir::claim(place.path(), Existing::Resume).unwrap());
    assert_eq!(SavedRun::open(place.path()).unwrap().history().unwrap().len(), 1, "nothing is lost");

    let mut run = RunDir::claim(place.path(), Existing::Overwrite).unwrap();
    assert_eq!(
        SavedRun::open(place.path()).unwrap().history().unwrap().len(),
        1,
        "it stays until another begins"
    );
    run.begin(&Job::default()).unwrap();
    assert!(SavedRun::open(place.path()).unwrap().history().unwrap().is_empty(), "the run is gone");
}

#[test]
fn overwriting_changes_only_the_run() {
    let place = TempDir::new().unwrap();
    drop(begun(place.path()));
    fs::write(place.path().join("notes.txt"), "mine").unwrap();
    drop(RunDir::claim(place.path(), Existing::Overwrite).unwrap());
    assert_eq!(fs::read_to_string(place.path().join("notes.txt")).unwrap(), "mine");
}

#[test]
fn a_second_owner_learns_who_the_first_is() {
    let place = TempDir::new().unwrap();
    let _run = begun(place.path());
    let refused = RunDir::claim(place.path(), Existing::Resume).unwrap_err().to_string();
    assert!(refused.contains(&format!(":{} is using this run directory", std::process::id())), "{refused}");
}

#[test]
fn a_removed_lock_file_allows_no_second_owner_and_stops_the_first() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("run");
    let mut training = Training::begin(&path);
    training.steps(1).save();
    let lock = path.join(".lock");
    let in_its_place: [&dyn Fn(); 2] = [&|| (), &|| fs::write(&lock, "process of another\n").unwrap()];
    for put in in_its_place {
        fs::remove_file(&lock).unwrap();
        put();
        let refused = RunDir::claim(&path, Existing::Resume).unwrap_err();
        assert!(refused.kind == FailureKind::InUse, "{refused}");
        let stopped = training.run.write_checkpoint(&training.checkpoint(), &common::model()).unwrap_err();
        assert_eq!(stopped.exit_code(), 3);
        assert!(stopped.to_string().contains("run/.lock: removed or replaced from outside"), "{stopped}");
        fs::write(&lock, "").unwrap();
    }
    drop(training);
    assert!(lock.exists(), "it is another's");
    RunDir::claim(&path, Existing::Resume).unwrap();
    assert!(!lock.exists());
}

#[test]
fn a_directory_that_is_removed_and_made_again_is_not_written_by_the_first_owner() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("run");
    let mut first = Training::begin(&path);
    first.steps(1).save();
    fs::remove_dir_all(&path).unwrap();
    let gone = first.run.write_checkpoint(&first.checkpoint(), &common::model()).unwrap_err().to_string();
    assert!(gone.contains("run: removed or replaced") && !path.exists(), "{gone}");

    let second = Training::begin(&path);
    assert!(first.run.write_checkpoint(&first.checkpoint(), &common::model()).is_err());
    drop(first);
    assert_eq!(common::names(&path), [".lock", "job.toml", "ledger", "run.json"]);
    assert!(RunDir::claim(&path, Existing::Resume).is_err(), "the second still owns it");
    drop(second);
}

#[test]
fn a_job_that_never_begins_leaves_no_files() {
    let place = TempDir::new().unwrap();
    let made = place.path().join("made");
    drop(RunDir::claim(&made, Existing::Refuse).unwrap());
    assert!(!made.exists());
    drop(RunDir::claim(place.path(), Existing::Refuse).unwrap());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "a directory that was there stays, empty");
}

#[test]
fn runs_are_numbered() {
    let place = TempDir::new().unwrap();
    let first = RunDir::claim_next(place.path(), "article", |_| false).unwrap();
    let second = RunDir::claim_next(place.path(), "article", |_| false).unwrap();
    let third = RunDir::claim_next(place.path(), "article", |id| id == "article-3").unwrap();
    assert_eq!([first.id(), second.id(), third.id()], ["article-1", "article-2", "article-4"]);
}

/// Runs this on so many threads at once.
fn at_once(threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(&work);
        }
    });
}

#[test]
fn a_directory_never_has_two_owners_while_its_lock_is_created_and_removed() {
    let (place, owners) = (TempDir::new().unwrap(), AtomicUsize::new(0));
    at_once(8, || {
        for _ in 0..300 {
            match RunDir::claim(place.path(), Existing::Resume) {
                Ok(run) => {
                    assert_eq!(owners.fetch_add(1, Ordering::SeqCst), 0, "another owner is there");
                    std::thread::yield_now();
                    owners.fetch_sub(1, Ordering::SeqCst);
                    drop(run);
                }
                Err(error) => assert!(error.to_string().contains("is using this run directory"), "{error}"),
            }
        }
    });
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn a_number_that_another_process_takes_meanwhile_is_skipped() {
    let (place, runs) = (TempDir::new().unwrap(), Mutex::new(Vec::new()));
    at_once(8, || {
        for _ in 0..20 {
            let run = RunDir::claim_next(place.path(), "article", |_| false).unwrap();
            runs.lock().unwrap().push(run);
        }
    });
    let mut ids: Vec<_> = runs.lock().unwrap().iter().map(RunDir::id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 160, "no id is given twice");
}

#[test]
fn a_job_with_a_receipt_stays_done() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("run");
    let mut run = begun(&path);
    run.finish(&common::receipt(&[], &[])).unwrap();
    run.end(Ending::cancelled()).unwrap();
    let done = RunState::Ended { outcome: Ending::done() };
    assert_eq!(run.record().state, done);
    assert_eq!(SavedRun::open(&path).unwrap().record().unwrap().state, done);
}

#[test]
fn a_directory_that_cannot_be_created_is_named() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = RunDir::claim(&file.join("run"), Existing::Refuse).unwrap_err().to_string();
    assert!(refused.contains("file/run: cannot be made"), "{refused}");
}

#[test]
fn a_directory_without_a_run_is_reported() {
    let place = TempDir::new().unwrap();
    let absent = SavedRun::open(&place.path().join("absent")).unwrap_err().to_string();
    assert!(absent.ends_with("absent: there is no such run directory"), "{absent}");
    let empty = SavedRun::open(place.path()).unwrap_err().to_string();
    assert!(empty.ends_with("not a run directory: it has no job.toml"), "{empty}");
}

#[test]
fn a_model_is_written_and_read_unchanged() {
    let job = Job::default();
    let shape = Model::new(784, &job.layers);
    let parameters = shape.initial_parameters(1);
    let bytes = model::encode(&parameters, &shape, &Inputs::default()).unwrap();
    assert_eq!(model::decode(&bytes, &shape).unwrap(), parameters);
}

/// A run that is done, with these bytes as its model.
fn done_with(path: &Path, model: &[u8]) -> SavedRun {
    let mut run = RunDir::claim(path, Existing::Overwrite).unwrap();
    run.begin(&Job::default()).unwrap();
    run.write(names::MODEL, model).unwrap();
    run.finish(&common::receipt(&[], &[])).unwrap();
    SavedRun::open(path).unwrap()
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_the_tensor_named() {
    let place = TempDir::new().unwrap();
    let (article, mut layers) = (Job::default(), Job::default().layers);
    if let Layer::Dense(dense) = &mut layers[0] {
        dense.units = 100;
    }
    let other = Model::new(784, &layers);
    let bytes = model::encode(&other.initial_parameters(1), &other, &Inputs::default()).unwrap();
    let misfit = done_with(place.path(), &bytes).trained(&article).unwrap_err().to_string();
    assert!(misfit.contains("model.safetensors: does not fit"), "{misfit}");
    assert!(misfit.contains("dense/kernel is F32 [784, 100], not F32 [784, 256]"), "{misfit}");

    let torn = done_with(place.path(), &bytes[..bytes.len() / 2]);
    let damaged = torn.trained(&article).unwrap_err().to_string();
    assert!(damaged.contains("model.safetensors: not a safetensors file"), "{damaged}");
}

/// A safetensors file with the shape that somebody made up for a tensor with nothing in it.
fn of_shape(shape: &str) -> Vec<u8> {
    let header =
        format!(r#"{{"dense/kernel":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}"#).into_bytes();
    [&(header.len() as u64).to_le_bytes()[..], &header].concat()
}

#[test]
fn a_fabricated_shape_is_refused_without_allocating_memory() {
    let place = TempDir::new().unwrap();
    let job = Job::default();
    for (shape, what) in [
        ("[1099511627776, 0]", "dense/kernel is [1099511627776, 0]: 1099511627776 rows are too many"),
        ("[4294967295, 0]", "dense/kernel is [4294967295, 0]: "),
        ("[2000000, 0]", "parameters are too many"),
        ("[0, 256]", "dense/kernel is empty"),
    ] {
        let misfit = done_with(place.path(), &of_shape(shape)).trained(&job).unwrap_err();
        assert!(misfit.kind == FailureKind::Damaged && misfit.to_string().contains(what), "{misfit}");
        assert!(
            misfit.to_string().contains("model.safetensors: does not fit the run's job.toml"),
            "{misfit}"
        );
    }
    // As large as a model may be, and still nothing of it is there.
    let bytes = of_shape("[900000, 0]");
    assert_eq!(model::inputs(&bytes, &job), Ok(900_000));
    let misfit = model::decode(&bytes, &Model::new(900_000, &job.layers)).unwrap_err();
    assert!(misfit.contains("dense/kernel is F32 [900000, 0], not F32 [900000, 256]"), "{misfit}");
}

#[test]
fn a_model_that_is_not_the_receipts_is_refused() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("run");
    let shape = Model::new(784, &Job::default().layers);
    let parameters = shape.initial_parameters(1);
    let bytes = model::encode(&parameters, &shape, &Inputs::default()).unwrap();
    let refused = |run: &SavedRun| run.trained(&Job::default()).unwrap_err();

    let others = refused(&done_with(&path, &bytes));
    assert_eq!((others.kind, others.exit_code()), (FailureKind::Differs, 7));
    assert!(others.to_string().contains("run/model.safetensors: weights_sha256 is "), "{others}");

    // Every second number negated, the shape as before.
    let mut changed = bytes;
    let len = changed.len();
    changed[len - 400..].chunks_mut(8).for_each(|pair| pair[3] ^= 0x80);
    fs::write(path.join(names::MODEL), changed).unwrap();
    let changed = refused(&SavedRun::open(&path).unwrap());
    assert_eq!(changed.kind, FailureKind::Differs);
    assert!(
        changed.to_string().contains("run/model.safetensors: not the file that the run wrote"),
        "{changed}"
    );
}

#[test]
fn a_run_that_is_not_done_says_why_and_what_to_do() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("run");
    let shape = Model::new(784, &Job::default().layers);
    let why = || SavedRun::open(&path).unwrap().trained(&Job::default()).unwrap_err();
    let mut run = begun(&path);
    // As a crash may leave it: a model without a receipt is no result.
    let bytes = model::encode(&shape.initial_parameters(1), &shape, &Inputs::default()).unwrap();
    run.write(names::MODEL, &bytes).unwrap();
    assert!(why().to_string().contains("is using this run directory (wait until it has ended)"), "{}", why());

    run.end(Ending::cancelled()).unwrap();
    drop(run);
    let resume = format!("coordinator train --run-dir {} --resume finishes it", path.display());
    assert!(why().to_string().contains(&resume) && why().to_string().contains("--checkpoint"), "{}", why());

    let diverged = Failure::new(FailureKind::Diverged, "training diverged: the loss is not finite");
    RunDir::claim(&path, Existing::Resume).unwrap().end(Ending::of(diverged)).unwrap();
    assert_eq!(why().exit_code(), 6);
    for part in ["run: training diverged", "smaller --learning-rate"] {
        assert!(why().to_string().contains(part) && !why().to_string().contains("--resume"), "{}", why());
    }

    RunDir::claim(&path, Existing::Resume).unwrap().end(Ending::done()).unwrap();
    assert!(why().to_string().contains("receipt.json is missing, though the job is done"), "{}", why());
}

/// A change of a file from outside, and how the error describes it.
type Change = (&'static str, fn(&Path));

const CHANGES: [Change; 5] = [
    ("removed", |file| fs::remove_file(file).unwrap()),
    ("changed from ", |file| fs::File::options().write(true).open(file).unwrap().set_len(0).unwrap()),
    ("changed from ", |file| fs::write(file, [&fs::read(file).unwrap()[..], b"more"].concat()).unwrap()),
    ("replaced", |file| {
        let copy = file.with_extension("copy");
        fs::copy(file, &copy).unwrap();
        fs::rename(copy, file).unwrap();
    }),
    ("changed from outside", |file| {
        let mut content = fs::read(file).unwrap();
        content[0] ^= 1;
        fs::write(file, content).unwrap();
    }),
];

#[test]
fn a_file_that_is_changed_from_outside_ends_the_run_without_a_receipt() {
    for name in [names::JOB, names::RECORD, names::HISTORY, names::LEDGER, "events.jsonl"] {
        for (says, change) in CHANGES {
            let place = TempDir::new().unwrap();
            let path = place.path().join("run");
            let mut training = Training::begin(&path);
            training.steps(5).save();
            change(&path.join(name));

            let checkpoint = training.run.write_checkpoint(&training.checkpoint(), &common::model());
            let receipt = training.run.finish(&common::receipt(&training.history, &[])).unwrap_err();

            // Only the content of a file that keeps its length is not looked at before the end.
            assert_eq!(checkpoint.is_err(), says != "changed from outside", "{name}: {checkpoint:?}");
            for failure in checkpoint.err().iter().chain([&receipt]) {
                let named = failure.to_string().contains(&format!("run/{name}: {says}"));
                assert!(named && failure.exit_code() == 3, "{name}: {failure}");
            }
            assert!(!path.join(names::RECEIPT).exists());
        }
    }
}

#[test]
fn the_files_of_a_resumed_run_are_checked_too() {
    let place = TempDir::new().unwrap();
    let mut training = Training::begin(place.path());
    training.steps(5).save();
    let checkpoint = training.checkpoint();
    drop(training);
    let mut run = RunDir::claim(place.path(), Existing::Resume).unwrap();
    run.resume(common::JOB_SHA256, &common::arithmetic(), common::SHAPES).unwrap();
    run.append_history(&row(2)).unwrap();
    run.write_checkpoint(&checkpoint, &common::model()).unwrap();

    fs::remove_file(place.path().join(names::HISTORY)).unwrap();

    let error = run.append_history(&row(3)).unwrap_err().to_string();
    assert!(error.contains("history.jsonl: removed from outside"), "{error}");
}

#[test]
fn no_event_is_appended_to_a_finished_run() {
    let place = TempDir::new().unwrap();
    let mut run = begun(place.path());
    run.finish(&common::receipt(&[], &[])).unwrap();
    let before = fs::read(place.path().join("events.jsonl")).unwrap();

    run.event("joined", "a worker").unwrap();

    assert_eq!(fs::read(place.path().join("events.jsonl")).unwrap(), before);
    assert!(String::from_utf8(before).unwrap().contains("\"event\":\"end\""));
    drop(run);
    assert!(!place.path().join(".lock").exists());
}

#[test]
fn a_line_of_history_that_is_damaged_is_named() {
    let place = TempDir::new().unwrap();
    let mut run = begun(place.path());
    run.append_history(&row(1)).unwrap();
    run.append_history(&row(2)).unwrap();
    let path = place.path().join("history.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 20]).unwrap();
    let damaged = SavedRun::open(place.path()).unwrap().history().unwrap_err().to_string();
    assert!(damaged.contains("history.jsonl: line 2: "), "{damaged}");
}
