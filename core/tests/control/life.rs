//! A job from its submission to its end with workers without faults, and which workers are admitted.

use std::time::Duration;

use millefeuille_core::control::{
    Action, ControlConfig, Discard, Disconnection, Event, Failure, Hello, JobId, MemberState, Note, Outcome,
    Phase, Waiting, WorkId, WorkerId,
};
use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::shard::Shard;
use millefeuille_core::data::split::{Sizes, Split};
use millefeuille_core::failure::FailureKind;

use crate::script::{JOB, SHARDS, Script, arithmetic, config, facts, hello};

#[test]
fn a_job_goes_through_its_steps_and_evaluations_in_order() {
    let mut script = Script::new();
    script.join(1);
    script.submit(1);
    script.wait(0.0);
    script.return_all();
    let steps: Vec<_> =
        script.closed().iter().map(|work| (work.epoch, work.phase, work.step, work.parameter_tag)).collect();
    assert_eq!(
        steps,
        [
            (0, Phase::Train, 0, 0),
            (0, Phase::Train, 1, 1),
            (0, Phase::Validate, 0, 2),
            (0, Phase::Test, 0, 2),
            (1, Phase::Train, 0, 2),
            (1, Phase::Train, 1, 3),
            (1, Phase::Validate, 0, 4),
            (1, Phase::Test, 0, 4),
        ]
    );
    assert_eq!(script.count(|action| matches!(action, Action::EndEpoch { .. })), 2);
    assert_eq!(script.outcome(1), &Outcome::Done);
}

#[test]
fn without_validation_split_nothing_is_validated() {
    let mut facts = facts();
    facts.sizes.validation = 0;
    let mut script = Script::with(config(), facts);
    script.join(1);
    script.submit(1);
    script.return_all();
    assert!(script.closed().iter().all(|work| work.phase != Phase::Validate));
    assert_eq!(script.outcome(1), &Outcome::Done);
}

#[test]
fn a_worker_is_assigned_as_few_nodes_as_possible() {
    let mut script = Script::with(ControlConfig { expected_workers: 3, ..config() }, facts());
    (1..=3).for_each(|worker| script.join(worker));
    script.submit(1);
    let assigned = script.pending_nodes();
    assert!(assigned.len() <= 5, "{assigned:?}");
    let shards: u32 = script.pending.iter().map(|(_, _, node)| node.end - node.first).sum();
    assert_eq!(shards, SHARDS);
}

#[test]
fn shards_without_samples_are_not_assigned() {
    let mut facts = facts();
    // Seven samples in steps of three: a step has samples of three shards, the last of one.
    facts.plan = Plan::new(7, 3, SHARDS);
    facts.sizes = Sizes { train: 7, validation: 2, test: 1 };
    let mut script = Script::with(ControlConfig { expected_workers: 8, ..config() }, facts);
    (1..=8).for_each(|worker| script.join(worker));
    script.submit(1);
    let mut counts = Vec::new();
    while !script.pending.is_empty() {
        counts.push(script.pending.len());
        script.return_all_of_step();
    }
    assert_eq!(counts, [3, 3, 1, 2, 1, 3, 3, 1, 2, 1]);
    assert_eq!(script.outcome(1), &Outcome::Done);
}

#[test]
fn a_job_waits_a_short_time_for_the_expected_workers() {
    let mut script = Script::with(ControlConfig { expected_workers: 2, ..config() }, facts());
    script.submit(1);
    script.join(1);
    assert!(script.pending.is_empty(), "the job has begun with one of two workers");
    script.wait(1.9);
    script.heard(1);
    assert!(script.pending.is_empty());
    script.wait(0.2);
    assert_eq!(script.pending_nodes(), [(1, "[0,8)".to_string())]);
}

#[test]
fn with_too_few_workers_a_job_reports_that_it_waits_and_ends_after_the_limit() {
    let limit = Duration::from_secs(60);
    let mut script =
        Script::with(ControlConfig { min_workers: 2, wait_workers: Some(limit), ..config() }, facts());
    script.join(1);
    script.submit(1);
    script.wait(3.0);
    script.heard(1);
    assert_eq!(script.state(1), "waiting");
    assert_eq!(script.control.waiting(), Waiting::Workers { present: 1, needed: 2, since: Duration::ZERO });
    for _ in 0..15 {
        script.wait(4.0);
        script.heard(1);
    }
    assert!(matches!(script.outcome(1), Outcome::TooFewWorkers { present: 1, needed: 2, .. }));
}

#[test]
fn without_a_limit_a_job_waits_until_a_worker_joins() {
    let mut script = Script::new();
    script.submit(1);
    script.wait(1e6);
    assert_eq!(script.state(1), "waiting");
    script.join(1);
    script.wait(0.1);
    script.return_all();
    assert_eq!(script.outcome(1), &Outcome::Done);
}

#[test]
fn jobs_run_one_after_another_in_the_order_of_their_submission() {
    let mut script = Script::new();
    script.join(1);
    (1..=3).for_each(|job| script.submit(job));
    assert_eq!([1, 2, 3].map(|job| script.state(job)), ["running", "queued", "queued"]);
    assert_eq!([1, 2, 3].map(|job| script.control.queue_place(JobId(job))), [None, Some(1), Some(2)]);
    script.return_all();
    assert_eq!([1, 2, 3].map(|job| script.state(job)), ["done", "done", "done"]);
    let ends: Vec<_> = script
        .actions
        .iter()
        .filter_map(|action| if let Action::End { job, .. } = action { Some(job.0) } else { None })
        .collect();
    assert_eq!(ends, [1, 2, 3]);
}

#[test]
fn a_cancelled_job_ends_and_the_next_one_runs() {
    let mut script = Script::new();
    script.join(1);
    (1..=3).for_each(|job| script.submit(job));
    script.feed(Event::Cancel { job: JobId(2) });
    script.feed(Event::Cancel { job: JobId(1) });
    assert_eq!([1, 2, 3].map(|job| script.state(job)), ["cancelled", "cancelled", "running"]);
    script.return_all();
    assert_eq!(script.state(3), "done");
}

#[test]
fn a_result_of_a_cancelled_job_is_late() {
    let mut script = Script::new();
    script.join(1);
    script.submit(1);
    let (worker, work, node) = script.pending[0];
    script.feed(Event::Cancel { job: JOB });
    script.result(worker, work, node);
    assert_eq!(script.discarded(), Some(Discard::Late));
}

#[test]
fn a_new_worker_is_used_from_the_next_step_after_it_holds_its_samples() {
    let mut script = Script::new();
    script.join(1);
    script.submit(1);
    assert_eq!(script.pending_nodes(), [(1, "[0,8)".to_string())]);
    script.withholds_samples.push(WorkerId(2));
    script.join(2);
    assert_eq!(script.control.member_state(WorkerId(2)), MemberState::Fetching);
    script.return_all_of_step();
    assert_eq!(script.pending_nodes(), [(1, "[0,8)".to_string())], "it has no samples yet");
    for shard in script.shards_to_hold[&WorkerId(2)].clone() {
        script.feed(Event::ShardHeld { worker: WorkerId(2), job: JOB, generation: 1, shard });
    }
    assert_eq!(
        script.pending_nodes(),
        [(1, "[0,8)".to_string())],
        "the placement changes between steps only"
    );
    script.return_all_of_step();
    assert_eq!(script.pending_nodes(), [(1, "[0,4)".to_string()), (2, "[4,8)".to_string())]);
    assert_eq!(script.control.member_state(WorkerId(2)), MemberState::Computing);
    script.return_all();
    assert_eq!(script.outcome(1), &Outcome::Done);
}

#[test]
fn a_held_shard_of_an_earlier_generation_is_ignored() {
    let mut script = Script::new();
    script.join(1);
    script.submit(1);
    script.withholds_samples.push(WorkerId(2));
    script.join(2);
    for shard in script.shards_to_hold[&WorkerId(2)].clone() {
        script.feed(Event::ShardHeld { worker: WorkerId(2), job: JOB, generation: 0, shard });
    }
    script.return_all_of_step();
    assert_eq!(script.pending_nodes(), [(1, "[0,8)".to_string())]);
}

#[test]
fn prefetched_shards_stay_within_the_cache_limit() {
    let mut script = Script::with(ControlConfig { expected_workers: 2, ..config() }, facts());
    let cache_for = |samples: u64| Hello { cache_bytes: 785 * samples, ..hello("Zen", "native", 1) };
    // A shard has 10 training, 2 validation and 2 test samples; four of each are 56 samples.
    script.join_as(1, cache_for(56 + 14));
    script.join_as(2, cache_for(0));
    script.submit(1);
    let of = |worker: u64| -> Vec<u32> {
        let train = |shard: &&Shard| shard.split == Split::Train;
        script.shards_to_hold[&WorkerId(worker)].iter().filter(train).map(|shard| shard.index).collect()
    };
    assert_eq!(of(1), [0, 1, 2, 3, 4], "the cache has room for one more shard");
    assert_eq!(of(2), [4, 5, 6, 7], "a worker holds what it computes, even with a smaller cache");
}

#[test]
fn of_more_workers_than_shards_some_are_on_standby() {
    let mut facts = facts();
    facts.shards = 2;
    facts.plan = Plan::new(80, 40, 2);
    let mut script = Script::with(ControlConfig { expected_workers: 3, ..config() }, facts);
    (1..=3).for_each(|worker| script.join(worker));
    script.submit(1);
    assert_eq!(script.pending_nodes(), [(1, "[0,1)".to_string()), (2, "[1,2)".to_string())]);
    assert_eq!(script.control.member_state(WorkerId(3)), MemberState::Standby);
    assert_eq!(
        script.count(|action| matches!(action, Action::Hold { worker: WorkerId(3), standby: true, .. })),
        1
    );
    script.leave(3);
    script.return_all();
    assert_eq!(script.outcome(1), &Outcome::Done);
}

#[test]
fn a_worker_with_another_kernel_is_restarted_once_and_then_refused() {
    let mut script = Script::new();
    script.submit(1);
    script.join_as(1, hello("Haswell", "native", 1));
    let again = Action::UseKernel { worker: WorkerId(1), kernel: "Zen".into() };
    assert_eq!(script.actions.last(), Some(&again));
    script.join_as(2, hello("Haswell", "Zen", 1));
    let refused = Disconnection::Arithmetic { theirs: arithmetic("Haswell"), needed: arithmetic("Zen") };
    assert_eq!(script.actions.last(), Some(&Action::Disconnect { worker: WorkerId(2), reason: refused }));
    assert!(script.control.members().is_empty());
}

#[test]
fn the_arithmetic_of_members_is_checked_for_each_job() {
    let mut script = Script::new();
    script.join_as(1, hello("Haswell", "native", 1));
    script.join(2);
    assert_eq!(script.control.members().len(), 2, "without a job every worker is admitted");
    script.submit(1);
    let again = Action::UseKernel { worker: WorkerId(1), kernel: "Zen".into() };
    assert!(script.actions.contains(&again));
    script.return_all();
    assert_eq!(script.outcome(1), &Outcome::Done);
}

#[test]
fn a_worker_with_another_fingerprint_of_the_jobs_shapes_is_refused() {
    let mut script = Script::new();
    script.submit(1);
    let mut cluster_actions = script
        .control
        .handle(Duration::ZERO, Event::Join { worker: WorkerId(1), hello: hello("Zen", "native", 1) });
    assert!(cluster_actions.contains(&Action::StartJob { worker: WorkerId(1), job: JOB }));
    let accepted = Event::JobAccepted { worker: WorkerId(1), job: JOB, fingerprint: "other".into() };
    cluster_actions = script.control.handle(Duration::ZERO, accepted);
    let reason = Disconnection::Shapes { theirs: "other".into(), needed: "shapes".into() };
    assert_eq!(cluster_actions[0], Action::Disconnect { worker: WorkerId(1), reason });
    assert!(script.control.members().is_empty());
}

#[test]
fn a_full_cluster_refuses_further_workers() {
    let mut script = Script::with(ControlConfig { max_workers: 1, ..config() }, facts());
    script.join(1);
    script.join(2);
    let reason = Disconnection::Full { limit: 1 };
    assert_eq!(script.actions.last(), Some(&Action::Disconnect { worker: WorkerId(2), reason }));
}

#[test]
fn a_job_can_begin_after_the_loss_of_a_worker_before_the_first_step() {
    let mut script = Script::with(ControlConfig { expected_workers: 2, ..config() }, facts());
    script.withholds_samples = vec![WorkerId(2)];
    script.join(1);
    script.join(2);
    script.submit(1);
    assert_eq!(script.control.waiting(), Waiting::Samples(vec![WorkerId(2)]));
    script.leave(2);
    script.wait(2.0);
    script.return_all();
    assert_eq!(script.outcome(1), &Outcome::Done);
}

#[test]
fn late_duplicate_and_unassigned_results_are_discarded() {
    let mut script = Script::with(ControlConfig { expected_workers: 2, ..config() }, facts());
    script.join(1);
    script.join(2);
    script.submit(1);
    let (first, second) = (script.pending[0], script.pending[1]);
    script.result(first.0, first.1, first.2);
    script.result(first.0, first.1, first.2);
    assert_eq!(script.discarded(), Some(Discard::Duplicate));
    script.result(first.0, second.1, second.2);
    assert_eq!(script.discarded(), Some(Discard::Unassigned));
    let other_incarnation = WorkId { incarnation: 6, ..second.1 };
    script.result(second.0, other_incarnation, second.2);
    assert_eq!(script.discarded(), Some(Discard::Late));
    script.pending.retain(|pending| *pending != first);
    script.return_all();
    let late = script.closed().len();
    script.result(second.0, second.1, second.2);
    assert_eq!(script.discarded(), Some(Discard::Late));
    assert_eq!((script.closed().len(), late), (8, 8));
}

#[test]
fn a_loss_that_is_not_finite_ends_the_job() {
    let mut script = Script::new();
    script.diverges_at = Some(1);
    script.join(1);
    script.submit(1);
    script.return_all();
    assert!(matches!(script.outcome(1), Outcome::Diverged { work } if work.step == 1));
    assert_eq!(script.closed().len(), 2);
}

#[test]
fn a_failure_of_the_coordinator_ends_the_job_with_its_reason() {
    let mut script = Script::new();
    script.join(1);
    script.submit(1);
    let failure = Failure::new(FailureKind::NoSpace, "the disk is full");
    script.feed(Event::Broken { job: JOB, failure: failure.clone() });
    assert_eq!(script.outcome(1), &Outcome::Broken(failure));
}

#[test]
fn faster_workers_get_more_shards() {
    let mut script = Script::new();
    script.join_as(1, hello("Zen", "native", 3));
    script.submit(1);
    script.join(2);
    script.return_all_of_step();
    let shards: u32 =
        script.pending.iter().filter(|(worker, ..)| worker.0 == 1).map(|(_, _, node)| node.len()).sum();
    assert_eq!(shards, 6);
}

proptest::proptest! {
    /// Whenever workers join, each unit of work is closed exactly once and in order, and the job ends.
    #[test]
    fn joins_at_any_moment_change_nothing_but_the_placement(
        joins in proptest::collection::vec(0usize..40, 0..12),
        expected in 1usize..4,
    ) {
        let mut script = Script::with(ControlConfig { expected_workers: expected, ..config() }, facts());
        script.join(1);
        script.submit(1);
        script.wait(2.0);
        let mut results = 0;
        let mut next = 2;
        while !script.pending.is_empty() {
            for _ in joins.iter().filter(|&&at| at == results) {
                script.join(next);
                next += 1;
            }
            script.return_result();
            results += 1;
        }
        assert_eq!(script.outcome(1), &Outcome::Done);
        let closed = script.closed();
        assert_eq!(closed.len(), 8);
        assert!(closed.is_sorted());
        assert_eq!(script.count(|action| matches!(action, Action::Discard { .. })), 0);
        let placed = script.count(|action| matches!(action, Action::Note(Note::Assigned { .. })));
        assert!(placed <= next as usize, "{placed} placements for {next} workers");
    }
}
