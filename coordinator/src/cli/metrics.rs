//! `coordinator metrics`: a job's history, and how fast the cluster works.

use clap::Args as ClapArgs;
use millefeuille_proto::v1;
use serde_json::json;

use super::client::{Client, ClusterArgs, request};
use super::watch::{WatchArgs, watch};
use super::{Result, follow, jobs, runtime, workers};
use crate::see::history;

/// Print a job's history and the cluster's speed
#[derive(Clone, Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  coordinator metrics --cluster 127.0.0.1:7070 --watch\n  coordinator metrics --cluster 127.0.0.1:7070 article-1 --json"
)]
pub(super) struct Args {
    /// The job [default: the newest]
    #[arg(value_name = "JOB", default_value = "", hide_default_value = true)]
    job: String,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

pub(super) fn run(args: Args) -> Result {
    let (json, job) = (args.watch.json, args.job);
    runtime()?.block_on(watch(&args.cluster, args.watch, async move |client| ask(client, &job, json).await))
}

async fn ask(mut client: Client, job: &str, json: bool) -> Result<String> {
    let asked = request(v1::GetMetricsRequest { job_id: job.to_string() });
    let metrics = client.get_metrics(asked).await?.into_inner();
    Ok(if json { as_json(&metrics) } else { as_text(metrics) })
}

fn as_json(metrics: &v1::GetMetricsResponse) -> String {
    let job = metrics.job.as_ref().map(|job| {
        json!({ "id": job.id, "name": job.name, "state": jobs::state(job), "run_dir": job.run_dir, "queue_place": job.queue_place, "detail": job.detail })
    });
    let history: Vec<_> = metrics.history.iter().map(|epoch| follow::row(epoch.clone())).collect();
    let progress = metrics.progress.map(|progress| {
        json!({
            "epoch": progress.epoch,
            "step": progress.step,
            "loss": progress.loss,
            "accuracy": progress.accuracy,
            "step_ms": progress.step_ms,
            "samples_per_second": progress.samples_per_second,
            "epoch_seconds": progress.epoch_seconds,
        })
    });
    let time = metrics.step_time.unwrap_or_default();
    let step_time = json!({
        "compute_ms": time.compute_ms,
        "wait_ms": time.wait_ms,
        "wire_ms": time.wire_ms,
        "reduce_ms": time.reduce_ms,
    });
    let workers: Vec<_> = metrics.workers.iter().map(workers::json).collect();
    let all = json!({ "job": job, "history": history, "progress": progress, "step_time": step_time, "workers": workers });
    format!("{all}\n")
}

fn as_text(metrics: v1::GetMetricsResponse) -> String {
    let mut text = match &metrics.job {
        None => "no jobs yet\n".to_string(),
        Some(job) if job.detail.is_empty() => format!("job {}: {}\n", job.id, jobs::state(job)),
        Some(job) => format!("job {}: {} ({})\n", job.id, jobs::state(job), jobs::detail(job)),
    };
    // Before an epoch's first step there is nothing to tell.
    let begun = metrics.progress.filter(|progress| progress.step > 0);
    if let (Some(progress), Some(job)) = (begun, &metrics.job) {
        text += &format!(
            "epoch {}/{}, step {}/{}: loss {:.4}, accuracy {:.4}; {:.1} ms/step, {:.0} samples/s\n",
            progress.epoch,
            job.epochs,
            progress.step,
            job.steps_per_epoch,
            progress.loss,
            progress.accuracy,
            progress.step_ms,
            progress.samples_per_second,
        );
        if let Some(time) = metrics.step_time {
            let v1::StepTime { compute_ms, wait_ms, wire_ms, reduce_ms } = time;
            text += &format!(
                "of a step: {compute_ms:.1} ms computing, {wire_ms:.1} ms network, {reduce_ms:.1} ms reduction; \
                 {wait_ms:.1} ms from the first result to the last\n"
            );
        }
    }
    let rows: Vec<_> = metrics.history.into_iter().map(follow::row).collect();
    if !rows.is_empty() {
        text += &format!("\n{}", history::table(&rows));
    }
    text + "\n" + &workers::table(&metrics.workers)
}
