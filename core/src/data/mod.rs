//! The samples of a job, from files to mini-batches.
//!
//! The caller reads the bytes; everything after that happens here, in this order:
//!
//! 1. [`formats`] decode files into [`part`]s by the job's [`request`], and say exactly what is wrong with damaged ones.
//!    [`table`] is what text tables and others have in common.
//! 2. [`prepare`] makes a [`dataset`] of the parts: it cuts off the test and validation [`split`]s, finds the classes
//!    ([`labels`]), and fits what the model takes as [`inputs`], with its [`normalize`]d features; samples may have
//!    [`weights`]. The [`schema`] describes a sample.
//! 3. [`shard`] partitions each split into shards: the unit in which samples travel, are hashed and kept.
//! 4. [`plan`] determines which samples of each shard make up each step of an epoch.
//!
//! Bytes keep their stored form: the learner scales them and makes one-hot labels, since it has to read each sample
//! anyway. Nothing here opens a file, and nothing depends on the number of workers.

use std::borrow::Cow;

pub mod address;
pub mod dataset;
pub mod formats;
mod gzip;
pub mod inputs;
mod labels;
pub mod normalize;
pub mod part;
mod place;
pub mod plan;
pub mod prepare;
pub mod request;
pub mod schema;
pub mod shard;
pub mod split;
pub mod table;
pub mod weights;

/// The content of a file, and the file's name for errors.
#[derive(Clone, Debug)]
pub struct NamedFile {
    /// The path as the user gave it.
    pub name: String,
    /// The file's content.
    pub bytes: Cow<'static, [u8]>,
}

/// Formats `1234567` as `1,234,567`: the numbers in this module's errors are long.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn long_numbers_are_grouped_in_threes() {
        let texts = [0, 999, 1_000, 31_007, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "31,007", "1,234,567"]);
    }
}
