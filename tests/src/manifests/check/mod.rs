//! Checks of manifests that are applied together. [`problems`] returns one line for each problem.
//!
//! - [`references`]: references between manifests resolve.
//! - [`programs`]: command lines are valid, and programs listen on the expected ports.
//! - [`certificates`]: each component mounts the certificate of its own role and no other key.
//! - [`confinement`]: no tokens, no capabilities, limited resources.
//! - [`traffic`]: policies allow the connections that components need, and no others.

mod certificates;
mod confinement;
mod programs;
mod references;
mod traffic;

use k8s_openapi::api::core::v1::{Container, Service, Volume, VolumeMount};

use super::Manifests;
use super::command_line::CommandLine;
use super::selector::service_picks;
use super::workload::Workload;

/// The problems of these manifests, one line each.
pub fn problems(manifests: &Manifests) -> Vec<String> {
    let all = All::of(manifests);
    let checks: [fn(&All) -> Vec<String>; 5] = [
        references::problems,
        programs::problems,
        certificates::problems,
        confinement::problems,
        traffic::problems,
    ];
    checks.iter().flat_map(|check| check(&all)).collect()
}

/// The manifests, with their pods and policies.
struct All<'a> {
    manifests: &'a Manifests,
    workloads: Vec<Workload>,
    services: Vec<Service>,
}

/// A container, its pod, and its command line, if it starts one of our programs and is valid.
struct Started<'a> {
    workload: &'a Workload,
    container: &'a Container,
    line: Option<CommandLine>,
}

impl<'a> All<'a> {
    fn of(manifests: &'a Manifests) -> Self {
        Self { manifests, workloads: Workload::all(manifests), services: manifests.typed("Service") }
    }

    fn containers(&self) -> impl Iterator<Item = Started<'_>> {
        let started = |workload, container| Started {
            workload,
            container,
            line: CommandLine::read(container).ok().flatten(),
        };
        self.workloads.iter().flat_map(move |workload| {
            workload.containers().map(move |container| started(workload, container))
        })
    }

    /// The Service that an address such as `coordinator:7070` means, and its port.
    fn service(&self, address: &str) -> Option<(&Service, i32)> {
        let (host, port) = address.rsplit_once(':')?;
        let service = self.services.iter().find(|service| service.metadata.name.as_deref() == Some(host))?;
        Some((service, port.parse().ok()?))
    }

    /// The pods behind a Service.
    fn behind(&self, service: &Service) -> Vec<&Workload> {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        self.workloads.iter().filter(|workload| service_picks(&selector, &workload.labels)).collect()
    }
}

impl Started<'_> {
    /// Its name in a report.
    fn name(&self) -> String {
        format!("{}: container {}", self.workload.name, self.container.name)
    }

    /// Whether it starts this program with this subcommand.
    fn is(&self, what: &str) -> bool {
        self.line.as_ref().is_some_and(|line| line.what == what)
    }

    /// The value of a flag of it.
    fn value(&self, flag: &str) -> Option<&str> {
        self.line.as_ref()?.value(flag)
    }

    /// The mount that contains a path, and its volume.
    fn mount(&self, path: &str) -> Option<(&VolumeMount, &Volume)> {
        let below = |mount: &&VolumeMount| {
            path.strip_prefix(&mount.mount_path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mount = self.mounts().find(below)?;
        Some((mount, self.volume(&mount.name)?))
    }

    fn mounts(&self) -> impl Iterator<Item = &VolumeMount> {
        self.container.volume_mounts.iter().flatten()
    }

    fn volume(&self, name: &str) -> Option<&Volume> {
        self.workload.pod.volumes.iter().flatten().find(|volume| volume.name == name)
    }
}

/// The port at the end of an address.
fn port(address: &str) -> Option<i32> {
    address.rsplit_once(':')?.1.parse().ok()
}
