//! Help, completions and manual pages.

use std::os::unix::fs::symlink;

use millefeuille_tests::home::{Home, binary};

const SUBCOMMANDS: [&str; 18] = [
    "train",
    "serve",
    "jobs",
    "workers",
    "metrics",
    "cancel",
    "show",
    "job",
    "evaluate",
    "errors",
    "predict",
    "export",
    "fetch",
    "doctor",
    "health",
    "certs",
    "completions",
    "man",
];

#[test]
fn completions_contain_the_subcommands_and_their_flags() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let text = home.coordinator(&format!("completions {shell}")).succeeds().stdout;
        let missing: Vec<_> = SUBCOMMANDS.into_iter().filter(|name| !text.contains(name)).collect();
        assert!(missing.is_empty(), "{shell} misses {missing:?}");
        assert!(text.contains("epochs") && text.contains("run-dir"), "{shell} knows flags");
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        let hidden: Vec<_> = words.filter(|word| ["__worker", "__probe"].contains(word)).collect();
        assert!(hidden.is_empty(), "{shell} offers what is hidden: {hidden:?}");

        let worker = home.coordinator(&format!("completions {shell} --program worker")).succeeds().stdout;
        assert!(worker.contains("join-timeout") && worker.contains("doctor"), "{shell}");

        let both = home.coordinator(&format!("completions {shell} --program millefeuille")).succeeds().stdout;
        assert!(["epochs", "join-timeout", "millefeuille"].iter().all(|word| both.contains(word)), "{shell}");
    }
}

#[test]
fn bash_accepts_its_completions() {
    let home = Home::new();
    let text = home.coordinator("completions bash").succeeds().stdout;
    home.write("completions.bash", text);
    let status = home.command("bash".as_ref()).args(["-n", "completions.bash"]).status().unwrap();
    assert!(status.success());
}

#[test]
fn manual_pages_are_written() {
    let home = Home::new();

    home.coordinator("man --out-dir pages").succeeds();

    let page = |name: &str| std::fs::read_to_string(home.path("pages").join(name)).unwrap();
    assert!(page("coordinator.1").contains(".TH coordinator 1"));
    assert!(page("coordinator-train.1").contains("epochs"));
    assert!(page("worker.1").contains("slots"));
    assert!(page("millefeuille.1").contains(".TH millefeuille 1"));
    assert!(
        page("millefeuille-worker.1").contains("slots") && page("millefeuille-train.1").contains("epochs")
    );
    let hidden = std::fs::read_dir(home.path("pages")).unwrap();
    let hidden = hidden.filter(|page| page.as_ref().unwrap().file_name().to_string_lossy().contains("__"));
    assert_eq!(hidden.count(), 0, "no pages of what is hidden");
    let jobs = page("coordinator-jobs.1");
    assert!(jobs.contains("\\-\\-connect\\-timeout <SECONDS>]"), "the synopsis has values: {jobs}");
    let examples = ".SH EXAMPLES\n.nf\n  coordinator jobs \\-\\-cluster 127.0.0.1:7070\n";
    assert!(jobs.contains(examples), "examples keep their lines: {jobs}");
}

#[test]
fn help_has_examples_for_every_subcommand() {
    let home = Home::new();
    let help = home.coordinator("--help").succeeds().stdout;
    assert!(help.contains("Examples:") && help.contains("Exit codes:\n    0  done\n"), "{help}");
    assert!(!help.contains("__worker") && !help.contains("__probe"), "{help}");
    for name in SUBCOMMANDS {
        assert!(help.contains(name), "{name}: {help}");
        let own = home.coordinator(&format!("{name} --help")).succeeds().stdout;
        assert!(own.contains("Examples:") && own.contains(&format!("coordinator {name}")), "{name}: {own}");
    }
    let worker = home.worker("--help").succeeds().stdout;
    for text in ["--coordinator", "--slots", "--join-timeout", "Examples:", "Exit codes:\n    0  "] {
        assert!(worker.contains(text), "{text}: {worker}");
    }
    assert!(!worker.contains("--token") && !worker.contains("--exit-with-parent"), "{worker}");
}

#[test]
fn versions_are_the_same() {
    let home = Home::new();
    let version = |text: String| text.split_whitespace().nth(1).unwrap().to_string();
    let coordinator = version(home.coordinator("--version").succeeds().stdout);
    assert_eq!(coordinator, version(home.worker("--version").succeeds().stdout));
}

#[test]
fn a_flag_overrides_its_variable() {
    let home = Home::new();
    home.small_job();
    let train = |arguments: &str| {
        let call = home.coordinator(&format!("train small.toml {arguments}"));
        call.env("MILLEFEUILLE_EPOCHS", "2").env("MILLEFEUILLE_WORKERS", "1").succeeds();
    };

    train("--run-dir environment");
    train("--run-dir flag --epochs 1");

    assert_eq!(home.run("environment").history().len(), 2);
    assert_eq!(home.run("flag").history().len(), 1);
}

#[test]
fn wrong_usage_is_reported_and_changes_nothing() {
    let home = Home::new();
    for (call, says) in [
        (home.coordinator("trian"), "train"),
        (home.coordinator(""), "Usage"),
        (home.coordinator("train --resume --overwrite"), "--overwrite"),
        (home.coordinator("predict"), "RUN"),
        (home.worker(""), "--coordinator"),
        (home.worker("--coordinator 127.0.0.1:1 --slots 0"), "--slots"),
        (home.worker("--coordinator 127.0.0.1:1 --join-timeout 0"), "--join-timeout"),
    ] {
        let ended = call.run().with_code(2);
        assert!(ended.stderr.contains(says) && ended.stdout.is_empty(), "{says}: {ended}");
        assert!(says == "Usage" || ended.stderr.lines().count() == 1, "one line: {ended}");
    }
}

#[test]
fn output_fits_into_the_requested_columns() {
    let home = Home::new();
    for command in ["show model", "show data"] {
        for columns in [50, 100] {
            let shown = home.coordinator(command).env("COLUMNS", columns.to_string()).succeeds().stdout;
            let widest = shown.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(columns), "{command} in {columns} columns: {shown}");
        }
    }
}

#[test]
fn a_job_that_has_ended_is_not_cancelled_again() {
    let home = Home::new();
    home.small_job();
    let cluster = home.cluster("");
    let _worker = cluster.joined_by("--slots 1");
    cluster.coordinator("train small.toml --epochs 1").succeeds();

    let cancelled = cluster.coordinator("cancel small-1").succeeds();

    assert_eq!(cancelled.stdout, "job small-1 had ended already: done\n");
}

#[test]
fn unknown_flags_come_without_useless_tips() {
    let home = Home::new();
    let error = home.coordinator("cancel a-1 --json --cluster 127.0.0.1:1").fails(2);
    assert!(error.contains("--json") && !error.contains("tip"), "{error}");
    for flag in ["--learning-rate 1", "--epochs 1", "--seed 1"] {
        for command in ["show data", "show model"] {
            home.coordinator(&format!("{command} {flag}")).fails(2);
        }
    }
}

#[test]
fn output_is_as_loud_and_as_coloured_as_asked() {
    let home = Home::new();
    home.small_job();
    let train = |flags: &str, run: &str| {
        home.coordinator(&format!("{flags} train small.toml --epochs 1 --workers 9 --run-dir {run}"))
    };

    let quiet = train("-q", "a").succeeds();
    assert_eq!(quiet.stderr, "", "no progress, no warning");
    assert!(quiet.stdout.contains("weights_sha256"));
    let usual = train("", "b").succeeds();
    assert!(usual.stderr.contains("warning: --workers 9: the job has 8 shards"), "{usual}");
    assert!(usual.stderr.contains("Epoch 1/1") && !usual.stderr.contains("DEBUG"), "{usual}");
    let ours = train("-v", "c").succeeds();
    assert!(ours.stderr.contains("DEBUG") && !ours.stderr.contains("Connection{"), "{ours}");
    let theirs = train("-vv", "d").succeeds();
    assert!(theirs.stderr.contains("Connection{"), "HTTP/2 is logged: {theirs}");
    let named = train("", "e").env("MILLEFEUILLE_LOG", "debug").succeeds();
    assert!(named.stderr.contains("DEBUG") && !named.stderr.contains("Connection{"), "{named}");

    let colourful = home.coordinator("show run a --color=always").succeeds().stdout;
    let plain = home.coordinator("show run a --color=never").succeeds().stdout;
    assert!(colourful.contains('\u{1b}') && !plain.contains('\u{1b}'));
}

#[test]
fn what_is_shown_is_json_too() {
    let home = Home::new();
    home.small_job();
    home.coordinator("train small.toml --workers 1 --run-dir run").succeeds();
    let show = |what: &str| home.coordinator(&format!("show {what} --json")).succeeds().json().remove(0);

    let run = show("run run");
    assert_eq!(run["history"].as_array().unwrap().len(), 3);
    assert_eq!((&run["done"], &run["epochs"]), (&true.into(), &3.into()));
    assert_eq!(run["weights_sha256"], home.run("run").hash());
    assert_eq!(run["predictions"].as_array().unwrap().len(), 10);
    let data = show("data small.toml");
    assert_eq!(data["shape"], serde_json::json!([28, 28]));
    assert_eq!(data["test_samples"], 301);
    assert_eq!(show("model small.toml")[0]["kind"], "Dense");
}

#[test]
fn a_loss_far_above_that_of_a_constant_is_a_warning() {
    let home = Home::new();
    home.small_job();
    let mut cluster = home.cluster("");
    let _worker = cluster.joined_by("--slots 1");

    let told = cluster.coordinator("train small.toml --learning-rate 10000").succeeds();

    let warning = "the model learns nothing";
    assert_eq!(told.stderr.matches(warning).count(), 1, "told once: {told}");
    cluster.serve.says(warning);
    assert_eq!(home.run("runs/small-1").told("warning").len(), 1);
    let alone = home.coordinator("train small.toml --learning-rate 10000 --run-dir alone").succeeds();
    assert_eq!(
        alone.stderr.matches(warning).count(),
        1,
        "by the progress, and not by the log as well: {alone}"
    );
}

#[test]
fn a_json_log_has_one_object_per_line() {
    let home = Home::new();
    home.small_job();
    let mut serve = home.coordinator("serve --listen 127.0.0.1:0 --log-format json").start();
    let line = serve.says("{");
    assert!(serde_json::from_str::<serde_json::Value>(&line).unwrap().is_object(), "{line}");

    let train = home.coordinator("train small.toml --workers 1 --run-dir run --log-format json").succeeds();
    for line in train.stderr.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
}

#[test]
fn millefeuille_is_coordinator_and_worker_in_one() {
    let home = Home::new();
    home.small_job();
    let alone = home.undisturbed("small.toml");
    home.millefeuille("train small.toml --workers 2 --run-dir run").succeeds();
    alone.is_equalled_by(&home.run("run"));

    let help = home.millefeuille("--help").succeeds().stdout;
    assert!(help.contains("Usage: millefeuille ") && help.contains("\n  worker "), "{help}");
    assert!(help.contains("\n  millefeuille train --epochs 5 "), "{help}");
    let help = home.millefeuille("worker --help").succeeds().stdout;
    assert!(help.contains("Usage: millefeuille worker ") && help.contains("--join-timeout"), "{help}");
    assert!(home.millefeuille("--version").succeeds().stdout.starts_with("millefeuille "));
    let error = home.millefeuille("worker --coordinator 127.0.0.1:1 --join-timeout 0.1").fails(4);
    assert!(error.starts_with("no coordinator at 127.0.0.1:1"), "{error}");
}

#[test]
fn millefeuille_is_the_program_by_whose_name_it_is_called() {
    let home = Home::new();
    for (name, usage) in [("worker", "Usage: worker "), ("coordinator", "Usage: coordinator ")] {
        symlink(binary("millefeuille"), home.path(name)).unwrap();
        let help = home.call(&home.path(name), "--help").succeeds().stdout;
        assert!(help.contains(usage), "{help}");
    }
}

#[test]
fn errors_have_the_format_of_the_log() {
    let home = Home::new();
    for (call, code, what) in [
        (home.coordinator("serve --log-format json --runs-dir /dev/null"), 3, "/dev/null"),
        (home.coordinator("serve --log-format=json --no-such-flag"), 2, "--no-such-flag"),
        (
            home.coordinator("train --min-workers 0").env("MILLEFEUILLE_LOG_FORMAT", "json"),
            2,
            "--min-workers 0",
        ),
        (home.worker("--coordinator 127.0.0.1:1 --join-timeout 0.1 --log-format json"), 4, "no coordinator"),
        (home.millefeuille("worker --log-format json --slots 0"), 2, "--slots 0"),
    ] {
        let ended = call.run().with_code(code);
        let lines: Vec<serde_json::Value> = ended
            .stderr
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{ended}")))
            .collect();
        let errors: Vec<_> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
        let message = errors[0]["fields"]["message"].as_str().unwrap();
        assert!(errors.len() == 1 && message.contains(what), "{ended}");
    }
}
