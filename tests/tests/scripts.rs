//! What the scripts do where a tool is missing or fails: a copy of them, between tools that are made up.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use millefeuille_tests::home::{Home, project};
use millefeuille_tests::process::Ended;

const REQUIREMENTS: &str = "tests/peers/requirements.txt";
const BENCH_REQUIREMENTS: &str = "bench/peers/requirements.txt";
const ENVIRONMENT: &str = "target/peers";

/// A Python whose `venv` makes a `pip` that ends with `$PIP`, if `$VENV` lets it.
const PYTHON: &str = r#"#!/bin/sh
[ "$1" = -c ] && exit "${MODULES:-0}"
mkdir -p "$3/bin"
printf '#!/bin/sh\nexit %s\n' "${PIP:-0}" >"$3/bin/pip"
chmod +x "$3/bin/pip"
exit "${VENV:-0}"
"#;

/// A home with the scripts and with tools that can be told to fail; nothing can be installed.
fn home() -> Home {
    let home = Home::new();
    for script in
        ["scripts/common.sh", "scripts/peers.sh", "scripts/bench-peers.sh", REQUIREMENTS, BENCH_REQUIREMENTS]
    {
        let text = fs::read(project().join(script)).unwrap_or_else(|error| panic!("{script}: {error}"));
        executable(&home.write(script, text));
    }
    executable(&home.write("scripts/install.sh", "#!/bin/sh\nexit 1\n"));
    executable(&home.write("tools/python3", PYTHON));
    executable(&home.write("tools/openssl", "#!/bin/sh\n"));
    home
}

fn executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("modes can be set");
}

/// Runs `peers.sh`, with `CI` as it is said and one more variable.
fn peers(home: &Home, ci: &str, variable: (&str, &str)) -> Ended {
    script(home, "scripts/peers.sh", ci, variable)
}

fn script(home: &Home, script: &str, ci: &str, (name, value): (&str, &str)) -> Ended {
    let tools = home.path("tools");
    let path = format!("{}:/usr/bin:/bin", tools.display());
    let call = home.call(&home.path(script), "").env("PATH", &path).env("CI", ci);
    let cache = home.path(".cache");
    let call = call.env("XDG_CACHE_HOME", cache.to_str().expect("a path in UTF-8"));
    call.env("CARGO_HOME", tools.to_str().expect("a path in UTF-8")).env(name, value).run()
}

#[test]
fn what_cannot_be_installed_is_named_and_leaves_nothing_and_is_an_error_for_everybody() {
    let home = home();
    for broken in [("MODULES", "1"), ("VENV", "1"), ("PIP", "1")] {
        let skipped = peers(&home, "", broken).with_code(0);
        let line = skipped.stderr.lines().last().unwrap_or_default();
        assert!(line.starts_with("skipped: Python's grpcio is not installed ("), "{broken:?}: {skipped}");
        assert!(!home.path(ENVIRONMENT).exists(), "{broken:?}");

        let error = peers(&home, "true", broken).error(1);
        assert!(error.starts_with("Python's grpcio is not installed ("), "{broken:?}: {error}");
        assert!(!home.path(ENVIRONMENT).exists(), "{broken:?}");
    }
}

#[test]
fn what_was_installed_stays_until_something_else_is_asked_for() {
    let home = home();
    let installed = home.path(ENVIRONMENT).join("installed");
    for ci in ["", "true"] {
        let made = peers(&home, ci, ("PIP", "0")).with_code(0);
        assert!(made.stderr.starts_with("Installing with pip, into target/peers: grpcio"), "{made}");
        assert_eq!(fs::read(&installed).unwrap(), fs::read(home.path(REQUIREMENTS)).unwrap());

        let kept = peers(&home, ci, ("PIP", "1")).with_code(0);
        assert_eq!(kept.stderr, "", "it is there");

        home.write(REQUIREMENTS, format!("grpcio==1.0.0 # {ci}\n"));
        peers(&home, "", ("PIP", "1")).with_code(0);
        assert!(!installed.exists(), "what was there is not what is asked for");
        home.write(REQUIREMENTS, format!("grpcio==2.0.0 # {ci}\n"));
    }
}

#[test]
fn a_benchmark_without_its_peers_says_what_it_needs_and_leaves_nothing() {
    let home = home();
    let environment = home.path(".cache/millefeuille/peers");
    for broken in [("MODULES", "1"), ("VENV", "1"), ("PIP", "1")] {
        let error = script(&home, "scripts/bench-peers.sh", "", broken).error(1);
        assert!(
            error.starts_with("Keras and PyTorch are not installed: it needs Python"),
            "{broken:?}: {error}"
        );
        assert!(!environment.exists(), "{broken:?}");
    }
    script(&home, "scripts/bench-peers.sh", "", ("PIP", "0")).with_code(0);
    assert!(environment.join("bin/pip").exists(), "outside of the tree");
    let kept = script(&home, "scripts/bench-peers.sh", "", ("PIP", "1")).with_code(0);
    assert_eq!(kept.stderr, "", "it is there");
}
