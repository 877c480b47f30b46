//! References between manifests resolve: selectors, ports, accounts, volumes, job files.

use k8s_openapi::api::core::v1::{ConfigMap, ServicePort, Volume};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use millefeuille_core::job::Job;

use super::super::selector::picks;
use super::super::workload::Workload;
use super::super::{Manifests, name};
use super::{All, Started};

/// Secrets that the user may create, so that no manifest creates them.
const BROUGHT: [&str; 3] = ["coordinator-tls", "operator-tls", "worker-tls"];

pub(super) fn problems(all: &All) -> Vec<String> {
    let mut problems = namespaces(all.manifests);
    problems.extend(all.workloads.iter().flat_map(|workload| of_workload(all, workload)));
    problems.extend(all.services.iter().flat_map(|service| of_service(all, service)));
    problems.extend(pickers(all));
    problems.extend(all.containers().flat_map(|started| of_container(&started)));
    problems.extend(job_files(all.manifests));
    problems.extend(runtimes(all.manifests));
    problems
}

/// All objects are in one namespace, which the manifests create.
fn namespaces(manifests: &Manifests) -> Vec<String> {
    let own: Vec<_> = manifests.of_kind("Namespace").map(name).collect();
    let elsewhere = |document: &&serde_json::Value| {
        document["kind"] != "Namespace" && !own.iter().any(|own| document["metadata"]["namespace"] == *own)
    };
    let elsewhere = manifests.documents.iter().filter(elsewhere);
    elsewhere
        .map(|document| format!("{} {} is in no namespace made here", document["kind"], name(document)))
        .collect()
}

fn of_workload(all: &All, workload: &Workload) -> Vec<String> {
    let mut problems = Vec::new();
    let mut wrong = |what: String| problems.push(format!("{}: {what}", workload.name));
    if workload.selector.as_ref().is_some_and(|selector| !picks(selector, &workload.labels)) {
        wrong("its selector does not pick its own pods".into());
    }
    if let Some(service) = &workload.service {
        let headless = |service: &&k8s_openapi::api::core::v1::Service| {
            service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
        };
        let found = all.services.iter().find(|found| found.metadata.name.as_ref() == Some(service));
        if !found.as_ref().is_some_and(headless) {
            wrong(format!("serviceName {service} is no headless Service"));
        }
    }
    match workload.pod.service_account_name.as_deref() {
        Some(account) if all.manifests.has("ServiceAccount", account) => {}
        account => wrong(format!("there is no ServiceAccount {}", account.unwrap_or("named"))),
    }
    for spread in workload.pod.topology_spread_constraints.iter().flatten() {
        if !picks(&spread.label_selector.clone().unwrap_or_default(), &workload.labels) {
            wrong("its topologySpreadConstraints do not count its own pods".into());
        }
    }
    for selector in avoided(workload) {
        if !all.workloads.iter().any(|other| picks(&selector, &other.labels)) {
            wrong("its podAntiAffinity avoids no pod that there is".into());
        }
    }
    for volume in workload.pod.volumes.iter().flatten() {
        if let Err(missing) = made(all, volume) {
            wrong(missing);
        }
        let used = workload.containers().flat_map(|container| container.volume_mounts.iter().flatten());
        if !used.into_iter().any(|mount| mount.name == volume.name) {
            wrong(format!("volume {} is mounted nowhere", volume.name));
        }
    }
    problems
}

/// Pod anti-affinity selects existing pods.
fn avoided(workload: &Workload) -> Vec<LabelSelector> {
    let affinity = workload.pod.affinity.as_ref().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let preferred = affinity
        .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.clone())
        .unwrap_or_default();
    preferred.into_iter().filter_map(|term| term.pod_affinity_term.label_selector).collect()
}

/// Whether a manifest creates a volume's source.
fn made(all: &All, volume: &Volume) -> Result<(), String> {
    let there = |kind: &str, wanted: &str| {
        let found = all.manifests.has(kind, wanted);
        found.then_some(()).ok_or_else(|| format!("there is no {kind} {wanted} for volume {}", volume.name))
    };
    if let Some(config) = &volume.config_map {
        return there("ConfigMap", &config.name);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return there("PersistentVolumeClaim", &claim.claim_name);
    }
    let secret = volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref());
    let secret =
        secret.ok_or_else(|| format!("volume {} is of a kind that is not used here", volume.name))?;
    let mut certificates = all.manifests.of_kind("Certificate").peekable();
    let made = certificates.peek().is_none() && BROUGHT.contains(&secret)
        || certificates.any(|certificate| certificate["spec"]["secretName"] == secret);
    made.then_some(())
        .ok_or_else(|| format!("no Certificate makes the secret {secret} of volume {}", volume.name))
}

fn of_service(all: &All, service: &k8s_openapi::api::core::v1::Service) -> Vec<String> {
    let name = service.metadata.name.clone().unwrap_or_default();
    let pods = all.behind(service);
    if pods.is_empty() {
        return vec![format!("Service {name}: its selector picks no pods")];
    }
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let unserved = |port: &ServicePort| pods.iter().any(|pods| target(port, pods).is_none());
    ports
        .filter(|port| unserved(port))
        .map(|port| format!("Service {name}: nobody has its port {}", port.port))
        .collect()
}

/// The number of the container port of a Service's port.
pub(super) fn target(port: &ServicePort, pods: &Workload) -> Option<i32> {
    match port.target_port.clone().unwrap_or(IntOrString::Int(port.port)) {
        IntOrString::String(name) => pods.port(&name),
        IntOrString::Int(number) => {
            let mut ports = pods.pod.containers.iter().flat_map(|container| container.ports.iter().flatten());
            ports.any(|port| port.container_port == number).then_some(number)
        }
    }
}

/// Budgets and policies select existing pods.
fn pickers(all: &All) -> Vec<String> {
    let budgets = all.manifests.typed::<PodDisruptionBudget>("PodDisruptionBudget").into_iter();
    let budgets = budgets.map(|budget| {
        let selector = budget.spec.and_then(|spec| spec.selector).unwrap_or_default();
        (format!("PodDisruptionBudget {}", budget.metadata.name.unwrap_or_default()), selector)
    });
    let policies = all.manifests.typed::<NetworkPolicy>("NetworkPolicy").into_iter();
    let policies = policies.map(|policy| {
        let selector = policy.spec.and_then(|spec| spec.pod_selector).unwrap_or_default();
        (format!("NetworkPolicy {}", policy.metadata.name.unwrap_or_default()), selector)
    });
    let idle = |(_, selector): &(String, LabelSelector)| {
        !all.workloads.iter().any(|workload| picks(selector, &workload.labels))
    };
    budgets
        .chain(policies)
        .filter(idle)
        .map(|(name, _)| format!("{name}: its selector picks no pods"))
        .collect()
}

/// Mounts have existing volumes, and paths on the command line are under mounts and have the right type.
fn of_container(started: &Started) -> Vec<String> {
    let mut problems = Vec::new();
    for mount in started.mounts() {
        if started.volume(&mount.name).is_none() && !started.workload.claims.contains(&mount.name) {
            problems.push(format!("{}: there is no volume {} to mount", started.name(), mount.name));
        }
    }
    problems
}

/// Job files are valid.
fn job_files(manifests: &Manifests) -> Vec<String> {
    let maps = manifests.typed::<ConfigMap>("ConfigMap").into_iter();
    let files = maps.flat_map(|map| map.data.unwrap_or_default());
    let jobs = files.filter(|(file, _)| file.ends_with(".toml"));
    jobs.filter_map(|(file, text)| Job::parse(&file, &text).err()).map(|error| error.to_string()).collect()
}

/// A TrainJob names an existing runtime.
fn runtimes(manifests: &Manifests) -> Vec<String> {
    let missing = manifests.of_kind("TrainJob").filter(|job| {
        let wanted = &job["spec"]["runtimeRef"];
        let (kind, name) = (wanted["kind"].as_str(), wanted["name"].as_str());
        !manifests.has(kind.unwrap_or_default(), name.unwrap_or_default())
    });
    missing.map(|job| format!("TrainJob {}: there is no runtime for it", name(job))).collect()
}
