//! `coordinator workers`: the workers of a cluster.

use clap::Args as ClapArgs;
use millefeuille_proto::v1;
use serde_json::json;

use super::client::{Client, ClusterArgs, request};
use super::watch::{WatchArgs, watch};
use super::{Result, runtime};
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
    let workers = client.list_workers(request(v1::ListWorkersRequest {})).await?.into_inner().workers;
    Ok(if json { workers.iter().map(json_line).collect() } else { table(&workers) })
}

/// A worker as JSON.
pub(super) fn json(worker: &v1::WorkerInfo) -> serde_json::Value {
    json!({
        "id": worker.id,
        "name": worker.name,
        "state": worker.state,
        "shards": (worker.first_shard..worker.end_shard).collect::<Vec<_>>(),
        "shards_held": worker.shards_held,
        "slots": worker.slots,
        "kernel": worker.kernel,
        "blas_version": worker.blas_version,
        "fingerprint": worker.fingerprint,
        "build": worker.build,
        "cpu": worker.cpu,
        "samples_per_second": worker.samples_per_second,
        "bytes_sent": worker.bytes_sent,
        "bytes_received": worker.bytes_received,
        "last_heard_seconds": worker.last_heard_seconds,
        "detail": worker.detail,
    })
}

fn json_line(worker: &v1::WorkerInfo) -> String {
    format!("{}\n", json(worker))
}

/// The workers as a table.
pub(super) fn table(workers: &[v1::WorkerInfo]) -> String {
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
    table.to_string()
}

fn shards(worker: &v1::WorkerInfo) -> String {
    match (worker.first_shard, worker.end_shard) {
        (first, end) if first == end => "–".to_string(),
        (first, end) if first + 1 == end => first.to_string(),
        (first, end) => format!("{first}–{}", end - 1),
    }
}
