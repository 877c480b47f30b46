//! Wrong results are detected, their sender is evicted, and the model stays the same.

use millefeuille_core::control::WorkId;
use millefeuille_core::data::plan::Plan;
use millefeuille_core::learn::work::Workload;
use millefeuille_proto::v1;
use millefeuille_proto::v1::session_request::Message as Up;
use millefeuille_proto::v1::session_response::Message as Down;
use millefeuille_tests::cluster::Cluster;
use millefeuille_tests::home::{Home, binary};
use millefeuille_tests::process::{Process, until};
use millefeuille_tests::rpc::{RawWorker, hello_like};
use millefeuille_tests::run::Run;
use prost::Message as _;
use serde_json::Value;
use tonic::Code;

const JOB: &str = "small.toml --epochs 6";

/// Checks that the worker of this process was evicted: it was told so, and the run's files name it.
fn is_evicted(worker: &mut Process, run: &Run) {
    let name = format!(":{}", worker.pid());
    let error = worker.wait().error(9);
    assert!(error.contains("differs from another one"), "{error}");
    let told = run.told("evicted");
    assert!(told.len() == 1 && told[0].contains(&name), "{told:?}");
    // A worker whose results were never used, because others' were always first, took part in no step.
    let suspects = suspects(run);
    assert!(
        suspects.len() <= 1 && suspects.iter().all(|(suspect, _)| suspect.ends_with(&name)),
        "{suspects:?}"
    );
}

/// The suspects in the receipt, and the steps in which they took part.
fn suspects(run: &Run) -> Vec<(String, String)> {
    let receipt = run.receipt();
    let text = |suspect: &Value, key: &str| suspect[key].as_str().expect("it is a text").to_string();
    let suspects = receipt["suspects"].as_array().into_iter().flatten();
    suspects.map(|suspect| (text(suspect, "name"), text(suspect, "steps"))).collect()
}

#[test]
fn a_flipped_bit_is_detected_by_an_audit_and_attributed_by_the_coordinator() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster("--audit 1 --min-workers 1");
    let _good = cluster.joined_by("--slots 1");
    let mut bad = cluster.joined_with("worker-flip-bit=40*off->return");

    cluster.coordinator(&format!("train {JOB}")).succeeds();

    let run = home.run("runs/small-1");
    is_evicted(&mut bad, &run);
    alone.is_equalled_by(&run);
}

#[test]
fn of_three_workers_the_one_that_differs_is_evicted() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster("--audit 1 --min-workers 2");
    let mut good = cluster.joined_by_many(2, "--slots 1");
    let mut bad = cluster.joined_with("worker-flip-bit=40*off->return");

    cluster.coordinator(&format!("train {JOB}")).succeeds();

    let run = home.run("runs/small-1");
    is_evicted(&mut bad, &run);
    assert!(good.iter_mut().all(Process::is_running));
    alone.is_equalled_by(&run);
}

#[test]
fn the_only_worker_is_compared_with_the_coordinator() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster("--audit 1");
    let client = cluster.client();
    let mut bad = cluster.joined_with("worker-flip-bit=40*off->1*return");
    let mut following = cluster.coordinator(&format!("train {JOB}")).start();

    cluster.job_is(&client, "small-1", "waiting");
    bad.says("evicted from the cluster");
    let _good = cluster.joined_by("--slots 1");

    following.wait().with_code(0);
    let run = home.run("runs/small-1");
    is_evicted(&mut bad, &run);
    alone.is_equalled_by(&run);
}

/// The small job with a kernel that the coordinator of a cluster does not load by itself.
fn job_of_another_kernel(cluster: &Cluster<'_>) -> String {
    let good = cluster.client().workers().remove(0);
    let named = if good.kernel == "Haswell" { "Sandybridge" } else { "Haswell" };
    format!("{JOB} --blas-kernel {named}")
}

#[test]
fn the_coordinator_settles_a_job_of_another_kernel_by_a_process_of_its_own() {
    let home = Home::small();
    let cluster = home.cluster("--audit 1 --min-workers 1");
    let mut good = cluster.joined_by("--slots 1");
    let mut bad = cluster.joined_with("worker-flip-bit=40*off->return");
    let job = job_of_another_kernel(&cluster);

    cluster.coordinator(&format!("train {job}")).succeeds();

    let run = home.run("runs/small-1");
    is_evicted(&mut bad, &run);
    assert!(good.is_running());
    home.undisturbed(&job).is_equalled_by(&run);
}

#[test]
fn the_only_worker_of_a_job_of_another_kernel_is_compared_with_such_a_process() {
    let home = Home::small();
    let cluster = home.cluster("--audit 1");
    let client = cluster.client();
    // Always wrong, so it never contradicts itself.
    let mut bad = cluster.joined_with("worker-flip-bit=return");
    let job = job_of_another_kernel(&cluster);
    let mut following = cluster.coordinator(&format!("train {job}")).start();

    cluster.job_is(&client, "small-1", "waiting");
    bad.says("evicted from the cluster");
    let _good = cluster.joined_by("--slots 1");

    following.wait().with_code(0);
    let run = home.run("runs/small-1");
    is_evicted(&mut bad, &run);
    home.undisturbed(&job).is_equalled_by(&run);
}

#[test]
fn a_coordinator_that_cannot_settle_it_says_why_once_and_goes_on_without() {
    let home = Home::small();
    let serve = home.serve("127.0.0.1:0", "--audit 1").env("FAILPOINTS", "node-elsewhere=return");
    let cluster = Cluster::start(&home, serve);
    let _good = cluster.joined_by("--slots 1");
    let job = job_of_another_kernel(&cluster);

    cluster.coordinator(&format!("train {job}")).succeeds();

    let log = cluster.serve.stderr();
    let said = log.matches("cannot settle which result is right").count();
    assert!(said == 1 && log.contains("kills the process that computes with it (SIGABRT)"), "{log}");
    home.undisturbed(&job).is_equalled_by(&home.run("runs/small-1"));
}

#[test]
fn a_nan_result_is_recomputed_even_without_audit() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let cluster = home.cluster("--min-workers 1");
    let _good = cluster.joined_by("--slots 1");
    let mut bad = cluster.joined_with("worker-nan=40*off->1*return");

    cluster.coordinator(&format!("train {JOB}")).succeeds();

    let run = home.run("runs/small-1");
    is_evicted(&mut bad, &run);
    let suspects = suspects(&run);
    assert!(suspects.len() == 1 && suspects[0].1.starts_with("0–"), "from the first step on: {suspects:?}");
    alone.is_equalled_by(&run);
}

#[test]
fn no_worker_is_evicted_if_training_diverges() {
    let home = Home::small();
    for workers in [1, 3] {
        let cluster = home.cluster(&format!("--min-workers {workers}"));
        let mut good = cluster.joined_by_many(workers, "--slots 1");
        let name = format!("of-{workers}");

        let train = cluster.coordinator(&format!("train small.toml --learning-rate 3e38 --name {name}"));
        let error = train.run().error(6);

        assert!(error.contains("diverged"), "{error}");
        let run = home.run(&format!("runs/{name}-1"));
        assert!(run.told("evicted").is_empty(), "{:?}", run.told("evicted"));
        assert!(!run.has("receipt.json") && good.iter_mut().all(Process::is_running));
    }
}

/// A scripted worker that claims to hold every sample and computes nothing.
struct Pretender {
    raw: RawWorker,
    workload: Workload,
}

impl Pretender {
    fn joins(home: &Home, cluster: &Cluster<'_>) -> Self {
        let client = cluster.client();
        let good = client.workers().remove(0);
        let mut raw = client.hello(hello_like(&good)).expect("it is let in");
        raw.welcome();
        let start = raw.hears("job", |message| match message {
            Down::JobStart(start) => Some(start.clone()),
            _ => None,
        });
        let spec = start.spec.expect("a job has a spec");
        let fingerprint = shapes_fingerprint(home, &spec, &good.kernel);
        raw.send(Up::JobAccepted(v1::JobAccepted { job: start.job, fingerprint, shares_memory: false }));
        Self { raw, workload: Workload::new(spec.try_into().expect("a coordinator's spec is right")) }
    }

    /// Claims to hold every assigned shard, until nodes are assigned to it.
    fn is_asked(&mut self) -> v1::Work {
        loop {
            let message = self.raw.receive().expect("the session lasts").expect("it is asked for something");
            match message {
                Down::Hold(hold) => {
                    for shard in hold.shards {
                        let held = v1::ShardHeld { job: hold.job, id: shard.id, generation: hold.generation };
                        self.raw.send(Up::ShardHeld(held));
                    }
                }
                Down::Work(work) => return work,
                _ => {}
            }
        }
    }

    /// Sends a result of so many gradient bytes for a node, over the samples of the plan.
    fn sends(&self, work: &v1::Work, node: v1::Node, samples: u64, bytes: usize) {
        let id = WorkId::try_from(work.id.expect("work has a name")).expect("a coordinator's work is right");
        let digests = self.workload.digests(id.into(), node.first..node.end);
        self.sends_over(work, node, samples, bytes, &digests);
    }

    /// The same, over samples of these digests.
    fn sends_over(&self, work: &v1::Work, node: v1::Node, samples: u64, bytes: usize, digests: &[[u8; 32]]) {
        self.raw.send(Up::Result(v1::WorkResult {
            id: work.id,
            node: Some(node),
            loss_sum: 1.0,
            correct: 0,
            samples,
            sample_digests: digests.iter().map(|digest| digest.to_vec().into()).collect(),
            gradient_bytes: bytes as u64,
            gradient_slot: None,
            busy_ns: 1,
            ..Default::default()
        }));
        self.raw.send_bulk(bytes);
    }
}

/// The fingerprint of the job's shapes, from a process with the right kernel: the test may run with another one.
fn shapes_fingerprint(home: &Home, spec: &v1::Spec, kernel: &str) -> String {
    let input = std::fs::File::open(home.write("spec", spec.encode_to_vec())).expect("it was just written");
    let mut probe = home.command(&binary("coordinator"));
    let probe = probe.args(["__probe", "job"]).env("OPENBLAS_CORETYPE", kernel).stdin(input).output();
    let probe = probe.expect("the coordinator starts");
    let probed: Value = serde_json::from_slice(&probe.stdout).expect("it says how it computes");
    probed["shapes_fingerprint"].as_str().expect("there is a fingerprint").to_string()
}

/// Parameters of the small job's model, in bytes.
const BYTES: usize = (784 * 24 + 24 + 24 * 10 + 10) * 4;

/// Starts a slow normal worker and a scripted one, runs `does` with the latter, and waits until the job is done.
fn in_spite_of(pretend: impl FnOnce(&Home, &Cluster<'_>, Pretender)) {
    let home = Home::small();
    let job = "small.toml --epochs 12";
    let alone = home.undisturbed(job);
    let cluster = home.cluster("");
    let _good = cluster.joined_with("worker-slow=sleep(2)");
    let mut following = cluster.coordinator(&format!("train {job}")).start();
    following.says("Epoch 1/");

    pretend(&home, &cluster, Pretender::joins(&home, &cluster));

    following.wait().with_code(0);
    assert!(!cluster.serve.stderr().contains("panicked"), "{}", cluster.serve.stderr());
    alone.is_equalled_by(&home.run("runs/small-1"));
}

#[test]
fn a_result_of_another_shape_ends_its_senders_session() {
    in_spite_of(|home, _, mut pretender| {
        let work = pretender.is_asked();
        // The right number of bytes, but a wrong number of samples.
        pretender.sends(&work, work.nodes[0], 1_000_000, BYTES);
        let status = pretender.raw.end().expect("it is told why");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        home.run("runs/small-1").tells("left", "wrong shape");
    });
}

#[test]
fn a_result_over_other_samples_than_the_plans_ends_its_senders_session() {
    in_spite_of(|home, _, mut pretender| {
        let work = pretender.is_asked();
        let node = work.nodes[0];
        let digests = vec![[7; 32]; (node.end - node.first) as usize];
        pretender.sends_over(&work, node, samples_of(&work), BYTES, &digests);
        let status = pretender.raw.end().expect("it is told why");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        home.run("runs/small-1").tells("left", "is of other samples than the plan names");
    });
}

#[test]
fn a_late_result_is_ignored() {
    in_spite_of(|home, cluster, mut pretender| {
        let work = pretender.is_asked();
        // Its pending nodes were reassigned, and their results accepted.
        home.run("runs/small-1").tells("reassigned", "is a straggler in");
        let progress = home.run("runs/small-1").history().len();
        until("the job goes on without it", || {
            (home.run("runs/small-1").history().len() > progress).then_some(())
        });
        let samples = samples_of(&work);
        pretender.sends(&work, work.nodes[0], samples, BYTES);
        pretender.sends(&work, work.nodes[0], samples, BYTES);
        pretender.raw.send(Up::Goodbye(v1::Goodbye { reason: "enough".into() }));
        pretender.raw.end();
        // The log has it even if the job has ended meanwhile, to whose events nothing is added then.
        until("it leaves as it says", || {
            cluster.serve.stderr().contains(" left: it shut down: enough").then_some(())
        });
    });
}

#[test]
fn a_worker_is_disconnected_after_eight_unassigned_results() {
    in_spite_of(|home, _, mut pretender| {
        let work = pretender.is_asked();
        // The same unit of work, and a node that was assigned to another worker.
        let asked = |shard: u32| work.nodes.iter().any(|node| (node.first..node.end).contains(&shard));
        let shard = (0..8).find(|&shard| !asked(shard)).expect("it was not asked for everything");
        let id = work.id.expect("work has a name");
        let samples = u64::from(samples_of_shard(id.step, shard));
        for _ in 0..8 {
            pretender.sends(&work, v1::Node { first: shard, end: shard + 1 }, samples, BYTES);
        }
        let status = pretender.raw.end().expect("it is told why");
        assert_eq!(status.code(), Code::Aborted, "{status}");
        assert!(status.message().contains("results that were not assigned to it"), "{status}");
        home.run("runs/small-1").tells("left", "results that were not assigned to it");
    });
}

/// Samples of the first assigned node.
fn samples_of(work: &v1::Work) -> u64 {
    let step = work.id.expect("work has a name").step;
    (work.nodes[0].first..work.nodes[0].end).map(|shard| u64::from(samples_of_shard(step, shard))).sum()
}

/// Samples of a shard in a step of the small job: 1,602 training samples in steps of 100, distributed over 8 shards.
fn samples_of_shard(step: u32, shard: u32) -> u32 {
    let plan = Plan::new(1602, 100, 8);
    plan.piece(step, shard).len() as u32
}
