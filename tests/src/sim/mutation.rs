//! Deliberate mistakes, to show that the simulation detects them.
//!
//! They are made in the models of the driver, its disk and its workers. The control machine is not changed.

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A result of an earlier unit of work is taken for one of the open unit of work.
    StaleResultAccepted,
    /// A duplicate result is added.
    DuplicateAccepted,
    /// After a loss, an assignment to another worker is not sent.
    LostReassignment,
    /// Sums are added with right and left exchanged.
    AddedInAnotherOrder,
    /// A worker with a new session is assumed to have the parameters of its earlier session.
    SessionRemembered,
    /// A file is renamed before it is synced.
    RenamedBeforeSync,
    /// A resumed run skips a step.
    ResumedLate,
    /// A resumed run repeats a step.
    ResumedEarly,
    /// A resumed run's ledger is not truncated to the checkpoint.
    LedgerNotCutBack,
    /// A job is reported as done before its result is synced.
    DoneBeforeSync,
    /// Results that must be compared are taken to be equal.
    NothingCompared,
    /// When a worker drains, the wait for others is taken to be over already.
    DrainEndsTheWait,
    /// When a process is evicted, results of its earlier sessions stay in the open tree.
    EarlierSessionsForgotten,
}

impl Mutation {
    /// Every mistake.
    pub const ALL: [Self; 13] = [
        Self::StaleResultAccepted,
        Self::DuplicateAccepted,
        Self::LostReassignment,
        Self::AddedInAnotherOrder,
        Self::SessionRemembered,
        Self::RenamedBeforeSync,
        Self::ResumedLate,
        Self::ResumedEarly,
        Self::LedgerNotCutBack,
        Self::DoneBeforeSync,
        Self::NothingCompared,
        Self::DrainEndsTheWait,
        Self::EarlierSessionsForgotten,
    ];
}
