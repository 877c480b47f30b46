//! A scripted service `Cluster`, for the real commands.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millefeuille_proto::v1::cluster_server::{Cluster, ClusterServer};
use millefeuille_proto::{v1, wire};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A cluster that replies to submissions and watchers with the given replies, in order.
#[derive(Debug)]
pub struct RawCluster {
    /// Its address.
    pub address: String,
    played: Arc<Played>,
    // Its tasks end when it is dropped.
    _runtime: Runtime,
}

#[derive(Debug, Default)]
struct Played {
    submissions: Mutex<VecDeque<Result<String, Status>>>,
    keys: Mutex<Vec<String>>,
    streams: Mutex<VecDeque<Vec<v1::WatchJobResponse>>>,
}

impl Default for RawCluster {
    fn default() -> Self {
        Self::new()
    }
}

impl RawCluster {
    /// Starts it on a free port.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        let played = Arc::new(Played::default());
        let (health, health_service) = tonic_health::server::health_reporter();
        runtime.block_on(health.set_serving::<ClusterServer<Service>>());
        let cluster = ClusterServer::new(Service(Arc::clone(&played)));
        let server = wire::server().add_service(health_service).add_service(cluster);
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, played, _runtime: runtime }
    }

    /// The reply to the next submission.
    pub fn submission(&self, answer: Result<&str, Status>) {
        lock(&self.played.submissions).push_back(answer.map(str::to_string));
    }

    /// The messages to the next watcher, whose stream is then closed.
    pub fn stream(&self, messages: Vec<v1::WatchJobResponse>) {
        lock(&self.played.streams).push_back(messages);
    }

    /// The keys of the received submissions.
    pub fn keys(&self) -> Vec<String> {
        lock(&self.played.keys).clone()
    }
}

/// A message about a job: these epochs have ended.
pub fn epochs_ended(epochs: impl IntoIterator<Item = u32>) -> v1::WatchJobResponse {
    let row = |epoch| v1::Epoch { epoch, loss: 1.0 / f64::from(epoch), seconds: 1.0, ..v1::Epoch::default() };
    v1::WatchJobResponse {
        job: Some(v1::Job { id: "raw-1".into(), epochs: 3, steps_per_epoch: 10, ..v1::Job::default() }),
        new_epochs: epochs.into_iter().map(row).collect(),
        ..v1::WatchJobResponse::default()
    }
}

/// The last message about a job: these epochs have ended, and it is done.
pub fn done(epochs: impl IntoIterator<Item = u32>) -> v1::WatchJobResponse {
    let outcome = v1::Outcome { weights_sha256: "0123".into(), ..v1::Outcome::default() };
    v1::WatchJobResponse { outcome: Some(outcome), ..epochs_ended(epochs) }
}

struct Service(Arc<Played>);

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Cluster for Service {
    type WatchJobStream = ResponseStream<v1::WatchJobResponse>;
    type WatchMetricsStream = ResponseStream<v1::WatchMetricsResponse>;
    type GetModelStream = ResponseStream<v1::GetModelResponse>;

    async fn submit_job(
        &self,
        request: Request<v1::SubmitJobRequest>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        lock(&self.0.keys).push(request.into_inner().client_key);
        let answer = lock(&self.0.submissions).pop_front();
        let answer = answer.unwrap_or_else(|| Err(Status::failed_precondition("it takes no more jobs")));
        answer.map(|job_id| Response::new(v1::SubmitJobResponse { job_id }))
    }

    async fn watch_job(
        &self,
        _: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let messages = lock(&self.0.streams).pop_front();
        let messages = messages.ok_or_else(|| Status::not_found("there is no such job"))?;
        Ok(Response::new(Box::pin(tokio_stream::iter(messages.into_iter().map(Ok)))))
    }

    async fn list_jobs(
        &self,
        _: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        unplayed()
    }

    async fn cancel_job(
        &self,
        _: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        unplayed()
    }

    async fn list_workers(
        &self,
        _: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        unplayed()
    }

    async fn get_metrics(
        &self,
        _: Request<v1::GetMetricsRequest>,
    ) -> Result<Response<v1::GetMetricsResponse>, Status> {
        unplayed()
    }

    async fn watch_metrics(
        &self,
        _: Request<v1::WatchMetricsRequest>,
    ) -> Result<Response<Self::WatchMetricsStream>, Status> {
        unplayed()
    }

    async fn get_model(
        &self,
        _: Request<v1::GetModelRequest>,
    ) -> Result<Response<Self::GetModelStream>, Status> {
        unplayed()
    }
}

fn unplayed<T>() -> Result<T, Status> {
    Err(Status::unimplemented("no test plays this"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
