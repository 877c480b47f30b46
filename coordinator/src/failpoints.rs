//! Named points at which tests make this program die, as a power cut or a SIGKILL would.
//!
//! [`millefeuille_program::failpoints`] has the syntax: `checkpoint-before-rename=return` aborts the process at the
//! first checkpoint, `checkpoint-before-rename=2*off->return` at the third pass; `sleep(100)` and `pause` only delay
//! it.
//!
//! | point | when it is reached |
//! | --- | --- |
//! | `checkpoint-before-fsync` | a checkpoint's file is written under its temporary name; twice per checkpoint: data, then manifest |
//! | `checkpoint-after-fsync`, `checkpoint-before-rename` | the file is on disk under its temporary name |
//! | `checkpoint-after-rename` | the file is renamed, and the directory is not yet on disk |
//! | `checkpoint-before-manifest` | the data file is on disk, the manifest is not begun |
//! | `history-after-append` | a history row is written, and not yet on disk |
//! | `receipt-before-fsync` … `receipt-after-rename` | the same stages of the receipt |
//! | `submit-before-fsync` … `submit-after-rename` | the same stages of the `run.json` that makes a submission durable |
//! | `ca-key-…`, `ca-crt-…`, `tls-ca-…`, `tls-key-…`, `tls-crt-…` | the same four stages of the files that `coordinator certs` writes |
//! | `runs-before-scan` | a cluster is about to scan the existing runs |
//! | `driver-turn` | the driver is between two messages: `sleep` simulates a stuck driver |
//! | `data-before-read` | a job's data is about to be read: `sleep` simulates a hanging disk |

/// Passes a named point: the process aborts here if a test has set the point so.
pub fn at(name: &str) {
    millefeuille_program::failpoints::die_at(name);
}
