//! Faults of workers, of results and of the coordinator, and what is computed again because of them.

use std::time::Duration;

use millefeuille_core::control::{
    Action, ControlConfig, Digest, Discard, Disconnection, Event, JobId, Note, Outcome, Phase, Position,
    SessionEnd, Source, Start, Waiting, WorkerId,
};
use millefeuille_core::learn::tree::Node;

use crate::script::{JOB, RIGHT, Script, config, facts, hello};

/// The digest of a wrong result.
const WRONG: Digest = [2; 32];
const NAN: Digest = [3; 32];
const RIGHT_HALF: Node = Node { first: 4, end: 8 };

fn assignments(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected.iter().map(|&(worker, node)| (worker, node.to_string())).collect()
}

fn worker(worker: u64) -> Source {
    Source::Worker(WorkerId(worker))
}

/// Completes the job, and checks that each of its units of work was closed once and in order.
fn complete(script: &mut Script) {
    script.return_all();
    assert_eq!(script.outcome(1), &Outcome::Done);
    let closed = script.closed();
    assert_eq!(closed.len(), 8);
    assert!(closed.is_sorted());
}

// Losing workers.

#[test]
fn pending_nodes_of_a_lost_worker_are_reassigned_within_the_step() {
    let mut script = Script::with_full_cache(2, config());
    script.result_from(1);
    script.leave(2);
    assert_eq!(script.pending_nodes(), assignments(&[(1, "[4,8)")]));
    assert_eq!(
        script.assigned_in_step(0),
        assignments(&[(1, "[0,4)"), (2, "[4,8)"), (1, "[4,8)")]),
        "a node with a result is not assigned again"
    );
    complete(&mut script);
    assert_eq!(script.assigned_in_step(1), assignments(&[(1, "[0,8)")]));
}

#[test]
fn results_of_a_lost_worker_are_kept() {
    let mut script = Script::with_full_cache(2, config());
    script.result_from(2);
    script.leave(2);
    assert_eq!(script.pending_nodes(), assignments(&[(1, "[0,4)")]));
    complete(&mut script);
    assert_eq!(script.assigned_in_step(0), assignments(&[(1, "[0,4)"), (2, "[4,8)")]));
}

#[test]
fn samples_that_nobody_holds_are_fetched_first() {
    let mut script = Script::running(2, config());
    script.withholds_samples.push(WorkerId(1));
    script.result_from(1);
    script.leave(2);
    assert_eq!(script.pending_nodes(), []);
    let Waiting::Results { unheld, .. } = script.control.waiting() else {
        panic!("the coordinator waits for no result")
    };
    assert_eq!(unheld, [4, 5, 6, 7]);
    script.samples_arrive(1);
    assert_eq!(
        script.pending_nodes(),
        assignments(&[(1, "[4,5)"), (1, "[5,6)"), (1, "[6,7)"), (1, "[7,8)")])
    );
    complete(&mut script);
}

#[test]
fn a_silent_worker_is_disconnected_at_the_deadline() {
    let mut script = Script::with_full_cache(2, config());
    script.wait(4.9);
    assert!(script.disconnected(2).is_none());
    script.heard(1);
    script.wait(0.2);
    assert!(matches!(script.disconnected(2), Some(Disconnection::Silent { .. })));
    assert_eq!(script.pending_nodes(), assignments(&[(1, "[0,4)"), (1, "[4,8)")]));
    complete(&mut script);
}

#[test]
fn a_worker_on_standby_takes_over_at_once() {
    let mut facts = facts();
    (facts.shards, facts.plan) = (2, millefeuille_core::data::plan::Plan::new(80, 40, 2));
    let mut script = Script::with(ControlConfig { expected_workers: 3, ..config() }, facts);
    (1..=3).for_each(|worker| script.join_with_full_cache(worker));
    script.submit(1);
    script.leave(1);
    assert_eq!(script.pending_nodes(), assignments(&[(2, "[1,2)"), (3, "[0,1)")]));
    complete(&mut script);
}

#[test]
fn after_the_loss_of_all_workers_new_ones_continue_the_open_step() {
    let mut script = Script::running(2, config());
    script.result_from(1);
    script.leave(1);
    script.leave(2);
    assert_eq!(script.state(1), "waiting");
    script.join(3);
    complete(&mut script);
    let again: Vec<_> = script.assigned_in_step(0).into_iter().filter(|ask| ask.0 == 3).collect();
    assert!(
        again.iter().all(|(_, node)| ["[4,5)", "[5,6)", "[6,7)", "[7,8)"].contains(&node.as_str())),
        "{again:?}"
    );
}

#[test]
fn below_the_minimum_a_job_waits_and_then_continues_the_open_step() {
    let mut script = Script::with_full_cache(2, ControlConfig { min_workers: 2, ..config() });
    script.leave(2);
    assert_eq!(script.state(1), "waiting");
    assert_eq!(script.control.waiting(), Waiting::Workers { present: 1, needed: 2, since: Duration::ZERO });
    let short = Action::Note(Note::Short { job: JOB, present: 1, needed: 2 });
    assert!(script.actions.contains(&short));
    script.result_from(1);
    assert_eq!(script.pending_nodes(), [], "no new step is begun");
    script.join_with_full_cache(3);
    assert_eq!(script.state(1), "running");
    let recovered = Action::Note(Note::Recovered { job: JOB, continues: true });
    assert_eq!(script.count(|action| *action == recovered), 1);
    complete(&mut script);
    assert_eq!(script.assigned_in_step(0).iter().filter(|(_, node)| node == "[0,4)").count(), 1);
}

#[test]
fn a_step_that_completes_while_the_job_waits_is_closed_and_the_next_one_is_not_begun() {
    let mut script = Script::with_full_cache(2, ControlConfig { min_workers: 2, ..config() });
    script.result_from(2);
    script.leave(2);
    script.result_from(1);
    assert_eq!((script.closed().len(), script.pending_nodes()), (1, vec![]));
    assert_eq!(script.state(1), "waiting");
    script.join_with_full_cache(3);
    complete(&mut script);
}

#[test]
fn the_wait_for_workers_has_a_limit() {
    let limit = Some(Duration::from_secs(60));
    let mut script =
        Script::with_full_cache(2, ControlConfig { min_workers: 2, wait_workers: limit, ..config() });
    script.pass(100.0);
    script.leave(2);
    script.pass(59.0);
    assert_eq!(script.state(1), "waiting");
    script.pass(2.0);
    assert!(matches!(script.outcome(1), Outcome::TooFewWorkers { present: 1, needed: 2, .. }));
}

#[test]
fn a_process_that_rejoins_replaces_its_earlier_session() {
    let mut script = Script::with_full_cache(2, config());
    script.join_again(2, 3);
    assert_eq!(script.disconnected(2), Some(&Disconnection::Superseded));
    assert_eq!(
        script.pending_nodes(),
        assignments(&[(1, "[0,4)"), (1, "[4,8)")]),
        "its node is reassigned within the step to the worker that holds the samples"
    );
    assert_eq!(script.control.members().len(), 2);
    complete(&mut script);
}

#[test]
fn a_process_can_rejoin_a_full_cluster() {
    let mut script = Script::with(ControlConfig { max_workers: 1, ..config() }, facts());
    script.join(1);
    script.join_again(1, 2);
    assert_eq!(script.control.members().keys().collect::<Vec<_>>(), [&WorkerId(2)]);
}

// Draining.

#[test]
fn a_worker_that_drains_finishes_its_pending_nodes_and_gets_no_new_ones() {
    let mut script = Script::with_full_cache(2, config());
    script.feed(Event::Drain { worker: WorkerId(2), reason: "SIGTERM".into() });
    let released = Action::Release { worker: WorkerId(2) };
    assert!(!script.actions.contains(&released));
    script.result_from(1);
    script.result_from(2);
    assert!(script.actions.contains(&released));
    complete(&mut script);
    assert_eq!(
        script.assigned_in_step(0),
        assignments(&[(1, "[0,4)"), (2, "[4,8)")]),
        "no node is assigned twice"
    );
    assert!(script.assigned_in_step(1).iter().all(|ask| ask.0 == 1));
}

#[test]
fn a_worker_without_pending_nodes_is_released_when_it_drains() {
    let mut script = Script::new();
    script.join(1);
    script.feed(Event::Drain { worker: WorkerId(1), reason: "SIGTERM".into() });
    assert!(script.actions.contains(&Action::Release { worker: WorkerId(1) }));
    assert!(script.control.members().is_empty());
}

#[test]
fn a_worker_that_drains_is_released_when_the_job_ends() {
    let mut script = Script::running(1, config());
    script.feed(Event::Drain { worker: WorkerId(1), reason: "SIGTERM".into() });
    script.feed(Event::Cancel { job: JOB });
    assert!(script.actions.contains(&Action::Release { worker: WorkerId(1) }));
}

/// Two workers are needed. While they fetch their first samples, for longer than a job waits for workers, one goes.
fn about_to_begin_when(one_goes: impl Fn(&mut Script)) -> Script {
    let limit = Some(Duration::from_secs(20));
    let stall_deadline = Duration::from_secs(300);
    let config = ControlConfig {
        min_workers: 2,
        expected_workers: 2,
        wait_workers: limit,
        stall_deadline,
        ..config()
    };
    let mut script = Script::with(config, facts());
    script.withholds_samples.extend([WorkerId(1), WorkerId(2)]);
    script.join(1);
    script.join(2);
    script.submit(1);
    script.pass(25.0);
    assert!(matches!(script.control.waiting(), Waiting::Samples(_)));
    one_goes(&mut script);
    script
}

#[test]
fn whichever_way_a_worker_goes_the_wait_for_another_begins_then() {
    let drains = |script: &mut Script| {
        script.feed(Event::Drain { worker: WorkerId(2), reason: "SIGTERM".into() });
    };
    let ways: [&dyn Fn(&mut Script); 2] = [&drains, &|script| script.leave(2)];
    for way in ways {
        let mut script = about_to_begin_when(way);
        let since = script.now;
        assert_eq!(script.control.waiting(), Waiting::Workers { present: 1, needed: 2, since });
        script.pass(19.0);
        assert_eq!(script.state(1), "waiting");
        script.pass(2.0);
        assert!(matches!(script.outcome(1), Outcome::TooFewWorkers { present: 1, needed: 2, .. }));
    }
}

#[test]
fn a_worker_on_standby_that_drains_may_be_the_one_that_is_missed() {
    let limit = Some(Duration::from_secs(20));
    let config = ControlConfig { min_workers: 3, expected_workers: 3, wait_workers: limit, ..config() };
    let mut facts = facts();
    (facts.shards, facts.plan) = (2, millefeuille_core::data::plan::Plan::new(80, 40, 2));
    let mut script = Script::with(config, facts);
    script.withholds_samples.push(WorkerId(1));
    (1..=3).for_each(|worker| script.join(worker));
    script.submit(1);
    script.pass(25.0);
    script.feed(Event::Drain { worker: WorkerId(3), reason: "SIGTERM".into() });
    script.samples_arrive(1);
    script.pass(1.0);
    assert_eq!(
        script.state(1),
        "waiting",
        "two of three are no reason to begin, and one second none to give up"
    );
    script.withholds_samples.clear();
    script.join(4);
    complete(&mut script);
}

#[test]
fn while_the_workers_that_are_expected_come_one_may_go() {
    let limit = Some(Duration::from_secs(20));
    let settle = Duration::from_secs(60);
    let config =
        ControlConfig { min_workers: 2, expected_workers: 4, settle, wait_workers: limit, ..config() };
    let mut script = Script::with(config, facts());
    script.join(1);
    script.join(2);
    script.submit(1);
    script.pass(25.0);
    script.feed(Event::Drain { worker: WorkerId(2), reason: "SIGTERM".into() });
    script.pass(1.0);
    assert_eq!(script.state(1), "waiting", "there was no lack of workers before");
    script.join(3);
    script.pass(60.0);
    complete(&mut script);
}

#[test]
fn enough_workers_are_noted_as_such_and_only_after_a_lack() {
    let notes = |script: &Script| -> Vec<bool> {
        let continues = |action: &Action| match action {
            Action::Note(Note::Recovered { continues, .. }) => Some(*continues),
            _ => None,
        };
        script.actions.iter().filter_map(continues).collect()
    };
    let mut script = Script::with(ControlConfig { min_workers: 2, expected_workers: 2, ..config() }, facts());
    script.join_with_full_cache(1);
    script.submit(1);
    script.pass(5.0);
    script.join_with_full_cache(2);
    assert_eq!(notes(&script), [false], "the job had not begun before");
    script.leave(2);
    script.join_with_full_cache(3);
    assert_eq!(notes(&script), [false, true]);
}

#[test]
fn a_worker_that_drains_is_told_to_hold_nothing_else() {
    let mut script = Script::with_full_cache(2, config());
    let told =
        |script: &Script| script.count(|action| matches!(action, Action::Hold { worker: WorkerId(1), .. }));
    let before = told(&script);
    script.feed(Event::Drain { worker: WorkerId(1), reason: "SIGTERM".into() });
    assert_eq!(told(&script), before);
    complete(&mut script);
}

#[test]
fn when_the_last_worker_drains_the_job_waits_for_another_one() {
    let mut script = Script::running(1, config());
    script.feed(Event::Drain { worker: WorkerId(1), reason: "SIGTERM".into() });
    script.return_all();
    assert_eq!((script.closed().len(), script.state(1)), (1, "waiting".into()));
    script.join(2);
    complete(&mut script);
}

// Stragglers.

#[test]
fn a_stragglers_pending_nodes_are_also_assigned_to_another_worker_and_the_first_result_counts() {
    let mut script = Script::with_full_cache(2, config());
    script.pass(0.1);
    script.return_all_of_step();
    script.result_from(1);
    script.pass(0.3);
    assert_eq!(script.pending_nodes(), assignments(&[(2, "[4,8)")]), "four times the usual time is not over");
    script.pass(0.2);
    assert_eq!(script.pending_nodes(), assignments(&[(2, "[4,8)"), (1, "[4,8)")]));
    let slow = |action: &Action| matches!(action, Action::Note(Note::Reassigned { straggler: true, .. }));
    assert_eq!(script.count(slow), 1);
    script.pass(0.1);
    assert_eq!(script.pending_nodes().len(), 2, "it is assigned to one other worker, once");
    script.result_from(2);
    let accepted = script.accepted();
    assert_eq!(accepted.last().map(|accepted| (accepted.1, accepted.2)), Some((RIGHT_HALF, worker(2))));
    complete(&mut script);
}

#[test]
fn a_straggler_gets_no_work_until_it_returns_a_result() {
    let mut script = Script::with_full_cache(2, config());
    script.pass(0.1);
    script.return_all_of_step();
    script.result_from(1);
    script.pass(0.6);
    let late = script.pending.remove(0);
    script.result_from(1);
    assert_eq!(script.closed().len(), 2);
    assert!(script.pending.iter().all(|pending| pending.0 == WorkerId(1)), "{:?}", script.pending_nodes());
    script.result(late.0, late.1, late.2);
    assert_eq!(script.discarded(), Some(Discard::Late));
    script.return_all_of_step();
    assert!(script.pending.iter().any(|pending| pending.0 == WorkerId(2)), "{:?}", script.pending_nodes());
    complete(&mut script);
}

#[test]
fn a_hanging_worker_is_disconnected_if_no_other_holds_its_samples() {
    let mut script = Script::running(2, config());
    script.pass(0.1);
    script.return_all_of_step();
    script.result_from(1);
    script.pass(59.0);
    assert_eq!((script.disconnected(2), script.pending_nodes()), (None, assignments(&[(2, "[4,8)")])));
    script.pass(2.0);
    assert!(matches!(script.disconnected(2), Some(Disconnection::Hung { .. })));
    complete(&mut script);
}

#[test]
fn a_worker_that_fetches_nothing_is_disconnected_and_one_that_fetches_slowly_is_not() {
    let mut script = Script::running(1, config());
    script.withholds_samples = vec![WorkerId(2), WorkerId(3)];
    script.join(2);
    script.pass(0.1);
    script.join(3);
    for moved in 1..=31 {
        script.pass(1.0);
        script.feed(Event::Heard { worker: WorkerId(3), at: script.now, moved });
    }
    assert!(matches!(script.disconnected(2), Some(Disconnection::Stalled { .. })));
    assert_eq!(script.disconnected(3), None);
}

// Wrong results.

#[test]
fn if_two_workers_compute_the_same_infinity_training_has_diverged() {
    let mut script = Script::with_full_cache(2, config());
    script.result_from_with_digest(1, false, NAN);
    assert_eq!(script.pending_nodes(), assignments(&[(2, "[4,8)"), (2, "[0,4)")]));
    script.result_from(2);
    script.result_from_with_digest(2, false, NAN);
    assert!(matches!(script.outcome(1), Outcome::Diverged { work } if work.step == 0));
    assert_eq!(script.evicted(), [] as [u64; 0]);
}

#[test]
fn a_worker_that_alone_computes_infinity_is_evicted_and_its_step_is_restarted() {
    let mut script = Script::with_full_cache(3, config());
    script.return_all_of_step();
    let placed = script.pending_nodes();
    let of_two: Vec<_> = placed.iter().filter(|ask| ask.0 == 2).collect();
    assert_eq!(of_two.len(), 2, "{placed:?}");
    script.result_from(2);
    script.result_from_with_digest(2, false, NAN);
    let (other, work, node) = *script.pending.last().expect("the node is assigned to another worker");
    script.pending.pop();
    script.result(other, work, node);
    assert_eq!(script.evicted(), [], "two results differ: it is not yet known which is wrong");
    script.return_all();
    assert_eq!(script.evicted(), [2]);
    complete(&mut script);
    let begun = |action: &Action| matches!(action, Action::Begin { work: begun } if *begun == work);
    assert_eq!(script.count(begun), 2);
}

#[test]
fn the_coordinator_decides_if_no_other_worker_can() {
    let mut script = Script::with_full_cache(2, config());
    script.result_from(1);
    script.leave(2);
    script.result_from_with_digest(1, false, NAN);
    let (step, half) = (script.accepted()[0].0, RIGHT_HALF);
    assert!(script.actions.contains(&Action::Arbitrate { work: step, node: half }));
    assert_eq!(script.evicted(), [1]);
    assert_eq!(script.state(1), "waiting");
    script.join(3);
    complete(&mut script);
    let by_three: Vec<_> = script.accepted().into_iter().filter(|(work, ..)| *work == step).skip(2).collect();
    assert!(by_three.iter().all(|accepted| accepted.2 == worker(3)), "{by_three:?}");
    let shards: u32 = by_three.iter().map(|(_, node, _)| node.len()).sum();
    assert_eq!(shards, 8, "all of the step is computed again");
}

#[test]
fn an_evicted_process_is_refused_when_it_rejoins() {
    let mut script = Script::with_full_cache(1, config());
    script.result_from_with_digest(1, false, NAN);
    assert_eq!(script.evicted(), [1]);
    script.join_again(1, 2);
    assert_eq!(script.evicted(), [1, 2]);
    assert!(script.control.members().is_empty());
}

#[test]
fn a_worker_that_reconnected_before_its_result_was_found_wrong_is_evicted_too() {
    let mut script = Script::audited(3);
    script.result_from_with_digest(1, true, WRONG);
    script.join_again(1, 4);
    script.return_all_of_step();
    assert_eq!(script.evicted(), [4]);
    complete(&mut script);
}

#[test]
fn if_the_coordinator_cannot_compute_a_single_worker_computes_a_node_twice() {
    let mut script = Script::with_full_cache_and_arbiter(1, config(), None);
    script.result_from_with_digest(1, false, NAN);
    script.result_from_with_digest(1, false, NAN);
    assert!(matches!(script.outcome(1), Outcome::Diverged { .. }));
}

#[test]
fn a_worker_is_disconnected_after_eight_unassigned_results() {
    let mut script = Script::with_full_cache(2, config());
    let (_, work, node) = script.pending[1];
    (0..7).for_each(|_| script.result(WorkerId(1), work, node));
    assert_eq!(script.disconnected(1), None);
    script.result(WorkerId(1), work, node);
    assert_eq!(script.disconnected(1), Some(&Disconnection::Unassigned { answers: 8 }));
    complete(&mut script);
}

/// The process of worker 1 breaks the protocol three times, in three sessions.
fn offends_three_times(script: &mut Script) {
    let offend = |script: &mut Script, worker| {
        script.pending.retain(|pending| pending.0 != WorkerId(worker));
        let end = SessionEnd::Violation("a chunk that belongs to nothing".into());
        script.feed(Event::Leave { worker: WorkerId(worker), end });
    };
    offend(script, 1);
    for worker in [11, 12] {
        script.join_again(1, worker);
        offend(script, worker);
    }
}

/// The notes of evictions: of whom, and why.
fn notes_of_evictions(script: &Script) -> Vec<(&str, &str)> {
    let evicted = |action| match action {
        &Action::Note(Note::Evicted { ref instance_id, ref reason, .. }) => Some((&**instance_id, &**reason)),
        _ => None,
    };
    script.actions.iter().filter_map(evicted).collect()
}

#[test]
fn whoever_breaks_the_protocol_three_times_is_evicted_and_that_is_noted_and_kept() {
    let interval = Some(Duration::from_secs(3600));
    let mut script = Script::with_full_cache(2, ControlConfig { checkpoint_interval: interval, ..config() });
    offends_three_times(&mut script);
    assert_eq!(notes_of_evictions(&script), [("1", "it broke the protocol 3 times")]);
    script.join_again(1, 13);
    assert_eq!(script.evicted(), [13]);
    let checkpoints = |script: &Script| script.count(|action| matches!(action, Action::Checkpoint { .. }));
    assert_eq!(checkpoints(&script), 0);
    script.return_all_of_step();
    assert_eq!(checkpoints(&script), 1, "a restart knows it");
    complete(&mut script);
}

#[test]
fn a_result_of_an_earlier_session_of_an_evicted_process_is_not_kept() {
    let mut script = Script::with_full_cache(2, config());
    let begun = |script: &Script| script.count(|action| matches!(action, Action::Begin { .. }));
    script.result_from(1);
    let before = begun(&script);
    offends_three_times(&mut script);
    assert_eq!(begun(&script), before + 1, "the step starts over");
    complete(&mut script);
}

#[test]
fn offences_before_the_job_is_loaded_count() {
    let mut script = Script::new();
    script.loads = false;
    script.submit(1);
    script.join_as(1, hello("Zen", "native", 1));
    offends_three_times(&mut script);
    assert_eq!(notes_of_evictions(&script), []);
    script.load(1);
    assert_eq!(notes_of_evictions(&script), [("1", "it broke the protocol 3 times")]);
    script.join_again(1, 13);
    assert_eq!(script.evicted(), [13]);
}

#[test]
fn a_worker_that_has_stopped_reading_may_come_again_and_again() {
    let mut script = Script::with_full_cache(2, config());
    for worker in [1, 11, 12, 13] {
        if worker > 1 {
            script.join_again(1, worker);
        }
        script.pending.retain(|pending| pending.0 != WorkerId(worker));
        script.feed(Event::Leave { worker: WorkerId(worker), end: SessionEnd::StoppedReading });
    }
    script.join_again(1, 14);
    assert_eq!(script.evicted(), []);
    complete(&mut script);
}

#[test]
fn whether_a_worker_left_in_order_is_noted_with_it() {
    let mut script = Script::with_full_cache(4, config());
    script.feed(Event::Drain { worker: WorkerId(1), reason: "SIGTERM".into() });
    script.leave(2);
    let end = SessionEnd::Shutdown("SIGTERM".into());
    script.feed(Event::Leave { worker: WorkerId(3), end });
    script.return_all();
    let left = |action: &Action| match action {
        Action::Note(Note::Left { worker, in_order, .. }) => Some((worker.0, *in_order)),
        _ => None,
    };
    let left: Vec<_> = script.actions.iter().filter_map(left).collect();
    assert_eq!(left, [(2, false), (3, true), (1, true)]);
}

#[test]
fn duplicate_and_late_results_have_no_consequence_for_their_sender() {
    let mut script = Script::with_full_cache(2, config());
    let (first, work, node) = script.pending[0];
    script.result_from(1);
    (0..20).for_each(|_| script.result(first, work, node));
    script.result_from(2);
    (0..20).for_each(|_| script.result(first, work, node));
    assert_eq!(script.disconnected(1), None);
    complete(&mut script);
}

// Audits.

#[test]
fn an_audited_node_is_computed_by_two_workers_and_accepted_once() {
    let mut script = Script::audited(2);
    let mut pending = script.pending_nodes();
    pending.sort();
    assert_eq!(pending, assignments(&[(1, "[0,4)"), (1, "[4,8)"), (2, "[0,4)"), (2, "[4,8)")]));
    let before = script.accepted().len();
    script.result_from(1);
    assert_eq!(script.accepted().len(), before, "a single result is not accepted");
    complete(&mut script);
    assert_eq!(script.accepted().len(), 16);
    assert_eq!(script.arbitrated(), 2, "in the first step, in which no other worker holds the samples yet");
}

#[test]
fn a_third_worker_decides_which_of_two_results_is_wrong() {
    let mut script = Script::audited(3);
    let arbitrated = script.arbitrated();
    let wrong =
        script.pending.iter().find(|pending| pending.0 == WorkerId(1)).map(|pending| (pending.1, pending.2));
    script.result_from_with_digest(1, true, WRONG);
    script.return_all_of_step();
    assert_eq!((script.evicted(), script.arbitrated()), (vec![1], arbitrated));
    complete(&mut script);
    let mut accepted = script.accepted().into_iter();
    assert!(accepted.all(|(work, node, source)| Some((work, node)) != wrong || source != worker(1)));
}

#[test]
fn with_two_workers_the_coordinator_decides_which_result_is_wrong() {
    let mut script = Script::audited(2);
    let arbitrated = script.arbitrated();
    script.result_from_with_digest(2, true, WRONG);
    script.return_all_of_step();
    assert_eq!(script.evicted(), [2]);
    assert!(script.arbitrated() > arbitrated);
    complete(&mut script);
}

#[test]
fn if_nobody_can_decide_both_workers_are_evicted() {
    let mut script =
        Script::with_full_cache_and_arbiter(2, ControlConfig { audit_rate: 1.0, ..config() }, None);
    script.return_all_of_step();
    script.result_from_with_digest(2, true, WRONG);
    script.return_all_of_step();
    assert_eq!(script.evicted(), [1, 2]);
    assert_eq!(script.state(1), "waiting");
    script.join_with_full_cache(3);
    complete(&mut script);
}

#[test]
fn a_worker_that_returns_two_different_results_for_a_node_is_evicted() {
    let mut script =
        Script::with_full_cache_and_arbiter(1, ControlConfig { audit_rate: 1.0, ..config() }, None);
    script.result_from_with_digest(1, true, RIGHT);
    script.result_from_with_digest(1, true, WRONG);
    assert_eq!(script.evicted(), [1]);
    script.join_with_full_cache(2);
    complete(&mut script);
}

// Disk and restarts.

#[test]
fn a_checkpoint_is_written_between_steps_after_the_interval() {
    let mut script = Script::with_full_cache(
        1,
        ControlConfig { checkpoint_interval: Some(Duration::from_secs(1)), ..config() },
    );
    while !script.pending.is_empty() {
        script.pass(1.1);
        script.return_all_of_step();
    }
    let checkpoints: Vec<_> = script
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Checkpoint { from, .. } => {
                Some((from.position.epoch, from.position.step, from.parameter_tag))
            }
            _ => None,
        })
        .collect();
    assert_eq!(checkpoints, [(0, 1, 1), (1, 1, 3)], "the end of an epoch has a checkpoint of its own");
}

#[test]
fn a_job_resumes_at_the_position_of_its_checkpoint() {
    let position = Position { epoch: 1, phase: Phase::Train, step: 1 };
    let mut script = Script::new();
    script.from = Start { position, parameter_tag: 3 };
    script.join(1);
    script.submit(1);
    script.return_all();
    let closed: Vec<_> =
        script.closed().iter().map(|work| (work.epoch, work.phase, work.parameter_tag)).collect();
    assert_eq!(closed, [(1, Phase::Train, 3), (1, Phase::Validate, 4), (1, Phase::Test, 4)]);
    assert_eq!(script.outcome(1), &Outcome::Done);
}

#[test]
fn a_job_that_is_already_trained_is_saved_without_workers() {
    let mut script = Script::new();
    script.from = Start { position: Position::start_of(2), parameter_tag: 4 };
    script.submit(1);
    assert_eq!((script.outcome(1), script.closed().len()), (&Outcome::Done, 0));
}

#[test]
fn training_waits_for_the_disk_if_several_epochs_are_unwritten() {
    let mut facts = facts();
    facts.epochs = 5;
    let mut script = Script::with(config(), facts);
    script.writes = false;
    script.join(1);
    script.submit(1);
    script.return_all();
    assert_eq!(script.control.waiting(), Waiting::Disk);
    assert_eq!(script.count(|action| matches!(action, Action::EndEpoch { .. })), 3);
    script.feed(Event::EpochWritten { job: JobId(1) });
    script.return_all();
    assert_eq!(script.count(|action| matches!(action, Action::EndEpoch { .. })), 4);
    script.writes = true;
    script.feed(Event::EpochWritten { job: JobId(1) });
    script.return_all();
    assert_eq!(script.outcome(1), &Outcome::Done);
}
