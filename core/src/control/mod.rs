//! Who computes what, when.
//!
//! [`Control`] is a state machine: `handle(now, event) -> actions`. It holds the members, the queue of jobs and the
//! progress of the one that runs. It knows nodes of the reduction tree, never tensors; it is told the time, never
//! reads a clock; it names what shall be sent, never sends. The coordinator's driver loop feeds it and carries out
//! its actions; tests feed it by hand.
//!
//! A job's life:
//!
//! 1. `Submit` queues it. When it is first in the queue, `Load` reads its data and finds out which arithmetic it
//!    needs; `Loaded` brings the facts: shards, steps, the arithmetic's fingerprint.
//! 2. Workers whose arithmetic fits are told of it (`StartJob`) and answer with the fingerprint of the job's own
//!    shapes. Once enough have, shards are placed ([`place()`]), and each worker is told which to hold. The job
//!    begins when every shard's worker holds it.
//! 3. Each step: `Begin`, a `Send` to every worker with work, `Accept` for each result, `Close` when the tree is
//!    complete. The driver answers `Closed` once the optimizer has made the next parameters. After the last step of
//!    an epoch, the validation and test splits are evaluated in the same way, and `EndEpoch` writes the history.
//!    `Checkpoint` orders a copy of the state from which the job can resume.
//! 4. After the last epoch `Save` writes the model; `Saved` ends the job, and the next one is loaded.
//!
//! Nothing that happens to a worker changes what is computed, only who computes it:
//!
//! - One that **joins** while a job runs is told what it would hold under a new placement; the placement changes
//!   between two steps, once everybody holds what it says.
//! - When one **leaves**, falls silent or hangs, what is pending with it is reassigned within the step to others who
//!   hold the samples (`open`). What nobody holds is fetched first. Fewer than `min_workers` make the job wait.
//! - One that **drains** finishes what is pending with it, and is released (`Release`).
//! - What is pending with a **straggler** is assigned to another, too, as a backup task; the first result is used,
//!   since all have the same bits. One that stays slow gets fewer shards, or none.
//! - One whose answer **differs** from another's is evicted, and what it had part in of the open step is computed
//!   again (`validation`). Answers are compared where one is not finite, and for a share of the nodes with
//!   `audit_rate`.
//!
//! A coordinator that dies comes back with `Submit` and `Loaded { from, .. }`: where its checkpoint says.

mod action;
mod conduct;
mod config;
mod event;
mod facts;
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
mod scene;
mod validation;
mod waiting;

pub use action::{Action, Discard, Disconnection, Note};
pub use config::ControlConfig;
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
