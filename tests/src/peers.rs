//! Other programs that connect to ours, or read its files. `scripts/peers.sh` installs them; with `CI=true` they are required.

use std::path::Path;

use crate::ci;
use crate::home::{Call, Home, project};
use crate::http::Port;
use crate::process::{Ended, Process};

/// The output of `openssl` with these arguments; none if it is absent.
///
/// # Panics
/// If it is absent with `CI=true`, or hangs.
pub fn openssl(home: &Home, arguments: &str) -> Option<(bool, String)> {
    let ended = call(home, Path::new("openssl"), arguments)?.run();
    Some((ended.code() == Some(0), ended.stdout + &ended.stderr))
}

/// The status of a call with Python's gRPC client: its name and its text.
///
/// # Panics
/// If the client is absent with `CI=true`, hangs, or prints nothing.
pub fn grpcio(home: &Home, address: &str, method: &str, credentials: &str) -> Option<String> {
    let script = project().join("tests/peers/call.py");
    let call = call(home, &project().join("target/peers/bin/python"), "")?;
    let ended = call.arg(script).arg(address).arg(method).arg(credentials).run();
    assert!(!ended.stdout.is_empty(), "it says how it was answered: {ended}");
    Some(ended.stdout)
}

/// How ONNX Runtime, Keras and NumPy compare the exported models in these directories; none if they are absent.
///
/// # Panics
/// If they are absent with `CI=true`, or hang.
pub fn readers(home: &Home, directories: &str) -> Option<Ended> {
    let script = project().join("tests/readers/compare.py");
    let call = call(home, &project().join("target/readers/bin/python"), "")?.arg(script);
    // Keras reads and writes a file of settings there.
    let call = call.env("KERAS_HOME", home.path("keras"));
    Some(directories.split_whitespace().fold(call, Call::arg).run())
}

/// Writes the tables of the examples in `jobs/` into this home, from scikit-learn's package; none if that is absent.
///
/// # Panics
/// If it is absent with `CI=true`, hangs or fails.
pub fn tables(home: &Home) -> Option<Ended> {
    let script = project().join("tests/readers/tables.py");
    Some(call(home, &project().join("target/readers/bin/python"), "")?.arg(script).succeeds())
}

/// A server of objects that speaks S3's protocol, and its address; none if it is absent.
///
/// # Panics
/// If it is absent with `CI=true`, or does not start.
pub fn object_store(home: &Home) -> Option<(Process, Port)> {
    let server = call(home, &project().join("target/peers/bin/moto_server"), "-H 127.0.0.1 -p 0")?;
    let mut server = server.env("PYTHONUNBUFFERED", "1").start();
    let says = " * Running on http://";
    let line = server.says(says);
    let address = line.split(says).nth(1).unwrap_or_default().trim().to_owned();
    Some((server, Port(address)))
}

fn call(home: &Home, program: &Path, arguments: &str) -> Option<Call> {
    if !is_there(program) {
        ci::skip(&format!("{} is not here (scripts/peers.sh installs it)", program.display()));
        return None;
    }
    Some(home.call(program, arguments))
}

/// Whether this file exists, or, for a name without a directory, is in `PATH`.
pub(crate) fn is_there(program: &Path) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // An absolute path is not changed by `join`.
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
