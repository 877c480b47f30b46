//! The job that a session is about.

use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::work::Course;

/// What is known of a job, and what follows from it.
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
