//! Named points at which tests make this program die, as a power cut or a SIGKILL would.
//!
//! [`millefeuille_program::failpoints`] says how: `checkpoint-before-rename=return` aborts the process at the first
//! checkpoint, `checkpoint-before-rename=2*off->return` at the third pass; `sleep(100)` and `pause` only hold it up.
//!
//! | point | when it is reached |
//! | --- | --- |
//! | `checkpoint-before-fsync` | a file of a checkpoint is written under its temporary name; twice a checkpoint: data, then manifest |
//! | `checkpoint-after-fsync`, `checkpoint-before-rename` | it is on disk under its temporary name |
//! | `checkpoint-after-rename` | it has its name, and the directory is not yet on disk |
//! | `checkpoint-before-manifest` | the data file is durable, the manifest not begun |
//! | `history-after-append` | a line of history is written, and not on disk |
//! | `receipt-before-fsync` … `receipt-after-rename` | as for a checkpoint, of the receipt |
//! | `submit-before-fsync` … `submit-after-rename` | as for a checkpoint, of the `run.json` that makes a submission durable |
//! | `ca-key-…`, `ca-crt-…`, `tls-ca-…`, `tls-key-…`, `tls-crt-…` | the same four stages of the files that `coordinator certs` writes |
//! | `runs-before-scan` | a cluster is about to look through the runs that are there |
//! | `driver-turn` | the driver has done what came last, and looks for what is next: `sleep` makes of it one that is stuck |
//! | `data-before-read` | a job's data is about to be read: `sleep` makes of it a disk that hangs |

/// Reached a named point: the process ends here, at once, if a test has said so.
pub fn at(name: &str) {
    millefeuille_program::failpoints::die_at(name);
}
