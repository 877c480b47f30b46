//! Limits of the system: what a program needs is asked for at its start, and what it can't have is one line.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use millefeuille_tests::home::{Call, Home, binary};
use millefeuille_tests::process::{Ended, Process, Signal, until};

/// Whether it ended well, or with one line that names this limit.
fn is_well_or_names(ended: &Ended, limit: &str) -> bool {
    match ended.code() {
        Some(0) => true,
        Some(1) => {
            let error = ended.error(1);
            assert!(error.contains(limit), "{ended}");
            false
        }
        _ => panic!("{ended}"),
    }
}

#[test]
fn a_low_soft_limit_of_open_files_is_raised() {
    let home = Home::new();
    home.small_job();
    let train = "train small.toml --workers 2 --run-dir run";
    home.limited("ulimit -S -n 64", "coordinator", train).succeeds();

    let error =
        home.limited("ulimit -n 100", "coordinator", &train.replace("run-dir run", "run-dir none")).fails(1);
    assert_eq!(
        error,
        "the limit of open files is 100 (ulimit -n), and 144 are needed: raise it, or start fewer --workers"
    );
    let error = home.limited("ulimit -n 100", "coordinator", "serve --listen 127.0.0.1:0").fails(1);
    assert!(error.contains("(ulimit -n), and 132 are needed"), "{error}");
    let error = home.limited("ulimit -n 20", "worker", "--coordinator 127.0.0.1:1").fails(1);
    assert!(error.contains("(ulimit -n), and 48 are needed"), "{error}");
    // A hard limit that is just enough.
    home.limited("ulimit -n 144", "coordinator", &train.replace("run-dir run", "run-dir just")).succeeds();
}

#[test]
fn a_limit_of_address_space_trains_or_is_one_line() {
    let home = Home::new();
    home.small_job();
    // With less, an unoptimised program itself can't be loaded.
    for megabytes in [150, 200, 300, 350, 400, 450, 500] {
        let limit = format!("ulimit -v {}", megabytes * 1000);
        let train = format!("train small.toml --epochs 1 --workers 1 --slots 1 --run-dir run-{megabytes}");
        let ended = home.limited(&limit, "coordinator", &train).run();
        assert_eq!(is_well_or_names(&ended, "ulimit -v"), megabytes >= 400, "{ended}");
        let ended =
            home.limited(&limit, "worker", "--coordinator 127.0.0.1:1 --slots 1 --join-timeout 0.1").run();
        let code = if megabytes >= 400 { 4 } else { 1 };
        assert!(code == 4 || ended.error(1).contains("ulimit -v"), "{ended}");
        assert_eq!(ended.code(), Some(code), "{ended}");
    }
}

#[test]
fn a_limit_of_processes_is_one_line() {
    let home = Home::new();
    home.small_job();
    // Another user, who has no processes: the limit counts all of a user's, and root has none.
    fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    let limited = |limit: u32, program: &str, arguments: &str| -> Call {
        let program = binary(program);
        let command = format!("prlimit --nproc={limit} {} {arguments}", program.display());
        match rustix::process::geteuid().is_root() {
            true => home.call("setpriv".as_ref(), &format!("--reuid 47011 --clear-groups {command}")),
            false => home.call("prlimit".as_ref(), &command["prlimit ".len()..]),
        }
    };
    for limit in [2, 4, 8, 12] {
        for (program, arguments) in [
            ("coordinator", "train small.toml --epochs 1 --workers 4 --slots 2 --run-dir run"),
            ("coordinator", "show data"),
            ("coordinator", "doctor"),
            ("worker", "--coordinator 127.0.0.1:1 --slots 8 --join-timeout 0.1"),
        ] {
            let ended = limited(limit, program, arguments).run();
            assert!(
                !ended.stderr.contains("panicked") && !ended.stderr.contains("pthread_create"),
                "{limit}: {ended}"
            );
            is_well_or_names(&ended, "(ulimit -u, docker run --pids-limit)");
        }
    }
}

/// The signals that a process blocks or catches, from its status.
fn minds(process: &Process, signal: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap_or_default();
    let masks =
        status.lines().filter_map(|line| line.strip_prefix("SigBlk:").or(line.strip_prefix("SigCgt:")));
    let masks = masks.filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    masks.fold(0, |all, mask| all | mask) & 1 << (signal - 1) != 0
}

#[test]
fn a_signal_right_after_the_start_ends_a_program_as_documented() {
    const SIGTERM: u32 = 15;
    let home = Home::new();
    for _ in 0..20 {
        for (call, code) in [
            (home.worker("--coordinator 127.0.0.1:1"), 0),
            (home.coordinator("train --epochs 1000 --run-dir run --overwrite"), 130),
        ] {
            let mut process = call.start();
            until("it blocks the signal", || minds(&process, SIGTERM).then_some(()));
            process.signal(Signal::TERM);
            process.wait().with_code(code);
        }
    }
}
