//! `coordinator verify`: an unchanged run is verified, and any change is named.

use std::fs;

use millefeuille_core::job::Job;
use millefeuille_tests::data::FILES;
use millefeuille_tests::home::Home;
use millefeuille_tests::process::{Signal, until};
use millefeuille_tests::run::Run;
use serde_json::{Value, json};

/// A small run in `run`.
fn trained() -> Home {
    let home = Home::new();
    home.small_job();
    home.coordinator("train small.toml --workers 2 --run-dir run").succeeds();
    home
}

fn edit(run: &Run, name: &str, change: impl Fn(&str) -> String) {
    let changed = change(&run.text(name));
    fs::write(run.path().join(name), changed).expect("files of a run can be written");
}

fn edit_receipt(run: &Run, change: impl Fn(&mut Value)) {
    let mut receipt = run.receipt();
    change(&mut receipt);
    edit(run, "receipt.json", |_| receipt.to_string());
    run.reseal();
}

/// Flips a bit of the model's last parameter.
fn change_model(run: &Run) {
    let mut model = run.bytes("model.safetensors");
    *model.last_mut().expect("a model has bytes") ^= 1;
    fs::write(run.path().join("model.safetensors"), model).expect("files of a run can be written");
}

#[test]
fn an_unchanged_run_is_verified() {
    let home = trained();
    let before = home.run("run").snapshot();

    let verified = home.coordinator("verify run").env("OPENBLAS_CORETYPE", "Nehalem").succeeds().stdout;

    for text in [
        "run.json: 11 files, each with the SHA-256 that it has there",
        "history.jsonl: 3 epochs",
        "model.safetensors: weights_sha256 ",
        "checkpoints: ",
        "job.toml and data: job_sha256 ",
        "ledger: in 3 epochs each sample was used exactly once",
        "computing again from its beginning",
        "epoch 1/3: agrees",
        "epoch 3/3: agrees",
        &home.run("run").hash(),
        "verified: run",
    ] {
        assert!(verified.contains(text), "{text}: {verified}");
    }
    assert_eq!(home.run("run").snapshot(), before, "nothing is written");
}

#[test]
fn quick_verification_trains_nothing() {
    let home = trained();

    let verified = home.coordinator("verify run --quick").succeeds().stdout;

    assert!(verified.contains("verified: run") && verified.contains("ledger: in 3 epochs"), "{verified}");
    assert!(!verified.contains("computing again"), "{verified}");
}

#[test]
fn one_epoch_is_computed_from_the_checkpoint_before_it() {
    let home = trained();

    let last = home.coordinator("verify run --epoch 3").succeeds().stdout;
    let first = home.coordinator("verify run --epoch 1").succeeds().stdout;

    assert!(last.contains("computing again from run/checkpoints/"), "{last}");
    assert!(last.contains("epoch 3/3: agrees") && !last.contains("epoch 1/3"), "{last}");
    assert!(first.contains("from its beginning") && first.contains("epoch 1/3: agrees"), "{first}");
    assert!(!first.contains("epoch 2/3"), "{first}");
    let beyond = home.coordinator("verify run --epoch 4").fails(2);
    assert!(beyond.contains("--epoch 4") && beyond.contains("3 epochs"), "{beyond}");
}

#[test]
fn a_changed_model_is_named() {
    let home = trained();
    change_model(&home.run("run"));

    for how in ["", "--quick"] {
        let error = home.coordinator(&format!("verify run {how}")).fails(7);
        assert!(error.contains("run/model.safetensors: not the file that the run wrote"), "{error}");
    }
    home.run("run").reseal();
    for how in ["", "--quick"] {
        let error = home.coordinator(&format!("verify run {how}")).fails(7);
        assert!(error.contains("run/model.safetensors: weights_sha256 is "), "{error}");
        assert!(error.contains(&home.run("run").hash()), "{error}");
    }
}

#[test]
fn whichever_file_was_changed_is_named() {
    let home = trained();
    let run = home.run("run");
    for (path, whole) in run.snapshot() {
        let name = path.strip_prefix(run.path()).unwrap().display().to_string();
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 4;
        fs::write(&path, changed).unwrap();

        let error = home.coordinator("verify run --quick").fails(7);

        assert!(error.contains(&format!("run/{name}: ")), "{name}: {error}");
        fs::write(&path, whole).unwrap();
    }
    home.coordinator("verify run --quick").succeeds();
}

#[test]
fn a_ledger_of_a_newer_version_is_no_difference() {
    let home = trained();
    edit(&home.run("run"), "ledger", |text| text.replacen("ledger 1", "ledger 2", 1));

    let error = home.coordinator("verify run").fails(3);

    assert!(error.contains("run/ledger: format 2 is newer than this program knows (1)"), "{error}");
}

#[test]
fn a_completely_rewritten_run_is_detected_at_its_epoch() {
    let home = trained();
    let run = home.run("run");
    let old = run.hash();
    change_model(&run);
    let new = run.hash_of_tensors(&["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"]);
    edit(&run, "history.jsonl", |text| text.replace(&old, &new));
    edit(&run, "receipt.json", |text| text.replace(&old, &new));
    fs::remove_dir_all(run.path().join("checkpoints")).unwrap();
    run.reseal();

    home.coordinator("verify run --quick").succeeds();
    let error = home.coordinator("verify run").fails(7);

    assert!(error.contains("epoch 3: weights_sha256 is ") && error.contains(&new), "{error}");
    assert!(error.contains(&format!("computed again {old}")), "{error}");
}

#[test]
fn a_changed_figure_is_detected_at_its_epoch() {
    let home = trained();
    let run = home.run("run");
    fs::remove_dir_all(run.path().join("checkpoints")).unwrap();
    let accuracy = run.history()[1]["test_accuracy"].to_string();
    edit(&run, "history.jsonl", |text| {
        text.replace(&format!("\"test_accuracy\":{accuracy}"), "\"test_accuracy\":0.99")
    });
    run.reseal();

    let error = home.coordinator("verify run").fails(7);

    assert!(error.contains("epoch 2: test_accuracy is 0.99, computed again "), "{error}");
}

#[test]
fn other_data_is_named_and_moved_data_is_accepted() {
    let home = trained();
    fs::rename(home.path("data"), home.path("moved")).unwrap();

    let gone = home.coordinator("verify run").fails(3);
    assert!(gone.contains("data") && gone.contains("--data"), "{gone}");
    home.coordinator("verify run --data moved").succeeds();

    let file = home.path("moved/t10k-labels-idx1-ubyte");
    let mut labels = fs::read(&file).unwrap();
    let last = labels.last_mut().unwrap();
    *last = (*last + 1) % 10;
    fs::write(&file, labels).unwrap();
    let error = home.coordinator("verify run --data moved --quick").fails(7);
    assert!(error.contains("run: data file t10k-labels-idx1-ubyte: SHA-256 is "), "{error}");
}

#[test]
fn a_line_missing_in_the_ledger_is_named() {
    let home = trained();
    let run = home.run("run");
    let lines: Vec<String> = run.text("ledger").split_inclusive('\n').map(str::to_string).collect();

    edit(&run, "ledger", |_| [&lines[..4], &lines[5..]].concat().concat());
    run.reseal();
    let missing = home.coordinator("verify run --quick").fails(7);
    assert!(missing.contains("run/ledger: line 5: ") && missing.contains("a line is missing"), "{missing}");

    edit(&run, "ledger", |_| lines[..lines.len() - 1].concat());
    run.reseal();
    let last = home.coordinator("verify run --quick").fails(7);
    assert!(last.contains("is missing: epoch 3, test, shard 7"), "{last}");
}

#[test]
fn another_arithmetic_is_no_difference() {
    let home = trained();
    let version = home.run("run").receipt_text("blas_version");
    edit_receipt(&home.run("run"), |receipt| receipt["blas_version"] = json!("0.1.99"));
    let quick = home.coordinator("verify run --quick").fails(7);
    assert!(quick.contains("run/receipt.json: kernel ") && quick.contains("OpenBLAS 0.1.99"), "{quick}");
    // Without checkpoints nothing else has the version, and this machine cannot tell.
    fs::remove_dir_all(home.path("run/checkpoints")).unwrap();

    let error = home.coordinator("verify run").fails(8);

    for text in ["run: cannot be verified here", "OpenBLAS 0.1.99", &format!("OpenBLAS {version}")] {
        assert!(error.contains(text), "{text}: {error}");
    }
    home.coordinator("verify run --quick").succeeds();
}

#[test]
fn a_kernel_that_this_machine_does_not_have_is_no_difference() {
    let home = trained();
    let run = home.run("run");
    let ours = run.receipt_text("blas_kernel");
    // As if a kernel of another machine had computed it.
    edit(&run, "job.toml", |text| text.replace(&ours, "Elsewhere"));
    let job = Job::parse("job.toml", &run.text("job.toml")).unwrap();
    let hashes = FILES.map(|name| run.receipt()["data_sha256"][name].as_str().unwrap().to_string());
    edit_receipt(&run, |receipt| {
        receipt["blas_kernel"] = json!("Elsewhere");
        receipt["job_sha256"] = json!(job.sha256(&hashes, "Elsewhere"));
    });
    fs::remove_dir_all(run.path().join("checkpoints")).unwrap();

    let error = home.coordinator("verify run").fails(8);

    for text in ["run: cannot be verified here", "\"Elsewhere\"", &ours] {
        assert!(error.contains(text), "{text}: {error}");
    }
    home.coordinator("verify run --quick").succeeds();
}

#[test]
fn suspect_steps_are_verified_by_recomputation() {
    let home = trained();
    edit_receipt(&home.run("run"), |receipt| {
        receipt["suspects"] = json!([{ "name": "host:7", "instance_id": "abc", "steps": "0–4, 9" }]);
    });

    let settled = home.coordinator("verify run").succeeds().stdout;
    assert!(
        settled.contains("host:7 (abc) was evicted; the steps that it took part in (0–4, 9) are right"),
        "{settled}"
    );
    let quick = home.coordinator("verify run --quick").succeeds().stdout;
    assert!(quick.contains("host:7 (abc)") && quick.contains("not checked"), "{quick}");
}

#[test]
fn an_unfinished_run_reports_its_last_epoch() {
    let home = Home::new();
    home.small_job();
    let mut train = home.coordinator("train small.toml --epochs 100000 --workers 2 --run-dir run").start();
    let run = home.run("run");
    until("two epochs are finished", || {
        (run.has("history.jsonl") && run.history_so_far() >= 2).then_some(())
    });

    let working = home.coordinator("verify run --quick").fails(3);
    assert!(
        working.contains("of 100000 epochs; process ") && working.contains("is using this run directory"),
        "{working}"
    );
    train.signal(Signal::KILL);
    train.wait();

    let ended = home.coordinator("verify run").run();
    let error = ended.error(3);
    assert!(
        error.contains("run: not finished: ") && error.contains(" of 100000 epochs; what there is agrees"),
        "{ended}"
    );
    assert!(ended.stdout.contains("epoch 2/100000: agrees"), "{ended}");
}

#[test]
fn a_receipt_is_written_completely_or_not_at_all() {
    for (point, code) in
        [("receipt-before-fsync", 3), ("receipt-before-rename", 3), ("receipt-after-rename", 0)]
    {
        let home = Home::new();
        home.small_job();

        let train = home.coordinator("train small.toml --workers 2 --run-dir run");
        let killed = train.env("FAILPOINTS", format!("{point}=return")).run();

        assert_eq!(killed.killed_by(), Some(Signal::ABORT.as_raw()), "{point}: {killed}");
        let verified = home.coordinator("verify run").run();
        assert_eq!(verified.code(), Some(code), "{point}: {verified}");
        let said = format!("{}{}", verified.stdout, verified.stderr);
        let expected = if code == 0 { "verified: run" } else { "not finished: 3 of 3 epochs" };
        assert!(said.contains(expected), "{point}: {verified}");
    }
}

#[test]
fn a_run_without_a_job_and_one_of_a_newer_version_are_named() {
    let home = trained();
    edit_receipt(&home.run("run"), |receipt| receipt["format"] = json!(7));
    let newer = home.coordinator("verify run").fails(3);
    assert!(newer.contains("run/receipt.json: format 7 is newer than this program knows (1)"), "{newer}");

    fs::remove_file(home.path("run/job.toml")).unwrap();
    let jobless = home.coordinator("verify run").fails(3);
    assert!(jobless.contains("run: a run directory without a job: job.toml is missing"), "{jobless}");
}
