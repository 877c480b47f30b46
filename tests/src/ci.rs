//! Tools that may be absent, except in continuous integration.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Reports what is absent, for a test that is partly or wholly skipped, and adds it to the list that
/// `scripts/test.sh` prints at its end.
///
/// # Panics
/// With `CI=true`, where nothing may be absent.
pub fn skip(lack: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{lack}");
    eprintln!("skipped: {lack}");
    if let Some(list) = std::env::var_os("SKIPPED_LIST") {
        let list = OpenOptions::new().append(true).open(list).expect("the list of what is skipped is there");
        // With one write, since other tests append to it at the same time.
        (&list).write_all(format!("{lack}\n").as_bytes()).expect("it can be written");
    }
}
