//! Probes of a pod's own address, with the period of the manifest.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Probe;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::manifests::workload::Workload;

/// A probe and its results so far.
#[derive(Debug)]
pub(super) struct Asked {
    path: String,
    port: u16,
    period: Duration,
    timeout: Duration,
    threshold: u32,
    due: Instant,
    failures: u32,
    /// Whether the last probe succeeded.
    pub(super) is_good: bool,
}

impl Asked {
    /// A probe of a manifest, with Kubernetes' defaults.
    pub(super) fn new(workload: &Workload, probe: &Probe) -> Self {
        let get = probe.http_get.as_ref().expect("every probe here is a GET");
        let port = match &get.port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => workload.port(name),
        };
        let number =
            |value: Option<i32>, default: u64| value.map_or(default, |value| value.unsigned_abs().into());
        Self {
            path: get.path.clone().unwrap_or_else(|| "/".into()),
            port: port.and_then(|port| port.try_into().ok()).expect("a probe names a port of its pod"),
            period: Duration::from_secs(number(probe.period_seconds, 10)),
            timeout: Duration::from_secs(number(probe.timeout_seconds, 1)),
            threshold: number(probe.failure_threshold, 3).try_into().expect("thresholds are small"),
            due: Instant::now() + Duration::from_secs(number(probe.initial_delay_seconds, 0)),
            failures: 0,
            is_good: false,
        }
    }

    /// Probes, if it is time to.
    pub(super) fn turn(&mut self, address: IpAddr) {
        if Instant::now() < self.due {
            return;
        }
        self.due = Instant::now() + self.period;
        let answer = get(SocketAddr::new(address, self.port), &self.path, self.timeout);
        self.is_good = answer.is_some_and(|status| (200..400).contains(&status));
        // A kubelet also counts timeouts. On a slow machine that would fail here; a pod that never responds never
        // becomes ready, and the wait for it fails.
        self.failures = if answer.is_none() || self.is_good { 0 } else { self.failures + 1 };
    }

    /// Whether it has failed too often in a row.
    pub(super) fn has_failed(&self) -> bool {
        self.failures >= self.threshold
    }
}

/// Probes as a kubelet does. Returns the status of the response, if there is one in time.
fn get(address: SocketAddr, path: &str, timeout: Duration) -> Option<u16> {
    let mut stream = TcpStream::connect_timeout(&address, timeout).ok()?;
    stream.set_read_timeout(Some(timeout)).ok()?;
    let headers =
        format!("Host: {address}\r\nUser-Agent: kube-probe/1.33\r\nAccept: */*\r\nConnection: close");
    write!(stream, "GET {path} HTTP/1.1\r\n{headers}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}
