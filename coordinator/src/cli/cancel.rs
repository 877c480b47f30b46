//! `coordinator cancel`: cancels jobs.
//!
//! It cancels what was named: a job, the one that has its turn, or all. For all of them, a person confirms it in the
//! terminal, and a script says `--yes`.

use std::io::{IsTerminal as _, Write as _};

use clap::Args as ClapArgs;
use millefeuille_core::failure::FailureKind;
use millefeuille_core::view::JobView;

use super::client::{Client, ClusterArgs};
use super::{Failed, Result, print, runtime};

/// Cancel a job of a running cluster, or several
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator cancel --cluster 127.0.0.1:7070 article-2
  coordinator cancel --cluster 127.0.0.1:7070 --running
  coordinator cancel --cluster 127.0.0.1:7070 --all --yes")]
pub(super) struct Args {
    /// The jobs
    #[arg(value_name = "JOB", required_unless_present_any = ["running", "all"], value_parser = clap::builder::NonEmptyStringValueParser::new())]
    jobs: Vec<String>,
    /// Cancel the job that has its turn
    #[arg(long, conflicts_with = "jobs")]
    running: bool,
    /// Cancel all jobs, queued ones too, after asking
    #[arg(long, conflicts_with_all = ["jobs", "running"])]
    all: bool,
    /// With --all: do not ask
    #[arg(long, requires = "all")]
    yes: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn run(args: Args) -> Result {
    runtime()?.block_on(async {
        let mut client = args.cluster.connect().await?;
        let jobs = client.jobs().await?;
        let named = if args.running {
            vec![running(&jobs)?]
        } else if args.all {
            all(&jobs, args.yes)?
        } else {
            args.jobs
        };
        for id in &named {
            cancel(&mut client, &jobs, id).await?;
        }
        Ok(())
    })
}

async fn cancel(client: &mut Client, jobs: &[JobView], id: &str) -> Result {
    let ended = jobs.iter().find(|job| job.id == id && job.state.has_ended());
    if let Some(job) = ended {
        print(&format!("job {} had ended already: {}\n", job.id, job.state.name()));
        return Ok(());
    }
    let job = client.cancel(id).await?;
    print(&format!("job {}: {}\n", job.id, job.state.name()));
    Ok(())
}

/// The job that has its turn.
fn running(jobs: &[JobView]) -> Result<String> {
    let running = jobs.iter().find(|job| job.state.has_turn()).map(|job| job.id.clone());
    running.ok_or_else(|| Failed::new(FailureKind::NotFound, "no job runs"))
}

/// All jobs that have not ended, confirmed. The queue comes first: the next job would begin when the running one ends.
fn all(jobs: &[JobView], confirmed: bool) -> Result<Vec<String>> {
    let (running, queued): (Vec<&JobView>, Vec<&JobView>) =
        jobs.iter().filter(|job| !job.state.has_ended()).partition(|job| job.state.has_turn());
    let ids: Vec<String> = queued.into_iter().chain(running).map(|job| job.id.clone()).collect();
    if ids.is_empty() {
        print("no job is queued or runs\n");
    } else if !confirmed && !confirm(&ids)? {
        return Err(Failed::new(FailureKind::Interrupted, "nothing was cancelled"));
    }
    Ok(ids)
}

/// Asks in the terminal whether these jobs are to be cancelled.
fn confirm(ids: &[String]) -> Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let what = "--all asks before it cancels, and standard input is no terminal: say --yes";
        return Err(Failed::new(FailureKind::Usage, what));
    }
    let mut stderr = std::io::stderr();
    // If the question cannot be written, nobody answers yes.
    let _ = write!(stderr, "cancel {} ({})? [y/N] ", counted(ids.len()), ids.join(", "))
        .and_then(|()| stderr.flush());
    let mut answer = String::new();
    let _ = stdin.read_line(&mut answer);
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn counted(jobs: usize) -> String {
    if jobs == 1 { "1 job".to_string() } else { format!("{jobs} jobs") }
}
