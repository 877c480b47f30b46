//! The control machine in simulated worlds: see [`millefeuille_tests::sim`].
//!
//! A failure prints the command that replays it. `make soak` lives through many more worlds.

use millefeuille_tests::sim::{Mutation, simulate, simulate_all};

#[test]
fn nothing_that_happens_changes_what_is_computed() {
    let (stats, failures) = simulate_all(0..2000, None);
    let failures: Vec<_> = failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    // A simulation in which nothing goes wrong would prove nothing.
    assert!(stats.lost > 5000 && stats.resumed > 200 && stats.evicted > 200, "{stats:?}");
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in 0..20 {
        let stories = [(); 2].map(|()| format!("{:?}", simulate(seed, None, false)));
        assert_eq!(stories[0], stories[1], "seed {seed}");
    }
}

/// A mistake that nobody finds would show that this proves nothing.
#[test]
fn mistakes_are_found() {
    let missed = |&mutation: &Mutation| simulate_all(0..1000, Some(mutation)).1.is_empty();
    let missed: Vec<_> = Mutation::ALL.into_iter().filter(missed).collect();
    assert_eq!(missed, [], "these mistakes were not found");
}
