//! Containers start existing programs with valid flags, which listen on the expected ports and find their files.

use k8s_openapi::api::core::v1::Probe;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::command_line::{CommandLine, amount};
use super::{All, Started, port};

/// The paths of the ops port of each program.
const SERVED: [&str; 2] = ["/livez", "/readyz"];

pub(super) fn problems(all: &All) -> Vec<String> {
    let mut problems = unreadable(all);
    for started in all.containers() {
        problems.extend(listening(&started));
        problems.extend(paths(all, &started));
        problems.extend(limits(&started));
        if started.is("coordinator serve") || started.is("worker") {
            problems.extend(probes(&started));
        }
        if started.is("coordinator serve") && started.workload.replicas != 1 {
            problems
                .push(format!("{}: a second coordinator would be another cluster", started.workload.name));
        }
        problems.extend(dials(all, &started));
    }
    problems
}

fn unreadable(all: &All) -> Vec<String> {
    let read = |started: Started| {
        let error = CommandLine::read(started.container).err()?;
        Some(format!("{}: {error}", started.name()))
    };
    all.containers().filter_map(read).collect()
}

/// The declared ports are those on which the program listens, on a reachable address.
fn listening(started: &Started) -> Vec<String> {
    let mut problems = Vec::new();
    let addresses = ["listen", "ops-listen"].map(|flag| started.value(flag).unwrap_or("off"));
    let reachable = addresses.iter().filter(|address| address.starts_with("0.0.0.0:"));
    let listened: Vec<i32> = reachable.filter_map(|address| port(address)).collect();
    let declared: Vec<i32> =
        started.container.ports.iter().flatten().map(|port| port.container_port).collect();
    for port in declared.iter().filter(|port| !listened.contains(port)) {
        problems.push(format!("{}: nothing listens on its port {port}", started.name()));
    }
    for port in listened.iter().filter(|port| !declared.contains(port)) {
        problems.push(format!("{}: it listens on {port}, which is none of its ports", started.name()));
    }
    problems
}

fn probes(started: &Started) -> Vec<String> {
    let container = started.container;
    let probes = [
        ("startup", &container.startup_probe, SERVED[0]),
        ("liveness", &container.liveness_probe, SERVED[0]),
        ("readiness", &container.readiness_probe, SERVED[1]),
    ];
    let wrong = |(kind, probe, path): (&str, &Option<Probe>, &str)| {
        let problem =
            probe.as_ref().map_or(Some("it has none".into()), |probe| probe_problem(started, probe, path))?;
        Some(format!("{}: {kind} probe: {problem}", started.name()))
    };
    probes.into_iter().filter_map(wrong).collect()
}

fn probe_problem(started: &Started, probe: &Probe, path: &str) -> Option<String> {
    let Some(get) = &probe.http_get else { return Some("it is no GET".into()) };
    let number = match &get.port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => started.workload.port(name),
    };
    let served = started.value("ops-listen").and_then(port);
    if get.path.as_deref() != Some(path) {
        return Some(format!("it asks for {} instead of {path}", get.path.as_deref().unwrap_or("nothing")));
    }
    (number.is_none() || number != served).then(|| "its port is not that of --ops-listen".into())
}

/// Files on the command line are in a volume; output directories are writable and persistent.
fn paths(all: &All, started: &Started) -> Vec<String> {
    let Some(line) = &started.line else { return Vec::new() };
    let given = line.values.iter().chain(&line.elsewhere).filter(|(flag, _)| *flag != "directory");
    let paths = given.filter(|(_, value)| value.starts_with('/'));
    let wrong = |(flag, path): (&String, &String)| {
        let problem = path_problem(all, started, flag, path)?;
        Some(format!("{}: {flag} {path}: {problem}", started.name()))
    };
    paths.filter_map(wrong).collect()
}

fn path_problem(all: &All, started: &Started, flag: &str, path: &str) -> Option<String> {
    let mount = started.mounts().find(|mount| path.starts_with(&mount.mount_path));
    let Some(mount) = mount else { return Some("it is in no volume".into()) };
    if flag == "runs-dir" {
        let claimed = started.workload.claims.contains(&mount.name)
            || started.volume(&mount.name).is_some_and(|volume| volume.persistent_volume_claim.is_some());
        return (!claimed || mount.read_only == Some(true))
            .then(|| "what is written there is not kept".into());
    }
    if mount.read_only != Some(true) {
        return Some("it could be written into".into());
    }
    let config = started.volume(&mount.name)?.config_map.as_ref()?;
    let key = path.strip_prefix(&mount.mount_path)?.trim_start_matches('/');
    let map = all.manifests.of_kind("ConfigMap").find(|map| super::super::name(map) == config.name)?;
    map["data"][key].is_null().then(|| format!("ConfigMap {} has no {key}", config.name))
}

/// Its grace period and memory limit are large enough for its flags.
fn limits(started: &Started) -> Vec<String> {
    let mut problems = Vec::new();
    let seconds = |flag| started.value(flag).and_then(|value| value.parse::<f64>().ok());
    let grace = started.workload.pod.termination_grace_period_seconds.unwrap_or(30) as f64;
    if started.is("worker") && seconds("drain-timeout").is_none_or(|drain| drain >= grace) {
        problems
            .push(format!("{}: it is killed after {grace} s, before its --drain-timeout", started.name()));
    }
    let limits = started.container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let memory = limits.and_then(|limits| limits.get("memory")).map(amount).unwrap_or_default();
    let cache = seconds("cache-bytes");
    if started.is("worker") && cache.is_none_or(|cache| cache > memory / 2.0) {
        problems.push(format!("{}: --cache-bytes leaves too little of its memory", started.name()));
    }
    problems
}

/// Addresses on the command line are those of existing Services.
fn dials(all: &All, started: &Started) -> Vec<String> {
    let addresses = ["coordinator", "cluster"].into_iter().filter_map(|flag| started.value(flag));
    let unknown = addresses.filter(|address| {
        let found = all.service(address);
        let ports = found
            .iter()
            .flat_map(|(service, _)| service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()));
        !found.is_some_and(|(_, port)| ports.into_iter().any(|served| served.port == port))
    });
    unknown.map(|address| format!("{}: {address} is no port of a Service", started.name())).collect()
}
