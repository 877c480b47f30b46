//! The gRPC services: the only part of a cluster that uses the protobuf types.
//!
//! Handlers decode requests into plain values, send them to the driver or read its board, and encode the reply.
//! [`cluster`] is for people and their programs, [`worker`] for workers.

mod cluster;
mod files;
mod services;
mod worker;

use millefeuille_proto::v1::cluster_server::ClusterServer;
use millefeuille_proto::v1::worker_server::WorkerServer;
use millefeuille_proto::{DESCRIPTORS, wire};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub(super) use self::services::Services;
use crate::admission::{Admission, MeterLayer};

/// Serves until shut down.
///
/// # Errors
/// If the server fails.
pub(super) async fn serve(
    listener: TcpListener,
    admission: Admission,
    services: Services,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ClusterServer<cluster::ClusterService>>().await;
    health.set_serving::<WorkerServer<worker::WorkerService>>().await;
    let reflect = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let cluster = cluster::ClusterService::new(&services);
    let worker = worker::WorkerService::new(services);
    wire::server()
        .layer(MeterLayer)
        .layer(admission.roles())
        .add_service(health_service)
        .add_service(reflect().build_v1()?)
        .add_service(reflect().build_v1alpha()?)
        .add_service(ClusterServer::new(cluster).max_decoding_message_size(wire::REQUEST_BYTES))
        .add_service(WorkerServer::new(worker).max_decoding_message_size(wire::REQUEST_BYTES))
        .serve_with_incoming_shutdown(admission.accept(listener), async move {
            _ = stopped.wait_for(|&stopped| stopped).await
        })
        .await?;
    Ok(())
}
