//! Checks that the Kubernetes manifests are consistent. scripts/manifests.sh checks them against their schemas.

use std::collections::BTreeSet;
use std::fs;

use k8s_openapi::api::core::v1::Container;
use millefeuille_tests::home::{Home, project};
use millefeuille_tests::http::Port;
use millefeuille_tests::manifests::check::problems;
use millefeuille_tests::manifests::workload::Workload;
use millefeuille_tests::manifests::{Manifests, can_render};
use serde_json::{Value, json};

/// The kustomizations that are applied together.
const TOGETHER: [&[&str]; 6] = [
    &["base", "train"],
    &["overlays/local", "overlays/local/train"],
    &["overlays/production", "train"],
    &["overlays/monitoring"],
    &["overlays/jobset"],
    &["overlays/trainjob"],
];

#[test]
fn the_manifests_of_each_overlay_are_consistent() {
    if !can_render() {
        return;
    }
    for kustomizations in TOGETHER {
        let manifests = Manifests::render(kustomizations);
        assert_eq!(problems(&manifests), [""; 0], "in {}", manifests.name);
    }
}

/// A mistake that happens in real manifests, and the problem that must be reported.
struct Mistake {
    what: &'static str,
    kind: &'static str,
    name: &'static str,
    /// Where in the document, as a JSON pointer.
    at: &'static str,
    to: Value,
    said: &'static str,
}

/// Mistakes in the overlay `local` with its `train`.
fn mistakes() -> Vec<Mistake> {
    let mistake = |what, kind, name, at, to, said| Mistake { what, kind, name, at, to, said };
    vec![
        mistake(
            "a selector of a Service",
            "Service",
            "coordinator",
            "/spec/selector/app.kubernetes.io~1component",
            json!("coordinatr"),
            "Service coordinator: its selector picks no pods",
        ),
        mistake(
            "a selector of a Deployment",
            "Deployment",
            "worker",
            "/spec/selector/matchLabels/app.kubernetes.io~1component",
            json!("workers"),
            "its selector does not pick its own pods",
        ),
        mistake(
            "a budget for nobody",
            "PodDisruptionBudget",
            "worker",
            "/spec/selector/matchLabels/app.kubernetes.io~1component",
            json!("workers"),
            "PodDisruptionBudget worker: its selector picks no pods",
        ),
        mistake(
            "a policy for nobody",
            "NetworkPolicy",
            "coordinator",
            "/spec/podSelector/matchLabels/app.kubernetes.io~1name",
            json!("mille"),
            "NetworkPolicy coordinator: its selector picks no pods",
        ),
        mistake(
            "a target that is no port",
            "Service",
            "coordinator",
            "/spec/ports/0/targetPort",
            json!("http"),
            "nobody has its port 7070",
        ),
        mistake(
            "a port that is not dialled",
            "Service",
            "coordinator",
            "/spec/ports/0/port",
            json!(7700),
            "coordinator:7070 is no port of a Service",
        ),
        mistake(
            "a port that nobody listens on",
            "StatefulSet",
            "coordinator",
            "/spec/template/spec/containers/0/ports/0/containerPort",
            json!(7700),
            "nothing listens on its port 7700",
        ),
        mistake(
            "a service that is not headless",
            "StatefulSet",
            "coordinator",
            "/spec/serviceName",
            json!("coordinator"),
            "serviceName coordinator is no headless Service",
        ),
        mistake(
            "a missing claim",
            "Deployment",
            "worker",
            "/spec/template/spec/volumes/0/persistentVolumeClaim/claimName",
            json!("worker"),
            "there is no PersistentVolumeClaim worker",
        ),
        mistake(
            "a missing ConfigMap",
            "Job",
            "train",
            "/spec/template/spec/volumes/1/configMap/name",
            json!("jobs"),
            "there is no ConfigMap jobs",
        ),
        mistake(
            "a missing account",
            "Deployment",
            "worker",
            "/spec/template/spec/serviceAccountName",
            json!("workers"),
            "there is no ServiceAccount workers",
        ),
        mistake(
            "a mount of nothing",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/volumeMounts/0/name",
            json!("tls"),
            "there is no volume tls to mount",
        ),
        mistake(
            "another namespace",
            "Deployment",
            "worker",
            "/metadata/namespace",
            json!("default"),
            "is in no namespace made here",
        ),
        mistake(
            "a flag that there is not",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/args/3",
            json!("--join-timout=3600"),
            "unexpected argument '--join-timout'",
        ),
        mistake(
            "a value that is none",
            "StatefulSet",
            "coordinator",
            "/spec/template/spec/containers/0/args/5",
            json!("--log-format=jsonl"),
            "invalid value 'jsonl'",
        ),
        mistake(
            "a variable that nobody reads",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/env/0/name",
            json!("MILLEFEUILLE_SLOT"),
            "MILLEFEUILLE_SLOT is read by no command",
        ),
        mistake(
            "a limit of nobody",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/env/0/valueFrom/resourceFieldRef/containerName",
            json!("coordinator"),
            "is about another container",
        ),
        mistake(
            "a job file that there is not",
            "StatefulSet",
            "coordinator",
            "/spec/template/spec/containers/0/args/4",
            json!("--job=/millefeuille/jobs/articles.toml"),
            "has no articles.toml",
        ),
        mistake(
            "a job file with a mistake",
            "ConfigMap",
            "train",
            "/data/scaled.toml",
            json!("epochs = 3"),
            "unknown key",
        ),
        mistake(
            "runs that are not kept",
            "StatefulSet",
            "coordinator",
            "/spec/template/spec/containers/0/args/3",
            json!("--runs-dir=/millefeuille/jobs"),
            "what is written there is not kept",
        ),
        mistake(
            "a probe of a path that is not served",
            "StatefulSet",
            "coordinator",
            "/spec/template/spec/containers/0/readinessProbe/httpGet/path",
            json!("/ready"),
            "it asks for /ready instead of /readyz",
        ),
        mistake(
            "a probe of another port",
            "StatefulSet",
            "coordinator",
            "/spec/template/spec/containers/0/livenessProbe/httpGet/port",
            json!("grpc"),
            "its port is not that of --ops-listen",
        ),
        mistake(
            "a probe that goes nowhere",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/args/1",
            json!("--ops-listen=127.0.0.1:7071"),
            "nothing listens on its port 7071",
        ),
        mistake(
            "two coordinators",
            "StatefulSet",
            "coordinator",
            "/spec/replicas",
            json!(2),
            "a second coordinator would be another cluster",
        ),
        mistake(
            "a death before its time",
            "Deployment",
            "worker",
            "/spec/template/spec/terminationGracePeriodSeconds",
            json!(20),
            "before its --drain-timeout",
        ),
        mistake(
            "samples that do not fit",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/resources/limits/memory",
            json!("256Mi"),
            "--cache-bytes leaves too little",
        ),
        mistake(
            "an operator's key in a worker",
            "Deployment",
            "worker",
            "/spec/template/spec/volumes/0/persistentVolumeClaim/claimName",
            json!("operator-tls"),
            "the role there is operator, and worker is needed",
        ),
        mistake(
            "the authority's key in a worker",
            "Deployment",
            "worker",
            "/spec/template/spec/initContainers/0/volumeMounts/0/name",
            json!("tls"),
            "there is no volume tls to mount",
        ),
        mistake(
            "a certificate that can be changed",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/volumeMounts/0/readOnly",
            json!(false),
            "could be",
        ),
        mistake(
            "a name that no certificate has",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/args/0",
            json!("--coordinator=coordinator-pods:7070"),
            "no name of the coordinator's certificate",
        ),
        mistake(
            "a token",
            "ServiceAccount",
            "worker",
            "/automountServiceAccountToken",
            json!(true),
            "it gives a token",
        ),
        mistake(
            "a token in a pod",
            "Deployment",
            "worker",
            "/spec/template/spec/automountServiceAccountToken",
            json!(true),
            "it gets a token",
        ),
        mistake(
            "root",
            "Job",
            "train",
            "/spec/template/spec/securityContext/runAsUser",
            json!(0),
            "it runs as another user",
        ),
        mistake(
            "a root that can be written",
            "Job",
            "train",
            "/spec/template/spec/containers/0/securityContext/readOnlyRootFilesystem",
            json!(false),
            "its root can be written",
        ),
        mistake(
            "no limit",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/resources/limits",
            json!({ "memory": "512Mi" }),
            "its CPU is not said",
        ),
        mistake(
            "the newest image",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/image",
            json!("millefeuille:latest"),
            "its image may change under its name",
        ),
        mistake(
            "a policy that forgets the operators",
            "NetworkPolicy",
            "coordinator",
            "/spec/ingress/0/from/1/podSelector/matchLabels/app.kubernetes.io~1component",
            json!("operators"),
            "the network keeps Job train from TCP port 7070",
        ),
        mistake(
            "a policy for another port",
            "NetworkPolicy",
            "clients",
            "/spec/egress/0/ports/0/port",
            json!(7071),
            "the network keeps Deployment worker from TCP port 7070",
        ),
        mistake(
            "a policy without DNS",
            "NetworkPolicy",
            "clients",
            "/spec/egress/1/ports/0/protocol",
            json!("TCP"),
            "from UDP port 53 of the cluster's DNS",
        ),
        mistake(
            "a policy for the whole namespace",
            "NetworkPolicy",
            "coordinator",
            "/spec/ingress/0/from",
            json!([{ "podSelector": {} }]),
            "the network lets a pod without labels from TCP port 7070",
        ),
        mistake(
            "a policy for every namespace",
            "NetworkPolicy",
            "coordinator",
            "/spec/ingress/1/from/0/namespaceSelector",
            json!({}),
            "the network lets somebody else's Prometheus from TCP port 7071",
        ),
        mistake(
            "a policy for every port",
            "NetworkPolicy",
            "coordinator",
            "/spec/ingress/1/ports",
            json!([]),
            "the network lets Prometheus from TCP port 7070",
        ),
        mistake(
            "no default",
            "NetworkPolicy",
            "default-deny",
            "/spec/policyTypes",
            json!(["Ingress"]),
            "the network lets StatefulSet coordinator from TCP port 443 of the internet",
        ),
        mistake(
            "a way out",
            "NetworkPolicy",
            "clients",
            "/spec/egress/1/to",
            json!([]),
            "from UDP port 53 of the internet",
        ),
    ]
}

#[test]
fn wrong_manifests_are_detected() {
    if !can_render() {
        return;
    }
    let manifests = Manifests::render(&["overlays/local", "overlays/local/train"]);
    for mistake in mistakes() {
        let mut wrong = manifests.clone();
        let place = wrong.document(mistake.kind, mistake.name).pointer_mut(mistake.at);
        let place = place.unwrap_or_else(|| {
            panic!("{}: {} {} has no {}", mistake.what, mistake.kind, mistake.name, mistake.at)
        });
        assert_ne!(*place, mistake.to, "{}: that is no mistake", mistake.what);
        *place = mistake.to;
        let problems = problems(&wrong);
        assert!(
            problems.iter().any(|problem| problem.contains(mistake.said)),
            "{}: {problems:#?}",
            mistake.what
        );
    }
}

#[test]
fn wrong_certificates_are_detected() {
    if !can_render() {
        return;
    }
    let manifests = Manifests::render(&["overlays/production", "train"]);
    let mistakes = [
        (
            "coordinator",
            "/spec/secretName",
            json!("coordinator"),
            "no Certificate makes the secret coordinator-tls",
        ),
        (
            "worker",
            "/spec/uris/0",
            json!("spiffe://millefeuille/role/operator"),
            "the role there is operator, and worker is needed",
        ),
        ("operator", "/spec/privateKey/encoding", json!("PKCS1"), "its key is not written as PKCS#8"),
        (
            "coordinator",
            "/spec/dnsNames/0",
            json!("coordinator-pods"),
            "it dials coordinator, which is no name",
        ),
    ];
    for (name, at, to, said) in mistakes {
        let mut wrong = manifests.clone();
        *wrong.document("Certificate", name).pointer_mut(at).expect("the place is there") = to;
        let problems = problems(&wrong);
        assert!(problems.iter().any(|problem| problem.contains(said)), "{name} {at}: {problems:#?}");
    }
}

#[test]
fn copies_are_equal_to_their_originals() {
    let read = |path: &str| {
        fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let copy = "deploy/kubernetes/base/jobs/article.toml";
    assert_eq!(read(copy), read("jobs/article.toml"), "cp jobs/article.toml {copy}");
}

#[test]
fn manifests_name_this_version() {
    if !can_render() {
        return;
    }
    for kustomizations in
        [&["base", "train"][..], &["overlays/production"], &["overlays/jobset"], &["overlays/trainjob"]]
    {
        let manifests = Manifests::render(kustomizations);
        let tag = format!(":{}", env!("CARGO_PKG_VERSION"));
        let workloads = Workload::all(&manifests);
        for container in workloads.iter().flat_map(|workload| workload.containers()) {
            let image = container.image.as_deref().unwrap_or_default();
            assert!(image.ends_with(&tag), "{image} in {}", manifests.name);
        }
    }
}

/// The main container of a workload in the overlay `local`.
fn container(name: &str) -> Container {
    let manifests = Manifests::render(&["overlays/local"]);
    let found = Workload::all(&manifests).into_iter().find(|workload| workload.name == name);
    found.unwrap_or_else(|| panic!("there is no {name}")).main().clone()
}

/// Sends all probes of a container of this overlay to the ops port of its program.
fn answers_its_probes(name: &str, ops: &Port) {
    let container = container(name);
    for probe in [&container.startup_probe, &container.liveness_probe, &container.readiness_probe] {
        let path = probe.as_ref().and_then(|probe| probe.http_get.as_ref()?.path.clone());
        ops.answers(&path.expect("every probe has a path"), 200);
    }
    assert_eq!(ops.request("GET", "/nothing").status, 404);
}

/// The names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '_');
    words.filter(|word| word.starts_with("millefeuille_")).map(str::to_owned).collect()
}

#[test]
fn probed_and_scraped_endpoints_exist() {
    if !can_render() {
        return;
    }
    let home = Home::new();
    home.small_job();
    home.certificates();
    let mut cluster = home.cluster("--ops-listen 127.0.0.1:0 --tls certs/coordinator");
    let coordinator = Port::of(&mut cluster.serve);
    answers_its_probes("StatefulSet coordinator", &coordinator);
    let mut worker = cluster.joined_by("--ops-listen 127.0.0.1:0 --tls certs/worker");
    answers_its_probes("Deployment worker", &Port::of(&mut worker));
    cluster.coordinator("train small.toml --tls certs/operator").succeeds();

    let page = coordinator.request("GET", "/metrics");
    assert_eq!(page.status, 200);
    let served = metrics_in(&page.body);
    let manifests = Manifests::render(&["overlays/monitoring"]);
    let watching = manifests.documents.iter().filter(|document| {
        document["kind"] == "PrometheusRule" || document["metadata"]["labels"]["grafana_dashboard"] == "1"
    });
    let mut asked: BTreeSet<_> = watching.flat_map(|document| metrics_in(&document.to_string())).collect();
    asked.extend(metrics_in(
        &fs::read_to_string(project().join("deploy/README.md")).expect("the runbook is there"),
    ));
    assert!(asked.len() > 10, "{asked:?}");
    let unknown: Vec<_> = asked.difference(&served).collect();
    assert!(unknown.is_empty(), "nobody serves {unknown:?}");
}
