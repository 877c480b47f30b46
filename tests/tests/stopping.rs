//! Jobs that stop before their last epoch, and runs that are continued to more epochs than they had.

use millefeuille_tests::data::SMALL_JOB;
use millefeuille_tests::home::Home;
use millefeuille_tests::process::Signal;
use millefeuille_tests::rpc::Client;

const STOPS: &str =
    "\n[fit.early_stopping]\nmonitor = \"val_loss\"\npatience = 2\nmin_delta = 0.05\nrestore_best = true\n";

/// A job of at most 60 epochs that no longer improves by so much long before.
fn stopping_job(home: &Home) {
    home.small_data("data");
    home.write("stops.toml", SMALL_JOB.replace("epochs = 3", "epochs = 60") + STOPS);
}

#[test]
fn a_job_stops_where_its_figure_no_longer_improves_and_restores_the_best_epoch() {
    let home = Home::new();
    stopping_job(&home);
    let train = "train stops.toml --scale 1/255 --learning-rate 0.5";

    let told = home.coordinator(&format!("{train} --run-dir one --workers 1")).succeeds();

    let run = home.run("one");
    let (epochs, receipt) = (run.history().len(), run.receipt());
    assert!((3..60).contains(&epochs), "{epochs} epochs");
    let stopped = receipt["stopped"].as_str().unwrap();
    assert!(
        stopped.starts_with(&format!("stopped after epoch {epochs}: val_loss was best in epoch")),
        "{stopped}"
    );
    assert!(told.stdout.contains(stopped), "{told}");
    assert_eq!(run.told("stopped"), [format!("training is {stopped}")]);
    assert!(run.text("ledger").contains(&format!("\n{epochs} stop {stopped} ")));
    let best = receipt["restored_epoch"].as_u64().unwrap() as usize;
    assert!(best < epochs);
    assert_eq!(receipt["weights_sha256"], run.history()[best - 1]["weights_sha256"]);
    assert!(told.stdout.contains(&run.hash()), "{told}");
    assert_eq!(run.bytes("best.safetensors"), run.bytes("model.safetensors"));
    home.coordinator("verify one").succeeds();
    home.coordinator("evaluate one").succeeds();

    // A coordinator that is killed comes to the same decision, also right after the last epoch.
    for at in [2, epochs] {
        let dies = format!("{train} --run-dir dies-{at} --workers 2");
        let mut killed = home.coordinator(&format!("{dies} --checkpoint-interval 0.02")).start();
        killed.says(&format!("Epoch {at}/"));
        killed.signal(Signal::KILL);
        killed.wait();
        home.coordinator(&format!("{dies} --resume")).succeeds();
        let run = home.run(&format!("dies-{at}"));
        assert_eq!(
            (run.hash(), run.text("ledger")),
            (home.run("one").hash(), home.run("one").text("ledger"))
        );
        home.coordinator(&format!("verify dies-{at}")).succeeds();
    }
}

#[test]
fn a_cluster_that_starts_again_shows_the_weights_that_were_restored() {
    let home = Home::new();
    stopping_job(&home);
    let mut cluster = home.cluster("");
    let _worker = cluster.joined_by("");
    cluster.coordinator("train stops.toml --scale 1/255 --learning-rate 0.5").succeeds();
    let run = home.run("runs/small-1");
    assert_ne!(run.history().last().unwrap()["weights_sha256"], run.hash(), "another epoch was better");
    let shown = |client: &Client| {
        let last = client.watch_job("small-1").pop().expect("the job is known");
        last.outcome.expect("it has ended").weights_sha256
    };
    assert_eq!(shown(&cluster.client()), run.hash());
    cluster.is_killed();
    cluster.comes_back("");
    assert_eq!(shown(&cluster.client()), run.hash());
}

#[test]
fn a_job_stops_once_a_figure_is_good_enough() {
    let home = Home::new();
    home.small_job();
    let goal = "--set fit.stop_at={metric='accuracy',value=0.5}";
    let train = format!("train small.toml --epochs 40 --scale 1/255 --learning-rate 0.5 {goal}");

    home.coordinator(&format!("{train} --run-dir run --workers 2")).succeeds();

    let (history, stopped) = (home.run("run").figures("accuracy"), home.run("run").receipt_text("stopped"));
    assert!(history.len() < 40 && *history.last().unwrap() >= 0.5, "{history:?}");
    assert!(history[..history.len() - 1].iter().all(|accuracy| *accuracy < 0.5), "{history:?}");
    assert!(stopped.contains("accuracy is 0."), "{stopped}");
    assert!(!home.run("run").has("best.safetensors"));
    home.coordinator("verify run").succeeds();
}

#[test]
fn a_finished_run_is_continued_to_more_epochs_with_the_bits_of_a_longer_run() {
    let home = Home::new();
    home.small_job();
    let train = |epochs: u32, more: &str| format!("train small.toml --scale 1/255 --epochs {epochs} {more}");
    home.coordinator(&train(8, "--run-dir long --workers 1")).succeeds();
    home.coordinator(&train(3, "--run-dir grows --workers 2")).succeeds();
    let before = home.run("grows").receipt_text("job_sha256");

    home.coordinator(&train(8, "--run-dir grows --workers 2 --resume")).succeeds();

    let (long, grown) = (home.run("long"), home.run("grows"));
    assert_eq!(grown.hash(), long.hash());
    assert_eq!(grown.receipt_text("job_sha256"), long.receipt_text("job_sha256"));
    assert_eq!(grown.receipt()["epoch_weights_sha256"], long.receipt()["epoch_weights_sha256"]);
    assert_eq!(grown.receipt()["grown_from"], serde_json::json!([{ "epochs": 3, "job_sha256": before }]));
    assert_eq!(grown.text("ledger"), long.text("ledger"));
    assert_eq!(grown.text("job.toml"), long.text("job.toml"));
    home.coordinator("verify grows").succeeds();

    // Without a job file too, and after a crash; fewer epochs, or another change, are another job.
    let mut killed =
        home.coordinator("train --run-dir grows --resume --epochs 14 --checkpoint-interval 0.02").start();
    killed.says("Epoch 10/");
    killed.signal(Signal::KILL);
    killed.wait();
    home.coordinator("train --run-dir grows --resume").succeeds();
    home.coordinator(&train(14, "--run-dir longer --workers 1")).succeeds();
    assert_eq!(home.run("grows").hash(), home.run("longer").hash());
    assert_eq!(home.run("grows").receipt()["grown_from"].as_array().unwrap().len(), 2);
    home.coordinator("verify grows").succeeds();
    let fewer = home.coordinator("train --run-dir grows --resume --epochs 5").fails(2);
    assert!(fewer.contains("fit.epochs: 14 → 5"), "{fewer}");
}
