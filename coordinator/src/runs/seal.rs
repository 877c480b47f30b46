//! JSON that detects damage: an object whose last key is the SHA-256 of everything before it.
//!
//! ```text
//! {
//!   "format": 1,
//!   …
//!   "sha256": "<hex SHA-256 of all bytes before this key's comma>"
//! }
//! ```
//!
//! The hash covers the bytes, not the values, so that every changed bit is detected. Every later version of a format
//! keeps `format` and the seal, so that an intact file of a newer version can be told apart from a damaged one.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::json;

#[derive(Serialize)]
struct Sealed<'a, T> {
    format: u32,
    #[serde(flatten)]
    content: &'a T,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Why the content of a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Its content is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// It is intact, and a later version of this program wrote it.
    #[error("format {found} is newer than this program knows ({known}): use a newer version of Millefeuille")]
    Newer {
        /// Its format version.
        found: u32,
        /// The newest format version that can be read.
        known: u32,
    },
}

/// Writes `content`, a struct, as sealed text of this version.
pub(super) fn seal(format: u32, content: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(&Sealed { format, content });
    let text = text.expect("structs of numbers, strings and lists have a JSON form");
    let body = text.strip_suffix("\n}").expect("pretty JSON objects end so");
    format!("{body}{}", end_of(body.as_bytes()))
}

/// Reads sealed text of this version or an older one.
pub(super) fn open<T: DeserializeOwned>(text: &[u8], known: u32) -> Result<T, Broken> {
    let len = end_of(&[]).len();
    let Some((body, end)) = text.split_at_checked(text.len().wrapping_sub(len)) else {
        return Err(Broken::Damaged(format!("cut short: {} bytes are left", text.len())));
    };
    if end != end_of(body).as_bytes() {
        let what = "damaged: it is not what its own SHA-256 at its end says (cut short, or changed since)";
        return Err(Broken::Damaged(what.to_string()));
    }
    let Format { format: found } = json::parse(text).map_err(Broken::Damaged)?;
    if found > known {
        return Err(Broken::Newer { found, known });
    }
    json::parse(text).map_err(Broken::Damaged)
}

fn end_of(body: &[u8]) -> String {
    format!(",\n  \"sha256\": \"{}\"\n}}\n", hex::encode(Sha256::digest(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Content {
        name: String,
        numbers: Vec<f64>,
    }

    fn content() -> Content {
        Content { name: "a \"name\"\n".into(), numbers: vec![0.1 + 0.2, -0.0, 1e-300, f64::MAX] }
    }

    #[test]
    fn content_comes_back_bit_for_bit() {
        let back: Content = open(seal(1, &content()).as_bytes(), 1).unwrap();
        let bits = |content: &Content| content.numbers.iter().map(|n| n.to_bits()).collect::<Vec<_>>();
        assert_eq!((bits(&back), &back.name), (bits(&content()), &content().name));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let text = seal(1, &content()).into_bytes();
        for len in 0..text.len() {
            assert!(matches!(open::<Content>(&text[..len], 1), Err(Broken::Damaged(_))), "{len} bytes");
        }
        for bit in 0..text.len() * 8 {
            let mut changed = text.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open::<Content>(&changed, 1), Err(Broken::Damaged(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_no_damage() {
        let newer = seal(7, &content());
        assert_eq!(open::<Content>(newer.as_bytes(), 1), Err(Broken::Newer { found: 7, known: 1 }));
    }
}
