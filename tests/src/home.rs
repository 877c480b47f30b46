//! A test's own directory, and the commands that run in it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::patience;
use crate::process::{Ended, Process};
use crate::run::Run;
use crate::terminal::Terminal;

/// An empty directory in which commands run. It is removed when the value is dropped.
#[derive(Debug)]
pub struct Home {
    directory: TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// Creates one.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directories can be made");
        patience::watch_home(directory.path());
        Self { directory }
    }

    /// A home with the small job and its data.
    pub fn small() -> Self {
        let home = Self::new();
        home.small_job();
        home
    }

    /// A file or directory in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file into it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is in the home")).expect("directories can be made");
        fs::write(&path, content).expect("files can be written");
        path
    }

    /// A run directory in it.
    pub fn run(&self, name: &str) -> Run {
        Run::new(self.path(name))
    }

    /// The command `coordinator`, with arguments as in a shell without quotes.
    pub fn coordinator(&self, arguments: &str) -> Call {
        self.program("coordinator", arguments)
    }

    /// The command `worker`.
    pub fn worker(&self, arguments: &str) -> Call {
        self.program("worker", arguments)
    }

    /// The command `millefeuille`, which is both.
    pub fn millefeuille(&self, arguments: &str) -> Call {
        self.program("millefeuille", arguments)
    }

    /// A program under a shell's limits: `ulimit -v 200000`.
    pub fn limited(&self, limits: &str, program: &str, arguments: &str) -> Call {
        let script = format!("{limits}; exec {} {arguments}", binary(program).display());
        self.call("bash".as_ref(), "-c").arg(script)
    }

    /// Creates certificates for every role, in `certs`.
    pub fn certificates(&self) {
        self.coordinator("certs init certs").succeeds();
    }

    fn program(&self, program: &str, arguments: &str) -> Call {
        let call = self.call(&binary(program), arguments);
        Call { line: format!("{program} {arguments}"), ..call }
    }

    /// Any command, with arguments as in a shell without quotes.
    pub fn call(&self, program: &Path, arguments: &str) -> Call {
        let mut command = self.command(program);
        command.args(arguments.split_whitespace());
        Call { line: format!("{} {arguments}", program.display()), command }
    }

    /// Any program, without our variables in its environment.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path());
        let ours = |name: &str| name.starts_with("OPENBLAS_") || name.starts_with("MILLEFEUILLE_");
        std::env::vars_os()
            .filter(|(name, _)| name.to_str().is_some_and(ours))
            .for_each(|(name, _)| _ = command.env_remove(name));
        // The default port is free only once, and there are many clusters.
        command.env("MILLEFEUILLE_OPS_LISTEN", "off");
        command
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        patience::unwatch_home(self.directory.path());
    }
}

/// The program under test, as cargo has built it beside this test.
pub fn binary(program: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    // target/debug/deps/test-0123 → target/debug/program
    let found = test.ancestors().skip(1).map(|directory| directory.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is not built; build it with: cargo build --workspace --bins"))
}

/// The project's directory.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A command that has not been run yet.
#[derive(Debug)]
pub struct Call {
    line: String,
    command: Command,
}

impl Call {
    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let (name, value) = (name.as_ref(), value.as_ref());
        self.line = format!("{}={} {}", name.display(), value.display(), self.line);
        self.command.env(name, value);
        self
    }

    /// Adds an argument that may have spaces.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.line = format!("{} {}", self.line, argument.as_ref().display());
        self.command.arg(argument);
        self
    }

    /// Sets another working directory than the home.
    pub fn directory(mut self, path: &Path) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Starts it.
    pub fn start(self) -> Process {
        Process::start(self.line, self.command)
    }

    /// Runs it to its end on a terminal of so many columns; gives what is to be seen there in the end, line by line.
    ///
    /// # Panics
    /// If it does not end with this code.
    pub fn is_seen(self, columns: u16, code: i32) -> Vec<String> {
        let mut process = Process::on_terminal(self.line, self.command, Terminal::new(columns));
        Terminal::screen(columns, &process.wait().with_code(code).stderr)
    }

    /// Runs it to its end.
    pub fn run(self) -> Ended {
        self.start().wait()
    }

    /// Runs it to its end, and asserts exit code 0.
    pub fn succeeds(self) -> Ended {
        self.run().with_code(0)
    }

    /// Runs it to its end, and asserts this exit code with one line of error. Returns the line.
    pub fn fails(self, code: i32) -> String {
        self.run().error(code)
    }
}
