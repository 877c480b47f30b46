//! What the tests of whole processes are made of.
//!
//! A test is a script: given a [`home::Home`], an empty directory in which commands run; when these commands are
//! run, together with a [`cluster::Cluster`] perhaps; then their exit codes, their lines and their files are such.
//!
//! - [`patience`]: how long a test waits, and when it is in vain.
//! - [`process`]: a process that was started, which ends with the value that stands for it, also after a panic.
//! - [`home`]: commands, run to their end or left running.
//! - [`cluster`]: `coordinator serve`, with its workers.
//! - [`rpc`]: clients that speak gRPC themselves, well or badly.
//! - [`raw_coordinator`], [`raw_cluster`]: a coordinator that does, for real workers and for real watchers.
//! - [`http`] and [`exposition`]: clients of an ops port, and what they read there.
//! - [`data`]: small data sets, and MNIST's own files.
//! - [`run`]: what a run directory holds.
//! - [`undisturbed`]: what a run has to come to, whatever happens to it.
//! - [`chaos`]: whatever can happen, from a seed.
//! - [`ci`]: what is skipped where a tool is absent, and where nothing is.
//! - [`peers`]: programs of other people.
//! - [`siege`]: whoever wants to harm a coordinator.
//! - [`proxy`]: a network that can be cut, stalled and slowed.
//! - [`engine`]: clusters of containers, on a real engine.
//! - [`manifests`]: what Kubernetes is told, typed and held against the programs.
//! - [`kubelet`]: what Kubernetes is told, done on that engine.
//! - [`runbook`]: what people are told to type.
//!
//! And one thing of another kind: [`sim`], worlds in which nothing is real but the control machine.
//!
//! No test waits for a time, and none asserts how long something took: [`patience`] waits for what is meant, for as long as
//! something moves. Nothing of the environment gets through to what is started: no `OPENBLAS_*`, no `MILLEFEUILLE_*`. The
//! ops port is off unless a test asks for it.

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
pub mod siege;
pub mod sim;
pub mod undisturbed;
