//! Computes a node of a job in another process, one with the job's kernel, when this process has loaded another.
//!
//! The process gets one line of JSON ([`Header`]) and then raw bytes: the job's spec, the parameters, the samples of each
//! shard. It answers with a line of JSON ([`Answer`]), and then the bytes of the gradient. Its result counts only if its
//! arithmetic is the job's, by the fingerprints that a worker must have too.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use millefeuille_core::arithmetic::{self, Arithmetic, check};
use millefeuille_core::data::shard::ShardSamples;
use millefeuille_core::data::split::Split;
use millefeuille_core::job::BlasKernel;
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::sum::{Figures, Sum};
use millefeuille_core::learn::tree::Node;
use millefeuille_core::learn::work::{Unit, Workload};
use millefeuille_proto::convert;
use serde::{Deserialize, Serialize};

use super::super::choice_of;
use super::super::unusable::Unusable;
use super::{NODE, Probe, SLOWEST, failed, input, time_for};
use crate::{failpoints, process, variables};

/// A node to compute in another process.
#[derive(Debug)]
pub struct NodeTask<'a> {
    /// The job.
    pub spec: &'a Spec,
    /// The kernel that selects its arithmetic: a name, or `environment`.
    pub kernel: &'a BlasKernel,
    /// The arithmetic that the process must have.
    pub arithmetic: &'a Arithmetic,
    /// Hex SHA-256 of its results on the job's own shapes.
    pub shapes_fingerprint: &'a str,
    /// The unit of work.
    pub unit: Unit,
    /// The node.
    pub node: Node,
    /// The parameters, in little-endian bytes.
    pub parameters: Bytes,
    /// The samples of the node's present shards, by shard.
    pub samples: BTreeMap<u32, ShardSamples>,
}

/// What comes before the bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    split: String,
    epoch: u32,
    step: u32,
    first: u32,
    end: u32,
    /// Bytes of the spec.
    spec: usize,
    /// Bytes of the parameters.
    parameters: usize,
    /// Index, samples and bytes of each shard.
    shards: Vec<(u32, u32, usize)>,
}

/// What comes before the gradient.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    kernel: String,
    version: String,
    fingerprint: String,
    shapes_fingerprint: String,
    /// The bits of the sum of losses: a number that is not finite has no JSON.
    loss_sum_bits: u64,
    correct: u64,
    samples: u64,
    /// Of the other metrics.
    counts: Vec<u64>,
    /// The bits of their sums.
    sums_bits: Vec<u64>,
    /// In hex.
    sample_digests: Vec<String>,
}

/// Computes a node in another process. The buffer of the gradient comes from `adopt`.
///
/// Waits for the process, which may use as much processor time as the slowest kernel would.
///
/// # Errors
/// If no such process can be started, its kernel can't run here, it does not come back, or its arithmetic is another one.
pub fn compute_elsewhere<B>(task: NodeTask<'_>, adopt: impl FnOnce(Vec<f32>) -> B) -> Result<Sum<B>, Unusable>
where
    B: std::ops::Deref<Target = [f32]>,
{
    let mut probe = Probe::begin(&variables::openblas(), &choice_of(task.kernel)?, &[NODE])?;
    let samples: u64 = task.samples.values().map(|samples| u64::from(samples.len())).sum();
    // Forward, and two products backward; the fingerprints compute the job's own products.
    let work = 3 * samples.saturating_mul(task.spec.parameters());
    probe.patience.computing += std::time::Duration::from_secs(work / SLOWEST)
        + time_for(check::of_job(task.spec))
        + time_for(check::general());
    let (arithmetic, shapes_fingerprint) = (task.arithmetic, task.shapes_fingerprint);
    probe.send(task.into_parts());
    let (said, status) = probe.said()?;
    let Some((answer, gradient)) = parsed(&said).filter(|_| status.success()) else {
        return Err(probe.ended(status));
    };
    probe.is_asked(&answer.kernel)?;
    let Answer { kernel, version, fingerprint, loss_sum_bits, correct, samples, counts, sums_bits, .. } =
        answer;
    let found = Arithmetic { kernel, version, fingerprint };
    if (&found, answer.shapes_fingerprint.as_str()) != (arithmetic, shapes_fingerprint) {
        return Err(failed(&format!(
            "a process with the kernel {} has other bits than the job",
            found.kernel
        )));
    }
    let (loss_sum, sums) =
        (f64::from_bits(loss_sum_bits), sums_bits.into_iter().map(f64::from_bits).collect());
    let figures = Figures { loss_sum, correct, samples, counts, sums };
    let digests = answer.sample_digests.iter().map(|digest| digest_of(digest)).collect::<Option<_>>();
    let digests = digests.ok_or_else(|| failed(&"a digest is none"))?;
    Ok(Sum::new(Some(gradient).filter(|gradient| !gradient.is_empty()).map(adopt), figures, digests))
}

fn digest_of(hex: &str) -> Option<[u8; 32]> {
    hex::decode(hex).ok()?.try_into().ok()
}

fn parsed(said: &[u8]) -> Option<(Answer, Vec<f32>)> {
    let (line, gradient) = first_line(said)?;
    Some((serde_json::from_slice(line).ok()?, floats(gradient)))
}

fn first_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let four = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    bytes.chunks_exact(4).map(four).collect()
}

impl NodeTask<'_> {
    /// What is sent to the process, without a copy of the bulk.
    fn into_parts(self) -> Vec<Bytes> {
        let spec = convert::spec_to_bytes(self.spec);
        let shard = |(&index, samples): (&u32, &ShardSamples)| (index, samples.len(), samples.bytes().len());
        let header = Header {
            split: self.unit.split.name().to_string(),
            epoch: self.unit.epoch,
            step: self.unit.step,
            first: self.node.first,
            end: self.node.end,
            spec: spec.len(),
            parameters: self.parameters.len(),
            shards: self.samples.iter().map(shard).collect(),
        };
        let header = serde_json::to_string(&header).unwrap_or_default() + "\n";
        let samples = self.samples.values().map(|samples| samples.bytes().clone());
        [header.into(), spec.into(), self.parameters].into_iter().chain(samples).collect()
    }
}

/// The side of the started process: computes the node and prints the answer.
pub(super) fn answer() -> Result<(), String> {
    let input = Bytes::from(input()?);
    failpoints::die_at(failpoints::NODE_ELSEWHERE);
    let (line, _) = first_line(&input).ok_or("there is no header")?;
    let header: Header = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let mut rest = input.slice(line.len() + 1..);
    let mut take = |bytes: usize| match bytes <= rest.len() {
        true => Ok(rest.split_to(bytes)),
        false => Err("the input ends early".to_string()),
    };
    let spec = convert::spec_from_bytes(&take(header.spec)?).map_err(|error| error.to_string())?;
    let parameters = floats(&take(header.parameters)?);
    let schema = Arc::new(spec.schema.clone());
    let mut samples = BTreeMap::new();
    for &(index, len, bytes) in &header.shards {
        let shard = ShardSamples::decode(take(bytes)?, Arc::clone(&schema), len);
        samples.insert(index, shard.map_err(|error| error.to_string())?);
    }
    let split = Split::ALL.into_iter().find(|split| split.name() == header.split).ok_or("no such split")?;
    let unit = Unit { split, epoch: header.epoch, step: header.step };
    let node = Node { first: header.first, end: header.end };
    let shapes_fingerprint = arithmetic::model_fingerprint(&spec);
    let workload = Workload::new(spec);
    let sum =
        workload.sum_of_node(unit, node, |shard| samples.get(&shard), &parameters, |len| vec![0.0; len]);
    print(&sum.ok_or("samples of the node are missing")?, shapes_fingerprint)
        .map_err(|error| error.to_string())
}

fn print(sum: &Sum<Vec<f32>>, shapes_fingerprint: String) -> std::io::Result<()> {
    let Arithmetic { kernel, version, fingerprint } = Arithmetic::of_this_process();
    let Figures { loss_sum, correct, samples, counts, sums } = sum.figures.clone();
    let answer = Answer {
        kernel,
        version,
        fingerprint,
        shapes_fingerprint,
        loss_sum_bits: loss_sum.to_bits(),
        correct,
        samples,
        counts,
        sums_bits: sums.into_iter().map(f64::to_bits).collect(),
        sample_digests: sum.sample_digests.iter().map(hex::encode).collect(),
    };
    process::print(&(serde_json::to_string(&answer).unwrap_or_default() + "\n"));
    let gradient: Vec<u8> = sum.terms().iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let mut out = std::io::stdout().lock();
    out.write_all(&gradient)?;
    out.flush()
}
