//! The job that a session computes.

use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::work::Course;

/// A job's number and its course, which follows from its spec.
#[derive(Debug)]
pub(crate) struct WorkerJob {
    pub(crate) number: u64,
    pub(crate) course: Course,
}

impl WorkerJob {
    pub(crate) fn new(number: u64, spec: Spec) -> Self {
        Self { number, course: Course::new(spec) }
    }
}
