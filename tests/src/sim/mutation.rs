//! Mistakes that somebody could make, to show that the simulation finds them.
//!
//! They are made where the simulated driver, its disk and its workers meet the control machine; the machine itself
//! is the product's.

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// An answer to work that is over is taken for one to the work that is open.
    StaleResultAccepted,
    /// An answer that was there already is added once more.
    DuplicateAccepted,
    /// Of what is asked of others after a loss, a message is forgotten.
    LostReassignment,
    /// Sums are added right before left.
    AddedInAnotherOrder,
    /// A worker that comes back is thought to have the parameters that it had.
    SessionRemembered,
    /// A file gets its name before it is synced.
    RenamedBeforeSync,
    /// A resumed run leaves a step out.
    ResumedLate,
    /// A resumed run takes a step twice.
    ResumedEarly,
    /// A resumed run's ledger is not cut back to the checkpoint.
    LedgerNotCutBack,
    /// The result of a job is not synced before it is called done.
    DoneBeforeSync,
    /// Answers that are to be compared are taken to be equal.
    NothingCompared,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 11] = [
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
    ];
}
