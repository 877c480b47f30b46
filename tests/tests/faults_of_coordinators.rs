//! Crashes of the coordinator at any point: training resumes and gives the same model.

use std::fs;

use millefeuille_tests::cluster::Cluster;
use millefeuille_tests::data::SMALL_JOB;
use millefeuille_tests::home::Home;
use millefeuille_tests::process::{Process, Signal, until};
use millefeuille_tests::rpc::Client;
use millefeuille_tests::run::Run;
use serde_json::Value;

const JOB: &str = "small.toml --epochs 8";
/// At least one millisecond per piece: the job takes long enough to inject faults.
const SLOWED: &str = "worker-slow=sleep(1)";
/// Several checkpoints per epoch.
const OFTEN: &str = "--checkpoint-interval 0.05";

/// A worker that keeps running when its coordinator ends.
fn worker(cluster: &Cluster<'_>) -> Process {
    let mut worker = cluster.worker("--slots 1").env("FAILPOINTS", SLOWED).start();
    worker.says("joined as worker");
    worker
}

/// The small job with so many epochs.
fn job_of(home: &Home, epochs: u32) -> String {
    let job = SMALL_JOB.replace("epochs = 3", &format!("epochs = {epochs}"));
    job.replace("\"data\"", &format!("{:?}", home.path("data").display().to_string()))
}

/// The position of the running job: epoch and step.
fn progress(client: &Client) -> (u32, u32) {
    let progress = client.metrics("").ok().and_then(|metrics| metrics.progress).unwrap_or_default();
    (progress.epoch, progress.step)
}

/// The times of the first and the last event of a run.
fn times(run: &Run) -> (f64, f64) {
    let times: Vec<f64> = run.events().iter().filter_map(|event| event["time"].as_f64()).collect();
    (times[0], times[times.len() - 1])
}

#[test]
fn after_repeated_kills_workers_and_clients_reconnect() {
    let home = Home::small();
    let alone = home.undisturbed("small.toml --epochs 20");
    let mut cluster = home.lasting_cluster(OFTEN);
    let mut workers = [worker(&cluster), worker(&cluster)];
    let mut following = cluster.coordinator("train small.toml --epochs 20").start();
    following.says("Epoch 1/");

    for life in 1..=4 {
        let client = cluster.client();
        let before = progress(&client);
        until("the job has come further", || (progress(&client) > before).then_some(()));
        cluster.is_killed();
        cluster.comes_back(OFTEN);
        cluster.serve.says("job small-1 is resumed");
        until(format!("in life {life} it is known where the run went on"), || {
            home.run("runs/small-1").told("resumed").last().map(|_| ())
        });
    }

    let ended = following.wait().with_code(0);
    assert!(ended.stderr.contains("looking for it") && ended.stdout.contains(&alone.hash()), "{ended}");
    for epoch in 1..=20 {
        let lines = ended.stderr.matches(&format!("Epoch {epoch}/20 ")).count();
        assert_eq!(lines, 1, "each epoch is reported once: {ended}");
    }
    assert!(workers.iter_mut().all(Process::is_running), "the workers are the same all the time");
    let run = home.run("runs/small-1");
    let resumed = run.told("resumed");
    assert!(
        resumed.iter().all(|told| told.contains("checkpoints/")),
        "nothing from the beginning: {resumed:?}"
    );
    alone.is_equalled_by(&run);
}

/// Failpoints at which a coordinator with a job dies, each at a pass that every run reaches.
const POINTS: [&str; 13] = [
    "checkpoint-before-fsync=2*off->return",
    "checkpoint-before-fsync=3*off->return",
    "checkpoint-after-fsync=4*off->return",
    "checkpoint-before-rename=5*off->return",
    "checkpoint-after-rename=6*off->return",
    "checkpoint-after-rename=7*off->return",
    "checkpoint-before-manifest=3*off->return",
    "history-after-append=2*off->return",
    "record-before-rename=return",
    "file-after-rename=return",
    "receipt-before-fsync=return",
    "receipt-before-rename=return",
    "receipt-after-rename=return",
];

#[test]
fn a_crash_at_any_write_does_not_change_the_model() {
    let home = Home::small();
    let job = "small.toml --epochs 4";
    let alone = home.undisturbed(job);
    let mut cluster = home.lasting_cluster(OFTEN);
    let _worker = worker(&cluster);
    for (point, number) in POINTS.into_iter().zip(1..) {
        cluster.is_killed();
        cluster.comes_back_as(home.serve(&cluster.address, OFTEN).env("FAILPOINTS", point));
        let mut following = cluster.coordinator(&format!("train {job}")).start();

        let died = cluster.serve.wait();
        assert!(died.killed_by().is_some(), "{point}: {died}");
        cluster.comes_back(OFTEN);

        following.wait().with_code(0);
        let jobs = cluster.client().jobs();
        assert_eq!(jobs.len(), number, "{point}: it was submitted once: {jobs:?}");
        alone.is_equalled_by(&home.run(&jobs[0].run_dir));
    }
}

#[test]
fn a_crash_at_any_point_of_a_submission_loses_no_acknowledged_job() {
    let home = Home::small();
    let alone = home.undisturbed("small.toml");
    let mut cluster = home.lasting_cluster("");
    let _worker = worker(&cluster);
    let points = ["before-fsync", "after-fsync", "before-rename", "after-rename"];
    for (point, number) in points.into_iter().zip(1..) {
        cluster.is_killed();
        let serve = home.serve(&cluster.address, "").env("FAILPOINTS", format!("submit-{point}=return"));
        cluster.comes_back_as(serve);
        let mut following = cluster.coordinator("train small.toml").start();

        let died = cluster.serve.wait();
        assert!(died.killed_by().is_some(), "{point}: {died}");
        cluster.comes_back("");

        following.wait().with_code(0);
        let jobs = cluster.client().jobs();
        assert_eq!(jobs.len(), number, "{point}: it was submitted once: {jobs:?}");
        alone.is_equalled_by(&home.run(&jobs[0].run_dir));
    }
}

#[test]
fn the_queue_keeps_its_order_and_names_after_a_restart() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let mut cluster = home.lasting_cluster(OFTEN);
    let _worker = worker(&cluster);
    let client = cluster.client();
    let jobs = ["one", "two", "three"];
    jobs.iter().for_each(|key| _ = client.submit(&job_of(&home, 8), key).expect("it is taken"));
    cluster.job_is(&client, "small-1", "running");

    cluster.is_killed();
    cluster.comes_back(OFTEN);

    let client = cluster.client();
    let listed: Vec<_> = client.jobs().into_iter().map(|job| (job.id, job.queue_place)).collect();
    let expected = [("small-3", 2), ("small-2", 1), ("small-1", 0)];
    assert_eq!(listed, expected.map(|(id, place)| (id.to_string(), place)));
    cluster.job_is(&client, "small-3", "done");
    let runs = [1, 2, 3].map(|number| home.run(&format!("runs/small-{number}")));
    runs.iter().for_each(|run| alone.is_equalled_by(run));
    assert!(times(&runs[0]).1 <= times(&runs[1]).0 && times(&runs[1]).1 <= times(&runs[2]).0, "one by one");
}

#[test]
fn an_acknowledged_submission_survives_a_crash_and_is_not_repeated() {
    let home = Home::small();
    let mut cluster = home.lasting_cluster("");
    let job = job_of(&home, 3);

    let id = cluster.client().submit(&job, "the same").expect("it is taken");
    cluster.is_killed();
    cluster.comes_back("");

    let client = cluster.client();
    let jobs = client.jobs();
    assert!(jobs.len() == 1 && jobs[0].id == id, "{jobs:?}");
    assert_eq!(client.submit(&job, "the same").unwrap(), id);
    assert_eq!(client.jobs().len(), 1);
    assert_ne!(client.submit(&job, "another").unwrap(), id);
}

#[test]
fn on_sigterm_it_checkpoints_disconnects_workers_and_resumes_later() {
    let home = Home::small();
    let alone = home.undisturbed("small.toml --epochs 20");
    let mut cluster = home.lasting_cluster("--checkpoint-interval 3600");
    let mut first = worker(&cluster);
    let client = cluster.client();
    client.submit(&job_of(&home, 20), "").expect("it is taken");
    until("the job is in an epoch's middle", || (progress(&client) > (2, 3)).then_some(()));

    cluster.serve.signal(Signal::TERM);

    cluster.serve.wait().with_code(0);
    let ended = first.wait().with_code(0);
    assert!(ended.stderr.contains("the coordinator ended the session"), "{ended}");
    let run = home.run("runs/small-1");
    let rows = run.history().len();
    cluster.comes_back("");
    let _next = worker(&cluster);
    let client = cluster.client();
    cluster.job_is(&client, "small-1", "done");
    let resumed = run.told("resumed");
    assert_eq!(resumed.len(), 1);
    let place = format!(" of epoch {}", rows + 1);
    assert!(resumed[0].contains("before step ") && resumed[0].contains(&place), "{rows} rows, {resumed:?}");
    alone.is_equalled_by(&run);
}

#[test]
fn the_job_of_serve_is_resumed_and_not_repeated_once_it_is_done() {
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    home.write("served.toml", SMALL_JOB.replace("epochs = 3", "epochs = 8"));
    let settings = &format!("{OFTEN} --job served.toml");
    let mut cluster = home.lasting_cluster(settings);
    let _worker = worker(&cluster);
    let client = cluster.client();
    until("it trains", || (progress(&client) > (1, 0)).then_some(()));

    cluster.is_killed();
    cluster.comes_back(settings);

    let client = cluster.client();
    cluster.job_is(&client, "small-1", "done");
    let run = home.run("runs/small-1");
    alone.is_equalled_by(&run);
    let before = run.snapshot();
    cluster.is_killed();
    cluster.comes_back(settings);
    let client = cluster.client();
    // It would resume the first job before it begins another one.
    client.submit(&job_of(&home, 3), "").expect("it is taken");
    cluster.job_is(&client, "small-2", "done");
    assert_eq!(client.jobs().len(), 2);
    assert!(run.snapshot() == before, "what is done is skipped");
}

#[test]
fn a_killed_training_is_resumed_from_its_checkpoint() {
    let home = Home::small();
    let alone = home.undisturbed("small.toml --epochs 20");
    let train = format!("train small.toml --epochs 20 --run-dir run {OFTEN}");
    let mut killed = home.coordinator(&format!("{train} --workers 2")).start();
    killed.says("Epoch 3/");

    killed.signal(Signal::KILL);
    killed.wait();

    home.coordinator(&format!("{train} --workers 3 --resume")).succeeds();
    let resumed = home.run("run").told("resumed");
    assert!(resumed.len() == 1 && resumed[0].contains("checkpoints/"), "{resumed:?}");
    alone.is_equalled_by(&home.run("run"));
}

#[test]
fn an_interrupted_training_repeats_no_epoch_when_it_is_resumed() {
    let home = Home::small();
    let alone = home.undisturbed("small.toml --epochs 40");
    let train = "train small.toml --epochs 40 --run-dir run --workers 2";
    let mut interrupted = home.coordinator(train).start();
    interrupted.says("Epoch 3/");

    interrupted.signal(Signal::INT);
    interrupted.wait().error(130);

    let run = home.run("run");
    let rows = run.history().len();
    home.coordinator(&format!("{train} --resume")).succeeds();
    let resumed = run.told("resumed");
    assert!(resumed[0].contains(&format!(" of epoch {}", rows + 1)), "{rows} rows, {resumed:?}");
    alone.is_equalled_by(&run);
}

#[test]
fn a_running_run_directory_is_locked() {
    let home = Home::small();
    let cluster = home.cluster("");
    let _worker = worker(&cluster);
    let client = cluster.client();
    client.submit(&job_of(&home, 100_000), "").expect("it is taken");
    cluster.job_is(&client, "small-1", "running");

    let train = "train small.toml --epochs 100000 --run-dir runs/small-1 --resume";
    let error = home.coordinator(train).fails(3);

    assert!(error.contains(&format!(":{}", cluster.serve.pid())), "{error}");
    assert_eq!(client.job_state("small-1"), "running");
}

#[test]
fn a_second_cluster_over_the_same_runs_is_refused() {
    let home = Home::small();
    let mut cluster = home.cluster("");
    let holder = format!(":{}, listening on {}, ", cluster.serve.pid(), cluster.address);

    let error = home.serve("127.0.0.1:0", "").fails(3);

    assert!(error.starts_with("runs: process ") && error.contains(&holder), "{error}");
    assert!(error.contains("end that process, or name another directory"), "{error}");
    cluster.serve.signal(Signal::TERM);
    cluster.serve.wait().with_code(0);
    let _second = home.cluster("");
}

#[test]
fn a_full_disk_ends_the_job_and_damages_no_file() {
    // No file may have more than 80 KiB: room for a checkpoint's 77, and for twenty epochs of the ledger.
    let home = Home::small();
    let job = "small.toml --epochs 30";
    let alone = home.undisturbed(job);
    let script = format!(
        "ulimit -f 160; trap '' XFSZ; exec {} train {job} --workers 2 --run-dir run",
        millefeuille_tests::home::binary("coordinator").display()
    );
    let mut shell = home.command("sh".as_ref());
    shell.args(["-c", &script]);

    let ended = Process::start(script, shell).wait();

    let error = ended.error(3);
    assert!(error.contains("run/") && error.contains("File too large"), "{error}");
    let run = home.run("run");
    let rows = run.history().len();
    assert!(rows > 5 && !run.has("receipt.json"), "{rows} rows");
    home.coordinator(&format!("train {job} --workers 2 --run-dir run --resume")).succeeds();
    assert!(run.told("resumed")[0].contains("checkpoints/"), "{:?}", run.told("resumed"));
    alone.is_equalled_by(&run);
}

/// Faults of the newest checkpoint: the message, and how to cause it.
type Damage = (&'static str, fn(&str, &str));

const DAMAGES: [Damage; 6] = [
    ("its own SHA-256", |manifest, _| cut(manifest)),
    ("cut short", |manifest, _| write(manifest, b"")),
    ("its own SHA-256", |manifest, _| flip(manifest)),
    ("damaged", |_, data| cut(data)),
    ("damaged", |_, data| flip(data)),
    ("missing", |_, data| fs::remove_file(data).expect("files can be removed")),
];

fn read(path: &str) -> Vec<u8> {
    fs::read(path).expect("the file is there")
}

fn write(path: &str, bytes: &[u8]) {
    fs::write(path, bytes).expect("files can be written");
}

fn cut(path: &str) {
    let bytes = read(path);
    write(path, &bytes[..bytes.len() / 2]);
}

fn flip(path: &str) {
    let mut bytes = read(path);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    write(path, &bytes);
}

/// The newest checkpoint of a run: manifest and data file.
fn newest(run: &Run) -> (String, String) {
    let files = run.snapshot().into_iter().map(|(path, _)| path.display().to_string());
    let manifests = files.filter(|path| path.contains("checkpoints") && path.ends_with(".json"));
    let manifest = manifests.max().expect("there is a checkpoint");
    let data = manifest.replace(".json", ".safetensors");
    (manifest, data)
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_used() {
    // Given a run that was killed in the middle …
    let home = Home::small();
    let alone = home.undisturbed(JOB);
    let train = format!("train {JOB} --run-dir run {OFTEN}");
    let mut killed = home.coordinator(&format!("{train} --workers 1")).env("FAILPOINTS", SLOWED).start();
    killed.says("Epoch 3/");
    killed.signal(Signal::KILL);
    killed.wait();
    for (number, (says, damage)) in DAMAGES.into_iter().enumerate() {
        // … and a copy of it with damage …
        let name = format!("copy-{number}");
        let copied = home.command("cp".as_ref()).args(["-r", "run", &name]).status().unwrap();
        assert!(copied.success());
        let run = home.run(&name);
        let (manifest, data) = newest(&run);
        damage(&manifest, &data);

        // … it resumes from the checkpoint before, reports that, and has the same results.
        let train = train.replace("--run-dir run", &format!("--run-dir {name}"));
        home.coordinator(&format!("{train} --workers 2 --resume")).succeeds();
        let resumed = run.told("resumed").remove(0);
        let file = fs::canonicalize(run.path()).unwrap();
        assert!(resumed.contains("not from ") && resumed.contains(says), "{number}: {resumed} in {file:?}");
        let tag = manifest.rsplit('/').next().unwrap().trim_end_matches(".json");
        assert!(resumed.split("not from ").nth(1).unwrap().contains(tag), "{number}: {tag} in {resumed}");
        alone.is_equalled_by(&run);
    }
}

#[test]
fn a_run_without_any_whole_checkpoint_is_refused() {
    let home = Home::small();
    let train = format!("train {JOB} --run-dir run {OFTEN}");
    let mut killed = home.coordinator(&format!("{train} --workers 1")).start();
    killed.says("Epoch 3/");
    killed.signal(Signal::KILL);
    killed.wait();
    let run = home.run("run");
    let checkpoints = run.snapshot().into_iter().map(|(path, _)| path.display().to_string());
    checkpoints
        .filter(|path| path.ends_with("0.json") || path.contains("checkpoints/"))
        .for_each(|path| cut(&path));

    let error = home.coordinator(&format!("{train} --resume")).fails(3);

    assert!(error.contains("no checkpoint is whole") && error.contains("--overwrite"), "{error}");
}

/// A sealed JSON file, changed and sealed again, as by a newer program.
fn of_a_newer_version(path: &str) {
    use sha2::{Digest as _, Sha256};
    let text = String::from_utf8(read(path)).expect("it is text");
    let (before, after) = text.split_once("\"format\": ").expect("it names its format");
    let text = format!("{before}\"format\": 99{}", after.trim_start_matches(|c: char| c.is_ascii_digit()));
    let (body, _) = text.rsplit_once(",\n  \"sha256\"").expect("it is sealed");
    let hash = hex::encode(Sha256::digest(body));
    write(path, format!("{body},\n  \"sha256\": \"{hash}\"\n}}\n").as_bytes());
}

/// A fault: its name, how to cause it, the flags of the resumption, and the expected exit code and message.
type Refusal<'a> = (&'a str, &'a dyn Fn(), &'a str, i32, &'a [&'a str]);

#[test]
fn an_invalid_run_directory_is_named_and_not_changed() {
    let home = Home::small();
    let train = format!("train {JOB} --run-dir run {OFTEN} --workers 1");
    let mut killed = home.coordinator(&train).env("FAILPOINTS", SLOWED).start();
    killed.says("Epoch 4/");
    killed.signal(Signal::KILL);
    killed.wait();
    let run = home.run("run");
    let path = |name: &str| run.path().join(name).display().to_string();
    let whole = run.snapshot();
    let (manifest, _) = newest(&run);
    let lines = run.text("ledger");
    let without_a_line: Vec<_> = lines.lines().enumerate().filter(|(line, _)| *line != 5).collect();
    let without_a_line: String = without_a_line.iter().map(|(_, line)| format!("{line}\n")).collect();

    let refusals: [Refusal<'_>; 6] = [
        (
            "a newer checkpoint",
            &|| of_a_newer_version(&manifest),
            "",
            3,
            &["format 99", "newer version", ".json"],
        ),
        ("a newer record", &|| of_a_newer_version(&path("run.json")), "", 3, &["format 99", "run.json"]),
        ("no job", &|| fs::remove_file(path("job.toml")).unwrap(), "", 3, &["job.toml", "missing"]),
        (
            "a ledger without a line",
            &|| fs::write(path("ledger"), &without_a_line).unwrap(),
            "",
            3,
            &["ledger"],
        ),
        ("no ledger", &|| fs::remove_file(path("ledger")).unwrap(), "", 3, &["ledger", "missing"]),
        ("another job", &|| (), "--seed 9 --batch-size 50", 2, &["seed", "batch_size", "--overwrite"]),
    ];
    for (what, change, flags, code, says) in refusals {
        change();
        let before = run.snapshot();

        let error = home.coordinator(&format!("{train} --resume {flags}")).fails(code);

        assert!(says.iter().all(|text| error.contains(text)), "{what}: {error}");
        let touched: Vec<_> = run.snapshot().into_iter().filter(|file| !before.contains(file)).collect();
        let touched: Vec<_> = touched.iter().map(|(path, _)| path.display().to_string()).collect();
        assert!(run.snapshot() == before, "{what}: nothing is touched, not {touched:?}");
        whole.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    }
    home.coordinator(&format!("{train} --resume")).succeeds();
}

#[test]
fn invalid_settings_are_refused() {
    let home = Home::small();
    let wrong = [
        ("--heartbeat-interval 0", "--heartbeat-interval"),
        ("--heartbeat-deadline 0", "--heartbeat-deadline"),
        ("--heartbeat-interval 2 --heartbeat-deadline 1", "--heartbeat-deadline 1"),
        ("--heartbeat-interval 5 --heartbeat-deadline 5", "--heartbeat-deadline 5"),
        ("--heartbeat-interval nan", "--heartbeat-interval"),
        ("--checkpoint-interval 0", "--checkpoint-interval"),
        ("--checkpoint-interval never", "--checkpoint-interval"),
        ("--audit 1.5", "--audit"),
        ("--audit -0.1", "--audit"),
        ("--audit nan", "--audit"),
        ("--min-workers 0", "--min-workers"),
        ("--wait-workers 0", "--wait-workers"),
    ];
    for (flags, names) in wrong {
        for command in ["serve --listen 127.0.0.1:0", "train small.toml --run-dir run"] {
            let ended = home.coordinator(&format!("{command} {flags}")).run().with_code(2);
            assert!(ended.stderr.contains(names), "{command} {flags}: {ended}");
        }
    }
    assert!(!home.path("run").exists());
    assert_eq!(fs::read_dir(home.path("runs")).map_or(0, Iterator::count), 0);
}

#[test]
fn the_events_of_a_resumed_run_are_complete_lines_in_order() {
    let home = Home::small();
    let mut cluster = home.lasting_cluster(OFTEN);
    let _worker = worker(&cluster);
    cluster.client().submit(&job_of(&home, 8), "").expect("it is taken");
    let client = cluster.client();
    until("it trains", || (progress(&client) > (2, 0)).then_some(()));
    cluster.is_killed();
    cluster.comes_back(OFTEN);
    let client = cluster.client();
    cluster.job_is(&client, "small-1", "done");

    let events = home.run("runs/small-1").events();

    let kinds: Vec<_> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    let count = |kind: &str| kinds.iter().filter(|&&found| found == kind).count();
    assert_eq!((count("resumed"), count("end")), (1, 1), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&"end"), "{kinds:?}");
    let times: Vec<_> = events.iter().filter_map(|event: &Value| event["time"].as_f64()).collect();
    assert!(times.is_sorted(), "{times:?}");
}
