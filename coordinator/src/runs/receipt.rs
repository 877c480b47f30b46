//! `receipt.json`: a job's inputs, its arithmetic, its outputs, and the evicted workers that contributed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::json;
use super::seal::Broken;

/// The receipt of a job that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of this format.
    pub format: u32,
    /// Hex SHA-256 of everything that determines the numbers: configuration, seed, data.
    pub job_sha256: String,
    /// Hex SHA-256 of each data file's uncompressed content.
    pub data_sha256: BTreeMap<String, String>,
    /// The OpenBLAS kernel that computed it.
    pub blas_kernel: String,
    /// The kernel that OpenBLAS picks by itself on the coordinator's machine; `None` in receipts of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blas_kernel_of_openblas: Option<String>,
    /// The OpenBLAS version.
    pub blas_version: String,
    /// Hex SHA-256 of the arithmetic's results on a fixed set of computations.
    pub fingerprint: String,
    /// Version of Millefeuille.
    pub version: String,
    /// For each epoch, hex SHA-256 of the parameters after it.
    pub epoch_weights_sha256: Vec<String>,
    /// Hex SHA-256 of the trained parameters: little-endian f32 in layer order.
    pub weights_sha256: String,
    /// Why a rule of the job has stopped it; `None` if none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// The epoch, from 1, whose parameters are the trained ones; `None` for the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_epoch: Option<u64>,
    /// The jobs with fewer epochs that the run had before it was continued, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grown_from: Vec<Grown>,
    /// Evicted workers, with the steps to which they contributed before. `coordinator verify` checks these steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspects: Vec<Suspect>,
}

/// A job that a run had before it was continued to more epochs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grown {
    /// How many epochs it had.
    pub epochs: u32,
    /// Its hash, as in the receipt of a run that has only these epochs.
    pub job_sha256: String,
}

/// A worker that was evicted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Its name, for people.
    pub name: String,
    /// The random id of its process.
    pub instance_id: String,
    /// The steps in which its results were used, counted from 0 over the whole run: `0–95, 100`.
    pub steps: String,
}

/// The version of the format that this program writes.
pub const FORMAT: u32 = 1;

impl Receipt {
    /// The content of `receipt.json`.
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("a receipt of strings and lists has a JSON form") + "\n"
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Reads the content of `receipt.json`.
pub(super) fn read(text: &[u8]) -> Result<Receipt, Broken> {
    let Format { format: found } = json::parse(text).map_err(Broken::Damaged)?;
    if found > FORMAT {
        return Err(Broken::Newer { found, known: FORMAT });
    }
    json::parse(text).map_err(Broken::Damaged)
}

/// Hex SHA-256 of the parameters in wire format.
pub fn weights_sha256(parameters: &[u8]) -> String {
    hex::encode(Sha256::digest(parameters))
}

/// Which workers contributed to which steps, by the instance id in a worker's hello.
///
/// A step is identified by its parameter tag: the number of optimizer steps before it, over the whole run. An
/// evaluation counts with the next step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Participation(BTreeMap<String, Contribution>);

/// One worker's contributions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contribution {
    /// Its name, for people.
    pub name: String,
    /// The steps in which its results were used.
    pub steps: Steps,
}

/// A set of steps, as ascending inclusive ranges with gaps between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Steps(Vec<(u64, u64)>);

impl Participation {
    /// Records that a result of this worker was used in this step. Cheap for steps in ascending order.
    pub fn add(&mut self, instance_id: &str, name: &str, parameter_tag: u64) {
        if let Some(part) = self.0.get_mut(instance_id) {
            return part.steps.insert(parameter_tag);
        }
        let mut part = Contribution { name: name.to_string(), steps: Steps::default() };
        part.steps.insert(parameter_tag);
        self.0.insert(instance_id.to_string(), part);
    }

    /// Moves an evicted worker's contributions to `suspects`, which names every evicted worker, also one that has not
    /// contributed.
    pub fn mark_suspect(&mut self, instance_id: &str, name: &str, suspects: &mut Self) {
        let known = suspects.0.entry(instance_id.to_string()).or_default();
        known.name = name.to_string();
        let part = self.0.remove(instance_id).unwrap_or_default();
        part.steps.iter().for_each(|step| known.steps.insert(step));
    }

    /// Iterates over all workers, by instance id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Contribution)> {
        self.0.iter().map(|(instance_id, part)| (instance_id.as_str(), part))
    }

    /// Whether no worker has contributed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The list for the receipt: the workers that have contributed.
    pub fn suspects(&self) -> Vec<Suspect> {
        let suspect = |(instance_id, part): (&str, &Contribution)| Suspect {
            name: part.name.clone(),
            instance_id: instance_id.to_string(),
            steps: part.steps.to_string(),
        };
        self.iter().filter(|(_, part)| !part.steps.0.is_empty()).map(suspect).collect()
    }
}

impl Steps {
    /// Adds a step.
    pub fn insert(&mut self, step: u64) {
        // Steps come in order, so the place is nearly always at the end.
        let place = self.0.iter().rposition(|&(first, _)| first <= step).map_or(0, |before| before + 1);
        match place.checked_sub(1).map(|before| &mut self.0[before]) {
            Some((_, last)) if step <= *last => return,
            Some((_, last)) if step == *last + 1 => *last = step,
            _ => self.0.insert(place, (step, step)),
        }
        if place < self.0.len() {
            self.join_neighbours();
        }
    }

    fn join_neighbours(&mut self) {
        self.0.dedup_by(|right, left| {
            let meet = left.1 + 1 >= right.0;
            if meet {
                left.1 = left.1.max(right.1);
            }
            meet
        });
    }

    /// Every step, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().flat_map(|&(first, last)| first..=last)
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, &(first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}–{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(of: &[u64]) -> Steps {
        let mut steps = Steps::default();
        of.iter().for_each(|&step| steps.insert(step));
        steps
    }

    #[test]
    fn steps_in_order_are_one_range() {
        assert_eq!(steps(&[0, 0, 1, 2, 2, 3]).0, [(0, 3)]);
        assert_eq!(steps(&[0, 1, 5, 6, 9]).to_string(), "0–1, 5–6, 9");
        assert_eq!(steps(&[]).to_string(), "none");
    }

    #[test]
    fn steps_in_any_order_make_the_same_ranges() {
        assert_eq!(steps(&[7, 3, 5, 4, 8, 3, 0]), steps(&[0, 3, 4, 5, 7, 8]));
        assert_eq!(steps(&[1, 3, 2]).0, [(1, 3)]);
    }

    #[test]
    fn who_is_evicted_is_a_suspect_with_its_steps() {
        let (mut participation, mut suspects) = (Participation::default(), Participation::default());
        for step in 0..10 {
            participation.add("a", "host:1", step);
            participation.add("b", "host:2", step * 2);
        }
        participation.mark_suspect("b", "host:2", &mut suspects);
        participation.mark_suspect("c", "host:3", &mut suspects);
        assert_eq!(participation.iter().map(|(id, _)| id).collect::<Vec<_>>(), ["a"]);
        assert_eq!(suspects.iter().map(|(id, _)| id).collect::<Vec<_>>(), ["b", "c"], "a restart knows both");
        let suspects = suspects.suspects();
        assert_eq!(suspects.len(), 1);
        assert_eq!((&*suspects[0].name, &*suspects[0].instance_id), ("host:2", "b"));
        assert_eq!(suspects[0].steps, "0, 2, 4, 6, 8, 10, 12, 14, 16, 18");
    }
}
