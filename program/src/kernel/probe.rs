//! Tests a kernel in another process: this program, started again with a hidden subcommand.
//!
//! A missing kernel shows when it is loaded. A wrong kernel shows when its products are compared with sums in f64
//! ([`millefeuille_core::arithmetic::check`]). A kernel that cannot run here crashes its process, or never returns.
//! All this happens in the process that tests the kernel. It reports its findings in one line of JSON, and
//! [`patience`] limits how long the caller waits.

mod node;
mod patience;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millefeuille_core::arithmetic::check::{self, Product};
use millefeuille_core::arithmetic::exercise::Exercise;
use millefeuille_core::arithmetic::{self, Arithmetic};
use millefeuille_core::blas;
use millefeuille_core::blas::choice::Instructions;
use millefeuille_core::blas::environment::{self, Choice, KernelError, Native};
use millefeuille_core::learn::spec::Spec;
use millefeuille_proto::convert;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

pub use self::node::{NodeTask, compute_elsewhere};
use self::patience::{Patience, Silence, processor_time};
use super::start::changed;
use super::unusable::Unusable;
use crate::failpoints;
use crate::process::{self, exit};
use crate::variables::INSTANCE;

/// The hidden subcommand. Its argument selects one of the tasks below.
const PROBE: &str = "__probe";
/// Reports the name of the loaded kernel, and nothing else.
const NAME: &str = "name";
/// Checks the kernel in products of many shapes.
const GENERAL: &str = "general";
/// Measures the kernel's speed; the next argument is the number of threads.
const SPEED: &str = "speed";
/// Checks the kernel as [`GENERAL`] does, for a job's shapes, and computes the fingerprints. The job's spec comes
/// over standard input.
const JOB: &str = "job";
/// Computes a node of a job, which comes over standard input: see [`node`].
const NODE: &str = "node";

/// Time limits for a process that computes almost nothing.
const PATIENCE: Patience = Patience { computing: Duration::from_secs(20), idle: Duration::from_secs(20) };
/// Time between two checks whether a process that has reported has ended.
const END_LOOK: Duration = Duration::from_millis(1);
/// Multiplications per second that every kernel reaches.
const SLOWEST: u64 = 50_000_000;

/// The report of a process that tests a kernel.
#[derive(Debug, Default, Serialize, Deserialize)]
struct ProbeReport {
    kernel: String,
    version: String,
    /// What is wrong with the kernel.
    wrong: Option<String>,
    fingerprint: String,
    shapes_fingerprint: String,
    speed: Option<Speed>,
}

/// A kernel's speed on the products of a training piece of the default job, in billions of operations per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// The speed of one thread alone.
    pub one: f64,
    /// The speed of all threads together.
    pub all: f64,
    /// The number of threads.
    pub threads: u32,
}

/// Duration of each of the two measurements.
const MEASURED: Duration = Duration::from_millis(250);

/// A process that tests a kernel.
pub(super) struct Probe {
    /// The kernel that was requested by name.
    asked: Option<String>,
    /// What to call the kernel until the process reports its name.
    called: String,
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    patience: Patience,
}

impl Probe {
    /// Finds out a kernel's name; computes nothing.
    pub(super) fn named(variables: &BTreeMap<String, String>, wanted: &Choice) -> Result<Self, Unusable> {
        Self::begin(variables, wanted, &[NAME])
    }

    /// Tests a kernel in products of many shapes, in a process that inherits these variables but for the kernel.
    pub(super) fn general(variables: &BTreeMap<String, String>, wanted: &Choice) -> Result<Self, Unusable> {
        Self::begin(variables, wanted, &[GENERAL])
    }

    /// Tests a kernel for a job; [`Self::end_with`] sends the job's spec to the process.
    pub(super) fn for_job(variables: &BTreeMap<String, String>, wanted: &Choice) -> Result<Self, Unusable> {
        Self::begin(variables, wanted, &[JOB])
    }

    /// Measures a kernel's speed with `threads` threads.
    pub(super) fn of_speed(
        variables: &BTreeMap<String, String>,
        wanted: &Choice,
        threads: u32,
    ) -> Result<Self, Unusable> {
        Self::begin(variables, wanted, &[SPEED, &threads.to_string()])
    }

    fn begin(variables: &BTreeMap<String, String>, wanted: &Choice, what: &[&str]) -> Result<Self, Unusable> {
        if let Choice::Named(name) = wanted {
            environment::check_cpu(name, Instructions::of_this_machine())?;
        }
        let change = environment::change(variables, wanted);
        let mut command = changed(Command::new(process::program()), &change);
        command
            .arg(PROBE)
            .args(what)
            .env_remove(INSTANCE)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let (sender, output) = mpsc::channel();
        let mut pipe = child.stdout.take().expect("its output is a pipe");
        let read = move || {
            let mut said = Vec::new();
            let _ = pipe.read_to_end(&mut said);
            let _ = sender.send(said);
        };
        if let Err(error) = std::thread::Builder::new().name("probe".into()).spawn(read) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(&error));
        }
        let asked = asked(variables, wanted);
        let called =
            asked.clone().or_else(|| picked(variables)).unwrap_or_else(|| "that it picks".to_string());
        Ok(Self { asked, called, input: child.stdin.take(), child, output, patience: PATIENCE })
    }

    /// Waits for the test and returns the kernel's name.
    pub(super) fn name(mut self) -> Result<String, Unusable> {
        self.patience.computing += time_for(check::general());
        Ok(self.report()?.kernel)
    }

    /// Waits for the measurement and returns the kernel's speed.
    pub(super) fn speed(self) -> Result<Speed, Unusable> {
        self.report()?.speed.ok_or_else(|| failed(&"nothing was measured"))
    }

    /// Sends the job's spec to the process, and waits for its findings: the arithmetic on fixed shapes, and the
    /// fingerprint on the job's own shapes.
    pub(super) fn end_with(mut self, spec: &Spec) -> Result<(Arithmetic, String), Unusable> {
        // The fingerprints compute each product once more.
        self.patience.computing += 2 * (time_for(check::of_job(spec)) + time_for(check::general()));
        self.send(vec![convert::spec_to_bytes(spec).into()]);
        let ProbeReport { kernel, version, fingerprint, shapes_fingerprint, .. } = self.report()?;
        Ok((Arithmetic { kernel, version, fingerprint }, shapes_fingerprint))
    }

    /// Sends this to the process, in a thread: a process that hangs reads nothing, and a pipe takes no more than 64 KiB.
    /// If writing fails, the process has ended, and its exit status says more.
    fn send(&mut self, message: Vec<Bytes>) {
        if let Some(mut input) = self.input.take() {
            std::thread::spawn(move || message.iter().try_for_each(|part| input.write_all(part)));
        }
    }

    /// Waits for the report, which must be about a good kernel.
    fn report(mut self) -> Result<ProbeReport, Unusable> {
        let (said, status) = self.said()?;
        match serde_json::from_slice::<ProbeReport>(&said) {
            Ok(report) if status.success() => self.judge(report),
            _ => Err(self.ended(status)),
        }
    }

    /// Waits for the end of the process: what it printed, and how it ended.
    fn said(&mut self) -> Result<(Vec<u8>, ExitStatus), Unusable> {
        // Close the input, or the process waits for more.
        self.input = None;
        self.patience.idle = failpoints::patience().unwrap_or(self.patience.idle);
        let process = self.child.id();
        let said = match self.patience.wait(&self.output, || processor_time(process)) {
            Ok(said) => said,
            Err(Silence::Hangs(what)) => {
                self.kill();
                return Err(self.no_good(&what));
            }
            Err(Silence::Ended) => Vec::new(),
        };
        match self.status()? {
            Some(status) => Ok((said, status)),
            None => {
                self.kill();
                Err(self.no_good(&format!("does not end within {} s", self.patience.idle.as_secs())))
            }
        }
    }

    /// How the process ended; `None` if it closes its output and stays there.
    fn status(&mut self) -> Result<Option<ExitStatus>, Unusable> {
        let begun = Instant::now();
        loop {
            match self.child.try_wait().map_err(|error| failed(&error))? {
                None if begun.elapsed() < self.patience.idle => std::thread::sleep(END_LOOK),
                status => return Ok(status),
            }
        }
    }

    fn judge(&self, report: ProbeReport) -> Result<ProbeReport, Unusable> {
        self.is_asked(&report.kernel)?;
        match report.wrong {
            None => Ok(report),
            Some(wrong) => {
                let what = format!("computes wrong numbers: {wrong}");
                Err(Unusable::NoGood { kernel: report.kernel, version: report.version, what })
            }
        }
    }

    /// Checks that the process has loaded the kernel that was requested by name.
    fn is_asked(&self, loaded: &str) -> Result<(), Unusable> {
        match self.asked.as_ref().filter(|name| !loaded.eq_ignore_ascii_case(name)) {
            Some(wanted) => {
                let (wanted, loaded) = (wanted.clone(), loaded.to_string());
                Err(Unusable::Missing(KernelError::FellBack { wanted, loaded }))
            }
            None => Ok(()),
        }
    }

    fn ended(&self, status: ExitStatus) -> Unusable {
        match status.signal() {
            Some(signal) => {
                self.no_good(&format!("kills the process that computes with it ({})", signal_name(signal)))
            }
            None => failed(&format!("the process that tries it ends with {status}")),
        }
    }

    /// The error for a process that has not reported its kernel's name.
    fn no_good(&self, what: &str) -> Unusable {
        Unusable::NoGood { kernel: self.called.clone(), version: blas::version(), what: what.to_string() }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The kernel that a choice names, if any.
fn asked(variables: &BTreeMap<String, String>, wanted: &Choice) -> Option<String> {
    match wanted {
        Choice::Named(name) => Some(name.clone()),
        Choice::Environment => environment::kernel_of_user(variables),
        Choice::OpenBlas => None,
    }
}

/// The kernel that OpenBLAS picks by itself, if this process can tell.
pub(super) fn own_pick(variables: &BTreeMap<String, String>) -> Option<String> {
    let loaded = || environment::is_own_pick(variables).then(blas::kernel);
    failpoints::own_pick().or_else(loaded)
}

/// The kernel that OpenBLAS picks by itself, if known.
fn picked(variables: &BTreeMap<String, String>) -> Option<String> {
    own_pick(variables).or_else(|| Some(Native::handed_down(variables)?.own))
}

/// Time limit for a processor to compute these products.
fn time_for(products: impl IntoIterator<Item = Product>) -> Duration {
    let work: u64 = products.into_iter().map(|product| product.work()).sum();
    Duration::from_secs(work / SLOWEST)
}

fn failed(why: &dyn std::fmt::Display) -> Unusable {
    Unusable::Unexpected(format!("cannot find out how BLAS computes: {why}"))
}

fn signal_name(signal: i32) -> String {
    match signal {
        libc::SIGILL => "SIGILL: it has instructions that this CPU lacks".to_string(),
        libc::SIGSEGV => "SIGSEGV".to_string(),
        libc::SIGBUS => "SIGBUS".to_string(),
        libc::SIGFPE => "SIGFPE".to_string(),
        libc::SIGABRT => "SIGABRT".to_string(),
        libc::SIGKILL => "SIGKILL".to_string(),
        signal => format!("signal {signal}"),
    }
}

/// The side of the started process: if this process was started as a probe, tests its kernel and returns the exit
/// code. Every program that calls [`own_kernel`](super::own_kernel) must call this first.
pub fn answer() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == PROBE).then(|| answered(arguments))
}

fn answered(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    // A kernel that never returns would outlive its parent.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    failpoints::set_up();
    blas::single_threaded();
    let report = match arguments.next().as_ref().and_then(|what| what.to_str()) {
        Some(NAME) => {
            ProbeReport { kernel: blas::kernel(), version: blas::version(), ..ProbeReport::default() }
        }
        Some(GENERAL) => tried(check::general()),
        Some(SPEED) => {
            let threads = arguments.next().and_then(|threads| threads.to_str()?.parse().ok());
            ProbeReport {
                kernel: blas::kernel(),
                version: blas::version(),
                speed: threads.map(measured),
                ..ProbeReport::default()
            }
        }
        Some(NODE) => {
            return match node::answer() {
                Ok(()) => process::leave(exit::DONE),
                Err(message) => process::fail(exit::UNEXPECTED, &message),
            };
        }
        Some(JOB) => match of_job() {
            Ok(report) => report,
            Err(message) => return process::fail(exit::UNEXPECTED, &message),
        },
        _ => return process::fail(exit::USAGE, "no command for people"),
    };
    process::print(&serde_json::to_string(&report).unwrap_or_default());
    process::leave(exit::DONE)
}

/// Reads a job's spec from standard input.
fn spec() -> Result<Spec, String> {
    convert::spec_from_bytes(&input()?).map_err(|error| error.to_string())
}

/// All of standard input.
fn input() -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn tried(products: impl IntoIterator<Item = Product>) -> ProbeReport {
    let kernel = blas::kernel();
    failpoints::misbehave_as(&kernel);
    let wrong = check::check(products, |_, out| failpoints::spoil_product(&kernel, out)).err();
    ProbeReport {
        wrong: wrong.map(|wrong| wrong.to_string()),
        kernel,
        version: blas::version(),
        ..ProbeReport::default()
    }
}

fn of_job() -> Result<ProbeReport, String> {
    // This needs no job; the spec comes once the job's data has been read.
    failpoints::misbehave_as(&blas::kernel());
    let Arithmetic { fingerprint, .. } = Arithmetic::of_this_process();
    let spec = spec()?;
    let report = tried(check::of_job(&spec));
    let right = report.wrong.is_none();
    let shapes_fingerprint = if right { arithmetic::model_fingerprint(&spec) } else { String::new() };
    Ok(ProbeReport { fingerprint, shapes_fingerprint, ..report })
}

fn measured(threads: u32) -> Speed {
    Speed { one: together(1), all: together(threads), threads }
}

/// The speed of `threads` threads together, in billions of operations per second.
fn together(threads: u32) -> f64 {
    let one = || {
        let mut exercise = Exercise::default();
        exercise.compute();
        let (started, mut operations) = (Instant::now(), 0);
        while started.elapsed() < MEASURED {
            operations += exercise.compute();
        }
        operations as f64 / started.elapsed().as_secs_f64() / 1e9
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|thread| thread.join().unwrap_or_default()).sum()
    })
}
