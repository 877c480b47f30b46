//! The commands of the runbook, deploy/README.md, are run unchanged.
//!
//! Blocks of ```` ```sh compose ```` are run on a real engine, in order. Those of ```` ```sh kubectl ```` are run
//! with the real `kubectl` and the address of a server that does not exist: `kubectl` reads the whole command line
//! and the manifests before it connects. The objects in the commands (pods, Deployments, secrets) must be in the
//! manifests, and commands in a pod must be valid command lines of the program.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use millefeuille_tests::engine::Engine;
use millefeuille_tests::home::{Home, binary, project};
use millefeuille_tests::manifests::{Manifests, can_render, name};
use millefeuille_tests::process::Ended;
use millefeuille_tests::runbook::{commands, runbook};

/// A fake program, first in the PATH.
fn stand_in(home: &Home, program: &str, script: &str) -> PathBuf {
    let path =
        home.write(&format!("bin/{program}"), format!("#!/usr/bin/env bash\nset -euo pipefail\n{script}"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("modes can be changed");
    path.parent().expect("it is in a directory").to_path_buf()
}

fn run(home: &Home, programs: &Path, command: &str, environment: &[(&str, String)]) -> Ended {
    let path = std::env::var("PATH").unwrap_or_default();
    let call = home.call(Path::new("bash"), "-euo pipefail -c").arg(command);
    let call = call.env("PATH", format!("{}:{path}", programs.display()));
    environment.iter().fold(call, |call, (name, value)| call.env(name, value)).run()
}

/// A fake `docker` for compose: it calls `docker-compose` if only that is installed, and uses no terminal.
const DOCKER: &str = r#"
docker=$(PATH=${PATH#*:} command -v docker)
[ "${1-}" = compose ] || exec "$docker" "$@"
shift
case " $* " in *" -T "*) ;; *) case $1 in exec | run) set -- "$1" -T "${@:2}" ;; esac ;; esac
if "$docker" compose version >/dev/null 2>&1; then exec "$docker" compose "$@"; fi
exec docker-compose "$@"
"#;

#[test]
fn the_runbooks_compose_commands_work() {
    let Some(engine) = Engine::find() else { return };
    let cluster = engine.cluster();
    let home = Home::new();
    let programs = stand_in(&home, "docker", DOCKER);
    let environment = [
        ("COMPOSE_FILE", project().join("compose.yaml").display().to_string()),
        ("COMPOSE_PROJECT_NAME", cluster.project_name().to_string()),
        ("MILLEFEUILLE_DOCKERFILE", "Dockerfile.prebuilt".to_string()),
    ];
    for command in commands("compose") {
        run(&home, &programs, &command, &environment).with_code(0);
    }
}

/// `kubectl` with the address of a server that does not exist.
const KUBECTL: &str = r#"
kubectl=$(PATH=${PATH#*:} command -v kubectl)
export KUBECONFIG=/nonexistent
said=$("$kubectl" --server=http://127.0.0.1:1 "$@" 2>&1 >/dev/null) && exit 0
case $said in *refused*) exit 0 ;; esac
echo "$said" >&2
exit 1
"#;

#[test]
fn kubectl_accepts_the_runbooks_commands() {
    if !can_render() {
        return;
    }
    let home = Home::new();
    let programs = stand_in(&home, "kubectl", KUBECTL);
    stand_in(&home, "coordinator", &format!("exec {} \"$@\"", binary("coordinator").display()));
    std::os::unix::fs::symlink(project().join("deploy"), home.path("deploy")).expect("links can be made");
    for command in commands("kubectl") {
        run(&home, &programs, &command, &[]).with_code(0);
    }
    // The test would detect an error.
    for wrong in [
        "kubectl -n millefeuille rollout statsu deployment/worker",
        "kubectl apply -k deploy/kubernetes/overlays/lokal",
    ] {
        let ended = run(&home, &programs, wrong, &[]);
        assert_ne!(ended.code(), Some(0), "{ended}");
    }
}

/// The objects of the runbook's overlays, as `kind/name` in lower case.
fn objects() -> Vec<String> {
    let overlays = ["overlays/local", "overlays/monitoring", "overlays/jobset", "overlays/production/train"];
    let documents = overlays.iter().flat_map(|overlay| Manifests::render(&[overlay]).documents);
    let object = |document: serde_json::Value| {
        let kind = document["kind"].as_str().unwrap_or_default().to_lowercase();
        let secret = document["spec"]["secretName"].as_str().map(|secret| format!("secret/{secret}"));
        let pod = (kind == "statefulset").then(|| format!("pod/{}-0", name(&document)));
        [Some(format!("{kind}/{}", name(&document))), secret, pod].into_iter().flatten().collect::<Vec<_>>()
    };
    documents.flat_map(object).collect()
}

/// The objects that a `kubectl` command names.
fn named(command: &str) -> Vec<String> {
    let command = command.split(" -- ").next().unwrap_or_default();
    let words: Vec<_> = command.split_whitespace().skip(1).filter(|word| !word.starts_with('-')).collect();
    let slashed =
        words.iter().filter(|word| word.contains('/') && !word.contains("deploy/") && !word.contains("tls/"));
    let mut named: Vec<_> = slashed.map(|word| word.to_string()).collect();
    named.extend(words.iter().filter(|word| **word == "coordinator-0").map(|pod| format!("pod/{pod}")));
    for kind in ["secret", "persistentvolumeclaim"] {
        if let Some(["delete", of, names @ ..]) = words.get(1..).filter(|words| words.get(1) == Some(&kind)) {
            named.extend(names.iter().map(|name| format!("{of}/{name}")));
        }
    }
    named
}

#[test]
fn everything_that_the_runbook_names_exists() {
    if !can_render() {
        return;
    }
    let objects = objects();
    for command in commands("kubectl").iter().filter(|command| command.starts_with("kubectl")) {
        let missing: Vec<_> = named(command).into_iter().filter(|object| !objects.contains(object)).collect();
        assert!(missing.is_empty(), "{command}: there is no {missing:?}");
        let somewhere = ["-n millefeuille", " -k ", "kubectl kustomize"];
        assert!(somewhere.iter().any(|place| command.contains(place)), "{command}: in which namespace?");
    }
    assert_eq!(named("kubectl -n millefeuille delete secret a b"), ["secret/a", "secret/b"]);
    assert_eq!(named("kubectl -n millefeuille exec coordinator-0 -- x/y"), ["pod/coordinator-0"]);
}

#[test]
fn the_runbook_explains_every_alert() {
    if !can_render() {
        return;
    }
    let runbook = runbook();
    let manifests = Manifests::render(&["overlays/monitoring"]);
    let rules =
        manifests.of_kind("PrometheusRule").flat_map(|rule| rule["spec"]["groups"][0]["rules"].as_array());
    let alerts: Vec<_> = rules.flatten().filter_map(|rule| rule["alert"].as_str()).collect();
    assert!(alerts.len() > 3, "{alerts:?}");
    for alert in alerts {
        assert!(runbook.contains(&format!("| `{alert}` | ")), "{alert} is not explained");
    }
}
