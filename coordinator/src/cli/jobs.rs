//! `coordinator jobs`: the jobs of a cluster.

use clap::Args as ClapArgs;
use millefeuille_core::view::{JobStatus, JobView};
use time::OffsetDateTime;

use super::client::{Client, ClusterArgs};
use super::watch::{WatchArgs, json_line, watch};
use super::{Result, runtime, table_columns};
use crate::see::clock;
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
        Column::Right("epoch"),
        Column::Right("accuracy"),
        Column::Left("started (UTC)"),
        Column::Right("trained"),
        Column::Right("left"),
        Column::Left("detail"),
    ];
    let mut table = Table::new(columns);
    for job in jobs {
        let text = |cell: Option<String>| cell.unwrap_or_default();
        table.row([
            job.id.clone(),
            job.state.name().to_string(),
            text(job.epochs_done.map(|done| format!("{done}/{}", job.epochs))),
            text(job.accuracy.map(|accuracy| format!("{accuracy:.4}"))),
            text(job.started.and_then(moment)),
            text((job.seconds > 0.0).then(|| clock(job.seconds))),
            text(job.seconds_left.map(clock)),
            detail(job),
        ]);
    }
    table.fitting(table_columns())
}

/// A moment to the minute: `2026-11-27 08:06`.
fn moment(seconds: f64) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp(seconds as i64).ok()?;
    Some(format!(
        "{}-{:02}-{:02} {:02}:{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute()
    ))
}

/// What the job waits for, or why it ended. A long wait includes its duration and what happens next.
pub(super) fn detail(job: &JobView) -> String {
    if job.state == JobStatus::Queued && job.queue_place > 0 {
        return format!("number {} in the queue", job.queue_place);
    }
    if job.waiting_seconds < 1.0 {
        return job.detail.clone();
    }
    let next = if job.next.is_empty() { String::new() } else { format!("; {}", job.next) };
    format!("{}, for {:.1} s{next}", job.detail, job.waiting_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_show_how_far_they_are() {
        let running = JobView {
            id: "article-2".into(),
            state: JobStatus::Running,
            epochs: 50,
            epochs_done: Some(6),
            accuracy: Some(0.9126),
            started: Some(1_795_766_760.0),
            seconds: 62.4,
            seconds_left: Some(3725.0),
            ..JobView::default()
        };
        let queued = JobView {
            id: "second-1".into(),
            epochs: 5,
            epochs_done: Some(0),
            queue_place: 1,
            ..JobView::default()
        };
        let stalled = JobView {
            detail: "waiting for step 3 of epoch 7 from worker 2".into(),
            waiting_seconds: 4.2,
            next: "backup tasks start on other workers if it takes too long".into(),
            ..running.clone()
        };

        let lines = table(&[queued, running]);
        assert_eq!(
            lines,
            "id         state    epoch  accuracy  started (UTC)     trained     left  detail\n\
             second-1   queued     0/5                                                number 1 in the queue\n\
             article-2  running   6/50    0.9126  2026-11-27 08:06     1:02  1:02:05\n"
        );
        assert_eq!(
            detail(&stalled),
            "waiting for step 3 of epoch 7 from worker 2, for 4.2 s; backup tasks start on other workers if it takes too long"
        );
    }
}
