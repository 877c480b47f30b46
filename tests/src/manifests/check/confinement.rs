//! No tokens, no capabilities, limited resources: the standard "restricted", and a read-only root file system.

use k8s_openapi::api::core::v1::{Container, ServiceAccount};

use super::super::workload::Workload;
use super::All;

pub(super) fn problems(all: &All) -> Vec<String> {
    let mut problems = accounts(all);
    for workload in &all.workloads {
        problems.extend(of_pod(workload).into_iter().map(|problem| format!("{}: {problem}", workload.name)));
        for container in workload.containers() {
            let named = |problem| format!("{}: container {}: {problem}", workload.name, container.name);
            problems.extend(of_container(container).into_iter().map(named));
        }
    }
    problems
}

fn accounts(all: &All) -> Vec<String> {
    let accounts = all.manifests.typed::<ServiceAccount>("ServiceAccount").into_iter();
    let with_token = accounts.filter(|account| account.automount_service_account_token != Some(false));
    with_token
        .map(|account| {
            format!("ServiceAccount {}: it gives a token", account.metadata.name.unwrap_or_default())
        })
        .collect()
}

/// The messages of the conditions that do not hold.
fn failed<const N: usize>(conditions: [(bool, &'static str); N]) -> Vec<&'static str> {
    conditions.into_iter().filter(|(holds, _)| !holds).map(|(_, problem)| problem).collect()
}

fn of_pod(workload: &Workload) -> Vec<&'static str> {
    let pod = &workload.pod;
    let security = pod.security_context.clone().unwrap_or_default();
    let seccomp = security.seccomp_profile.is_some_and(|profile| profile.type_ == "RuntimeDefault");
    let host = [pod.host_network, pod.host_pid, pod.host_ipc];
    failed([
        (pod.automount_service_account_token == Some(false), "it gets a token of the API server"),
        (pod.enable_service_links == Some(false), "it gets variables of every Service"),
        (security.run_as_non_root == Some(true), "it may run as root"),
        (security.run_as_user == Some(65532), "it runs as another user than the image's"),
        (security.run_as_group == Some(65532), "it runs as another group than the image's"),
        (security.fs_group == Some(65532), "its volumes belong to another group"),
        (seccomp, "it may make any system call"),
        (host.iter().all(|host| *host != Some(true)), "it is in a namespace of its node"),
        (pod.termination_grace_period_seconds.is_some(), "how long it may take to end is left to chance"),
    ])
}

fn of_container(container: &Container) -> Vec<&'static str> {
    let security = container.security_context.clone().unwrap_or_default();
    let dropped = security.capabilities.as_ref().and_then(|capabilities| capabilities.drop.clone());
    let added = security.capabilities.and_then(|capabilities| capabilities.add);
    let resources = container.resources.clone().unwrap_or_default();
    let has = |amounts: &Option<std::collections::BTreeMap<_, _>>, what: &str| {
        amounts.as_ref().is_some_and(|amounts| amounts.contains_key(what))
    };
    let memory = |amounts: &Option<std::collections::BTreeMap<_, _>>| {
        amounts.as_ref().and_then(|amounts| amounts.get("memory").cloned())
    };
    let tag = container.image.as_deref().and_then(|image| image.rsplit_once(':'));
    failed([
        (security.allow_privilege_escalation == Some(false), "it may gain rights"),
        (security.read_only_root_filesystem == Some(true), "its root can be written"),
        (dropped == Some(vec!["ALL".into()]) && added.is_none(), "it has capabilities"),
        (security.privileged != Some(true), "it is privileged"),
        (has(&resources.requests, "cpu") && has(&resources.limits, "cpu"), "its CPU is not said"),
        (has(&resources.requests, "memory"), "its memory is not said"),
        (
            memory(&resources.requests) == memory(&resources.limits),
            "it may be given memory that is not there",
        ),
        (tag.is_some_and(|(_, tag)| tag != "latest"), "its image may change under its name"),
    ])
}
