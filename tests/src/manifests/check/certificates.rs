//! Each component mounts the certificate of its own role and no other key.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Volume, VolumeMount};
use serde_json::Value;

use super::{All, Started};

pub(super) fn problems(all: &All) -> Vec<String> {
    let mut problems = Vec::new();
    for started in all.containers() {
        for (path, role) in needed(&started) {
            if let Err(wrong) = has_role(all, &started, &path, role) {
                problems.push(format!("{}: {path}: {wrong}", started.name()));
            }
        }
        problems.extend(foreign(all, &started));
        problems.extend(unnamed(all, &started));
    }
    problems.extend(all.manifests.of_kind("Certificate").filter_map(unreadable));
    problems
}

/// The certificate directories of a container, each with its required role.
fn needed(started: &Started) -> Vec<(String, &'static str)> {
    let Some(line) = &started.line else { return Vec::new() };
    let role = match line.what.as_str() {
        "coordinator serve" => "coordinator",
        "worker" => "worker",
        _ => "operator",
    };
    let own = line.value("tls").map(|path| (path.to_string(), role));
    let elsewhere = line.elsewhere.get("tls").map(|path| (path.clone(), "operator"));
    own.into_iter().chain(elsewhere).collect()
}

fn has_role(all: &All, started: &Started, path: &str, role: &str) -> Result<(), String> {
    let (mount, volume) = started.mount(path).ok_or("nothing is mounted there")?;
    if mount.read_only != Some(true) {
        return Err("its owner could be changed from within".into());
    }
    let found = role_of(all, volume).ok_or("nobody makes a certificate there")?;
    if found == role { Ok(()) } else { Err(format!("the role there is {found}, and {role} is needed")) }
}

/// The role of the certificate in a volume: from its Certificate, or, if the user creates it, from its name.
fn role_of(all: &All, volume: &Volume) -> Option<String> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return made_in_place(all, &claim.claim_name);
    }
    let secret = volume.secret.as_ref()?.secret_name.as_deref()?;
    let mut certificates = all.manifests.of_kind("Certificate").peekable();
    if certificates.peek().is_none() {
        return secret.strip_suffix("-tls").map(str::to_owned);
    }
    let certificate = certificates.find(|certificate| certificate["spec"]["secretName"] == secret)?;
    let uri = certificate["spec"]["uris"][0].as_str()?;
    uri.strip_prefix("spiffe://millefeuille/role/").map(str::to_owned)
}

/// `coordinator certs init DIR` writes the certificate of a role into the directory of that name in it.
fn made_in_place(all: &All, claim: &str) -> Option<String> {
    let maker = all.containers().find(|started| started.is("coordinator certs init"))?;
    let directory = maker.value("directory")?.to_string();
    let is = |mount: &&VolumeMount| {
        let volume = maker.volume(&mount.name).and_then(|volume| volume.persistent_volume_claim.as_ref());
        volume.is_some_and(|volume| volume.claim_name == claim)
    };
    let mount = maker.mounts().find(is)?;
    mount.mount_path.strip_prefix(&directory)?.strip_prefix('/').map(str::to_owned)
}

/// Keys that a container does not use. Only the container that creates certificates may see others.
fn foreign(all: &All, started: &Started) -> Vec<String> {
    if started.is("coordinator certs init") {
        return Vec::new();
    }
    let mut own: BTreeSet<_> = needed(started).into_iter().map(|(_, role)| role.to_string()).collect();
    if started.line.is_none() {
        // A container that waits for a certificate waits for that of the next program.
        let all = all.containers().filter(|other| other.workload.name == started.workload.name);
        own.extend(all.flat_map(|other| needed(&other)).map(|(_, role)| role.to_string()));
    }
    let volumes = started.mounts().filter_map(|mount| started.volume(&mount.name));
    let roles = volumes.filter_map(|volume| role_of(all, volume));
    let foreign = roles.filter(|role| !own.contains(role));
    foreign.map(|role| format!("{}: it sees the key of {role}", started.name())).collect()
}

/// The address that a container dials is a name in the coordinator's certificate.
fn unnamed(all: &All, started: &Started) -> Option<String> {
    let line = started.line.as_ref()?;
    let known = known_names(all)?;
    let own = ["coordinator", "cluster"].into_iter().filter_map(|flag| line.value(flag));
    let elsewhere = line.elsewhere.get("cluster").map(String::as_str);
    let mut hosts = own.chain(elsewhere).filter_map(|address| address.rsplit_once(':'));
    let (unknown, _) = hosts.find(|(host, _)| !known.iter().any(|name| name == host))?;
    Some(format!("{}: it dials {unknown}, which is no name of the coordinator's certificate", started.name()))
}

/// The names of the coordinator's certificate, if a manifest creates it.
fn known_names(all: &All) -> Option<Vec<String>> {
    let mut certificates = all.manifests.of_kind("Certificate");
    if let Some(certificate) =
        certificates.find(|certificate| certificate["spec"]["secretName"] == "coordinator-tls")
    {
        let names = certificate["spec"]["dnsNames"].as_array()?;
        return Some(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect());
    }
    let maker = all.containers().find(|started| started.is("coordinator certs init"))?;
    Some(maker.value("names")?.split(',').map(str::to_owned).collect())
}

/// Keys have the only supported encoding, which is not cert-manager's default.
fn unreadable(certificate: &Value) -> Option<String> {
    let spec = &certificate["spec"];
    let leaf = spec["isCA"] != true;
    (leaf && spec["privateKey"]["encoding"] != "PKCS8")
        .then(|| format!("Certificate {}: its key is not written as PKCS#8", super::super::name(certificate)))
}
