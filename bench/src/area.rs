//! Measures how long the area under a ROC curve takes to compute: for scores of made-up samples, from the counts of
//! their bins on, on one core.
//!
//! The target is 2 s for 10 million scores.

use std::time::Instant;

use millefeuille_core::learn::metrics::binned_roc_area;

/// Seconds for 10 million scores.
const TARGET: f64 = 2.0;

/// Measures `scores` scores, three times, and prints each time.
pub(crate) fn run(scores: u32) -> anyhow::Result<()> {
    let word = |k: u32| k.wrapping_mul(2_654_435_761) ^ (k >> 3).wrapping_mul(0x9e37_79b9);
    let is_positive: Vec<bool> = (0..scores).map(|k| word(k) & 1 == 1).collect();
    let score = |k: u32| {
        let uniform = (word(k) >> 8) as f32 / (1 << 24) as f32;
        if word(k) & 1 == 1 { uniform.sqrt() } else { uniform }
    };
    let values: Vec<f32> = (0..scores).map(score).collect();
    let target = TARGET * f64::from(scores) / 1e7;
    for _ in 0..3 {
        let started = Instant::now();
        let area = binned_roc_area(&values, &is_positive);
        let seconds = started.elapsed().as_secs_f64();
        let area = area.ok_or_else(|| anyhow::anyhow!("there is one class only: give more scores"))?;
        println!("{scores} scores: {seconds:.3} s (target {target:.3} s), area {area:.6}");
    }
    Ok(())
}
