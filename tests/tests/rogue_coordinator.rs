//! Coordinators that ask for what no job has, or for more than a worker can give: it says what is wrong, allocates
//! nothing for it, and stays.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::fs;

use millefeuille_proto::v1;
use millefeuille_proto::v1::session_request::Message as Up;
use millefeuille_proto::v1::session_response::Message as Down;
use millefeuille_tests::home::Home;
use millefeuille_tests::process::{Process, Signal, until};
use millefeuille_tests::raw_coordinator::{RawCoordinator, SHARDS, Visit};

/// What a session does to a worker that then says this, and comes back for work.
fn is_told(what: &str, session: impl FnOnce(&Visit)) {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    coordinator.has_samples();
    let mut worker = home.worker(&format!("--coordinator {}", coordinator.address())).start();
    session(&coordinator.visit());

    worker.says(what);

    let mut again = coordinator.visit();
    again.has_ready_worker();
    again.ask(0, &[(0, 4)]);
    assert_eq!(again.result(), (0, (0, 4)));
    worker.signal(Signal::TERM);
    again.hears("drain", |message| matches!(message, Up::Drain(_)).then_some(()));
    again.say(Down::Goodbye(v1::Goodbye { reason: "well done".into() }));
    let ended = worker.wait().with_code(0);
    assert!(!ended.stderr.contains("panicked"), "{ended}");
}

/// How a worker with these settings ends that gets this job.
fn cannot_take(settings: &str, change: impl FnOnce(&mut v1::Spec)) -> String {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    let mut worker = home.worker(&format!("--coordinator {} {settings}", coordinator.address())).start();
    let mut visit = coordinator.visit();
    visit.start_job_with(change);
    let reason = visit.hears("goodbye", |message| match message {
        Up::Goodbye(goodbye) => Some(goodbye.reason.clone()),
        _ => None,
    });
    let error = worker.wait().error(8);
    assert_eq!(reason, error);
    error
}

fn dense(units: u32) -> v1::Layer {
    v1::Layer {
        layer: Some(v1::layer::Layer::Dense(v1::Dense {
            units,
            activation: "sigmoid".into(),
            ..v1::Dense::default()
        })),
    }
}

fn with_hold(change: impl FnOnce(&mut v1::Hold)) -> impl FnOnce(&Visit) {
    |visit| {
        visit.start_job_with(|_| {});
        visit.hold_with(change);
    }
}

#[test]
fn a_shard_of_four_billion_samples_is_not_allocated() {
    is_told(
        "shard train/0 has 25 samples in this job, not 4294967295",
        with_hold(|hold| {
            hold.shards[0].samples = u32::MAX;
        }),
    );
}

#[test]
fn a_shard_with_too_few_samples_is_not_taken() {
    is_told(
        "shard train/2 has 25 samples in this job, not 24",
        with_hold(|hold| hold.shards[2].samples = 24),
    );
}

#[test]
fn a_shard_whose_bytes_are_not_those_of_its_samples_is_not_taken() {
    is_told("shard train/1 has 1625 bytes in this job, not 7", with_hold(|hold| hold.shards[1].bytes = 7));
}

#[test]
fn shards_that_the_job_does_not_have_or_that_come_twice_are_not_taken() {
    is_told(
        "there is no shard train/4 in this job",
        with_hold(|hold| {
            hold.shards[0].id.as_mut().unwrap().index = SHARDS;
        }),
    );
    is_told(
        "shard train/0 is to be held twice",
        with_hold(|hold| {
            hold.shards = vec![hold.shards[0].clone(); 5_000];
        }),
    );
    is_told(
        "the hash of shard train/0 is no SHA-256",
        with_hold(|hold| {
            hold.shards[0].sha256 = "é".repeat(32);
        }),
    );
}

#[test]
fn a_spec_beyond_the_limits_of_a_job_is_not_allocated() {
    is_told("the number of units is 4294967295, not from 1 to 65536", |visit| {
        visit.start_job_with(|spec| spec.layers.insert(0, dense(u32::MAX)));
    });
    is_told("parameters are too many, 268435456 the most", |visit| {
        visit.start_job_with(|spec| spec.layers.splice(0..0, [dense(65_536), dense(65_536)]).for_each(drop));
    });
    is_told("parameters are too many, 268435456 the most", |visit| {
        visit.start_job_with(|spec| spec.schema.as_mut().unwrap().shape = vec![1 << 30]);
    });
    is_told("`shards` is 4294967295, not from 1 to 1024", |visit| {
        visit.start_job_with(|spec| spec.shards = u32::MAX);
    });
}

#[test]
fn a_job_that_needs_more_memory_than_a_worker_may_use_is_declined() {
    let little = cannot_take("--memory 10000 --slots 1", |_| {});
    assert!(
        little.contains("the job needs 1 MB of memory, and this worker may use 0 MB; raise --memory"),
        "{little}"
    );

    // A batch of four billion samples in a shard.
    let batch = cannot_take("--slots 1", |spec| {
        spec.batch_size = u32::MAX;
        spec.train_samples = u32::MAX;
        spec.shards = 1;
    });
    assert!(batch.starts_with("the job needs "), "{batch}");

    let large = cannot_take("--memory 1000000000", |spec| {
        spec.layers.splice(0..0, [dense(16_000), dense(16_000)]).for_each(drop);
    });
    assert!(large.contains("this worker may use 1000 MB"), "{large}");
}

#[test]
fn shards_that_need_more_memory_than_a_worker_may_use_are_declined() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    let settings = format!("--coordinator {} --memory 2000000000", coordinator.address());
    let mut worker = home.worker(&settings).start();
    let visit = coordinator.visit();
    visit.start_job_with(|spec| spec.train_samples = u32::MAX);
    visit.hold_with(|hold| {
        hold.shards.truncate(1);
        hold.shards[0].samples = 1 << 30;
        hold.shards[0].bytes = 65 << 30;
    });

    let error = worker.wait().error(8);
    assert!(error.starts_with("the job with the shards that are to be held needs "), "{error}");
}

#[test]
fn work_that_no_job_has_is_not_begun() {
    let work = |change: fn(&mut v1::Work)| {
        move |visit: &Visit| {
            visit.start_job();
            let id =
                v1::WorkId { job: 1, incarnation: 1, phase: v1::Phase::Train.into(), ..Default::default() };
            let nodes = vec![v1::Node { first: 0, end: 4 }];
            let mut work = v1::Work { id: Some(id), nodes, parameter_bytes: 0, parameter_slot: None };
            change(&mut work);
            visit.say(Down::Work(work));
        }
    };
    is_told("there is no step 5 in an epoch of 5", work(|work| work.id.as_mut().unwrap().step = 5));
    is_told("there is no epoch 4294967295", work(|work| work.id.as_mut().unwrap().epoch = u32::MAX));
    is_told("the tree has no node [0,4294967295)", work(|work| work.nodes[0].end = u32::MAX));
    is_told(
        "there are no samples in node [1,2) of this work",
        work(|work| {
            work.id.as_mut().unwrap().set_phase(v1::Phase::Test);
            work.nodes[0] = v1::Node { first: 1, end: 2 };
        }),
    );
    is_told("no parameters 0 here", work(|_| {}));
}

#[test]
fn many_large_jobs_one_after_another_take_the_memory_of_one() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    coordinator.has_samples();
    let worker = home.worker(&format!("--coordinator {} --slots 1", coordinator.address())).start();
    let mut visit = coordinator.visit();
    // 19 MB of parameters each.
    for _ in 0..200 {
        visit.start_job_with(|spec| spec.layers.splice(0..0, [dense(2_150), dense(2_150)]).for_each(drop));
    }
    visit.start_job();

    // In either order: what the worker does first depends on how many fingerprints it has begun.
    let (mut held, mut accepted) = (false, false);
    visit.hears("shard held and job accepted", |message| {
        held |= matches!(message, Up::ShardHeld(_));
        accepted |= matches!(message, Up::JobAccepted(_));
        (held && accepted).then_some(())
    });
    let peak = peak_megabytes(&worker);
    assert!(peak < 400, "{peak} MB");
}

fn peak_megabytes(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes >> 10
}

#[test]
fn a_worker_is_welcome_once() {
    let welcome =
        v1::Welcome { worker_id: 1, incarnation: 1, heartbeat_interval_ms: 50, heartbeat_deadline_ms: 5_000 };
    is_told("it welcomes this worker a second time", |visit| visit.say(Down::Welcome(welcome)));
}

#[test]
fn a_transfer_without_bytes_does_not_go_on() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    coordinator.has_samples();
    coordinator.sends_nothing();
    let mut worker = home.worker(&format!("--coordinator {}", coordinator.address())).start();
    let visit = coordinator.visit();
    visit.start_job();

    worker.says("a part without any bytes came");
}

#[test]
fn a_kernel_that_is_asked_for_on_and_on_is_waited_for_longer_and_longer() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    let mut worker = home.worker(&format!("--coordinator {}", coordinator.address())).start();
    let restarts = |worker: &Process| {
        let environment = fs::read_to_string(format!("/proc/{}/environ", worker.pid())).unwrap_or_default();
        environment
            .split('\0')
            .find_map(|variable| variable.strip_prefix("MILLEFEUILLE_RESTARTS=").map(str::to_string))
    };
    // `environment` and `native` are there on every machine.
    for (count, kernel) in ["environment", "native", "environment"].into_iter().enumerate() {
        coordinator.visit().say(use_kernel(kernel));
        let count = Some((count + 1).to_string());
        until("it starts again", || (restarts(&worker) == count).then_some(()));
    }
    worker.says("asks for another kernel again: starting again in 0.");

    // The same kernel once more: it was started for it.
    coordinator.visit().say(use_kernel("environment"));
    worker.says("it asks again for the kernel environment");
    coordinator.visit().say(use_kernel("a\u{1b}[31m"));
    worker.says("`kernel`: not a kernel");
}

#[test]
fn a_worker_that_waits_before_it_starts_again_can_be_stopped() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    let call = home.worker(&format!("--coordinator {}", coordinator.address()));
    let mut worker = call.env("MILLEFEUILLE_RESTARTS", "50").start();
    coordinator.visit().say(use_kernel("environment"));
    worker.says("asks for another kernel again: starting again in ");

    worker.signal(Signal::TERM);

    worker.wait().with_code(0);
}

fn use_kernel(kernel: &str) -> Down {
    Down::UseKernel(v1::UseKernel { kernel: kernel.into() })
}
