//! The scripts if a tool is missing or fails: a copy of them is run with fake tools.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use millefeuille_tests::home::{Home, project};
use millefeuille_tests::process::Ended;

const SCRIPTS: [&str; 6] = ["common", "test", "base-images", "containers", "peers", "bench-peers"];
const REQUIREMENTS: &str = "tests/peers/requirements.txt";
const READERS_REQUIREMENTS: &str = "tests/readers/requirements.txt";
const BENCH_REQUIREMENTS: &str = "bench/peers/requirements.txt";
const DENY_REQUIREMENTS: &str = "scripts/deny-requirements.txt";
const ENVIRONMENT: &str = "target/peers";
const READERS: &str = "target/readers";

/// The tools that the scripts require. Nothing else of this machine is in their PATH.
const EVERYWHERE: [&str; 23] = [
    "bash", "cat", "chmod", "cmp", "cp", "dirname", "env", "find", "getconf", "grep", "head", "id", "mkdir",
    "mktemp", "rm", "sed", "sh", "sort", "tail", "timeout", "tr", "uname", "xargs",
];

const WELL: &str = "#!/bin/sh\n";
const FAILS: &str = "#!/bin/sh\nexit 1\n";

/// A fake Python. Its `venv` succeeds if `$VENV` says so, and its `pip` exits with `$PIP`.
const PYTHON: &str = r#"#!/bin/sh
[ "$1" = -c ] && exit "${MODULES:-0}"
mkdir -p "$3/bin"
printf '#!/bin/sh\nexit %s\n' "${PIP:-0}" >"$3/bin/pip"
chmod +x "$3/bin/pip"
exit "${VENV:-0}"
"#;

/// A fake cargo. It logs its arguments, and whether containers are tested. A part that `$BREAKS` names fails.
const CARGO: &str = r#"#!/bin/sh
echo "$* ${TESTS_WITHOUT_CONTAINERS-with containers}" >>cargo.log
[ "$1" != nextest ] || { mkdir -p target/nextest/default && cp report.xml target/nextest/default/junit.xml; }
case "$*" in *"${BREAKS:-nothing}"*) exit 101 ;; esac
"#;

/// A fake engine without images that can pull none.
const DOCKER: &str = r#"#!/bin/sh
case "$*" in "image inspect "* | pull*) exit 1 ;; esac
"#;

/// The test that runs only nightly.
const FROM_SOURCES: &str = "the_image_builds_from_sources_and_trains";

const UNBROKEN: (&str, &str) = ("BREAKS", "nothing");

/// A home with the scripts and fake tools, in which nothing can be installed.
fn home() -> Home {
    let home = Home::new();
    for script in SCRIPTS.map(|name| format!("scripts/{name}.sh")).iter().map(String::as_str).chain([
        REQUIREMENTS,
        READERS_REQUIREMENTS,
        BENCH_REQUIREMENTS,
        DENY_REQUIREMENTS,
    ]) {
        let text = fs::read(project().join(script)).unwrap_or_else(|error| panic!("{script}: {error}"));
        executable(&home.write(script, text));
    }
    fs::copy(project().join("Dockerfile"), home.path("Dockerfile")).expect("files can be copied");
    executable(&home.write("scripts/install.sh", FAILS));
    for script in ["links", "manifests"] {
        executable(&home.write(&format!("scripts/{script}.sh"), WELL));
    }
    for (tool, script) in [("python3", PYTHON), ("cargo", CARGO), ("docker", DOCKER)] {
        executable(&home.write(&format!("tools/{tool}"), script));
    }
    for tool in ["openssl", "shellcheck", "cargo-deny", "promtool"] {
        executable(&home.write(&format!("tools/{tool}"), WELL));
    }
    for tool in EVERYWHERE {
        symlink(found(tool), home.path("tools").join(tool)).expect("links can be made");
    }
    home
}

fn executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("modes can be set");
}

/// The path of a tool on this machine.
fn found(tool: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|directory| directory.join(tool));
    places.find(|place| place.is_file()).unwrap_or_else(|| panic!("there is no {tool} on the PATH"))
}

/// Runs a script, with this `CI` and one more variable.
fn run(home: &Home, script: &str, ci: &str, variable: (&str, &str)) -> Ended {
    run_with(home, script, "", ci, variable)
}

/// The same, with arguments.
fn run_with(home: &Home, script: &str, arguments: &str, ci: &str, (name, value): (&str, &str)) -> Ended {
    let tools = home.path("tools");
    let tools = tools.to_str().expect("a path in UTF-8");
    let script = home.path(&format!("scripts/{script}.sh"));
    // Parts skipped here are not added to the list of the run that this test is a part of.
    let call = home.call(&script, arguments).env("PATH", tools).env("CI", ci).env("SKIPPED_LIST", "");
    let cache = home.path(".cache");
    let call = call.env("CARGO_HOME", tools).env("XDG_CACHE_HOME", &cache);
    call.env(name, value).run()
}

#[test]
fn a_failed_installation_is_named_and_leaves_nothing() {
    let home = home();
    for broken in [("MODULES", "1"), ("VENV", "1"), ("PIP", "1")] {
        let skipped = run(&home, "peers", "", broken).with_code(0);
        let lines: Vec<_> = skipped.stderr.lines().filter(|line| line.starts_with("skipped: ")).collect();
        for what in ["Python's grpcio with moto is not installed (", "a reader of exported models is not"] {
            let begins = |line: &&str| line.starts_with(&format!("skipped: {what}"));
            assert!(lines.iter().any(begins), "{broken:?}, {what}: {skipped}");
        }
        assert!(![ENVIRONMENT, READERS].iter().any(|path| home.path(path).exists()), "{broken:?}");

        let error = run(&home, "peers", "true", broken).error(1);
        assert!(error.starts_with("Python's grpcio with moto is not installed ("), "{broken:?}: {error}");
        assert!(!home.path(ENVIRONMENT).exists(), "{broken:?}");
    }
}

#[test]
fn installed_packages_are_kept_until_the_requirements_change() {
    let home = home();
    let installed = home.path(ENVIRONMENT).join("installed");
    for ci in ["", "true"] {
        let made = run(&home, "peers", ci, ("PIP", "0")).with_code(0);
        assert!(made.stderr.starts_with("Installing with pip, into target/peers: grpcio"), "{made}");
        assert_eq!(fs::read(&installed).unwrap(), fs::read(home.path(REQUIREMENTS)).unwrap());

        let kept = run(&home, "peers", ci, ("PIP", "1")).with_code(0);
        assert_eq!(kept.stderr, "", "it is there");

        home.write(REQUIREMENTS, format!("grpcio==1.0.0 # {ci}\n"));
        run(&home, "peers", "", ("PIP", "1")).with_code(0);
        assert!(!installed.exists(), "what was there is not what is asked for");
        home.write(REQUIREMENTS, format!("grpcio==2.0.0 # {ci}\n"));
    }
}

#[test]
fn a_benchmark_without_its_peers_names_what_is_missing() {
    let home = home();
    let environment = home.path(".cache/millefeuille/peers");
    for broken in [("MODULES", "1"), ("VENV", "1"), ("PIP", "1")] {
        let error = run(&home, "bench-peers", "", broken).error(1);
        assert!(
            error.starts_with("Keras and PyTorch are not installed: it needs Python"),
            "{broken:?}: {error}"
        );
        assert!(!environment.exists(), "{broken:?}");
    }
    run(&home, "bench-peers", "", ("PIP", "0")).with_code(0);
    assert!(environment.join("bin/pip").exists(), "outside of the tree");
    let kept = run(&home, "bench-peers", "", ("PIP", "1")).with_code(0);
    assert_eq!(kept.stderr, "", "it is there");
}

/// The lines of the summary of a test run.
fn summary(ended: &Ended) -> Vec<&str> {
    let (_, summary) =
        ended.stdout.split_once("\n== summary\n").unwrap_or_else(|| panic!("no summary: {ended}"));
    summary.lines().collect()
}

/// The arguments of cargo, one line for each call.
fn cargo(home: &Home) -> Vec<String> {
    let log = fs::read_to_string(home.path("cargo.log")).expect("cargo was asked");
    fs::remove_file(home.path("cargo.log")).expect("files can be removed");
    log.lines().map(str::to_string).collect()
}

#[test]
fn without_base_images_only_the_container_tests_are_skipped() {
    let home = home();
    // Without debootstrap, and with one that fails.
    for debootstrap in [None, Some(FAILS)] {
        debootstrap.inspect(|script| executable(&home.write("tools/debootstrap", script)));

        let ended = run(&home, "test", "", UNBROKEN).with_code(0);

        let why = "tests of containers: the base images can neither be pulled nor made here";
        let [skipped, end] = summary(&ended)[..] else { panic!("two lines: {ended}") };
        assert!(skipped.starts_with(&format!("skipped: {why}")), "{ended}");
        assert_eq!(end, "all that ran has passed");
        let asked = cargo(&home);
        let last = asked.last().expect("cargo was asked");
        let tests = format!("test --locked --workspace --tests -- --skip {FROM_SOURCES} {why}");
        assert!(last.starts_with(&tests), "{asked:#?}");
        assert!(!asked.iter().any(|asked| asked.starts_with("build --release")), "{asked:#?}");

        let error = run(&home, "test", "true", UNBROKEN).with_code(1);
        assert!(
            error.stderr.contains(&format!("error: the {}", why.replace(": ", " can't run: "))),
            "{error}"
        );
        assert!(!cargo(&home).iter().any(|asked| asked.contains("--tests")), "it ends there");
    }
}

#[test]
fn the_summary_of_a_run_is_correct() {
    let home = home();
    // The engine does not respond, and a tool is not installed.
    executable(&home.write("tools/docker", FAILS));
    fs::remove_file(home.path("tools/promtool")).unwrap();
    let skipped = [
        "skipped: promtool is not installed (a part of the package prometheus)",
        "skipped: tests of containers: no Docker engine answers (https://docs.docker.com/engine/install)",
    ];
    let well = run(&home, "test", "", UNBROKEN).with_code(0);
    assert_eq!(summary(&well), [&skipped[..], &["all that ran has passed"]].concat());

    for (breaks, what) in [
        ("--all-targets", "clippy"),
        ("--workspace --doc", "examples in the documentation"),
        ("--tests", "tests"),
    ] {
        let failed = run(&home, "test", "", ("BREAKS", breaks));
        assert!(failed.code().is_some_and(|code| code != 0), "{failed}");
        let end = format!("failed: {what}; what comes after it did not run");
        assert_eq!(summary(&failed).last(), Some(&&*end), "{failed}");
    }
    let unknown = run(&home, "test", "true", UNBROKEN).with_code(1);
    assert!(unknown.stderr.contains("no Docker engine answers"), "{unknown}");
}

/// Nextest's report of so many tests, each slower than the one before.
fn report(tests: u32) -> String {
    let case = |number: u32| {
        format!(
            "        <testcase name=\"test_{number}\" classname=\"package::binary\" \
             timestamp=\"2026-01-01T00:00:00.000+00:00\" time=\"{number}.250\">\n        </testcase>\n"
        )
    };
    format!("<testsuites name=\"nextest-run\" time=\"99.0\">\n{}", (1..=tests).map(case).collect::<String>())
}

#[test]
fn the_slowest_tests_are_listed_after_success_and_failure() {
    let home = home();
    executable(&home.write("tools/docker", FAILS));
    let begin = "\n== slowest tests\n";
    let unknown = run(&home, "test", "", UNBROKEN).with_code(0);
    assert!(!unknown.stdout.contains(begin), "{unknown}");

    executable(&home.write("tools/cargo-nextest", WELL));
    home.write("report.xml", report(12));
    let slowest: Vec<_> =
        (3..=12).rev().map(|number| format!("{number}.250 package::binary test_{number}")).collect();
    for (which, breaks, code) in
        [("all", "nothing", 0), ("all", "--tests", 101), ("quick", "nothing", 0), ("quick", "--lib", 101)]
    {
        let ended = run_with(&home, "test", which, "", ("BREAKS", breaks)).with_code(code);
        let (_, table) = ended.stdout.split_once(begin).unwrap_or_else(|| panic!("no table: {ended}"));
        let (table, _) =
            table.split_once("\n\n== summary\n").unwrap_or_else(|| panic!("no summary: {ended}"));
        assert_eq!(table.lines().collect::<Vec<_>>(), slowest, "{which} {breaks}");
    }

    // The report of an earlier run is not used if no test runs.
    let early = run_with(&home, "test", "quick", "", ("BREAKS", "--all-targets")).with_code(101);
    assert!(!early.stdout.contains(begin), "{early}");
}

/// A setting for a test that was renamed would silently have no effect.
#[test]
fn tests_named_in_nextests_configuration_exist() {
    let config =
        fs::read_to_string(project().join(".config/nextest.toml")).expect("the runner is configured");
    let files = fs::read_dir(project().join("tests/tests")).expect("there are tests").flatten();
    let texts: Vec<_> = files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect();
    let named = |kind: &str| {
        let rest = config.split(kind).skip(1).filter_map(|rest| rest.split_once(')'));
        rest.map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    let (tests, binaries) = (named("test(="), named("binary("));
    assert!(tests.iter().any(|test| test == FROM_SOURCES) && binaries.len() > 5, "{tests:?} {binaries:?}");
    for test in tests {
        let function = format!("#[test]\nfn {test}()");
        assert!(texts.iter().any(|text| text.contains(&function)), "there is no test {test}");
    }
    for binary in binaries {
        assert!(project().join(format!("tests/tests/{binary}.rs")).is_file(), "there is no file {binary}.rs");
    }
}

#[test]
fn tests_excluded_by_default_run_nightly() {
    let home = home();
    executable(&home.write("tools/docker", FAILS));
    let ended = run_with(&home, "test", "nightly", "", UNBROKEN).with_code(0);

    let why = "tests of containers: no Docker engine answers";
    assert!(summary(&ended)[0].starts_with(&format!("skipped: {why}")), "{ended}");
    let asked = cargo(&home);
    let last = asked.last().expect("cargo was asked");
    let test = format!("test --locked -p millefeuille-tests --test images -- --exact {FROM_SOURCES} {why}");
    assert!(last.starts_with(&test), "{asked:#?}");
}

#[test]
fn cargo_deny_is_compiled_only_if_no_binary_is_available() {
    let home = home();
    executable(&home.write("tools/docker", FAILS));
    fs::remove_file(home.path("tools/cargo-deny")).unwrap();
    let absent = run(&home, "test", "", UNBROKEN).with_code(0);
    assert!(summary(&absent)[0].starts_with("skipped: cargo-deny is not installed ("), "{absent}");
    assert!(!cargo(&home).iter().any(|asked| asked.contains("cargo-deny@")));

    for (pip, compiled) in [("1", 1), ("0", 0)] {
        // It ends because there is no engine.
        run(&home, "test", "true", ("PIP", pip)).with_code(1);
        let asked = cargo(&home);
        let count = |part: &str| asked.iter().filter(|asked| asked.contains(part)).count();
        assert_eq!(
            (count("install --quiet --locked cargo-deny@0."), count("deny --locked check")),
            (compiled, 1),
            "{asked:#?}"
        );
    }
}
