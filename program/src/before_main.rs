//! What happens before `main`, and even before the libraries that a program is linked with are initialised.
//!
//! Two things can't wait for `main`. A signal that comes before its handlers are there kills the process, instead of
//! ending it with the documented exit code: so SIGTERM and Ctrl-C are blocked until
//! [`exit_on_signal`](crate::process::exit_on_signal) has registered them. And OpenBLAS starts a thread for each
//! further core as soon as it is loaded, though this project sets it to one thread later. Where there is a limit on
//! processes or address space, it then ends the process with two misleading lines, or hangs. So a process that was not
//! told to have one thread starts itself again with a variable that says so; and under a limit of address space, with
//! one that keeps malloc from reserving far more of it for each thread than it uses.
//!
//! Nothing of Rust's or C's library is set up here: there are only system calls, and arrays on the stack.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use crate::machine::address_space;

/// The function to put into a program's `.preinit_array`: [`before_main!`](crate::before_main!) does that.
pub type BeforeMain = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// Has a program do what has to be done before its `main`.
#[macro_export]
macro_rules! before_main {
    () => {
        // SAFETY: the section holds functions of this type, which the dynamic linker calls in an executable before it
        // initialises libraries.
        #[allow(unsafe_code)]
        #[used]
        #[unsafe(link_section = ".preinit_array")]
        static BEFORE_MAIN: $crate::before_main::BeforeMain = $crate::before_main::prepare;
    };
}

/// Environments with more variables are left as they are.
const MOST: usize = 4096;
/// The longest path, and a zero behind it.
const PATH_BYTES: usize = 4097;
/// Keeps OpenBLAS from starting threads.
const ONE_THREAD: &CStr = c"OPENBLAS_NUM_THREADS=1";
/// Keeps malloc from reserving an arena for each thread.
const ONE_ARENA: &CStr = c"MALLOC_ARENA_MAX=1";

/// Blocks the signals that end a program, and starts it again with the variables that it needs.
pub extern "C" fn prepare(_: c_int, arguments: *const *const c_char, environment: *const *const c_char) {
    hold_signals(true);
    let wanted: &[&'static CStr] =
        if address_space::limit().is_some() { &[ONE_THREAD, ONE_ARENA] } else { &[ONE_THREAD] };
    start_again(arguments, environment, wanted);
}

/// Blocks SIGTERM and Ctrl-C, or lets those through that have come and will come.
#[allow(unsafe_code)]
pub(crate) fn hold_signals(hold: bool) {
    // SAFETY: the calls fill in a set on this stack and change the mask of this thread; before `main`, there is no other.
    unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&mut signals);
        libc::sigaddset(&mut signals, libc::SIGTERM);
        libc::sigaddset(&mut signals, libc::SIGINT);
        let how = if hold { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
        libc::sigprocmask(how, &signals, ptr::null_mut());
    }
}

/// Replaces this process by one of the same program whose environment has these variables, unless it has them. Returns
/// if it has, and if that fails.
#[allow(unsafe_code)]
fn start_again(arguments: *const *const c_char, environment: *const *const c_char, wanted: &[&'static CStr]) {
    let mut variables = [ptr::null(); MOST];
    let (mut count, mut found) = (0, 0);
    // SAFETY: the environment is an array of strings that ends with a null pointer, and nobody else changes it yet.
    unsafe {
        let mut next = environment;
        while !(*next).is_null() {
            let variable = CStr::from_ptr(*next);
            found += usize::from(wanted.contains(&variable));
            let replaced = wanted.iter().any(|other| is_same(variable.to_bytes(), other.to_bytes()));
            if !replaced {
                if count + wanted.len() + 1 >= MOST {
                    return;
                }
                variables[count] = *next;
                count += 1;
            }
            next = next.add(1);
        }
    }
    if found >= wanted.len() {
        return;
    }
    for variable in wanted {
        variables[count] = variable.as_ptr();
        count += 1;
    }
    // By its own path, so that it keeps its name in lists of processes; the link finds it even if that file is replaced.
    let mut path = [0_u8; PATH_BYTES];
    let link = c"/proc/self/exe".as_ptr();
    // SAFETY: the buffer has room for the path and a zero behind it; both arrays end with a null pointer, and their
    // strings live as long as this process.
    unsafe {
        if libc::readlink(link, path.as_mut_ptr().cast(), PATH_BYTES - 1) > 0 {
            libc::execve(path.as_ptr().cast(), arguments, variables.as_ptr());
        }
        libc::execve(link, arguments, variables.as_ptr());
    }
}

/// Whether both are variables of the same name.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let name = |variable: &[u8]| variable.iter().position(|&byte| byte == b'=');
    match (name(one), name(other)) {
        (Some(end), Some(other_end)) => one[..end] == other[..other_end],
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_known_by_its_whole_name() {
        assert!(is_same(b"A=1", b"A=2"));
        assert!(!is_same(b"AB=1", b"A=1"));
        assert!(!is_same(b"A", b"A"));
    }
}
