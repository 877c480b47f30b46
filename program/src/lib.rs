//! What every program of this project needs, whatever it does: `coordinator` and `worker` alike.
//!
//! - [`process`]: exit codes, the log, signals, standard output. [`variables`]: the environment, which may hold
//!   anything. [`usage`]: command lines, whose errors are one line.
//! - [`kernel`]: how a process comes to have the right BLAS kernel, and how it finds out that a kernel is any good.
//! - [`machine`]: what there is to compute with: processors, control groups, limits. [`doctor`]: the page about it.
//! - [`ops`]: the ops port, with probes and metrics. [`backoff`]: how long to wait before trying again.
//! - [`failpoints`]: how tests make a program fail at named points.
//!
//! Nothing here knows what a worker or a coordinator is.

pub mod backoff;
pub mod doctor;
pub mod failpoints;
pub mod kernel;
pub mod machine;
pub mod ops;
pub mod process;
pub mod usage;
pub mod variables;
