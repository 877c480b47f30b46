//! The service that people and their programs call.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use millefeuille_proto::v1::cluster_server::Cluster;
use millefeuille_proto::{v1, wire};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Handle;
use super::messages::Input;
use super::status::Status as Snapshot;
use super::status::{self, JobStatus};
use crate::runs::names;

/// Messages that a follower may lag behind.
const STREAM_BUFFER: usize = 4;
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct ClusterService {
    driver: Handle,
    status: watch::Receiver<Arc<Snapshot>>,
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl ClusterService {
    pub(super) fn new(driver: Handle, status: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self { driver, status }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.status.borrow())
    }

    /// Asks the driver, and waits for its answer.
    async fn ask<T>(
        &self,
        input: impl FnOnce(oneshot::Sender<Result<T, Status>>) -> Input,
    ) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        self.driver.send(input(reply)).await;
        answer.await.map_err(|_| Status::unavailable("the cluster has ended"))?
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    type WatchJobStream = ResponseStream<v1::WatchJobResponse>;
    type WatchMetricsStream = ResponseStream<v1::WatchMetricsResponse>;
    type GetModelStream = ResponseStream<v1::GetModelResponse>;

    async fn submit_job(
        &self,
        request: Request<v1::SubmitJobRequest>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        let v1::SubmitJobRequest { job_toml, client_key } = request.into_inner();
        let job_id = self.ask(|reply| Input::Submit { job_toml, client_key, reply }).await?;
        Ok(Response::new(v1::SubmitJobResponse { job_id }))
    }

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let id = find(&self.snapshot(), &request.into_inner().job_id)?.job.id.clone();
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        tokio::spawn(follow(self.status.clone(), id, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list_jobs(
        &self,
        _: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let jobs = self.snapshot().jobs.iter().map(|status| status.job.clone()).collect();
        Ok(Response::new(v1::ListJobsResponse { jobs }))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let job_id = request.into_inner().job_id;
        let job = self.ask(|reply| Input::Cancel { job_id, reply }).await?;
        Ok(Response::new(v1::CancelJobResponse { job: Some(job) }))
    }

    async fn list_workers(
        &self,
        _: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        Ok(Response::new(v1::ListWorkersResponse { workers: self.snapshot().workers.clone() }))
    }

    async fn get_metrics(
        &self,
        request: Request<v1::GetMetricsRequest>,
    ) -> Result<Response<v1::GetMetricsResponse>, Status> {
        metrics(&self.snapshot(), &request.into_inner().job_id).map(Response::new)
    }

    async fn watch_metrics(
        &self,
        request: Request<v1::WatchMetricsRequest>,
    ) -> Result<Response<Self::WatchMetricsStream>, Status> {
        let v1::WatchMetricsRequest { job_id, interval_ms } = request.into_inner();
        metrics(&self.snapshot(), &job_id)?;
        let interval = match interval_ms {
            0 => DEFAULT_INTERVAL,
            ms => Duration::from_millis(ms.into()).max(SHORTEST_INTERVAL),
        };
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        let status = self.status.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(interval);
            // Ends with the driver, which holds the snapshot's other end, and with the reader.
            while status.has_changed().is_ok() {
                ticks.tick().await;
                let metrics = metrics(&status.borrow(), &job_id);
                let message = metrics.map(|metrics| v1::WatchMetricsResponse { metrics: Some(metrics) });
                if sender.send(message).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_model(
        &self,
        request: Request<v1::GetModelRequest>,
    ) -> Result<Response<Self::GetModelStream>, Status> {
        let id = request.into_inner().job_id;
        let snapshot = self.snapshot();
        let done = |status: &&JobStatus| status.job.state() == v1::JobState::Done;
        let newest_done = snapshot.jobs.iter().find(done).filter(|_| id.is_empty());
        let status = newest_done.map_or_else(|| find(&snapshot, &id), Ok)?;
        if !done(&status) {
            return Err(Status::failed_precondition(format!("job {} is not done", status.job.id)));
        }
        let path = std::path::Path::new(&status.job.run_dir).join(names::MODEL);
        let bytes = tokio::fs::read(&path).await;
        let bytes = bytes.map_err(|error| Status::not_found(format!("{}: {error}", path.display())))?;
        let chunks = wire::chunks(bytes.into()).map(|data| Ok(v1::GetModelResponse { data }));
        Ok(Response::new(Box::pin(stream::iter(chunks).boxed())))
    }
}

fn find<'a>(snapshot: &'a Snapshot, id: &str) -> Result<&'a JobStatus, Status> {
    snapshot.job(id).ok_or_else(|| match id {
        "" => Status::not_found("there is no job yet"),
        id => Status::not_found(format!("there is no job {id}")),
    })
}

fn metrics(snapshot: &Snapshot, id: &str) -> Result<v1::GetMetricsResponse, Status> {
    let mut metrics = v1::GetMetricsResponse {
        workers: snapshot.workers.clone(),
        step_time: Some(snapshot.step_time),
        ..Default::default()
    };
    if id.is_empty() && snapshot.jobs.is_empty() {
        return Ok(metrics);
    }
    let status = find(snapshot, id)?;
    metrics.job = Some(status.job.clone());
    metrics.history = status.history.iter().map(status::epoch).collect();
    metrics.progress = status.progress;
    Ok(metrics)
}

/// Sends a job's state at once and after every change, to its end.
async fn follow(
    mut status: watch::Receiver<Arc<Snapshot>>,
    id: String,
    sender: mpsc::Sender<Result<v1::WatchJobResponse, Status>>,
) {
    let mut epochs_sent = 0;
    loop {
        let snapshot = Arc::clone(&status.borrow_and_update());
        let Some(job) = snapshot.job(&id) else { return };
        let message = v1::WatchJobResponse {
            job: Some(job.job.clone()),
            // A run that goes on from a checkpoint has fewer epochs than were shown before.
            new_epochs: job.history.iter().skip(epochs_sent).map(status::epoch).collect(),
            progress: job.progress,
            outcome: job.outcome.clone(),
        };
        epochs_sent = job.history.len();
        let ended = job.outcome.is_some();
        if sender.send(Ok(message)).await.is_err() || ended || status.changed().await.is_err() {
            return;
        }
    }
}
