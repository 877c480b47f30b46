//! The overlay `local` on a real engine: the pods that `kubectl apply -k` would start train the article's job to
//! the right hash.

use millefeuille_tests::engine::Engine;
use millefeuille_tests::home::project;
use millefeuille_tests::kubelet::Node;
use millefeuille_tests::manifests::{Manifests, can_render};
use millefeuille_tests::runbook::in_pods;

/// The overlay's job.
const JOB: &str = "article-1";
/// Long enough to inject faults.
const EPOCHS: usize = 20;

fn state(node: &Node, job: &str) -> String {
    let asked = node.exec("coordinator-0", "coordinator jobs --json").run();
    let jobs = if asked.code() == Some(0) { asked.json() } else { Vec::new() };
    let found = jobs.into_iter().find(|found| found["id"] == job);
    found.and_then(|found| found["state"].as_str().map(str::to_owned)).unwrap_or_default()
}

fn is_done(node: &mut Node, job: &str) {
    node.until(&format!("job {job} is done"), |node| state(node, job) == "done");
}

/// What stands in a file of the run's directory.
fn file(node: &Node, job: &str, name: &str) -> String {
    node.exec("coordinator-0", &format!("cat /millefeuille/runs/{job}/{name}")).run().stdout
}

fn finished_epochs(node: &Node, job: &str) -> usize {
    file(node, job, "history.jsonl").lines().count()
}

fn epoch_is_over(node: &mut Node, job: &str, epoch: usize) {
    node.until(&format!("epoch {epoch} of {job} is over"), |node| finished_epochs(node, job) >= epoch);
}

/// Waits until an event of this kind is in a checkpoint, so that a resumed run keeps it.
fn event_is_kept(node: &mut Node, job: &str, kind: &str) {
    let kind = format!("\"event\":\"{kind}\"");
    node.until(&format!("{job} tells {kind}"), |node| file(node, job, "events.jsonl").contains(&kind));
    // The checkpoint of the epoch that tells it is written before the row of the epoch after it.
    let next = finished_epochs(node, job) + 2;
    epoch_is_over(node, job, next);
}

#[test]
fn the_local_overlay_trains_the_articles_job() {
    let Some(engine) = Engine::find().filter(|_| can_render()) else { return };
    let article = project().join("jobs/article.toml");
    let alone = engine.home().undisturbed(&format!("{} --epochs {EPOCHS}", article.display()));
    let image = engine.build("Dockerfile.prebuilt");
    let mut node = Node::new(&engine, &image.name);

    node.apply(&lengthened(Manifests::render(&["overlays/local"])));
    node.until("every pod is ready", Node::is_ready);

    // During the job a worker and then the coordinator are killed; the node restarts them.
    epoch_is_over(&mut node, JOB, 1);
    node.kill("worker-2");
    event_is_kept(&mut node, JOB, "left");
    node.kill("coordinator-0");
    node.until("the coordinator is started again", |node| node.restarts("coordinator-0") == 1);
    is_done(&mut node, JOB);
    let run = node.run("coordinator-0", JOB);
    alone.is_equalled_by(&run);
    assert!(node.restarts("worker-2") >= 1);
    assert!(!run.told("left").is_empty(), "{:?}", run.events());
    assert_eq!(run.told("resumed").len(), 1, "{:?}", run.events());

    // An operator's Job submits another one, follows it, and reports.
    let second = engine.home().undisturbed(&format!(
        "{} --epochs 1",
        project().join("deploy/kubernetes/train/jobs/scaled.toml").display()
    ));
    node.apply(&shortened(Manifests::render(&["overlays/local/train"])));
    node.until("the Job has succeeded", |node| node.has_succeeded("train"));
    let report = node.logs("train");
    assert!(report.contains(&format!("weights_sha256 {}", second.hash())), "{report}");

    // The runbook's commands in the coordinator's pod.
    let commands = in_pods();
    assert!(commands.len() > 5, "{commands:?}");
    for command in commands {
        node.exec("coordinator-0", &command).succeeds();
    }

    // Every pod stops within its grace period.
    node.until("every pod is ready", Node::is_ready);
    let ended = node.delete_pods();
    assert_eq!(ended.len(), 5, "{ended:?}");
    assert!(ended.iter().all(|(_, code)| *code == 0), "{ended:?}");
}

/// The overlay with another number of epochs in its job file.
fn lengthened(mut manifests: Manifests) -> Manifests {
    let map = manifests.documents.iter_mut().find(|document| document["kind"] == "ConfigMap");
    let file = &mut map.expect("there is a ConfigMap")["data"]["article.toml"];
    let text = file.as_str().unwrap_or_default();
    assert!(text.contains("\nepochs = 5\n"), "{text}");
    *file = text.replace("\nepochs = 5\n", &format!("\nepochs = {EPOCHS}\n")).into();
    manifests
}

/// The Job for one epoch: the flag is the last argument.
fn shortened(mut manifests: Manifests) -> Manifests {
    let args = manifests.document("Job", "train").pointer_mut("/spec/template/spec/containers/0/args");
    args.and_then(|args| args.as_array_mut()).expect("there are arguments").push("--epochs=1".into());
    manifests
}

#[test]
fn each_pod_sees_only_its_own_key() {
    let Some(engine) = Engine::find().filter(|_| can_render()) else { return };
    let image = engine.build("Dockerfile.prebuilt");
    let mut node = Node::new(&engine, &image.name);
    node.apply(&Manifests::render(&["overlays/local"]));
    node.until("every pod is ready", Node::is_ready);

    let keys = |pod: &str| {
        let found = node.exec(pod, "find /tls -name *.key").succeeds().stdout;
        let mut found: Vec<_> = found.lines().map(str::to_owned).collect();
        found.sort();
        found
    };
    assert_eq!(keys("worker-0"), ["/tls/worker/tls.key"]);
    assert_eq!(keys("coordinator-0"), ["/tls/coordinator/tls.key", "/tls/operator/tls.key"]);
    for (pod, path) in
        [("worker-0", "/tls/worker/tls.key"), ("coordinator-0", "/usr/local/bin/x"), ("worker-0", "/tmp/x")]
    {
        let written = node.exec(pod, &format!("cp /etc/hostname {path}")).run();
        assert!(written.stderr.contains("Read-only file system"), "{written}");
    }
    assert_eq!(node.exec("worker-0", "id -u").succeeds().stdout.trim(), "65532");
    let effective = node.exec("worker-0", "grep CapEff /proc/1/status").succeeds().stdout;
    assert!(effective.trim().ends_with("0000000000000000"), "{effective}");
}
