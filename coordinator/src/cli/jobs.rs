//! `coordinator jobs`: the jobs of a cluster.

use clap::Args as ClapArgs;
use millefeuille_core::view::JobView;

use super::client::{Client, ClusterArgs};
use super::watch::{WatchArgs, json_line, watch};
use super::{Result, runtime};
use crate::see::table::{Column, Table};

/// List the jobs of a running cluster, newest first
#[derive(Clone, Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  coordinator jobs --cluster 127.0.0.1:7070\n  coordinator jobs --cluster 127.0.0.1:7070 --watch"
)]
pub(super) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

pub(super) fn run(args: Args) -> Result {
    let json = args.watch.json;
    runtime()?.block_on(watch(&args.cluster, args.watch, async move |client| ask(client, json).await))
}

async fn ask(mut client: Client, json: bool) -> Result<String> {
    let jobs = client.jobs().await?;
    Ok(if json { jobs.iter().map(json_line).collect() } else { table(&jobs) })
}

fn table(jobs: &[JobView]) -> String {
    if jobs.is_empty() {
        return "no jobs yet\n".to_string();
    }
    let columns = [
        Column::Left("id"),
        Column::Left("state"),
        Column::Right("place"),
        Column::Left("run directory"),
        Column::Left("detail"),
    ];
    let mut table = Table::new(columns);
    for job in jobs {
        let place = if job.queue_place == 0 { String::new() } else { job.queue_place.to_string() };
        let state = job.state.name().to_string();
        table.row([job.id.clone(), state, place, job.run_dir.clone(), detail(job)]);
    }
    table.to_string()
}

/// What the job waits for, or why it ended. A long wait includes its duration and what happens next.
pub(super) fn detail(job: &JobView) -> String {
    if job.waiting_seconds < 1.0 {
        return job.detail.clone();
    }
    let next = if job.next.is_empty() { String::new() } else { format!("; {}", job.next) };
    format!("{}, for {:.1} s{next}", job.detail, job.waiting_seconds)
}
