//! A cluster of containers on a real engine, from the project's own `compose.yaml`.
//!
//! Hashes are compared with the reference run on this machine, outside any container, with the same kernel and the same
//! version of OpenBLAS. Faults are injected during a job, and the run's `events.jsonl` must contain them.

use std::path::{Path, PathBuf};

use millefeuille_tests::engine::Engine;
use millefeuille_tests::engine::compose::Compose;
use millefeuille_tests::engine::container::Container;
use millefeuille_tests::process::until;
use millefeuille_tests::run::Run;
use serde_json::Value;

/// A job that is long enough to inject faults.
const JOB: &str = "--epochs 12";

/// An idle cluster of so many workers.
fn idle(engine: &Engine, workers: usize) -> Compose<'_> {
    let cluster = engine.cluster();
    cluster.up(workers);
    cluster.has_workers(workers);
    // Another test covers the default job of compose.yaml.
    cluster.ask("cancel article-1").run();
    cluster
}

/// Calls `happens` during a job. Returns the job's run, once it is done.
fn disturbed(cluster: &Compose<'_>, name: &str, happen: impl FnOnce()) -> Run {
    let following = cluster.begins(&format!("--name {name} {JOB}"));
    happen();
    drop(following);
    let job = format!("{name}-1");
    cluster.is_done(&job);
    cluster.run(&job)
}

/// The files of a run, wherever it was copied to.
fn files(run: &Run) -> Vec<(PathBuf, Vec<u8>)> {
    let relative = |path: PathBuf| path.strip_prefix(run.path()).map(Path::to_path_buf).unwrap_or(path);
    run.snapshot().into_iter().map(|(path, content)| (relative(path), content)).collect()
}

#[test]
fn four_containers_train_the_articles_job_from_a_cold_start_and_not_again() {
    let Some(engine) = Engine::find() else { return };
    let alone = engine.home().undisturbed("");
    let cluster = engine.cluster();

    cluster.up(4);
    cluster.is_done("article-1");

    let run = cluster.run("article-1");
    alone.is_equalled_by(&run);
    assert!(!run.told("joined").is_empty(), "{:?}", run.events());

    // Another cluster on the same volume repeats no job, and accepts a new one.
    cluster.does("down");
    cluster.up(2);
    cluster.has_workers(2);
    assert_eq!(cluster.jobs(), [("article-1".to_string(), "done".to_string())]);
    assert!(files(&cluster.run("article-1")) == files(&run), "nothing of the run has changed");
    let second = engine.home().undisturbed("--epochs 2");
    let report = cluster.ask("train --epochs 2").succeeds();
    assert!(report.stdout.contains(&format!("weights_sha256 {}", second.hash())), "{report}");
    second.is_equalled_by(&cluster.run("article-2"));
    let metrics = cluster.ask("metrics").succeeds();
    assert!(metrics.stdout.contains("val_accuracy"), "{metrics}");
}

#[test]
fn workers_are_killed_paused_disconnected_and_scaled_during_jobs() {
    let Some(engine) = Engine::find() else { return };
    let alone = engine.home().undisturbed(JOB);
    let cluster = idle(&engine, 4);
    let worker = || cluster.workers().remove(0);

    let killed = disturbed(&cluster, "killed", || {
        let (worker, before) = (worker(), worker().restarts());
        worker.is_killed();
        worker.is_restarted(before);
        cluster.has_workers(4);
    });
    let paused = disturbed(&cluster, "paused", || {
        let worker = worker();
        worker.is_paused();
        cluster.has_workers(3);
        worker.is_unpaused();
        cluster.has_workers(4);
    });
    let cut = disturbed(&cluster, "cut", || {
        let worker = worker();
        worker.is_cut_from(&cluster.network());
        cluster.has_workers(3);
        worker.is_connected_to(&cluster.network());
        cluster.has_workers(4);
    });
    for run in [killed, paused, cut] {
        alone.is_equalled_by(&run);
        let (left, joined) = (run.told("left").len(), run.told("joined").len());
        assert!(left >= 1 && joined >= 5, "{:?}", run.events());
    }

    let fewer = disturbed(&cluster, "fewer", || {
        cluster.up(2);
        cluster.has_workers(2);
    });
    alone.is_equalled_by(&fewer);
    assert!(fewer.told("left").len() >= 2, "{:?}", fewer.events());

    let more = disturbed(&cluster, "more", || {
        cluster.up(6);
        cluster.has_workers(6);
    });
    alone.is_equalled_by(&more);
    assert!(more.told("joined").len() >= 6, "{:?}", more.events());
}

#[test]
fn after_a_killed_coordinator_and_a_full_restart_the_model_is_the_same() {
    let Some(engine) = Engine::find() else { return };
    let alone = engine.home().undisturbed(JOB);
    let cluster = idle(&engine, 3);

    let killed = disturbed(&cluster, "killed", || {
        let (coordinator, before) = (cluster.coordinator(), cluster.coordinator().restarts());
        coordinator.is_killed();
        coordinator.is_restarted(before);
    });
    alone.is_equalled_by(&killed);
    assert_eq!(killed.told("resumed").len(), 1, "{:?}", killed.events());

    let restarted = disturbed(&cluster, "restarted", || {
        cluster.does("restart");
    });
    alone.is_equalled_by(&restarted);
    assert_eq!(restarted.told("resumed").len(), 1, "{:?}", restarted.events());

    // Stopped with SIGTERM during the job, and started again.
    let away = disturbed(&cluster, "away", || {
        cluster.does("down");
        cluster.up(4);
    });
    alone.is_equalled_by(&away);
    assert_eq!(away.told("resumed").len(), 1, "{:?}", away.events());
}

/// The coordinator's certificate.
fn certificate(cluster: &Compose<'_>) -> String {
    cluster.coordinator().shell("cat /tls/coordinator/tls.crt")
}

#[test]
fn renewed_certificates_are_used_during_a_job() {
    let Some(engine) = Engine::find() else { return };
    let alone = engine.home().undisturbed(JOB);
    let cluster = idle(&engine, 2);
    let first = certificate(&cluster);
    cluster.up(2);
    assert_eq!(certificate(&cluster), first, "what is good is kept");

    let renewed = disturbed(&cluster, "renewed", || {
        cluster.call("run --rm certs coordinator certs init /tls --days 365 --renew").succeeds();
        let coordinator = cluster.coordinator();
        until("the coordinator notices", || {
            coordinator.log().contains("the certificate was renewed: valid until").then_some(())
        });
        // A new worker has a new certificate, and so has the coordinator.
        cluster.up(3);
        cluster.has_workers(3);
    });

    alone.is_equalled_by(&renewed);
    assert_ne!(certificate(&cluster), first);
    assert_eq!(renewed.told("left").len(), 0, "{:?}", renewed.events());
    assert_eq!(renewed.told("joined").len(), 3, "{:?}", renewed.events());
}

#[test]
fn a_workers_container_cannot_act_as_operator() {
    let Some(engine) = Engine::find() else { return };
    let cluster = idle(&engine, 1);
    let worker = cluster.workers().remove(0);

    cluster.ask("metrics").succeeds();

    let ask =
        |flags: &str| worker.exec(&format!("coordinator metrics --cluster coordinator:7070 {flags}")).run();
    let refused = ask("--tls /tls/worker").error(4);
    assert!(refused.contains("worker"), "{refused}");
    ask("").error(4);
    ask("--tls /tls/operator").error(4);
    cluster.has_workers(1);
}

#[test]
fn two_clusters_run_side_by_side() {
    let Some(engine) = Engine::find() else { return };
    let clusters = [engine.cluster(), engine.cluster()];

    clusters.iter().for_each(|cluster| _ = cluster.up(1));

    clusters.iter().for_each(|cluster| cluster.is_done("article-1"));
    let hashes = clusters.each_ref().map(|cluster| cluster.run("article-1").hash());
    assert_eq!(hashes[0], hashes[1]);
    let ports = clusters.each_ref().map(|cluster| cluster.published(7070));
    assert_ne!(ports[0], ports[1]);
}

/// The mounts of a container, and whether they are writable.
fn mounts(container: &Value) -> Vec<(&str, bool)> {
    let list = container["Mounts"].as_array().expect("a container has a list of mounts");
    let mut mounts: Vec<_> = list
        .iter()
        .map(|mount| (mount["Destination"].as_str().unwrap_or_default(), mount["RW"] == true))
        .collect();
    mounts.sort_unstable();
    mounts
}

/// Asserts the restrictions of every container, both from `docker inspect` and from inside.
fn is_hardened(container: &Container<'_>) {
    let facts = container.inspect();
    let host = &facts["HostConfig"];
    assert_eq!(facts["Config"]["User"], "65532:65532");
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]));
    assert!(host["CapAdd"].is_null(), "{}", host["CapAdd"]);
    assert_eq!(host["Privileged"], false);
    assert_eq!(host["SecurityOpt"], serde_json::json!(["no-new-privileges:true"]));
    for limit in ["Memory", "NanoCpus", "PidsLimit"] {
        assert!(host[limit].as_u64().is_some_and(|limit| limit > 0), "{limit}: {}", host[limit]);
    }
    if facts["State"]["Running"] == true {
        let status = container.shell("cat /proc/1/status");
        let says =
            |line: &str| status.lines().any(|found| found.split_whitespace().eq(line.split_whitespace()));
        for line in [
            "Uid: 65532 65532 65532 65532",
            "CapEff: 0000000000000000",
            "CapBnd: 0000000000000000",
            "NoNewPrivs: 1",
        ] {
            assert!(says(line), "{line}: {status}");
        }
        let written = container.shell("touch /usr/local/bin/x /tmp/x /millefeuille/x 2>&1; true");
        assert_eq!(written.matches("Read-only file system").count(), 3, "{written}");
        // The variables at its start; if OpenBLAS picks another kernel than `native`, the program adds that variable.
        assert!(!container.shell("env").contains("OPENBLAS_"));
    }
}

#[test]
fn containers_have_only_the_rights_that_they_need() {
    let Some(engine) = Engine::find() else { return };
    let cluster = idle(&engine, 2);
    let certs = cluster.containers("certs").remove(0);
    let (coordinator, workers) = (cluster.coordinator(), cluster.workers());

    [&certs, &coordinator].into_iter().chain(&workers).for_each(is_hardened);

    assert_eq!(certs.inspect()["HostConfig"]["NetworkMode"], "none");
    let tls = ["ca", "coordinator", "operator", "reader", "worker"].map(|role| format!("/tls/{role}"));
    assert_eq!(mounts(&certs.inspect()), tls.each_ref().map(|path| (path.as_str(), true)));
    assert_eq!(
        mounts(&coordinator.inspect()),
        [("/millefeuille/runs", true), ("/tls/coordinator", false), ("/tls/operator", false)]
    );
    let ports = coordinator.inspect()["NetworkSettings"]["Ports"].clone();
    for port in ["7070/tcp", "7071/tcp"] {
        let places = ports[port].as_array().unwrap_or_else(|| panic!("{port} is published: {ports}"));
        assert!(places.iter().all(|place| place["HostIp"] == "127.0.0.1"), "{ports}");
    }
    for worker in &workers {
        let facts = worker.inspect();
        assert_eq!(mounts(&facts), [("/tls/worker", false)]);
        let published = facts["NetworkSettings"]["Ports"].as_object().expect("a list of ports");
        assert!(published.values().all(Value::is_null), "{published:?}");
        assert_eq!(worker.shell("find /tls -type f | sort").lines().count(), 3, "its own three files");
        worker.health_is("healthy");
    }
    coordinator.health_is("healthy");
}
