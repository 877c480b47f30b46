//! A node for the manifests: does on a container engine what a kubelet, and the controllers above it, would do.
//!
//! Pods get their real commands, arguments and environment (also that from the downward API), their mounts, user, group,
//! limits, and no rights; names that Services give them; probes, asked from outside on the pod's own address in the
//! manifest's rhythm; and they are started again as their restart policy says. Claims are volumes into which everybody may
//! write, as the provisioners of one-node clusters make them; ConfigMaps are directories of links, as a kubelet makes them.
//!
//! What it leaves out: there is no API server, so that nothing is admitted, scheduled or rolled out; policies are not
//! enforced ([`crate::manifests::network`] evaluates them); a Service's name leads to its pods' own addresses; and a pod has
//! one container at a time, so that they need share nothing.
//!
//! Nothing waits: [`Node::until`] lets every pod take its turn until something holds.

mod pod;
mod probe;
mod volumes;

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::{Engine, fresh_name, remove};
use crate::home::Call;
use crate::manifests::Manifests;
use crate::manifests::workload::Workload;
use crate::patience::{Wait, asking};
use crate::run::Run;

use pod::Pod;
use volumes::Volumes;

const POLL: Duration = Duration::from_millis(100);

/// A node with pods. All of it goes with this value: containers, network, volumes.
#[derive(Debug)]
pub struct Node<'e> {
    engine: &'e Engine,
    image: String,
    network: String,
    volumes: Volumes<'e>,
    pods: Vec<Pod<'e>>,
}

impl<'e> Node<'e> {
    /// A node that has an image, by whatever name the manifests call it.
    pub fn new(engine: &'e Engine, image: &str) -> Self {
        let network = fresh_name("pods");
        engine.docker(&format!("network create {network}")).succeeds();
        let volumes = Volumes::new(engine, image);
        Self { engine, image: image.to_string(), network, volumes, pods: Vec::new() }
    }

    /// Makes the pods that the manifests want, and their volumes. In the order in which they are written, as an API server
    /// might: who comes first may have to wait.
    pub fn apply(&mut self, manifests: &Manifests) {
        for workload in Workload::all(manifests) {
            for number in 0..workload.replicas {
                let pod = Pod::new(self, manifests, &workload, number);
                self.pods.push(pod);
            }
        }
    }

    /// Lets every pod take its turn until something holds.
    ///
    /// # Panics
    /// If the wait is in vain; says what was waited for.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let mut wait = Wait::new(what);
        loop {
            let (is_so, state) = asking(|| {
                self.pods.iter_mut().for_each(Pod::turn);
                (holds(self), self.pods.iter().map(Pod::state).collect::<Vec<_>>())
            });
            if is_so {
                return;
            }
            wait.sees(&state);
            wait.glance().unwrap_or_else(|in_vain| panic!("{in_vain}; {state:#?}"));
            std::thread::sleep(POLL);
        }
    }

    /// Whether every pod that lives on is ready.
    pub fn is_ready(&self) -> bool {
        self.pods.iter().all(Pod::is_ready)
    }

    /// Whether the pod of this name has ended well.
    pub fn has_succeeded(&self, name: &str) -> bool {
        self.pod(name).has_succeeded()
    }

    /// How often the container of a pod was started again.
    pub fn restarts(&self, name: &str) -> u32 {
        self.pod(name).restarts
    }

    /// A command in a pod, as `kubectl exec POD -- COMMAND` gives it.
    pub fn exec(&self, name: &str, command: &str) -> Call {
        self.engine.docker(&format!("exec {} {command}", self.pod(name).container()))
    }

    /// What a pod has said.
    pub fn logs(&self, name: &str) -> String {
        self.pod(name).logs()
    }

    /// Kills what runs in a pod, as a fault would. Nothing in it is asked.
    pub fn kill(&self, name: &str) {
        self.engine.docker(&format!("kill --signal KILL {}", self.pod(name).container())).succeeds();
    }

    /// Tells every pod to end, and kills it after its grace period; gives the exit codes, by name.
    pub fn delete_pods(&mut self) -> Vec<(String, i64)> {
        let ended = self.pods.iter().filter(|pod| pod.is_running()).map(|pod| (pod.name.clone(), pod.stop()));
        ended.collect()
    }

    /// A run, copied from the volume of a pod.
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
