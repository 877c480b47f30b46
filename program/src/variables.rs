//! The environment, which is bytes: a variable may hold anything that a shell or a supervisor has put there.
//!
//! A variable that nothing here reads is nobody's business, whatever it holds. One that is read as text and is none is an
//! error that names it ([`check`]; for those behind flags see [`crate::usage`]). OpenBLAS' own are set aside and given back
//! unchanged, text or not, so that they pass through the decision about kernels in a form that loses nothing
//! ([`openblas`], [`bytes()`]).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// A process's instance id, over restarts. It is nobody else's, and must not reach the processes that it starts.
pub const INSTANCE: &str = "MILLEFEUILLE_INSTANCE";
/// Which kernel a process was started for, over restarts and for the workers that it starts.
pub const STARTED_FOR: &str = "MILLEFEUILLE_STARTED_FOR";
/// What filters the log, as `RUST_LOG` does elsewhere.
pub const LOG: &str = "MILLEFEUILLE_LOG";

/// Those that are text and belong to no flag.
const TEXTS: [&str; 3] = [STARTED_FOR, INSTANCE, LOG];

/// How the names of those begin that decide how BLAS computes. Ours are among them: what is kept over a restart.
const OF_BLAS: [&str; 4] = ["OPENBLAS_", "OMP_", "MILLEFEUILLE_", "MALLOC_ARENA_MAX"];

/// Whether those that have to be text are.
///
/// # Errors
/// Which one is not, and what to do.
pub fn check() -> Result<(), String> {
    let set = TEXTS.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut wrong = set.filter(|(_, value)| value.to_str().is_none());
    wrong.next().map_or(Ok(()), |(name, value)| Err(no_text(name, &value)))
}

/// What is said of one that has to be text and is none.
pub fn no_text(name: &str, value: &OsStr) -> String {
    format!("{name}={value:?}: not text in UTF-8; set it anew, or unset it")
}

/// A variable that is text; none if it is not set.
pub fn text(name: &str) -> Option<String> {
    std::env::var_os(name)?.into_string().ok()
}

/// The variables that decide how BLAS computes, in a form from which [`bytes()`] gives back what they are.
pub fn openblas() -> BTreeMap<String, String> {
    let of_blas = |name: &OsStr| OF_BLAS.iter().any(|begin| name.as_bytes().starts_with(begin.as_bytes()));
    let variables = std::env::vars_os().filter(|(name, _)| of_blas(name));
    variables.map(|(name, value)| (as_text(&name), as_text(&value))).collect()
}

/// The bytes that [`openblas`] has made text of.
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

/// Text with a character for each byte that belongs to none. Where such a character itself is in it, so is each of its bytes.
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

/// The first of the characters that stand for bytes, which are private (Unicode's plane 16).
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
    fn every_value_comes_back_as_it_was() {
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
