//! Random faults for a limited time: `make chaos SECONDS=60 SEED=1`. Without a seed, a new one is chosen and printed.

use std::str::FromStr;
use std::time::SystemTime;

use millefeuille_tests::chaos;

fn setting<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a whole number")))
}

/// A new seed.
fn of_the_moment() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64 % 1_000_000
}

#[test]
fn random_faults_do_not_change_the_model() {
    let seconds = setting("CHAOS_SECONDS").unwrap_or(60);
    let seed = setting("CHAOS_SEED").unwrap_or_else(of_the_moment);

    let report = chaos::run(seed, seconds);

    println!("chaos: seed {seed}: {report}");
    assert!(report.rounds > 0);
}
