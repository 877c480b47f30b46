//! The job that a session computes.

use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::work::Workload;

/// A job's number, its run's name, and its workload, which follows from its spec.
#[derive(Debug)]
pub(crate) struct WorkerJob {
    pub(crate) number: u64,
    pub(crate) run_id: String,
    pub(crate) workload: Workload,
}

impl WorkerJob {
    pub(crate) fn new(number: u64, run_id: String, spec: Spec) -> Self {
        Self { number, run_id, workload: Workload::new(spec) }
    }
}
