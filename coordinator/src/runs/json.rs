//! JSON that a file should have: what is wrong with it, in plain words.

use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// Reads a value.
///
/// # Errors
/// Whether it is no JSON, or JSON of something else, and at which byte.
pub(super) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| plain(text, &error))
}

fn plain(text: &[u8], error: &serde_json::Error) -> String {
    let at = format!("at byte {}", place(text, error));
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    match error.classify() {
        Category::Eof => format!("not JSON: it ends too early, {at}"),
        Category::Syntax | Category::Io => format!("not JSON: {said}, {at}"),
        Category::Data => format!("not what belongs there: {said}, {at}"),
    }
}

/// The byte at which the error is, from 0.
fn place(text: &[u8], error: &serde_json::Error) -> usize {
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    (before + error.column().saturating_sub(1)).min(text.len())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Row {
        #[allow(dead_code)]
        epoch: u32,
    }

    fn wrong(text: &str) -> String {
        parse::<Row>(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn what_is_wrong_is_said_with_its_byte() {
        assert_eq!(wrong("{\"epoch\": 1"), "not JSON: it ends too early, at byte 10");
        assert_eq!(wrong("{\n\"epoch\": x}"), "not JSON: expected value, at byte 11");
        assert_eq!(wrong("{\"epoch\": 1} x"), "not JSON: trailing characters, at byte 13");
        assert_eq!(wrong("{}"), "not what belongs there: missing field `epoch`, at byte 1");
        assert_eq!(wrong(""), "not JSON: it ends too early, at byte 0");
        assert_eq!(parse::<Row>(b"{\"epoch\": 1}").unwrap().epoch, 1);
    }
}
