//! The pods of all kinds of workloads.

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::selector::Labels;
use super::{Manifests, name, typed};

/// Pods of one kind.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Their kind and name, for reports.
    pub name: String,
    /// Their namespace.
    pub namespace: String,
    /// The number of pods.
    pub replicas: i32,
    /// The labels of each.
    pub labels: Labels,
    /// Each pod's spec.
    pub pod: PodSpec,
    /// The owner's selector; none for owners such as Jobs, which choose their own.
    pub selector: Option<LabelSelector>,
    /// The volumes that are created for each pod, by name.
    pub claims: Vec<String>,
    /// The headless Service that names them.
    pub service: Option<String>,
}

impl Workload {
    /// All workloads of these manifests.
    pub fn all(manifests: &Manifests) -> Vec<Self> {
        manifests.documents.iter().flat_map(Self::within).collect()
    }

    fn within(document: &Value) -> Vec<Self> {
        match document["kind"].as_str().unwrap_or_default() {
            "StatefulSet" | "Deployment" | "Job" => vec![Self::one(document)],
            "JobSet" => Self::replicated(document, &document["spec"]),
            "TrainingRuntime" => Self::replicated(document, &document["spec"]["template"]["spec"]),
            _ => Vec::new(),
        }
    }

    fn one(document: &Value) -> Self {
        let spec = &document["spec"];
        let selector = &spec["selector"];
        let claims = spec["volumeClaimTemplates"].as_array();
        Self {
            selector: (!selector.is_null()).then(|| typed(selector)),
            claims: claims.into_iter().flatten().map(|claim| name(claim).to_string()).collect(),
            service: spec["serviceName"].as_str().map(str::to_owned),
            replicas: number(&spec["replicas"]),
            ..Self::new(document, name(document), &spec["template"])
        }
    }

    fn replicated(document: &Value, jobset: &Value) -> Vec<Self> {
        let jobs = jobset["replicatedJobs"].as_array().into_iter().flatten();
        let one = |job: &Value| {
            let spec = &job["template"]["spec"];
            let name = format!("{} {}", name(document), job["name"].as_str().unwrap_or_default());
            let replicas = number(&job["replicas"]) * number(&spec["parallelism"]);
            Self { replicas, ..Self::new(document, &name, &spec["template"]) }
        };
        jobs.map(one).collect()
    }

    fn new(document: &Value, name: &str, template: &Value) -> Self {
        let PodTemplateSpec { metadata, spec } = typed(template);
        Self {
            name: format!("{} {name}", document["kind"].as_str().unwrap_or_default()),
            namespace: document["metadata"]["namespace"].as_str().unwrap_or_default().to_string(),
            replicas: 1,
            labels: metadata.and_then(|metadata| metadata.labels).unwrap_or_default(),
            pod: spec.unwrap_or_default(),
            selector: None,
            claims: Vec::new(),
            service: None,
        }
    }

    /// All its containers, init containers first.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.pod.init_containers.iter().flatten().chain(&self.pod.containers)
    }

    /// The main container.
    ///
    /// # Panics
    /// If there are several.
    pub fn main(&self) -> &Container {
        let [main] = &self.pod.containers[..] else { panic!("{}: more than one container", self.name) };
        main
    }

    /// The number of a named port of its containers.
    pub fn port(&self, port: &str) -> Option<i32> {
        let mut ports = self.pod.containers.iter().flat_map(|container| container.ports.iter().flatten());
        ports.find(|named| named.name.as_deref() == Some(port)).map(|named| named.container_port)
    }
}

/// A number whose default is 1.
fn number(value: &Value) -> i32 {
    value.as_i64().and_then(|number| number.try_into().ok()).unwrap_or(1)
}
