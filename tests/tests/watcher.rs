//! `train --cluster` when the coordinator fails meanwhile.

use millefeuille_tests::home::{Call, Home};
use millefeuille_tests::process::{Ended, Signal};
use millefeuille_tests::raw_cluster::{RawCluster, done, epochs_ended};
use tonic::Status;

fn train(home: &Home, cluster: &RawCluster, settings: &str) -> Call {
    home.coordinator(&format!("train --cluster {} {settings}", cluster.address))
}

/// The printed epochs.
fn epochs(ended: &Ended) -> Vec<&str> {
    let lines = ended.stderr.lines().filter_map(|line| line.strip_prefix("Epoch "));
    lines.filter(|line| line.contains("loss")).filter_map(|line| line.split('/').next()).collect()
}

#[test]
fn a_submission_whose_reply_is_lost_is_repeated_with_the_same_key() {
    let (home, cluster) = (Home::new(), RawCluster::new());
    cluster.submission(Err(Status::unavailable("the answer is lost")));
    cluster.submission(Err(Status::unavailable("and again")));
    cluster.submission(Ok("raw-1"));
    cluster.stream(vec![done([1, 2, 3])]);

    train(&home, &cluster, "").succeeds();

    let keys = cluster.keys();
    assert_eq!(keys.len(), 3);
    assert!(!keys[0].is_empty() && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[test]
fn a_submission_has_a_time_limit() {
    let (home, cluster) = (Home::new(), RawCluster::new());
    (0..1000).for_each(|_| cluster.submission(Err(Status::unavailable("it is not ready"))));

    let error = train(&home, &cluster, "--connect-timeout 0.5").fails(4);

    assert!(error.contains("it is not ready"), "{error}");
    assert!(cluster.keys().len() > 1);
}

#[test]
fn a_refused_submission_is_not_repeated() {
    let (home, cluster) = (Home::new(), RawCluster::new());
    cluster.submission(Err(Status::invalid_argument("line 3: no")));

    let error = train(&home, &cluster, "").fails(2);

    assert!(error.contains("line 3: no"), "{error}");
    assert_eq!(cluster.keys().len(), 1);
}

#[test]
fn a_watcher_reconnects_and_prints_no_epoch_twice() {
    let (home, cluster) = (Home::new(), RawCluster::new());
    cluster.submission(Ok("raw-1"));
    cluster.stream(vec![epochs_ended([]), epochs_ended([1]), epochs_ended([2])]);
    // The coordinator restarts from a checkpoint before the second epoch's end.
    cluster.stream(vec![epochs_ended([1])]);
    cluster.stream(vec![epochs_ended([1]), epochs_ended([2]), done([3])]);

    let ended = train(&home, &cluster, "").succeeds();

    assert_eq!(epochs(&ended), ["1", "2", "3"], "{ended}");
    assert_eq!(ended.stderr.matches("looking for it").count(), 2, "{ended}");
    assert!(ended.stdout.contains("0.333"), "the table has the last epoch: {ended}");
}

#[test]
fn a_watcher_reports_that_its_job_no_longer_exists() {
    let (home, cluster) = (Home::new(), RawCluster::new());
    cluster.submission(Ok("raw-1"));
    cluster.stream(vec![epochs_ended([1])]);

    let error = train(&home, &cluster, "").fails(2);

    assert!(error.contains("there is no such job"), "{error}");
}

#[test]
fn workers_and_watchers_detect_a_coordinator_that_never_responds() {
    let home = Home::new();
    home.small_job();
    let cluster = home.cluster("--heartbeat-interval 0.2 --heartbeat-deadline 1");
    let mut worker = cluster.joined_by("--slots 1 --connect-timeout 1");
    let mut following = cluster.coordinator("train small.toml --epochs 100000").start();
    following.says("Epoch 1/");

    cluster.serve.signal(Signal::STOP);

    worker.says("a heartbeat was not answered for 1.8 s; trying again");
    following.says("looking for it");
    cluster.serve.signal(Signal::CONT);
    following.says("the coordinator is back");
}
