//! Environment variables, which are bytes: a shell or a supervisor may have put anything there.
//!
//! Variables that this project does not read may hold anything. A variable that is read as text but is not valid text
//! is an error that names it ([`check`]; for variables behind flags see [`crate::usage`]). OpenBLAS' own variables
//! are kept and passed on unchanged, text or not, so the decision about kernels handles them in a lossless form
//! ([`openblas`], [`bytes()`]).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// A process's instance id, kept over restarts. It must not reach the processes that this one starts.
pub const INSTANCE: &str = "MILLEFEUILLE_INSTANCE";
/// The kernel that a process was started for, kept over restarts and passed to the workers that it starts.
pub const STARTED_FOR: &str = "MILLEFEUILLE_STARTED_FOR";
/// How often a worker has started again in a row for another kernel.
pub const RESTARTS: &str = "MILLEFEUILLE_RESTARTS";
/// The log filter, in the syntax of `RUST_LOG`.
pub const LOG: &str = "MILLEFEUILLE_LOG";

/// Variables that must be text and belong to no flag.
const TEXTS: [&str; 3] = [STARTED_FOR, INSTANCE, LOG];

/// Prefixes of the variables that decide how BLAS computes. Ours are among them: those that are kept over a restart.
const OF_BLAS: [&str; 3] = ["OPENBLAS_", "OMP_", "MILLEFEUILLE_"];

/// Checks that the variables that must be text are text.
///
/// # Errors
/// The message names the variable that is not text, and says what to do.
pub fn check() -> Result<(), String> {
    let set = TEXTS.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut wrong = set.filter(|(_, value)| value.to_str().is_none());
    wrong.next().map_or(Ok(()), |(name, value)| Err(no_text(name, &value)))
}

/// The error message for a variable that must be text and is not.
pub fn no_text(name: &str, value: &OsStr) -> String {
    format!("{name}={value:?}: not text in UTF-8; set it anew, or unset it")
}

/// A variable that must be text; `None` if it is not set.
pub fn text(name: &str) -> Option<String> {
    std::env::var_os(name)?.into_string().ok()
}

/// The variables that decide how BLAS computes, in a form that [`bytes()`] converts back without loss.
pub fn openblas() -> BTreeMap<String, String> {
    let of_blas = |name: &OsStr| OF_BLAS.iter().any(|begin| name.as_bytes().starts_with(begin.as_bytes()));
    let variables = std::env::vars_os().filter(|(name, _)| of_blas(name));
    variables.map(|(name, value)| (as_text(&name), as_text(&value))).collect()
}

/// Converts text from [`openblas`] back to the original bytes.
pub fn bytes(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match byte_of(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    OsString::from_vec(bytes)
}

/// Encodes bytes as text. Each byte that is not valid UTF-8 becomes a stand-in character. If the text itself contains
/// a stand-in character, each of its bytes is encoded too.
fn as_text(value: &OsStr) -> String {
    let mut text = String::new();
    for chunk in value.as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            match byte_of(character) {
                Some(_) => text.extend(character.encode_utf8(&mut [0; 4]).bytes().map(stand_in_for)),
                None => text.push(character),
            }
        }
        text.extend(chunk.invalid().iter().copied().map(stand_in_for));
    }
    text
}

/// The first stand-in character, in the private-use plane 16 of Unicode.
const STAND_INS: u32 = 0x10_f700;

fn stand_in_for(byte: u8) -> char {
    char::from_u32(STAND_INS + u32::from(byte)).expect("all of the plane are characters")
}

fn byte_of(character: char) -> Option<u8> {
    u32::from(character).checked_sub(STAND_INS)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_round_trips() {
        let stand_in = stand_in_for(0xff).to_string();
        let values: [&[u8]; 7] = [
            b"",
            b"Haswell",
            "Größe=1\u{1f}".as_bytes(),
            b"\xff",
            b"a\x80\xc3b\xf0\x9f",
            stand_in.as_bytes(),
            &[stand_in.as_bytes(), b"\xfe", stand_in.as_bytes(), b"x"].concat(),
        ];
        for value in values {
            assert_eq!(bytes(&as_text(OsStr::from_bytes(value))).as_bytes(), value, "{value:?}");
        }
        assert_eq!(as_text(OsStr::new("Größe")), "Größe", "text stays what it is");
    }
}
