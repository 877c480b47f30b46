//! Invalid workers and other clients are refused with a reason, and do not affect the job.

use millefeuille_proto::v1;
use millefeuille_proto::v1::session_request::Message as Up;
use millefeuille_proto::v1::session_response::Message as Down;
use millefeuille_tests::cluster::Cluster;
use millefeuille_tests::data::SMALL_JOB;
use millefeuille_tests::home::Home;
use millefeuille_tests::process::{Process, until};
use millefeuille_tests::rpc::{Client, RawWorker, hello_like};
use tonic::Code;

/// Parameters of the small job's model.
const PARAMETERS: usize = 784 * 24 + 24 + 24 * 10 + 10;

/// A cluster whose only real worker computes a long job.
struct Busy<'h> {
    cluster: Cluster<'h>,
    client: Client,
    worker: Process,
}

impl<'h> Busy<'h> {
    fn new(home: &'h Home) -> Self {
        home.small_job();
        let cluster = home.cluster("");
        let client = cluster.client();
        let worker = cluster.joined_by("--slots 1");
        client.submit(&SMALL_JOB.replace("epochs = 3", "epochs = 100000"), "").expect("the job is taken");
        cluster.job_is(&client, "small-1", "running");
        Self { cluster, client, worker }
    }

    /// A valid hello.
    fn hello(&self) -> v1::Hello {
        hello_like(&self.client.workers()[0])
    }

    /// A scripted worker that was admitted and has received the job.
    fn guest(&self) -> (RawWorker, v1::Welcome, u64) {
        let mut guest = self.client.hello(self.hello()).expect("it is let in");
        let welcome = guest.welcome();
        let job = guest.hears("job", |message| match message {
            Down::JobStart(start) => Some(start.job),
            _ => None,
        });
        (guest, welcome, job)
    }

    /// Checks that the job continues.
    fn is_undisturbed(&mut self) {
        let steps = |client: &Client| {
            let metrics = client.metrics("").expect("there is a job");
            let progress = metrics.progress.expect("the job runs");
            (progress.epoch, progress.step)
        };
        let now = steps(&self.client);
        until("the job goes on", || (steps(&self.client) > now).then_some(()));
        assert_eq!(self.client.job_state("small-1"), "running");
        assert!(self.worker.is_running());
        let computing = |worker: &&v1::WorkerInfo| worker.state == "computing" && worker.end_shard == 8;
        assert_eq!(
            self.client.workers().iter().filter(computing).count(),
            1,
            "the good worker has all shards"
        );
        let log = self.cluster.serve.stderr();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// A result for a unit of work, in the format of a node's sum.
fn result(id: v1::WorkId, gradient_bytes: u64) -> v1::WorkResult {
    v1::WorkResult {
        id: Some(id),
        node: Some(v1::Node { first: 0, end: 8 }),
        loss_sum: 1.0,
        correct: 1,
        samples: 1,
        sample_digests: vec![vec![0; 32].into()],
        gradient_bytes,
        gradient_slot: None,
        busy_ns: 1,
        ..Default::default()
    }
}

fn work(job: u64, welcome: &v1::Welcome) -> v1::WorkId {
    let phase = v1::Phase::Train.into();
    v1::WorkId { job, incarnation: welcome.incarnation, phase, epoch: 0, step: 0, parameter_tag: 0 }
}

#[test]
fn another_protocol_is_refused_and_both_are_named() {
    let home = Home::new();
    let mut busy = Busy::new(&home);
    let hello = v1::Hello { protocol_version: 999, ..busy.hello() };

    let refusal = busy.client.hello(hello).unwrap_err();

    assert_eq!(refusal.code(), Code::FailedPrecondition);
    let ours = format!("protocol {}", millefeuille_proto::PROTOCOL_VERSION);
    assert!(refusal.message().contains("protocol 999") && refusal.message().contains(&ours), "{refusal}");
    busy.is_undisturbed();
}

#[test]
fn another_arithmetic_is_refused_and_both_are_named() {
    let home = Home::new();
    let mut busy = Busy::new(&home);
    let good = busy.hello();
    let arithmetic = good.arithmetic.clone().unwrap();
    let fingerprint = "f".repeat(64);
    let strange = v1::Arithmetic { fingerprint: fingerprint.clone(), ..arithmetic.clone() };

    // A worker that was started for the job's kernel, and still computes other bits.
    let refusal = busy.client.hello(v1::Hello { arithmetic: Some(strange.clone()), ..good.clone() }).unwrap();
    let refusal = refusal.end().unwrap();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    for named in [&fingerprint[..12], &arithmetic.fingerprint[..12], &arithmetic.kernel, &arithmetic.version]
    {
        assert!(refusal.message().contains(named), "{named} in {refusal}");
    }

    // A worker that was started for another kernel is restarted with the job's.
    let native = v1::Hello { arithmetic: Some(strange), started_for: "Elsewhere".into(), ..good };
    let kernel = busy.client.hello(native).unwrap().hears("kernel", |message| match message {
        Down::UseKernel(v1::UseKernel { kernel }) => Some(kernel.clone()),
        _ => None,
    });
    assert_eq!(kernel, arithmetic.kernel);
    busy.is_undisturbed();
}

#[test]
fn a_worker_with_another_fingerprint_of_the_jobs_shapes_is_refused() {
    let home = Home::new();
    let mut busy = Busy::new(&home);
    let (guest, _, job) = busy.guest();

    guest.send(Up::JobAccepted(v1::JobAccepted { job, fingerprint: "e".repeat(64), shares_memory: false }));

    let refusal = guest.end().unwrap();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert!(refusal.message().contains("the job's own shapes"), "{refusal}");
    busy.is_undisturbed();
}

#[test]
fn a_training_admits_only_its_own_workers() {
    // Given a training and the address of its own cluster.
    let home = Home::new();
    home.small_job();
    let mut train = home.coordinator("train small.toml --epochs 100000 --workers 1 --run-dir run").start();
    train.says("Epoch 1/");
    let arguments = train.children()[0].arguments();
    let address = arguments.iter().skip_while(|argument| *argument != "--coordinator").nth(1).unwrap();
    let client = Client::connect(address);
    let hello = hello_like(&client.workers()[0]);

    for token in ["", "0123456789abcdef0123456789abcdef"] {
        let refusal = client.hello(v1::Hello { token: token.into(), ..hello.clone() }).unwrap_err();
        assert_eq!(refusal.code(), Code::Unauthenticated);
        assert!(refusal.message().contains("token"), "{refusal}");
    }

    let error = home.worker(&format!("--coordinator {address}")).fails(4);
    assert!(error.contains(address) && error.contains("token"), "{error}");
    assert!(!arguments.iter().any(|argument| argument.contains("token")), "no token on a command line");
    assert!(train.is_running());
}

#[test]
fn only_a_hello_opens_a_session() {
    let home = Home::new();
    let mut busy = Busy::new(&home);
    let good = busy.hello();

    let openings = [
        Up::Chunk(v1::Chunk { data: vec![0; 10].into() }),
        Up::Goodbye(v1::Goodbye { reason: "too early".into() }),
        Up::Hello(v1::Hello { arithmetic: None, ..good.clone() }),
        Up::Hello(v1::Hello { slots: 0, ..good }),
    ];
    for opening in openings {
        let refusal = busy.client.session(opening.clone()).unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{opening:?}: {refusal}");
    }
    busy.is_undisturbed();
}

#[test]
fn garbage_ends_only_its_senders_session() {
    let home = Home::new();
    let mut busy = Busy::new(&home);
    let bytes = (PARAMETERS * 4) as u64;

    type Garbage = fn(&RawWorker, v1::WorkId, u64);
    let garbage: [(&str, &str, Garbage); 10] = [
        ("a second hello", "a second hello", |guest, _, _| {
            guest.send(Up::Hello(v1::Hello {
                slots: 1,
                arithmetic: Some(v1::Arithmetic::default()),
                ..Default::default()
            }))
        }),
        ("a chunk without header", "a chunk that belongs to nothing", |guest, _, _| guest.send_bulk(100)),
        ("a message of no kind", "it sent a message of an unknown kind", |guest, _, _| guest.send_nothing()),
        ("a result without a name", "`id` is missing", |guest, id, bytes| {
            guest.send(Up::Result(v1::WorkResult { id: None, ..result(id, bytes) }));
        }),
        ("a gradient of another size", "a gradient of ", |guest, id, bytes| {
            guest.send(Up::Result(result(id, bytes + 4)))
        }),
        ("more than was announced", "more than the ", |guest, id, bytes| {
            guest.send(Up::Result(result(id, bytes)));
            guest.send_bulk(bytes as usize - 4);
            guest.send_bulk(8);
        }),
        ("something in the middle of a gradient", "a result is not complete", |guest, id, bytes| {
            guest.send(Up::Result(result(id, bytes)));
            guest.send_bulk(1000);
            guest.send(Up::JobAccepted(v1::JobAccepted {
                job: id.job,
                fingerprint: String::new(),
                shares_memory: false,
            }));
        }),
        ("a node that the tree does not have", "the tree has no node [3,6)", |guest, id, bytes| {
            let node = Some(v1::Node { first: 3, end: 6 });
            guest.send(Up::Result(v1::WorkResult { node, ..result(id, bytes) }));
            guest.send_bulk(bytes as usize);
        }),
        ("a gradient in memory that it does not share", "no gradient in slot 0", |guest, id, _| {
            guest.send(Up::Result(v1::WorkResult { gradient_slot: Some(0), ..result(id, 0) }));
        }),
        ("no gradient", "has the wrong shape", |guest, id, _| guest.send(Up::Result(result(id, 0)))),
    ];
    for (what, reason, send) in garbage {
        let (guest, welcome, job) = busy.guest();
        send(&guest, work(job, &welcome), bytes);
        let status = guest.end().expect("it is told why");
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
        assert!(status.message().contains(reason), "{what}: {status}");
        until(format!("after {what} its sender is gone"), || {
            (busy.client.workers().len() == 1).then_some(())
        });
        assert_eq!(
            busy.client.heartbeat(welcome.worker_id, welcome.incarnation).unwrap_err().code(),
            Code::NotFound,
            "{what}"
        );
    }
    busy.is_undisturbed();
}

#[test]
fn unassigned_results_are_ignored() {
    let home = Home::new();
    let mut busy = Busy::new(&home);
    let (guest, welcome, job) = busy.guest();
    let bytes = (PARAMETERS * 4) as u64;

    // Results of a job that does not run, complete and of unlimited announced size …
    let elsewhere = v1::WorkId { job: job + 7, ..work(job, &welcome) };
    guest.send(Up::Result(result(elsewhere, 1000)));
    guest.send_bulk(1000);
    // … and of the running job: of an earlier step, of another incarnation, of the whole tree.
    let past = work(job, &welcome);
    let other_life = v1::WorkId { incarnation: welcome.incarnation ^ 1, ..past };
    for id in [past, other_life] {
        guest.send(Up::Result(result(id, bytes)));
        guest.send_bulk(bytes as usize);
    }
    // Held shards that were never fetched or do not exist.
    for index in [0, 7, 8, u32::MAX] {
        let id = Some(v1::ShardId { split: v1::Split::Train.into(), index });
        guest.send(Up::ShardHeld(v1::ShardHeld { job, id, generation: 1 }));
    }

    busy.is_undisturbed();
    guest.send(Up::Goodbye(v1::Goodbye { reason: "enough".into() }));
    guest.end();
    busy.is_undisturbed();
}

#[test]
fn a_session_that_ends_within_a_result_does_not_affect_the_job() {
    let home = Home::new();
    let mut busy = Busy::new(&home);
    let (guest, welcome, job) = busy.guest();

    guest.send(Up::Result(result(work(job, &welcome), (PARAMETERS * 4) as u64)));
    guest.send_bulk(1000);
    drop(guest);

    until("its sender is gone", || (busy.client.workers().len() == 1).then_some(()));
    busy.is_undisturbed();
}

#[test]
fn shards_are_sent_only_for_the_running_job() {
    use millefeuille_proto::v1::worker_client::WorkerClient;
    let home = Home::new();
    let mut busy = Busy::new(&home);
    let (guest, welcome, job) = busy.guest();
    let mut worker = WorkerClient::new(busy.client.channel());
    let mut fetch = |job: u64, split: v1::Split, index: u32| {
        let id = Some(v1::ShardId { split: split.into(), index });
        let request = v1::FetchShardRequest { worker_id: welcome.worker_id, job, id };
        let stream = busy.client.wait(worker.fetch_shard(request))?.into_inner();
        Ok::<usize, tonic::Status>(busy.client.rest(stream)?.iter().map(|part| part.data.len()).sum())
    };

    // Of 1,602 training samples the first of eight shards has 201: 784 pixels and a label each.
    assert_eq!(fetch(job, v1::Split::Train, 0).unwrap(), 201 * 785);
    assert_eq!(fetch(job, v1::Split::Train, 8).unwrap_err().code(), Code::NotFound);
    assert_eq!(fetch(job, v1::Split::Unspecified, 0).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(fetch(job + 1, v1::Split::Train, 0).unwrap_err().code(), Code::NotFound);
    drop(guest);
    busy.is_undisturbed();
}

#[test]
fn a_worker_without_heartbeats_is_disconnected() {
    let home = Home::new();
    let cluster = home.cluster("--heartbeat-interval 0.2 --heartbeat-deadline 1");
    let client = cluster.client();
    let _worker = cluster.joined_by("--slots 1");
    let guest = client.hello(hello_like(&client.workers()[0])).unwrap();

    let status = guest.end().unwrap();

    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("nothing came from this worker"), "{status}");
    assert_eq!(client.workers().len(), 1);
}

#[test]
fn heartbeats_without_a_session_are_refused() {
    let home = Home::new();
    let cluster = home.cluster("");
    let client = cluster.client();
    assert_eq!(client.heartbeat(77, 0).unwrap_err().code(), Code::NotFound);
}
