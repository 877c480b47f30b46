//! `coordinator jobs`: the jobs of a cluster.

use clap::Args as ClapArgs;
use millefeuille_proto::v1;
use serde_json::json;

use super::client::{Client, ClusterArgs, request};
use super::watch::{WatchArgs, watch};
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
    let jobs = client.list_jobs(request(v1::ListJobsRequest {})).await?.into_inner().jobs;
    Ok(if json { jobs.iter().map(json_line).collect() } else { table(&jobs) })
}

fn json_line(job: &v1::Job) -> String {
    let line = json!({
        "id": job.id,
        "name": job.name,
        "state": state(job),
        "run_dir": job.run_dir,
        "queue_place": job.queue_place,
        "detail": job.detail,
        "waiting_seconds": job.waiting_seconds,
        "next": job.next,
    });
    format!("{line}\n")
}

/// The state's name, as in `jobs --json`.
pub(super) fn state(job: &v1::Job) -> String {
    let name = job.state().as_str_name();
    name.trim_start_matches("JOB_STATE_").to_lowercase()
}

/// Whether nothing more will happen to the job.
pub(super) fn has_ended(job: &v1::Job) -> bool {
    matches!(job.state(), v1::JobState::Done | v1::JobState::Failed | v1::JobState::Cancelled)
}

fn table(jobs: &[v1::Job]) -> String {
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
        table.row([job.id.clone(), state(job), place, job.run_dir.clone(), detail(job)]);
    }
    table.to_string()
}

/// What the job waits for or why it ended; of a wait that lasts also how long, and what happens next.
pub(super) fn detail(job: &v1::Job) -> String {
    if job.waiting_seconds < 1.0 {
        return job.detail.clone();
    }
    let next = if job.next.is_empty() { String::new() } else { format!("; {}", job.next) };
    format!("{}, for {:.1} s{next}", job.detail, job.waiting_seconds)
}
