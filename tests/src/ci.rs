//! Continuous integration, where nothing is skipped.

/// Says what is lacking here, for a test that can't do all it should and ends well all the same.
///
/// # Panics
/// With `CI=true`, as the scripts understand it too: there it has to be here.
pub fn skip(lack: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{lack}");
    eprintln!("skipped: {lack}");
}
