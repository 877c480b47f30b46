//! The ops port: probes, metrics, and malicious clients.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use millefeuille_proto::v1;
use millefeuille_proto::v1::session_request::Message as Up;
use millefeuille_proto::v1::session_response::Message as Down;
use millefeuille_tests::ci;
use millefeuille_tests::cluster::{Cluster, closed_port, silent_listener};
use millefeuille_tests::exposition::Page;
use millefeuille_tests::home::Home;
use millefeuille_tests::http::{Port, rest};
use millefeuille_tests::process::{Signal, until};
use millefeuille_tests::raw_coordinator::RawCoordinator;
use serde_json::Value;

const OPS: &str = "--ops-listen 127.0.0.1:0";

/// Runs the job in the home. With [`long`] it does not end during the test.
const LONG: &str = "--job small.toml";

fn long() -> Home {
    let home = Home::small();
    let job = std::fs::read_to_string(home.path("small.toml")).expect("the job is there");
    home.write("small.toml", job.replace("epochs = 3", "epochs = 100000"));
    home
}

fn cluster<'h>(home: &'h Home, settings: &str) -> (Cluster<'h>, Port) {
    let mut cluster = home.cluster(&format!("{OPS} {settings}"));
    let port = Port::of(&mut cluster.serve);
    (cluster, port)
}

fn metrics(port: &Port) -> Page {
    let answer = port.request("GET", "/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    Page::read(&answer.body, "millefeuille_")
}

// Probes.

#[test]
fn a_coordinator_is_ready_without_workers_until_it_is_stopped() {
    let home = long();
    // The disk hangs at the first checkpoint, which delays the shutdown until the test continues.
    let call = home.serve("127.0.0.1:0", &format!("{OPS} {LONG}"));
    let mut cluster = Cluster::start(&home, call.env("FAILPOINTS", "checkpoint-before-fsync=pause"));
    let port = Port::of(&mut cluster.serve);
    port.answers("/readyz", 200);
    assert_eq!(port.probe("/livez"), (200, "alive".into()));
    assert_eq!(port.probe("/readyz"), (200, "ready".into()));
    assert_eq!(metrics(&port).value("millefeuille_ready"), 1.0);

    let _worker = cluster.joined_by("--slots 1");
    until("steps are taken", || (metrics(&port).value("millefeuille_steps_total") > 0.0).then_some(()));
    assert_eq!(port.probe("/livez").0, 200);
    assert_eq!(port.probe("/readyz").0, 200);

    // With two unwritten epochs the job waits for the disk.
    until("the disk hangs", || {
        (metrics(&port).value("millefeuille_epoch{job=\"small-1\"}") > 1.0).then_some(())
    });
    cluster.serve.signal(Signal::TERM);

    let why = port.answers("/readyz", 503);
    assert!(why.contains("shutting down"), "{why}");
    assert_eq!(port.probe("/livez"), (200, "alive: stopping".into()));
    assert_eq!(metrics(&port).value("millefeuille_ready"), 0.0);
    cluster.serve.signal(Signal::TERM);
    cluster.serve.wait().with_code(130);
}

#[test]
fn a_coordinator_that_still_reads_its_runs_is_alive_and_not_ready() {
    let home = Home::new();
    let call = home.serve("127.0.0.1:0", OPS).env("FAILPOINTS", "runs-before-scan=pause");
    let mut cluster = Cluster::start(&home, call);
    let port = Port::of(&mut cluster.serve);

    for _ in 0..3 {
        let (status, why) = port.probe("/readyz");
        assert!(status == 503 && why.contains("scanning the runs"), "{status} {why}");
        assert_eq!(port.probe("/livez").0, 200);
    }
    assert_eq!(metrics(&port).value("millefeuille_ready"), 0.0);
    let error = home.coordinator(&format!("health --ops {port} --ready")).fails(5);
    assert!(error.contains("scanning the runs"), "{error}");
    home.coordinator(&format!("health --ops {port}")).succeeds();
}

#[test]
fn a_driver_that_is_stuck_is_not_alive() {
    let home = Home::new();
    // Ten turns of the driver are a second of an idle cluster.
    let call = home.serve("127.0.0.1:0", OPS).env("FAILPOINTS", "driver-turn=10*off->pause");
    let mut cluster = Cluster::start(&home, call);
    let port = Port::of(&mut cluster.serve);
    assert_eq!(port.probe("/livez").0, 200);

    let why = port.answers("/livez", 503);

    // A long limit, because a healthy driver may compute for a while.
    let silence = why.split_whitespace().find_map(|word| word.parse::<u64>().ok()).unwrap_or_default();
    assert!(why.contains("no turn") && silence >= 20, "{why}");
    assert_eq!(port.probe("/readyz").0, 503);
    for arguments in ["", " --ready"] {
        let error = home.coordinator(&format!("health --ops {port}{arguments}")).fails(4);
        assert!(error.contains("no turn"), "{arguments}: {error}");
    }
    assert_eq!(metrics(&port).value("millefeuille_ready"), 0.0);
}

#[test]
fn a_worker_is_ready_while_it_is_in_a_session() {
    let home = Home::new();
    let address = closed_port();
    let mut worker = home.worker(&format!("--coordinator {address} {OPS}")).start();
    let port = Port::of(&mut worker);
    let (status, why) = port.probe("/readyz");
    assert!(status == 503 && why.contains("no coordinator"), "{status} {why}");
    assert_eq!(port.probe("/livez"), (200, "alive".into()));

    let mut coordinator = RawCoordinator::at(address.parse().unwrap());
    let visit = coordinator.visit();
    port.answers("/readyz", 200);

    // The coordinator is killed and restarted.
    drop((visit, coordinator));
    port.answers("/readyz", 503);
    assert_eq!(port.probe("/livez").0, 200);
    let mut coordinator = RawCoordinator::at(address.parse().unwrap());
    coordinator.has_samples();
    let mut visit = coordinator.visit();
    port.answers("/readyz", 200);
    visit.has_ready_worker();
    visit.ask(0, &[(0, 4)]);
    visit.result();
    let page = metrics(&port);
    assert_eq!(page.value("millefeuille_worker_sessions_total"), 2.0);
    assert_eq!(page.value("millefeuille_worker_pieces_total"), 4.0);
    assert_eq!(page.value("millefeuille_worker_ready"), 1.0);
    assert!(page.value("millefeuille_worker_sent_bytes_total") > 0.0);
    let (sent, received) =
        ("millefeuille_worker_sent_bytes_total", "millefeuille_worker_received_bytes_total");
    assert!(page.value(received) > page.value(sent), "parameters, and samples: {page:?}");

    worker.signal(Signal::TERM);
    visit.hears("drain", |message| matches!(message, Up::Drain(_)).then_some(()));
    let (status, why) = port.probe("/readyz");
    assert!(status == 503 && why.contains("draining"), "{status} {why}");
    assert_eq!(port.probe("/livez").0, 200);
    visit.say(Down::Goodbye(v1::Goodbye { reason: "nothing is owed".into() }));
    worker.wait().with_code(0);
}

#[test]
fn a_worker_that_restarts_itself_keeps_its_port() {
    let home = Home::new();
    let mut coordinator = RawCoordinator::default();
    let settings = format!("--coordinator {} --ops-listen {}", coordinator.address(), closed_port());
    let mut worker = home.worker(&settings).start();
    let port = Port::of(&mut worker);
    let visit = coordinator.visit();
    port.answers("/readyz", 200);
    let native = visit.hello.arithmetic.clone().unwrap().kernel;
    let other = if native == "Haswell" { "Sandybridge" } else { "Haswell" };

    visit.say(Down::UseKernel(v1::UseKernel { kernel: other.into() }));

    let visit = coordinator.visit();
    assert_eq!(visit.hello.started_for, other);
    until("the same port is open again", || TcpStream::connect(&port.0).ok());
    port.answers("/readyz", 200);
    assert!(metrics(&port).series().any(|series| series.contains(&format!("blas_kernel=\"{other}\""))));
}

#[test]
fn health_queries_an_ops_port() {
    let home = Home::new();
    let (cluster, port) = cluster(&home, "");
    let health = |arguments: &str| home.coordinator(&format!("health {arguments}"));
    port.answers("/readyz", 200);

    assert_eq!(health(&format!("--ops {port}")).succeeds().stdout, "alive\n");
    assert_eq!(health(&format!("--ops {port} --ready")).succeeds().stdout, "ready\n");
    // In a container the variables are set for all commands.
    for (name, value) in [
        ("MILLEFEUILLE_CLUSTER", "127.0.0.1:1"),
        ("MILLEFEUILLE_CLUSTER", "nonsense"),
        ("MILLEFEUILLE_CLUSTER_TLS", "nowhere"),
        ("MILLEFEUILLE_CONNECT_TIMEOUT", "3"),
        ("MILLEFEUILLE_CONNECT_TIMEOUT", "nonsense"),
    ] {
        health(&format!("--ops {port}")).env(name, value).succeeds();
        health(&format!("--ops={port}")).env(name, value).succeeds();
    }
    // With --cluster they are used.
    let error =
        health(&format!("--cluster {}", cluster.address)).env("MILLEFEUILLE_CONNECT_TIMEOUT", "nonsense");
    assert!(error.fails(2).contains("MILLEFEUILLE_CONNECT_TIMEOUT=nonsense"));

    let nobody = closed_port();
    let (_listener, silent) = silent_listener();
    for address in [&nobody, &silent, &cluster.address] {
        let error = health(&format!("--ops {address}")).fails(4);
        assert!(error.contains(address) && error.contains("--ops-listen"), "{error}");
    }
    for typed in ["--cluster 127.0.0.1:1", "--tls nowhere", "--connect-timeout 3"] {
        let error = health(&format!("--ops {port} {typed}")).fails(2);
        let flag = typed.split(' ').next().unwrap();
        assert!(error.contains("--ops") && error.contains(flag), "{typed}: {error}");
    }
    let error = health("").fails(2);
    assert!(error.contains("--cluster"), "{error}");
    health("--ops nonsense").fails(2);
    // Also over gRPC.
    health(&format!("--cluster {}", cluster.address)).succeeds();
    health(&format!("--cluster {} --ready", cluster.address)).fails(5);
}

// Metrics.

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn metrics_agree_with_the_services() {
    let home = Home::small();
    let (cluster, port) = cluster(&home, "");
    let workers = cluster.joined_by_many(2, "--slots 2");
    let page = metrics(&port);
    assert_eq!(page.value("millefeuille_workers{state=\"idle\"}"), 2.0);
    assert_eq!(page.value("millefeuille_slots"), 4.0);
    assert!(page.series().all(|series| !series.contains("job=")), "there is no job yet");

    cluster.coordinator("train small.toml").succeeds();

    let told = cluster.ask("metrics").remove(0);
    let client = cluster.client();
    let job = client.jobs().remove(0);
    let page = metrics(&port);
    let of_job = |name: &str| page.value(&format!("millefeuille_{name}{{job=\"small-1\"}}"));
    let epochs = told["history"].as_array().unwrap();
    let last = epochs.last().unwrap();
    for name in ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy"] {
        assert_eq!(of_job(name), number(&last[name]), "{name}");
    }
    let steps = f64::from(job.steps_per_epoch);
    assert_eq!((of_job("epochs"), of_job("steps_per_epoch"), of_job("step")), (3.0, steps, steps));
    assert_eq!(page.value("millefeuille_steps_total"), 3.0 * steps);
    // The last fifth of 2,003 samples is for validation.
    assert_eq!(page.value("millefeuille_samples_total"), 3.0 * 1602.0);
    let bytes = |name: &str| {
        told["workers"].as_array().unwrap().iter().map(|worker| number(&worker[name])).sum::<f64>()
    };
    assert_eq!(page.value("millefeuille_sent_bytes_total"), bytes("bytes_sent"));
    assert_eq!(page.value("millefeuille_received_bytes_total"), bytes("bytes_received"));
    assert_eq!(page.value("millefeuille_jobs{state=\"done\"}"), 1.0);
    assert_eq!(page.sum("millefeuille_jobs"), 1.0);
    assert_eq!(page.value("millefeuille_jobs_ended_total{state=\"done\"}"), 1.0);
    assert_eq!(page.value("millefeuille_checkpoints_total"), 3.0, "one an epoch");
    assert!(page.value("millefeuille_checkpoint_seconds_total") > 0.0);
    assert_eq!(page.value("millefeuille_workers_joined_total"), 2.0);
    assert_eq!(page.value("millefeuille_resumes_total"), 0.0);

    let [left, lost]: [_; 2] = workers.try_into().unwrap();
    left.signal(Signal::TERM);
    lost.signal(Signal::KILL);
    until("both are gone", || (metrics(&port).sum("millefeuille_workers") == 0.0).then_some(()));
    let page = metrics(&port);
    assert_eq!(page.value("millefeuille_workers_left_total"), 1.0);
    assert_eq!(page.value("millefeuille_workers_lost_total"), 1.0);
    // The counts of lost workers are kept.
    assert_eq!(page.value("millefeuille_sent_bytes_total"), bytes("bytes_sent"));
}

#[test]
fn metrics_show_the_running_job_and_the_queue() {
    let home = long();
    let begun = Instant::now();
    let (cluster, port) = cluster(&home, LONG);
    let worker = cluster.joined_by("--slots 1");
    let position = |told: &Value| {
        let progress = &told["progress"];
        (!progress.is_null()).then(|| (number(&progress["epoch"]), number(&progress["step"])))
    };
    let at = |page: &Page| {
        let of_job = |name: &str| page.find(&format!("millefeuille_{name}{{job=\"small-1\"}}"));
        Some((of_job("epoch")?, of_job("step")?))
    };
    until("an epoch is over", || at(&metrics(&port)).filter(|&(epoch, step)| epoch > 1.0 && step > 0.0));

    let before = position(&cluster.ask("metrics").remove(0)).unwrap();
    let page = metrics(&port);
    let after = position(&cluster.ask("metrics").remove(0)).unwrap();

    let between = at(&page).unwrap();
    assert!(before <= between && between <= after, "{before:?} {between:?} {after:?}");
    assert_eq!(page.value("millefeuille_jobs{state=\"running\"}"), 1.0);
    assert_eq!(page.value("millefeuille_workers{state=\"computing\"}"), 1.0);
    let parts = ["compute", "wait", "wire", "reduce"]
        .map(|part| page.value(&format!("millefeuille_step_part_seconds{{part=\"{part}\"}}")));
    let whole = begun.elapsed().as_secs_f64();
    assert!(parts.iter().all(|part| (0.0..whole).contains(part)) && parts[0] > 0.0, "{parts:?} of {whole} s");
    assert!(page.value("millefeuille_samples_per_second") > 0.0);

    // Another job is queued. Only the running one is named.
    let client = cluster.client();
    let job = std::fs::read_to_string(home.path("small.toml")).unwrap();
    let behind = client.submit(&job.replace("\"data\"", &format!("{:?}", home.path("data"))), "key").unwrap();
    let page = until("it is queued", || {
        Some(metrics(&port)).filter(|page| page.value("millefeuille_queue_length") == 1.0)
    });
    assert!(page.series().all(|series| !series.contains(&behind)), "{page:?}");
    cluster.coordinator(&format!("cancel {behind}")).succeeds();
    assert_eq!(metrics(&port).value("millefeuille_jobs_ended_total{state=\"cancelled\"}"), 1.0);

    // The pending nodes of a lost worker are reassigned.
    let _second = cluster.joined_by("--slots 1");
    cluster.workers_are(&client, 2, "computing");
    worker.signal(Signal::STOP);
    until("what it owes is asked of the other", || {
        let page = metrics(&port);
        let asked = ["copies", "reassignments"].map(|name| page.value(&format!("millefeuille_{name}_total")));
        (asked.iter().sum::<f64>() > 0.0).then_some(())
    });
    worker.signal(Signal::KILL);
    until("it is lost", || (metrics(&port).value("millefeuille_workers_lost_total") == 1.0).then_some(()));
}

#[test]
fn a_job_that_is_resumed_counts_as_resumed() {
    let home = long();
    let mut cluster = home.lasting_cluster(&format!("{OPS} {LONG}"));
    let port = Port::of(&mut cluster.serve);
    let _worker = cluster.joined_by("--slots 1");
    until("a checkpoint is there", || {
        (metrics(&port).value("millefeuille_checkpoints_total") > 0.0).then_some(())
    });
    cluster.is_killed();

    cluster.comes_back(&format!("{OPS} {LONG}"));

    let port = Port::of(&mut cluster.serve);
    let page = until("it goes on", || {
        Some(metrics(&port)).filter(|page| page.value("millefeuille_steps_total") > 0.0)
    });
    assert_eq!(page.value("millefeuille_resumes_total"), 1.0);
}

/// Checks the metrics with Prometheus' own checker, if it is installed; it is in continuous integration.
#[test]
fn promtool_accepts_the_metrics() {
    let there = Command::new("promtool").arg("--version").output().is_ok();
    if !there {
        return ci::skip("promtool is not installed (a part of the package prometheus)");
    }
    let home = Home::small();
    let (mut cluster, port) = cluster(&home, "");
    let mut worker = cluster.worker(OPS).start();
    worker.says("joined");
    cluster.coordinator("train small.toml").succeeds();
    assert!(cluster.serve.is_running());

    for port in [port, Port::of(&mut worker)] {
        let page = port.request("GET", "/metrics").body;
        let mut promtool = Command::new("promtool");
        promtool
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut promtool = promtool.spawn().expect("promtool is installed");
        promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.is_empty(), "{said}\n{page}");
    }
}

// Malicious clients.

#[test]
fn unknown_paths_and_methods_are_refused() {
    let home = Home::new();
    let (_cluster, port) = cluster(&home, "");
    port.answers("/readyz", 200);

    for path in ["/livez", "/readyz", "/metrics"] {
        let (got, head) = (port.request("GET", path), port.request("HEAD", path));
        assert_eq!((got.status, head.status), (200, 200), "{path}");
        assert!(got.body.ends_with('\n') && head.body.is_empty(), "{path}");
        assert_eq!(got.header("content-type"), head.header("content-type"), "{path}");
        assert_eq!(got.header("connection"), Some("close"), "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"] {
            let answer = port.request(method, path);
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")), "{method} {path}");
        }
    }
    assert_eq!(port.request("GET", "/livez?verbose").status, 200);
    for path in ["/", "/livez/", "/metrics/../etc/passwd", "//livez", "/debug/pprof", "/LIVEZ"] {
        assert_eq!(port.request("GET", path).status, 404, "{path}");
    }
}

#[test]
fn garbage_and_oversized_requests_are_refused() {
    let home = Home::new();
    let (mut cluster, port) = cluster(&home, "");
    let status = |request: String| port.answer(request.as_bytes()).status;
    let with = |headers: &str| format!("GET /livez HTTP/1.1\r\nHost: ops\r\n{headers}\r\n");
    assert_eq!(status(with("")), 200);

    // Oversized requests.
    assert_eq!(status(with(&format!("X-Long: {}\r\n", "a".repeat(9 << 10)))), 431);
    assert_eq!(status(with(&"X-Many: 1\r\n".repeat(80))), 431);
    assert_eq!(status(format!("GET /{} HTTP/1.1\r\nHost: ops\r\n\r\n", "a".repeat(9 << 10))), 431);
    assert_eq!(status(with("Content-Length: 4398046511104\r\n")), 413);
    assert_eq!(status(with("Content-Length: 5\r\n") + "hello"), 413);
    assert_eq!(status(with("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n"), 413);

    // Garbage.
    assert_eq!(status("hello\r\n\r\n".into()), 400);
    assert_eq!(status(with("no colon\r\n")), 400);
    assert_eq!(status(with("Content-Length: 1\r\nContent-Length: 2\r\n")), 400);
    let client_hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0; 500]].concat();
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for bytes in [client_hello, http2, vec![0; 100_000], vec![0xff; 100_000]] {
        let answer = port.say(&bytes);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:?}");
    }

    // A thousand pipelined requests are handled as one.
    let answers = port.say(with("").repeat(1000).as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert_eq!(port.probe("/livez").0, 200);
    assert!(cluster.serve.is_running());
    assert!(!cluster.serve.stderr().contains("panicked"));
}

#[test]
fn slow_clients_are_disconnected_and_do_not_block_others() {
    let home = Home::new();
    let (_cluster, port) = cluster(&home, "");
    let mut first = port.connect();

    // More silent connections than the limit.
    let mut silent: Vec<_> = (0..100).map(|_| port.connect()).collect();

    assert_eq!(port.probe("/livez").0, 200, "there is room for who asks");
    assert_eq!(rest(&mut first), "", "the oldest has made room");
    // A request without an end, byte by byte.
    let mut slow = port.connect();
    slow.write_all(b"GET /livez HTTP/1.1\r\nX-Slow: ").unwrap();
    until("a slow request is cut off", || slow.write_all(b"a").is_err().then_some(()));
    silent.iter_mut().for_each(|stream| assert_eq!(rest(stream), ""));
    assert_eq!(port.probe("/livez").0, 200);
}

#[test]
fn an_open_connection_does_not_delay_the_shutdown() {
    let home = Home::new();
    let (mut cluster, port) = cluster(&home, "");
    port.answers("/readyz", 200);
    let mut silent = port.connect();
    let mut half = port.connect();
    half.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
    port.probe("/livez");

    cluster.serve.signal(Signal::TERM);

    cluster.serve.wait().with_code(0);
    assert_eq!((rest(&mut silent), rest(&mut half)), (String::new(), String::new()));
}

// The flag.

#[test]
fn an_ops_port_in_use_is_named_with_the_remedy() {
    let home = Home::new();
    let (_listener, address) = silent_listener();
    let serve = |settings: &str| home.serve("127.0.0.1:0", settings);
    let worker = |settings: &str| home.worker(&format!("--coordinator 127.0.0.1:1 {settings}"));

    let flag = format!("--ops-listen {address}");
    for call in [serve(&flag), worker(&flag)] {
        let error = call.fails(4);
        let names =
            [format!("--ops-listen {address}"), "in use".into(), "--ops-listen off or another port".into()];
        assert!(names.iter().all(|name| error.contains(name)), "{error}");
    }
    let error = serve("").env("MILLEFEUILLE_OPS_LISTEN", &address).fails(4);
    assert!(error.contains(&format!("--ops-listen {address}")), "{error}");
    for nonsense in ["nonsense", "7071", "on"] {
        let error = serve(&format!("--ops-listen {nonsense}")).fails(2);
        assert!(error.contains(&format!("--ops-listen {nonsense}")) && error.contains("or off"), "{error}");
    }
}

#[test]
fn a_training_and_its_workers_open_no_ops_port() {
    let home = Home::small();
    // Two workers could not share a port.
    let (_listener, address) = silent_listener();
    let train = home.coordinator("train small.toml --workers 2 --run-dir run");

    let ended = train.env("MILLEFEUILLE_OPS_LISTEN", &address).env("MILLEFEUILLE_LOG", "info").succeeds();

    assert!(!ended.stderr.contains("probes and metrics are at"), "{ended}");
    assert!(!ended.stderr.contains("starting it again"), "{ended}");
}
