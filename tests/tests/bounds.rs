//! Denial-of-service tests: each attack runs during a job, which must end with the same weights.
//!
//! The coordinator's memory and the length of its log have limits.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use millefeuille_proto::v1;
use millefeuille_proto::v1::session_request::Message as Up;
use millefeuille_proto::v1::session_response::Message as Down;
use millefeuille_proto::wire::REQUEST_BYTES;
use millefeuille_tests::attack::{
    CONTINUATION, DATA, END_HEADERS, HEADERS, Outcome, PING, PREFACE, RST_STREAM, SETTINGS, Target, call,
    frame,
};
use millefeuille_tests::cluster::Cluster;
use millefeuille_tests::data::SMALL_JOB;
use millefeuille_tests::home::Home;
use millefeuille_tests::patience::{answer_of, until};
use millefeuille_tests::process::Process;
use millefeuille_tests::rpc::{Client, hello_like};
use millefeuille_tests::run::Run;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

/// The limit of the coordinator's resident memory.
const PEAK_KIB: u64 = 300 * 1024;
/// The most warnings that the coordinator may log for an attack.
const LINES: usize = 20;
/// The most concurrent calls of a connection.
const CALLS: usize = 32;
/// The size of the small job's gradient.
const GRADIENT_BYTES: usize = 4 * (784 * 24 + 24 + 24 * 10 + 10);
/// The epochs of the jobs that run during the attacks.
const EPOCHS: usize = 40;
const SESSION: &str = "/millefeuille.v1.Worker/Session";

/// A cluster that trains one job after the other, and its attacker.
struct Attack<'h> {
    cluster: Cluster<'h>,
    _worker: Process,
    target: Target,
    operator: Option<PathBuf>,
    jobs: Jobs,
    runtime: Runtime,
}

/// Jobs that are trained one after another during the attacks.
struct Jobs {
    over: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Jobs {
    /// Starts the jobs. Each must have the results of the reference run.
    fn begin(home: &Home, client: Client) -> Self {
        let undisturbed = home.undisturbed(&format!("small.toml --epochs {EPOCHS}"));
        let runs = home.path("runs");
        let job = SMALL_JOB.replace("epochs = 3", &format!("epochs = {EPOCHS}"));
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_over, counted) = (Arc::clone(&over), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::SeqCst) {
                let id = client.submit(&job, "").expect("the job is taken");
                client.watch_job(&id);
                undisturbed.is_equalled_by(&Run::new(runs.join(id)));
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { over, done, thread }
    }

    /// Waits until the current job is done.
    fn wait_for_current(&self, what: &str) {
        let now = self.done.load(Ordering::SeqCst);
        until(format!("the job that ran during {what} is done"), || {
            assert!(!self.thread.is_finished(), "{what}: a job has failed");
            (self.done.load(Ordering::SeqCst) > now).then_some(())
        });
    }

    fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().expect("every job succeeds");
    }
}

impl<'h> Attack<'h> {
    /// Without TLS.
    fn plain(home: &'h Home) -> Self {
        home.small_job();
        let cluster = home.cluster("");
        let worker = cluster.joined_by("--slots 1");
        Self::of(home, cluster, worker, None, None)
    }

    /// With TLS. The attacker has a worker's certificate.
    fn encrypted(home: &'h Home) -> Self {
        home.small_job();
        home.certificates();
        let cluster = home.cluster("--tls certs/coordinator");
        let worker = cluster.joined_by("--slots 1 --tls certs/worker");
        let directory = |role: &str| Some(home.path("certs").join(role));
        Self::of(home, cluster, worker, directory("worker"), directory("operator"))
    }

    fn of(
        home: &'h Home,
        cluster: Cluster<'h>,
        worker: Process,
        tls: Option<PathBuf>,
        operator: Option<PathBuf>,
    ) -> Self {
        let target = Target { address: cluster.address.clone(), tls };
        let runtime = Runtime::new().expect("a runtime can be made");
        let jobs = Jobs::begin(home, Client::connect_with(&cluster.address, operator.clone()));
        Self { cluster, _worker: worker, target, operator, jobs, runtime }
    }

    fn client(&self) -> Client {
        Client::connect_with(&self.cluster.address, self.operator.clone())
    }

    /// A client with the attacker's certificate.
    fn attacker(&self) -> Client {
        Client::connect_with(&self.cluster.address, self.target.tls.clone())
    }

    /// Runs an attack during a job, and checks the job and the length of the log.
    fn during_a_job<T>(&self, what: &str, attack: impl FnOnce() -> T) -> T {
        let before = self.cluster.serve.stderr().len();
        let outcome = attack();
        self.jobs.wait_for_current(what);
        let log = self.cluster.serve.stderr();
        let warnings: Vec<_> = log[before..].lines().filter(|line| line.contains("WARN")).collect();
        assert!(warnings.len() <= LINES, "{what}: {} lines, such as {:#?}", warnings.len(), &warnings[..5]);
        assert!(!log.contains("panicked"), "{what}: {log}");
        outcome
    }

    /// Floods one connection.
    fn flood(&self, what: &str, times: usize, bytes: impl Fn(u32) -> Vec<u8>) -> Outcome {
        self.during_a_job(what, || {
            self.wait(self.target.flood(times, bytes)).expect("a connection is let in")
        })
    }

    fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(answer_of("an attack is over", what))
    }

    /// Attacks by clients that have not authenticated.
    fn by_strangers(&self) {
        idle_connections(self);
        slow_hellos(self);
        random_bytes(self);
    }

    /// Attacks with calls that the attacker's certificate allows.
    fn by_members(&self) {
        announced_4_gigabytes(self);
        unassigned_results(self);
    }

    /// Checks the memory, and that every job had the same weights.
    fn ends_with_small_memory(self) {
        let peak = peak_kib(&self.cluster.serve);
        println!("peak of the coordinator: {} MB", peak / 1024);
        assert!(peak < PEAK_KIB, "the coordinator came to {peak} KiB");
        self.jobs.end();
    }
}

fn peak_kib(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a process has a peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[test]
fn without_tls_the_coordinator_survives_every_attack() {
    let home = Home::new();
    let attack = Attack::plain(&home);
    attack.by_strangers();
    attack.by_members();
    huge_metadata(&attack);
    incomplete_calls(&attack);
    frame_floods(&attack);
    attack.ends_with_small_memory();
}

/// HTTP/2 and metadata are read by the same code with and without TLS: the test without TLS covers their floods.
#[test]
fn with_tls_the_coordinator_survives_attacks_by_an_authenticated_worker() {
    let home = Home::new();
    let attack = Attack::encrypted(&home);
    attack.by_strangers();
    attack.by_members();
    attack.ends_with_small_memory();
}

/// The HTTP and gRPC statuses of a call with so much metadata and this incomplete body.
async fn answer(
    target: &Target,
    path: &str,
    metadata: usize,
    body: Vec<u8>,
) -> Result<(u16, String), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = target.connection().await.map_err(|error| text(&error))?;
    let (send, connection) = h2::client::handshake(stream).await.map_err(|error| text(&error))?;
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-long", "a".repeat(metadata))
        .body(())
        .expect("a request");
    let mut send = send.ready().await.map_err(|error| text(&error))?;
    let (response, mut stream) = send.send_request(request, false).map_err(|error| text(&error))?;
    // The response may be sent before this arrives.
    let _ = stream.send_data(Bytes::from(body), false);
    let response = response.await.map_err(|error| text(&error))?;
    let http = response.status().as_u16();
    let said = |headers: &http::HeaderMap| Some(headers.get("grpc-status")?.to_str().ok()?.to_string());
    let at_once = said(response.headers());
    let mut body = response.into_body();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.ok().flatten();
    Ok((http, at_once.or(trailers.as_ref().and_then(said)).unwrap_or_default()))
}

fn announced_4_gigabytes(attack: &Attack<'_>) {
    const OUT_OF_RANGE: &str = "11";
    let path = if attack.target.tls.is_some() { SESSION } else { "/millefeuille.v1.Cluster/SubmitJob" };
    let announced = [&[0, 0xff, 0xff, 0xff, 0xff][..], &[b'x'; 100]].concat();
    let statuses = attack.during_a_job("4 GB", || {
        let ask = |_| attack.wait(answer(&attack.target, path, 0, announced.clone()));
        (0..20).map(ask).collect::<Vec<_>>()
    });
    for status in statuses {
        assert_eq!(status, Ok((200, OUT_OF_RANGE.to_string())));
    }
}

fn huge_metadata(attack: &Attack<'_>) {
    const TOO_LARGE: u16 = 431;
    let answers = attack.during_a_job("metadata", || {
        let ask = |bytes| attack.wait(answer(&attack.target, SESSION, bytes, Vec::new()));
        [17 << 10, 60 << 10, 1 << 20, 16 << 20].map(ask)
    });
    println!("huge metadata: {answers:?}");
    for answer in answers {
        assert!(answer.is_err() || answer.is_ok_and(|(status, _)| status == TOO_LARGE));
    }
}

fn idle_connections(attack: &Attack<'_>) {
    const CONNECTIONS: usize = 10_000;
    millefeuille_program::machine::needs::raise();
    let late = attack.during_a_job("10,000 connections", || {
        let opened = attack.wait(async {
            let mut opened = Vec::with_capacity(CONNECTIONS);
            for _ in 0..CONNECTIONS {
                opened.extend(attack.target.socket().await.ok());
            }
            opened
        });
        assert!(opened.len() > CONNECTIONS / 2, "{} connections were taken", opened.len());
        // A normal client can still connect.
        let late = attack.client();
        assert_eq!(late.workers().len(), 1);
        drop(opened);
        late
    });
    assert_eq!(late.workers().len(), 1, "its connection stays open");
    let log = attack.cluster.serve.stderr();
    assert!(log.contains("too many others wait without saying who they are"), "{log}");
}

/// Connections that send a part of the preface, and sessions that send no hello.
fn slow_hellos(attack: &Attack<'_>) {
    let statuses = attack.during_a_job("slow hellos", || {
        attack.wait(async {
            let mut half = Vec::new();
            for _ in 0..200 {
                let mut socket = attack.target.socket().await.expect("the socket is taken");
                let begin: &[u8] = if attack.target.tls.is_some() { &[22, 3, 1] } else { b"PRI * HT" };
                socket.write_all(begin).await.expect("it is heard");
                half.push(socket);
            }
            let sessions = (0..50).map(|_| answer(&attack.target, SESSION, 0, Vec::new()));
            let statuses = futures_util::future::join_all(sessions).await;
            for mut socket in half {
                let end = socket.read(&mut [0; 64]).await;
                assert!(matches!(end, Ok(0) | Err(_)), "the connection is closed: {end:?}");
            }
            statuses
        })
    });
    const DEADLINE_EXCEEDED: &str = "4";
    for status in statuses {
        assert_eq!(status, Ok((200, DEADLINE_EXCEEDED.to_string())));
    }
}

fn random_bytes(attack: &Attack<'_>) {
    attack.during_a_job("garbage", || {
        for first in (0..2_000).step_by(100) {
            let sent = (first..first + 100).map(|seed| garbage(&attack.target, seed));
            attack.wait(futures_util::future::join_all(sent));
        }
    });
}

/// Sends random bytes, perhaps after the beginning of TLS, HTTP/2 or HTTP/1.1, and waits until the coordinator closes.
async fn garbage(target: &Target, seed: u64) {
    let begins: [&[u8]; 4] = [&[], &[22, 3, 1, 0, 60], PREFACE, b"GET / HTTP/1.1\r\n"];
    let begin = begins[seed as usize % begins.len()];
    let garbage = (0..64).map(|index| (seed.wrapping_mul(6_364_136_223_846_793_005) >> (index % 57)) as u8);
    let mut socket = target.socket().await.expect("the socket is taken");
    // It may have been closed after the first bytes.
    let _ = socket.write_all(&begin.iter().copied().chain(garbage).collect::<Vec<_>>()).await;
    if begin == PREFACE {
        // The random bytes may be the beginning of a valid frame, whose rest HTTP/2 waits for.
        let _ = socket.shutdown().await;
    }
    let _ = socket.read_to_end(&mut Vec::new()).await;
}

/// On many connections, as many calls as are allowed, each with a message of the largest size whose last byte is missing.
fn incomplete_calls(attack: &Attack<'_>) {
    let path = if attack.target.tls.is_some() { SESSION } else { "/millefeuille.v1.Cluster/SubmitJob" };
    attack.during_a_job("half calls", || {
        let announced = u32::try_from(REQUEST_BYTES).expect("not so many");
        let body = [&[0][..], &announced.to_be_bytes(), &vec![b'x'; REQUEST_BYTES - 1]].concat();
        let held = attack.wait(async {
            let mut held = Vec::new();
            for _ in 0..100 {
                let stream = attack.target.connection().await.expect("it is let in");
                let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2 begins");
                tokio::spawn(connection);
                let mut send = send.ready().await.expect("it takes calls");
                for _ in 0..CALLS {
                    let request = http::Request::post(format!("http://localhost{path}"))
                        .header("content-type", "application/grpc")
                        .header("te", "trailers")
                        .body(())
                        .expect("a request");
                    let (response, mut stream) = send.send_request(request, false).expect("a call can begin");
                    stream.send_data(Bytes::from(body.clone()), false).expect("it can go on");
                    held.push((response, stream));
                    send = send.ready().await.expect("it takes calls");
                }
            }
            held
        });
        attack.jobs.wait_for_current("half calls that are held");
        drop(held);
    });
}

fn frame_floods(attack: &Attack<'_>) {
    let headers = call(SESSION);
    let reset = 8_u32.to_be_bytes();
    let rapid = attack.flood("rapid reset", 100_000, |stream| {
        [frame(HEADERS, END_HEADERS, stream, &headers), frame(RST_STREAM, 0, stream, &reset)].concat()
    });
    assert_eq!(rapid, Outcome::Closed, "rapid reset");
    let settings = attack.flood("settings", 300_000, |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]));
    let pings = attack.flood("pings", 300_000, |_| frame(PING, 0, 0, &[0; 8]));
    let empty = attack.flood("empty data", 100_000, |_| frame(DATA, 0, 1, &[]));
    assert_eq!(empty, Outcome::Closed, "data of a call that does not exist");
    let endless = attack.flood("endless headers", 10_000, |stream| {
        let kind = if stream == 1 { HEADERS } else { CONTINUATION };
        frame(kind, 0, 1, &[&[0x00, 0x01, b'x', 0x7f, 0x81, 0x7e][..], &[b'y'; 16_000]].concat())
    });
    assert_eq!(endless, Outcome::Closed, "endless headers");
    let garbage = attack.flood("unknown frames", 100_000, |_| frame(0xee, 0xff, 0, &[7; 64]));
    println!("floods: settings {settings:?}, pings {pings:?}, unknown frames {garbage:?}");
}

/// A worker with a valid hello sends results that were not assigned to it.
fn unassigned_results(attack: &Attack<'_>) {
    attack.during_a_job("unassigned results", || {
        let workers = attack.client().workers();
        for _ in 0..5 {
            let mut attacker = attack.attacker().hello(hello_like(&workers[0])).expect("it is let in");
            let welcome = attacker.welcome();
            let job = attacker.hears("job", |message| match message {
                Down::JobStart(start) => Some(start.job),
                _ => None,
            });
            let unassigned = |job, gradient_bytes| {
                let id = v1::WorkId { job, incarnation: welcome.incarnation, epoch: 9, ..Default::default() };
                v1::WorkResult { id: Some(id), gradient_bytes, samples: 1, ..Default::default() }
            };
            // Of an unknown job: a terabyte each is announced, and nothing sent.
            (0..2_000).for_each(|_| attacker.send(Up::Result(unassigned(job + 1000, 1 << 40))));
            // Of this job: complete sums.
            let bytes = GRADIENT_BYTES as u64;
            for _ in 0..200 {
                attacker.send(Up::Result(unassigned(job, bytes)));
                attacker.send_bulk(GRADIENT_BYTES);
            }
            let _ = attacker.end();
        }
    });
}
