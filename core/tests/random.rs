//! Random numbers are functions of their coordinates, and their values never change.
//!
//! The golden values come from a second implementation, of ChaCha8 and of the mappings, written for the
//! purpose from the table in `random`'s header. A change of any of them changes every model ever trained: it
//! needs a new version of the job format.

use millefeuille_core::random::{DropoutWords, shuffled, uniform};
use proptest::prelude::*;

fn dropout_words(seed: u64, epoch: u64, layer: u64, sample: u64, units: usize) -> Vec<u32> {
    let mut words = vec![0; units];
    DropoutWords::new(seed, epoch, layer).fill(sample, &mut words);
    words
}

fn weights(seed: u64, layer: u64, limit: f32, len: usize) -> Vec<f32> {
    let mut weights = vec![0.0; len];
    uniform(seed, layer, limit, &mut weights);
    weights
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn dropout_words_are_golden() {
    assert_eq!(dropout_words(42, 0, 2, 0, 4), [0xb238_a555, 0x94e5_a5c0, 0x96e8_de9c, 0x2b69_fbfb]);
    let beyond_two_buffers = &dropout_words(42, 3, 2, 47_999, 130)[126..];
    assert_eq!(beyond_two_buffers, [0x33cc_1b36, 0x2fec_9126, 0xc9a9_fd02, 0x88ec_6812]);
    let large = dropout_words(u64::MAX, 0, 2, (1 << 40) + 1, 4);
    assert_eq!(large, [0x8025_70e9, 0x62a1_eee8, 0x7b65_8677, 0x9610_c056]);
}

#[test]
fn shuffles_are_golden() {
    assert_eq!(shuffled(42, 0, 0, 16), [9, 10, 8, 1, 12, 13, 3, 11, 5, 6, 2, 14, 4, 15, 7, 0]);
    assert_eq!(shuffled(42, 1, 7, 16), [3, 10, 7, 4, 9, 13, 6, 2, 8, 11, 1, 0, 15, 14, 12, 5]);
    assert_eq!(shuffled(42, 0, 0, 6000)[..8], [412, 2078, 446, 927, 1044, 2893, 855, 583]);
}

#[test]
fn initial_weights_are_golden() {
    let first = weights(42, 0, (6.0f32 / 1040.0).sqrt(), 784 * 256);
    assert_eq!(bits(&first[..4]), [0x3d44_7a82, 0x3bcb_15d6, 0x3d8c_40cc, 0xbc71_784e]);
    assert_eq!(bits(&first[784 * 256 - 2..]), [0xbd66_4c0b, 0x3d90_0b55]);
    assert_eq!(
        bits(&weights(7, 3, (6.0f32 / 138.0).sqrt(), 4)),
        [0x3d1c_fa13, 0x3d4f_22ad, 0xbe2f_e241, 0xbd4f_9c23]
    );
}

#[test]
fn a_sample_has_its_words_whatever_was_drawn_before() {
    let mut words = DropoutWords::new(1, 2, 3);
    let mut drawn = vec![0; 100];
    for sample in [5, 0, 5, 1 << 40, 5] {
        words.fill(sample, &mut drawn);
        assert_eq!(drawn, dropout_words(1, 2, 3, sample, 100));
    }
    words.fill(5, &mut drawn[..7]);
    words.fill(6, &mut drawn);
    assert_eq!(drawn, dropout_words(1, 2, 3, 6, 100));
}

#[test]
fn every_coordinate_matters() {
    let base = dropout_words(1, 2, 3, 4, 8);
    for (seed, epoch, layer, sample) in [(9, 2, 3, 4), (1, 9, 3, 4), (1, 2, 9, 4), (1, 2, 3, 9)] {
        assert_ne!(dropout_words(seed, epoch, layer, sample, 8), base);
    }
    let base = shuffled(1, 2, 3, 100);
    for (seed, epoch, shard) in [(9, 2, 3), (1, 9, 3), (1, 2, 9)] {
        assert_ne!(shuffled(seed, epoch, shard, 100), base);
    }
    assert_ne!(weights(1, 2, 1.0, 8), weights(9, 2, 1.0, 8));
    assert_ne!(weights(1, 2, 1.0, 8), weights(1, 9, 1.0, 8));
}

#[test]
fn weights_are_uniform_within_their_limit() {
    let weights = weights(3, 0, 0.5, 100_000);
    assert!(weights.iter().all(|weight| (-0.5..0.5).contains(weight)));
    let mean = weights.iter().map(|w| f64::from(*w)).sum::<f64>() / 1e5;
    let variance = weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / 1e5 - mean * mean;
    // Four standard errors of each.
    assert!(mean.abs() < 4.0 * (1.0f64 / 12.0 / 1e5).sqrt(), "{mean}");
    assert!((variance - 1.0 / 12.0).abs() < 4.0 * (1.0f64 / 180.0 / 1e5).sqrt(), "{variance}");
}

#[test]
fn dropout_at_one_half_drops_one_half() {
    let words = (0..1000).flat_map(|sample| dropout_words(3, 0, 2, sample, 128));
    let kept = words.filter(|word| *word >= 1 << 31).count() as f64;
    assert!((kept - 64_000.0).abs() < 4.0 * (128_000.0f64 / 4.0).sqrt(), "{kept}");
}

#[test]
fn a_shuffle_puts_every_sample_anywhere() {
    // Each of 10 samples at each of 10 places, over 10,000 epochs: 1,000 times, within five standard errors.
    let mut counts = [[0u32; 10]; 10];
    for epoch in 0..10_000 {
        for (place, sample) in shuffled(3, epoch, 0, 10).into_iter().enumerate() {
            counts[place][sample as usize] += 1;
        }
    }
    assert!(counts.iter().flatten().all(|count| count.abs_diff(1000) < 150), "{counts:?}");
}

proptest! {
    #[test]
    fn a_shuffle_is_a_permutation(seed: u64, epoch: u64, shard: u64, len in 0u32..500) {
        let mut order = shuffled(seed, epoch, shard, len);
        order.sort_unstable();
        prop_assert_eq!(order, (0..len).collect::<Vec<_>>());
    }
}
