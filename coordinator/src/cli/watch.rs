//! Queries a cluster once, or repeatedly.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use millefeuille_core::failure::FailureKind;
use millefeuille_program::process;
use serde::Serialize;

use super::client::{Client, ClusterArgs};
use super::{Failed, Result, print};

/// How often, and how it is printed.
#[derive(Clone, Debug, Args)]
pub(super) struct WatchArgs {
    /// Repeat every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Print JSON, one object a line
    #[arg(long)]
    pub(super) json: bool,
}

const INTERVAL: Duration = Duration::from_secs(1);

/// Prints the text that `ask` returns, once or every second.
pub(super) async fn watch(
    cluster: &ClusterArgs,
    args: WatchArgs,
    ask: impl AsyncFn(Client) -> Result<String>,
) -> Result {
    let client = cluster.connect().await?;
    let clear = if std::io::stdout().is_terminal() && !args.json { "\x1b[H\x1b[2J" } else { "" };
    if !args.watch {
        print(&ask(client).await?);
        return Ok(());
    }
    let asking = async {
        loop {
            let answer = ask(client.clone()).await.map_err(|failed| lost(cluster, failed))?;
            print(&format!("{clear}{answer}"));
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::select! {
        ended = asking => ended,
        () = process::shutdown_signal() => Ok(()),
    }
}

/// The failure if a coordinator that has answered before is gone, most likely because the cluster ended.
fn lost(cluster: &ClusterArgs, failed: Failed) -> Failed {
    match failed {
        Failed { failure: Some(failure), .. } if failure.kind == FailureKind::NotAllowed => {
            let message = format!(
                "the coordinator at {} is gone: {failure} (has the cluster ended? start one with: coordinator serve)",
                cluster.cluster
            );
            Failed::new(FailureKind::NotAllowed, message)
        }
        _ => failed,
    }
}

/// A value as one line of JSON.
pub(super) fn json_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain values always have a JSON form") + "\n"
}
