//! Code that every program of this project needs, `coordinator` and `worker` alike.
//!
//! - [`process`]: exit codes, signals, standard output. [`output`]: the log, colours, how much is said. [`variables`]: the environment, which may hold
//!   anything. [`usage`]: command lines, whose errors are one line.
//! - [`mod@before_main`]: what can't wait for `main`.
//! - [`kernel`]: loads the right BLAS kernel, and checks that the kernel is good.
//! - [`machine`]: processors, control groups, limits. [`doctor`]: the report about them.
//! - [`ops`]: the ops port, with probes and metrics. [`backoff`]: how long to wait before trying again.
//! - [`failpoints`]: how tests make a program fail at named points.
//!
//! Nothing here depends on what a worker or a coordinator is.

pub mod backoff;
pub mod before_main;
pub mod doctor;
pub mod failpoints;
pub mod kernel;
pub mod machine;
pub mod ops;
pub mod output;
pub mod process;
pub mod usage;
pub mod variables;
