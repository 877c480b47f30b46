//! Simulates the control machine with many seeds: see [`millefeuille_tests::sim`].
//!
//! A failure prints the command that replays it. `make soak` simulates many more seeds.

use millefeuille_tests::sim::{Mutation, simulate, simulate_all};

#[test]
fn simulated_faults_do_not_change_the_result() {
    let (stats, failures) = simulate_all(0..2000, None);
    let failures: Vec<_> = failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    // Enough faults must have happened for the test to be meaningful.
    assert!(stats.lost > 5000 && stats.resumed > 200 && stats.evicted > 200, "{stats:?}");
}

#[test]
fn a_seed_always_gives_the_same_run() {
    for seed in 0..20 {
        let runs = [(); 2].map(|()| format!("{:?}", simulate(seed, None, false)));
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
}

/// Each deliberate mistake must be detected, otherwise the oracle checks too little.
#[test]
fn deliberate_mistakes_are_detected() {
    // Most are detected among the first seeds; some take a rare course of events.
    let detects = |first, mutation| !simulate_all(first..first + 500, Some(mutation)).1.is_empty();
    let missed = |&mutation: &Mutation| !(0..5000).step_by(500).any(|first| detects(first, mutation));
    let missed: Vec<_> = Mutation::ALL.into_iter().filter(missed).collect();
    assert_eq!(missed, [], "these mistakes were not detected");
}
