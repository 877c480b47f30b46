//! How processes end, and how the others react: signals, crashes, silence.

use millefeuille_tests::home::{Call, Home};
use millefeuille_tests::process::{Process, Seen, Signal, until};

/// A job that does not end during a test.
const LONG: &str = "train small.toml --epochs 100000";

/// A running `train` with its workers.
fn training(home: &Home, workers: usize) -> (Process, Vec<Seen>) {
    let mut train = home.coordinator(&format!("{LONG} --workers {workers} --run-dir run")).start();
    train.says("Epoch 1/");
    let children = train.children();
    assert_eq!(children.len(), workers, "one process a worker: {children:?}");
    (train, children)
}

#[test]
fn ctrl_c_ends_a_training_and_keeps_its_finished_epochs() {
    let home = Home::small();
    let (mut train, workers) = training(&home, 2);

    train.signal(Signal::INT);

    let ended = train.wait();
    let error = ended.error(130);
    let rows = home.run("run").history().len();
    let kept = format!(
        "epochs finished and kept in run: {rows} (coordinator train --run-dir run --resume finishes it)"
    );
    assert!(rows >= 1 && error.contains(&kept), "{rows} rows: {error}");
    assert!(!home.run("run").has("receipt.json"));
    assert!(ended.stdout.contains("val_accuracy"), "the table of what was finished: {ended}");
    workers.iter().for_each(Seen::ends);
}

#[test]
fn sigterm_ends_a_training_as_ctrl_c_does() {
    let home = Home::small();
    let (mut train, workers) = training(&home, 2);

    train.signal(Signal::TERM);

    train.wait().error(130);
    assert!(!home.run("run").history().is_empty());
    workers.iter().for_each(Seen::ends);
}

#[test]
fn ctrl_c_twice_ends_a_training_at_once() {
    let home = Home::small();
    let (mut train, workers) = training(&home, 2);

    train.signal(Signal::INT);
    train.signal(Signal::INT);

    train.wait().with_code(130);
    workers.iter().for_each(Seen::ends);
}

#[test]
fn ctrl_c_ends_a_training_whose_data_hangs() {
    let home = Home::small();
    let hangs = |call: Call| call.env("FAILPOINTS", "data-before-read=sleep(600000)");
    for signals in [&[Signal::INT][..], &[Signal::TERM], &[Signal::INT, Signal::INT]] {
        let mut train =
            hangs(home.coordinator("train small.toml --workers 1 --run-dir run --overwrite")).start();
        train.says("reading the data");
        let workers = train.children();

        signals.iter().for_each(|&signal| train.signal(signal));

        let ended = train.wait().with_code(130);
        // The second one ends it without output.
        let claims = ended.stderr.contains("kept in run");
        assert!(signals.len() > 1 || claims == home.path("run/job.toml").exists(), "{ended}");
        workers.iter().for_each(Seen::ends);
    }

    let mut serve =
        hangs(home.coordinator("serve --listen 127.0.0.1:0 --job small.toml --runs-dir runs")).start();
    serve.says("small-1 is queued");
    serve.signal(Signal::TERM);
    serve.wait().with_code(0);
}

#[test]
fn ctrl_c_ends_a_command_that_hangs_at_once() {
    let home = Home::small();
    home.coordinator("train small.toml --workers 1 --epochs 1 --run-dir run").succeeds();
    for command in ["evaluate run", "show data small.toml", "show run run"] {
        let call = home.coordinator(command).env("FAILPOINTS", "data-before-read=sleep(600000)");
        let evaluate = call.start();
        until("it handles signals", || handles_interrupts(evaluate.pid()).then_some(()));
        evaluate.signal(Signal::INT);
        let mut evaluate = evaluate;
        evaluate.wait().with_code(130);
    }
}

/// Whether a process has a handler for SIGINT, from `/proc`.
fn handles_interrupts(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap_or(0);
    caught & (1 << (Signal::INT.as_raw() - 1)) != 0
}

#[test]
fn a_job_without_enough_workers_ends_at_the_limit() {
    let home = Home::small();
    let cluster = home.cluster("--min-workers 2 --wait-workers 1");
    let _worker = cluster.joined_by("--slots 1");

    let error = cluster.coordinator("train small.toml").fails(5);

    assert!(error.contains("1 of at least 2") && error.contains("--min-workers"), "{error}");
}

#[test]
fn a_finished_training_leaves_no_worker_running() {
    let home = Home::small();
    let mut train = home.coordinator("train small.toml --epochs 20 --workers 3 --run-dir run").start();
    train.says("Epoch 1/");
    let workers = train.children();
    assert_eq!(workers.len(), 3);

    train.wait().with_code(0);

    workers.iter().for_each(Seen::ends);
}

#[test]
fn workers_end_when_their_training_is_killed() {
    let home = Home::small();
    let (mut train, workers) = training(&home, 3);

    train.signal(Signal::KILL);

    train.wait();
    workers.iter().for_each(Seen::ends);
    // The run is unfinished and not locked: a new training resumes it.
    assert!(!home.run("run").has("receipt.json"));
    home.coordinator("train small.toml --workers 1 --run-dir run --overwrite").succeeds();
}

#[test]
fn a_killed_training_without_a_checkpoint_is_restarted_by_resume() {
    let home = Home::small();
    home.coordinator("train small.toml --epochs 30 --workers 1 --run-dir whole").succeeds();
    let mut train = home.coordinator("train small.toml --epochs 30 --workers 2 --run-dir run").start();
    train.says("Epoch 2/");
    train.signal(Signal::KILL);
    train.wait();

    home.coordinator("train small.toml --epochs 30 --workers 3 --run-dir run --resume").succeeds();

    assert_eq!(home.run("run").hash(), home.run("whole").hash());
    assert_eq!(home.run("run").history().len(), 30);
}

#[test]
fn a_run_is_resumed_by_its_name_alone_and_not_with_another_job() {
    let home = Home::small();
    let alone = home.undisturbed("small.toml --epochs 30");
    let mut train = home.coordinator("train small.toml --epochs 30 --workers 2 --run-dir run").start();
    train.says("Epoch 2/");
    train.signal(Signal::KILL);
    train.wait();

    let error = home.coordinator("train --workers 2 --run-dir run --resume --epochs 29").fails(2);
    home.coordinator("train --workers 2 --run-dir run --resume").succeeds();

    assert!(error.contains("epochs"), "{error}");
    alone.is_equalled_by(&home.run("run"));
}

#[test]
fn each_worker_of_a_training_has_its_own_instance_id() {
    let home = Home::small();
    let call = home.coordinator(&format!("{LONG} --workers 2 --run-dir run"));
    let mut train = call.env("MILLEFEUILLE_INSTANCE", "not theirs").start();
    train.says("Epoch 1/");

    for worker in train.children() {
        let environment = std::fs::read(format!("/proc/{}/environ", worker.pid)).unwrap();
        let variables = String::from_utf8_lossy(&environment);
        assert!(!variables.contains("not theirs"), "{variables}");
    }
}

#[test]
fn killed_local_workers_are_restarted_and_training_continues() {
    let home = Home::small();
    let job = "small.toml --epochs 40";
    let alone = home.undisturbed(job);
    let mut train = home.coordinator(&format!("train {job} --workers 3 --run-dir run")).start();
    train.says("Epoch 2/");
    let first = train.children();

    first.iter().take(2).for_each(Seen::kill);

    train.says("a worker process died");
    let again = |train: &Process| train.children().iter().filter(|child| !first.contains(child)).count();
    until("both are started again", || (again(&train) == 2).then_some(()));
    let ended = train.wait().with_code(0);
    assert!(ended.stderr.contains("starting it again"), "{ended}");
    assert_eq!(home.run("run").told("left").iter().filter(|left| left.contains("closed")).count(), 2);
    alone.is_equalled_by(&home.run("run"));
}

#[test]
fn a_training_whose_workers_are_all_killed_waits_for_new_ones() {
    let home = Home::small();
    let job = "small.toml --epochs 40";
    let alone = home.undisturbed(job);
    let mut train = home.coordinator(&format!("train {job} --workers 2 --run-dir run")).start();
    train.says("Epoch 2/");

    train.children().iter().for_each(Seen::kill);

    train.wait().with_code(0);
    let run = home.run("run");
    run.tells("waiting", "0 of at least 1");
    run.tells("recovered", "continues");
    alone.is_equalled_by(&run);
}

#[test]
fn local_workers_that_die_repeatedly_end_the_training() {
    let home = Home::small();
    let train = home.coordinator("train small.toml --workers 1 --run-dir run");

    let error = train.env("FAILPOINTS", "worker-before-piece=return").run().error(5);

    assert!(error.contains("died 5 times"), "{error}");
    assert!(!home.run("run").has("receipt.json"));
    let alone = home.undisturbed("small.toml");
    home.coordinator("train small.toml --workers 2 --run-dir run --resume").succeeds();
    alone.is_equalled_by(&home.run("run"));
}

#[test]
fn training_continues_without_a_silent_local_worker() {
    let home = Home::small();
    let job = "small.toml --epochs 40";
    let alone = home.undisturbed(job);
    let train = format!("train {job} --workers 2 --run-dir run");
    let mut train =
        home.coordinator(&format!("{train} --heartbeat-interval 0.2 --heartbeat-deadline 1")).start();
    train.says("Epoch 2/");

    train.children()[0].signal(Signal::STOP);

    train.wait().with_code(0);
    alone.is_equalled_by(&home.run("run"));
}

#[test]
fn a_silent_worker_is_disconnected_and_rejoins() {
    let home = Home::small();
    let mut cluster = home.cluster("--heartbeat-interval 0.2 --heartbeat-deadline 1");
    let client = cluster.client();
    let worker = cluster.joined_by("--slots 1");

    worker.signal(Signal::STOP);
    cluster.serve.says("is disconnected: nothing came");
    assert!(client.workers().is_empty());
    worker.signal(Signal::CONT);

    cluster.workers_are(&client, 1, "idle");
    cluster.coordinator("train small.toml").succeeds();
}

#[test]
fn ctrl_c_stops_following_and_the_job_continues() {
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();
    let _worker = cluster.joined_by("--slots 2");
    let mut following = cluster.coordinator("train small.toml --epochs 30").start();
    following.says("Epoch 1/30");

    following.signal(Signal::INT);

    let ended = following.wait().with_code(130);
    assert!(
        ended.stderr.contains("small-1 continues") && ended.stderr.contains("coordinator cancel"),
        "{ended}"
    );
    cluster.job_is(&client, "small-1", "done");
    assert_eq!(home.run("runs/small-1").history().len(), 30);
}

#[test]
fn ctrl_c_ends_a_watcher_whose_coordinator_is_gone() {
    let home = Home::small();
    let mut cluster = home.cluster("");
    let _worker = cluster.joined_by("--slots 1");
    let mut following = cluster.coordinator(&format!("{LONG} --reconnect-timeout 3600")).start();
    following.says("Epoch 1/");
    cluster.serve.signal(Signal::KILL);
    cluster.serve.wait();
    following.says("looking for it");

    following.signal(Signal::INT);

    following.wait().with_code(130);
}

#[test]
fn a_watcher_stops_after_a_limit_without_a_coordinator() {
    let home = Home::small();
    let cluster = home.cluster("");
    let _worker = cluster.joined_by("--slots 1");
    let mut following = cluster.coordinator(&format!("{LONG} --reconnect-timeout 1")).start();
    following.says("Epoch 1/");

    cluster.serve.signal(Signal::KILL);

    let error = following.wait().error(4);
    assert!(error.contains(&cluster.address), "{error}");
}

#[test]
fn sigterm_ends_a_cluster_and_its_workers_with_exit_code_0() {
    let home = Home::small();
    let mut cluster = home.cluster("");
    let mut worker = cluster.joined_by("--slots 1");
    let mut following = cluster.coordinator(&format!("{LONG} --reconnect-timeout 1")).start();
    following.says("Epoch 1/");

    cluster.serve.signal(Signal::TERM);

    cluster.serve.wait().with_code(0);
    worker.wait().with_code(0);
    following.wait().error(4);
    let run = home.run("runs/small-1");
    assert!(!run.history().is_empty() && !run.has("receipt.json"), "what was finished is kept, and no more");
}

#[test]
fn ctrl_c_ends_an_idle_cluster_even_with_open_connections() {
    let home = Home::small();
    let mut cluster = home.cluster("");
    let mut watching = cluster.coordinator("metrics --watch --json").start();
    until("the watcher has an answer", || (!watching.stdout().is_empty()).then_some(()));

    cluster.serve.signal(Signal::INT);

    cluster.serve.wait().with_code(0);
    let error = watching.wait().error(4);
    assert!(error.contains(&cluster.address) && error.contains("gone"), "{error}");
}

#[test]
fn sigterm_ends_an_idle_worker_with_exit_code_0() {
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();
    let mut worker = cluster.joined_by("--slots 1");

    worker.signal(Signal::TERM);

    worker.wait().with_code(0);
    until("the cluster knows that it left", || client.workers().is_empty().then_some(()));
}

#[test]
fn sigterm_ends_a_worker_that_waits_for_its_coordinator() {
    let address = millefeuille_tests::cluster::closed_port();
    let mut worker = Home::new().worker(&format!("--coordinator {address}")).start();
    worker.says("trying again");

    worker.signal(Signal::TERM);

    worker.wait().with_code(0);
}

#[test]
fn a_worker_can_start_before_its_coordinator() {
    // Given a worker that connects to an address on which nothing listens yet.
    let home = Home::small();
    let address = millefeuille_tests::cluster::closed_port();
    let mut worker = home.worker(&format!("--coordinator {address}")).start();
    worker.says("trying again");

    let mut serve = home.coordinator(&format!("serve --listen {address} --runs-dir runs")).start();
    serve.says("listening on");

    worker.says("joined as worker 1");
}

#[test]
fn watching_ends_with_ctrl_c() {
    let home = Home::small();
    let cluster = home.cluster("");
    let mut watching = cluster.coordinator("jobs --watch").start();
    until("it has printed", || (!watching.stdout().is_empty()).then_some(()));

    watching.signal(Signal::INT);

    watching.wait().with_code(0);
}
