//! `coordinator workers`: the workers of a cluster.

use clap::Args as ClapArgs;
use millefeuille_core::view::WorkerView;

use super::client::{Client, ClusterArgs};
use super::watch::{WatchArgs, json_line, watch};
use super::{Result, runtime, table_columns};
use crate::see::table::{Column, Table};

/// List the workers of a running cluster
#[derive(Clone, Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  coordinator workers --cluster 127.0.0.1:7070\n  coordinator workers --cluster 127.0.0.1:7070 --json"
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
    let workers = client.workers().await?;
    Ok(if json { workers.iter().map(json_line).collect() } else { table(&workers) })
}

/// The workers as a table.
pub(super) fn table(workers: &[WorkerView]) -> String {
    if workers.is_empty() {
        return "no workers\n".to_string();
    }
    let mut table = Table::new([
        Column::Right("id"),
        Column::Left("name"),
        Column::Left("state"),
        Column::Left("shards"),
        Column::Right("held"),
        Column::Right("slots"),
        Column::Left("kernel"),
        Column::Right("samples/s"),
        Column::Right("sent MB"),
        Column::Right("received MB"),
        Column::Right("last heartbeat"),
        Column::Left("detail"),
    ]);
    for worker in workers {
        let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        table.row([
            worker.id.to_string(),
            worker.name.clone(),
            worker.state.clone(),
            shards(worker),
            worker.shards_held.to_string(),
            worker.slots.to_string(),
            worker.kernel.clone(),
            format!("{:.0}", worker.samples_per_second),
            megabytes(worker.bytes_sent),
            megabytes(worker.bytes_received),
            format!("{:.1} s", worker.last_heard_seconds),
            worker.detail.clone(),
        ]);
    }
    table.fitting(table_columns())
}

fn shards(worker: &WorkerView) -> String {
    match (worker.shards.start, worker.shards.end) {
        (first, end) if first == end => "–".to_string(),
        (first, end) if first + 1 == end => first.to_string(),
        (first, end) => format!("{first}–{}", end - 1),
    }
}
