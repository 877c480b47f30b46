//! Programs of other people that speak to ours. `scripts/peers.sh` installs them; where `CI` is set they have to be
//! there.

use std::path::Path;
use std::process::{Output, Stdio};

use crate::home::{Home, project};

/// What `openssl` says to these arguments; nothing if it is not here and need not be.
///
/// # Panics
/// If it has to be here.
pub fn openssl(home: &Home, arguments: &str) -> Option<(bool, String)> {
    let output = output(home, Path::new("openssl"), arguments.split_whitespace())?;
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// How a coordinator answers Python's gRPC client: the name of the status, and its text.
///
/// # Panics
/// If the client has to be here.
pub fn grpcio(home: &Home, address: &str, method: &str, credentials: &str) -> Option<String> {
    let python = project().join("target/peers/bin/python");
    let script = project().join("tests/peers/call.py");
    let arguments = [script.to_str().expect("a path in UTF-8"), address, method, credentials];
    let output = output(home, &python, arguments.into_iter())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn output<'a>(home: &Home, program: &Path, arguments: impl Iterator<Item = &'a str>) -> Option<Output> {
    let output = home.command(program).args(arguments).stdin(Stdio::null()).output();
    if let Err(error) = &output {
        let program = program.display();
        assert!(std::env::var_os("CI").is_none(), "{program} is needed here: {error}");
        eprintln!("not checked: {program} is not here (scripts/peers.sh installs it)");
    }
    output.ok()
}
