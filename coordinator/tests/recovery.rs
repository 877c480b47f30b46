//! Runs after a crash of the coordinator, and the runs of a cluster after its restart.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{JOB_SHA256, SHAPES, STEPS, Training, arithmetic, copy, job, names, receipt, row};
use millefeuille_coordinator::runs::history;
use millefeuille_coordinator::runs::record::{Ending, RunState};
use millefeuille_coordinator::runs::{
    Existing, Found, Resumed, RunDir, SavedRun, holds_a_run, names as files, scan,
};
use millefeuille_core::arithmetic::Arithmetic;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::Job;
use millefeuille_core::view::EpochRow;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

fn resume(path: &Path) -> Resumed {
    RunDir::claim(path, Existing::Resume).unwrap().resume(JOB_SHA256, &arithmetic(), SHAPES).unwrap()
}

fn refused(path: &Path) -> String {
    refused_to(path, JOB_SHA256, &arithmetic(), SHAPES)
}

fn refused_to(path: &Path, job_sha256: &str, arithmetic: &Arithmetic, shapes: &str) -> String {
    let error = RunDir::claim(path, Existing::Resume)
        .and_then(|mut run| run.resume(job_sha256, arithmetic, shapes))
        .unwrap_err()
        .to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

fn text(run: &Path, name: &str) -> String {
    fs::read_to_string(run.join(name)).unwrap()
}

fn without_times(events: &str) -> String {
    let kind = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        format!("{} {}\n", event["event"].as_str().unwrap(), event["text"].as_str().unwrap())
    };
    events.lines().map(kind).collect()
}

/// A run with checkpoints after 5 and 9 of its steps, of 4 an epoch, that died after 14.
fn died() -> (TempDir, PathBuf) {
    let place = TempDir::new().unwrap();
    let path = place.path().join("run");
    let mut training = Training::begin(&path);
    training.steps(5).save().steps(4).save().steps(5);
    (place, path)
}

#[test]
fn all_files_are_truncated_to_the_newest_checkpoint() {
    let (place, path) = died();
    let [history, ledger] = ["history.jsonl", "ledger"].map(|name| text(&path, name));
    for torn in ["history.jsonl", "events.jsonl", "ledger"] {
        let mut content = fs::read(path.join(torn)).unwrap();
        content.extend(b"{\"epoch\":4,\"lo");
        fs::write(path.join(torn), content).unwrap();
    }
    fs::write(path.join("checkpoints/.x.tmp"), "torn").unwrap();
    fs::write(path.join(".y.tmp"), "torn").unwrap();
    fs::write(path.join(files::MODEL), "of a later time").unwrap();

    let resumed = resume(&path);

    let checkpoint = resumed.checkpoint.unwrap();
    assert_eq!((checkpoint.position.epoch, checkpoint.position.step, checkpoint.parameter_tag), (2, 1, 9));
    let twin = place.path().join("twin");
    let mut undisturbed = Training::begin(&twin);
    undisturbed.steps(9);
    assert_eq!(checkpoint, undisturbed.checkpoint());
    assert_eq!(resumed.ledger.state(), undisturbed.ledger.state());
    for name in ["history.jsonl", "ledger"] {
        assert_eq!(text(&path, name), text(&twin, name), "{name}");
    }
    assert!(history.starts_with(&text(&path, "history.jsonl")) && ledger.starts_with(&text(&path, "ledger")));
    let events = without_times(&text(&path, "events.jsonl"));
    let said = events.strip_prefix(&without_times(&text(&twin, "events.jsonl"))).unwrap();
    assert_eq!(said, format!("resumed {}\n", resumed.text));
    for part in [
        "000000009.json, before step 2 of epoch 3",
        "2 lines of history.jsonl cut",
        "4 lines of ledger cut",
        "6 lines of events.jsonl cut",
    ] {
        assert!(resumed.text.contains(part), "{part}: {}", resumed.text);
    }
    assert!(!path.join(files::MODEL).exists());
    for directory in [&path, &path.join("checkpoints")] {
        assert!(names(directory).iter().all(|name| !name.ends_with(".tmp")));
    }
    assert_eq!(SavedRun::open(&path).unwrap().record().unwrap().state, RunState::Running);
}

#[test]
fn resuming_is_idempotent() {
    let (_place, path) = died();
    let first = resume(&path);
    let second = resume(&path);
    assert_eq!(first.checkpoint, second.checkpoint);
    assert!(second.text.contains("1 line of events.jsonl cut"), "{}", second.text);
    assert!(!second.text.contains("history") && !second.text.contains("ledger"), "{}", second.text);
}

#[test]
fn a_damaged_checkpoint_is_named_and_removed_and_the_one_before_it_used() {
    let (_place, path) = died();
    let damaged = path.join("checkpoints/000000009.json");
    let whole = fs::read(&damaged).unwrap();
    fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();

    let resumed = resume(&path);

    assert_eq!(resumed.checkpoint.unwrap().parameter_tag, 5);
    assert!(resumed.text.contains("000000005.json, before step 2 of epoch 2; not from "), "{}", resumed.text);
    assert!(resumed.text.contains("000000009.json: damaged"), "{}", resumed.text);
    assert_eq!(names(&path.join("checkpoints")), ["000000005.json", "000000005.safetensors"]);
    assert_eq!(text(&path, "history.jsonl"), history::to_line(&row(1)) + "\n");
}

#[test]
fn a_history_that_is_not_the_checkpoints_is_named_and_nothing_is_touched() {
    let (_place, path) = died();
    let file = path.join("history.jsonl");
    let whole = text(&path, "history.jsonl");
    let ledger = text(&path, "ledger");
    let with = |content: Option<String>| {
        content.map_or_else(|| fs::remove_file(&file).unwrap(), |content| fs::write(&file, content).unwrap());
        let error = refused(&path);
        assert_eq!(text(&path, "ledger"), ledger, "nothing is cut");
        error
    };
    let changed = with(Some(whole.replacen("\"seconds\":1", "\"seconds\":2", 1)));
    assert!(
        changed.contains("history.jsonl: its beginning is not what belongs to the checkpoint"),
        "{changed}"
    );
    let short = with(Some(whole.lines().next().unwrap().to_string() + "\n"));
    assert!(short.contains(" belong to the checkpoint (put the file back, or start over"), "{short}");
    let missing = with(None);
    assert!(missing.contains("history.jsonl: missing (put the file back, or start over"), "{missing}");

    fs::write(&file, whole).unwrap();
    assert_eq!(resume(&path).history.rows(), [row(1), row(2)]);
    assert_eq!(SavedRun::open(&path).unwrap().history().unwrap(), [row(1), row(2)]);
}

/// A manifest as format 1 had it: with every row of the history.
fn as_format_1(manifest: &str, rows: &[EpochRow]) -> String {
    let (body, _) = manifest.rsplit_once(",\n  \"sha256\"").unwrap();
    let mut content: serde_json::Value = serde_json::from_str(&format!("{body}}}")).unwrap();
    (content["format"], content["history"]) = (1.into(), serde_json::to_value(rows).unwrap());
    let text = serde_json::to_string_pretty(&content).unwrap();
    let body = text.strip_suffix("\n}").unwrap();
    format!("{body},\n  \"sha256\": \"{}\"\n}}\n", hex::encode(Sha256::digest(body)))
}

#[test]
fn a_checkpoint_of_the_older_format_is_resumed() {
    let (_place, path) = died();
    let manifest = path.join("checkpoints/000000009.json");
    let new = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, as_format_1(&new, &[row(1), row(2)])).unwrap();

    let resumed = resume(&path);

    assert!(resumed.text.contains("000000009.json, before step 2 of epoch 3"), "{}", resumed.text);
    assert_eq!(resumed.history.rows(), [row(1), row(2)]);
    assert_eq!(text(&path, "history.jsonl").lines().count(), 2);
}

#[test]
fn a_manifest_does_not_grow_with_the_history() {
    let place = tempfile::tempdir().unwrap();
    let mut training = Training::begin(&place.path().join("run"));
    let mut size = |epochs: u32| {
        training.steps(epochs * STEPS).save();
        let name = format!("run/checkpoints/{:09}.json", training.tag);
        fs::metadata(place.path().join(name)).unwrap().len()
    };
    let few = size(2);
    assert!(size(300) < few + 100, "{few} bytes after two epochs");
}

#[test]
fn a_run_whose_record_is_lost_is_resumed() {
    let (_place, path) = died();
    fs::remove_file(path.join("run.json")).unwrap();
    let run = RunDir::claim(&path, Existing::Resume).unwrap();
    assert_eq!(run.record().state, RunState::Running, "not to be begun anew");
    drop(run);
    assert_eq!(resume(&path).checkpoint.unwrap().parameter_tag, 9);
    assert_eq!(SavedRun::open(&path).unwrap().record().unwrap().state, RunState::Running);
}

#[test]
fn without_a_checkpoint_the_run_starts_over() {
    let place = TempDir::new().unwrap();
    let mut training = Training::begin(place.path());
    training.steps(6);
    drop(training);
    fs::create_dir(place.path().join("checkpoints")).unwrap();
    fs::write(place.path().join("checkpoints/000000005.safetensors"), "not finished").unwrap();

    let resumed = resume(place.path());

    assert!(resumed.checkpoint.is_none() && resumed.text.contains("from the beginning"), "{}", resumed.text);
    assert_eq!(text(place.path(), "ledger"), "millefeuille ledger 1\n");
    assert!(SavedRun::open(place.path()).unwrap().history().unwrap().is_empty());
    assert!(!place.path().join("checkpoints").exists());
    assert_eq!(text(place.path(), "events.jsonl").lines().count(), 1);
}

#[test]
fn a_run_that_starts_over_reports_what_is_discarded() {
    let (_place, path) = died();
    fs::remove_dir_all(path.join("checkpoints")).unwrap();
    let said = "from the beginning: there is no checkpoint; none was written yet, or they were removed; 3 lines of \
                history.jsonl cut; 9 lines of ledger cut; 14 lines of events.jsonl cut";
    // The record makes no difference.
    fs::remove_file(path.join("run.json")).unwrap();
    assert_eq!(resume(&path).text, said);
    assert_eq!(without_times(&text(&path, "events.jsonl")), format!("resumed {said}\n"));
    let again = resume(&path);
    assert_eq!(
        again.text, "from the beginning: there is no checkpoint; 1 line of events.jsonl cut",
        "nothing was computed"
    );
}

#[test]
fn an_unreadable_checkpoint_is_kept() {
    let (_place, path) = died();
    let newest = path.join("checkpoints/000000009.safetensors");
    fs::rename(&newest, path.join("aside")).unwrap();
    std::os::unix::fs::symlink(&newest, &newest).unwrap();
    assert!(refused(&path).contains("000000009.safetensors: cannot be read: "), "{}", refused(&path));
    fs::rename(path.join("aside"), &newest).unwrap();
    assert_eq!(resume(&path).checkpoint.unwrap().parameter_tag, 9);
}

#[test]
fn a_ledger_that_does_not_match_the_checkpoint_is_named() {
    let (_place, path) = died();
    let ledger = path.join("ledger");
    let whole = text(&path, "ledger");
    fs::write(&ledger, &whole[..50]).unwrap();
    assert!(refused(&path).contains("ledger: 50 bytes, but "), "{}", refused(&path));
    fs::write(&ledger, whole.replacen("train 0 20", "train 0 21", 1)).unwrap();
    assert!(refused(&path).contains("ledger: its beginning is not what belongs to the checkpoint"));
    fs::remove_file(&ledger).unwrap();
    assert!(refused(&path).contains("ledger: missing (put the file back, or start over with --overwrite)"));
}

#[test]
fn another_job_or_other_data_is_refused() {
    let (_place, path) = died();
    let error = refused_to(&path, "another", &arithmetic(), SHAPES);
    assert!(error.contains("000000009.json: a checkpoint of another job"), "{error}");
}

#[test]
fn another_arithmetic_is_refused_with_both_named_and_nothing_changed() {
    let (place, path) = died();
    let before = place.path().join("before");
    copy(&path, &before);
    let newer = Arithmetic { version: "0.3.99".into(), ..arithmetic() };
    let other = Arithmetic { fingerprint: "cd".repeat(32), ..arithmetic() };
    for (now, shapes, named) in [
        (&newer, SHAPES, ["OpenBLAS 0.3.21, fingerprint abab", "OpenBLAS 0.3.99"]),
        (&other, SHAPES, ["fingerprint abababababab", "fingerprint cdcdcdcdcdcd"]),
        (&arithmetic(), "others", ["fingerprint shapes over the job's shapes", "fingerprint others over"]),
    ] {
        let error = refused_to(&path, JOB_SHA256, now, shapes);
        assert!(named.iter().all(|named| error.contains(named)), "{error}");
        for part in ["000000009.json: ", "OpenBLAS 0.3.21 and its kernel Haswell", "--overwrite"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    for name in ["run.json", "history.jsonl", "ledger", "events.jsonl"] {
        assert_eq!(text(&path, name), text(&before, name), "{name}");
    }
    assert_eq!(names(&path.join("checkpoints")), names(&before.join("checkpoints")));
}

#[test]
fn a_run_directory_without_a_job_is_named() {
    let (_place, path) = died();
    fs::remove_file(path.join("job.toml")).unwrap();
    let said = "run: a run directory without a job: job.toml is missing";
    assert!(refused(&path).contains(said), "{}", refused(&path));
    assert!(SavedRun::open(&path).unwrap_err().to_string().contains(said));
    let scanned = scan(path.parent().unwrap()).unwrap();
    assert!(scanned.runs.is_empty());
    assert!(scanned.skipped[0].to_string().contains(said), "{:?}", scanned.skipped);
}

#[test]
fn a_second_process_is_told_who_has_locked_the_run_directory() {
    let place = TempDir::new().unwrap();
    let _training = Training::begin(place.path());
    for existing in [Existing::Refuse, Existing::Resume, Existing::Overwrite] {
        let error = RunDir::claim(place.path(), existing).unwrap_err().to_string();
        assert!(error.contains(&format!(":{} is using this run directory", std::process::id())), "{error}");
    }
}

/// Submits a job, of which nothing more happens.
fn submitted(runs: &Path, name: &str, number: u64) -> RunDir {
    let mut run = RunDir::claim(&runs.join(name), Existing::Refuse).unwrap();
    run.submit(&job(), number, &format!("key {number}")).unwrap();
    run
}

/// The end of a run whose data cannot be used.
fn failure(what: &str) -> Ending {
    Ending::of(Failure::new(FailureKind::Data, what))
}

#[test]
fn a_run_json_of_an_earlier_version_is_read() {
    let written = r#"{"exit_code":3,"message":"data: there is no such directory"}"#;
    let ending: Ending = serde_json::from_str(written).unwrap();
    assert_eq!((ending.exit_code, ending.failure), (3, None));
}

#[test]
fn a_cluster_that_starts_again_finds_its_runs_in_order() {
    let place = TempDir::new().unwrap();
    let runs = place.path();
    drop(submitted(runs, "waits", 12));
    let mut done = submitted(runs, "done", 3);
    done.begin(&job()).unwrap();
    done.append_history(&row(1)).unwrap();
    done.finish(&receipt(&[row(1)], &[])).unwrap();
    let mut works = submitted(runs, "works", 9);
    works.begin(&job()).unwrap();
    let mut failed = submitted(runs, "failed", 10);
    failed.end(failure("data: there is no such directory")).unwrap();
    // Killed between the receipt and the record.
    let mut nearly = submitted(runs, "nearly", 4);
    nearly.begin(&job()).unwrap();
    fs::write(runs.join("nearly/receipt.json"), "{}").unwrap();
    fs::create_dir(runs.join("notes")).unwrap();
    fs::write(runs.join("a file"), "").unwrap();

    let scanned = scan(runs).unwrap();

    assert!(scanned.skipped.is_empty(), "{:?}", scanned.skipped);
    let found: Vec<_> =
        scanned.runs.iter().map(|run| (&*run.id, run.record.number, run.record.state.clone())).collect();
    let ended = |outcome| RunState::Ended { outcome };
    assert_eq!(
        found,
        [
            ("done", 3, ended(Ending::done())),
            ("nearly", 4, ended(Ending::done())),
            ("works", 9, RunState::Running),
            ("failed", 10, ended(failure("data: there is no such directory"))),
            ("waits", 12, RunState::Queued),
        ]
    );
    assert_eq!((scanned.runs[0].epochs, scanned.runs[0].last.clone()), (1, Some(row(1))));
    assert_eq!((&scanned.runs[4].job, &*scanned.runs[4].record.client_key), (&job(), "key 12"));
    assert_eq!(scan(&runs.join("absent")).unwrap(), Default::default());
}

#[test]
fn a_receipt_takes_precedence_over_the_record() {
    let place = TempDir::new().unwrap();
    let mut run = submitted(place.path(), "stopped", 1);
    run.begin(&job()).unwrap();
    run.end(Ending::cancelled()).unwrap();
    let state = |runs: &Path| scan(runs).unwrap().runs.remove(0).record.state;
    assert_eq!(state(place.path()), RunState::Ended { outcome: Ending::cancelled() });
    fs::write(place.path().join("stopped/receipt.json"), "{}").unwrap();
    assert_eq!(state(place.path()), RunState::Ended { outcome: Ending::done() });
}

#[test]
fn a_job_that_changed_in_the_queue_is_named_and_not_trained() {
    let place = tempfile::tempdir().unwrap();
    drop(submitted(place.path(), "waits", 1));
    let file = place.path().join("waits/job.toml");
    let was = fs::read_to_string(&file).unwrap();

    for changed in [String::new(), was.replace("seed = ", "seed = 1")] {
        fs::write(&file, &changed).unwrap();
        let scanned = scan(place.path()).unwrap();
        assert!(scanned.runs.is_empty(), "{changed}");
        let said = scanned.skipped[0].to_string();
        assert!(said.contains("waits/job.toml: not the job that was submitted"), "{said}");
    }

    fs::write(&file, was).unwrap();
    assert_eq!(scan(place.path()).unwrap().runs.len(), 1);
}

#[test]
fn the_epochs_before_a_torn_line_are_read() {
    let (place, path) = died();
    let history = path.join("history.jsonl");
    let whole = fs::read(&history).unwrap();
    for torn in [&b"{\"epoch\":4,\"lo"[..], b"\xff\xfe\0"] {
        fs::write(&history, [&whole, torn].concat()).unwrap();
        let scanned = scan(place.path()).unwrap();
        assert_eq!((scanned.runs[0].epochs, scanned.runs[0].last.clone()), (3, Some(row(3))));
    }
}

#[test]
fn a_copy_of_an_unfinished_run_is_skipped_until_it_is_resumed_by_hand() {
    let (place, path) = died();
    let copied = place.path().join("copied");
    copy(&path, &copied);
    let scanned = scan(place.path()).unwrap();
    assert_eq!(scanned.runs.iter().map(|run| &*run.id).collect::<Vec<_>>(), ["run"]);
    let said = scanned.skipped[0].to_string();
    for part in ["copied: a copy of run, which is not finished", "remove the copy", "copied --resume"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(said.lines().count(), 1);

    assert_eq!(resume(&copied).checkpoint.unwrap().parameter_tag, 9);
    let scanned = scan(place.path()).unwrap();
    assert!(scanned.skipped.is_empty(), "{:?}", scanned.skipped);
    let mut keys: Vec<_> = scanned.runs.iter().map(|run| (&*run.id, &*run.record.client_key)).collect();
    keys.sort();
    assert_eq!(keys, [("copied", ""), ("run", "a key")], "a submission is one run's");
}

#[test]
fn a_run_has_the_name_of_its_directory_and_a_copy_of_one_that_ended_is_a_run_of_its_own() {
    let (place, path) = died();
    let [renamed, copied] = ["renamed", "copied"].map(|name| place.path().join(name));
    fs::rename(&path, &renamed).unwrap();
    let found = |runs: &Path| {
        let scanned = scan(runs).unwrap();
        assert!(scanned.skipped.is_empty(), "{:?}", scanned.skipped);
        let of_run = |run: Found| (run.id, run.record.client_key, run.record.state);
        let mut found: Vec<_> = scanned.runs.into_iter().map(of_run).collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    };
    let submission = |id: &str, key: &str, state: RunState| (id.to_string(), key.to_string(), state);
    assert_eq!(found(place.path()), [submission("renamed", "a key", RunState::Running)]);

    let mut run = RunDir::claim(&renamed, Existing::Resume).unwrap();
    assert_eq!((&*run.record().id, &*run.record().client_key), ("renamed", "a key"));
    run.end(Ending::cancelled()).unwrap();
    drop(run);
    copy(&renamed, &copied);
    let cancelled = RunState::Ended { outcome: Ending::cancelled() };
    let both = [submission("copied", "", cancelled.clone()), submission("renamed", "a key", cancelled)];
    assert_eq!(found(place.path()), both);
}

#[test]
fn a_run_found_waiting_begins_and_keeps_its_place() {
    let place = TempDir::new().unwrap();
    drop(submitted(place.path(), "waits", 12));
    let mut run = RunDir::claim(&place.path().join("waits"), Existing::Resume).unwrap();
    assert_eq!((run.record().number, &run.record().state), (12, &RunState::Queued));
    run.begin(&Job { seed: 1, ..job() }).unwrap();
    drop(run);
    let found = scan(place.path()).unwrap().runs.remove(0);
    assert_eq!((found.record.number, found.record.state, found.job.seed), (12, RunState::Running, 1));
}

#[test]
fn a_damaged_or_newer_record_is_named_and_not_changed() {
    let place = TempDir::new().unwrap();
    drop(submitted(place.path(), "one", 1));
    let path = place.path().join("one/run.json");
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let scanned = scan(place.path()).unwrap();
        assert!(scanned.runs.is_empty() && scanned.skipped.len() == 1, "{len} bytes");
        assert!(scanned.skipped[0].to_string().contains("one/run.json: "), "{:?}", scanned.skipped);
    }
    let error = RunDir::claim(&place.path().join("one"), Existing::Resume).unwrap_err().to_string();
    assert!(error.contains("one/run.json: damaged"), "{error}");
    RunDir::claim(&place.path().join("one"), Existing::Overwrite).unwrap().begin(&job()).unwrap();
    assert_eq!(scan(place.path()).unwrap().runs[0].record.state, RunState::Running);
}

#[test]
fn a_withdrawn_submission_leaves_no_files() {
    let place = TempDir::new().unwrap();
    submitted(place.path(), "one", 1).withdraw().unwrap();
    assert!(names(place.path()).is_empty());
    let mut begun = submitted(place.path(), "two", 2);
    begun.begin(&job()).unwrap();
    begun.withdraw().unwrap();
    assert!(holds_a_run(&place.path().join("two")), "what has begun stays");
}

#[test]
fn a_run_whose_beginning_cannot_be_written_leaves_no_files_when_it_is_withdrawn() {
    let place = TempDir::new().unwrap();
    let mut run = submitted(place.path(), "one", 1);
    let (record, aside) = (place.path().join("one/run.json"), place.path().join("one/aside"));
    // A directory that is not empty cannot be replaced by a file, as a full disk takes none.
    fs::rename(&record, &aside).unwrap();
    fs::create_dir_all(record.join("something")).unwrap();
    let error = run.begin(&job()).unwrap_err().to_string();
    assert!(error.contains("one/run.json: cannot be written: "), "{error}");
    fs::remove_dir_all(&record).unwrap();
    fs::rename(&aside, &record).unwrap();

    run.withdraw().unwrap();

    assert!(names(place.path()).is_empty(), "neither a ledger nor a job is left");
}

#[test]
fn a_submission_replaces_another_run_only_when_it_begins() {
    let (place, path) = died();
    let before = place.path().join("before");
    copy(&path, &before);
    for end in [|run: RunDir| run.withdraw().unwrap(), |mut run: RunDir| run.end(failure("no data")).unwrap()]
    {
        let mut run = RunDir::claim(&path, Existing::Overwrite).unwrap();
        run.submit(&Job { seed: 9, ..job() }, 8, "another").unwrap();
        end(run);
        for name in ["run.json", "job.toml", "history.jsonl", "ledger"] {
            assert_eq!(text(&path, name), text(&before, name), "{name}");
        }
    }
    let mut run = RunDir::claim(&path, Existing::Overwrite).unwrap();
    run.submit(&job(), 8, "another").unwrap();
    run.begin(&job()).unwrap();
    assert_eq!(names(&path), [".lock", "job.toml", "ledger", "run.json"]);
    assert_eq!((run.record().number, &*run.record().client_key), (8, "another"));
}

#[test]
fn a_submission_that_cannot_be_written_is_named_and_leaves_nothing() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("run");
    let mut run = RunDir::claim(&path, Existing::Refuse).unwrap();
    // Somebody has removed the directory in between.
    fs::remove_dir_all(&path).unwrap();
    let error = run.submit(&job(), 1, "").unwrap_err().to_string();
    assert!(error.contains("run: removed or replaced from outside"), "{error}");
    assert!(!path.exists());
}

#[test]
fn a_failed_append_leaves_the_file_unchanged() {
    let place = TempDir::new().unwrap();
    let mut training = Training::begin(place.path());
    fs::create_dir(place.path().join("history.jsonl")).unwrap();
    let error = training.run.append_history(&row(1)).unwrap_err().to_string();
    assert!(error.contains("history.jsonl: cannot be written: "), "{error}");
}
