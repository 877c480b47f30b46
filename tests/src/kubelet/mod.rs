//! Runs the manifests in containers, as a kubelet and its controllers would.
//!
//! Pods get their real commands, arguments and environment (including the downward API), mounts, user, group,
//! limits and no capabilities; the names of their Services; probes, from outside on the pod's address with the
//! manifest's period; and restarts by their restart policy. Claims are world-writable volumes, like those of the
//! provisioners of one-node clusters. ConfigMaps are directories of links, like those of a kubelet.
//!
//! Not simulated: the API server (no admission, no scheduling, no rollouts); enforcement of policies
//! ([`crate::manifests::network`] evaluates them); Services with their own addresses (a name resolves to those of
//! its pods); and several containers of a pod at the same time.
//!
//! Nothing runs in the background: [`Node::until`] advances every pod in turn until a condition holds.

mod pod;
mod probe;
mod volumes;

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::{Engine, fresh_name, remove};
use crate::home::Call;
use crate::manifests::Manifests;
use crate::manifests::workload::Workload;
use crate::patience::{Wait, without_progress};
use crate::run::Run;

use pod::Pod;
use volumes::Volumes;

const POLL: Duration = Duration::from_millis(100);

/// A node with pods. Its containers, network and volumes are removed when the value is dropped.
#[derive(Debug)]
pub struct Node<'e> {
    engine: &'e Engine,
    image: String,
    network: String,
    volumes: Volumes<'e>,
    pods: Vec<Pod<'e>>,
}

impl<'e> Node<'e> {
    /// A node with an image, which is used for every image name in the manifests.
    pub fn new(engine: &'e Engine, image: &str) -> Self {
        let network = fresh_name("pods");
        engine.docker(&format!("network create {network}")).succeeds();
        let volumes = Volumes::new(engine, image);
        Self { engine, image: image.to_string(), network, volumes, pods: Vec::new() }
    }

    /// Creates the pods of the manifests and their volumes, in the order of the documents.
    pub fn apply(&mut self, manifests: &Manifests) {
        for workload in Workload::all(manifests) {
            for number in 0..workload.replicas {
                let pod = Pod::new(self, manifests, &workload, number);
                self.pods.push(pod);
            }
        }
    }

    /// Advances every pod in turn until a condition holds.
    ///
    /// # Panics
    /// If the wait fails; names its goal.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let mut wait = Wait::new(what);
        loop {
            let (is_so, state) = without_progress(|| {
                self.pods.iter_mut().for_each(Pod::turn);
                (holds(self), self.pods.iter().map(Pod::state).collect::<Vec<_>>())
            });
            if is_so {
                return;
            }
            wait.observe(&state);
            wait.poll().unwrap_or_else(|timeout| panic!("{timeout}; {state:#?}"));
            std::thread::sleep(POLL);
        }
    }

    /// Whether every long-running pod is ready.
    pub fn is_ready(&self) -> bool {
        self.pods.iter().all(Pod::is_ready)
    }

    /// Whether the pod of this name has succeeded.
    pub fn has_succeeded(&self, name: &str) -> bool {
        self.pod(name).has_succeeded()
    }

    /// How often the container of a pod was restarted.
    pub fn restarts(&self, name: &str) -> u32 {
        self.pod(name).restarts
    }

    /// A command in a pod, as with `kubectl exec POD -- COMMAND`.
    pub fn exec(&self, name: &str, command: &str) -> Call {
        self.engine.docker(&format!("exec {} {command}", self.pod(name).container()))
    }

    /// A pod's log.
    pub fn logs(&self, name: &str) -> String {
        self.pod(name).logs()
    }

    /// Kills the process of a pod, as a fault would.
    pub fn kill(&self, name: &str) {
        self.engine.docker(&format!("kill --signal KILL {}", self.pod(name).container())).succeeds();
    }

    /// Stops every pod, and kills it after its grace period. Returns the exit codes by name.
    pub fn delete_pods(&mut self) -> Vec<(String, i64)> {
        let ended = self.pods.iter().filter(|pod| pod.is_running()).map(|pod| (pod.name.clone(), pod.stop()));
        ended.collect()
    }

    /// A copy of a run from the volume of a pod.
    pub fn run(&self, name: &str, run: &str) -> Run {
        let place: PathBuf = self.engine.home().path(&format!("{run}-{}", fresh_name("copy")));
        let from = format!("{}:/millefeuille/runs/{run}", self.pod(name).container());
        self.engine.docker(&format!("cp {from}")).arg(&place).succeeds();
        Run::new(place)
    }

    fn pod(&self, name: &str) -> &Pod<'e> {
        let found = self.pods.iter().find(|pod| pod.name == name);
        found.unwrap_or_else(|| panic!("there is no pod {name}"))
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.pods.iter().for_each(|pod| eprintln!("{}", pod.report()));
        }
        self.pods.clear();
        self.volumes.remove();
        remove(self.engine.docker(&format!("network rm {}", self.network)));
    }
}
