//! The pods in manifests, whatever they are wrapped in.

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::selector::Labels;
use super::{Manifests, name, typed};

/// Pods of one kind.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What they are called in a report: kind and name.
    pub name: String,
    /// Their namespace.
    pub namespace: String,
    /// How many there are.
    pub replicas: i32,
    /// The labels of each.
    pub labels: Labels,
    /// What each is.
    pub pod: PodSpec,
    /// By what their owner knows them; owners such as Jobs choose their own.
    pub selector: Option<LabelSelector>,
    /// The volumes that are made for each, by name.
    pub claims: Vec<String>,
    /// The headless Service that names them.
    pub service: Option<String>,
}

impl Workload {
    /// All of these manifests.
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

    /// All its containers, those that come first first.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.pod.init_containers.iter().flatten().chain(&self.pod.containers)
    }

    /// The container that does the work.
    ///
    /// # Panics
    /// If there are several.
    pub fn main(&self) -> &Container {
        let [main] = &self.pod.containers[..] else { panic!("{}: more than one container", self.name) };
        main
    }

    /// The number of a port that a container of it names.
    pub fn port(&self, port: &str) -> Option<i32> {
        let mut ports = self.pod.containers.iter().flat_map(|container| container.ports.iter().flatten());
        ports.find(|named| named.name.as_deref() == Some(port)).map(|named| named.container_port)
    }
}

/// A number that is 1 where it is not said.
fn number(value: &Value) -> i32 {
    value.as_i64().and_then(|number| number.try_into().ok()).unwrap_or(1)
}
