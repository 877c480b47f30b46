//! Golden scripts: readable transcripts of what the control machine does.
//!
//! Each file of `scripts/` has blocks of commands. Below each block, after `---`, is every action that it leads to.
//! The driver's own events (data read, epoch written) are added by [`Script`]. After a deliberate change of
//! behaviour `UPDATE_GOLDENFILES=1 cargo nextest run -p millefeuille-core --test control` writes the files anew:
//! read the difference before you commit it.

use std::error::Error;
use std::path::Path;

use goldenscript::{Command as Parsed, Context, Runner};
use millefeuille_core::control::{Action, ControlConfig, Event, Hello, JobId, WorkerId};

use crate::script::{RIGHT, Script, config, facts, hello};

/// A command of a script.
#[derive(goldenscript::Command)]
enum Command {
    /// The cluster's settings, before anything else: cluster workers=2 min=1 audit=0.5
    Cluster {
        #[arg(key, optional)]
        workers: usize,
        #[arg(key, optional)]
        min: usize,
        #[arg(key, optional)]
        audit: f64,
    },
    /// Workers join: join 1 2
    Join(Vec<u64>),
    /// Workers join whose caches have room for every sample: join_with_full_cache 1 2
    JoinWithFullCache(Vec<u64>),
    /// A worker joins with another kernel: join_with 3 kernel=Haswell
    JoinWith {
        worker: u64,
        #[arg(key)]
        kernel: String,
    },
    /// A worker's connection closes: leave 1
    Leave(u64),
    /// A worker drains: drain 1
    Drain(u64),
    /// A worker's samples arrive only with the command `samples_arrive`: withhold_samples 2
    WithholdSamples(u64),
    /// The withheld samples of a worker arrive: samples_arrive 2
    SamplesArrive(u64),
    /// A job is submitted: submit 1
    Submit(u64),
    /// A job is cancelled: cancel 1
    Cancel(u64),
    /// All results of the open unit of work arrive, or the next result of one worker: return, return 2
    Return(Option<u64>),
    /// A worker's next result arrives, with wrong bits: return_wrong 2
    ReturnWrong(u64),
    /// All results arrive until the job waits or ends.
    ReturnAll,
    /// Time passes without heartbeats: wait 3.5
    Wait(f64),
    /// Time passes, and every worker sends heartbeats: pass 3.5
    Pass(f64),
    /// The state of a job: state 1
    State(u64),
    /// Anything else is a mistake in the script.
    #[command(other)]
    Unknown(Parsed),
}

/// The running script, and how many of its actions have been shown.
struct Transcript {
    script: Script,
    shown: usize,
}

impl Runner for Transcript {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String, Box<dyn Error>> {
        let state = self.execute(command)?;
        let actions = self.script.actions[self.shown..].iter().map(Action::to_string);
        let lines: Vec<_> = actions.chain(state).collect();
        self.shown = self.script.actions.len();
        Ok(lines.join("\n"))
    }
}

impl Transcript {
    fn new() -> Self {
        Self { script: Script::new(), shown: 0 }
    }

    /// Executes a command. A command that asks for a state returns it.
    fn execute(&mut self, command: &Command) -> Result<Option<String>, Box<dyn Error>> {
        let script = &mut self.script;
        match command {
            &Command::Cluster { workers, min, audit } => {
                let config = ControlConfig {
                    expected_workers: workers.max(1),
                    min_workers: min.max(1),
                    audit_rate: audit,
                    ..config()
                };
                *script = Script::with(config, facts());
            }
            Command::Join(workers) => workers.iter().for_each(|&worker| script.join(worker)),
            Command::JoinWithFullCache(workers) => {
                workers.iter().for_each(|&worker| script.join_with_full_cache(worker))
            }
            Command::JoinWith { worker, kernel } => {
                script.join_as(*worker, Hello { name: "host:2".into(), ..hello(kernel, "native", 1) });
            }
            &Command::Leave(worker) => script.leave(worker),
            &Command::Drain(worker) => {
                script.feed(Event::Drain { worker: WorkerId(worker), reason: "SIGTERM".into() });
            }
            &Command::WithholdSamples(worker) => script.withholds_samples.push(WorkerId(worker)),
            &Command::SamplesArrive(worker) => script.samples_arrive(worker),
            &Command::Submit(job) => script.submit(job),
            &Command::Cancel(job) => script.feed(Event::Cancel { job: JobId(job) }),
            Command::Return(None) => script.return_all_of_step(),
            &Command::Return(Some(worker)) => script.result_from(worker),
            &Command::ReturnWrong(worker) => script.result_from_with_digest(worker, true, [!RIGHT[0]; 32]),
            Command::ReturnAll => script.return_all(),
            &Command::Wait(seconds) => script.wait(seconds),
            &Command::Pass(seconds) => script.pass(seconds),
            &Command::State(job) => return Ok(Some(script.state(job))),
            Command::Unknown(command) => return Err(format!("no such command: {command}").into()),
        }
        Ok(None)
    }
}

fn golden(name: &str) {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control/scripts");
    goldenscript::run(&mut Transcript::new(), scripts.join(name)).expect("the script runs");
}

#[test]
fn a_job_from_its_submission_to_its_end() {
    golden("a_job");
}

#[test]
fn a_worker_that_leaves_within_a_step() {
    golden("leave");
}

#[test]
fn a_worker_that_joins_a_running_job() {
    golden("join");
}

#[test]
fn a_worker_that_drains() {
    golden("drain");
}

#[test]
fn a_straggler_and_its_backup_task() {
    golden("straggler");
}

#[test]
fn a_worker_whose_results_differ() {
    golden("differing_results");
}

#[test]
fn too_few_workers_and_a_queue_of_jobs() {
    golden("queue");
}
