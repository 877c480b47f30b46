//! The gRPC services as any client sees them, and the commands that call them.

use std::collections::BTreeMap;

use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_proto::{convert, v1};
use millefeuille_tests::data::{SMALL_JOB, small_job_as};
use millefeuille_tests::home::Home;
use millefeuille_tests::process::until;
use millefeuille_tests::rpc::Client;
use tonic::Code;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

/// States and queue places, newest job first.
fn queue(client: &Client) -> Vec<(String, String, u32)> {
    let jobs = client.jobs();
    let line = |job: &v1::Job| (job.id.clone(), client.job_state(&job.id), job.queue_place);
    jobs.iter().map(line).collect()
}

fn line(id: &str, state: &str, place: u32) -> (String, String, u32) {
    (id.into(), state.into(), place)
}

#[test]
fn health_is_served() {
    let home = Home::new();
    let cluster = home.cluster("");
    let client = cluster.client();
    let mut health = HealthClient::new(client.channel());

    for service in ["", "millefeuille.v1.Cluster", "millefeuille.v1.Worker"] {
        let answer = client.wait(health.check(HealthCheckRequest { service: service.into() })).unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{service:?}");
    }

    let alive = cluster.coordinator("health").succeeds();
    assert!(alive.stdout.contains("alive"), "{alive}");
    let error = cluster.coordinator("health --ready").fails(5);
    assert!(error.contains("without workers"), "{error}");
    let _worker = cluster.joined_by("--slots 1");
    cluster.coordinator("health --ready").succeeds();
}

/// Queries one version of reflection for the services, and for the file of one of them.
macro_rules! reflected {
    ($client:expr, $version:ident) => {{
        use pb::server_reflection_request::MessageRequest;
        use pb::server_reflection_response::MessageResponse;
        use tonic_reflection::pb::$version as pb;
        let client: &Client = $client;
        let mut reflection = pb::server_reflection_client::ServerReflectionClient::new(client.channel());
        let ask =
            |question| pb::ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let questions = tokio_stream::iter([
            ask(MessageRequest::ListServices(String::new())),
            ask(MessageRequest::FileContainingSymbol("millefeuille.v1.Cluster".into())),
        ]);
        let stream = client.wait(reflection.server_reflection_info(questions)).unwrap().into_inner();
        let answers = client.rest(stream).unwrap().into_iter().filter_map(|answer| answer.message_response);
        let (mut services, mut files) = (Vec::new(), 0);
        for answer in answers {
            match answer {
                MessageResponse::ListServicesResponse(list) => {
                    services.extend(list.service.into_iter().map(|service| service.name));
                }
                MessageResponse::FileDescriptorResponse(found) => files += found.file_descriptor_proto.len(),
                other => panic!("{other:?}"),
            }
        }
        (services, files)
    }};
}

#[test]
fn reflection_lists_the_services_in_both_its_versions() {
    let home = Home::new();
    let cluster = home.cluster("");
    let client = cluster.client();

    for (services, files) in [reflected!(&client, v1), reflected!(&client, v1alpha)] {
        for service in ["millefeuille.v1.Cluster", "millefeuille.v1.Worker", "grpc.health.v1.Health"] {
            assert!(services.iter().any(|name| name == service), "{service} in {services:?}");
        }
        assert!(files >= 1, "the file that describes the cluster's service");
    }
}

#[test]
fn metrics_are_available_before_during_and_after_a_training() {
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();
    let _worker = cluster.joined_by("--slots 2");

    let before = client.metrics("").unwrap();
    assert!(before.job.is_none() && before.history.is_empty() && before.workers.len() == 1, "{before:?}");

    let id = client.submit(&small_job_as("metered", 40), "").unwrap();
    let during = until("two epochs are finished, and a step", || {
        let metrics = client.metrics("").unwrap();
        let stepping = metrics.progress.as_ref().is_some_and(|progress| progress.step > 0);
        (metrics.history.len() >= 2 && stepping).then_some(metrics)
    });
    let (running, progress) = (during.job.unwrap(), during.progress.unwrap());
    assert_eq!((running.id.as_str(), running.state()), (id.as_str(), v1::JobState::Running));
    assert_eq!((running.epochs, running.steps_per_epoch), (40, 17));
    assert!(progress.epoch >= 2 && progress.step <= 17 && progress.step_ms > 0.0, "{progress:?}");
    assert!(progress.samples_per_second > 0.0 && progress.loss > 0.0, "{progress:?}");
    assert!(during.step_time.is_some_and(|time| time.compute_ms > 0.0), "{:?}", during.step_time);
    let worker = &during.workers[0];
    assert_eq!((worker.first_shard, worker.end_shard, worker.slots), (0, 8, 2));
    assert!(worker.bytes_sent > 0 && worker.bytes_received > 0 && worker.shards_held == 24, "{worker:?}");
    assert!(worker.samples_per_second > 0.0 && worker.last_heard_seconds < 60.0, "{worker:?}");
    assert!(!worker.kernel.is_empty() && worker.fingerprint.len() == 64, "{worker:?}");

    cluster.job_is(&client, &id, "done");
    let after = client.metrics("").unwrap();
    let run = home.run(&format!("runs/{id}"));
    assert_eq!(after.history.len(), 40);
    let losses = after.history.iter().map(|epoch| epoch.loss).collect::<Vec<_>>();
    assert_eq!(losses, run.figures("loss"));
    let losses = after.history.iter().filter_map(|epoch| epoch.val_loss).collect::<Vec<_>>();
    assert_eq!(losses, run.figures("val_loss"));
    assert_eq!(after.history.last().unwrap().weights_sha256, run.hash());
    assert_eq!(client.metrics(&id).unwrap().history.len(), 40);
    assert_eq!(client.metrics("none-1").unwrap_err().code(), Code::NotFound);
}

#[test]
fn metrics_are_streamed() {
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();
    let _worker = cluster.joined_by("--slots 2");
    client.submit(&small_job_as("streamed", 100_000), "").unwrap();

    let request = v1::WatchMetricsRequest { interval_ms: 50, ..Default::default() };
    let mut stream = client.call(async |cluster| cluster.watch_metrics(request).await).unwrap();

    let (mut places, mut epochs) = (Vec::new(), Vec::new());
    while places.iter().collect::<std::collections::BTreeSet<_>>().len() < 3 {
        let message = client.next(&mut stream).unwrap().expect("the stream goes on while the cluster does");
        let metrics = message.metrics.unwrap();
        places.extend(metrics.progress.map(|progress| (progress.epoch, progress.step)));
        epochs.extend(metrics.history.iter().map(|row| row.epoch));
    }
    assert!(epochs.iter().copied().eq(1..=epochs.len() as u32), "each epoch is sent once: {epochs:?}");
    assert!(places.is_sorted(), "training goes forward: {places:?}");
}

#[test]
fn a_job_is_followed_from_any_time_to_its_end() {
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();
    let id = client.submit(&small_job_as("followed", 3), "").unwrap();
    let early = client.clone();
    let from_the_start = std::thread::spawn({
        let id = id.clone();
        move || early.watch_job(&id)
    });
    let _worker = cluster.joined_by("--slots 1");

    let messages = from_the_start.join().unwrap();
    let afterwards = client.watch_job("");

    for messages in [&messages, &afterwards] {
        let epochs: Vec<_> =
            messages.iter().flat_map(|message| &message.new_epochs).map(|e| e.epoch).collect();
        assert_eq!(epochs, [1, 2, 3], "each once");
        let outcomes: Vec<_> = messages.iter().filter_map(|message| message.outcome.as_ref()).collect();
        assert_eq!(outcomes.len(), 1);
        assert_eq!(outcomes[0].exit_code, 0);
        assert_eq!(outcomes[0].weights_sha256, home.run(&format!("runs/{id}")).hash());
        assert_eq!(outcomes[0].predictions.len(), 10);
    }
}

#[test]
fn jobs_queue_in_order_and_can_be_cancelled() {
    // Given three jobs and no worker …
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();
    for name in ["a", "b", "c"] {
        client.submit(&small_job_as(name, 100_000), "").unwrap();
    }

    // … the first waits for workers, and the others are queued.
    until("the first waits for workers", || {
        client.jobs().last().is_some_and(|job| job.detail.contains("waiting for workers")).then_some(())
    });
    assert_eq!(
        queue(&client),
        [line("c-1", "queued", 2), line("b-1", "queued", 1), line("a-1", "waiting", 0)]
    );
    let listed = cluster.ask("jobs");
    let states: Vec<_> = listed.iter().map(|job| (job["id"].as_str(), job["state"].as_str())).collect();
    assert_eq!(
        states,
        [("c-1", "queued"), ("b-1", "queued"), ("a-1", "waiting")].map(|(id, state)| (Some(id), Some(state)))
    );
    assert!(listed.iter().all(|job| job["name"].is_string() && job["run_dir"].is_string()), "{listed:?}");

    // When the second is cancelled, the third moves up.
    assert_eq!(client.cancel("b-1").unwrap().state(), v1::JobState::Cancelled);
    assert_eq!(
        queue(&client),
        [line("c-1", "queued", 1), line("b-1", "cancelled", 0), line("a-1", "waiting", 0)]
    );

    // When a worker joins, the first runs; when that is cancelled, the third does.
    let _worker = cluster.joined_by("--slots 2");
    cluster.job_is(&client, "a-1", "running");
    assert_eq!(client.job_state("c-1"), "queued");
    let error = cluster.coordinator("cancel").fails(2);
    assert!(error.contains("JOB"), "nothing is cancelled that was not named: {error}");
    let cancelled = cluster.coordinator("cancel --running").succeeds();
    assert!(cancelled.stdout.contains("a-1: cancelled"), "{cancelled}");
    cluster.job_is(&client, "c-1", "running");
    let cancelled = cluster.coordinator("cancel c-1").succeeds();
    assert!(cancelled.stdout.contains("c-1: cancelled"), "{cancelled}");

    // A finished job is done, and can no longer be cancelled.
    let id = client.submit(&small_job_as("d", 1), "").unwrap();
    cluster.job_is(&client, &id, "done");
    client.cancel(&id).unwrap();
    assert_eq!(client.job_state(&id), "done");
    assert_eq!(client.cancel("none-1").unwrap_err().code(), Code::NotFound);
    let unnamed = client.cancel("").unwrap_err();
    assert_eq!(unnamed.code(), Code::InvalidArgument);
    assert!(unnamed.message().contains("names no job to cancel"), "{unnamed}");
    assert!(cluster.coordinator("cancel none-1").fails(2).contains("none-1"));
}

#[test]
fn a_job_that_is_cancelled_in_the_queue_stays_listed_after_a_restart() {
    let home = Home::small();
    let mut cluster = home.lasting_cluster("");
    let client = cluster.client();
    for name in ["a", "b"] {
        client.submit(&small_job_as(name, 1), "").unwrap();
    }
    cluster.is_killed();
    cluster.comes_back("");
    let client = cluster.client();
    client.submit(&small_job_as("c", 1), "").unwrap();

    // One was found when the cluster started, one is new.
    client.cancel("b-1").unwrap();
    client.cancel("c-1").unwrap();
    cluster.is_killed();
    cluster.comes_back("");

    let client = cluster.client();
    let states: Vec<_> = client.jobs().into_iter().map(|job| (job.id.clone(), job.state())).collect();
    let cancelled = |id: &str| (id.to_string(), v1::JobState::Cancelled);
    assert_eq!(states[..2], [cancelled("c-1"), cancelled("b-1")]);
    for id in ["b-1", "c-1"] {
        assert!(home.run(&format!("runs/{id}")).has("job.toml"), "{id}");
        home.coordinator(&format!("train --workers 1 --run-dir runs/{id} --resume")).succeeds();
        home.coordinator(&format!("verify runs/{id}")).succeeds();
    }
}

#[test]
fn followers_of_a_cancelled_job_are_notified() {
    let home = Home::small();
    let cluster = home.cluster("");
    let _worker = cluster.joined_by("--slots 1");
    let mut following = cluster.coordinator("train small.toml --epochs 100000").start();
    following.says("Epoch 1/");

    cluster.coordinator("cancel small-1").succeeds();

    let error = following.wait().error(130);
    assert!(
        error.contains("job small-1 was cancelled; epochs finished and kept in runs/small-1: "),
        "{error}"
    );
    assert!(error.contains("coordinator train --run-dir runs/small-1 --resume finishes it"), "{error}");
}

#[test]
fn followers_of_a_queued_job_that_is_cancelled_are_sent_to_no_directory() {
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();
    client.submit(&small_job_as("first", 100_000), "").unwrap();
    let mut following = cluster.coordinator("train small.toml").start();
    following.says("small-1 is queued");

    cluster.coordinator("cancel small-1").succeeds();

    let error = following.wait().error(130);
    assert_eq!(error, "job small-1 was cancelled before it began; nothing is kept");
}

#[test]
fn all_jobs_are_cancelled_after_a_question_only() {
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();
    for name in ["a", "b"] {
        client.submit(&small_job_as(name, 100_000), "").unwrap();
    }

    let error = cluster.coordinator("cancel --all").fails(2);
    assert!(error.contains("--yes"), "no terminal, no answer: {error}");
    assert_eq!(client.job_state("b-1"), "queued");

    let cancelled = cluster.coordinator("cancel --all --yes").succeeds();
    assert_eq!(cancelled.stdout, "job b-1: cancelled\njob a-1: cancelled\n");
    let nothing = cluster.coordinator("cancel --all --yes").succeeds();
    assert_eq!(nothing.stdout, "no job is queued or runs\n");
    assert!(cluster.coordinator("cancel --running").fails(2).contains("no job runs"));
}

#[test]
fn a_cancelled_run_that_is_finished_by_hand_is_listed_as_done() {
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();
    let _worker = cluster.joined_with("worker-slow=sleep(2)");
    client.submit(&small_job_as("small", 6), "").unwrap();
    cluster.job_is(&client, "small-1", "running");
    until("an epoch has ended", || (!home.run("runs/small-1").history().is_empty()).then_some(()));
    assert_eq!(client.cancel("small-1").unwrap().state(), v1::JobState::Cancelled);

    home.coordinator("train --run-dir runs/small-1 --resume --workers 1").succeeds();

    cluster.job_is(&client, "small-1", "done");
    assert_eq!(cluster.ask("jobs")[0]["epochs_done"], 6);
}

#[test]
fn metrics_of_a_job_whose_directory_was_removed_have_no_rows() {
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();
    let _worker = cluster.joined_by("--slots 1");
    client.submit(&small_job_as("small", 2), "").unwrap();
    cluster.job_is(&client, "small-1", "done");
    assert_eq!(cluster.ask("metrics")[0]["history"].as_array().map(Vec::len), Some(2));

    std::fs::remove_dir_all(home.path("runs/small-1")).unwrap();

    let without = &cluster.ask("metrics small-1")[0];
    assert_eq!(without["job"]["state"], "done");
    assert_eq!(without["history"].as_array().map(Vec::len), Some(0), "{without}");
}

#[test]
fn metrics_without_a_job_are_those_of_the_running_one() {
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();
    client.submit(&small_job_as("first", 100_000), "").unwrap();
    client.submit(&small_job_as("later", 1), "").unwrap();
    let _worker = cluster.joined_by("--slots 1");
    cluster.job_is(&client, "first-1", "running");

    let text = cluster.coordinator("metrics").succeeds().stdout;

    assert!(text.starts_with("job first-1: running"), "{text}");
    client.cancel("later-1").unwrap();
    client.cancel("first-1").unwrap();
    assert_eq!(cluster.ask("metrics")[0]["job"]["id"], "first-1", "the last that had its turn");
}

#[test]
fn followers_of_a_queued_job_receive_its_place() {
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();
    client.submit(&small_job_as("first", 100_000), "").unwrap();
    let mut following = cluster.coordinator("train small.toml").start();

    following.says("small-1 is queued, number 1 in line");

    client.cancel("first-1").unwrap();
    let _worker = cluster.joined_by("--slots 1");
    following.wait().with_code(0);
}

#[test]
fn a_submission_that_is_repeated_gives_one_job() {
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();

    let first = client.submit(&small_job_as("once", 1), "key").unwrap();
    let again = client.submit(&small_job_as("once", 1), "key").unwrap();
    let other = client.submit(&small_job_as("once", 1), "another key").unwrap();

    assert_eq!(first, again);
    assert_ne!(first, other);
    assert_eq!(client.jobs().len(), 2);
}

#[test]
fn the_model_of_a_finished_job_can_be_downloaded() {
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();
    let id = client.submit(SMALL_JOB, "").unwrap();
    assert_eq!(client.model(&id).unwrap_err().code(), Code::FailedPrecondition);

    let _worker = cluster.joined_by("--slots 2");
    cluster.job_is(&client, &id, "done");

    let file = home.run(&format!("runs/{id}")).bytes("model.safetensors");
    assert!(client.model(&id).unwrap() == file);
    assert!(client.model("").unwrap() == file, "without an id, the newest that is done");
    assert_eq!(client.model("none-1").unwrap_err().code(), Code::NotFound);
}

#[test]
fn serve_can_begin_with_a_job() {
    let home = Home::small();
    let cluster = home.cluster("--job small.toml");
    let client = cluster.client();
    let _worker = cluster.joined_by("--slots 1");

    cluster.job_is(&client, "small-1", "done");

    assert_eq!(home.run("runs/small-1").history().len(), 3);
}

#[test]
fn commands_print_tables_or_json() {
    let home = Home::small();
    let cluster = home.cluster("");
    let none = |command: &str| cluster.coordinator(command).succeeds().stdout;
    assert!(none("jobs").contains("no jobs") && none("workers").contains("no workers"));
    assert!(cluster.ask("jobs").is_empty() && cluster.ask("workers").is_empty());
    assert!(cluster.ask("metrics")[0]["job"].is_null());

    let _worker = cluster.joined_by("--slots 2");
    cluster.coordinator("train small.toml").succeeds();

    let jobs = cluster.ask("jobs");
    let first: BTreeMap<_, _> =
        jobs[0].as_object().unwrap().iter().map(|(key, value)| (key.as_str(), value)).collect();
    assert_eq!(first["id"], "small-1");
    assert_eq!(first["name"], "small");
    assert_eq!(first["state"], "done");
    let run_dir = std::path::Path::new(first["run_dir"].as_str().unwrap());
    assert!(home.path("").join(run_dir).join("receipt.json").is_file(), "{run_dir:?}");

    let workers = cluster.ask("workers");
    assert_eq!(
        (workers.len(), workers[0]["slots"].as_u64(), workers[0]["state"].as_str()),
        (1, Some(2), Some("idle"))
    );

    let metrics = cluster.ask("metrics");
    assert_eq!(metrics[0]["job"], jobs[0], "a job has one form");
    assert_eq!(metrics[0]["history"], serde_json::Value::from(home.run("runs/small-1").history()));

    for (command, texts) in [
        ("jobs", ["small-1", "done"]),
        ("workers", ["idle", "kernel"]),
        ("metrics small-1", ["val_loss", "small-1"]),
    ] {
        let text = none(command);
        assert!(texts.iter().all(|part| text.contains(part)), "{command}: {text}");
    }
}

#[test]
fn the_reason_of_a_failed_job_is_the_same_everywhere() {
    let home = Home::small();
    let cluster = home.cluster("");
    let client = cluster.client();
    let _worker = cluster.joined_by("--slots 2");

    let line = cluster.coordinator("train small.toml --learning-rate 3e38").fails(6);

    // In JSON, with the consequences of its kind.
    let job = cluster.ask("jobs").remove(0);
    let failure = &job["failure"];
    assert_eq!((&failure["kind"], &failure["exit_code"]), (&"diverged".into(), &6.into()), "{job}");
    let (what, remedy) = (failure["what"].as_str().unwrap(), failure["remedy"].as_str().unwrap());
    let said = format!("{what}; {remedy}");
    assert_eq!(job["detail"], said.as_str());
    assert!(line.contains(&said), "{said} in {line}");
    // In the run directory.
    let run = home.run("runs/small-1");
    let event = run.events().pop().unwrap();
    assert_eq!((&event["event"], &event["text"]), (&"end".into(), &said.as_str().into()), "{event}");
    assert_eq!(&event["failure"], failure);
    let record: serde_json::Value = serde_json::from_str(&run.text("run.json")).unwrap();
    assert_eq!(&record["outcome"]["failure"], failure);
    // Over gRPC.
    let of_job = client.jobs().remove(0).failure.expect("it failed");
    assert_eq!((of_job.kind(), of_job.what.as_str()), (v1::FailureKind::Diverged, what));
    let outcome = client.watch_job("").pop().unwrap().outcome.expect("it has ended");
    assert_eq!((outcome.exit_code, outcome.failure, outcome.message), (6, Some(of_job), said));
    // As the error of a refused call.
    let refused = convert::failure_of(&client.cancel("none-1").unwrap_err());
    assert_eq!(refused, Failure::new(FailureKind::NotFound, "there is no job none-1"));
}
