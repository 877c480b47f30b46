//! Access to a cluster with TLS: all other clients are refused with one line on both sides, while the job continues.

use std::fs;

use millefeuille_coordinator::certs::{Authority, Leaf, Name, Role, Usage, Validity, directory};
use millefeuille_tests::cluster::Cluster;
use millefeuille_tests::data::SMALL_JOB;
use millefeuille_tests::home::Home;
use millefeuille_tests::peers::{grpcio, openssl};
use millefeuille_tests::process::{Process, Signal, until};
use millefeuille_tests::rpc::Client;
use time::{Duration, OffsetDateTime};

const LIST_JOBS: &str = "/millefeuille.v1.Cluster/ListJobs";
const SUBMIT_JOB: &str = "/millefeuille.v1.Cluster/SubmitJob";
const SESSION: &str = "/millefeuille.v1.Worker/Session";

/// A cluster with TLS whose worker computes a long job.
struct Busy<'h> {
    home: &'h Home,
    cluster: Cluster<'h>,
    client: Client,
    worker: Process,
    authority: Authority,
    port: String,
}

impl<'h> Busy<'h> {
    fn new(home: &'h Home) -> Self {
        home.small_job();
        home.certificates();
        let read = |name| fs::read_to_string(home.path(name)).expect("it was made");
        let authority =
            Authority::from_pem(&read("certs/ca/ca.crt"), &read("certs/ca/ca.key")).expect("a CA");
        // Issued without the address: a client of the address gets a certificate without that name.
        home.coordinator("certs issue coordinator certs/coordinator --ca certs/ca --names localhost")
            .succeeds();
        let cluster = home.cluster("--tls certs/coordinator");
        let port = cluster.address.rsplit(':').next().expect("a port").to_string();
        let mut worker =
            home.worker(&format!("--coordinator localhost:{port} --slots 1 --tls certs/worker")).start();
        worker.says("joined as worker");
        let client = Client::connect_with(&format!("localhost:{port}"), Some(home.path("certs/operator")));
        client.submit(&SMALL_JOB.replace("epochs = 3", "epochs = 100000"), "").expect("the job is taken");
        cluster.job_is(&client, "small-1", "running");
        Self { home, cluster, client, worker, authority, port }
    }

    /// A TLS directory with a certificate of this CA, which trusts the cluster's CA.
    fn issue(&self, name: &str, authority: &Authority, leaf: &Leaf) -> String {
        let issued = authority.issue(leaf).expect("it can be issued");
        let path = self.home.path(name);
        fs::create_dir_all(&path).expect("directories can be made");
        directory::write(&path, self.authority.trusted(), &issued).expect("it can be written");
        name.to_string()
    }

    fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The coordinator's log from here on.
    fn log(&self) -> usize {
        self.cluster.serve.stderr().len()
    }

    fn steps(&self) -> (u32, u32) {
        let metrics = self.client.metrics("").expect("there is a job");
        let progress = metrics.progress.expect("the job runs");
        (progress.epoch, progress.step)
    }

    /// Checks that the job continues with the same worker in the same session.
    fn is_undisturbed(&mut self) {
        let now = self.steps();
        until("the job goes on", || (self.steps() > now).then_some(()));
        assert_eq!(self.client.job_state("small-1"), "running");
        let workers: Vec<_> =
            self.client.workers().into_iter().filter(|worker| worker.state != "lost").collect();
        assert_eq!(workers.len(), 1, "{workers:?}");
        assert!(self.worker.is_running());
        assert_eq!(self.worker.stderr().matches("joined as worker").count(), 1, "{}", self.worker.stderr());
        assert!(!self.cluster.serve.stderr().contains("panicked"));
    }
}

fn days(from: i64, until: i64) -> Validity {
    let now = OffsetDateTime::now_utc();
    Validity { not_before: now + Duration::days(from), not_after: now + Duration::days(until) }
}

fn operator(validity: Validity) -> Leaf {
    Leaf::of(Role::Operator, Vec::new(), validity)
}

/// A bad certificate: our client's error, and the coordinator's log.
fn bad_certificates(busy: &Busy<'_>) -> Vec<(String, &'static str, &'static str)> {
    let good = days(-1, 1);
    let stranger = Authority::new(days(-1, 10)).expect("a CA can be made");
    let own = &busy.authority;
    vec![
        (
            busy.issue("expired", own, &operator(days(-2, -1))),
            "does not accept the certificate expired/tls.crt (role operator, valid from",
            "its certificate has expired on",
        ),
        (
            busy.issue("early", own, &operator(days(1, 2))),
            "it has expired, or is not valid yet",
            "its certificate is not valid before",
        ),
        (
            busy.issue("stranger", &stranger, &operator(good)),
            "does not accept the certificate stranger/tls.crt (role operator, valid from",
            "its certificate is from another CA",
        ),
        (
            busy.issue("server", own, &Leaf { usage: Usage::Server, ..operator(good) }),
            "does not accept the certificate server/tls.crt",
            "its certificate is for another side of a connection",
        ),
        (
            busy.issue("roleless", own, &Leaf { uris: Vec::new(), ..operator(good) }),
            "the certificate has no role",
            "the certificate has no role",
        ),
        (
            busy.issue("worker", own, &Leaf::of(Role::Worker, Vec::new(), good)),
            "a certificate with role worker does not allow ListJobs, which requires role operator or reader",
            "a certificate with role worker does not allow ListJobs",
        ),
    ]
}

#[test]
fn a_bad_certificate_is_reported_in_one_line_on_both_sides() {
    let home = Home::new();
    let mut busy = Busy::new(&home);
    for (directory, client, coordinator) in bad_certificates(&busy) {
        let log = busy.log();

        let ask = home.coordinator(&format!("jobs --cluster {} --tls {directory}", busy.address()));

        let line = ask.fails(4);
        assert!(line.contains(client), "{directory}: {line}");
        // The role is refused a second time within a short time: both are one line.
        if directory != "worker" {
            busy.cluster.serve.says_after(log, coordinator);
        }
        busy.is_undisturbed();
    }
}

#[test]
fn a_worker_with_a_bad_certificate_ends_with_a_line_and_is_logged() {
    let home = Home::new();
    let mut busy = Busy::new(&home);
    for (directory, worker, coordinator) in bad_certificates(&busy) {
        if directory == "worker" || directory == "roleless" {
            continue;
        }
        let log = busy.log();

        let line = home.worker(&format!("--coordinator {} --tls {directory}", busy.address())).fails(4);

        assert!(line.contains(worker), "{directory}: {line}");
        busy.cluster.serve.says_after(log, coordinator);
    }
    let line = home.worker(&format!("--coordinator {} --tls certs/operator", busy.address())).fails(4);
    assert!(
        line.contains("a certificate with role operator does not allow Session, which requires role worker"),
        "{line}"
    );
    let line = home.worker(&format!("--coordinator {}", busy.address())).fails(4);
    assert!(line.contains("it asks for TLS: name the directory of a certificate with --tls"), "{line}");
    busy.is_undisturbed();
}

#[test]
fn each_role_has_only_its_own_rights() {
    let home = Home::new();
    let mut busy = Busy::new(&home);
    let cluster = format!("--cluster {}", busy.address());

    home.coordinator(&format!("jobs {cluster} --tls certs/reader")).succeeds();
    home.coordinator(&format!("workers {cluster} --tls certs/reader")).succeeds();
    home.coordinator(&format!("metrics {cluster} --tls certs/reader")).succeeds();
    let line = home.coordinator(&format!("train small.toml {cluster} --tls certs/reader")).fails(4);
    assert!(
        line.contains(
            "a certificate with role reader does not allow SubmitJob, which requires role operator"
        ),
        "{line}"
    );
    let line = home.coordinator(&format!("cancel small-1 {cluster} --tls certs/reader")).fails(4);
    assert!(line.contains("does not allow CancelJob"), "{line}");
    let line = home.coordinator(&format!("jobs {cluster} --tls certs/coordinator")).fails(4);
    assert!(line.contains("does not accept the certificate certs/coordinator/tls.crt"), "{line}");
    busy.is_undisturbed();
    home.coordinator(&format!("cancel small-1 {cluster} --tls certs/operator")).succeeds();
}

#[test]
fn a_client_trusts_a_coordinator_of_its_ca_and_that_name_only() {
    let home = Home::new();
    let mut busy = Busy::new(&home);

    let log = busy.log();
    let line =
        home.coordinator(&format!("jobs --cluster 127.0.0.1:{} --tls certs/operator", busy.port)).fails(4);
    assert!(line.contains("is for localhost, not for 127.0.0.1"), "{line}");
    busy.cluster.serve.says_after(log, "it does not accept this coordinator's certificate");

    let other = Home::new();
    other.certificates();
    let line = other.coordinator(&format!("jobs --cluster {} --tls certs/operator", busy.address())).fails(4);
    assert!(line.contains("is from another CA than those in certs/operator/ca.crt"), "{line}");
    busy.is_undisturbed();

    // A certificate of the same CA without the role of a coordinator is not accepted for one.
    let leaf = Leaf { usage: Usage::Server, ..operator(days(-1, 1)) };
    let leaf = Leaf { names: vec![Name::Dns("localhost".into())], ..leaf };
    busy.issue("impostor", &busy.authority, &leaf);
    let line = home.coordinator("serve --listen 127.0.0.1:0 --tls impostor").fails(4);
    assert!(
        line.contains("not a coordinator's (its URI would be spiffe://millefeuille/role/coordinator)"),
        "{line}"
    );
}

#[test]
fn a_server_with_the_wrong_role_is_refused() {
    let home = Home::new();
    let busy = Busy::new(&home);
    let leaf = Leaf { usage: Usage::Server, ..operator(days(-1, 1)) };
    let leaf = Leaf { names: vec![Name::Dns("localhost".into())], ..leaf };
    busy.issue("impostor", &busy.authority, &leaf);
    let port = millefeuille_tests::cluster::closed_port().rsplit(':').next().expect("a port").to_string();
    let arguments = "s_server -quiet -tls1_3 -alpn h2 -cert impostor/tls.crt -key impostor/tls.key -accept";
    if openssl(&home, "version").is_none() {
        return;
    }
    let mut command = home.command("openssl".as_ref());
    command.args(arguments.split(' ')).arg(&port);
    let _impostor = Process::start("openssl s_server".into(), command);
    until("the impostor listens", || std::net::TcpStream::connect(format!("127.0.0.1:{port}")).ok());

    let line = home.coordinator(&format!("jobs --cluster localhost:{port} --tls certs/operator")).fails(4);

    assert!(line.contains(&format!("the certificate of localhost:{port} is not a coordinator's")), "{line}");
}

#[test]
fn tls_on_one_side_only_is_reported() {
    let home = Home::new();
    let mut busy = Busy::new(&home);

    let line = home.coordinator(&format!("jobs --cluster {}", busy.address())).fails(4);
    assert!(
        line.contains("the coordinator asks for TLS: name the directory of a certificate with --tls"),
        "{line}"
    );
    busy.cluster.serve.says("it speaks plain text, and this port asks for TLS");
    busy.is_undisturbed();

    let elsewhere = Home::new();
    let plain = elsewhere.cluster("");
    let port = plain.address.rsplit(':').next().expect("a port");
    let line = home.coordinator(&format!("jobs --cluster localhost:{port} --tls certs/operator")).fails(4);
    assert!(line.contains("does it serve with --tls?"), "{line}");
    let line = home.worker(&format!("--coordinator localhost:{port} --tls certs/worker")).fails(4);
    assert!(line.contains("does it serve with --tls?"), "{line}");
}

#[test]
fn other_grpc_clients_are_treated_alike() {
    let home = Home::new();
    let mut busy = Busy::new(&home);
    let bad = bad_certificates(&busy);
    let answered = |method, credentials: &str| grpcio(&home, &busy.address(), method, credentials);
    let Some(answer) = answered(LIST_JOBS, "certs/operator") else { return };
    assert_eq!(answer, "OK\n");
    assert_eq!(answered(LIST_JOBS, "certs/reader").unwrap(), "OK\n");
    let denied = answered(SUBMIT_JOB, "certs/reader").unwrap();
    assert!(denied.starts_with("PERMISSION_DENIED a certificate with role reader"), "{denied}");
    let denied = answered(SESSION, "certs/operator").unwrap();
    assert!(denied.starts_with("PERMISSION_DENIED"), "{denied}");
    for (directory, _, coordinator) in bad {
        let log = busy.log();
        let answer = grpcio(&home, &busy.address(), LIST_JOBS, &directory).unwrap();
        let expected =
            if ["worker", "roleless"].contains(&&*directory) { "PERMISSION_DENIED" } else { "UNAVAILABLE" };
        assert!(answer.starts_with(expected), "{directory}: {answer}");
        if expected == "UNAVAILABLE" {
            busy.cluster.serve.says_after(log, coordinator);
        }
    }
    home.write("nothing/ca.crt", busy.authority.trusted());
    let answer = grpcio(&home, &busy.address(), LIST_JOBS, "nothing").unwrap();
    assert!(answer.starts_with("UNAVAILABLE"), "{answer}");
    busy.cluster.serve.says("it shows no certificate");
    let answer = grpcio(&home, &busy.address(), LIST_JOBS, "--plain").unwrap();
    assert!(answer.starts_with("UNAVAILABLE"), "{answer}");
    busy.cluster.serve.says("it speaks plain text, and this port asks for TLS");
    let answer = grpcio(&home, &format!("127.0.0.1:{}", busy.port), LIST_JOBS, "certs/operator").unwrap();
    assert!(answer.starts_with("UNAVAILABLE"), "another name than the certificate's: {answer}");
    busy.is_undisturbed();
}

#[test]
fn only_tls_1_3_is_offered() {
    let home = Home::new();
    let mut busy = Busy::new(&home);
    let dial = |more: &str| {
        openssl(&home, &format!("s_client -connect {} -CAfile certs/ca/ca.crt {more}", busy.address()))
    };
    let own = "-cert certs/reader/tls.crt -key certs/reader/tls.key";
    let Some((_, said)) = dial(&format!("{own} -alpn h2 -verify_return_error -verify_hostname localhost"))
    else {
        return;
    };
    for part in ["TLSv1.3", "ALPN protocol: h2", "Verification: OK", "Server Temp Key: X25519"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    for version in ["-tls1", "-tls1_1", "-tls1_2"] {
        let (succeeded, said) = dial(&format!("{own} {version}")).unwrap();
        assert!(!succeeded, "{version}: {said}");
    }
    busy.cluster.serve.says("it does not offer TLS 1.3");
    busy.is_undisturbed();
}

#[test]
fn a_renewed_certificate_is_used_without_disconnecting_anyone() {
    let home = Home::new();
    let mut busy = Busy::new(&home);

    // Its new certificate has another name too, which clients can use from then on.
    let log = busy.log();
    home.coordinator("certs issue coordinator certs/coordinator --ca certs/ca --names localhost,127.0.0.1")
        .succeeds();
    busy.cluster.serve.says_after(log, "the certificate was renewed: valid until");
    home.coordinator(&format!("jobs --cluster 127.0.0.1:{} --tls certs/operator", busy.port)).succeeds();
    busy.is_undisturbed();

    // If the new certificate is unusable, the old one stays in use.
    let log = busy.log();
    home.write("certs/coordinator/tls.crt", "nonsense");
    busy.cluster.serve.says_after(log, "the new certificate is not used: certs/coordinator/tls.crt");
    fs::remove_file(home.path("certs/coordinator/tls.crt")).expect("it is there");
    let log = busy.log();
    assert!(
        home.command("mkfifo".as_ref())
            .arg("certs/coordinator/tls.crt")
            .status()
            .expect("mkfifo runs")
            .success()
    );
    busy.cluster
        .serve
        .says_after(log, "the new certificate is not used: certs/coordinator/tls.crt: not a file");
    home.coordinator(&format!("jobs --cluster {} --tls certs/operator", busy.address())).succeeds();
    busy.is_undisturbed();

    fs::remove_file(home.path("certs/coordinator/tls.crt")).expect("it is there");
    // A worker that reconnects uses its own new certificate.
    home.coordinator("certs issue coordinator certs/coordinator --ca certs/ca --names localhost").succeeds();
    home.coordinator("certs issue worker certs/worker --ca certs/ca").succeeds();
    busy.cluster.serve.signal(Signal::KILL);
    busy.cluster.serve.wait();
    let serve = home.serve(&format!("127.0.0.1:{}", busy.port), "--tls certs/coordinator");
    busy.cluster.comes_back_as(serve);
    until("the worker joins again", || {
        (busy.worker.stderr().matches("joined as worker").count() == 2).then_some(())
    });
}

#[test]
fn an_unusable_directory_is_reported_in_one_line() {
    let home = Home::new();
    home.certificates();
    home.write("empty/tls.crt", "");
    let mixed = |name: &str, key: &str| {
        for (file, from) in [("ca.crt", "worker"), ("tls.crt", "worker"), ("tls.key", key)] {
            let content = fs::read(home.path(&format!("certs/{from}/{file}"))).expect("it was made");
            home.write(&format!("{name}/{file}"), content);
        }
    };
    mixed("mixed", "operator");
    mixed("nokey", "worker");
    home.write("nokey/tls.key", "nothing");
    mixed("nocert", "worker");
    home.write("nocert/tls.crt", "nothing");
    mixed("pipe", "worker");
    fs::remove_file(home.path("pipe/ca.crt")).expect("it was made");
    assert!(home.command("mkfifo".as_ref()).arg("pipe/ca.crt").status().expect("mkfifo runs").success());
    for (directory, problem) in [
        ("pipe", "pipe/ca.crt: not a file"),
        ("absent", "absent/ca.crt: No such file or directory"),
        ("empty", "empty/ca.crt: No such file or directory"),
        ("mixed", "mixed: tls.crt and tls.key cannot be used"),
        ("nokey", "nokey/tls.key: no private key in it (expected PEM)"),
        ("nocert", "nocert/tls.crt: no certificate in it (expected PEM)"),
    ] {
        for call in [
            home.coordinator(&format!("serve --listen 127.0.0.1:0 --tls {directory}")),
            home.coordinator(&format!("jobs --cluster localhost:1 --tls {directory}")),
            home.worker(&format!("--coordinator localhost:1 --tls {directory}")),
        ] {
            let line = call.fails(4);
            assert!(line.contains(problem), "{directory}: {line}");
        }
    }
    let line = home.coordinator("train --epochs 1 --tls certs/operator").fails(2);
    assert!(line.contains("--tls without --cluster"), "{line}");
    let line = home.coordinator("serve --listen 0.0.0.0:0").fails(4);
    assert!(
        line.contains("name a certificate's directory with --tls (coordinator certs init makes one)"),
        "{line}"
    );
}
