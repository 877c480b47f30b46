//! Continuous integration, where nothing is skipped.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Says what is lacking here, for a test that can't do all it should and ends well all the same; to the list from which
/// `scripts/test.sh` takes what it says at its end, too.
///
/// # Panics
/// With `CI=true`, as the scripts understand it too: there it has to be here.
pub fn skip(lack: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{lack}");
    eprintln!("skipped: {lack}");
    if let Some(list) = std::env::var_os("SKIPPED_LIST") {
        let list = OpenOptions::new().append(true).open(list).expect("the list of what is skipped is there");
        // In one piece, since others write into it at the same time.
        (&list).write_all(format!("{lack}\n").as_bytes()).expect("it can be written");
    }
}
