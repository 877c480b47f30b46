//! `coordinator cancel`: cancels a job.

use clap::Args as ClapArgs;

use super::client::ClusterArgs;
use super::{Result, print, runtime};

/// Cancel a job of a running cluster
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:\n  coordinator cancel --cluster 127.0.0.1:7070 article-2")]
pub(super) struct Args {
    /// The job [default: the running one]
    #[arg(value_name = "JOB", default_value = "", hide_default_value = true)]
    job: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn run(args: Args) -> Result {
    runtime()?.block_on(async {
        let mut client = args.cluster.connect().await?;
        let jobs = client.jobs().await?;
        let ended = jobs.iter().find(|job| job.id == args.job && job.state.has_ended());
        if let Some(job) = ended {
            print(&format!("job {} had ended already: {}\n", job.id, job.state.name()));
            return Ok(());
        }
        let job = client.cancel(&args.job).await?;
        print(&format!("job {}: {}\n", job.id, job.state.name()));
        Ok(())
    })
}
