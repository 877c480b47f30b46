//! `coordinator health`: for probes.
//!
//! Asks a coordinator over gRPC, or the ops port of a coordinator or a worker over HTTP.

use std::time::Duration;

use axum::http::StatusCode;
use clap::Args as ClapArgs;
use millefeuille_proto::v1;
use millefeuille_worker::process::{self, exit};

use super::client::{ClusterArgs, request};
use super::given::Given;
use super::{Failed, Result, print, runtime};
use crate::ops::ask::ask;

/// Say whether a coordinator or a worker is alive, or ready
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = EXAMPLES, mut_arg("cluster", |cluster| cluster.required(false).required_unless_present("ops")))]
pub(super) struct Args {
    #[command(flatten)]
    cluster: Option<ClusterArgs>,
    /// The ops port to ask instead, of a coordinator or of a worker
    #[arg(long, value_name = "HOST:PORT", value_parser = process::address)]
    ops: Option<String>,
    /// Fail unless a worker is there too; with --ops, unless it is ready
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

/// How long an ops port may take to answer, connecting included. A liveness probe that says no takes half a second.
const OPS_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn run(args: Args, given: &Given) -> Result {
    // A variable that names the cluster is there for other commands, too.
    if let (Some(_), Some(flag)) = (&args.ops, given.typed("cluster")) {
        return Err(Failed::new(exit::USAGE, format!("--ops with {flag}: leave out one of them")));
    }
    match (args.ops, args.cluster) {
        (Some(address), _) => runtime()?.block_on(of_ops_port(&address, args.ready)),
        (None, Some(cluster)) => runtime()?.block_on(of_cluster(cluster, args.ready)),
        (None, None) => unreachable!("one of the two is required"),
    }
}

async fn of_ops_port(address: &str, ready: bool) -> Result {
    let (path, otherwise) =
        if ready { ("/readyz", exit::TOO_FEW_WORKERS) } else { ("/livez", exit::NOT_ALLOWED) };
    match ask(address, path, OPS_TIMEOUT).await {
        Ok((StatusCode::OK, line)) => {
            print(&format!("{line}\n"));
            Ok(())
        }
        Ok((StatusCode::SERVICE_UNAVAILABLE, line)) => {
            Err(Failed::new(otherwise, format!("{address}: {line}")))
        }
        Ok((status, _)) => Err(Failed::new(
            exit::NOT_ALLOWED,
            format!(
                "{address}: answers {status} to {path} (is it an ops port? --ops-listen of serve and worker names it)"
            ),
        )),
        Err(reason) => Err(Failed::new(
            exit::NOT_ALLOWED,
            format!("no ops port at {address}: {reason} (--ops-listen of serve and worker names it)"),
        )),
    }
}

async fn of_cluster(cluster: ClusterArgs, ready: bool) -> Result {
    let mut client = cluster.connect().await?;
    let workers = client.list_workers(request(v1::ListWorkersRequest {})).await?.into_inner().workers.len();
    if ready && workers == 0 {
        return Err(Failed::new(exit::TOO_FEW_WORKERS, "alive, but without workers"));
    }
    print(&format!("alive, {workers} workers\n"));
    Ok(())
}
