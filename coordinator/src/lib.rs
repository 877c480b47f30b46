//! The coordinator: shards data over workers, averages their gradients, stores the results.
//!
//! - [`cli`]: the commands, one file a subcommand.
//! - [`cluster`]: the services and the driver of a running cluster.
//! - [`admission`]: who may connect, and what they may call.
//! - [`runs`]: run directories.
//! - [`see`]: progress, tables, charts, pictures, for people.
//! - [`certs`]: the certificates with which a cluster's processes authenticate each other.
//! - [`ops`]: probes and metrics of a running cluster.
//! - [`replay`] and [`verify`]: recompute a run, and compare it with its files.
//! - [`mistakes`]: what a trained model got wrong.
//! - [`export`]: a trained model in files that other programs read.
//! - [`fetch`]: downloads well-known data sets.
//! - [`failpoints`]: where tests make this program die.
//! - [`report`] and [`data`]: the images of a finished job, and reading the files of a data set; [`init`] the file that
//!   parameters begin with. [`input`] reads any file that others have made.

pub mod admission;
pub mod certs;
pub mod cli;
pub mod cluster;
pub mod data;
pub mod draft;
pub mod export;
pub mod failpoints;
pub mod fetch;
pub mod init;
pub mod input;
pub mod mistakes;
pub mod ops;
pub mod replay;
pub mod report;
pub mod runs;
pub mod see;
pub mod verify;
