//! Environment variables: unrelated ones have no effect, and wrong ones are named in the error.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use millefeuille_tests::home::{Call, Home};
use millefeuille_tests::process::Process;

/// A byte that is not UTF-8.
const NO_TEXT: &[u8] = b"\xff";

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// Unrelated variables: with values or names that are not UTF-8, and some with names like ours.
fn strange(call: Call) -> Call {
    let set = [&b"X"[..], b"\xffX", b"LANG", b"COLUMNS", b"MILLEFEUILLE_OF_ANOTHER_VERSION", b"MILLEFEUILLE"];
    set.into_iter().fold(call, |call, name| call.env(os(name), os(NO_TEXT)))
}

/// The variables of a process.
fn variables(pid: u32) -> Vec<Vec<u8>> {
    let variables = std::fs::read(format!("/proc/{pid}/environ")).expect("it runs");
    variables.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect()
}

#[test]
fn unrelated_variables_have_no_effect() {
    let home = Home::small();
    let alone = home.undisturbed("small.toml");
    strange(home.coordinator("train small.toml --workers 2 --run-dir run")).succeeds();
    alone.is_equalled_by(&home.run("run"));
    for command in ["show data small.toml", "evaluate run", "verify run", "train --help"] {
        strange(home.coordinator(command)).succeeds();
    }

    let cluster = home.cluster("");
    let mut worker = strange(cluster.worker("--slots 1")).start();
    worker.says("joined as worker");
    strange(cluster.coordinator("train small.toml")).succeeds();
    alone.is_equalled_by(&home.run("runs/small-1"));
}

#[test]
fn openblas_variables_are_unset_and_restored_whatever_their_values() {
    let home = Home::small();
    let alone = home.undisturbed("small.toml");
    // One without a meaning, and one that would choose a kernel.
    let set = |call: Call| {
        let call = call.env("OPENBLAS_NOTHING", os(b"a\xff=\xc3\xa9\x80"));
        call.env("OPENBLAS_CORETYPE", os(NO_TEXT)).env(os(b"OPENBLAS_\xfe"), "1")
    };
    let theirs = [&b"OPENBLAS_NOTHING=a\xff=\xc3\xa9\x80"[..], b"OPENBLAS_CORETYPE=\xff", b"OPENBLAS_\xfe=1"];
    set(home.coordinator("train small.toml --workers 2 --run-dir run")).succeeds();
    alone.is_equalled_by(&home.run("run"));

    let long = "train small.toml --epochs 100000 --workers 1 --overwrite --run-dir long";
    let training = |call: Call| {
        let mut train = set(call).start();
        train.says("Epoch 1/");
        train
    };
    let of_all = |train: &Process| {
        let workers = train.children().into_iter().map(|worker| worker.pid);
        workers.chain([train.pid()]).map(variables).collect::<Vec<_>>()
    };
    let has = |variables: &[Vec<u8>], variable: &[u8]| variables.iter().any(|there| there == variable);

    // They are unset and stored for the child processes.
    let native = training(home.coordinator(long));
    for variables in of_all(&native) {
        assert!(theirs.iter().all(|variable| !has(&variables, variable)), "it computes without them");
        let saved = variables.iter().find(|there| there.starts_with(b"MILLEFEUILLE_OPENBLAS_ENV="));
        let saved = &saved.expect("they are kept")[b"MILLEFEUILLE_OPENBLAS_ENV=".len()..];
        let mut saved: Vec<_> = saved.split(|&byte| byte == 0x1f).collect();
        saved.sort_unstable();
        let mut expected = theirs;
        expected.sort_unstable();
        assert_eq!(saved, expected);
    }
    drop(native);

    let theirs_rule = training(home.coordinator(&format!("{long} --blas-kernel environment")));
    for variables in of_all(&theirs_rule) {
        assert!(theirs.iter().all(|variable| has(&variables, variable)), "it computes with them");
    }
}

#[test]
fn a_variable_that_is_not_utf_8_is_named() {
    let home = Home::small();
    for name in ["LOG", "INSTANCE", "STARTED_FOR", "EPOCHS", "SLOTS", "CONNECT_TIMEOUT"] {
        let name = format!("MILLEFEUILLE_{name}");
        let error = home.coordinator("train small.toml --run-dir run").env(&name, os(NO_TEXT)).fails(2);
        assert_eq!(error, format!("{name}=\"\\xFF\": not text in UTF-8; set it anew, or unset it"));
    }
    for name in ["LOG", "INSTANCE", "STARTED_FOR", "COORDINATOR", "SLOTS", "TOKEN", "OPS_LISTEN"] {
        let name = format!("MILLEFEUILLE_{name}");
        let coordinator = if name.ends_with("COORDINATOR") { "" } else { "--coordinator 127.0.0.1:1" };
        let error = home.worker(coordinator).env(&name, os(NO_TEXT)).fails(2);
        assert_eq!(error, format!("{name}=\"\\xFF\": not text in UTF-8; set it anew, or unset it"));
    }
    let error = home.worker("doctor").env("MILLEFEUILLE_COORDINATOR", os(NO_TEXT)).fails(2);
    assert!(error.starts_with("MILLEFEUILLE_COORDINATOR=\"\\xFF\": not text in UTF-8"), "{error}");
    // A flag takes precedence over its variable, and a path need not be UTF-8.
    let typed = "train small.toml --epochs 1 --workers 1 --run-dir typed";
    home.coordinator(typed).env("MILLEFEUILLE_EPOCHS", os(NO_TEXT)).succeeds();
    home.coordinator("train small.toml --workers 1").env("MILLEFEUILLE_RUN_DIR", os(b"run-\xff")).succeeds();
    // A flag that is not UTF-8 is shown.
    let error = home.coordinator("train small.toml --epochs").arg(os(b"3\xff")).fails(2);
    assert!(error.contains("\"3\\xFF\"") && error.contains("not text in UTF-8"), "{error}");
}
