//! The service that people and their programs call.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::view::{JobReport, JobStatus, Metrics};
use millefeuille_proto::v1::cluster_server::Cluster;
use millefeuille_proto::{convert, v1, wire};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::services::Services;
use crate::cluster::board::Reader;
use crate::cluster::messages::DriverMessage;
use crate::cluster::messages::Handle;
use crate::runs::names;

/// Number of messages that a watcher may lag behind.
const STREAM_BUFFER: usize = 4;
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct ClusterService {
    driver: Handle,
    board: Reader,
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl ClusterService {
    pub(super) fn new(services: &Services) -> Self {
        Self { driver: services.driver.clone(), board: services.board.clone() }
    }

    /// Sends a request to the driver and waits for the reply.
    async fn ask<T>(
        &self,
        input: impl FnOnce(oneshot::Sender<Result<T, Failure>>) -> DriverMessage,
    ) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        self.driver.send(input(reply)).await;
        let ended = |_| Failure::new(FailureKind::NotAllowed, "the cluster has ended");
        answer.await.map_err(ended).flatten().map_err(refused)
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
        let job_id = self.ask(|reply| DriverMessage::Submit { job_toml, client_key, reply }).await?;
        Ok(Response::new(v1::SubmitJobResponse { job_id }))
    }

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let id = self.board.fresh().await.job(&request.into_inner().job_id).map_err(refused)?.job.id.clone();
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        tokio::spawn(watch(self.board.clone(), id, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list_jobs(
        &self,
        _: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let jobs = self.board.fresh().await.jobs.iter().map(|report| v1::Job::from(&report.job)).collect();
        Ok(Response::new(v1::ListJobsResponse { jobs }))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let job_id = request.into_inner().job_id;
        let job = self.ask(|reply| DriverMessage::Cancel { job_id, reply }).await?;
        Ok(Response::new(v1::CancelJobResponse { job: Some((&job).into()) }))
    }

    async fn list_workers(
        &self,
        _: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let workers = self.board.fresh().await.workers.iter().map(v1::WorkerInfo::from).collect();
        Ok(Response::new(v1::ListWorkersResponse { workers }))
    }

    async fn get_metrics(
        &self,
        request: Request<v1::GetMetricsRequest>,
    ) -> Result<Response<v1::GetMetricsResponse>, Status> {
        let metrics = self.board.fresh().await.metrics(&request.into_inner().job_id).map_err(refused)?;
        Ok(Response::new((&metrics).into()))
    }

    async fn watch_metrics(
        &self,
        request: Request<v1::WatchMetricsRequest>,
    ) -> Result<Response<Self::WatchMetricsStream>, Status> {
        let v1::WatchMetricsRequest { job_id, interval_ms } = request.into_inner();
        self.board.fresh().await.metrics(&job_id).map_err(refused)?;
        let interval = match interval_ms {
            0 => DEFAULT_INTERVAL,
            ms => Duration::from_millis(ms.into()).max(SHORTEST_INTERVAL),
        };
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        let board = self.board.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(interval);
            // Ends when the driver ends or the watcher leaves.
            while !board.is_over() {
                ticks.tick().await;
                let metrics = board.fresh().await.metrics(&job_id);
                let message =
                    |metrics: Metrics| v1::WatchMetricsResponse { metrics: Some((&metrics).into()) };
                if sender.send(metrics.map(message).map_err(refused)).await.is_err() {
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
        let snapshot = self.board.fresh().await;
        let done = |report: &&Arc<JobReport>| report.job.state == JobStatus::Done;
        let newest_done = snapshot.jobs.iter().find(done).filter(|_| id.is_empty());
        let report = newest_done.map_or_else(|| snapshot.job(&id), Ok).map_err(refused)?;
        if !done(&report) {
            let what = format!("job {} is not done", report.job.id);
            return Err(refused(Failure::new(FailureKind::Data, what)));
        }
        let path = std::path::Path::new(&report.job.run_dir).join(names::MODEL);
        let bytes = tokio::fs::read(&path).await;
        let bytes = bytes.map_err(|error| Status::not_found(format!("{}: {error}", path.display())))?;
        let chunks = wire::chunks(bytes.into()).map(|data| Ok(v1::GetModelResponse { data }));
        Ok(Response::new(Box::pin(stream::iter(chunks).boxed())))
    }
}

fn refused(failure: Failure) -> Status {
    convert::refusal(&failure)
}

/// Sends a job's state at once and after every change, until the job ends.
async fn watch(mut board: Reader, id: String, sender: mpsc::Sender<Result<v1::WatchJobResponse, Status>>) {
    let _look = board.look();
    let mut snapshot = board.fresh().await;
    let mut epochs_sent = 0;
    loop {
        let Ok(report) = snapshot.job(&id) else { return };
        let (message, ended) = (convert::news(report, epochs_sent), report.outcome.is_some());
        epochs_sent = report.history.len();
        if sender.send(Ok(message)).await.is_err() || ended {
            return;
        }
        let Some(next) = board.next().await else { return };
        snapshot = next;
    }
}
