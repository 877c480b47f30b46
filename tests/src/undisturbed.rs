//! What a run has to come to, whatever happens to it: the run of one worker whom nobody disturbs.
//!
//! Equal hashes say that the same was learned; equal ledgers that every sample was used exactly once an epoch, in its
//! place.

use serde_json::Value;

use crate::home::Home;
use crate::run::Run;

/// A run that nothing happened to.
#[derive(Debug)]
pub struct Undisturbed {
    run: Run,
}

impl Home {
    /// Trains a job on one worker with one slot.
    pub fn undisturbed(&self, job: &str) -> Undisturbed {
        self.undisturbed_as("undisturbed", job)
    }

    /// The same, into a directory of this name.
    pub fn undisturbed_as(&self, name: &str, job: &str) -> Undisturbed {
        self.coordinator(&format!("train {job} --workers 1 --slots 1 --run-dir {name}")).succeeds();
        Undisturbed { run: self.run(name) }
    }
}

impl Undisturbed {
    /// Whether another run of the same job is done, and has come to the same, bit for bit.
    ///
    /// # Errors
    /// What differs.
    pub fn compare(&self, other: &Run) -> Result<(), String> {
        if !other.has("receipt.json") {
            return Err(format!("{} is not done", other.path().display()));
        }
        let same = |what: &str, equal: bool| {
            equal.then_some(()).ok_or_else(|| format!("{}: another {what}", other.path().display()))
        };
        same("job", other.receipt_text("job_sha256") == self.run.receipt_text("job_sha256"))?;
        same("hash of the weights", other.hash() == self.run.hash())?;
        same("ledger", other.text("ledger") == self.run.text("ledger"))?;
        same("history", rows(other) == rows(&self.run))?;
        let hashes = |run: &Run| run.receipt()["epoch_weights_sha256"].clone();
        same("hash of an epoch", hashes(other) == hashes(&self.run))
    }

    /// Asserts that another run of the same job has come to the same.
    ///
    /// # Panics
    /// If it has not; says what differs, and what happened to it.
    pub fn is_equalled_by(&self, other: &Run) {
        if let Err(difference) = self.compare(other) {
            let events: Vec<_> = other.events().iter().map(ToString::to_string).collect();
            panic!("{difference}; its events:\n{}", events.join("\n"));
        }
    }

    /// The hash of the trained weights.
    pub fn hash(&self) -> String {
        self.run.hash()
    }
}

/// The history without the time that it took.
fn rows(run: &Run) -> Vec<Value> {
    let mut rows = run.history();
    rows.iter_mut().filter_map(Value::as_object_mut).for_each(|row| _ = row.remove("seconds"));
    rows
}
