//! Network policies, evaluated as a plugin that enforces them would.
//!
//! A connection is allowed if its source may send it and its destination may receive it. A pod that no policy of
//! that direction selects is not restricted; a pod that some select may do what one of them allows. Traffic between
//! a pod and its own node (probes, `kubectl exec`) is always allowed, and is not evaluated here.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Manifests;
use super::selector::{Labels, picks};

/// One end of a connection.
#[derive(Clone, Debug)]
pub enum End {
    /// A pod.
    Pod {
        /// The name of its namespace.
        namespace: String,
        /// The labels of its namespace.
        namespace_labels: Labels,
        /// Its own labels.
        labels: Labels,
    },
    /// An address outside of the cluster.
    Outside(IpAddr),
}

/// The destination port of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port number.
    pub number: i32,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
}

impl Port {
    /// A TCP port.
    pub fn tcp(number: i32) -> Self {
        Self { number, protocol: "TCP" }
    }

    /// A UDP port.
    pub fn udp(number: i32) -> Self {
        Self { number, protocol: "UDP" }
    }
}

/// The policies of a set of manifests.
#[derive(Debug)]
pub struct Policies {
    policies: Vec<NetworkPolicy>,
    namespaces: Vec<Namespace>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

impl Policies {
    /// The policies in these manifests.
    pub fn of(manifests: &Manifests) -> Self {
        Self { policies: manifests.typed("NetworkPolicy"), namespaces: manifests.typed("Namespace") }
    }

    /// A pod in a namespace of these manifests, or in another one, which has only the default label.
    pub fn pod(&self, namespace: &str, labels: &Labels) -> End {
        let own = self.namespaces.iter().find(|own| own.metadata.name.as_deref() == Some(namespace));
        let mut namespace_labels = own.and_then(|own| own.metadata.labels.clone()).unwrap_or_default();
        namespace_labels.insert("kubernetes.io/metadata.name".into(), namespace.into());
        End::Pod { namespace: namespace.into(), namespace_labels, labels: labels.clone() }
    }

    /// Whether a connection is allowed.
    pub fn allow(&self, from: &End, to: &End, port: Port) -> bool {
        self.let_out(from, to, port) && self.let_in(from, to, port)
    }

    fn let_out(&self, from: &End, to: &End, port: Port) -> bool {
        let picked = self.picking(from, Direction::Egress);
        let rules =
            |policy: &NetworkPolicy| policy.spec.clone().and_then(|spec| spec.egress).unwrap_or_default();
        picked.is_empty()
            || picked.iter().any(|policy| {
                let allows = |peers: &Option<Vec<_>>, ports: &Option<Vec<_>>| {
                    names(peers, to, namespace_of(policy)) && opens(ports, port)
                };
                rules(policy).iter().any(|rule| allows(&rule.to, &rule.ports))
            })
    }

    /// Whether its destination may receive it.
    pub fn let_in(&self, from: &End, to: &End, port: Port) -> bool {
        let picked = self.picking(to, Direction::Ingress);
        let rules =
            |policy: &NetworkPolicy| policy.spec.clone().and_then(|spec| spec.ingress).unwrap_or_default();
        picked.is_empty()
            || picked.iter().any(|policy| {
                let allows = |peers: &Option<Vec<_>>, ports: &Option<Vec<_>>| {
                    names(peers, from, namespace_of(policy)) && opens(ports, port)
                };
                rules(policy).iter().any(|rule| allows(&rule.from, &rule.ports))
            })
    }

    /// The policies of this direction that select a pod.
    fn picking(&self, end: &End, direction: Direction) -> Vec<&NetworkPolicy> {
        let End::Pod { namespace, labels, .. } = end else { return Vec::new() };
        let picking = |policy: &&NetworkPolicy| {
            let Some(spec) = &policy.spec else { return false };
            let picked = picks(&spec.pod_selector.clone().unwrap_or_default(), labels);
            namespace_of(policy) == namespace && picked && is_of(policy, direction)
        };
        self.policies.iter().filter(picking).collect()
    }
}

/// Without `policyTypes`, every policy is for ingress, and also for egress if it has egress rules.
fn is_of(policy: &NetworkPolicy, direction: Direction) -> bool {
    let Some(spec) = &policy.spec else { return false };
    match (&spec.policy_types, direction) {
        (Some(types), Direction::Ingress) => types.iter().any(|of| of == "Ingress"),
        (Some(types), Direction::Egress) => types.iter().any(|of| of == "Egress"),
        (None, Direction::Ingress) => true,
        (None, Direction::Egress) => spec.egress.is_some(),
    }
}

fn namespace_of(policy: &NetworkPolicy) -> &str {
    policy.metadata.namespace.as_deref().unwrap_or("default")
}

/// Whether a rule's peers include this end. A rule without peers includes all.
fn names(peers: &Option<Vec<NetworkPolicyPeer>>, end: &End, own_namespace: &str) -> bool {
    let all = peers.as_ref().is_none_or(Vec::is_empty);
    all || peers.iter().flatten().any(|peer| is(peer, end, own_namespace))
}

fn is(peer: &NetworkPolicyPeer, end: &End, own_namespace: &str) -> bool {
    match end {
        End::Outside(address) => peer.ip_block.as_ref().is_some_and(|block| contains(block, *address)),
        // Addresses of pods are not known in advance: a block of addresses never means pods.
        End::Pod { .. } if peer.ip_block.is_some() => false,
        End::Pod { namespace, namespace_labels, labels } => {
            let in_namespace = match &peer.namespace_selector {
                Some(selector) => picks(selector, namespace_labels),
                None => namespace == own_namespace,
            };
            in_namespace && peer.pod_selector.as_ref().is_none_or(|selector| picks(selector, labels))
        }
    }
}

fn contains(block: &IPBlock, address: IpAddr) -> bool {
    let excepted = block.except.iter().flatten().any(|range| in_range(range, address));
    in_range(&block.cidr, address) && !excepted
}

fn in_range(range: &str, address: IpAddr) -> bool {
    let (base, bits) = range.split_once('/').unwrap_or_else(|| panic!("{range} is no range of addresses"));
    let base = base.parse().unwrap_or_else(|error| panic!("{range}: {error}"));
    let bits: u32 = bits.parse().unwrap_or_else(|error| panic!("{range}: {error}"));
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            let differing = u32::from(base) ^ u32::from(address);
            differing.checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            let differing = u128::from(base) ^ u128::from(address);
            differing.checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Whether a rule's ports include this one. A rule without ports includes all.
fn opens(ports: &Option<Vec<NetworkPolicyPort>>, port: Port) -> bool {
    let all = ports.as_ref().is_none_or(Vec::is_empty);
    all || ports.iter().flatten().any(|open| {
        let protocol = open.protocol.as_deref().unwrap_or("TCP") == port.protocol;
        let number = match &open.port {
            None => true,
            Some(IntOrString::Int(first)) => {
                (*first..=open.end_port.unwrap_or(*first)).contains(&port.number)
            }
            Some(IntOrString::String(name)) => panic!("{name}: policies name ports by number here"),
        };
        protocol && number
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_is_in_them() {
        let address = |text: &str| text.parse().unwrap();
        assert!(in_range("169.254.20.10/32", address("169.254.20.10")));
        assert!(!in_range("169.254.20.10/32", address("169.254.20.11")));
        assert!(in_range("10.0.0.0/8", address("10.9.8.7")));
        assert!(!in_range("10.0.0.0/8", address("11.0.0.0")));
        assert!(in_range("0.0.0.0/0", address("8.8.8.8")));
        assert!(in_range("fd00::/8", address("fd12::1")));
        assert!(!in_range("0.0.0.0/0", address("fd12::1")));
    }
}
