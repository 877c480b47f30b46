//! What a process needs of the system, asked for at its start: open files, and threads.
//!
//! Soft limits are raised as far as the hard ones allow. What can't be had then is an error of one line that names the
//! limit, instead of a failure somewhere in the middle.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::Limits;

/// A thread that only waits needs little.
const STACK_BYTES: usize = 64 << 10;

/// Raises the soft limits on open files, processes and threads to the hard limits.
pub fn raise() {
    for resource in [Resource::Nofile, Resource::Nproc] {
        let mut limit = getrlimit(resource);
        limit.current = limit.maximum;
        // Where this is not allowed, the limit stays, and what it does not suffice for is said.
        let _ = setrlimit(resource, limit);
    }
}

/// Checks that this process may have so many files and connections open.
///
/// # Errors
/// If it may not. `otherwise` says how to need fewer.
pub fn files(needed: u64, otherwise: &str) -> Result<(), String> {
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < needed => Err(format!(
            "the limit of open files is {limit} (ulimit -n), and {needed} are needed: raise it, or {otherwise}"
        )),
        _ => Ok(()),
    }
}

/// Checks that this process and those that it starts can have so many threads, by starting them for a moment.
///
/// # Errors
/// If they can't. `otherwise` says how to need fewer, if anything does.
pub fn threads(needed: usize, otherwise: Option<&str>) -> Result<(), String> {
    let started = together(needed);
    if started == needed {
        return Ok(());
    }
    let limit = Limits::of_this_process().processes;
    let limit = limit.map_or("a limit".to_string(), |limit| format!("the limit of {limit}"));
    let otherwise = otherwise.map(|otherwise| format!(", or {otherwise}")).unwrap_or_default();
    Err(format!(
        "{limit} processes and threads of this user (ulimit -u, docker run --pids-limit) leaves {started} of the {needed} \
         that are needed: raise it, end others{otherwise}"
    ))
}

/// Starts up to so many threads at once, and ends them again. Returns how many could be started.
fn together(wanted: usize) -> usize {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let waits = |gate: Arc<Mutex<()>>| move || drop(gate.lock());
    let start = || Builder::new().stack_size(STACK_BYTES).spawn(waits(Arc::clone(&gate))).ok();
    let threads: Vec<_> = std::iter::repeat_with(start).take(wanted).map_while(|thread| thread).collect();
    drop(closed);
    let started = threads.len();
    threads.into_iter().for_each(|thread| _ = thread.join());
    started
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_can_be_had() {
        assert_eq!(together(50), 50);
        assert_eq!((files(1, ""), threads(1, None)), (Ok(()), Ok(())));
    }

    #[test]
    fn what_is_not_there_is_named_with_its_limit() {
        let error = files(u64::MAX, "start fewer --workers").unwrap_err();
        assert!(error.contains("(ulimit -n), and 18446744073709551615 are needed"), "{error}");
        assert!(error.ends_with("raise it, or start fewer --workers"), "{error}");
    }
}
