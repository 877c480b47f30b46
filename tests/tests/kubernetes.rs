//! The Kubernetes manifests mean what they say. What a schema can tell is checked by scripts/manifests.sh.

use std::collections::BTreeSet;
use std::fs;

use k8s_openapi::api::core::v1::Container;
use millefeuille_tests::home::{Home, project};
use millefeuille_tests::http::Port;
use millefeuille_tests::manifests::check::problems;
use millefeuille_tests::manifests::workload::Workload;
use millefeuille_tests::manifests::{Manifests, can_render};
use serde_json::{Value, json};

/// What is applied together.
const TOGETHER: [&[&str]; 6] = [
    &["base", "train"],
    &["overlays/local", "overlays/local/train"],
    &["overlays/production", "train"],
    &["overlays/monitoring"],
    &["overlays/jobset"],
    &["overlays/trainjob"],
];

#[test]
fn everything_that_is_applied_together_fits_together() {
    if !can_render() {
        return;
    }
    for kustomizations in TOGETHER {
        let manifests = Manifests::render(kustomizations);
        assert_eq!(problems(&manifests), [""; 0], "in {}", manifests.name);
    }
}

/// Something that goes wrong in real manifests, and what has to be said about it.
struct Slip {
    what: &'static str,
    kind: &'static str,
    name: &'static str,
    /// Where in the document, as a JSON pointer.
    at: &'static str,
    to: Value,
    said: &'static str,
}

/// In the overlay `local` with its `train`.
fn slips() -> Vec<Slip> {
    let slip = |what, kind, name, at, to, said| Slip { what, kind, name, at, to, said };
    vec![
        slip(
            "a selector of a Service",
            "Service",
            "coordinator",
            "/spec/selector/app.kubernetes.io~1component",
            json!("coordinatr"),
            "Service coordinator: its selector picks no pods",
        ),
        slip(
            "a selector of a Deployment",
            "Deployment",
            "worker",
            "/spec/selector/matchLabels/app.kubernetes.io~1component",
            json!("workers"),
            "its selector does not pick its own pods",
        ),
        slip(
            "a budget for nobody",
            "PodDisruptionBudget",
            "worker",
            "/spec/selector/matchLabels/app.kubernetes.io~1component",
            json!("workers"),
            "PodDisruptionBudget worker: its selector picks no pods",
        ),
        slip(
            "a policy for nobody",
            "NetworkPolicy",
            "coordinator",
            "/spec/podSelector/matchLabels/app.kubernetes.io~1name",
            json!("mille"),
            "NetworkPolicy coordinator: its selector picks no pods",
        ),
        slip(
            "a target that is no port",
            "Service",
            "coordinator",
            "/spec/ports/0/targetPort",
            json!("http"),
            "nobody has its port 7070",
        ),
        slip(
            "a port that is not dialled",
            "Service",
            "coordinator",
            "/spec/ports/0/port",
            json!(7700),
            "coordinator:7070 is no port of a Service",
        ),
        slip(
            "a port that nobody listens on",
            "StatefulSet",
            "coordinator",
            "/spec/template/spec/containers/0/ports/0/containerPort",
            json!(7700),
            "nothing listens on its port 7700",
        ),
        slip(
            "a service that is not headless",
            "StatefulSet",
            "coordinator",
            "/spec/serviceName",
            json!("coordinator"),
            "serviceName coordinator is no headless Service",
        ),
        slip(
            "a missing claim",
            "Deployment",
            "worker",
            "/spec/template/spec/volumes/0/persistentVolumeClaim/claimName",
            json!("worker"),
            "there is no PersistentVolumeClaim worker",
        ),
        slip(
            "a missing ConfigMap",
            "Job",
            "train",
            "/spec/template/spec/volumes/1/configMap/name",
            json!("jobs"),
            "there is no ConfigMap jobs",
        ),
        slip(
            "a missing account",
            "Deployment",
            "worker",
            "/spec/template/spec/serviceAccountName",
            json!("workers"),
            "there is no ServiceAccount workers",
        ),
        slip(
            "a mount of nothing",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/volumeMounts/0/name",
            json!("tls"),
            "there is no volume tls to mount",
        ),
        slip(
            "another namespace",
            "Deployment",
            "worker",
            "/metadata/namespace",
            json!("default"),
            "is in no namespace made here",
        ),
        slip(
            "a flag that there is not",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/args/3",
            json!("--join-timout=3600"),
            "unexpected argument '--join-timout'",
        ),
        slip(
            "a value that is none",
            "StatefulSet",
            "coordinator",
            "/spec/template/spec/containers/0/args/5",
            json!("--log-format=jsonl"),
            "invalid value 'jsonl'",
        ),
        slip(
            "a variable that nobody reads",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/env/0/name",
            json!("MILLEFEUILLE_SLOT"),
            "MILLEFEUILLE_SLOT is read by no command",
        ),
        slip(
            "a limit of nobody",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/env/0/valueFrom/resourceFieldRef/containerName",
            json!("coordinator"),
            "is about another container",
        ),
        slip(
            "a job file that there is not",
            "StatefulSet",
            "coordinator",
            "/spec/template/spec/containers/0/args/4",
            json!("--job=/millefeuille/jobs/articles.toml"),
            "has no articles.toml",
        ),
        slip(
            "a job file with a slip",
            "ConfigMap",
            "train",
            "/data/scaled.toml",
            json!("epochs = 3"),
            "unknown key",
        ),
        slip(
            "runs that are not kept",
            "StatefulSet",
            "coordinator",
            "/spec/template/spec/containers/0/args/3",
            json!("--runs-dir=/millefeuille/jobs"),
            "what is written there is not kept",
        ),
        slip(
            "a probe of a path that is not served",
            "StatefulSet",
            "coordinator",
            "/spec/template/spec/containers/0/readinessProbe/httpGet/path",
            json!("/ready"),
            "it asks for /ready instead of /readyz",
        ),
        slip(
            "a probe of another port",
            "StatefulSet",
            "coordinator",
            "/spec/template/spec/containers/0/livenessProbe/httpGet/port",
            json!("grpc"),
            "its port is not that of --ops-listen",
        ),
        slip(
            "a probe that goes nowhere",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/args/1",
            json!("--ops-listen=127.0.0.1:7071"),
            "nothing listens on its port 7071",
        ),
        slip(
            "two coordinators",
            "StatefulSet",
            "coordinator",
            "/spec/replicas",
            json!(2),
            "a second coordinator would be another cluster",
        ),
        slip(
            "a death before its time",
            "Deployment",
            "worker",
            "/spec/template/spec/terminationGracePeriodSeconds",
            json!(20),
            "before its --drain-timeout",
        ),
        slip(
            "samples that do not fit",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/resources/limits/memory",
            json!("256Mi"),
            "--cache-bytes leaves too little",
        ),
        slip(
            "an operator's key in a worker",
            "Deployment",
            "worker",
            "/spec/template/spec/volumes/0/persistentVolumeClaim/claimName",
            json!("operator-tls"),
            "the role there is operator, and worker is needed",
        ),
        slip(
            "the authority's key in a worker",
            "Deployment",
            "worker",
            "/spec/template/spec/initContainers/0/volumeMounts/0/name",
            json!("tls"),
            "there is no volume tls to mount",
        ),
        slip(
            "a certificate that can be changed",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/volumeMounts/0/readOnly",
            json!(false),
            "could be",
        ),
        slip(
            "a name that no certificate has",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/args/0",
            json!("--coordinator=coordinator-pods:7070"),
            "no name of the coordinator's certificate",
        ),
        slip(
            "a token",
            "ServiceAccount",
            "worker",
            "/automountServiceAccountToken",
            json!(true),
            "it gives a token",
        ),
        slip(
            "a token in a pod",
            "Deployment",
            "worker",
            "/spec/template/spec/automountServiceAccountToken",
            json!(true),
            "it gets a token",
        ),
        slip(
            "root",
            "Job",
            "train",
            "/spec/template/spec/securityContext/runAsUser",
            json!(0),
            "it runs as another user",
        ),
        slip(
            "a root that can be written",
            "Job",
            "train",
            "/spec/template/spec/containers/0/securityContext/readOnlyRootFilesystem",
            json!(false),
            "its root can be written",
        ),
        slip(
            "no limit",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/resources/limits",
            json!({ "memory": "512Mi" }),
            "its CPU is not said",
        ),
        slip(
            "the newest image",
            "Deployment",
            "worker",
            "/spec/template/spec/containers/0/image",
            json!("millefeuille:latest"),
            "its image may change under its name",
        ),
        slip(
            "a policy that forgets the operators",
            "NetworkPolicy",
            "coordinator",
            "/spec/ingress/0/from/1/podSelector/matchLabels/app.kubernetes.io~1component",
            json!("operators"),
            "the network keeps Job train from TCP port 7070",
        ),
        slip(
            "a policy for another port",
            "NetworkPolicy",
            "clients",
            "/spec/egress/0/ports/0/port",
            json!(7071),
            "the network keeps Deployment worker from TCP port 7070",
        ),
        slip(
            "a policy without DNS",
            "NetworkPolicy",
            "clients",
            "/spec/egress/1/ports/0/protocol",
            json!("TCP"),
            "from UDP port 53 of the cluster's DNS",
        ),
        slip(
            "a policy for the whole namespace",
            "NetworkPolicy",
            "coordinator",
            "/spec/ingress/0/from",
            json!([{ "podSelector": {} }]),
            "the network lets a pod without labels from TCP port 7070",
        ),
        slip(
            "a policy for every namespace",
            "NetworkPolicy",
            "coordinator",
            "/spec/ingress/1/from/0/namespaceSelector",
            json!({}),
            "the network lets somebody else's Prometheus from TCP port 7071",
        ),
        slip(
            "a policy for every port",
            "NetworkPolicy",
            "coordinator",
            "/spec/ingress/1/ports",
            json!([]),
            "the network lets Prometheus from TCP port 7070",
        ),
        slip(
            "no default",
            "NetworkPolicy",
            "default-deny",
            "/spec/policyTypes",
            json!(["Ingress"]),
            "the network lets StatefulSet coordinator from TCP port 443 of the internet",
        ),
        slip(
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
fn slips_are_noticed() {
    if !can_render() {
        return;
    }
    let manifests = Manifests::render(&["overlays/local", "overlays/local/train"]);
    for slip in slips() {
        let mut slipped = manifests.clone();
        let place = slipped.document(slip.kind, slip.name).pointer_mut(slip.at);
        let place =
            place.unwrap_or_else(|| panic!("{}: {} {} has no {}", slip.what, slip.kind, slip.name, slip.at));
        assert_ne!(*place, slip.to, "{}: that is no slip", slip.what);
        *place = slip.to;
        let problems = problems(&slipped);
        assert!(problems.iter().any(|problem| problem.contains(slip.said)), "{}: {problems:#?}", slip.what);
    }
}

#[test]
fn slips_in_certificates_are_noticed() {
    if !can_render() {
        return;
    }
    let manifests = Manifests::render(&["overlays/production", "train"]);
    let slips = [
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
    for (name, at, to, said) in slips {
        let mut slipped = manifests.clone();
        *slipped.document("Certificate", name).pointer_mut(at).expect("the place is there") = to;
        let problems = problems(&slipped);
        assert!(problems.iter().any(|problem| problem.contains(said)), "{name} {at}: {problems:#?}");
    }
}

#[test]
fn copies_are_equal_to_what_they_are_copies_of() {
    let read = |path: &str| {
        fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let copy = "deploy/kubernetes/base/jobs/article.toml";
    assert_eq!(read(copy), read("jobs/article.toml"), "cp jobs/article.toml {copy}");
}

#[test]
fn manifests_belong_to_this_version() {
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

/// Asks all that a kubelet would ask a container of this overlay, at the port where its program serves it.
fn answers_its_probes(name: &str, ops: &Port) {
    let container = container(name);
    for probe in [&container.startup_probe, &container.liveness_probe, &container.readiness_probe] {
        let path = probe.as_ref().and_then(|probe| probe.http_get.as_ref()?.path.clone());
        ops.answers(&path.expect("every probe has a path"), 200);
    }
    assert_eq!(ops.request("GET", "/nothing").status, 404);
}

/// Everything in a text that is called like a metric.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '_');
    words.filter(|word| word.starts_with("millefeuille_")).map(str::to_owned).collect()
}

#[test]
fn what_is_probed_and_watched_is_served() {
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
