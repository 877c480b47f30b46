//! Faults of workers do not change the model.
//!
//! Every test ends with the same check: the run is done, and has the hash and the ledger of the reference run.
//! Before that it checks in `events.jsonl` which nodes were reassigned.

use std::collections::BTreeSet;

use millefeuille_tests::cluster::Cluster;
use millefeuille_tests::home::Home;
use millefeuille_tests::process::{Process, Signal, until};
use millefeuille_tests::rpc::Client;
use millefeuille_tests::run::Run;

/// A job that takes a second or so.
const JOB: &str = "small.toml --epochs 10";
/// Two milliseconds per piece: the job takes long enough to inject faults.
const SLOWED: &str = "worker-slow=sleep(2)";
/// Short deadlines.
const ALERT: &str = "--heartbeat-interval 0.2 --heartbeat-deadline 1";

/// Submits a job, and waits until it trains.
fn begun(cluster: &Cluster<'_>, job: &str) -> Process {
    let mut following = cluster.coordinator(&format!("train {job}")).start();
    following.says("Epoch 1/");
    following
}

/// All reassignments belong to one unit of work: no more than that was computed twice.
fn at_most_one_step_is_repeated(run: &Run) {
    let work = |told: &String| told.split(" is lost in ").nth(1)?.split(": ").next().map(str::to_string);
    let works: BTreeSet<_> = run.taken_over().iter().filter_map(work).collect();
    assert!(works.len() <= 1, "more than one step was repeated: {works:?}");
    assert!(run.told("resumed").is_empty(), "nothing began anew");
}

/// Shards that the worker of this process computes.
fn shards_of(client: &Client, worker: &Process) -> Option<u32> {
    let suffix = format!(":{}", worker.pid());
    let found = client.workers().into_iter().find(|info| info.name.ends_with(&suffix))?;
    Some(found.end_shard - found.first_shard)
}

#[test]
fn a_crash_at_any_point_of_a_workers_work_costs_at_most_one_step() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster("--min-workers 2");
    let _others = [cluster.joined_with(SLOWED), cluster.joined_with(SLOWED)];
    let points = ["before-piece", "before-send", "mid-message", "after-send"];
    for (point, number) in points.into_iter().zip(1..) {
        let mut dies = cluster.joined_with(&format!("{SLOWED};worker-{point}=30*off->return"));

        cluster.coordinator(&format!("train {JOB}")).succeeds();

        assert!(dies.wait().killed_by().is_some(), "{point}: it has died");
        let run = home.run(&format!("runs/small-{number}"));
        let left = run.told("left");
        assert!(left.len() == 1 && left[0].contains("its connection was closed"), "{point}: {left:?}");
        at_most_one_step_is_repeated(&run);
        alone.is_equalled_by(&run);
    }
}

#[test]
fn training_continues_without_a_killed_worker() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster("--min-workers 2");
    let workers = [(); 3].map(|()| cluster.joined_with(SLOWED));
    let mut following = begun(&cluster, JOB);

    workers[1].signal(Signal::KILL);

    following.wait().with_code(0);
    let run = home.run("runs/small-1");
    at_most_one_step_is_repeated(&run);
    assert!(run.told("waiting").is_empty(), "two are enough");
    alone.is_equalled_by(&run);
}

#[test]
fn a_crash_in_a_validation_costs_at_most_that_validation() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster("--min-workers 2");
    let _others = cluster.joined_by_many(2, "--slots 1");
    let mut dies = cluster.joined_with("worker-before-evaluation=3*off->return");

    cluster.coordinator(&format!("train {JOB}")).succeeds();

    assert!(dies.wait().killed_by().is_some());
    let run = home.run("runs/small-1");
    at_most_one_step_is_repeated(&run);
    assert!(run.taken_over().iter().all(|told| told.contains("the validation") || told.contains("the test")));
    alone.is_equalled_by(&run);
}

#[test]
fn workers_that_die_while_they_fetch_samples_do_not_delay_the_job() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster("");

    // The only worker dies before the job begins …
    let mut first = cluster.joined_with("worker-mid-fetch=3*off->return");
    let mut following = cluster.coordinator(&format!("train {JOB}")).start();
    assert!(first.wait().killed_by().is_some());
    // … another one joins, and a third one that joins during the job dies in the same way.
    let _stays = cluster.joined_with(SLOWED);
    following.says("Epoch 1/");
    let mut joins = cluster.worker("--slots 1").env("FAILPOINTS", "worker-mid-fetch=3*off->return").start();
    assert!(joins.wait().killed_by().is_some());

    following.wait().with_code(0);
    let run = home.run("runs/small-1");
    assert!(run.taken_over().is_empty(), "they owed nothing: {:?}", run.taken_over());
    alone.is_equalled_by(&run);
}

#[test]
fn after_the_loss_of_all_workers_the_job_continues_with_new_ones() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster("");
    let client = cluster.client();
    let workers = [(); 3].map(|()| cluster.joined_with(SLOWED));
    let mut following = begun(&cluster, JOB);

    workers.iter().for_each(|worker| worker.signal(Signal::KILL));

    cluster.job_is(&client, "small-1", "waiting");
    let detail = client.metrics("small-1").unwrap().job.unwrap().detail;
    assert!(detail.contains("0 of at least 1"), "{detail}");
    let _others = cluster.joined_by_many(2, "--slots 1");
    following.wait().with_code(0);
    let run = home.run("runs/small-1");
    assert_eq!((run.told("waiting").len(), run.told("recovered").len()), (1, 1));
    at_most_one_step_is_repeated(&run);
    alone.is_equalled_by(&run);
}

#[test]
fn a_stopped_worker_is_disconnected_for_silence_and_rejoins() {
    let home = Home::small();
    let alone = home.undisturbed("small.toml --epochs 60");
    let cluster = home.cluster(ALERT);
    let client = cluster.client();
    let _others = [cluster.joined_with(SLOWED), cluster.joined_with(SLOWED)];
    let mut stopped = cluster.joined_by("--slots 1");
    let mut following = begun(&cluster, "small.toml --epochs 60");
    let run = home.run("runs/small-1");

    stopped.signal(Signal::STOP);
    let left = run.tells("left", "nothing came from it for");
    assert!(left.contains(&format!(":{}", stopped.pid())), "{left}");
    let said = stopped.stderr().len();
    stopped.signal(Signal::CONT);

    stopped.says_after(said, "joined as worker");
    until("it computes again", || shards_of(&client, &stopped).filter(|&shards| shards > 0));
    following.wait().with_code(0);
    at_most_one_step_is_repeated(&run);
    alone.is_equalled_by(&run);
}

#[test]
fn a_worker_that_drains_causes_no_timeout() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster("");
    let _stays = cluster.joined_with(SLOWED);
    let mut drains = cluster.joined_with(SLOWED);
    let mut following = begun(&cluster, JOB);

    drains.signal(Signal::TERM);

    let ended = drains.wait().with_code(0);
    assert!(
        ended.stderr.contains("finishing the assigned work") && ended.stderr.contains("drained"),
        "{ended}"
    );
    following.wait().with_code(0);
    let run = home.run("runs/small-1");
    assert!(run.taken_over().is_empty(), "it has finished what it owed: {:?}", run.taken_over());
    assert_eq!(run.told("draining").len(), 1);
    assert!(run.told("left")[0].contains("it is drained"), "{:?}", run.told("left"));
    alone.is_equalled_by(&run);
}

#[test]
fn after_the_last_worker_has_drained_the_job_waits_for_another_one() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster("");
    let client = cluster.client();
    let mut drains = cluster.joined_with(SLOWED);
    let mut following = begun(&cluster, JOB);

    drains.signal(Signal::TERM);
    drains.wait().with_code(0);

    cluster.job_is(&client, "small-1", "waiting");
    let _next = cluster.joined_by("--slots 2");
    following.wait().with_code(0);
    assert!(home.run("runs/small-1").taken_over().is_empty());
    alone.is_equalled_by(&home.run("runs/small-1"));
}

#[test]
fn a_stragglers_nodes_get_backup_tasks_and_it_gets_fewer_shards() {
    let home = Home::small();
    let job = "small.toml --epochs 4";
    let alone = home.undisturbed(job);
    let cluster = home.cluster("--min-workers 3");
    let client = cluster.client();
    let _quick = [(); 2].map(|()| cluster.joined_with("worker-slow=sleep(10)"));
    let slow = cluster.joined_with("worker-slow=sleep(100)");
    let mut following = begun(&cluster, job);
    let run = home.run("runs/small-1");

    let told = run.tells("reassigned", "is a straggler in");
    assert!(told.contains("computes ["), "{told}");
    until("the slow one has fewer shards than the others, or none", || {
        shards_of(&client, &slow).filter(|&shards| shards < 2)
    });

    following.wait().with_code(0);
    assert!(run.taken_over().is_empty() && run.told("left").is_empty(), "nobody is gone");
    alone.is_equalled_by(&run);
}

#[test]
fn a_hanging_slot_is_replaced_although_heartbeats_continue() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster(&format!("{ALERT} --min-workers 2"));
    let client = cluster.client();
    let _other = cluster.joined_by("--slots 1");
    let mut hangs = cluster.joined_with("worker-hang=20*off->pause");

    cluster.coordinator(&format!("train {JOB}")).succeeds();

    let run = home.run("runs/small-1");
    assert!(!run.told("reassigned").is_empty() && run.told("left").is_empty(), "{:?}", run.events());
    assert!(hangs.is_running() && client.workers().len() == 2, "it is alive");
    alone.is_equalled_by(&run);
}

#[test]
fn a_new_worker_replaces_the_only_one_when_it_hangs() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster("");
    let client = cluster.client();
    let hangs = cluster.joined_with("worker-hang=200*off->pause");
    let mut following = begun(&cluster, JOB);
    let job = || client.metrics("").unwrap().job.unwrap();
    until("it is said for what is waited, from whom, and what happens next", || {
        let job = job();
        let says =
            job.detail.contains("from worker 1") && job.next.contains("it takes long: backup tasks run");
        says.then_some(())
    });

    let _joins = cluster.joined_by("--slots 1");

    following.wait().with_code(0);
    assert!(home.run("runs/small-1").told("left").is_empty());
    alone.is_equalled_by(&home.run("runs/small-1"));
    drop(hangs);
}

#[test]
fn many_workers_can_join_and_leave_at_once() {
    let home = Home::small();
    let job = "small.toml --epochs 16";
    let alone = home.undisturbed(job);
    let cluster = home.cluster("");
    let client = cluster.client();
    let slowed = "worker-slow=sleep(5)";
    let _first = cluster.joined_with(slowed);
    let mut following = begun(&cluster, job);

    let mut storm: Vec<_> =
        (0..8).map(|_| cluster.worker("--slots 1").env("FAILPOINTS", slowed).start()).collect();
    storm.iter_mut().for_each(|worker| _ = worker.says("joined as worker"));
    let computing = || client.workers().iter().filter(|worker| worker.state == "computing").count();
    until("most of them compute", || (computing() > 4).then_some(()));
    let (killed, drained) = storm.split_at_mut(4);
    killed.iter().for_each(|worker| worker.signal(Signal::KILL));
    drained.iter().for_each(|worker| worker.signal(Signal::TERM));

    drained.iter_mut().for_each(|worker| _ = worker.wait().with_code(0));
    following.wait().with_code(0);
    let run = home.run("runs/small-1");
    assert_eq!(run.told("joined").len(), 9);
    assert_eq!(run.told("left").len(), 8, "{:?}", run.told("left"));
    alone.is_equalled_by(&run);
}

#[test]
fn below_the_minimum_a_job_waits_and_reports_it() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster("--min-workers 2");
    let client = cluster.client();
    let _stays = cluster.joined_with(SLOWED);
    let killed = cluster.joined_with(SLOWED);
    let mut following = begun(&cluster, JOB);

    killed.signal(Signal::KILL);

    cluster.job_is(&client, "small-1", "waiting");
    let jobs = cluster.coordinator("jobs").succeeds().stdout;
    assert!(jobs.contains("1 of at least 2") && jobs.contains("worker --coordinator"), "{jobs}");
    following.says("waiting for workers: 1 of at least 2");
    let _comes = cluster.joined_by("--slots 1");
    following.wait().with_code(0);
    let run = home.run("runs/small-1");
    run.tells("waiting", "1 of at least 2");
    run.tells("recovered", "continues");
    at_most_one_step_is_repeated(&run);
    alone.is_equalled_by(&run);
}

#[test]
fn the_wait_for_workers_has_a_limit_and_the_run_can_be_resumed() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster("--wait-workers 1");
    let client = cluster.client();
    let worker = cluster.joined_with(SLOWED);
    let mut following = begun(&cluster, JOB);
    following.says("Epoch 2/");

    worker.signal(Signal::KILL);

    let error = following.wait().error(5);
    assert!(error.contains("0 of at least 1") && error.contains("--min-workers"), "{error}");
    cluster.job_is(&client, "small-1", "failed");
    drop(cluster);
    home.coordinator(&format!("train {JOB} --workers 2 --run-dir runs/small-1 --resume")).succeeds();
    let run = home.run("runs/small-1");
    assert!(!run.told("resumed")[0].contains("from the beginning"), "{:?}", run.told("resumed"));
    alone.is_equalled_by(&run);
}

#[test]
fn a_worker_on_standby_takes_over_at_once() {
    // Given two shards and three workers.
    let home = Home::small();
    let job = "small.toml --epochs 20 --shards 2";
    let alone = home.undisturbed(job);
    let cluster = home.cluster("--min-workers 3 --heartbeat-deadline 60");
    let client = cluster.client();
    let mut workers = [(); 3].map(|()| cluster.joined_with("worker-slow=sleep(5)"));
    let mut following = begun(&cluster, job);
    cluster.workers_are(&client, 1, "standby");
    let all_held = || client.workers().iter().all(|worker| worker.shards_held == 6).then_some(());
    until("all hold all", all_held);
    let computes = |worker: &&mut Process| shards_of(&client, worker) == Some(1);
    let computing = workers.iter_mut().find(computes).expect("two of three compute");

    computing.signal(Signal::KILL);
    computing.wait();
    let _third = cluster.joined_by("--slots 1");

    following.wait().with_code(0);
    let run = home.run("runs/small-1");
    at_most_one_step_is_repeated(&run);
    assert!(run.taken_over().iter().all(|told| told.contains("computes [")), "{:?}", run.taken_over());
    alone.is_equalled_by(&run);
}
