//! Bad input: the right exit code, one line that names the thing and the remedy, and no data lost.

use std::any::TypeId;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use millefeuille_tests::cluster::{closed_port, silent_listener};
use millefeuille_tests::data::{FILES, SMALL_JOB, idx_of};
use millefeuille_tests::home::{Home, binary};
use millefeuille_tests::process::{Ended, Process};

const IMAGES: &str = FILES[0];
const LABELS: &str = FILES[1];
const TEST_IMAGES: &str = FILES[2];
const TEST_LABELS: &str = FILES[3];

/// A fault of the data: its name, how to cause it, and what the message must contain.
struct Damage {
    what: &'static str,
    make: fn(&Path) -> io::Result<()>,
    says: &'static [&'static str],
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
    let mut bytes = fs::read(path)?;
    change(&mut bytes);
    fs::write(path, bytes)
}

/// Replaces a file by its gzipped copy, with a change of it.
fn gzip(directory: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
    let raw = directory.join(name);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&fs::read(&raw)?)?;
    fs::remove_file(&raw)?;
    let zipped = directory.join(format!("{name}.gz"));
    fs::write(&zipped, encoder.finish()?)?;
    edit(&zipped, change)
}

const DAMAGES: &[Damage] = &[
    Damage {
        what: "a missing directory",
        make: |data| fs::remove_dir_all(data),
        says: &["small.toml:5: source = \"data\"", "no such file or directory", "four IDX files"],
    },
    Damage {
        what: "a missing file",
        make: |data| fs::remove_file(data.join(TEST_LABELS)),
        says: &[TEST_LABELS, "missing", ".gz"],
    },
    Damage {
        what: "a truncated file",
        make: |data| edit(&data.join(IMAGES), |bytes| bytes.truncate(16 + 784 * 100 + 7)),
        says: &[IMAGES, "missing after image 100", "truncated", "again"],
    },
    Damage {
        what: "a truncated header",
        make: |data| edit(&data.join(LABELS), |bytes| bytes.truncate(6)),
        says: &[LABELS, "truncated"],
    },
    Damage {
        what: "an empty file",
        make: |data| edit(&data.join(TEST_IMAGES), Vec::clear),
        says: &[TEST_IMAGES, "empty"],
    },
    Damage {
        what: "an over-long file",
        make: |data| edit(&data.join(LABELS), |bytes| bytes.extend([1, 2, 3])),
        says: &[LABELS, "3 bytes too many", "over-long"],
    },
    Damage {
        what: "a wrong magic number",
        make: |data| edit(&data.join(TEST_IMAGES), |bytes| bytes[0] = 0x42),
        says: &[TEST_IMAGES, "42 00 08 03", "not IDX"],
    },
    Damage {
        what: "labels where images should be",
        make: |data| fs::copy(data.join(LABELS), data.join(IMAGES)).map(|_| ()),
        says: &[IMAGES, "these are labels"],
    },
    Damage {
        what: "counts that differ",
        make: |data| fs::copy(data.join(TEST_LABELS), data.join(LABELS)).map(|_| ()),
        says: &[LABELS, "301 labels", "2,003 images", "one data set"],
    },
    Damage {
        what: "a header that promises more than there is",
        make: |data| edit(&data.join(IMAGES), |bytes| bytes[4..8].copy_from_slice(&u32::MAX.to_be_bytes())),
        says: &[IMAGES, "4,294,967,295", "header"],
    },
    Damage {
        what: "a label of 10",
        make: |data| edit(&data.join(LABELS), |bytes| bytes[8 + 77] = 10),
        says: &[LABELS, "index 77 is 10", "0 to 9"],
    },
    Damage {
        what: "gzip damaged in the middle",
        make: |data| {
            gzip(data, IMAGES, |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle..middle + 64].fill(0xaa);
            })
        },
        says: &[IMAGES, ".gz", "gzip data damaged", "again"],
    },
    Damage {
        what: "a gzipped file that is gzipped again",
        make: |data| {
            gzip(data, IMAGES, |_| ())?;
            fs::rename(data.join(format!("{IMAGES}.gz")), data.join(IMAGES))?;
            gzip(data, IMAGES, |_| ())
        },
        says: &[IMAGES, ".gz", "gzipped twice", "gunzip it once"],
    },
    Damage {
        what: "films",
        make: |data| fs::write(data.join(IMAGES), idx_of(&[3, 2, 2, 1], &[0; 24])),
        says: &[IMAGES, "has 5 dimensions", "images have 3"],
    },
    Damage {
        what: "gzip cut off",
        make: |data| gzip(data, IMAGES, |bytes| bytes.truncate(bytes.len() / 2)),
        says: &[IMAGES, ".gz", "truncated"],
    },
    Damage {
        what: "a directory in place of a file",
        make: |data| {
            fs::remove_file(data.join(LABELS))?;
            fs::create_dir(data.join(LABELS))
        },
        says: &[LABELS, "is a directory, not a file"],
    },
    Damage {
        what: "a file in place of the directory",
        make: |data| {
            fs::remove_dir_all(data)?;
            fs::write(data, "a file")
        },
        says: &["small.toml:5: source = \"data\"", "is a file, not a directory", "four IDX files"],
    },
    Damage {
        what: "a pipe in place of a file",
        make: |data| {
            fs::remove_file(data.join(IMAGES))?;
            Command::new("mkfifo").arg(data.join(IMAGES)).status().map(|_| ())
        },
        says: &[IMAGES, "not a regular file"],
    },
    Damage {
        what: "a device that never ends",
        make: |data| {
            fs::remove_file(data.join(LABELS))?;
            symlink("/dev/zero", data.join(LABELS))
        },
        says: &[LABELS, "not a regular file"],
    },
    Damage {
        what: "a file of more bytes than any memory has",
        make: |data| fs::File::options().write(true).open(data.join(IMAGES))?.set_len(1 << 40),
        says: &[IMAGES, "at least 1,048,576 bytes too many", "over-long"],
    },
    Damage {
        what: "a stump of gzip",
        make: |data| gzip(data, IMAGES, |bytes| bytes.truncate(5)),
        says: &[IMAGES, ".gz", "ends before the first byte", "again"],
    },
];

#[test]
fn damaged_data_is_named_and_leaves_no_run() {
    for Damage { what, make, says } in DAMAGES {
        let home = Home::new();
        home.small_job();
        make(&home.path("data")).unwrap();

        let error = home.coordinator("train small.toml --workers 1 --run-dir run").fails(3);

        assert!(says.iter().all(|text| error.contains(text)), "{what}: {error}");
        assert!(!home.path("run").exists(), "{what} leaves no run directory");
    }
}

#[test]
fn a_source_that_is_not_there_is_named_where_the_job_names_it() {
    let home = Home::new();
    home.small_job();
    home.write("typo.toml", SMALL_JOB.replacen("\"data\"", "\"dta\"", 1));
    for command in
        ["train typo.toml --workers 1 --run-dir run", "show data typo.toml", "show model typo.toml"]
    {
        let of_file = home.coordinator(command).fails(3);
        assert!(
            of_file.contains("typo.toml:5: source = \"dta\": there is no such file or directory"),
            "{of_file}"
        );
        assert!(!of_file.contains("--data"), "{of_file}");
        let of_flag = home.coordinator(&format!("{command} --data nowhere")).fails(3);
        assert!(of_flag.contains("--data nowhere: there is no such file or directory"), "{of_flag}");
    }
}

#[test]
fn a_path_of_any_bytes_is_not_blamed_for_text_that_is_none() {
    let home = Home::new();
    let no_text = OsStr::from_bytes(b"caf\xe9");
    for command in ["evaluate", "evaluate --json"] {
        let evaluate = home.coordinator(command).arg(no_text).arg("--data").arg(no_text);
        let error = evaluate.run().error(2);
        assert!(error.contains("--data \"caf\\xE9\": not text in UTF-8"), "{error}");
    }
    // Of several places, the one that must be text.
    let cancel = home.coordinator("cancel").arg(no_text).run().error(2);
    assert!(cancel.contains("argument \"caf\\xE9\": not text in UTF-8"), "{cancel}");
}

#[test]
fn text_that_is_none_is_named_with_its_flag() {
    let home = Home::new();
    let no_text = OsStr::from_bytes(b"caf\xe9");
    let says = |ended: Ended, flag: &str| {
        let error = ended.error(2);
        assert!(error.contains(&format!("{flag} \"caf\\xE9\": not text in UTF-8")), "{flag}: {error}");
    };
    let coordinator = millefeuille_coordinator::cli::command();
    let mut flags = 0;
    for (path, flag) in text_flags(&coordinator, "") {
        let mut joined = OsString::from(format!("{flag}="));
        joined.push(no_text);
        says(home.coordinator(&format!("{path} {flag}")).arg(no_text).run(), &flag);
        says(home.coordinator(&path).arg(joined).run(), &flag);
        flags += 1;
    }
    for (_, flag) in text_flags(&millefeuille_worker::cli::Args::command(), "") {
        says(home.worker(&flag).arg(no_text).run(), &flag);
        flags += 1;
    }
    assert!(flags > 50, "{flags}");
    // A path may be any bytes, and is not blamed.
    let call =
        home.coordinator("train").arg("--run-dir").arg(OsStr::from_bytes(b"\xff")).arg("--data").arg(no_text);
    says(call.run(), "--data");
}

/// The flags that take text, each with the commands before it.
fn text_flags(command: &clap::Command, path: &str) -> Vec<(String, String)> {
    let takes_text = |argument: &&clap::Arg| {
        argument.get_action().takes_values()
            && argument.get_value_parser().type_id() != TypeId::of::<PathBuf>()
            // Of a fixed list of values, the list is named.
            && argument.get_possible_values().is_empty()
    };
    let own = command.get_arguments().filter(takes_text).filter_map(clap::Arg::get_long);
    let mut flags: Vec<_> = own.map(|long| (path.to_string(), format!("--{long}"))).collect();
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        flags.extend(text_flags(below, format!("{path} {}", below.get_name()).trim()));
    }
    flags
}

#[test]
fn damaged_data_is_refused_by_show_evaluate_and_a_cluster_too() {
    let home = Home::new();
    home.small_job();
    home.coordinator("train small.toml --workers 1 --run-dir run").succeeds();
    edit(&home.path("data").join(LABELS), |bytes| bytes[8] = 10).unwrap();

    let cluster = home.cluster("");
    let calls = [
        home.coordinator("show data small.toml"),
        home.coordinator("evaluate run"),
        cluster.coordinator("train small.toml"),
    ];
    for call in calls {
        let error = call.fails(3);
        assert!(error.contains(LABELS) && error.contains("is 10"), "{error}");
    }
}

#[test]
fn a_run_is_kept_if_the_new_one_cannot_begin() {
    let home = Home::new();
    home.small_job();
    home.coordinator("train small.toml --workers 1 --run-dir run").succeeds();
    let before = home.run("run").snapshot();
    let again = "train small.toml --workers 1 --run-dir run --overwrite";

    let kernel = home.coordinator(&format!("{again} --blas-kernel Nonesuch")).fails(2);
    assert!(home.run("run").snapshot() == before, "the run is there as before: {kernel}");

    edit(&home.path("data").join(LABELS), |bytes| bytes[8] = 10).unwrap();
    let data = home.coordinator(again).fails(3);
    assert!(home.run("run").snapshot() == before, "the run is there as before: {data}");
}

/// A wrong job: flags, the change of the job file, and what the message must contain.
type Wrong = (&'static str, (&'static str, &'static str), &'static [&'static str]);

const NO_CHANGE: (&str, &str) = ("", "");

const WRONG_JOBS: &[Wrong] = &[
    ("", ("batch_size = 100", "batchsize = 100"), &["small.toml:", "batchsize", "`batch_size`"]),
    ("", ("[fit]", "[fitt]"), &["small.toml:", "fitt", "`fit`"]),
    ("", ("name = \"small\"", "nmae = \"small\""), &["small.toml:2", "nmae", "`name`"]),
    ("", ("batch_size = 100", "batch_size = 0"), &["small.toml:", "batch_size = 0", "at least 1"]),
    ("", ("batch_size = 100", "batch_size = \"many\""), &["small.toml:", "batch_size", "whole number"]),
    ("", ("rate = 0.25", "rate = 1.0"), &["small.toml:", "rate = 1.0", "less than 1"]),
    ("", ("units = 10", "units = 11"), &["layers[2].units = 11", "10 units"]),
    ("", ("\"softmax\"", "\"sigmoid\""), &["small.toml:", "softmax"]),
    ("", ("\"softmax\"", "\"sofmax\""), &["small.toml:", "sofmax", "`softmax`"]),
    ("", ("[data]", "[data"), &["small.toml:"]),
    ("--batch-size 0", NO_CHANGE, &["--batch-size 0", "at least 1"]),
    ("--epochs 0", NO_CHANGE, &["--epochs 0", "at least 1"]),
    ("--epochs -1", NO_CHANGE, &["--epochs -1: too small", "at least 1"]),
    ("--epochs 4294967296", NO_CHANGE, &["--epochs 4294967296: too large", "4294967295"]),
    ("--epochs many", NO_CHANGE, &["--epochs many: not a whole number"]),
    ("--seed -1", NO_CHANGE, &["--seed -1: too small", "at least 0"]),
    ("--seed 18446744073709551616", NO_CHANGE, &["--seed 18446744073709551616: too large"]),
    ("--batch-size 1.5", NO_CHANGE, &["--batch-size 1.5: not a whole number"]),
    ("--learning-rate 1e-50", NO_CHANGE, &["--learning-rate 1e-50: ", "above 0"]),
    ("--learning-rate 1e39", NO_CHANGE, &["--learning-rate 1e39: ", "finite"]),
    ("--learning-rate fast", NO_CHANGE, &["--learning-rate fast: not a number"]),
    ("--validation-split 1.5", NO_CHANGE, &["--validation-split 1.5", "less than 1"]),
    ("--validation-split -0.1", NO_CHANGE, &["--validation-split -0.1", "at least 0"]),
    ("--validation-split 0.9999", NO_CHANGE, &["validation_split", "leaves no sample", "lower it"]),
    ("--learning-rate NaN", NO_CHANGE, &["--learning-rate NaN", "finite"]),
    ("--learning-rate 0", NO_CHANGE, &["--learning-rate 0", "above 0"]),
    ("--learning-rate inf", NO_CHANGE, &["--learning-rate inf", "finite"]),
    ("--shards 0", NO_CHANGE, &["--shards 0", "1"]),
    ("--replicas 0", NO_CHANGE, &["--replicas 0", "at least 1"]),
    ("--scale 0", NO_CHANGE, &["--scale 0"]),
    ("--scale NaN", NO_CHANGE, &["--scale"]),
    ("--shuffle perhaps", NO_CHANGE, &["--shuffle", "perhaps", "true"]),
    ("--name a/b", NO_CHANGE, &["--name a/b", "slash"]),
    ("--workers 0", NO_CHANGE, &["--workers", "0"]),
    ("--workers -1", NO_CHANGE, &["--workers -1: "]),
    ("--slots 0", NO_CHANGE, &["--slots", "0"]),
    ("--workers 2 --min-workers 3", NO_CHANGE, &["--workers 2", "--min-workers 3", "raise", "lower"]),
    ("--heartbeat-deadline 0.5", NO_CHANGE, &["--heartbeat-deadline 0.5", "interval"]),
    ("--epoch 5", NO_CHANGE, &["--epoch", "--epochs"]),
];

#[test]
fn a_wrong_job_is_named_and_leaves_no_run() {
    let home = Home::new();
    home.small_job();
    for (flags, (from, to), says) in WRONG_JOBS {
        let job = SMALL_JOB.replacen(from, to, 1);
        assert!(from.is_empty() || job != SMALL_JOB, "{from} is in the job");
        home.write("small.toml", job);

        let ended = home.coordinator(&format!("train small.toml --run-dir run {flags}")).run();

        let error = ended.error(2);
        assert!(
            says.iter().all(|text| ended.stderr.contains(text)),
            "{flags} {from} → {to}: {says:?} in {error}"
        );
        assert!(!home.path("run").exists(), "{flags} {from} → {to} leaves no run directory");
    }
}

#[test]
fn a_model_without_layers_is_refused() {
    let home = Home::new();
    home.small_data("data");
    home.write("empty.toml", "layers = []\n[data]\nsource = \"data\"\n");
    home.write("dropout.toml", "[[layers]]\ntype = \"dropout\"\nrate = 0.5\n");

    let empty = home.coordinator("train empty.toml --run-dir run").fails(2);
    let dropout = home.coordinator("train dropout.toml --run-dir run").fails(2);
    let missing = home.coordinator("train nothing.toml --run-dir run").fails(2);

    assert!(empty.contains("empty.toml:1") && empty.contains("no layers"), "{empty}");
    assert!(dropout.contains("dropout.toml:1") && dropout.contains("dense"), "{dropout}");
    assert!(missing.contains("nothing.toml") && missing.contains("cannot be read"), "{missing}");
    assert!(!home.path("run").exists());
}

#[test]
fn a_cluster_refuses_a_wrong_job_with_the_same_words() {
    let home = Home::new();
    let cluster = home.cluster("");
    let client = cluster.client();

    let refusal = client.submit("[fit]\nbatchsize = 3\n", "").unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::InvalidArgument);
    assert!(
        refusal.message().contains("batchsize") && refusal.message().contains("`batch_size`"),
        "{refusal}"
    );

    for flag in
        ["--run-dir here", "--overwrite", "--workers 2", "--slots 2", "--min-workers 1", "--audit 0.5"]
    {
        let error = cluster.coordinator(&format!("train {flag}")).fails(2);
        let name = flag.split(' ').next().unwrap();
        assert!(error.contains(name) && error.contains("--cluster"), "{error}");
    }
    let train = home.coordinator("train --workers 2").env("MILLEFEUILLE_CLUSTER", &cluster.address);
    let error = train.fails(2);
    assert!(error.contains("--workers") && error.contains("unset MILLEFEUILLE_CLUSTER"), "{error}");
    assert!(client.jobs().is_empty());
}

#[test]
fn loss_that_is_not_finite_ends_the_job() {
    let home = Home::new();
    home.small_job();

    let ended = home.coordinator("train small.toml --workers 2 --learning-rate 3e38 --run-dir run").run();

    let error = ended.error(6);
    for says in
        ["the loss is not finite after step ", "of epoch 1", "smaller --learning-rate, or scaled input"]
    {
        assert!(error.contains(says), "{says}: {error}");
    }
    assert!(!home.run("run").has("receipt.json") && !home.run("run").has("model.safetensors"));
}

#[test]
fn a_port_in_use_is_named() {
    let home = Home::new();
    let (_listener, address) = silent_listener();

    let error = home.coordinator(&format!("serve --listen {address}")).fails(4);

    assert!(
        error.contains(&address) && error.contains("in use") && error.contains("another port"),
        "{error}"
    );
}

#[test]
fn an_invalid_listen_address_is_a_usage_error() {
    for address in ["nonsense", "127.0.0.1", "127.0.0.1:99999"] {
        let error = Home::new().coordinator(&format!("serve --listen {address}")).fails(2);
        assert!(error.contains(&format!("--listen {address}")) && error.contains("host:port"), "{error}");
    }
}

#[test]
fn a_wrong_value_from_the_environment_is_reported_with_its_variable() {
    let home = Home::new();
    for (value, says) in [("0", "at least 1"), ("-1", "at least 1"), ("many", "not a whole number")] {
        let error = home.coordinator("train --run-dir run").env("MILLEFEUILLE_EPOCHS", value).fails(2);
        assert!(error.contains(&format!("MILLEFEUILLE_EPOCHS={value}: ")) && error.contains(says), "{error}");
    }
    let call = home.coordinator("train --epochs 0").env("MILLEFEUILLE_EPOCHS", "2");
    assert!(call.fails(2).contains("--epochs 0: "), "the flag wins");
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let home = Home::new();
    for command in ["show model", "--help", "completions bash"] {
        let mut call = home.command(&binary("coordinator"));
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = call.args(command.split(' ')).stdout(full).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{command}: {error}");
        assert!(error.starts_with("error: standard output") && error.contains("No space left"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let home = Home::new();
    let script = "\"$coordinator\" completions bash | head -1; echo ${PIPESTATUS[0]}";
    let mut shell = home.command(Path::new("bash"));
    let output = shell.args(["-c", script]).env("coordinator", binary("coordinator")).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("\n0\n"), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn job_files_that_never_end_are_refused() {
    let home = Home::new();
    Command::new("mkfifo").arg(home.path("pipe.toml")).status().unwrap();
    home.write("long.toml", vec![b'#'; 65 * 1024]);
    home.write("picture.toml", [0x89, b'P', b'N', b'G', 0xff]);
    for (file, says) in [
        ("pipe.toml", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("long.toml", "too many for a job file"),
        ("picture.toml", "not text"),
    ] {
        let error = home.coordinator(&format!("train {file}")).fails(2);
        assert!(error.contains(file) && error.contains(says), "{error}");
    }
}

#[test]
fn public_listen_addresses_need_a_flag() {
    let error = Home::new().coordinator("serve --listen 0.0.0.0:0").fails(4);
    assert!(error.contains("0.0.0.0:0") && error.contains("--insecure"), "{error}");
}

#[test]
fn connecting_to_a_missing_coordinator_has_a_limit() {
    let home = Home::new();
    let address = closed_port();
    let commands = ["train", "jobs", "workers", "metrics", "cancel a-1", "health"];
    for command in commands {
        // A day would be too long for this test: it is told at once.
        let call = home.coordinator(&format!("{command} --cluster {address} --connect-timeout 86400"));
        let error = call.fails(4);
        assert!(
            error.contains(&address) && error.contains("coordinator serve; --wait"),
            "{command}: {error}"
        );
        let call = home.coordinator(&format!("{command} --cluster {address} --connect-timeout 0.5 --wait"));
        let error = call.fails(4);
        assert!(error.contains(&address) && error.contains("within 0.5 s"), "{command}: {error}");
    }

    let ended = home.worker(&format!("--coordinator {address} --join-timeout 1")).run();
    let error = ended.error(4);
    assert!(error.contains(&address) && error.contains("--coordinator"), "{error}");
    assert!(ended.stderr.contains("trying again"), "it says that it tries again: {ended}");
}

#[test]
fn commands_time_out_if_the_coordinator_never_responds() {
    let home = Home::new();
    let (_listener, address) = silent_listener();

    let error = home.coordinator(&format!("train --cluster {address} --connect-timeout 1")).fails(4);

    assert!(error.contains(&address), "{error}");
}

#[test]
fn workers_time_out_if_the_coordinator_never_responds() {
    let home = Home::new();
    let (_listener, address) = silent_listener();

    let error =
        home.worker(&format!("--coordinator {address} --join-timeout 1 --connect-timeout 1")).fails(4);

    assert!(error.contains(&address), "{error}");
}

#[test]
fn a_host_that_does_not_exist_is_named() {
    let error = Home::new().coordinator("jobs --cluster nowhere.invalid:7070 --connect-timeout 1").fails(4);
    assert!(error.contains("nowhere.invalid:7070"), "{error}");
}

#[test]
fn an_invalid_address_is_a_usage_error() {
    let home = Home::new();
    for address in ["not an address", "127.0.0.1:port", "127.0.0.1", "not/an:7070"] {
        let calls = [
            home.coordinator("jobs --connect-timeout 1 --cluster").arg(address),
            home.coordinator("train --connect-timeout 1 --cluster").arg(address),
            home.worker("--join-timeout 1 --coordinator").arg(address),
        ];
        for call in calls {
            let ended = call.run().with_code(2);
            assert!(ended.stderr.contains(address) && ended.stderr.contains("host:port"), "{ended}");
        }
    }
}

#[test]
fn a_run_directory_that_cannot_be_created_is_named() {
    let home = Home::new();
    home.small_job();
    home.write("file", "a file, not a directory");

    let train = home.coordinator("train small.toml --workers 1 --run-dir file/run").fails(3);
    assert!(train.contains("file/run") && train.contains("file is a file, not a directory"), "{train}");
    let itself = home.coordinator("train small.toml --workers 1 --run-dir file").fails(3);
    assert!(itself.contains("file: is a file, not a directory"), "{itself}");

    let serve = home.coordinator("serve --listen 127.0.0.1:0 --runs-dir file/runs").fails(3);
    assert!(serve.contains("file/runs") && serve.contains("--runs-dir"), "{serve}");
}

#[test]
fn a_run_directory_belongs_to_one_process() {
    let home = Home::new();
    home.small_job();
    let train = "train small.toml --epochs 100000 --workers 1 --run-dir run";
    let mut first = home.coordinator(train).start();
    first.says("Epoch 1/");

    for flag in ["", "--overwrite", "--resume"] {
        let error = home.coordinator(&format!("{train} {flag}")).fails(3);
        assert!(error.contains("run") && error.contains(&first.pid().to_string()), "{flag}: {error}");
        assert!(error.contains("end that process"), "{flag}: {error}");
    }
    assert!(first.is_running());
}

/// Runs a script with a small file system at `disk`, in a mount namespace of its own. Returns none, and reports it, if this
/// user may not mount file systems.
fn with_small_disk(home: &Home, bytes: &str, script: &str) -> Option<Process> {
    fs::create_dir(home.path("disk")).expect("directories can be made");
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let mount = format!("mount -t tmpfs -o size={bytes} tmpfs disk");
    let allowed = |way: &&&[&str]| {
        let mut trial = home.command(Path::new("unshare"));
        let trial = trial.args(**way).args(["sh", "-c", &mount]).output();
        trial.is_ok_and(|output| output.status.success())
    };
    let Some(way) = ways.iter().find(allowed) else {
        eprintln!("not shown: this user may not mount a small disk");
        return None;
    };
    let mut command: Command = home.command(Path::new("unshare"));
    command
        .args(*way)
        .args(["sh", "-c", &format!("{mount} && {script}")])
        .env("coordinator", binary("coordinator"));
    Some(Process::start(format!("on a disk of {bytes}: {script}"), command))
}

#[test]
fn a_disk_that_becomes_full_is_named_and_the_history_kept() {
    // A checkpoint has 80 KB: there is room for two. The third epoch has its line of history before its own.
    let home = Home::new();
    home.small_job();
    let script = "\"$coordinator\" train small.toml --workers 1 --run-dir disk/run; code=$?; \
                  cat disk/run/history.jsonl; ls disk/run | grep -c receipt; exit $code";
    let Some(mut shell) = with_small_disk(&home, "220k", script) else { return };

    let ended = shell.wait();

    let error = ended.error(3);
    assert!(error.contains("disk/run") && error.contains("No space left"), "{error}");
    assert!(error.contains("free space"), "{error}");
    assert_eq!(ended.stdout.matches("\"val_loss\"").count(), 3, "three lines of history are kept: {ended}");
    assert!(ended.stdout.ends_with("0\n"), "there is no receipt: {ended}");
}

#[test]
fn a_disk_that_is_full_is_named() {
    // One page is enough only for the lock file of the directory.
    let home = Home::new();
    home.small_job();
    let script =
        "\"$coordinator\" train small.toml --workers 1 --run-dir disk/run; code=$?; ls -A disk; exit $code";
    let Some(mut shell) = with_small_disk(&home, "4k", script) else { return };

    let ended = shell.wait();

    let error = ended.error(3);
    assert!(error.contains("disk/run") && error.contains("No space left"), "{error}");
    assert!(error.contains("free space"), "{error}");
    assert_eq!(ended.stdout, "", "no run directory is left");
}

#[test]
fn a_damaged_model_and_that_of_another_run_are_refused() {
    let home = Home::new();
    home.small_job();
    home.coordinator("train small.toml --workers 1 --epochs 1 --run-dir run").succeeds();
    home.write("other.toml", SMALL_JOB.replace("units = 24", "units = 25"));
    home.coordinator("train other.toml --workers 1 --epochs 1 --run-dir other").succeeds();
    let model = home.path("run/model.safetensors");
    let good = fs::read(&model).unwrap();
    let is_refused = || {
        let export = "export run --format onnx --output model.onnx";
        for command in ["predict run data/t10k-images-idx3-ubyte", "evaluate run", "show run run", export] {
            let error = home.coordinator(command).fails(7);
            assert!(error.contains("run/model.safetensors: not the file that the run wrote"), "{error}");
        }
        let resume = "train small.toml --workers 1 --epochs 1 --run-dir run --resume";
        let error = home.coordinator(resume).fails(7);
        assert!(error.contains("run/model.safetensors: not the file that the run wrote"), "{error}");
    };

    fs::write(&model, &good[..good.len() - 5]).unwrap();
    is_refused();
    fs::write(&model, b"not a model").unwrap();
    is_refused();
    fs::copy(home.path("other/model.safetensors"), &model).unwrap();
    is_refused();
    // Every second number negated: as good a model as any, but not this run's.
    let mut negated = good.clone();
    let numbers = good.len() - 4 * 24 * 10;
    negated[numbers..].chunks_mut(8).for_each(|pair| pair[3] ^= 0x80);
    fs::write(&model, negated).unwrap();
    is_refused();
    fs::remove_file(&model).unwrap();
    for command in ["predict run data/t10k-images-idx3-ubyte", "evaluate run"] {
        let error = home.coordinator(command).fails(3);
        assert!(error.contains("run: model.safetensors is missing, though the job is done"), "{error}");
    }
}

#[test]
fn a_directory_without_a_run_is_refused() {
    let home = Home::new();
    home.write("empty/file", "");
    for command in ["evaluate", "show run", "predict"] {
        let images = if command == "predict" { "file" } else { "" };
        for (place, says) in [("nowhere", "no such"), ("empty", "job.toml")] {
            let error = home.coordinator(&format!("{command} {place} {images}")).fails(3);
            assert!(error.contains(place) && error.contains(says), "{command}: {error}");
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let home = Home::new();
    home.small_job();
    home.coordinator("train small.toml --workers 1 --epochs 1 --run-dir run").succeeds();
    let model = home.path("run/model.safetensors");
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        edit(&model, |bytes| {
            let last = bytes.len() - 4;
            bytes[last..].copy_from_slice(&value.to_le_bytes());
        })
        .unwrap();
        let run = home.run("run");
        let was = run.hash();
        let now = run.hash_of_tensors(&["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"]);
        home.write("run/receipt.json", run.text("receipt.json").replace(&was, &now));
        run.reseal();
        for command in ["predict run data/t10k-images-idx3-ubyte", "evaluate run", "show run run"] {
            let ended = home.coordinator(command).run();
            let error = ended.error(3);
            assert!(error.contains("run/model.safetensors: dense") && error.contains(name), "{error}");
            assert!(error.contains("train again") && ended.stdout.is_empty(), "{ended}");
        }
    }
}

#[test]
fn damaged_or_missing_files_of_a_run_are_named_with_the_remedy() {
    let home = Home::new();
    home.small_job();
    home.coordinator("train small.toml --workers 1 --epochs 1 --run-dir run").succeeds();
    for (file, damage) in [("history.jsonl", "{"), ("receipt.json", "{"), ("model.safetensors", "no model")] {
        let whole = home.run("run").bytes(file);
        home.write(&format!("run/{file}"), damage);
        let error = home.coordinator("show run run").fails(7);
        assert!(error.contains(&format!("run/{file}: ")) && error.contains("restore the file"), "{error}");

        fs::remove_file(home.path("run").join(file)).unwrap();
        symlink("/dev/zero", home.path("run").join(file)).unwrap();
        for command in ["show run run", "evaluate run", "predict run data/t10k-images-idx3-ubyte"] {
            let error = home.coordinator(command).fails(3);
            assert!(error.contains(&format!("run/{file}: not a regular file")), "{command}: {error}");
        }
        fs::remove_file(home.path("run").join(file)).unwrap();
        home.write(&format!("run/{file}"), whole);
    }
}

#[test]
fn files_that_cannot_be_predicted_are_named_and_the_others_predicted() {
    let home = Home::new();
    home.small_job();
    home.coordinator("train small.toml --workers 1 --epochs 1 --run-dir run").succeeds();
    let small = [&[0, 0, 8, 3][..], &[0, 0, 0, 1], &[0, 0, 0, 2], &[0, 0, 0, 2], &[1, 2, 3, 4]].concat();
    let bad: [(&str, &[u8], &str); 8] = [
        ("text.txt", b"seven", "text"),
        ("broken.png", b"\x89PNG\r\n\x1a\nand no more", "PNG"),
        ("nothing.png", b"", "empty"),
        ("a.gif", b"GIF89a and so on, and so on", "a GIF image"),
        ("a.jpeg", b"\xff\xd8\xff\xe0 and so on", "JPEG file is truncated"),
        ("a.webp", b"RIFF\x10\0\0\0WEBPVP8 ", "a WebP image"),
        ("labels", &[0, 0, 8, 1, 0, 0, 0, 1, 7], "labels"),
        ("small-images", &small, "2×2"),
    ];
    bad.iter().for_each(|(name, content, _)| _ = home.write(name, content));

    let names: Vec<_> = bad.iter().map(|(name, ..)| *name).collect();
    let names = format!("{} absent.png /dev/zero", names.join(" "));
    let ended = home
        .coordinator(&format!("predict run {names} data/t10k-images-idx3-ubyte --json"))
        .run()
        .with_code(3);

    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), bad.len() + 2, "a line a file: {ended}");
    for ((name, _, says), line) in bad.iter().zip(&lines) {
        assert!(line.starts_with(&format!("error: {name}: ")) && line.contains(says), "{line}");
    }
    assert!(lines[bad.len()].contains("absent.png"), "{ended}");
    assert!(lines[bad.len() + 1].contains("not a regular file"), "{ended}");
    assert_eq!(ended.json().len(), millefeuille_tests::data::SMALL_TEST, "the good file's answers");
}

#[test]
fn an_empty_variable_is_ignored() {
    let home = Home::new();
    home.small_job();
    let mut call = home.coordinator("train small.toml --workers 1 --run-dir run");
    for variable in ["CLUSTER", "CLUSTER_TLS", "EPOCHS", "WORKERS", "SHUFFLE"] {
        call = call.env(format!("MILLEFEUILLE_{variable}"), "");
    }
    call.succeeds();
    let error = home.coordinator("train small.toml").env("MILLEFEUILLE_EPOCHS", "0").fails(2);
    assert!(error.contains("MILLEFEUILLE_EPOCHS=0"), "{error}");
}
