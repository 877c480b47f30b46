//! Checks whether a limit on address space (`ulimit -v`) lets OpenBLAS start and compute.
//!
//! OpenBLAS takes address space twice, and fails badly. When it is loaded, it starts a thread for each further core,
//! though this project sets it to one thread later. If there is no space for their stacks, it ends the process with
//! two misleading lines. At its first product it takes a buffer for each thread that multiplies; if there is no space
//! for that, it retries forever. So both are checked before: [`enough_for`] before the first product, and
//! [`before_openblas`] before anything else, since libraries are initialised before `main`.
//!
//! malloc also reserves address space for each thread, far more than it uses. Under a limit, a process turns that off
//! ([`sparing`]).

use std::fmt::{self, Write as _};

use rustix::process::{Resource, getrlimit};
use rustix::thread::sched_getaffinity;

use crate::process::{self, exit};

/// Bytes that OpenBLAS takes for each thread that multiplies (`BUFFER_SIZE` in its `common_x86_64.h`, 32 << 22).
const BUFFER: u64 = 128 << 20;
/// Bytes that a process takes beyond that: the program and its libraries, samples, parameters, gradients, stacks. A
/// coordinator that trains the default job took 190 MB, its worker 150 MB.
const REST: u64 = 256 << 20;

const THREADS: &str = "OPENBLAS_NUM_THREADS";

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

/// Variables that make a process need little address space; empty where there is no limit.
pub fn sparing() -> &'static [(&'static str, &'static str)] {
    if limit().is_some() { &[("MALLOC_ARENA_MAX", "1"), (THREADS, "1")] } else { &[] }
}

fn limit() -> Option<u64> {
    getrlimit(Resource::As).current
}

fn needed_for(threads: u32) -> u64 {
    REST + BUFFER * u64::from(threads)
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

// SAFETY: the section holds functions of this type, which the dynamic linker calls in an executable before it
// initialises libraries. Nothing of Rust's or C's library is set up then, and what is called needs none of it: system
// calls, formatting into a buffer on the stack, and the exit that runs nothing.
#[allow(unsafe_code)]
#[used]
#[unsafe(link_section = ".preinit_array")]
static BEFORE_OPENBLAS: extern "C" fn() = before_openblas;

/// Ends the process if OpenBLAS could not start its threads.
extern "C" fn before_openblas() {
    let Some(limit) = limit() else { return };
    let mut file = [0; MOST];
    let threads = match number_in(read("/proc/self/environ", &mut file), THREADS) {
        Some(threads) => threads,
        None => sched_getaffinity(None).map_or(1, |cores| cores.count().into()),
    };
    let taken = taken(read("/proc/self/status", &mut file)).unwrap_or(0);
    let stack = getrlimit(Resource::Stack).current.unwrap_or(2 << 20);
    let needed = taken + threads.saturating_sub(1) * (stack + SPARE);
    if limit < needed {
        let mut line = Line::default();
        let _ = writeln!(
            line,
            "error: the limit of address space is {} kB (ulimit -v), which is too little for the {threads} threads that \
             OpenBLAS starts. Raise it to {} kB, or remove it (ulimit -v unlimited)",
            limit >> 10,
            (needed + REST + BUFFER) >> 10,
        );
        let _ = rustix::io::write(rustix::stdio::stderr(), line.text());
        process::leave(exit::UNEXPECTED);
    }
}

/// Bytes that a thread takes beyond its stack: the guard page, and thread-local variables.
const SPARE: u64 = 64 << 10;
/// Maximum bytes read from a file.
const MOST: usize = 64 << 10;

/// The beginning of a file, as much as fits; empty if the file can't be read.
fn read<'a>(path: &str, into: &'a mut [u8]) -> &'a [u8] {
    use rustix::fs::{Mode, OFlags, open};
    let Ok(file) = open(path, OFlags::RDONLY, Mode::empty()) else { return &[] };
    let mut len = 0;
    while let Ok(more @ 1..) = rustix::io::read(&file, &mut into[len..]) {
        len += more;
    }
    &into[..len]
}

/// The value of a variable in a file such as `/proc/self/environ`, if it is a number.
fn number_in(variables: &[u8], name: &str) -> Option<u64> {
    let value = variables
        .split(|&byte| byte == 0)
        .find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    first_number(value?)
}

/// The bytes of address space in a file such as `/proc/self/status`: `VmSize:     51936 kB`.
fn taken(status: &[u8]) -> Option<u64> {
    let size = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"VmSize:"))?;
    first_number(size.trim_ascii_start())?.checked_mul(1024)
}

/// The number at the beginning of `text`.
fn first_number(text: &[u8]) -> Option<u64> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

/// A line in a fixed buffer, which allocates nothing.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 512], len: 0 }
    }
}

impl Line {
    fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
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

    #[test]
    fn variables_are_found_in_an_environment() {
        let environment = b"PATH=/bin\0OPENBLAS_NUM_THREADS=12\0X=OPENBLAS_NUM_THREADS=3\0";
        assert_eq!(number_in(environment, THREADS), Some(12));
        assert_eq!(number_in(b"OPENBLAS_NUM_THREADS=\0", THREADS), None);
        assert_eq!(number_in(b"OPENBLAS_NUM_THREADS_OF=3\0", THREADS), None);
        assert_eq!(taken(b"VmPeak:\t 50644 kB\nVmSize:\t   51936 kB\n"), Some(51_936 << 10));
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let mut line = Line::default();
        assert!(write!(line, "{}", "x".repeat(512)).is_ok() && write!(line, "y").is_err());
        assert_eq!(line.text(), [b'x'; 512]);
    }
}
