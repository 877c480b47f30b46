//! A coordinator as a server: what one caller, one job or one disk does must not cost the others.

use std::fs;
use std::os::unix::fs::symlink;

use millefeuille_coordinator::runs::{Ending, Existing, RunDir};
use millefeuille_core::job::Job;
use millefeuille_core::view::EpochRow;
use millefeuille_proto::v1;
use millefeuille_tests::cluster::Cluster;
use millefeuille_tests::data::small_job_as;
use millefeuille_tests::home::Home;
use millefeuille_tests::process::{Process, until};
use millefeuille_tests::rpc::Client;
use tonic::Code;

#[test]
fn a_cancelled_job_whose_data_hangs_blocks_no_later_one() {
    let home = Home::small();
    let call = home.serve("127.0.0.1:0", "").env("FAILPOINTS", "data-before-read=1*sleep(600000)");
    let mut cluster = Cluster::start(&home, call);
    let client = cluster.client();
    let hangs = client.submit(&small_job_as("hangs", 1), "").unwrap();
    let next = client.submit(&small_job_as("next", 1), "").unwrap();
    until("the data is being read", || {
        let job = client.jobs().into_iter().find(|job| job.id == hangs).expect("it is listed");
        (job.detail == "reading the data").then_some(())
    });

    assert_eq!(client.cancel(&hangs).unwrap().state(), v1::JobState::Cancelled);

    let _worker = cluster.joined_by("--slots 1");
    cluster.job_is(&client, &next, "done");
    // The end of a job that never ran is on disk: nothing brings it back.
    assert!(home.path("runs").join(&hangs).join("run.json").exists());
    cluster.is_killed();
    cluster.comes_back("");
    assert_eq!(cluster.client().job_state(&hangs), "cancelled");
    assert_eq!(cluster.client().job_state(&next), "done");
}

/// A run that was cancelled after so many epochs, as an earlier coordinator left it.
fn left(home: &Home, name: &str, number: u64, epochs: u64) {
    let path = home.path("runs").join(name);
    let mut run = RunDir::claim(&path, Existing::Refuse).expect("the directory is free");
    let job = Job::parse("job", &small_job_as("left", 100_000)).expect("a job");
    run.submit(&job, number, "").expect("files can be written");
    for epoch in 1..=epochs {
        let row = EpochRow {
            epoch,
            loss: 0.5,
            accuracy: Some(0.5),
            test_loss: Some(0.25),
            test_accuracy: Some(0.75),
            seconds: 1.0,
            weights_sha256: "ab".repeat(32),
            ..EpochRow::default()
        };
        run.append_history(&row).expect("files can be written");
    }
    run.end(Ending::cancelled()).expect("files can be written");
}

#[test]
fn a_thousand_ended_jobs_are_listed_after_a_restart_in_pages() {
    let home = Home::small();
    (1..=1_010).for_each(|number| left(&home, &format!("left-{number}"), number, 0));
    let cluster = home.cluster("");
    let client = cluster.client();

    let first = client.call(async |cluster| cluster.list_jobs(v1::ListJobsRequest::default()).await).unwrap();
    assert_eq!((first.jobs.len(), first.jobs[0].id.as_str()), (100, "left-1010"), "the newest come first");
    let jobs = client.jobs();
    assert_eq!(jobs.len(), 1_000, "of older ones the run directories remain");
    assert_eq!(jobs.last().unwrap().id, "left-11");
    assert_eq!(cluster.ask("jobs").len(), 1_000);

    let wrong = v1::ListJobsRequest { page_token: "next".into(), ..Default::default() };
    let refused = client.call(async |cluster| cluster.list_jobs(wrong).await).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("page_token \"next\""), "{refused}");
}

#[test]
fn a_long_history_comes_in_pages() {
    let home = Home::small();
    left(&home, "left-1", 1, 2_500);
    let cluster = home.cluster("");
    let client = cluster.client();
    let numbers = |rows: &[v1::Epoch]| rows.iter().map(|row| row.epoch).collect::<Vec<_>>();

    let messages = client.watch_job("left-1");
    let sizes: Vec<_> = messages.iter().map(|message| message.new_epochs.len()).collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
    assert!(messages.iter().flat_map(|message| numbers(&message.new_epochs)).eq(1..=2_500));
    let ended: Vec<_> = messages.iter().map(|message| message.outcome.is_some()).collect();
    assert_eq!(ended, [false, false, true], "the end comes with the last page");

    let request = v1::WatchJobRequest { job_id: "left-1".into(), after_epoch: 2_498 };
    let stream = client.call(async |cluster| cluster.watch_job(request).await).unwrap();
    let news = client.rest(stream).unwrap();
    assert_eq!((news.len(), numbers(&news[0].new_epochs)), (1, vec![2_499, 2_500]));

    let request = v1::GetMetricsRequest { job_id: "left-1".into(), after_epoch: 1_500 };
    let page = client.call(async |cluster| cluster.get_metrics(request).await).unwrap();
    assert!(numbers(&page.history).into_iter().eq(1_501..=2_500));
    assert_eq!(page.epochs_ended, 2_500);
    assert_eq!(cluster.ask("metrics left-1")[0]["history"].as_array().unwrap().len(), 2_500);
}

#[test]
fn predictions_are_kept_for_the_jobs_that_ended_last() {
    let home = Home::small();
    let cluster = home.cluster("");
    let _worker = cluster.joined_by("--slots 1");
    let client = cluster.client();
    let ids: Vec<_> = (0..6).map(|_| client.submit(&small_job_as("short", 1), "").unwrap()).collect();
    cluster.job_is(&client, &ids[5], "done");

    let shown = |id: &String| {
        let outcome = client.watch_job(id).pop().and_then(|message| message.outcome).expect("it has ended");
        assert_eq!(outcome.weights_sha256, home.run(&format!("runs/{id}")).hash());
        outcome.predictions.len()
    };
    assert_eq!(ids.iter().map(shown).collect::<Vec<_>>(), [0, 0, 10, 10, 10, 10]);
}

#[test]
fn only_the_model_that_was_written_is_served() {
    let home = Home::small();
    home.coordinator("train small.toml --workers 1 --epochs 1 --run-dir other").succeeds();
    let cluster = home.cluster("");
    let _worker = cluster.joined_by("--slots 1");
    let client = cluster.client();
    let id = client.submit(&small_job_as("served", 2), "").unwrap();
    cluster.job_is(&client, &id, "done");
    let model = home.path("runs").join(&id).join("model.safetensors");
    let written = fs::read(&model).unwrap();
    assert_eq!(client.model(&id).unwrap(), written);

    let refused = |place: &dyn Fn()| {
        fs::remove_file(&model).unwrap();
        place();
        let status = client.model(&id).unwrap_err();
        assert!(status.message().contains("model.safetensors: "), "{status}");
        status.message().to_string()
    };
    let pipe = refused(&|| _ = home.call("mkfifo".as_ref(), &model.display().to_string()).succeeds());
    assert!(pipe.contains("not a regular file"), "{pipe}");
    let endless = refused(&|| symlink("/dev/zero", &model).unwrap());
    assert!(endless.contains("not a regular file"), "{endless}");
    let other = refused(&|| _ = fs::copy(home.path("other/model.safetensors"), &model).unwrap());
    assert!(other.contains("weights_sha256 is "), "{other}");
    let no_model = refused(&|| fs::write(&model, [0xff; 64]).unwrap());
    assert!(no_model.contains("not a safetensors file"), "{no_model}");

    fs::write(&model, &written).unwrap();
    assert_eq!(client.model(&id).unwrap(), written, "none of this has cost a place");
}

/// What a process has in memory now, in KiB.
fn resident(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[test]
fn models_that_nobody_reads_cost_little_memory() {
    const CALLS: usize = 120;
    let home = Home::small();
    let cluster = home.cluster("");
    let _worker = cluster.joined_by("--slots 1");
    let client = cluster.client();
    let wide = small_job_as("wide", 1)
        .replace("units = 24", "units = 2400")
        .replace("batch_size = 100", "batch_size = 1000");
    let id = client.submit(&wide, "").unwrap();
    cluster.job_is(&client, &id, "done");
    let bytes = client.model(&id).unwrap().len() as u64;
    let before = resident(&cluster.serve);

    let clients: Vec<_> = (0..8).map(|_| Client::connect(&cluster.address)).collect();
    let unread: Vec<_> = (0..CALLS)
        .map(|call| {
            let client = &clients[call % clients.len()];
            let request = v1::GetModelRequest { job_id: id.clone() };
            client.call(async |cluster| cluster.get_model(request).await).expect("it is served")
        })
        .collect();

    let grown = resident(&cluster.serve).saturating_sub(before);
    let held = CALLS as u64 * bytes / 1024;
    assert!(grown < held / 4, "{grown} KiB more for {CALLS} calls of {bytes} bytes");
    // Who reads is served all the same, and more calls are refused than there are places.
    assert_eq!(client.model(&id).unwrap().len() as u64, bytes);
    drop(unread);
}
