//! Network policies allow the connections in the command lines of components and those of users, and no others.

use super::super::network::{End, Policies, Port};
use super::super::selector::Labels;
use super::super::workload::Workload;
use super::references::target;
use super::{All, Started, port};

pub(super) fn problems(all: &All) -> Vec<String> {
    let policies = Policies::of(all.manifests);
    let mut problems = Vec::new();
    for connection in wanted(all, &policies) {
        if !policies.allow(&connection.from, &connection.to, connection.port) {
            problems.push(format!("the network keeps {}", connection.what));
        }
    }
    for connection in unwanted(all, &policies) {
        if is_let_through(&policies, &connection) {
            problems.push(format!("the network lets {}", connection.what));
        }
    }
    problems
}

/// For pods of other namespaces only the policies of the destination count.
fn is_let_through(policies: &Policies, connection: &Connection) -> bool {
    let Connection { from, to, port, .. } = connection;
    if connection.from_stranger { policies.let_in(from, to, *port) } else { policies.allow(from, to, *port) }
}

struct Connection {
    what: String,
    from_stranger: bool,
    from: End,
    to: End,
    port: Port,
}

impl Connection {
    fn new(from: (&str, &End), to: (&str, &End), port: Port) -> Self {
        let what = format!("{} from {} port {} of {}", from.0, port.protocol, port.number, to.0);
        Self { what, from_stranger: false, from: from.1.clone(), to: to.1.clone(), port }
    }
}

/// The connections of components.
fn wanted(all: &All, policies: &Policies) -> Vec<Connection> {
    let mut wanted = Vec::new();
    for started in all.containers() {
        for (pods, port) in dialled(all, &started) {
            let from = (started.workload.name.as_str(), &pod(policies, started.workload));
            wanted.push(Connection::new(from, (&pods.name, &pod(policies, pods)), Port::tcp(port)));
            for port in [Port::udp(53), Port::tcp(53)] {
                for (name, resolver) in resolvers(policies) {
                    wanted.push(Connection::new(from, (name, &resolver), port));
                }
            }
        }
        if started.is("coordinator serve") {
            let to = (started.workload.name.as_str(), &pod(policies, started.workload));
            let ops = started.value("ops-listen").and_then(port).unwrap_or_default();
            wanted.push(Connection::new(
                ("Prometheus", &prometheus(policies, "monitoring")),
                to,
                Port::tcp(ops),
            ));
        }
    }
    wanted
}

/// Unneeded connections: each pair of pods on each port with a listener, and from outside.
fn unwanted(all: &All, policies: &Policies) -> Vec<Connection> {
    let wanted = wanted(all, policies);
    let known = |candidate: &Connection| wanted.iter().any(|wanted| wanted.what == candidate.what);
    let pods: Vec<_> =
        all.workloads.iter().map(|workload| (workload.name.clone(), pod(policies, workload))).collect();
    let strangers = strangers(all, policies);
    let outside = [("the internet".to_string(), End::Outside([203, 0, 113, 7].into()))];
    let ports = [Port::tcp(7070), Port::tcp(7071), Port::tcp(443), Port::udp(53), Port::tcp(22)];
    let mut unwanted = Vec::new();
    for (from, from_end) in pods.iter().chain(&strangers).chain(&outside) {
        for (to, to_end) in pods.iter().chain(&outside) {
            let inside = |name: &String| pods.iter().any(|(pod, _)| pod == name);
            if !inside(from) && !inside(to) {
                continue;
            }
            let connection = |port| Connection {
                from_stranger: !inside(from),
                ..Connection::new((from, from_end), (to, to_end), port)
            };
            unwanted.extend(ports.map(connection));
        }
    }
    for (name, end) in &pods {
        for (resolver, resolver_end) in resolvers(policies) {
            let ports = [Port::udp(53), Port::tcp(53), Port::tcp(443)];
            unwanted.extend(ports.map(|port| Connection::new((name, end), (resolver, &resolver_end), port)));
        }
    }
    unwanted.retain(|candidate| !known(candidate));
    unwanted
}

/// The pods of the addresses that a container dials, with their port.
fn dialled<'a>(all: &'a All, started: &Started) -> Vec<(&'a Workload, i32)> {
    let addresses = ["coordinator", "cluster"].into_iter().filter_map(|flag| started.value(flag));
    let mut dialled = Vec::new();
    for (service, port) in addresses.filter_map(|address| all.service(address)) {
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        for served in ports.filter(|served| served.port == port) {
            let pods = all.behind(service).into_iter();
            dialled.extend(pods.filter_map(|pods| Some((pods, target(served, pods)?))));
        }
    }
    dialled
}

fn pod(policies: &Policies, workload: &Workload) -> End {
    policies.pod(&workload.namespace, &workload.labels)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// DNS servers: the usual pods, and the cache that some clusters have on each node.
fn resolvers(policies: &Policies) -> [(&'static str, End); 2] {
    [
        ("the cluster's DNS", policies.pod("kube-system", &labels(&[("k8s-app", "kube-dns")]))),
        ("the node's DNS cache", End::Outside([169, 254, 20, 10].into())),
    ]
}

fn prometheus(policies: &Policies, namespace: &str) -> End {
    policies.pod(namespace, &labels(&[("app.kubernetes.io/name", "prometheus")]))
}

/// Pods that resemble allowed ones, but are not.
fn strangers(all: &All, policies: &Policies) -> Vec<(String, End)> {
    let own = all.workloads.first().map(|workload| workload.namespace.clone()).unwrap_or_default();
    let mut strangers = vec![
        ("a pod without labels".to_string(), policies.pod(&own, &labels(&[]))),
        (
            "another program's worker".to_string(),
            policies.pod(&own, &labels(&[("app.kubernetes.io/component", "worker")])),
        ),
        ("somebody else's Prometheus".to_string(), prometheus(policies, "default")),
        (
            "another pod of the monitoring".to_string(),
            policies.pod("monitoring", &labels(&[("app.kubernetes.io/name", "grafana")])),
        ),
    ];
    let elsewhere = all.workloads.iter();
    strangers.extend(elsewhere.map(|workload| {
        (format!("{} of another namespace", workload.name), policies.pod("default", &workload.labels))
    }));
    strangers.push(("Prometheus".to_string(), prometheus(policies, "monitoring")));
    strangers
}
