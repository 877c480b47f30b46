//! Memory does not grow with the number of steps.

use std::fs;

use millefeuille_tests::home::Home;
use millefeuille_tests::process::until;

/// Steps in an epoch of the small job.
const STEPS: usize = 17;
/// Steps after which all long-lived memory has been allocated.
const FIRST: usize = 200;
/// The growth that a thousand steps may cause: less than one gradient per hundred steps, and some lines of the history.
const GROWTH_KB: u64 = 1024;

/// Resident memory, in KiB.
fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}

#[test]
fn the_memory_of_coordinator_and_workers_does_not_grow_with_steps() {
    let home = Home::new();
    home.small_job();
    let mut training = home.coordinator("train small.toml --epochs 100000 --workers 2 --run-dir run").start();
    let run = home.run("run");
    let after = |steps: usize| {
        until(format!("{steps} steps"), || {
            (run.has("history.jsonl") && run.history_so_far() * STEPS >= steps).then_some(())
        });
    };

    after(FIRST);
    let processes: Vec<u32> =
        training.children().iter().map(|child| child.pid).chain([training.pid()]).collect();
    let before: Vec<u64> = processes.iter().map(|&pid| resident_kb(pid)).collect();
    assert_eq!(processes.len(), 3, "two workers and their coordinator");
    let first = run.history_so_far() * STEPS;
    after(first + 1_000);

    for (pid, before) in processes.into_iter().zip(before) {
        let now = resident_kb(pid);
        assert!(now <= before + GROWTH_KB, "process {pid} had {before} KiB and has {now}");
    }
    assert!(training.is_running(), "it trains on");
}

#[test]
fn memory_does_not_grow_with_steps_over_the_network() {
    let home = Home::new();
    home.small_job();
    let cluster = home.cluster("--min-workers 2");
    let workers = [0; 2].map(|_| cluster.joined_by("--slots 1"));
    let _following = cluster.coordinator("train small.toml --epochs 100000").start();
    let run = home.run("runs/small-1");
    let after = |steps: usize| {
        until(format!("{steps} steps"), || {
            (run.has("history.jsonl") && run.history_so_far() * STEPS >= steps).then_some(())
        });
    };

    after(FIRST);
    let before = [workers[0].pid(), workers[1].pid()].map(resident_kb);
    let first = run.history_so_far() * STEPS;
    after(first + 1_000);

    for (worker, before) in workers.iter().zip(before) {
        let now = resident_kb(worker.pid());
        assert!(now <= before + GROWTH_KB, "worker {} had {before} KiB and has {now}", worker.pid());
    }
}
