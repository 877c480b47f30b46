//! The coordinator: shards data over workers, averages their gradients, keeps what comes out.
//!
//! - [`cli`]: the commands, one file a subcommand.
//! - [`cluster`]: the services and the driver of a running cluster.
//! - [`admission`]: who may connect, and what they may call.
//! - [`runs`]: run directories.
//! - [`see`]: progress, tables, charts, pictures.
//! - [`certs`]: the certificates by which the processes of a cluster know each other.
//! - [`ops`]: probes and metrics of a running cluster.
//! - [`replay`] and [`verify`]: a run computed again, and compared with what it says.
//! - [`failpoints`]: where tests make this program die.
//! - [`report`] and [`data`]: what is left to look at after a job, and reading the files of a data set;
//!   [`input`] reads any file that others have made.

pub mod admission;
pub mod certs;
pub mod cli;
pub mod cluster;
pub mod data;
pub mod failpoints;
pub mod input;
pub mod ops;
pub mod replay;
pub mod report;
pub mod runs;
pub mod see;
pub mod verify;
