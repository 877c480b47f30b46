//! The job of a command: its file, and the flags that override it.

pub(super) mod flags;
