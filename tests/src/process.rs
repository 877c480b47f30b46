//! Processes that a test starts, and their children.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use rustix::process::Signal;

pub use crate::patience::until;
use crate::patience::{self, Wait};
use crate::terminal::Terminal;

/// A process that a test has started. It and its children are killed when the value is dropped.
#[derive(Debug)]
pub struct Process {
    line: String,
    child: Child,
    ended: Option<ExitStatus>,
    stdout: Reader,
    stderr: Reader,
}

impl Process {
    /// Starts a command in a process group of its own, without standard input.
    pub fn start(line: String, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        die_with_this_process(&mut command);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
        let stdout = Reader::of(child.stdout.take());
        let stderr = Reader::of(child.stderr.take());
        Self { line, child, ended: None, stdout, stderr }
    }

    /// Starts a command on a terminal, which has all that it writes; what was drawn there is its standard error.
    pub fn on_terminal(line: String, mut command: Command, terminal: Terminal) -> Self {
        command.stdin(Stdio::null()).stdout(terminal.end()).stderr(terminal.end()).process_group(0);
        die_with_this_process(&mut command);
        let child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
        // The command still holds its end of the terminal.
        drop(command);
        let drawn = Reader::of(Some(terminal.into_reader()));
        Self { line, child, ended: None, stdout: Reader::of(Some(std::io::empty())), stderr: drawn }
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to this process only.
    pub fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "{}: it has ended", self.line);
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap_or_else(|error| panic!("{}: {error}", self.line));
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until standard error contains this text. Returns the rest of the line, from the text on.
    pub fn says(&mut self, text: &str) -> String {
        self.says_after(0, text)
    }

    /// The same, after so many bytes of standard error.
    pub fn says_after(&mut self, bytes: usize, text: &str) -> String {
        let found = |stderr: &str| {
            let new = stderr.get(bytes..)?;
            let rest = &new[new.find(text)?..];
            rest.contains('\n').then(|| rest.lines().next().unwrap_or_default().to_string())
        };
        let mut wait = Wait::new(format_args!("{} says {text:?}", self.line));
        loop {
            let over = self.try_wait().is_some() && self.stderr.is_over();
            if let Some(line) = found(&self.stderr()) {
                return line;
            }
            assert!(!over, "{}: it did not say {text:?} but\n{}", self.line, self.stderr());
            self.pause(&mut wait);
        }
    }

    /// Its running children.
    pub fn children(&self) -> Vec<Seen> {
        if self.ended.is_some() { Vec::new() } else { Seen::children_of(self.pid()) }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.try_wait().is_none()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Ended {
        let line = self.line.clone();
        let mut wait = Wait::new(format_args!("{line} ends"));
        let status = loop {
            if let Some(status) = self.try_wait() {
                break status;
            }
            self.pause(&mut wait);
        };
        until(format!("{line}: its output closes, which its own children hold open"), || {
            (self.stdout.is_over() && self.stderr.is_over()).then_some(())
        });
        Ended { line, status, stdout: self.stdout(), stderr: self.stderr() }
    }

    fn pause(&self, wait: &mut Wait) {
        wait.pause().unwrap_or_else(|timeout| panic!("{timeout}; its last output:\n{}", self.stderr()));
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap_or_else(|error| panic!("{}: {error}", self.line));
        }
        self.ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_some() {
            return;
        }
        let offspring = Seen::descendants_of(self.pid());
        // It may have ended meanwhile.
        let _ = self.child.kill();
        let _ = self.child.wait();
        offspring.iter().for_each(|(seen, _)| seen.kill());
    }
}

/// If a test is killed, nothing is dropped: the kernel then kills the processes that it has started.
#[allow(unsafe_code)] // For the code between fork and exec.
fn die_with_this_process(command: &mut Command) {
    let ask =
        || rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from);
    // SAFETY: the closure makes one system call; it takes no lock and allocates nothing.
    unsafe { command.pre_exec(ask) };
}

/// Reads the output of a process, so that it never blocks. Output counts as progress.
#[derive(Debug)]
struct Reader {
    text: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&text);
        let counts = patience::counts_as_progress();
        let thread = std::thread::spawn(move || {
            let mut pipe = pipe.expect("the output is piped");
            let mut buffer = [0; 1 << 16];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                lock(&sink).extend_from_slice(&buffer[..count]);
                patience::record_output(if counts { count } else { 0 });
            }
        });
        Self { text, thread }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.text)).into_owned()
    }

    fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
}

fn lock(text: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that has ended, with its output.
#[derive(Clone, Debug)]
pub struct Ended {
    line: String,
    status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ended {
    /// Its exit code; none if a signal killed it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that killed it.
    pub fn killed_by(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Asserts its exit code.
    ///
    /// # Panics
    /// If it has another one.
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{self}");
        self
    }

    /// Asserts its exit code and that it has exactly one line of error. Returns the line.
    ///
    /// # Panics
    /// If it has not.
    pub fn error(&self, code: i32) -> String {
        assert_eq!(self.code(), Some(code), "{self}");
        let errors: Vec<_> = self.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        assert_eq!(errors.len(), 1, "one line of error: {self}");
        assert!(!self.stderr.contains("panicked"), "{self}");
        errors[0].to_string()
    }

    /// Standard output as JSON, one object per line.
    ///
    /// # Panics
    /// If a line is not JSON.
    pub fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self}"));
        self.stdout.lines().map(parse).collect()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, status, stdout, stderr } = self;
        write!(f, "{line}\n{status}\n--- standard output\n{stdout}\n--- standard error\n{stderr}")
    }
}

/// A process in `/proc`, distinguished from a later one with the same id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seen {
    /// Its id.
    pub pid: u32,
    parent: u32,
    started: u64,
}

impl Seen {
    /// The process with this id, if it exists and has not ended.
    pub fn of(pid: u32) -> Option<Self> {
        Self::working(pid).map(|(seen, _)| seen)
    }

    /// The same, with its CPU time, including that of its children that have ended.
    fn working(pid: u32) -> Option<(Self, Duration)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in brackets, which may contain any character.
        let fields: Vec<_> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
        let (state, parent, started) = (*fields.first()?, fields.get(1)?, fields.get(19)?);
        let used = fields.get(11..15)?.iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        let seen = Self { pid, parent: parent.parse().ok()?, started: started.parse().ok()? };
        let ended = matches!(state, "Z" | "X");
        (!ended).then_some((seen, ticks(used)))
    }

    fn all() -> Vec<(Self, Duration)> {
        let processes = fs::read_dir("/proc").expect("processes are listed in /proc").flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter_map(Self::working).collect()
    }

    fn children_of(pid: u32) -> Vec<Self> {
        let all = Self::all().into_iter().map(|(seen, _)| seen);
        all.filter(|seen| seen.parent == pid).collect()
    }

    fn descendants_of(pid: u32) -> Vec<(Self, Duration)> {
        let mut others = Self::all();
        let mut parents = vec![pid];
        let mut found = Vec::new();
        while let Some(parent) = parents.pop() {
            let (children, rest): (Vec<_>, Vec<_>) =
                others.into_iter().partition(|(seen, _)| seen.parent == parent);
            parents.extend(children.iter().map(|(child, _)| child.pid));
            found.extend(children);
            others = rest;
        }
        found
    }

    /// All descendants of this process, each with its CPU time.
    pub(crate) fn family() -> Vec<(Self, Duration)> {
        let mut family = Self::descendants_of(std::process::id());
        family.sort();
        family
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|seen| seen.started == self.started)
    }

    /// Its command line.
    pub fn arguments(&self) -> Vec<String> {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let arguments = line.split(|&byte| byte == 0).filter(|argument| !argument.is_empty());
        arguments.map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.is_alive()) {
            // It may have ended meanwhile.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Kills it, if it still runs.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits for its end.
    pub fn ends(&self) {
        until(format!("process {} ends", self.pid), || (!self.is_alive()).then_some(()));
    }
}

/// Time in the kernel's unit, hundredths of a second (proc(5), USER_HZ).
pub(crate) fn ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}
