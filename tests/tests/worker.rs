//! Worker processes with a scripted coordinator: draining, rejoining, more pieces within a step, eviction.

use std::net::SocketAddr;

use millefeuille_proto::v1;
use millefeuille_proto::v1::session_request::Message as Up;
use millefeuille_proto::v1::session_response::Message as Down;
use millefeuille_tests::cluster::{closed_port, silent_listener};
use millefeuille_tests::home::{Call, Home};
use millefeuille_tests::process::{Process, Signal, until};
use millefeuille_tests::raw_coordinator::{RawCoordinator, SHARDS, Visit};

const SIGABRT: i32 = 6;

fn worker(home: &Home, address: SocketAddr, settings: &str) -> Call {
    home.worker(&format!("--coordinator {address} {settings}"))
}

/// A worker that holds every shard, with its session.
fn ready(home: &Home, coordinator: &mut RawCoordinator, settings: &str) -> (Process, Visit) {
    coordinator.has_samples();
    let worker = worker(home, coordinator.address(), settings).start();
    let mut visit = coordinator.visit();
    visit.has_ready_worker();
    (worker, visit)
}

fn goodbye() -> Down {
    Down::Goodbye(v1::Goodbye { reason: "nothing is owed".into() })
}

fn is_drain(message: &Up) -> Option<()> {
    matches!(message, Up::Drain(_)).then_some(())
}

#[test]
fn on_sigterm_a_worker_finishes_and_waits_for_the_goodbye() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    let (mut worker, mut visit) = ready(&home, &mut coordinator, "");

    worker.signal(Signal::TERM);
    visit.hears("drain", is_drain);
    // Nodes that were assigned before the coordinator knew of the drain are computed.
    visit.ask(0, &[(0, 4)]);
    assert_eq!(visit.result(), (0, (0, 4)));
    assert!(worker.is_running());
    visit.say(goodbye());

    worker.wait().with_code(0);
}

#[test]
fn a_draining_worker_takes_no_new_job() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    coordinator.has_samples();
    let mut worker = worker(&home, coordinator.address(), "").start();
    let mut visit = coordinator.visit();
    worker.says("joined");
    worker.signal(Signal::INT);
    visit.hears("drain", is_drain);

    visit.start_job();
    visit.say(goodbye());

    worker.wait().with_code(0);
    assert!(visit.rest().is_empty(), "it accepts nothing and fetches nothing");
    assert_eq!(coordinator.fetches(), 0);
}

#[test]
fn draining_has_a_limit() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    let (mut worker, visit) = ready(&home, &mut coordinator, "--drain-timeout 0.2");

    worker.signal(Signal::TERM);

    let last = visit.rest().pop();
    assert!(matches!(last, Some(Up::Goodbye(_))), "{last:?}");
    let ended = worker.wait().with_code(0);
    assert!(ended.stderr.contains("not finished within 0.2 s"), "{ended}");
}

#[test]
fn a_second_signal_ends_a_draining_worker_at_once() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    let (mut worker, mut visit) = ready(&home, &mut coordinator, "");
    worker.signal(Signal::TERM);
    visit.hears("drain", is_drain);

    worker.signal(Signal::TERM);

    worker.wait().with_code(130);
}

#[test]
fn a_second_signal_ends_a_worker_whose_slots_compute() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    let (mut worker, mut visit) = ready(&home, &mut coordinator, "");
    for step in 0..200 {
        visit.ask(step % 5, &[(0, 4)]);
    }
    worker.signal(Signal::INT);
    visit.hears("drain", is_drain);

    worker.signal(Signal::INT);

    worker.wait().with_code(130);
}

#[test]
fn a_draining_worker_without_a_coordinator_exits_with_0() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    let (mut worker, mut visit) = ready(&home, &mut coordinator, "");
    worker.signal(Signal::TERM);
    visit.hears("drain", is_drain);

    drop((visit, coordinator));

    worker.wait().with_code(0);
}

#[test]
fn on_sigterm_a_worker_without_a_session_exits() {
    let home = Home::new();
    let (_listener, silent) = silent_listener();
    for address in [closed_port(), silent] {
        let mut worker = home.worker(&format!("--coordinator {address} --connect-timeout 0.1")).start();
        worker.says("trying again");
        worker.signal(Signal::TERM);
        worker.wait().with_code(0);
    }
}

#[test]
fn an_evicted_worker_reports_the_reason_and_exits_with_9() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    let (mut worker, visit) = ready(&home, &mut coordinator, "");

    visit.say(Down::Evicted(v1::Evicted { reason: "step 3: other bits than two others".into() }));

    let error = worker.wait().error(9);
    assert_eq!(error, "evicted from the cluster: step 3: other bits than two others");
}

#[test]
fn a_worker_accepts_more_pieces_within_a_step() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    let (_worker, mut visit) = ready(&home, &mut coordinator, "--slots 1");

    visit.ask(0, &[(0, 2)]);
    visit.ask_more(0, &[(2, 4)]);
    visit.ask_more(0, &[(3, 4)]);
    for node in [(0, 2), (2, 4), (3, 4)] {
        assert_eq!(visit.result(), (0, node));
    }

    // A restarted step assigns the same nodes, and gets their results again.
    visit.ask_more(0, &[(0, 2)]);
    assert_eq!(visit.result(), (0, (0, 2)));
    visit.ask(1, &[(0, 4)]);
    assert_eq!(visit.result(), (1, (0, 4)));
}

#[test]
fn a_worker_unknown_to_the_coordinator_rejoins_with_its_samples() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    let (_worker, old) = ready(&home, &mut coordinator, "");
    let instance = old.hello.instance_id.clone();
    assert_eq!(coordinator.fetches(), SHARDS as usize);

    coordinator.forgets_everybody();
    let mut visit = coordinator.visit();
    coordinator.remembers();

    assert_eq!(visit.hello.instance_id, instance);
    visit.has_ready_worker();
    assert_eq!(coordinator.fetches(), SHARDS as usize, "nothing is fetched again");
    visit.ask(0, &[(0, 4)]);
    assert_eq!(visit.result(), (0, (0, 4)));
}

#[test]
fn a_worker_reconnects_to_a_restarted_coordinator() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    let (_worker, visit) = ready(&home, &mut coordinator, "");
    let address = coordinator.address();
    drop((visit, coordinator));

    let mut coordinator = RawCoordinator::at(address);
    coordinator.visit().has_ready_worker();

    assert_eq!(coordinator.fetches(), 0, "the samples were kept");
}

#[test]
fn a_hanging_slot_does_not_delay_a_reconnection() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    coordinator.has_samples();
    let call = worker(&home, coordinator.address(), "--slots 2").env("FAILPOINTS", "worker-hang=1*pause");
    let _worker = call.start();
    let mut old = coordinator.visit();
    old.has_ready_worker();
    // One slot hangs for ever with one of these; the other computes the rest.
    old.ask(0, &[(0, 1), (1, 2), (2, 3)]);
    old.result();
    old.result();

    coordinator.forgets_everybody();
    let mut visit = coordinator.visit();
    coordinator.remembers();

    visit.has_ready_worker();
    visit.ask(0, &[(0, 4)]);
    assert_eq!(visit.result(), (0, (0, 4)), "the other slot computes");
}

#[test]
fn a_broken_transfer_is_retried_within_the_session() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    coordinator.breaks_off(3);

    let (mut worker, _visit) = ready(&home, &mut coordinator, "");

    assert_eq!(coordinator.fetches(), SHARDS as usize + 3);
    worker.says("it breaks off; trying again");
}

#[test]
fn a_transfer_that_always_breaks_ends_the_session_and_the_worker_rejoins() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    coordinator.has_samples();
    coordinator.breaks_off(4);
    let mut worker = worker(&home, coordinator.address(), "").start();
    let old = coordinator.visit();
    old.start_job();

    let mut visit = coordinator.visit();

    worker.says("the samples of shard");
    visit.has_ready_worker();
    assert_eq!(coordinator.fetches(), SHARDS as usize + 4);
}

#[test]
fn failpoints_make_a_worker_die() {
    for point in ["worker-before-piece", "worker-before-send", "worker-mid-message", "worker-after-send"] {
        let home = Home::new();
        let mut coordinator = RawCoordinator::default();
        coordinator.has_samples();
        let call = worker(&home, coordinator.address(), "");
        let mut worker = call.env("FAILPOINTS", format!("{point}=2*off->return")).start();
        let mut visit = coordinator.visit();
        visit.has_ready_worker();

        let nodes: Vec<_> = (0..SHARDS).map(|shard| (shard, shard + 1)).collect();
        visit.ask(0, &nodes);

        let ended = worker.wait();
        assert_eq!(ended.killed_by(), Some(SIGABRT), "{point}: {ended}");
        let heard = visit.rest();
        let count = |kind: fn(&Up) -> bool| heard.iter().filter(|message| kind(message)).count();
        let (headers, chunks) = (count(|m| matches!(m, Up::Result(_))), count(|m| matches!(m, Up::Chunk(_))));
        let expected = match point {
            "worker-before-piece" => headers <= 2,
            "worker-before-send" => headers <= 2,
            "worker-mid-message" => (headers, chunks) == (3, 2),
            _ => (headers, chunks) == (3, 3),
        };
        assert!(expected, "{point}: {headers} results came, {chunks} of them whole");
    }
}

#[test]
fn failpoints_make_a_worker_compute_wrong_results() {
    let gradient = |points: &str| {
        let home = Home::new();
        let mut coordinator = RawCoordinator::default();
        coordinator.has_samples();
        let call = worker(&home, coordinator.address(), "--slots 1").env("FAILPOINTS", points);
        let _worker = call.start();
        let mut visit = coordinator.visit();
        visit.has_ready_worker();
        visit.ask(0, &[(0, 4)]);
        let finite = visit.hears("result", |message| match message {
            Up::Result(result) => Some(result.loss_sum.is_finite()),
            _ => None,
        });
        let bytes = visit.hears("gradient", |message| match message {
            Up::Chunk(chunk) => Some(chunk.data.clone()),
            _ => None,
        });
        (finite, bytes)
    };

    let (finite, good) = gradient("");
    assert!(finite);
    assert_eq!(gradient("worker-slow=sleep(1)"), (true, good.clone()));
    let (finite, flipped) = gradient("worker-flip-bit=3*off->1*return");
    assert!(finite && flipped != good);
    assert_eq!(flipped[..flipped.len() - 4], good[..good.len() - 4]);
    assert!(!gradient("worker-nan=return").0);
}

#[test]
fn samples_survive_the_coordinators_restart() {
    let home = Home::new();
    home.small_job();
    let address = closed_port();
    let serve = || {
        let mut serve = home.coordinator(&format!("serve --listen {address} --runs-dir runs")).start();
        serve.says("listening on");
        serve
    };
    let train = || home.coordinator(&format!("train small.toml --cluster {address}"));
    let sent = || {
        let workers = millefeuille_tests::rpc::Client::connect(&address).workers();
        workers.first().map(|worker| worker.bytes_sent)
    };
    let mut first = serve();
    let mut worker = home.worker(&format!("--coordinator {address}")).start();
    worker.says("joined");
    let hash = train().succeeds();
    let with_samples = sent().expect("the worker is there");

    first.signal(Signal::KILL);
    first.wait();
    let _second = serve();
    until("the worker is back", || sent().map(|_| ()));
    let again = train().succeeds();

    let without = sent().expect("the worker is there");
    let samples = 2304 * 785;
    assert!(with_samples - without >= samples, "{with_samples} bytes with samples, {without} without");
    let line = |text: &str| text.lines().find(|line| line.starts_with("weights_sha256")).map(str::to_string);
    assert_eq!(line(&hash.stdout), line(&again.stdout));
}
