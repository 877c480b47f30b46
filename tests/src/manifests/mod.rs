//! The Kubernetes manifests, rendered, typed and checked against the programs.
//!
//! A schema checks whether a field exists. These checks find whether a selector matches a pod, a process listens on
//! a port, a document creates a secret, a command line is valid, and a policy allows the connections of each
//! component.
//!
//! - [`Manifests`]: the output of `kubectl kustomize`.
//! - [`workload`]: its pods, of whatever kind of workload.
//! - [`selector`] and [`network`]: selectors and network policies, evaluated as Kubernetes does.
//! - [`command_line`]: command lines, parsed by the programs' own parsers.
//! - [`check`]: the checks. Each problem is one line.
//!
//! There is no API server: admission, quotas and the existence of a storage class are not checked.

pub mod check;
pub mod command_line;
pub mod network;
pub mod selector;
pub mod workload;

use std::process::Command;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ci;
use crate::home::project;

/// Documents that are applied together.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// The kustomizations that they come from.
    pub name: String,
    /// The documents, in the order of the rendering.
    pub documents: Vec<Value>,
}

impl Manifests {
    /// Renders kustomizations below `deploy/kubernetes`, and joins their documents.
    ///
    /// # Panics
    /// If one does not render, or is not YAML.
    pub fn render(kustomizations: &[&str]) -> Self {
        let documents = kustomizations.iter().flat_map(|name| parse(&kustomize(name))).collect();
        Self { name: kustomizations.join(" and "), documents }
    }

    /// The documents of a kind, such as `Service`.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.documents.iter().filter(move |document| document["kind"] == kind)
    }

    /// The documents of a kind, typed.
    ///
    /// # Panics
    /// If one does not have the type of its kind; schemas have been checked before.
    pub fn typed<T: DeserializeOwned>(&self, kind: &str) -> Vec<T> {
        self.of_kind(kind).map(typed).collect()
    }

    /// Whether there is a document of this kind and name.
    pub fn has(&self, kind: &str, name: &str) -> bool {
        self.of_kind(kind).any(|document| self::name(document) == name)
    }

    /// The document of this kind and name, to be changed.
    ///
    /// # Panics
    /// If there is none.
    pub fn document(&mut self, kind: &str, name: &str) -> &mut Value {
        let found = self
            .documents
            .iter_mut()
            .find(|document| document["kind"] == kind && self::name(document) == name);
        found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }
}

/// The name of a document.
pub fn name(document: &Value) -> &str {
    document["metadata"]["name"].as_str().unwrap_or_default()
}

/// A part of a document, typed.
///
/// # Panics
/// If it does not have this type.
pub fn typed<T: DeserializeOwned>(part: &Value) -> T {
    serde_json::from_value(part.clone()).unwrap_or_else(|error| panic!("{error} in {part:#}"))
}

/// Whether manifests can be rendered on this machine.
///
/// # Panics
/// If they can't, and `CI=true`.
pub fn can_render() -> bool {
    let version = Command::new("kubectl").args(["version", "--client", "--output=json"]).output();
    let version: Option<Value> = version.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
    let kustomize =
        version.as_ref().and_then(|version| version["kustomizeVersion"].as_str()).unwrap_or("none");
    let major =
        kustomize.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    let found = major.is_some_and(|major| major >= 5);
    if !found {
        ci::skip(&format!("kubectl with kustomize 5 is needed to render the manifests (here: {kustomize})"));
    }
    found
}

fn kustomize(name: &str) -> String {
    let directory = project().join("deploy/kubernetes").join(name);
    let output = Command::new("kubectl").arg("kustomize").arg(&directory).output().expect("kubectl is there");
    assert!(output.status.success(), "{}: {}", directory.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("kubectl writes UTF-8")
}

fn parse(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("what kubectl rendered: {error}"))
}
