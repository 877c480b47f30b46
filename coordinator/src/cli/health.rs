//! `coordinator health`: for probes.
//!
//! Checks a coordinator over gRPC, or the ops port of a coordinator or a worker over HTTP.

use std::time::Duration;

use axum::http::StatusCode;
use clap::builder::Resettable;
use clap::{Arg, Args as ClapArgs};
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_program::process;

use super::client::ClusterArgs;
use super::{Failed, Result, print, runtime};
use crate::ops::ask::ask;

/// Check whether a coordinator or a worker is alive, or ready
#[derive(Clone, Debug, ClapArgs)]
#[command(
    after_help = EXAMPLES,
    mut_arg("cluster", |cluster| of_a_cluster(cluster).required(false).required_unless_present("ops")),
    mut_arg("tls", of_a_cluster),
    mut_arg("connect_timeout", of_a_cluster),
    mut_arg("wait", |wait| wait.requires("cluster")),
)]
pub(super) struct Args {
    #[command(flatten)]
    cluster: Option<ClusterArgs>,
    /// Check this ops port of a coordinator or a worker instead
    #[arg(long, value_name = "HOST:PORT", value_parser = process::address, conflicts_with_all = ["cluster", "tls", "connect_timeout"])]
    ops: Option<String>,
    /// Fail unless the cluster has a worker; with --ops, unless the process is ready
    #[arg(long)]
    ready: bool,
}

const EXAMPLES: &str = "Examples:
  coordinator health --cluster 127.0.0.1:7070 --ready
  coordinator health --ops 127.0.0.1:7071 --ready

Exit codes:
    0  alive; with --ready, ready
    4  cannot be reached, or is not alive
    5  alive, but not ready";

/// Time limit for an ops port's response, connecting included. A liveness probe that fails takes half a second.
const OPS_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes an argument that selects a cluster ignore its variable beside `--ops`. The variable is meant for other
/// commands, and only clap's command can keep clap from reading it.
fn of_a_cluster(argument: Arg) -> Arg {
    let is_ops = |typed: &str| typed == "--ops" || typed.starts_with("--ops=");
    let beside_ops = std::env::args_os().any(|typed| typed.to_str().is_some_and(is_ops));
    if beside_ops { argument.env(Resettable::Reset) } else { argument }
}

pub(super) fn run(args: Args) -> Result {
    match (args.ops, args.cluster) {
        (Some(address), _) => runtime()?.block_on(of_ops_port(&address, args.ready)),
        (None, Some(cluster)) => runtime()?.block_on(of_cluster(cluster, args.ready)),
        (None, None) => unreachable!("one of the two is required"),
    }
}

async fn of_ops_port(address: &str, ready: bool) -> Result {
    let path = if ready { READY } else { LIVE };
    let why = match verdict(address, path).await? {
        Verdict::Yes(line) => {
            print(&format!("{line}\n"));
            return Ok(());
        }
        Verdict::No(why) => why,
    };
    let failed = |kind, why: String| Err(Failed::from(Failure::at(kind, address, why)));
    if !ready {
        return failed(FailureKind::NotAllowed, why);
    }
    // A stuck process is not ready either, and failing liveness is worse.
    match verdict(address, LIVE).await? {
        Verdict::Yes(_) => failed(FailureKind::NotReady, why),
        Verdict::No(why) => failed(FailureKind::NotAllowed, why),
    }
}

const LIVE: &str = "/livez";
const READY: &str = "/readyz";

/// An ops port's verdict, with its message.
enum Verdict {
    Yes(String),
    No(String),
}

async fn verdict(address: &str, path: &str) -> Result<Verdict> {
    match ask(address, path, OPS_TIMEOUT).await {
        Ok((StatusCode::OK, line)) => Ok(Verdict::Yes(line)),
        Ok((StatusCode::SERVICE_UNAVAILABLE, line)) => Ok(Verdict::No(line)),
        Ok((status, _)) => Err(Failed::new(
            FailureKind::NotAllowed,
            format!(
                "{address}: answers {status} to {path} (is it an ops port? --ops-listen of serve and worker names it)"
            ),
        )),
        Err(reason) => Err(Failed::new(
            FailureKind::NotAllowed,
            format!("no ops port at {address}: {reason} (--ops-listen of serve and worker names it)"),
        )),
    }
}

async fn of_cluster(cluster: ClusterArgs, ready: bool) -> Result {
    let mut client = cluster.connect().await?;
    let workers = client.workers().await?.len();
    if ready && workers == 0 {
        return Err(Failed::new(FailureKind::NotReady, "alive, but without workers"));
    }
    print(&format!("alive, {workers} workers\n"));
    Ok(())
}
