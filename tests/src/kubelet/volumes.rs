//! Volumes of pods: persistent claims, and ConfigMaps, which are files on the node.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ConfigMap, Volume};

use crate::engine::{Engine, fresh_name, remove};
use crate::manifests::Manifests;

/// The volumes of a node.
#[derive(Debug)]
pub(super) struct Volumes<'e> {
    engine: &'e Engine,
    image: String,
    /// The engine's names by the names of the claims.
    claims: BTreeMap<String, String>,
}

impl<'e> Volumes<'e> {
    pub(super) fn new(engine: &'e Engine, image: &str) -> Self {
        Self { engine, image: image.to_string(), claims: BTreeMap::new() }
    }

    /// The engine's argument for a volume.
    pub(super) fn source(&mut self, manifests: &Manifests, volume: &Volume) -> String {
        if let Some(claim) = &volume.persistent_volume_claim {
            return self.claim(&claim.claim_name);
        }
        if let Some(config) = &volume.config_map {
            return self.config_map(manifests, &config.name);
        }
        panic!("volume {} is of a kind that no pod of this node has", volume.name)
    }

    /// A claim, created when a pod first needs it.
    pub(super) fn claim(&mut self, claim: &str) -> String {
        let name = self.claims.entry(claim.to_string()).or_insert_with(|| fresh_name(claim)).clone();
        let source = format!("type=volume,source={name},volume-nocopy");
        if self.engine.docker(&format!("volume inspect {name}")).run().code() != Some(0) {
            self.engine.docker(&format!("volume create {name}")).succeeds();
            let flags = format!(
                "--rm --name {} --user 0 --network none --entrypoint chmod",
                fresh_name("provisioner")
            );
            let mount = format!("--mount {source},target=/claim");
            self.engine.docker(&format!("run {flags} {mount} {} 0777 /claim", self.image)).succeeds();
        }
        source
    }

    /// Files are links to links: a kubelet replaces all of them at once that way.
    fn config_map(&self, manifests: &Manifests, name: &str) -> String {
        let map = manifests.typed::<ConfigMap>("ConfigMap").into_iter();
        let map = map.into_iter().find(|map| map.metadata.name.as_deref() == Some(name));
        let data = map.and_then(|map| map.data).unwrap_or_else(|| panic!("there is no ConfigMap {name}"));
        let directory: PathBuf = self.engine.home().path(&fresh_name(name));
        let content = directory.join("..2026_11_25");
        fs::create_dir_all(&content).expect("directories can be made");
        symlink("..2026_11_25", directory.join("..data")).expect("links can be made");
        for (file, text) in data {
            fs::write(content.join(&file), text).expect("files can be written");
            symlink(format!("..data/{file}"), directory.join(&file)).expect("links can be made");
        }
        for path in [&directory, &content] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("modes can be changed");
        }
        format!("type=bind,source={}", directory.display())
    }

    /// Removes unused volumes.
    pub(super) fn remove(&mut self) {
        for name in std::mem::take(&mut self.claims).into_values() {
            remove(self.engine.docker(&format!("volume rm --force {name}")));
        }
    }
}
