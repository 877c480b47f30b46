//! `coordinator metrics`: a job's history, and the cluster's speed.

use std::cell::RefCell;

use clap::Args as ClapArgs;
use millefeuille_core::view::{Metrics, StepTime};

use super::client::{Client, ClusterArgs};
use super::watch::{WatchArgs, json_line, watch};
use super::{Result, jobs, runtime, table_columns, workers};
use crate::see::history;

/// Print a job's history and the cluster's speed
#[derive(Clone, Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  coordinator metrics --cluster 127.0.0.1:7070 --watch\n  coordinator metrics --cluster 127.0.0.1:7070 article-1 --json"
)]
pub(super) struct Args {
    /// The job [default: the one that has its turn, or else the last one that had it]
    #[arg(value_name = "JOB", default_value = "", hide_default_value = true)]
    job: String,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

pub(super) fn run(args: Args) -> Result {
    let (json, job) = (args.watch.json, args.job);
    let known = RefCell::default();
    runtime()?
        .block_on(watch(&args.cluster, args.watch, async |client| ask(client, &job, json, &known).await))
}

/// Asks for what is new since the last time.
async fn ask(mut client: Client, job: &str, json: bool, known: &RefCell<Metrics>) -> Result<String> {
    let before = known.take();
    let metrics = client.metrics(job, &before).await?;
    let text = if json { json_line(&metrics) } else { as_text(&metrics) };
    known.replace(metrics);
    Ok(text)
}

fn as_text(metrics: &Metrics) -> String {
    let mut text = match &metrics.job {
        None => "no jobs yet\n".to_string(),
        Some(job) if job.detail.is_empty() => format!("job {}: {}\n", job.id, job.state.name()),
        Some(job) => format!("job {}: {} ({})\n", job.id, job.state.name(), jobs::detail(job)),
    };
    // Before an epoch's first step there is nothing to show.
    let begun = metrics.progress.as_ref().filter(|progress| progress.step > 0);
    if let (Some(progress), Some(job)) = (begun, &metrics.job) {
        let measured: String =
            progress.all_metrics().map(|(name, figure)| format!(", {name} {figure:.4}")).collect();
        text += &format!(
            "epoch {}/{}, step {}/{}: loss {:.4}{measured}; {:.1} ms/step, {:.0} samples/s\n",
            progress.epoch,
            job.epochs,
            progress.step,
            job.steps_per_epoch,
            progress.loss,
            progress.step_ms,
            progress.samples_per_second,
        );
        let StepTime { compute_ms, wait_ms, wire_ms, reduce_ms } = metrics.step_time;
        text += &format!(
            "of a step: {compute_ms:.1} ms computing, {wire_ms:.1} ms network, {reduce_ms:.1} ms reduction; \
             {wait_ms:.1} ms from the first result to the last\n"
        );
    }
    if !metrics.history.is_empty() {
        text += &format!("\n{}", history::table(&metrics.history, table_columns()));
    }
    text + "\n" + &workers::table(&metrics.workers)
}
