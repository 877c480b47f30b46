//! Programs of other people that speak to ours. `scripts/peers.sh` installs them; with `CI=true` they have to be there.

use std::path::Path;

use crate::ci;
use crate::home::{Call, Home, project};

/// What `openssl` says to these arguments; nothing if it is not here and need not be.
///
/// # Panics
/// If it has to be here, or hangs.
pub fn openssl(home: &Home, arguments: &str) -> Option<(bool, String)> {
    let ended = call(home, Path::new("openssl"), arguments)?.run();
    Some((ended.code() == Some(0), ended.stdout + &ended.stderr))
}

/// How a coordinator answers Python's gRPC client: the name of the status, and its text.
///
/// # Panics
/// If the client has to be here, hangs, or says nothing.
pub fn grpcio(home: &Home, address: &str, method: &str, credentials: &str) -> Option<String> {
    let script = project().join("tests/peers/call.py");
    let call = call(home, &project().join("target/peers/bin/python"), "")?;
    let ended = call.arg(script).arg(address).arg(method).arg(credentials).run();
    assert!(!ended.stdout.is_empty(), "it says how it was answered: {ended}");
    Some(ended.stdout)
}

fn call(home: &Home, program: &Path, arguments: &str) -> Option<Call> {
    if !is_there(program) {
        ci::skip(&format!("{} is not here (scripts/peers.sh installs it)", program.display()));
        return None;
    }
    Some(home.call(program, arguments))
}

/// Whether there is such a file, or for a mere name, one that a shell would find.
pub(crate) fn is_there(program: &Path) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Joined to a directory, a whole path stays what it is.
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
