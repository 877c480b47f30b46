//! gRPC clients: a normal client, and a worker that may be faulty.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millefeuille_proto::tls::Dialer;
use millefeuille_proto::v1;
use millefeuille_proto::v1::cluster_client::ClusterClient;
use millefeuille_proto::v1::session_request::Message as Up;
use millefeuille_proto::v1::session_response::Message as Down;
use millefeuille_proto::v1::worker_client::WorkerClient;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::patience::answer_of;

/// A client of a coordinator's services, with blocking calls.
#[derive(Clone, Debug)]
pub struct Client {
    runtime: Arc<Runtime>,
    channel: Channel,
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// If the connection fails.
    pub fn connect(address: &str) -> Self {
        Self::connect_with(address, None)
    }

    /// Connects, with the certificate in a directory if one is named.
    ///
    /// # Panics
    /// If the connection or TLS fails.
    pub fn connect_with(address: &str, tls: Option<PathBuf>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = Arc::new(runtime.expect("a runtime can be made"));
        let dialer = Dialer::new(tls);
        let endpoint = dialer.endpoint(address).expect("an address");
        let channel = wait(&runtime, dialer.connect(endpoint));
        let channel = channel.unwrap_or_else(|error| panic!("{address}: {error}"));
        Self { runtime, channel }
    }

    /// The connection, for clients of other services.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Waits for a reply.
    ///
    /// # Panics
    /// If the wait fails.
    pub fn wait<T>(&self, answer: impl Future<Output = T>) -> T {
        wait(&self.runtime, answer)
    }

    /// Calls the service `Cluster`.
    ///
    /// # Errors
    /// The coordinator's status.
    pub fn call<T>(
        &self,
        call: impl AsyncFnOnce(&mut ClusterClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let mut client = ClusterClient::new(self.channel.clone());
        self.wait(call(&mut client)).map(Response::into_inner)
    }

    /// Submits a job. Returns its id.
    ///
    /// # Errors
    /// The coordinator's status.
    pub fn submit(&self, job_toml: &str, client_key: &str) -> Result<String, Status> {
        let request = v1::SubmitJobRequest { job_toml: job_toml.into(), client_key: client_key.into() };
        self.call(async |cluster| cluster.submit_job(request).await).map(|submitted| submitted.job_id)
    }

    /// All jobs, newest first.
    ///
    /// # Panics
    /// If the call fails.
    pub fn jobs(&self) -> Vec<v1::Job> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListJobsRequest { page_size: 500, page_token };
            let page = self.call(async |cluster| cluster.list_jobs(request).await).expect("jobs are listed");
            all.extend(page.jobs);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }

    /// The state of the job of this id, in the words of `coordinator jobs --json`; empty if there is none.
    pub fn job_state(&self, id: &str) -> String {
        let job = self.jobs().into_iter().find(|job| job.id == id);
        let name = job.map_or("", |job| job.state().as_str_name());
        name.trim_start_matches("JOB_STATE_").to_lowercase()
    }

    /// All workers.
    ///
    /// # Panics
    /// If the call fails.
    pub fn workers(&self) -> Vec<v1::WorkerInfo> {
        let workers = self.call(async |cluster| cluster.list_workers(v1::ListWorkersRequest {}).await);
        workers.expect("workers are listed").workers
    }

    /// A job's metrics, with the first page of its history; those of the newest, if the id is empty.
    ///
    /// # Errors
    /// The coordinator's status.
    pub fn metrics(&self, job_id: &str) -> Result<v1::GetMetricsResponse, Status> {
        let request = v1::GetMetricsRequest { job_id: job_id.into(), after_epoch: 0 };
        self.call(async |cluster| cluster.get_metrics(request).await)
    }

    /// Cancels a job; the one that runs, if the id is empty.
    ///
    /// # Errors
    /// The coordinator's status.
    pub fn cancel(&self, job_id: &str) -> Result<v1::Job, Status> {
        let request = v1::CancelJobRequest { job_id: job_id.into() };
        let cancelled = self.call(async |cluster| cluster.cancel_job(request).await)?;
        Ok(cancelled.job.unwrap_or_default())
    }

    /// Follows a job to its end. Returns every message.
    ///
    /// # Panics
    /// If the stream breaks.
    pub fn watch_job(&self, job_id: &str) -> Vec<v1::WatchJobResponse> {
        let request = v1::WatchJobRequest { job_id: job_id.into(), after_epoch: 0 };
        let stream = self.call(async |cluster| cluster.watch_job(request).await);
        self.rest(stream.expect("jobs can be followed")).expect("the stream ends well")
    }

    /// The remaining messages of a stream.
    ///
    /// # Errors
    /// The coordinator's status at its end.
    pub fn rest<T>(&self, mut stream: Streaming<T>) -> Result<Vec<T>, Status> {
        self.wait(async {
            let mut messages = Vec::new();
            while let Some(message) = stream.message().await? {
                messages.push(message);
            }
            Ok(messages)
        })
    }

    /// The next message of a stream.
    ///
    /// # Errors
    /// The coordinator's status at its end.
    pub fn next<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
        self.wait(stream.message())
    }

    /// The trained model of a job, as a file's bytes.
    ///
    /// # Errors
    /// The coordinator's status.
    pub fn model(&self, job_id: &str) -> Result<Vec<u8>, Status> {
        let request = v1::GetModelRequest { job_id: job_id.into() };
        let stream = self.call(async |cluster| cluster.get_model(request).await)?;
        Ok(self.rest(stream)?.into_iter().flat_map(|part| part.data).collect())
    }

    /// Opens a worker's session, with this as its first message.
    ///
    /// # Errors
    /// The coordinator's status.
    pub fn session(&self, first: Up) -> Result<RawWorker, Status> {
        let (sender, receiver) = mpsc::channel(64);
        let messages = RawWorker { client: self.clone(), sender, responses: None };
        messages.send(first);
        let mut worker = WorkerClient::new(self.channel.clone());
        let responses = self.wait(worker.session(ReceiverStream::new(receiver)))?.into_inner();
        Ok(RawWorker { responses: Some(responses), ..messages })
    }

    /// The same, with a hello.
    ///
    /// # Errors
    /// The coordinator's status.
    pub fn hello(&self, hello: v1::Hello) -> Result<RawWorker, Status> {
        self.session(Up::Hello(hello))
    }

    /// Sends a worker's heartbeat.
    ///
    /// # Errors
    /// If there is no such worker.
    pub fn heartbeat(&self, worker_id: u64, incarnation: u64) -> Result<(), Status> {
        let mut worker = WorkerClient::new(self.channel.clone());
        self.wait(worker.heartbeat(v1::HeartbeatRequest { worker_id, incarnation })).map(|_| ())
    }
}

fn wait<T>(runtime: &Runtime, answer: impl Future<Output = T>) -> T {
    runtime.block_on(answer_of("a coordinator answers", answer))
}

/// A scripted worker.
#[derive(Debug)]
pub struct RawWorker {
    client: Client,
    sender: mpsc::Sender<v1::SessionRequest>,
    responses: Option<Streaming<v1::SessionResponse>>,
}

impl RawWorker {
    /// Sends a message. After the end of the session it is dropped.
    pub fn send(&self, message: Up) {
        let _ = self.sender.blocking_send(v1::SessionRequest { message: Some(message) });
    }

    /// Sends a message of an unknown kind.
    pub fn send_nothing(&self) {
        let _ = self.sender.blocking_send(v1::SessionRequest { message: None });
    }

    /// Sends a run of chunks.
    pub fn send_bulk(&self, mut bytes: usize) {
        while bytes > 0 {
            let data = vec![0; bytes.min(millefeuille_proto::wire::CHUNK_BYTES)];
            bytes -= data.len();
            self.send(Up::Chunk(v1::Chunk { data: data.into() }));
        }
    }

    /// The next message; none once the session is over.
    ///
    /// # Errors
    /// The coordinator's status at the end of the session.
    pub fn receive(&mut self) -> Result<Option<Down>, Status> {
        let Self { client, responses, .. } = self;
        let Some(responses) = responses else { return Ok(None) };
        Ok(client.next(responses)?.and_then(|response| response.message))
    }

    /// Reads messages until `find` returns a value.
    ///
    /// # Panics
    /// If the session ends first.
    pub fn hears<T>(&mut self, what: &str, wanted: impl Fn(&Down) -> Option<T>) -> T {
        loop {
            let message = self.receive().unwrap_or_else(|status| panic!("no {what} but {status}"));
            let message = message.unwrap_or_else(|| panic!("no {what} before the session's end"));
            if let Some(found) = wanted(&message) {
                return found;
            }
        }
    }

    /// Receives the welcome.
    ///
    /// # Panics
    /// If it receives none.
    pub fn welcome(&mut self) -> v1::Welcome {
        self.hears("welcome", |message| match message {
            Down::Welcome(welcome) => Some(*welcome),
            _ => None,
        })
    }

    /// The status at the end of the session; none if the coordinator closes it without one.
    pub fn end(mut self) -> Option<Status> {
        loop {
            match self.receive() {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    }
}

/// A new instance id.
fn another_instance() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{:032x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A hello like that of this worker, but of another process.
pub fn hello_like(worker: &v1::WorkerInfo) -> v1::Hello {
    v1::Hello {
        protocol_version: millefeuille_proto::PROTOCOL_VERSION,
        build: "test".into(),
        instance_id: another_instance(),
        name: "test:1".into(),
        slots: 1,
        arithmetic: Some(v1::Arithmetic {
            kernel: worker.kernel.clone(),
            version: worker.blas_version.clone(),
            fingerprint: worker.fingerprint.clone(),
        }),
        shared_memory: 0,
        cpu: "test".into(),
        token: String::new(),
        cache_bytes: 1 << 30,
        started_for: worker.kernel.clone(),
    }
}
