//! A pod: its init containers one after another, then its main container.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Service};
use serde_json::Value;

use super::Node;
use super::probe::Asked;
use crate::engine::{Engine, fresh_name, inspected, remove};
use crate::home::Call;
use crate::manifests::Manifests;
use crate::manifests::command_line::{amount, value};
use crate::manifests::selector::service_picks;
use crate::manifests::workload::Workload;

/// A pod on the node.
#[derive(Debug)]
pub(super) struct Pod<'e> {
    engine: &'e Engine,
    /// Its name in Kubernetes.
    pub(super) name: String,
    workload: Workload,
    /// The arguments of `docker` for each container: its flags and its command.
    starts: Vec<Vec<String>>,
    /// The containers created so far, by the engine's names. All but the last have succeeded.
    made: Vec<String>,
    /// How often its main container was restarted.
    pub(super) restarts: u32,
    has_succeeded: bool,
    startup: Option<Asked>,
    liveness: Option<Asked>,
    readiness: Option<Asked>,
}

impl<'e> Pod<'e> {
    pub(super) fn new(node: &mut Node<'e>, manifests: &Manifests, workload: &Workload, number: i32) -> Self {
        let (kind, name) = workload.name.split_once(' ').expect("a workload has a kind and a name");
        let name = if kind == "Job" { name.to_string() } else { format!("{name}-{number}") };
        let starts = workload.containers().map(|it| start(node, manifests, workload, &name, it)).collect();
        let mut pod = Self {
            engine: node.engine,
            name,
            workload: workload.clone(),
            starts,
            made: Vec::new(),
            restarts: 0,
            has_succeeded: false,
            startup: None,
            liveness: None,
            readiness: None,
        };
        pod.begin_next();
        pod
    }

    /// Advances it: starts the next container, runs probes, restarts a container that has ended.
    pub(super) fn turn(&mut self) {
        if self.has_succeeded {
            return;
        }
        let state = self.inspect()["State"].clone();
        if state["Running"] == false && state["Status"] == "exited" {
            self.ended(state["ExitCode"].as_i64().unwrap_or(-1));
        } else if self.is_main() {
            self.ask();
        }
    }

    fn ended(&mut self, code: i64) {
        let policy = self.workload.pod.restart_policy.as_deref().unwrap_or("Always");
        match (self.is_main(), code, policy) {
            (false, 0, _) => self.begin_next(),
            (true, 0, "Never" | "OnFailure") => self.has_succeeded = true,
            (_, _, "Never") => panic!("{} has failed with {code}: {}", self.name, self.logs()),
            _ => self.begin_again(),
        }
    }

    /// Whether its main container has been started.
    fn is_main(&self) -> bool {
        self.made.len() == self.starts.len()
    }

    fn begin_next(&mut self) {
        let name = fresh_name(&self.name);
        let words = &self.starts[self.made.len()];
        let call = self.engine.docker(&format!("run --detach --name {name}"));
        words.iter().fold(call, Call::arg).succeeds();
        self.made.push(name);
        self.begin_probes();
    }

    fn begin_again(&mut self) {
        self.restarts += u32::from(self.is_main());
        self.engine.docker(&format!("start {}", self.container())).succeeds();
        self.begin_probes();
    }

    fn begin_probes(&mut self) {
        let container = self.workload.main().clone();
        let asked = |probe| Asked::new(&self.workload, probe);
        (self.startup, self.liveness, self.readiness) = (
            container.startup_probe.as_ref().map(asked),
            container.liveness_probe.as_ref().map(asked),
            container.readiness_probe.as_ref().map(asked),
        );
    }

    /// Runs the startup probe; once it has succeeded, the liveness and readiness probes.
    fn ask(&mut self) {
        let Some(address) = self.address() else { return };
        let starting = self.startup.as_mut().filter(|startup| !startup.is_good);
        let has_failed = match starting {
            Some(startup) => {
                startup.turn(address);
                startup.has_failed()
            }
            None => {
                self.readiness.iter_mut().for_each(|readiness| readiness.turn(address));
                self.liveness.as_mut().is_some_and(|liveness| {
                    liveness.turn(address);
                    liveness.has_failed()
                })
            }
        };
        if has_failed {
            panic!("{} fails its probes: {}", self.name, self.report());
        }
    }

    /// Its address.
    fn address(&self) -> Option<IpAddr> {
        let networks = &self.inspect()["NetworkSettings"]["Networks"];
        networks.as_object()?.values().next()?["IPAddress"].as_str()?.parse().ok()
    }

    /// Whether it is ready. A Job's pod has no probes.
    pub(super) fn is_ready(&self) -> bool {
        let never_asked = self.workload.pod.restart_policy.as_deref() == Some("Never");
        never_asked || self.is_main() && self.readiness.as_ref().is_none_or(|readiness| readiness.is_good)
    }

    pub(super) fn has_succeeded(&self) -> bool {
        self.has_succeeded
    }

    pub(super) fn is_running(&self) -> bool {
        self.inspect()["State"]["Running"] == true
    }

    /// Its current container.
    pub(super) fn container(&self) -> &str {
        self.made.last().expect("a pod has a container")
    }

    /// Stops it, and kills it after its grace period. Returns its exit code.
    pub(super) fn stop(&self) -> i64 {
        let grace = self.workload.pod.termination_grace_period_seconds.unwrap_or(30);
        self.engine.docker(&format!("stop --time {grace} {}", self.container())).succeeds();
        self.inspect()["State"]["ExitCode"].as_i64().unwrap_or(-1)
    }

    pub(super) fn logs(&self) -> String {
        let ended = self.engine.docker(&format!("logs --tail 200 {}", self.container())).run();
        ended.stdout + &ended.stderr
    }

    /// A short description for the error of a wait.
    pub(super) fn state(&self) -> String {
        let state = self.inspect()["State"]["Status"].clone();
        let ready = if self.is_ready() { "ready" } else { "not ready" };
        format!("{}: container {} of {}: {state}, {ready}", self.name, self.made.len(), self.starts.len())
    }

    pub(super) fn report(&self) -> String {
        let logs = self.logs();
        let last: Vec<_> = logs.lines().rev().take(15).collect();
        format!("{}\n  {}", self.state(), last.into_iter().rev().collect::<Vec<_>>().join("\n  "))
    }

    fn inspect(&self) -> Value {
        inspected(&self.engine.docker(&format!("container inspect {}", self.container())).succeeds())
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        remove(self.engine.docker(&format!("rm --force {}", self.made.join(" "))));
    }
}

/// The engine's arguments to start a container.
fn start(
    node: &mut Node<'_>,
    manifests: &Manifests,
    workload: &Workload,
    pod: &str,
    container: &Container,
) -> Vec<String> {
    let command = container.command.clone().unwrap_or_default();
    let (program, rest) = command.split_first().expect("every container has a command");
    let mut words = vec![format!("--network={}", node.network), format!("--hostname={pod}")];
    words.extend(names(manifests, workload, pod).into_iter().map(|name| format!("--network-alias={name}")));
    words.extend(rights(workload, container));
    words.extend(limits(container));
    for variable in container.env.iter().flatten() {
        let value = value(variable, container).unwrap_or_else(|error| panic!("{pod}: {error}"));
        words.push(format!("--env={}={value}", variable.name));
    }
    for mount in container.volume_mounts.iter().flatten() {
        let volume = workload.pod.volumes.iter().flatten().find(|volume| volume.name == mount.name);
        let source = match volume {
            Some(volume) => node.volumes.source(manifests, volume),
            // A claim of a StatefulSet: one for each of its pods.
            None => node.volumes.claim(&format!("{}-{pod}", mount.name)),
        };
        let read_only = if mount.read_only == Some(true) { ",readonly" } else { "" };
        words.extend(["--mount".to_string(), format!("{source},target={}{read_only}", mount.mount_path)]);
    }
    words.extend([format!("--entrypoint={program}"), node.image.clone()]);
    words.extend(rest.iter().chain(container.args.iter().flatten()).cloned());
    words
}

/// Its names in the network: those of the Services that select it, and its own.
fn names(manifests: &Manifests, workload: &Workload, pod: &str) -> Vec<String> {
    let services = manifests.typed::<Service>("Service").into_iter();
    let picking = services.filter(|service| {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone());
        service_picks(&selector.unwrap_or_default(), &workload.labels)
    });
    let namespace = &workload.namespace;
    let names = picking.filter_map(|service| service.metadata.name).flat_map(|name| {
        let own = (workload.service.as_ref() == Some(&name)).then(|| format!("{pod}.{name}"));
        own.into_iter().chain([name])
    });
    let qualified = |name: String| {
        let below = ["", ".svc", ".svc.cluster.local"].map(|below| format!("{name}.{namespace}{below}"));
        [name].into_iter().chain(below)
    };
    names.flat_map(qualified).collect()
}

/// User, groups, and dropped capabilities.
fn rights(workload: &Workload, container: &Container) -> Vec<String> {
    let pod = workload.pod.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let mut words = Vec::new();
    if let (Some(user), Some(group)) = (pod.run_as_user, pod.run_as_group) {
        words.push(format!("--user={user}:{group}"));
    }
    words.extend(pod.fs_group.map(|group| format!("--group-add={group}")));
    let dropped = own.capabilities.and_then(|capabilities| capabilities.drop).unwrap_or_default();
    words.extend(dropped.into_iter().map(|capability| format!("--cap-drop={capability}")));
    if own.read_only_root_filesystem == Some(true) {
        words.push("--read-only".into());
    }
    if own.allow_privilege_escalation == Some(false) {
        words.push("--security-opt=no-new-privileges".into());
    }
    words
}

fn limits(container: &Container) -> Vec<String> {
    let limits =
        container.resources.as_ref().and_then(|resources| resources.limits.clone()).unwrap_or_default();
    let limit = |what: &str| limits.get(what).map(amount);
    let memory =
        limit("memory").map(|bytes| [format!("--memory={bytes}b"), format!("--memory-swap={bytes}b")]);
    let cpus = limit("cpu").map(|cpus| format!("--cpus={cpus}"));
    memory.into_iter().flatten().chain(cpus).collect()
}
