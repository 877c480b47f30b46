//! Chaos for a bounded time: `make chaos SECONDS=60 SEED=1`. Without a seed, one of the moment is taken and printed.

use std::str::FromStr;
use std::time::SystemTime;

use millefeuille_tests::chaos;

fn setting<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a whole number")))
}

/// A seed that nobody has chosen.
fn of_the_moment() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64 % 1_000_000
}

#[test]
fn whatever_happens_the_model_is_the_same() {
    let seconds = setting("CHAOS_SECONDS").unwrap_or(60);
    let seed = setting("CHAOS_SEED").unwrap_or_else(of_the_moment);

    let report = chaos::run(seed, seconds);

    println!("chaos: seed {seed}: {report}");
    assert!(report.rounds > 0);
}
