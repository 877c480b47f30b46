//! Networks that are cut, silent, lossy or slow do not change the model.
//!
//! One worker of each cluster connects directly, the other through a [`Proxy`].

use std::time::Duration;

use millefeuille_tests::cluster::Cluster;
use millefeuille_tests::home::{Call, Home};
use millefeuille_tests::process::{Process, until};
use millefeuille_tests::proxy::{Proxy, Way};
use millefeuille_tests::rpc::Client;
use millefeuille_tests::undisturbed::Undisturbed;

/// Short deadlines.
const ALERT: &str = "--heartbeat-interval 0.2 --heartbeat-deadline 1";
/// Two milliseconds per piece: the job takes long enough to inject faults.
const SLOWED: &str = "worker-slow=sleep(2)";
const JOB: &str = "small.toml --epochs 30";

/// A job on two workers, one of them behind the proxy.
struct Far<'h> {
    home: &'h Home,
    alone: Undisturbed,
    client: Client,
    proxy: Proxy,
    following: Process,
    far: Process,
    _near: Process,
    _cluster: Cluster<'h>,
}

impl<'h> Far<'h> {
    fn new(home: &'h Home) -> Self {
        home.small_job();
        let alone = home.undisturbed(JOB);
        let cluster = home.cluster(&format!("{ALERT} --min-workers 1"));
        let proxy = Proxy::to(&cluster.address);
        let joined = |call: Call| {
            let mut worker = call.env("FAILPOINTS", SLOWED).start();
            worker.says("joined as worker");
            worker
        };
        let near = joined(cluster.worker("--slots 1"));
        let far = joined(home.worker(&format!("--coordinator {} --slots 1", proxy.address)));
        let following = cluster.coordinator(&format!("train {JOB}")).start();
        let client = cluster.client();
        let mut this = Self { home, alone, client, proxy, following, far, _near: near, _cluster: cluster };
        this.following.says("Epoch 1/");
        this.computes_far_away();
        this
    }

    /// Waits until the worker behind the proxy has shards to compute.
    fn computes_far_away(&self) {
        let name = format!(":{}", self.far.pid());
        until("the worker far away computes", || {
            let workers = self.client.workers();
            let far = workers.iter().find(|worker| worker.name.ends_with(&name))?;
            (far.state == "computing").then_some(())
        });
    }

    /// Waits until it is disconnected for this reason.
    fn is_given_up(&self, reason: &str) {
        self.home.run("runs/small-1").tells("left", reason);
    }

    /// Waits until it has rejoined and computes again.
    fn comes_back(&mut self) {
        let said = self.far.stderr().len();
        self.proxy.heal();
        self.far.says_after(said, "joined as worker");
        self.computes_far_away();
    }

    fn ends_well(mut self) {
        self.following.wait().with_code(0);
        let run = self.home.run("runs/small-1");
        assert!(
            run.told("resumed").is_empty() && run.told("waiting").is_empty(),
            "the job went on all the time"
        );
        self.alone.is_equalled_by(&run);
    }
}

#[test]
fn a_cut_connection_is_detected_at_once_and_restored() {
    let home = Home::new();
    let mut far = Far::new(&home);

    far.proxy.cut();
    far.is_given_up("its connection was closed");
    far.far.says("trying again");

    far.comes_back();
    far.ends_well();
}

#[test]
fn silence_in_both_directions_is_detected_on_both_sides() {
    let home = Home::new();
    let mut far = Far::new(&home);

    far.proxy.stall(Way::Up);
    far.proxy.stall(Way::Down);
    far.is_given_up("nothing came from it for");
    far.far.says("a heartbeat was not answered");

    far.comes_back();
    far.ends_well();
}

#[test]
fn a_worker_whose_messages_are_lost_is_disconnected_and_rejoins() {
    let home = Home::new();
    let mut far = Far::new(&home);

    far.proxy.stall(Way::Up);
    far.is_given_up("nothing came from it for");

    far.comes_back();
    far.ends_well();
}

#[test]
fn a_worker_that_receives_nothing_disconnects_and_rejoins() {
    let home = Home::new();
    let mut far = Far::new(&home);

    far.proxy.stall(Way::Down);
    far.far.says("a heartbeat was not answered");

    far.comes_back();
    far.ends_well();
}

#[test]
fn a_worker_that_reconnects_before_the_deadline_replaces_its_session() {
    let home = Home::new();
    let mut far = Far::new(&home);
    let said = far.far.stderr().len();

    // The coordinator does not see the end of the old connection.
    far.proxy.lose();

    far.far.says_after(said, "joined as worker");
    far.is_given_up("the same process has joined again");
    far.computes_far_away();
    let workers = far.client.workers();
    assert_eq!(workers.len(), 2, "nobody is counted twice: {workers:?}");
    far.ends_well();
}

#[test]
fn a_slow_network_does_not_disconnect_workers() {
    let home = Home::new();
    let far = Far::new(&home);

    far.proxy.delay(Duration::from_millis(30));
    let epochs = || home.run("runs/small-1").history_so_far();
    let before = epochs();
    until("two epochs are trained so", || (epochs() > before + 1).then_some(()));
    far.proxy.heal();

    far.ends_well();
    let left = home.run("runs/small-1").told("left");
    assert!(left.is_empty(), "nobody was given up: {left:?}");
}

#[test]
fn a_large_transfer_over_a_slow_network_does_not_disconnect_its_worker() {
    // Given one shard with all the samples, which takes several deadlines to arrive.
    let home = Home::new();
    home.small_job();
    let job = "small.toml --shards 1";
    let alone = home.undisturbed(job);
    let cluster = home.cluster("--heartbeat-interval 0.1 --heartbeat-deadline 1");
    let client = cluster.client();
    let proxy = Proxy::to(&cluster.address);
    let mut far = home.worker(&format!("--coordinator {} --slots 1", proxy.address)).start();
    far.says("joined as worker");

    proxy.throttle(300_000);
    let mut following = cluster.coordinator(&format!("train {job}")).start();
    cluster.workers_are(&client, 1, "fetching");
    cluster.job_is(&client, "small-1", "running");
    proxy.heal();

    following.wait().with_code(0);
    let run = home.run("runs/small-1");
    assert!(run.told("left").is_empty(), "nobody was given up: {:?}", run.told("left"));
    assert_eq!(far.stderr().matches("joined as worker").count(), 1);
    alone.is_equalled_by(&run);
}
