//! What happens to workers, to answers and to the coordinator, and what is done again because of it.

use std::time::Duration;

use millefeuille_core::control::{
    Action, ControlConfig, Digest, Discard, Disconnection, Event, JobId, Note, Outcome, Phase, Position,
    Source, Start, Waiting, WorkerId,
};
use millefeuille_core::learn::tree::Node;

use crate::script::{JOB, RIGHT, Script, config, facts};

/// Other bits than the right ones.
const WRONG: Digest = [2; 32];
const NAN: Digest = [3; 32];
const RIGHT_HALF: Node = Node { first: 4, end: 8 };

fn asks(of: &[(u64, &str)]) -> Vec<(u64, String)> {
    of.iter().map(|&(worker, node)| (worker, node.to_string())).collect()
}

fn worker(worker: u64) -> Source {
    Source::Worker(WorkerId(worker))
}

/// The job goes to its end; each of its units of work was closed once, in order.
fn done(script: &mut Script) {
    script.answer_all();
    assert_eq!(script.outcome(1), &Outcome::Done);
    let closed = script.closed();
    assert_eq!(closed.len(), 8);
    assert!(closed.is_sorted());
}

// Losing workers.

#[test]
fn what_a_lost_worker_owes_is_asked_of_others_within_the_step() {
    let mut script = Script::roomy(2, config());
    script.answer_of(1);
    script.leave(2);
    assert_eq!(script.asked(), asks(&[(1, "[4,8)")]));
    assert_eq!(
        script.asked_in_step(0),
        asks(&[(1, "[0,4)"), (2, "[4,8)"), (1, "[4,8)")]),
        "what had been answered is not asked again"
    );
    done(&mut script);
    assert_eq!(script.asked_in_step(1), asks(&[(1, "[0,8)")]));
}

#[test]
fn what_a_lost_worker_has_answered_stays() {
    let mut script = Script::roomy(2, config());
    script.answer_of(2);
    script.leave(2);
    assert_eq!(script.asked(), asks(&[(1, "[0,4)")]));
    done(&mut script);
    assert_eq!(script.asked_in_step(0), asks(&[(1, "[0,4)"), (2, "[4,8)")]));
}

#[test]
fn samples_that_nobody_holds_are_fetched_first() {
    let mut script = Script::running(2, config());
    script.slow.push(WorkerId(1));
    script.answer_of(1);
    script.leave(2);
    assert_eq!(script.asked(), []);
    let Waiting::Results { unheld, .. } = script.control.waiting() else { panic!("it waits for no result") };
    assert_eq!(unheld, [4, 5, 6, 7]);
    script.samples_arrive(1);
    assert_eq!(script.asked(), asks(&[(1, "[4,5)"), (1, "[5,6)"), (1, "[6,7)"), (1, "[7,8)")]));
    done(&mut script);
}

#[test]
fn a_silent_worker_is_given_up_at_the_deadline() {
    let mut script = Script::roomy(2, config());
    script.wait(4.9);
    assert!(script.disconnected(2).is_none());
    script.heard(1);
    script.wait(0.2);
    assert!(matches!(script.disconnected(2), Some(Disconnection::Silent { .. })));
    assert_eq!(script.asked(), asks(&[(1, "[0,4)"), (1, "[4,8)")]));
    done(&mut script);
}

#[test]
fn a_worker_on_standby_takes_over_at_once() {
    let mut facts = facts();
    (facts.shards, facts.plan) = (2, millefeuille_core::data::plan::Plan::new(80, 40, 2));
    let mut script = Script::with(ControlConfig { expected_workers: 3, ..config() }, facts);
    (1..=3).for_each(|worker| script.join_roomy(worker));
    script.submit(1);
    script.leave(1);
    assert_eq!(script.asked(), asks(&[(2, "[1,2)"), (3, "[0,1)")]));
    done(&mut script);
}

#[test]
fn all_may_be_lost_and_others_go_on_with_the_open_step() {
    let mut script = Script::running(2, config());
    script.answer_of(1);
    script.leave(1);
    script.leave(2);
    assert_eq!(script.state(1), "waiting");
    script.join(3);
    done(&mut script);
    let again: Vec<_> = script.asked_in_step(0).into_iter().filter(|ask| ask.0 == 3).collect();
    assert!(
        again.iter().all(|(_, node)| ["[4,5)", "[5,6)", "[6,7)", "[7,8)"].contains(&node.as_str())),
        "{again:?}"
    );
}

#[test]
fn below_the_minimum_a_job_waits_and_goes_on_where_it_was() {
    let mut script = Script::roomy(2, ControlConfig { min_workers: 2, ..config() });
    script.leave(2);
    assert_eq!(script.state(1), "waiting");
    assert_eq!(script.control.waiting(), Waiting::Workers { present: 1, needed: 2, since: Duration::ZERO });
    let short = Action::Note(Note::Short { job: JOB, present: 1, needed: 2 });
    assert!(script.actions.contains(&short));
    script.answer_of(1);
    assert_eq!(script.asked(), [], "nothing new is begun");
    script.join_roomy(3);
    assert_eq!(script.state(1), "running");
    assert_eq!(script.count(|action| *action == Action::Note(Note::Recovered { job: JOB })), 1);
    done(&mut script);
    assert_eq!(script.asked_in_step(0).iter().filter(|(_, node)| node == "[0,4)").count(), 1);
}

#[test]
fn a_step_that_completes_while_the_job_waits_is_closed_and_the_next_one_is_not_begun() {
    let mut script = Script::roomy(2, ControlConfig { min_workers: 2, ..config() });
    script.answer_of(2);
    script.leave(2);
    script.answer_of(1);
    assert_eq!((script.closed().len(), script.asked()), (1, vec![]));
    assert_eq!(script.state(1), "waiting");
    script.join_roomy(3);
    done(&mut script);
}

#[test]
fn the_wait_for_workers_to_come_back_is_bounded() {
    let limit = Some(Duration::from_secs(60));
    let mut script = Script::roomy(2, ControlConfig { min_workers: 2, wait_workers: limit, ..config() });
    script.pass(100.0);
    script.leave(2);
    script.pass(59.0);
    assert_eq!(script.state(1), "waiting");
    script.pass(2.0);
    assert!(matches!(script.outcome(1), Outcome::TooFewWorkers { present: 1, needed: 2, .. }));
}

#[test]
fn the_same_process_that_comes_again_takes_its_own_place() {
    let mut script = Script::roomy(2, config());
    script.join_again(2, 3);
    assert_eq!(script.disconnected(2), Some(&Disconnection::Superseded));
    assert_eq!(script.asked(), asks(&[(1, "[0,4)"), (1, "[4,8)")]), "within the step, of who holds it");
    assert_eq!(script.control.members().len(), 2);
    done(&mut script);
}

#[test]
fn a_process_that_comes_again_finds_room_in_a_full_cluster() {
    let mut script = Script::with(ControlConfig { max_workers: 1, ..config() }, facts());
    script.join(1);
    script.join_again(1, 2);
    assert_eq!(script.control.members().keys().collect::<Vec<_>>(), [&WorkerId(2)]);
}

// Draining.

#[test]
fn a_worker_that_drains_finishes_what_it_owes_and_gets_nothing_new() {
    let mut script = Script::roomy(2, config());
    script.feed(Event::Drain { worker: WorkerId(2), reason: "SIGTERM".into() });
    let released = Action::Release { worker: WorkerId(2) };
    assert!(!script.actions.contains(&released));
    script.answer_of(1);
    script.answer_of(2);
    assert!(script.actions.contains(&released));
    done(&mut script);
    assert_eq!(script.asked_in_step(0), asks(&[(1, "[0,4)"), (2, "[4,8)")]), "nothing is asked twice");
    assert!(script.asked_in_step(1).iter().all(|ask| ask.0 == 1));
}

#[test]
fn a_worker_that_owes_nothing_may_go_at_once() {
    let mut script = Script::new();
    script.join(1);
    script.feed(Event::Drain { worker: WorkerId(1), reason: "SIGTERM".into() });
    assert!(script.actions.contains(&Action::Release { worker: WorkerId(1) }));
    assert!(script.control.members().is_empty());
}

#[test]
fn a_worker_that_drains_may_go_when_the_job_ends() {
    let mut script = Script::running(1, config());
    script.feed(Event::Drain { worker: WorkerId(1), reason: "SIGTERM".into() });
    script.feed(Event::Cancel { job: JOB });
    assert!(script.actions.contains(&Action::Release { worker: WorkerId(1) }));
}

#[test]
fn when_the_last_worker_drains_the_job_waits_for_others() {
    let mut script = Script::running(1, config());
    script.feed(Event::Drain { worker: WorkerId(1), reason: "SIGTERM".into() });
    script.answer_all();
    assert_eq!((script.closed().len(), script.state(1)), (1, "waiting".into()));
    script.join(2);
    done(&mut script);
}

// Slow ones.

#[test]
fn what_a_slow_worker_owes_is_asked_of_another_too_and_the_first_answer_counts() {
    let mut script = Script::roomy(2, config());
    script.pass(0.1);
    script.answer_step();
    script.answer_of(1);
    script.pass(0.3);
    assert_eq!(script.asked(), asks(&[(2, "[4,8)")]), "four times as long as usual is not over");
    script.pass(0.2);
    assert_eq!(script.asked(), asks(&[(2, "[4,8)"), (1, "[4,8)")]));
    let slow = |action: &Action| matches!(action, Action::Note(Note::Reassigned { straggler: true, .. }));
    assert_eq!(script.count(slow), 1);
    script.pass(0.1);
    assert_eq!(script.asked().len(), 2, "it is asked of one other, once");
    script.answer_of(2);
    let accepted = script.accepted();
    assert_eq!(accepted.last().map(|accepted| (accepted.1, accepted.2)), Some((RIGHT_HALF, worker(2))));
    done(&mut script);
}

#[test]
fn who_was_overtaken_gets_nothing_until_it_has_answered() {
    let mut script = Script::roomy(2, config());
    script.pass(0.1);
    script.answer_step();
    script.answer_of(1);
    script.pass(0.6);
    let late = script.pending.remove(0);
    script.answer_of(1);
    assert_eq!(script.closed().len(), 2);
    assert!(script.pending.iter().all(|pending| pending.0 == WorkerId(1)), "{:?}", script.asked());
    script.result(late.0, late.1, late.2);
    assert_eq!(script.discarded(), Some(Discard::Late));
    script.answer_step();
    assert!(script.pending.iter().any(|pending| pending.0 == WorkerId(2)), "{:?}", script.asked());
    done(&mut script);
}

#[test]
fn one_that_hangs_is_given_up_where_nobody_else_holds_its_samples() {
    let mut script = Script::running(2, config());
    script.pass(0.1);
    script.answer_step();
    script.answer_of(1);
    script.pass(59.0);
    assert_eq!((script.disconnected(2), script.asked()), (None, asks(&[(2, "[4,8)")])));
    script.pass(2.0);
    assert!(matches!(script.disconnected(2), Some(Disconnection::Hung { .. })));
    done(&mut script);
}

#[test]
fn one_that_does_not_fetch_is_given_up_and_one_that_fetches_slowly_is_not() {
    let mut script = Script::running(1, config());
    script.slow = vec![WorkerId(2), WorkerId(3)];
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

// Wrong answers.

#[test]
fn two_that_compute_the_same_infinity_have_diverged() {
    let mut script = Script::roomy(2, config());
    script.answer_with(1, false, NAN);
    assert_eq!(script.asked(), asks(&[(2, "[4,8)"), (2, "[0,4)")]));
    script.answer_of(2);
    script.answer_with(2, false, NAN);
    assert!(matches!(script.outcome(1), Outcome::Diverged { work } if work.step == 0));
    assert_eq!(script.evicted(), [] as [u64; 0]);
}

#[test]
fn one_that_alone_computes_infinity_is_evicted_and_its_step_begun_anew() {
    let mut script = Script::roomy(3, config());
    script.answer_step();
    let placed = script.asked();
    let of_two: Vec<_> = placed.iter().filter(|ask| ask.0 == 2).collect();
    assert_eq!(of_two.len(), 2, "{placed:?}");
    script.answer_of(2);
    script.answer_with(2, false, NAN);
    let (other, work, node) = *script.pending.last().expect("another is asked");
    script.pending.pop();
    script.result(other, work, node);
    assert_eq!(script.evicted(), [], "two differ: nobody knows yet");
    script.answer_all();
    assert_eq!(script.evicted(), [2]);
    done(&mut script);
    let begun = |action: &Action| matches!(action, Action::Begin { work: begun } if *begun == work);
    assert_eq!(script.count(begun), 2);
}

#[test]
fn the_coordinator_decides_where_nobody_else_can() {
    let mut script = Script::roomy(2, config());
    script.answer_of(1);
    script.leave(2);
    script.answer_with(1, false, NAN);
    let (step, half) = (script.accepted()[0].0, RIGHT_HALF);
    assert!(script.actions.contains(&Action::Arbitrate { work: step, node: half }));
    assert_eq!(script.evicted(), [1]);
    assert_eq!(script.state(1), "waiting");
    script.join(3);
    done(&mut script);
    let by_three: Vec<_> = script.accepted().into_iter().filter(|(work, ..)| *work == step).skip(2).collect();
    assert!(by_three.iter().all(|accepted| accepted.2 == worker(3)), "{by_three:?}");
    let shards: u32 = by_three.iter().map(|(_, node, _)| node.len()).sum();
    assert_eq!(shards, 8, "all of the step is computed again");
}

#[test]
fn one_that_was_evicted_comes_again_in_vain() {
    let mut script = Script::roomy(1, config());
    script.answer_with(1, false, NAN);
    assert_eq!(script.evicted(), [1]);
    script.join_again(1, 2);
    assert_eq!(script.evicted(), [1, 2]);
    assert!(script.control.members().is_empty());
}

#[test]
fn one_whose_connection_broke_before_its_answer_was_found_wrong_is_evicted_too() {
    let mut script = Script::audited(3);
    script.answer_with(1, true, WRONG);
    script.join_again(1, 4);
    script.answer_step();
    assert_eq!(script.evicted(), [4]);
    done(&mut script);
}

#[test]
fn where_the_coordinator_cannot_compute_a_lone_worker_is_asked_twice() {
    let mut script = Script::roomy_and(1, config(), None);
    script.answer_with(1, false, NAN);
    script.answer_with(1, false, NAN);
    assert!(matches!(script.outcome(1), Outcome::Diverged { .. }));
}

#[test]
fn answers_that_nobody_asked_for_are_counted_against_their_sender() {
    let mut script = Script::roomy(2, config());
    let (_, work, node) = script.pending[1];
    (0..7).for_each(|_| script.result(WorkerId(1), work, node));
    assert_eq!(script.disconnected(1), None);
    script.result(WorkerId(1), work, node);
    assert_eq!(script.disconnected(1), Some(&Disconnection::Unassigned { answers: 8 }));
    done(&mut script);
}

#[test]
fn duplicates_and_late_answers_blame_nobody() {
    let mut script = Script::roomy(2, config());
    let (first, work, node) = script.pending[0];
    script.answer_of(1);
    (0..20).for_each(|_| script.result(first, work, node));
    script.answer_of(2);
    (0..20).for_each(|_| script.result(first, work, node));
    assert_eq!(script.disconnected(1), None);
    done(&mut script);
}

// Audits.

#[test]
fn an_audited_node_is_computed_by_two_and_used_once() {
    let mut script = Script::audited(2);
    let mut asked = script.asked();
    asked.sort();
    assert_eq!(asked, asks(&[(1, "[0,4)"), (1, "[4,8)"), (2, "[0,4)"), (2, "[4,8)")]));
    let before = script.accepted().len();
    script.answer_of(1);
    assert_eq!(script.accepted().len(), before, "one answer alone is not used");
    done(&mut script);
    assert_eq!(script.accepted().len(), 16);
    assert_eq!(script.arbitrated(), 2, "in the first step, where nobody else held the samples yet");
}

#[test]
fn a_third_settles_which_of_two_is_wrong() {
    let mut script = Script::audited(3);
    let arbitrated = script.arbitrated();
    let wrong =
        script.pending.iter().find(|pending| pending.0 == WorkerId(1)).map(|pending| (pending.1, pending.2));
    script.answer_with(1, true, WRONG);
    script.answer_step();
    assert_eq!((script.evicted(), script.arbitrated()), (vec![1], arbitrated));
    done(&mut script);
    let mut used = script.accepted().into_iter();
    assert!(used.all(|(work, node, source)| Some((work, node)) != wrong || source != worker(1)));
}

#[test]
fn of_two_that_differ_the_coordinator_knows_who_is_wrong() {
    let mut script = Script::audited(2);
    let arbitrated = script.arbitrated();
    script.answer_with(2, true, WRONG);
    script.answer_step();
    assert_eq!(script.evicted(), [2]);
    assert!(script.arbitrated() > arbitrated);
    done(&mut script);
}

#[test]
fn where_nobody_can_settle_it_neither_of_two_is_trusted() {
    let mut script = Script::roomy_and(2, ControlConfig { audit_rate: 1.0, ..config() }, None);
    script.answer_step();
    script.answer_with(2, true, WRONG);
    script.answer_step();
    assert_eq!(script.evicted(), [1, 2]);
    assert_eq!(script.state(1), "waiting");
    script.join_roomy(3);
    done(&mut script);
}

#[test]
fn who_contradicts_itself_is_evicted() {
    let mut script = Script::roomy_and(1, ControlConfig { audit_rate: 1.0, ..config() }, None);
    script.answer_with(1, true, RIGHT);
    script.answer_with(1, true, WRONG);
    assert_eq!(script.evicted(), [1]);
    script.join_roomy(2);
    done(&mut script);
}

// Disk and restarts.

#[test]
fn the_state_is_copied_between_steps_once_the_interval_is_over() {
    let mut script =
        Script::roomy(1, ControlConfig { checkpoint_interval: Some(Duration::from_secs(1)), ..config() });
    while !script.pending.is_empty() {
        script.pass(1.1);
        script.answer_step();
    }
    let copies: Vec<_> = script
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Checkpoint { from, .. } => {
                Some((from.position.epoch, from.position.step, from.parameter_tag))
            }
            _ => None,
        })
        .collect();
    assert_eq!(copies, [(0, 1, 1), (1, 1, 3)], "an epoch's end has its own");
}

#[test]
fn a_job_goes_on_where_its_checkpoint_says() {
    let position = Position { epoch: 1, phase: Phase::Train, step: 1 };
    let mut script = Script::new();
    script.from = Start { position, parameter_tag: 3 };
    script.join(1);
    script.submit(1);
    script.answer_all();
    let closed: Vec<_> =
        script.closed().iter().map(|work| (work.epoch, work.phase, work.parameter_tag)).collect();
    assert_eq!(closed, [(1, Phase::Train, 3), (1, Phase::Validate, 4), (1, Phase::Test, 4)]);
    assert_eq!(script.outcome(1), &Outcome::Done);
}

#[test]
fn a_job_that_was_trained_already_needs_no_worker_to_be_saved() {
    let mut script = Script::new();
    script.from = Start { position: Position::start_of(2), parameter_tag: 4 };
    script.submit(1);
    assert_eq!((script.outcome(1), script.closed().len()), (&Outcome::Done, 0));
}

#[test]
fn training_waits_for_a_disk_that_is_epochs_behind() {
    let mut facts = facts();
    facts.epochs = 5;
    let mut script = Script::with(config(), facts);
    script.writes = false;
    script.join(1);
    script.submit(1);
    script.answer_all();
    assert_eq!(script.control.waiting(), Waiting::Disk);
    assert_eq!(script.count(|action| matches!(action, Action::EndEpoch { .. })), 3);
    script.feed(Event::EpochWritten { job: JobId(1) });
    script.answer_all();
    assert_eq!(script.count(|action| matches!(action, Action::EndEpoch { .. })), 4);
    script.writes = true;
    script.feed(Event::EpochWritten { job: JobId(1) });
    script.answer_all();
    assert_eq!(script.outcome(1), &Outcome::Done);
}
