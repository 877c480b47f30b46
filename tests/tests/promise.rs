//! The promise: the trained weights are a function of the job, not of the cluster.
//!
//! Every test here compares `weights_sha256` of the receipt with that of the reference run.

use millefeuille_tests::data::SMALL_JOB;
use millefeuille_tests::home::Home;
use millefeuille_tests::process::{Process, Signal, until};

/// Trains on this machine. Returns the hash of the weights.
fn trained(home: &Home, name: &str, arguments: &str) -> String {
    home.coordinator(&format!("train {arguments} --run-dir {name}")).succeeds();
    home.run(name).hash()
}

#[test]
fn the_article_is_the_same_for_any_number_of_workers() {
    let home = Home::new();
    let alone = trained(&home, "1", "--epochs 1 --workers 1 --slots 1");

    let others: Vec<_> = [2, 3, 4, 7, 8]
        .map(|workers| {
            (workers, trained(&home, &format!("{workers}"), &format!("--epochs 1 --workers {workers}")))
        })
        .into();

    assert_eq!(others, [2, 3, 4, 7, 8].map(|workers| (workers, alone.clone())));
}

#[test]
fn two_epochs_of_the_article_are_the_same_for_one_worker_and_for_three() {
    let home = Home::new();

    let one = trained(&home, "one", "--epochs 2 --workers 1 --slots 2");
    let three = trained(&home, "three", "--epochs 2 --workers 3");

    assert_eq!(one, three);
    assert_eq!(
        home.run("one").receipt()["epoch_weights_sha256"],
        home.run("three").receipt()["epoch_weights_sha256"]
    );
    let figures = |name: &str| ["loss", "val_loss", "test_loss"].map(|key| home.run(name).figures(key));
    assert_eq!(figures("one"), figures("three"));
}

#[test]
fn uneven_shards_and_batches_give_the_same_model_for_any_workers_and_slots() {
    let home = Home::new();
    home.small_job();
    let alone = trained(&home, "alone", "small.toml --workers 1 --slots 1");

    let ways = [
        "2 --slots 1",
        "3 --slots 2",
        "4 --slots 3",
        "7 --slots 1",
        "8 --slots 2",
        "1 --slots 8",
        "1 --slots 3",
    ];
    for (number, way) in ways.into_iter().enumerate() {
        let hash = trained(&home, &format!("way-{number}"), &format!("small.toml --workers {way}"));
        assert_eq!(hash, alone, "--workers {way}");
    }
}

#[test]
fn an_optimizer_with_state_gives_the_same_model_for_any_workers_and_after_a_crash_of_the_coordinator() {
    let home = Home::new();
    home.small_job();
    let job = SMALL_JOB.replace("epochs = 3", "epochs = 12")
        + "\n[compile]\nmetrics = []\n[compile.optimizer]\ntype = \"adam\"\n";
    home.write("adam.toml", job);
    let alone = trained(&home, "alone", "adam.toml --workers 1 --slots 2");
    assert_eq!(trained(&home, "three", "adam.toml --workers 3"), alone);

    let mut dies =
        home.coordinator("train adam.toml --workers 2 --checkpoint-interval 0.05 --run-dir dies").start();
    dies.says("Epoch 5/");
    dies.signal(Signal::KILL);
    dies.wait();
    home.coordinator("train adam.toml --workers 2 --run-dir dies --resume").succeeds();

    assert_eq!(home.run("dies").hash(), alone);
    home.coordinator("verify dies").succeeds();
    let last = home.run("dies").history().pop().unwrap();
    assert!(last["accuracy"].is_null() && last["test_accuracy"].is_null() && last["loss"].is_f64(), "{last}");
}

#[test]
fn shards_without_samples_change_nothing() {
    // Nine samples per step for sixteen shards: some shards have none.
    let home = Home::new();
    home.small_job();
    let job = "small.toml --epochs 1 --batch-size 9 --shards 16";

    let one = trained(&home, "one", &format!("{job} --workers 1 --slots 1"));
    let five = trained(&home, "five", &format!("{job} --workers 5"));

    assert_eq!(one, five);
}

#[test]
fn blas_variables_in_the_environment_change_nothing() {
    let home = Home::new();
    home.small_job();
    let alone = trained(&home, "alone", "small.toml --workers 1");

    for (name, value) in [
        ("OPENBLAS_CORETYPE", "Haswell"),
        ("OPENBLAS_CORETYPE", "Nehalem"),
        ("OPENBLAS_L2_SIZE", "512"),
        ("OPENBLAS_NUM_THREADS", "2"),
    ] {
        let train = home.coordinator("train small.toml --workers 2 --run-dir run --overwrite");
        train.env(name, value).succeeds();
        assert_eq!(home.run("run").hash(), alone, "{name}={value}");
        assert_eq!(home.run("run").receipt(), home.run("alone").receipt(), "{name}={value}");
    }
}

#[test]
fn remote_workers_give_the_same_model_as_local_ones() {
    let home = Home::new();
    home.small_job();
    let alone = trained(&home, "alone", "small.toml --workers 1");
    let cluster = home.cluster("--min-workers 3");

    // Each worker with an environment of its own.
    let _plain = cluster.joined_by("--slots 2");
    let _haswell = cluster.worker("--slots 1").env("OPENBLAS_CORETYPE", "Haswell").start();
    let _threads = cluster.worker("--slots 1").env("OPENBLAS_NUM_THREADS", "2").start();
    let followed = cluster.coordinator("train small.toml").succeeds();

    assert!(followed.stdout.contains(&alone), "{followed}");
    assert_eq!(home.run("runs/small-1").hash(), alone);
}

#[test]
fn a_worker_that_joins_in_the_middle_is_used_from_then_on() {
    // Given a job whose only worker is stopped during training …
    let home = Home::new();
    home.small_job();
    let job = "small.toml --epochs 30";
    let alone = trained(&home, "alone", &format!("{job} --workers 1"));
    let cluster = home.cluster("--heartbeat-deadline 60");
    let client = cluster.client();
    // Slow enough that the job does not end before this test continues on a busy machine.
    let mut first = cluster.worker("--slots 1").env("FAILPOINTS", "worker-slow=sleep(1)").start();
    first.says("joined as worker");
    let mut following = cluster.coordinator(&format!("train {job}")).start();
    following.says("Epoch 1/30");
    first.signal(Signal::STOP);

    // … when another one joins and holds its samples …
    let _second = cluster.joined_by("--slots 1");
    // It may compute by then, in place of the one that is stopped: so its state does not matter.
    until("the joiner holds its samples", || {
        let workers = client.workers();
        let joiner = workers.iter().max_by_key(|worker| worker.id)?;
        (workers.len() == 2 && joiner.shards_held >= 12).then_some(())
    });
    first.signal(Signal::CONT);

    // … then both compute, and the weights are those of the reference run.
    cluster.workers_are(&client, 2, "computing");
    let shards: Vec<_> =
        client.workers().iter().map(|worker| worker.end_shard - worker.first_shard).collect();
    assert_eq!(shards.iter().sum::<u32>(), 8, "every shard has one worker: {shards:?}");
    assert!(shards.iter().all(|&shards| shards > 0), "{shards:?}");
    following.wait().with_code(0);
    assert_eq!(home.run("runs/small-1").hash(), alone);
}

#[test]
fn workers_beyond_the_number_of_shards_are_on_standby() {
    let home = Home::new();
    home.small_job();
    let job = "small.toml --shards 2";
    let alone = trained(&home, "alone", &format!("{job} --workers 1"));
    let cluster = home.cluster("--min-workers 3");
    let mut workers = [0; 3].map(|_| cluster.joined_by("--slots 1"));

    cluster.coordinator(&format!("train {job}")).succeeds();

    assert_eq!(home.run("runs/small-1").hash(), alone);
    let told = |worker: &&mut Process| worker.stderr().contains("on standby");
    assert_eq!(workers.iter_mut().filter(told).count(), 1, "one of three has nothing to do for two shards");
    assert_eq!(trained(&home, "local", &format!("{job} --workers 3")), alone);
}

#[test]
fn shards_batch_and_seed_change_the_weights_and_replicas_multiply_the_batch() {
    let home = Home::new();
    home.small_job();
    let train =
        |name: &str, flags: &str| trained(&home, name, &format!("small.toml --epochs 1 --workers 1 {flags}"));
    let base = train("base", "");

    let others = [
        train("shards", "--shards 4"),
        train("batch", "--batch-size 50"),
        train("seed", "--seed 7"),
        train("replicas", "--replicas 2"),
        train("shuffle", "--shuffle false"),
    ];
    for (number, other) in others.iter().enumerate() {
        assert_ne!(*other, base, "number {number}");
    }

    assert_eq!(train("same", "--batch-size 50 --replicas 2"), base);
    let receipt = |name: &str, key: &str| home.run(name).receipt_text(key);
    assert_eq!(receipt("same", "job_sha256"), receipt("base", "job_sha256"));
    assert_ne!(receipt("seed", "job_sha256"), receipt("base", "job_sha256"));
}

#[test]
fn a_second_job_of_a_cluster_is_independent_of_the_first() {
    let home = Home::new();
    home.small_job();
    let alone = trained(&home, "alone", "small.toml --workers 1");
    let cluster = home.cluster("");
    let _worker = cluster.joined_by("--slots 2");

    cluster.coordinator("train small.toml --shards 3 --seed 9 --name other").succeeds();
    cluster.coordinator("train small.toml").succeeds();

    assert_ne!(home.run("runs/other-1").hash(), alone);
    assert_eq!(home.run("runs/small-1").hash(), alone);
}
