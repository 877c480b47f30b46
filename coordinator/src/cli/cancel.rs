//! `coordinator cancel`: ends a job before its time.

use clap::Args as ClapArgs;
use millefeuille_proto::v1;

use super::client::{ClusterArgs, request};
use super::{Result, jobs, print, runtime};

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
        let jobs = client.list_jobs(request(v1::ListJobsRequest {})).await?.into_inner().jobs;
        let ended = jobs.iter().find(|job| job.id == args.job && jobs::has_ended(job));
        if let Some(job) = ended {
            print(&format!("job {} had ended already: {}\n", job.id, jobs::state(job)));
            return Ok(());
        }
        let cancelled =
            client.cancel_job(request(v1::CancelJobRequest { job_id: args.job })).await?.into_inner();
        let job = cancelled.job.unwrap_or_default();
        print(&format!("job {}: {}\n", job.id, jobs::state(&job)));
        Ok(())
    })
}
