//! The service that people and their programs call.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::view::EpochRow;
use millefeuille_proto::v1::cluster_server::Cluster;
use millefeuille_proto::{convert, v1};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::debug;

use super::files::Files;
use super::services::Services;
use crate::cluster::board::Reader;
use crate::cluster::messages::{DriverMessage, Handle};
use crate::cluster::snapshot::{Listed, Snapshot};
use crate::runs::history::Pages;

/// Number of messages that a watcher may lag behind.
const STREAM_BUFFER: usize = 4;
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct ClusterService {
    driver: Handle,
    board: Reader,
    files: Files,
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl ClusterService {
    pub(super) fn new(services: &Services) -> Self {
        Self { driver: services.driver.clone(), board: services.board.clone(), files: Files::default() }
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
        let v1::WatchJobRequest { job_id, after_epoch } = request.into_inner();
        let snapshot = self.board.fresh().await;
        let listed = snapshot.job(&job_id).map_err(refused)?;
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        let watch = Watch {
            board: self.board.clone(),
            files: self.files.clone(),
            id: listed.job.id.clone(),
            pages: listed.pages(after_epoch.into()),
            sender,
        };
        tokio::spawn(watch.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let v1::ListJobsRequest { page_size, page_token } = request.into_inner();
        let snapshot = self.board.fresh().await;
        let (page, next_page_token) = snapshot.page(page_size, &page_token).map_err(refused)?;
        let jobs = page.iter().map(|listed| v1::Job::from(&listed.job)).collect();
        Ok(Response::new(v1::ListJobsResponse { jobs, next_page_token }))
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
        let v1::GetMetricsRequest { job_id, after_epoch } = request.into_inner();
        let mut metrics = MetricsPages::new(self.files.clone(), job_id, after_epoch);
        let snapshot = self.board.fresh().await;
        Ok(Response::new(metrics.next(&snapshot).await.map_err(refused)?))
    }

    async fn watch_metrics(
        &self,
        request: Request<v1::WatchMetricsRequest>,
    ) -> Result<Response<Self::WatchMetricsStream>, Status> {
        let v1::WatchMetricsRequest { job_id, interval_ms, after_epoch } = request.into_inner();
        self.board.fresh().await.job_if_any(&job_id).map_err(refused)?;
        let interval = match interval_ms {
            0 => DEFAULT_INTERVAL,
            ms => Duration::from_millis(ms.into()).max(SHORTEST_INTERVAL),
        };
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        let board = self.board.clone();
        let mut metrics = MetricsPages::new(self.files.clone(), job_id, after_epoch);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(interval);
            // Ends when the driver ends or the watcher leaves.
            while !board.is_over() {
                ticks.tick().await;
                let snapshot = board.fresh().await;
                let next = metrics.next(&snapshot).await;
                let failed = next.is_err();
                let message = next.map(|metrics| v1::WatchMetricsResponse { metrics: Some(metrics) });
                if sender.send(message.map_err(refused)).await.is_err() || failed {
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
        let newest_done = snapshot.jobs.iter().find(|listed| listed.is_done()).filter(|_| id.is_empty());
        let listed = newest_done.map_or_else(|| snapshot.job(&id), Ok).map_err(refused)?;
        if !listed.is_done() {
            let what = format!("job {} is not done", listed.job.id);
            return Err(refused(Failure::new(FailureKind::Data, what)));
        }
        let parts = self.files.model(listed.run_dir.clone()).await.map_err(refused)?;
        let messages = parts.map(|part| part.map(|data| v1::GetModelResponse { data }).map_err(refused));
        Ok(Response::new(messages.boxed()))
    }
}

fn refused(failure: Failure) -> Status {
    convert::refusal(&failure)
}

/// A caller that watches a job.
struct Watch {
    board: Reader,
    files: Files,
    id: String,
    pages: Pages,
    sender: mpsc::Sender<Result<v1::WatchJobResponse, Status>>,
}

impl Watch {
    /// Sends the job's state at once and after every change, until the job ends.
    async fn run(mut self) {
        let _look = self.board.look();
        let mut snapshot = self.board.fresh().await;
        loop {
            let listed = match snapshot.job(&self.id) {
                Ok(listed) => Arc::clone(listed),
                // It has ended, and was forgotten since.
                Err(failure) => {
                    let _ = self.sender.send(Err(refused(failure))).await;
                    return;
                }
            };
            if !self.send(&listed).await || listed.has_ended() {
                return;
            }
            let Some(next) = self.board.next().await else { return };
            snapshot = next;
        }
    }

    /// Sends the job's state with the epochs that the caller does not know, in several messages if there are many.
    /// Returns whether to go on.
    async fn send(&mut self, listed: &Listed) -> bool {
        loop {
            let rows = match self.files.rows(&mut self.pages, listed.epochs).await {
                // The job knows better why: it notices by itself that its files are gone, or has failed already.
                Err(_) if !listed.is_done() => return self.report(listed, Vec::new(), true).await,
                Err(failure) => {
                    let _ = self.sender.send(Err(refused(failure))).await;
                    return false;
                }
                Ok(rows) => rows,
            };
            let last = self.pages.epoch() >= listed.epochs;
            let sent = self.report(listed, rows, last).await;
            if !sent || last {
                return sent;
            }
        }
    }

    async fn report(&self, listed: &Listed, rows: Vec<EpochRow>, last: bool) -> bool {
        self.sender.send(Ok((&listed.report(rows, last)).into())).await.is_ok()
    }
}

/// A caller's place in the history of the job whose metrics it reads.
struct MetricsPages {
    files: Files,
    /// Empty for the newest job.
    job_id: String,
    after_epoch: u32,
    /// The job that was read last.
    pages: Option<(String, Pages)>,
}

impl MetricsPages {
    fn new(files: Files, job_id: String, after_epoch: u32) -> Self {
        Self { files, job_id, after_epoch, pages: None }
    }

    /// The metrics with the next page of the history.
    async fn next(&mut self, snapshot: &Snapshot) -> Result<v1::GetMetricsResponse, Failure> {
        let Some(listed) = snapshot.job_if_any(&self.job_id)? else {
            return Ok(convert::metrics_page(&snapshot.metrics(None, Vec::new()), 0));
        };
        let id = &listed.job.id;
        let mut pages = match self.pages.take() {
            Some((read, pages)) if read == *id => pages,
            // Another job has become the newest.
            Some(_) => listed.pages(0),
            None => listed.pages(self.after_epoch.into()),
        };
        let rows = match self.files.rows(&mut pages, listed.epochs).await {
            // The job's other figures, and the cluster's, are known without its directory.
            Err(failure) if listed.has_ended() => {
                debug!("the history of job {id} is not shown: {failure}");
                Vec::new()
            }
            rows => rows?,
        };
        self.pages = Some((id.clone(), pages));
        Ok(convert::metrics_page(&snapshot.metrics(Some(listed), rows), listed.epochs))
    }
}
