//! A pseudo-terminal: what a command draws on it, and what of that a person sees in the end.

use std::fs::File;
use std::num::NonZeroU16;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::process::Stdio;

/// Rows enough that nothing scrolls away.
const ROWS: u16 = 500;

/// A terminal that is about to be used, of so many columns.
#[derive(Debug)]
pub struct Terminal {
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl Terminal {
    /// Opens one.
    ///
    /// # Panics
    /// If the system has none left.
    #[allow(unsafe_code)] // openpty gives numbers of files.
    pub fn new(columns: u16) -> Self {
        let size = libc::winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let (mut ours, mut theirs) = (-1, -1);
        let (no_name, no_modes) = (std::ptr::null_mut(), std::ptr::null());
        // SAFETY: every pointer is null, as is allowed, or points to a value that outlives the call.
        let opened = unsafe { libc::openpty(&mut ours, &mut theirs, no_name, no_modes, &size) };
        assert_eq!(opened, 0, "a pseudo-terminal can be opened: {}", std::io::Error::last_os_error());
        // SAFETY: the call has just opened both files, and nobody else has their numbers.
        let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        Self { ours, theirs }
    }

    /// The command's end of it.
    pub(crate) fn end(&self) -> Stdio {
        Stdio::from(self.theirs.as_fd().try_clone_to_owned().expect("files can be duplicated"))
    }

    /// The test's end of it, where all that is drawn can be read. The command's end closes when the command ends.
    pub(crate) fn into_reader(self) -> File {
        File::from(self.ours)
    }

    /// What is on a terminal of these columns after all this was written to it, line by line, without trailing space.
    pub fn screen(columns: u16, written: &str) -> Vec<String> {
        let some = |size: u16| NonZeroU16::new(size).expect("a terminal has a size");
        let mut parser = vt100::Parser::new(some(ROWS), some(columns), 0);
        parser.process(written.as_bytes());
        let rows = parser.screen().rows(0, columns);
        let rows: Vec<String> = rows.map(|row| row.trim_end().to_string()).collect();
        let used = rows.iter().rposition(|row| !row.is_empty()).map_or(0, |last| last + 1);
        rows[..used].to_vec()
    }
}
