//! `coordinator health`: for probes.

use clap::Args as ClapArgs;
use millefeuille_proto::v1;
use millefeuille_worker::process::exit;

use super::client::{ClusterArgs, request};
use super::{Failed, Result, print, runtime};

/// Say whether a coordinator is alive, or ready to train
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:\n  coordinator health --cluster 127.0.0.1:7070 --ready")]
pub(super) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Fail unless a worker is there too
    #[arg(long)]
    ready: bool,
}

pub(super) fn run(args: Args) -> Result {
    runtime()?.block_on(async {
        let mut client = args.cluster.connect().await?;
        let workers =
            client.list_workers(request(v1::ListWorkersRequest {})).await?.into_inner().workers.len();
        if args.ready && workers == 0 {
            return Err(Failed::new(exit::TOO_FEW_WORKERS, "alive, but without workers"));
        }
        print(&format!("alive, {workers} workers\n"));
        Ok(())
    })
}
