//! `coordinator certs`: the certificates that it creates, keeps and refuses.
//!
//! They are also checked with OpenSSL, which is required with `CI=true`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use millefeuille_coordinator::certs::directory::{self, Found, Held};
use millefeuille_coordinator::certs::{Authority, Certificate, Leaf, Name, Role, Validity};
use millefeuille_tests::home::Home;
use millefeuille_tests::peers::openssl;
use millefeuille_tests::process::Ended;
use time::{Duration, OffsetDateTime};

const DIRECTORIES: [&str; 5] = ["ca", "coordinator", "operator", "reader", "worker"];

/// A home after `certs init tls`.
fn initialised() -> Home {
    let home = Home::new();
    home.coordinator("certs init tls").succeeds();
    home
}

fn text(home: &Home, file: &str) -> String {
    fs::read_to_string(home.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Every file below `tls`, with its content.
fn files(home: &Home) -> Vec<(PathBuf, Vec<u8>)> {
    home.run("tls").snapshot()
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").permissions().mode() & 0o7777
}

fn held(home: &Home, directory: &str) -> Held {
    match Held::read(&home.path(directory)).expect("files can be read") {
        Found::Held(held) => *held,
        other => panic!("{directory}: {other:?}"),
    }
}

fn certificate(home: &Home, directory: &str) -> Certificate {
    held(home, directory).certificate
}

/// The output line for this directory.
fn line<'a>(ended: &'a Ended, directory: &str) -> &'a str {
    let mut lines = ended.stdout.lines().filter(|line| line.split_whitespace().next() == Some(directory));
    lines.next().unwrap_or_else(|| panic!("no line about {directory}: {ended}"))
}

/// A validity from one day to noon of another, counted from now: no test depends on the time of day.
fn days(from: i64, until: i64) -> Validity {
    let now = OffsetDateTime::now_utc();
    let noon = Duration::days(until) + Duration::hours(12);
    Validity { not_before: now + Duration::days(from), not_after: now + noon }
}

/// A CA in `tls/ca` that has this validity.
fn with_authority(validity: Validity) -> (Home, Authority) {
    let home = Home::new();
    let authority = Authority::new(validity).expect("there is such a CA");
    place_authority(&home, &authority);
    (home, authority)
}

fn place_authority(home: &Home, authority: &Authority) {
    home.write("tls/ca/ca.crt", authority.trusted());
    let key = home.write("tls/ca/ca.key", authority.key());
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).expect("modes can be set");
}

fn place(home: &Home, directory: &str, authority: &Authority, leaf: &Leaf) {
    let issued = authority.issue(leaf).expect("there is such a certificate");
    directory::write(&home.path(directory), authority.trusted(), &issued).expect("files can be written");
}

#[test]
fn all_certificates_of_a_cluster_are_created() {
    let home = Home::new();

    let made = home.coordinator("certs init tls").succeeds();

    for directory in DIRECTORIES {
        assert!(line(&made, directory).contains("made, expires 20"), "{made}");
    }
    assert!(
        line(&made, "ca").ends_with("(3650 days)") && line(&made, "worker").ends_with("(90 days)"),
        "{made}"
    );
    for directory in &DIRECTORIES[1..] {
        let held = held(&home, &format!("tls/{directory}"));
        assert_eq!(held.key, Ok(()), "{directory}");
        assert!(held.signer().is_some(), "{directory}");
        assert_eq!(text(&home, &format!("tls/{directory}/ca.crt")), text(&home, "tls/ca/ca.crt"));
        assert!(
            text(&home, &format!("tls/{directory}/tls.key")).starts_with("-----BEGIN PRIVATE KEY-----\n")
        );
        let names: Vec<_> = fs::read_dir(home.path(&format!("tls/{directory}"))).unwrap().collect();
        assert_eq!(names.len(), 3, "{directory} has nothing else: {names:?}");
    }
    let names = certificate(&home, "tls/coordinator").names().to_vec();
    assert_eq!(Name::list(&names), "coordinator, localhost, 127.0.0.1, ::1");
    assert_eq!(certificate(&home, "tls/worker").names(), []);
}

#[test]
fn openssl_accepts_each_certificate_for_its_purpose() {
    let home = initialised();
    for role in &DIRECTORIES[1..] {
        let (good, bad) = if *role == "coordinator" { ("server", "client") } else { ("client", "server") };
        let verify = |purpose: &str| {
            openssl(
                &home,
                &format!(
                    "verify -x509_strict -purpose ssl{purpose} -CAfile tls/ca/ca.crt tls/{role}/tls.crt"
                ),
            )
        };
        let Some((accepted, said)) = verify(good) else { return };
        assert!(accepted, "{role}: {said}");
        let (accepted, said) = verify(bad).unwrap();
        assert!(!accepted && said.contains("certificate purpose"), "{role}: {said}");

        let (_, said) =
            openssl(&home, &format!("x509 -noout -text -nameopt RFC2253 -in tls/{role}/tls.crt")).unwrap();
        let usage = if good == "server" {
            "TLS Web Server Authentication\n"
        } else {
            "TLS Web Client Authentication\n"
        };
        for words in [
            "NIST CURVE: P-256",
            "Issuer: CN=Millefeuille CA\n",
            "X509v3 Key Usage: critical\n                Digital Signature\n",
            "CA:FALSE",
            "X509v3 Authority Key Identifier",
            "X509v3 Subject Key Identifier",
            &format!("Subject: CN=Millefeuille {role}\n"),
            &format!("URI:spiffe://millefeuille/role/{role}\n"),
            usage,
        ] {
            assert!(said.contains(words), "{role}: {words:?} is not in {said}");
        }
        let named = "DNS:coordinator, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, URI:";
        assert_eq!(said.contains(named), *role == "coordinator", "{said}");
    }
    let (_, said) = openssl(&home, "x509 -noout -text -in tls/ca/ca.crt").unwrap();
    for words in ["CA:TRUE, pathlen:0", "Key Usage: critical\n                Certificate Sign, CRL Sign\n"] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    let fingerprint = certificate(&home, "tls/worker").fingerprint();
    let (_, said) = openssl(&home, "x509 -noout -fingerprint -sha256 -in tls/worker/tls.crt").unwrap();
    assert!(said.contains(&fingerprint), "{said}");
}

#[test]
fn no_two_certificates_have_the_same_serial_number() {
    let home = initialised();
    let serial = |directory: &str| {
        openssl(&home, &format!("x509 -noout -serial -in tls/{directory}")).map(|(_, said)| said)
    };
    let Some(first) = serial("worker/tls.crt") else { return };
    let mut seen = vec![first, serial("coordinator/tls.crt").unwrap(), serial("ca/ca.crt").unwrap()];
    home.coordinator("certs init tls --renew").succeeds();
    seen.push(serial("worker/tls.crt").unwrap());
    assert!(seen.iter().all(|serial| serial.trim().len() == "serial=".len() + 32), "{seen:?}");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn keys_are_readable_by_their_owner_only_whatever_the_umask() {
    let home = Home::new();
    let coordinator = millefeuille_tests::home::binary("coordinator");
    let script = format!("umask 0; {} certs init tls", coordinator.display());
    assert!(home.command("sh".as_ref()).args(["-c", &script]).output().unwrap().status.success());

    assert_eq!(mode(&home.path("tls")), 0o755);
    assert_eq!(mode(&home.path("tls/ca")), 0o700);
    assert_eq!(mode(&home.path("tls/ca/ca.key")), 0o600);
    for directory in &DIRECTORIES[1..] {
        assert_eq!(mode(&home.path(&format!("tls/{directory}"))), 0o755, "{directory}");
        assert_eq!(mode(&home.path(&format!("tls/{directory}/tls.key"))), 0o600, "{directory}");
        assert_eq!(mode(&home.path(&format!("tls/{directory}/tls.crt"))), 0o644, "{directory}");
    }

    let script = format!("umask 0; {} certs issue worker more/worker --ca tls/ca", coordinator.display());
    assert!(home.command("sh".as_ref()).args(["-c", &script]).output().unwrap().status.success());
    assert_eq!((mode(&home.path("more")), mode(&home.path("more/worker"))), (0o755, 0o755));

    // Also while they are being written.
    for kind in ["ca-key", "tls-key"] {
        let home = Home::new();
        let point = format!("FAILPOINTS={kind}-before-fsync=return");
        let script = format!("umask 0; {point} exec {} certs init tls", coordinator.display());
        assert!(!home.command("sh".as_ref()).args(["-c", &script]).output().unwrap().status.success());
        let place = if kind == "ca-key" { "tls/ca" } else { "tls/coordinator" };
        let left = fs::read_dir(home.path(place)).unwrap().map(|entry| entry.unwrap().path());
        let left: Vec<_> =
            left.filter(|path| path.extension().is_some_and(|extension| extension == "tmp")).collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(mode(&left[0]), 0o600);
    }
}

#[test]
fn a_ca_directory_that_others_can_read_is_made_private() {
    let home = Home::new();
    fs::create_dir_all(home.path("tls/ca")).unwrap();
    fs::set_permissions(home.path("tls/ca"), fs::Permissions::from_mode(0o755)).unwrap();

    home.coordinator("certs init tls").succeeds();

    assert_eq!(mode(&home.path("tls/ca")), 0o700);
}

#[test]
fn a_ca_directory_that_cannot_be_made_private_is_warned_about() {
    let home = Home::new();
    fs::create_dir(home.path("tls")).unwrap();
    // Even root cannot change modes or write there.
    std::os::unix::fs::symlink("/proc/sys", home.path("tls/ca")).unwrap();

    let ended = home.coordinator("certs init tls").run().with_code(3);

    assert!(ended.stderr.contains("warning: tls/ca: is open to others, and cannot be closed"), "{ended}");
}

#[test]
fn a_key_that_others_can_read_is_named() {
    let home = initialised();
    fs::set_permissions(home.path("tls/worker/tls.key"), fs::Permissions::from_mode(0o644)).unwrap();

    let told = home.coordinator("certs init tls").succeeds();

    assert_eq!(
        told.stderr,
        "warning: tls/worker/tls.key: others can read this key; chmod 600 tls/worker/tls.key\n"
    );
}

#[test]
fn a_second_run_keeps_every_file() {
    let home = initialised();
    let before = files(&home);

    let again = home.coordinator("certs init tls").succeeds();

    for directory in DIRECTORIES {
        assert!(line(&again, directory).contains("kept, expires 20"), "{again}");
    }
    assert_eq!((again.stdout.lines().count(), again.stderr.as_str()), (5, ""));
    assert_eq!(files(&home), before);
}

#[test]
fn several_runs_at_once_create_each_file_once() {
    let home = Home::new();
    let mut started: Vec<_> = (0..6).map(|_| home.coordinator("certs init tls").start()).collect();
    let ended: Vec<_> = started.iter_mut().map(|process| process.wait().with_code(0)).collect();

    for directory in DIRECTORIES {
        let made = ended.iter().filter(|ended| line(ended, directory).contains(" made, "));
        assert_eq!(made.count(), 1, "{directory}");
    }
    home.coordinator("certs show tls").succeeds();
}

#[test]
fn an_interrupted_creation_is_completed_by_the_next_run() {
    for kind in ["ca-key", "ca-crt", "tls-ca", "tls-key", "tls-crt"] {
        for stage in ["before-fsync", "after-fsync", "before-rename", "after-rename"] {
            let home = Home::new();
            let point = format!("{kind}-{stage}=return");
            let cut = home.coordinator("certs init tls").env("FAILPOINTS", &point).run();
            assert_eq!(cut.killed_by(), Some(6), "{point}: {cut}");
            let key = fs::read(home.path("tls/ca/ca.key")).ok();

            home.coordinator("certs init tls").succeeds();

            home.coordinator("certs show tls").succeeds();
            let kept = fs::read(home.path("tls/ca/ca.key")).unwrap();
            assert!(key.is_none_or(|key| key == kept), "{point}: the CA's key is kept");
            let left: Vec<_> = files(&home).into_iter().map(|(path, _)| path).collect();
            let temporary = left.iter().filter(|path| path.to_string_lossy().ends_with(".tmp"));
            assert_eq!(temporary.count(), 0, "{point}: {left:?}");
        }
    }
}

#[test]
fn an_interrupted_renewal_is_completed_by_the_next_run() {
    for point in
        ["tls-key-after-rename=return", "tls-crt-before-rename=return", "tls-crt-after-rename=return"]
    {
        let home = initialised();
        let ca = text(&home, "tls/ca/ca.key");
        home.coordinator("certs init tls --renew").env("FAILPOINTS", point).run();

        home.coordinator("certs init tls").succeeds();

        home.coordinator("certs show tls").succeeds();
        assert_eq!(text(&home, "tls/ca/ca.key"), ca);
    }
}

#[test]
fn a_lost_ca_certificate_is_created_again_for_the_same_key() {
    let home = initialised();
    let (key, worker) = (text(&home, "tls/ca/ca.key"), text(&home, "tls/worker/tls.crt"));
    fs::remove_file(home.path("tls/ca/ca.crt")).unwrap();

    let healed = home.coordinator("certs init tls").succeeds();

    assert!(line(&healed, "ca").contains("made for the key that was there, "), "{healed}");
    assert!(line(&healed, "worker").contains("kept, "), "{healed}");
    assert!(line(&healed, "worker").ends_with("; ca.crt rewritten"), "{healed}");
    assert_eq!((text(&home, "tls/ca/ca.key"), text(&home, "tls/worker/tls.crt")), (key, worker));
    home.coordinator("certs show tls").succeeds();
}

#[test]
fn an_unusable_ca_is_named_and_not_changed() {
    let other = Authority::new(days(-1, 100)).unwrap();
    let issued = other.issue(&Leaf::of(Role::Worker, Vec::new(), days(-1, 50))).unwrap();
    let over = Authority::new(days(-20, -10)).unwrap();
    let to_come = Authority::new(days(10, 20)).unwrap();
    let moved = "move the directory away, and a new CA is made)";
    for (certificate, key, says) in [
        (None, Some(""), &["tls/ca/ca.key: is not a private key in PEM", moved][..]),
        (Some(other.trusted()), None, &["tls/ca/ca.key: is not there", moved]),
        (Some(other.trusted()), Some(""), &["tls/ca/ca.key: is not a private key in PEM", moved]),
        (
            Some(other.trusted()),
            Some(&over.key()),
            &["tls/ca/ca.key: does not belong to the certificate", moved],
        ),
        (Some(""), Some(&other.key()), &["tls/ca/ca.crt: is not a certificate in PEM (restore it"]),
        (Some(&other.trusted()[..200]), Some(&other.key()), &["tls/ca/ca.crt: is not a certificate in PEM"]),
        (Some(&issued.certificate), Some(&issued.key), &["tls/ca/ca.crt: is not a CA's"]),
        (
            Some(over.trusted()),
            Some(&over.key()),
            &["tls/ca/ca.crt: the CA expired on 20", "move its directory away"],
        ),
        (
            Some(to_come.trusted()),
            Some(&to_come.key()),
            &["tls/ca/ca.crt: the CA is not valid before 20", "clock"],
        ),
    ] {
        let home = Home::new();
        fs::create_dir_all(home.path("tls/ca")).unwrap();
        certificate.map(|text| home.write("tls/ca/ca.crt", text));
        key.map(|text| home.write("tls/ca/ca.key", text));
        let before = files(&home);

        let error = home.coordinator("certs init tls").fails(4);
        assert!(says.iter().all(|words| error.contains(words)), "{says:?}: {error}");
        home.coordinator("certs issue worker tls/worker --ca tls/ca").fails(4);

        assert_eq!(files(&home), before, "{says:?}");
    }
}

#[test]
fn no_certificate_is_valid_longer_than_its_ca() {
    let (home, authority) = with_authority(days(-300, 20));

    let made = home.coordinator("certs init tls").succeeds();

    assert!(made.stderr.starts_with("warning: tls/ca/ca.crt: the CA expires on 20"), "{made}");
    assert_eq!(made.stderr.lines().count(), 1, "{made}");
    assert!(line(&made, "ca").contains("kept"), "{made}");
    assert!(line(&made, "worker").ends_with("(20 days): the CA expires then"), "{made}");
    let ends = authority.certificate().validity().not_after;
    assert_eq!(certificate(&home, "tls/worker").validity().not_after, ends);
    assert!(
        line(&home.coordinator("certs init tls").succeeds(), "worker").contains("kept"),
        "not again and again"
    );
}

#[test]
fn unusable_certificates_are_created_again() {
    let good = Leaf::of(Role::Worker, Vec::new(), days(-50, 40));
    let of = |validity| Leaf { validity, ..good.clone() };
    let other = Authority::new(days(-1, 1000)).unwrap();
    for (leaf, by_other, says) in [
        (good.clone(), false, "kept, "),
        (of(days(-61, 29)), false, "renewed (less than a third of its time was left), "),
        (of(days(-90, -1)), false, "renewed (it expired on 20"),
        (of(days(1, 90)), false, "renewed (it was not valid before 20"),
        (good.clone(), true, "renewed (it was not from this CA), "),
        (Leaf { uris: Vec::new(), ..good.clone() }, false, "renewed (it was not a worker's), "),
        (Leaf::of(Role::Reader, Vec::new(), days(-1, 90)), false, "renewed (it was not a worker's), "),
        (
            Leaf { usage: Leaf::of(Role::Coordinator, Vec::new(), good.validity).usage, ..good.clone() },
            false,
            "renewed (it was not a worker's), ",
        ),
    ] {
        let (home, authority) = with_authority(days(-1, 1000));
        place(&home, "tls/worker", if by_other { &other } else { &authority }, &leaf);
        let before = text(&home, "tls/worker/tls.crt");

        let done = home.coordinator("certs init tls").succeeds();

        assert!(line(&done, "worker").contains(says), "{says}: {done}");
        assert_eq!(text(&home, "tls/worker/tls.crt") == before, says.starts_with("kept"), "{says}");
        home.coordinator("certs show tls/worker").succeeds();
    }
}

#[test]
fn damaged_files_of_a_role_are_created_again() {
    let cases: [(&str, &str, &str); 4] = [
        ("tls.key", "", "(tls.key is not a private key in PEM"),
        ("tls.crt", "", "(tls.crt is not a certificate in PEM)"),
        (
            "tls.crt",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "(tls.crt is a damaged certificate)",
        ),
        ("ca.crt", "", "kept, "),
    ];
    for (file, content, says) in cases {
        let home = initialised();
        home.write(&format!("tls/reader/{file}"), content);
        let done = home.coordinator("certs init tls").succeeds();
        assert!(line(&done, "reader").contains(says), "{says}: {done}");
        home.coordinator("certs show tls").succeeds();
    }
    let home = initialised();
    fs::copy(home.path("tls/worker/tls.key"), home.path("tls/reader/tls.key")).unwrap();
    let done = home.coordinator("certs init tls").succeeds();
    assert!(line(&done, "reader").contains("(tls.key belongs to another certificate)"), "{done}");

    for file in ["tls.key", "tls.crt", "ca.crt"] {
        fs::remove_file(home.path(&format!("tls/reader/{file}"))).unwrap();
        home.coordinator("certs init tls").succeeds();
        home.coordinator("certs show tls").succeeds();
    }
}

#[test]
fn a_certificate_without_a_required_name_is_created_again_and_keeps_its_names() {
    let home = initialised();
    let names = || Name::list(certificate(&home, "tls/coordinator").names());

    let kept = home.coordinator("certs init tls --names localhost,127.0.0.1").succeeds();
    assert!(line(&kept, "coordinator").contains("kept"), "it has these names: {kept}");

    let made = home.coordinator("certs init tls --names Coordinator.example,10.0.0.7,localhost").succeeds();
    assert!(line(&made, "coordinator").contains("(it lacked coordinator.example, 10.0.0.7)"), "{made}");
    assert!(line(&made, "worker").contains("kept"), "{made}");
    assert_eq!(names(), "coordinator.example, 10.0.0.7, localhost");

    let kept = home.coordinator("certs init tls").succeeds();
    assert!(line(&kept, "coordinator").contains("kept"), "{kept}");
    home.coordinator("certs init tls --renew").succeeds();
    assert_eq!(names(), "coordinator.example, 10.0.0.7, localhost");
}

#[test]
fn the_names_of_a_damaged_certificate_are_kept() {
    let home = initialised();
    home.coordinator("certs init tls --names coordinator.example").succeeds();
    let whole = text(&home, "tls/coordinator/tls.crt");
    let issue = "certs issue coordinator tls/coordinator --ca tls/ca";
    for (damaged, what) in [
        ("", "is not a certificate in PEM"),
        (&whole[..200], "is not a certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is a damaged certificate"),
    ] {
        home.write("tls/coordinator/tls.crt", damaged);
        let before = files(&home);
        for command in ["certs init tls", "certs init tls --renew", issue] {
            let error = home.coordinator(command).fails(4);
            assert!(
                error.starts_with(&format!("tls/coordinator/tls.crt: {what} (its names")),
                "{command}: {error}"
            );
            assert!(error.contains("--names NAME,…"), "{command}: {error}");
        }
        assert_eq!(files(&home), before, "{damaged}");

        for command in ["certs init tls", issue] {
            home.write("tls/coordinator/tls.crt", damaged);
            home.coordinator(&format!("{command} --names other.example")).succeeds();
            assert_eq!(Name::list(certificate(&home, "tls/coordinator").names()), "other.example");
        }
    }

    fs::remove_file(home.path("tls/coordinator/tls.crt")).unwrap();
    fs::create_dir(home.path("tls/coordinator/tls.crt")).unwrap();
    let error = home.coordinator(issue).fails(4);
    assert!(
        error.starts_with("tls/coordinator/tls.crt: is a directory") && error.contains("--names"),
        "{error}"
    );
}

#[test]
fn renewal_replaces_every_certificate_but_the_ca() {
    let home = initialised();
    let before = files(&home);

    let renewed = home.coordinator("certs init tls --renew --days 7").succeeds();

    assert!(line(&renewed, "ca").contains("kept"), "{renewed}");
    for (path, content) in before {
        let changes = path.file_name().unwrap() == "tls.crt" || path.file_name().unwrap() == "tls.key";
        assert_eq!(fs::read(&path).unwrap() != content, changes, "{}", path.display());
    }
    assert!(line(&renewed, "reader").contains("renewed (requested), "), "{renewed}");
    assert!(line(&renewed, "reader").ends_with("(7 days)"), "{renewed}");
    home.coordinator("certs show tls").succeeds();
}

#[test]
fn readers_see_complete_files_and_matching_pairs() {
    let home = initialised();
    let mut seen = Vec::new();
    for _ in 0..20 {
        let mut renewal = home.coordinator("certs init tls --renew").start();
        while renewal.is_running() {
            for role in &DIRECTORIES[1..] {
                let held = held(&home, &format!("tls/{role}"));
                // Between the renames the pair may not match, but no file is incomplete.
                let mixed = "tls.key belongs to another certificate";
                assert!(held.key.as_ref().is_ok() || held.key == Err(mixed.to_string()), "{:?}", held.key);
                assert!(held.signer().is_some(), "{role}");
                seen.push(held.certificate.fingerprint());
            }
        }
        renewal.wait().with_code(0);
        for role in &DIRECTORIES[1..] {
            assert_eq!(held(&home, &format!("tls/{role}")).key, Ok(()), "{role}");
        }
    }
    seen.sort();
    seen.dedup();
    assert!(seen.len() > DIRECTORIES.len(), "renewals were seen: {}", seen.len());
}

#[test]
fn a_certificate_of_each_role_is_issued() {
    let home = initialised();
    for role in Role::ALL {
        let issued =
            home.coordinator(&format!("certs issue {role} more/{role} --ca tls/ca --days 10")).succeeds();
        assert!(line(&issued, role.name()).contains("made, expires 20"), "{issued}");
        let certificate = certificate(&home, &format!("more/{role}"));
        assert_eq!(
            (certificate.roles(), certificate.subject()),
            (&[role][..], &*format!("Millefeuille {role}"))
        );
        assert_eq!(mode(&home.path(&format!("more/{role}/tls.key"))), 0o600);
        home.coordinator(&format!("certs show more/{role}")).succeeds();
    }

    let before = text(&home, "more/worker/tls.crt");
    home.coordinator("certs issue worker more/worker --ca tls/ca").succeeds();
    assert_ne!(text(&home, "more/worker/tls.crt"), before, "what is there is replaced");

    home.coordinator("certs issue coordinator more/coordinator --ca tls/ca --names *.example,::1").succeeds();
    assert_eq!(Name::list(certificate(&home, "more/coordinator").names()), "*.example, ::1");
    home.coordinator("certs issue coordinator more/coordinator --ca tls/ca").succeeds();
    assert_eq!(Name::list(certificate(&home, "more/coordinator").names()), "*.example, ::1", "they are kept");
}

#[test]
fn both_cas_are_trusted_during_a_change_of_the_ca() {
    let home = initialised();
    let old = text(&home, "tls/ca/ca.crt");
    let new = Authority::new(days(-1, 1000)).unwrap();
    home.write("tls/ca/ca.crt", old.clone() + new.trusted());

    let spread = home.coordinator("certs init tls").succeeds();
    assert!(line(&spread, "worker").ends_with("; ca.crt rewritten"), "{spread}");
    assert_eq!(text(&home, "tls/worker/ca.crt"), old.clone() + new.trusted());

    home.write("tls/ca/ca.key", new.key());
    let taken_over = home.coordinator("certs init tls").succeeds();
    assert!(line(&taken_over, "worker").contains("(it was not from this CA)"), "{taken_over}");
    assert!(certificate(&home, "tls/worker").is_signed_by(new.certificate()));
    assert_eq!(text(&home, "tls/worker/ca.crt"), old + new.trusted());
}

#[test]
fn wrong_usage_is_reported_in_one_line() {
    let home = initialised();
    let before = files(&home);
    for (arguments, says) in [
        ("init tls --names a,b_c,a..b", "--names a..b: is neither a host's name nor an address"),
        ("init tls --names coordinator:7070", "without a port"),
        ("init tls --names 127.0.0.300", "--names 127.0.0.300: "),
        ("init tls --days 0", "--days 0: "),
        ("init tls --days -1", "--days -1: "),
        ("init tls --ca-days 36501", "--ca-days 36501: "),
        ("init tls --days many", "--days many: "),
        ("init", "DIR"),
        ("issue baker out --ca tls/ca", "baker: expected one of coordinator, operator, reader, worker"),
        ("issue worker out --ca tls/ca --names a", "--names is for a coordinator"),
        ("issue worker out", "--ca"),
    ] {
        let error = home.coordinator(&format!("certs {arguments}")).fails(2);
        assert!(error.contains(says), "{says}: {error}");
    }
    assert_eq!(files(&home), before);
    assert!(!home.path("out").exists());
}

#[test]
fn unusable_directories_are_named() {
    let home = initialised();
    home.write("file", "");
    for (arguments, code, says) in [
        ("init file", 3, "file/ca: cannot be made: file is a file"),
        ("init file/below", 3, "file/below/ca: cannot be made: file is a file"),
        ("init /proc/nowhere", 3, "/proc/nowhere/ca: cannot be made: "),
        ("issue worker file --ca tls/ca", 3, "file: is a file, not a directory"),
        ("issue worker out --ca nowhere", 4, "nowhere: holds no CA (make one with: coordinator certs init"),
        ("issue worker out --ca tls", 4, "tls: holds no CA"),
        ("issue worker out --ca tls/worker", 4, "tls/worker/ca.key: is not there"),
        ("show nowhere", 4, "nowhere: no certificates are here"),
        ("show file", 4, "file: no certificates are here"),
    ] {
        let error = home.coordinator(&format!("certs {arguments}")).fails(code);
        assert!(error.contains(says), "{says}: {error}");
    }
    assert!(!home.path("out").exists());

    fs::remove_file(home.path("tls/ca/ca.crt")).unwrap();
    let error = home.coordinator("certs issue worker out --ca tls/ca").fails(4);
    assert!(error.contains("tls/ca/ca.crt: is not there"), "{error}");
    fs::create_dir(home.path("tls/ca/ca.crt")).unwrap();
    let error = home.coordinator("certs init tls").fails(4);
    assert!(error.contains("tls/ca/ca.crt: is a directory, not a file"), "{error}");
}

#[test]
fn certificates_are_shown_as_a_table_and_as_json() {
    let home = initialised();
    let shown = home.coordinator("certs show tls/coordinator").succeeds().stdout;
    for line in [
        "directory    tls/coordinator\n",
        "role         coordinator\n",
        "names        coordinator, localhost, 127.0.0.1, ::1\n",
        &format!("sha256       {}\n", certificate(&home, "tls/coordinator").fingerprint()),
        "signed by    Millefeuille CA, sha256 ",
        "state        valid\n",
    ] {
        assert!(shown.contains(line), "{line:?} is not in {shown}");
    }

    place(
        &home,
        "other",
        &Authority::new(days(-1, 80)).unwrap(),
        &Leaf::of(Role::Reader, Vec::new(), days(-1, 40)),
    );
    let shown = home.coordinator("certs show other").succeeds().stdout;
    assert!(shown.contains("days left    40\n") && shown.contains("names\n"), "{shown}");
    let shown = home.coordinator("certs show other --json").succeeds().json().remove(0);
    assert_eq!((&shown["days_left"], &shown["renew"]), (&40.into(), &false.into()));

    let all = home.coordinator("certs show tls --json").succeeds().json();
    let roles: Vec<_> = all.iter().map(|object| object["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["CA", "coordinator", "operator", "reader", "worker"]);
    assert_eq!(all[1]["names"], serde_json::json!(["coordinator", "localhost", "127.0.0.1", "::1"]));
    assert_eq!((&all[4]["ca"]["sha256"], all[4]["problem"].is_null()), (&all[0]["sha256"], true));
}

#[test]
fn problems_of_certificates_are_shown() {
    let authority = Authority::new(days(-1, 1000)).unwrap();
    let other = Authority::new(days(-1, 1000)).unwrap();
    let good = Leaf::of(Role::Worker, Vec::new(), days(-50, 40));
    let both = vec![Role::Worker.uri(), Role::Reader.uri()];
    for (leaf, trusted, says) in [
        (Leaf { validity: days(-90, -1), ..good.clone() }, &authority, "expired on 20"),
        (Leaf { validity: days(1, 90), ..good.clone() }, &authority, "not valid before 20"),
        (Leaf { uris: Vec::new(), ..good.clone() }, &authority, "tls.crt says no role"),
        (Leaf { uris: both, ..good.clone() }, &authority, "tls.crt says several roles"),
        (good.clone(), &other, "tls.crt is not signed by a CA in ca.crt"),
    ] {
        let home = Home::new();
        directory::write(&home.path("tls"), trusted.trusted(), &authority.issue(&leaf).unwrap()).unwrap();

        let shown = home.coordinator("certs show tls").run();

        assert!(shown.error(4).starts_with(&format!("tls: {says}")), "{shown}");
        assert!(shown.stdout.contains(&format!("state        {says}")), "{shown}");
    }

    let home = Home::new();
    directory::write(&home.path("tls"), authority.trusted(), &authority.issue(&good).unwrap()).unwrap();
    home.write("tls/tls.key", other.key());
    assert!(home.coordinator("certs show tls").fails(4).contains("tls.key belongs to another certificate"));

    place(&home, "tls", &authority, &Leaf { validity: days(-80, 10), ..good });
    let shown = home.coordinator("certs show tls").succeeds().stdout;
    assert!(shown.contains("state        valid; less than a third of its time is left\n"), "{shown}");
}

#[test]
fn a_directory_without_a_certificate_is_an_error() {
    let home = initialised();
    fs::remove_file(home.path("tls/worker/tls.crt")).unwrap();

    for shown in ["tls/worker", "tls"] {
        let error = home.coordinator(&format!("certs show {shown}")).fails(4);
        assert!(error.contains("tls/worker/tls.crt: is not there (renew it"), "{error}");
    }
}
