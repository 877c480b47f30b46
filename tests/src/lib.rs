//! Support for the tests of whole processes.
//!
//! A test is a script. It starts commands in a [`home::Home`], an empty directory, perhaps with a
//! [`cluster::Cluster`], and checks their exit codes, their output and their files.
//!
//! - [`patience`]: timeouts for tests.
//! - [`process`]: a started process, which is killed when its value is dropped, also after a panic.
//! - [`terminal`]: a pseudo-terminal and its screen.
//! - [`home`]: commands, run to their end or in the background.
//! - [`cluster`]: `coordinator serve` with its workers.
//! - [`rpc`]: gRPC clients, correct and faulty ones.
//! - [`raw_coordinator`], [`raw_cluster`]: scripted coordinators for real workers and real clients.
//! - [`http`] and [`exposition`]: a client of an ops port, and a parser of its metrics.
//! - [`data`]: small data sets, and MNIST's files.
//! - [`run`]: the files of a run directory.
//! - [`undisturbed`]: reference runs.
//! - [`chaos`]: random faults on a real cluster, chosen by a seed.
//! - [`ci`]: tools that may be absent, except in continuous integration.
//! - [`peers`]: other programs, such as OpenSSL.
//! - [`attack`]: the attack client.
//! - [`proxy`]: a network that can be cut, stalled and slowed.
//! - [`engine`]: clusters of containers on a real engine.
//! - [`manifests`]: the Kubernetes manifests, typed and checked against the programs.
//! - [`kubelet`]: runs the manifests in containers.
//! - [`runbook`]: the commands of the runbook.
//! - [`sim`]: a simulation of the control machine.
//!
//! No test waits for a fixed time, and none asserts how long something took: it waits for a condition with
//! [`patience`]. Started processes inherit no `OPENBLAS_*` and no `MILLEFEUILLE_*` variable. The ops port is off
//! unless a test enables it.

pub mod attack;
pub mod chaos;
pub mod ci;
pub mod cluster;
pub mod data;
pub mod engine;
pub mod exposition;
pub mod home;
pub mod http;
pub mod kubelet;
pub mod manifests;
pub mod patience;
pub mod peers;
pub mod process;
pub mod proxy;
pub mod raw_cluster;
pub mod raw_coordinator;
pub mod rpc;
pub mod run;
pub mod runbook;
pub mod sim;
pub mod terminal;
pub mod undisturbed;
