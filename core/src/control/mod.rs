//! The coordinator's control machine: decides which worker computes what, and when.
//!
//! [`Control`] is a state machine: `handle(now, event) -> actions`. It holds the members, the queue of jobs, and
//! the progress of the running job. It works with nodes of the reduction tree, never with tensors. It never reads
//! a clock, since each event comes with its time, and it never sends: its actions say what to send. The
//! coordinator's driver loop passes events to it and carries out its actions; tests call it directly.
//!
//! Read `machine` (routes events), `run` (the stages of a job), `progress` (steps and epochs), `membership`
//! (joining and leaving), `open` (assigns nodes), `validation` (compares results) and `place` (assigns shards). The
//! others are the types that these exchange.
//!
//! A job's life:
//!
//! 1. `Submit` queues the job. When it is first in the queue, `Load` reads its data and determines the arithmetic
//!    that it needs; `Loaded` brings the facts: shards, steps, and the arithmetic's fingerprint.
//! 2. Workers with that arithmetic are told about the job (`StartJob`) and reply with the fingerprint of the
//!    job's own shapes. Once enough have replied, shards are placed ([`place()`]), and each worker is told which
//!    to hold. The job begins when every worker holds its shards.
//! 3. Each step: `Begin`, a `Send` to every worker with work, `Accept` for each result, `Close` when the tree is
//!    complete. The driver replies `Closed` once the optimizer has made the next parameters. After the last step
//!    of an epoch, the validation and test splits are evaluated in the same way, and `EndEpoch` writes the
//!    history. `Checkpoint` orders a copy of the state from which the job can resume.
//! 4. After the last epoch `Save` writes the model; `Saved` ends the job, and the next one is loaded.
//!
//! Nothing that happens to a worker changes what is computed, only which worker computes it:
//!
//! - A worker that **joins** a running job is told which shards it would hold under a new placement. The
//!   placement changes between two steps, once every worker holds its shards.
//! - When a worker **leaves**, falls silent or hangs, its pending nodes are reassigned within the step to workers
//!   that hold the samples (`open`). Samples that no worker holds are fetched first. With fewer than
//!   `min_workers` the job waits.
//! - A worker that **drains** finishes its pending nodes and is released (`Release`).
//! - The pending nodes of a **straggler** are also assigned to another worker, as a backup task. The first result
//!   is used, since all results have the same bits. A worker that stays slow gets fewer shards, or none.
//! - A worker whose result **differs** from the correct one is evicted, and an open step that contains a result
//!   of it is computed again (`validation`). Results are compared for every node where one is not finite, and for
//!   a share of the nodes with `audit_rate`.
//!
//! After a restart of the coordinator, `Submit` and `Loaded { from, .. }` resume the job at its checkpoint.
//!
//! Not here: tensors, files and sockets; priorities between jobs; and workers that agree on wrong results (see
//! `validation`).

mod action;
mod config;
mod context;
mod display;
mod event;
mod facts;
mod holders;
mod ids;
mod machine;
mod members;
mod membership;
mod open;
mod outcome;
mod place;
mod progress;
mod queue;
mod run;
mod validation;
mod violations;
mod waiting;

pub use action::{Action, Discard, Disconnection, Note};
pub use config::{ControlConfig, MAX_WORKERS};
pub use event::{Computed, Event, SessionEnd};
pub use facts::{Facts, Position, Start};
pub use ids::{JobId, Phase, ResultId, WorkId, WorkerId};
pub use machine::Control;
pub use members::{Arithmetic, Hello, Member, MemberState};
pub use open::Pending;
pub use outcome::Outcome;
pub use place::{Placement, place};
pub use queue::JobState;
pub use validation::{Digest, Source};
pub use waiting::Waiting;

pub use crate::failure::Failure;
