//! Checks whether a limit on address space (`ulimit -v`) lets OpenBLAS start and compute.
//!
//! At its first product OpenBLAS takes a buffer for each thread that multiplies; if there is no space for that, it
//! retries forever. So [`enough_for`] checks before the first product. When it is loaded, it takes almost nothing
//! ([`before_main`](mod@crate::before_main)).

use rustix::process::{Resource, getrlimit};

/// Bytes that OpenBLAS takes for each thread that multiplies (`BUFFER_SIZE` in its `common_x86_64.h`, 32 << 22).
const BUFFER: u64 = 128 << 20;
/// Bytes that a process takes beyond that: the program and its libraries, samples, parameters, gradients, stacks. A
/// coordinator that trains the default job took 190 MB, its worker 150 MB.
const REST: u64 = 256 << 20;

/// Checks that `threads` threads of a process can compute.
///
/// # Errors
/// If they can't. The message has the limit and what is needed.
pub fn enough_for(threads: u32) -> Result<(), String> {
    match limit() {
        Some(limit) if limit < needed_for(threads) => Err(too_little_for(limit, threads)),
        _ => Ok(()),
    }
}

/// The number of threads of a process that can compute, at most `threads`.
pub fn threads_with_room(threads: u32) -> u32 {
    let fitting = limit().map_or(threads.into(), |limit| limit.saturating_sub(REST) / BUFFER);
    fitting.min(threads.into()) as u32
}

/// What the limit does to a process that would compute with so many threads, if it has room for fewer.
pub fn shortage(threads: u32) -> Option<String> {
    let (limit, fitting) = (limit()?, threads_with_room(threads));
    (fitting < threads).then(|| {
        format!(
            "the limit of address space is {} kB (ulimit -v), in which a process computes with {fitting} of {threads} \
             threads; all need {} kB",
            limit >> 10,
            needed_for(threads) >> 10
        )
    })
}

/// Bytes that OpenBLAS takes for so many threads that multiply.
pub fn of_openblas(threads: u32) -> u64 {
    BUFFER * u64::from(threads)
}

/// The limit, in bytes; `None` if there is none.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::As).current
}

fn needed_for(threads: u32) -> u64 {
    REST + of_openblas(threads)
}

fn too_little_for(limit: u64, threads: u32) -> String {
    let what = match threads {
        1 => "a thread that multiplies".to_string(),
        threads => format!("each of {threads} threads that multiply"),
    };
    format!(
        "the limit of address space is {} kB (ulimit -v), which is too little: OpenBLAS takes {} MB for {what}. \
         Raise it to {} kB, or remove it (ulimit -v unlimited)",
        limit >> 10,
        BUFFER >> 20,
        needed_for(threads) >> 10,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_needs_a_buffer() {
        assert_eq!(needed_for(1), 384 << 20);
        assert_eq!(needed_for(4), 768 << 20);
        let error = too_little_for(200_000 << 10, 2);
        assert!(error.contains("200000 kB (ulimit -v)") && error.contains("each of 2 threads"), "{error}");
        assert!(error.contains("Raise it to 524288 kB"), "{error}");
    }
}
