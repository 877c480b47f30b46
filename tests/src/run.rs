//! The files of a run directory, read as any script would.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::process::until;

/// A run directory.
#[derive(Clone, Debug)]
pub struct Run {
    path: PathBuf,
}

impl Run {
    /// The run directory at this path, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has this file.
    pub fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    /// A file of it.
    ///
    /// # Panics
    /// If it is not there.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let path = self.path.join(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A file of it, as text.
    ///
    /// # Panics
    /// If it is not there, or no text.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.bytes(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The receipt.
    ///
    /// # Panics
    /// If there is none, because the run is not done.
    pub fn receipt(&self) -> Value {
        serde_json::from_str(&self.text("receipt.json")).expect("a receipt is JSON")
    }

    /// A text of the receipt.
    ///
    /// # Panics
    /// If it is not there.
    pub fn receipt_text(&self, key: &str) -> String {
        let receipt = self.receipt();
        receipt[key].as_str().unwrap_or_else(|| panic!("no {key} in {receipt}")).to_string()
    }

    /// The hash of the trained weights, by its receipt.
    ///
    /// # Panics
    /// If the run is not done.
    pub fn hash(&self) -> String {
        self.receipt_text("weights_sha256")
    }

    /// The lines of history; none if there is no such file.
    ///
    /// # Panics
    /// If a line is not JSON.
    pub fn history(&self) -> Vec<Value> {
        let lines = if self.has("history.jsonl") { self.text("history.jsonl") } else { String::new() };
        lines.lines().map(|line| serde_json::from_str(line).expect("a line of history is JSON")).collect()
    }

    /// How many epochs are finished, in a run that is still written.
    ///
    /// # Panics
    /// If there is no history.
    pub fn history_so_far(&self) -> usize {
        self.text("history.jsonl").matches('\n').count()
    }

    /// The events so far, as complete lines; none if there is no such file.
    ///
    /// # Panics
    /// If a line is not JSON.
    pub fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path.join("events.jsonl")).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).expect("a line of events is JSON")).collect()
    }

    /// The events of this kind, in order.
    pub fn told(&self, kind: &str) -> Vec<String> {
        let of_kind = |event: &&Value| event["event"] == kind;
        let text = |event: &Value| event["text"].as_str().unwrap_or_default().to_string();
        self.events().iter().filter(of_kind).map(text).collect()
    }

    /// Waits until an event of this kind contains this text. Returns the event.
    pub fn tells(&self, kind: &str, text: &str) -> String {
        until(format!("an event {kind} with {text:?} in {}", self.path.display()), || {
            self.told(kind).into_iter().find(|told| told.contains(text))
        })
    }

    /// The reassignments after the loss of a worker, one line each.
    pub fn taken_over(&self) -> Vec<String> {
        self.told("reassigned").into_iter().filter(|told| told.contains("is lost in")).collect()
    }

    /// A column of the history.
    ///
    /// # Panics
    /// If a row has no number there.
    pub fn figures(&self, key: &str) -> Vec<f64> {
        let figure = |row: &Value| row[key].as_f64().unwrap_or_else(|| panic!("no {key} in {row}"));
        self.history().iter().map(figure).collect()
    }

    /// The names and shapes of the model's tensors, sorted by name.
    ///
    /// # Panics
    /// If the model is not a safetensors file.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let bytes = self.bytes("model.safetensors");
        let file = SafeTensors::deserialize(&bytes).expect("the model is a safetensors file");
        let mut tensors: Vec<_> =
            file.iter().map(|(name, view)| (name.to_string(), view.shape().to_vec())).collect();
        tensors.sort();
        tensors
    }

    /// Hashes these tensors of the model, in this order: little-endian `f32`, as they are stored.
    ///
    /// # Panics
    /// If one is not there.
    pub fn hash_of_tensors(&self, names: &[&str]) -> String {
        let bytes = self.bytes("model.safetensors");
        let file = SafeTensors::deserialize(&bytes).expect("the model is a safetensors file");
        let mut hash = Sha256::new();
        for name in names {
            let view = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(view.dtype(), safetensors::Dtype::F32, "{name}");
            hash.update(view.data());
        }
        hex::encode(hash.finalize())
    }

    /// Makes `run.json` have the hashes of the run's files as they are now, as in a forged run.
    ///
    /// # Panics
    /// If `run.json` is not as this program writes it, or cannot be written.
    pub fn reseal(&self) {
        let mut record: Value = serde_json::from_str(&self.text("run.json")).expect("the record is JSON");
        let keys = record.as_object_mut().expect("the record is an object");
        keys.remove("sha256");
        let files = keys.get_mut("files_sha256").and_then(Value::as_object_mut);
        for (name, recorded) in files.into_iter().flatten().filter(|(name, _)| self.has(name)) {
            *recorded = hex::encode(Sha256::digest(self.bytes(name))).into();
        }
        let text = serde_json::to_string_pretty(&record).expect("a JSON value has a text");
        let body = text.trim_end_matches("\n}");
        let seal = hex::encode(Sha256::digest(body));
        let sealed = format!("{body},\n  \"sha256\": \"{seal}\"\n}}\n");
        fs::write(self.path.join("run.json"), sealed).expect("files of a run can be written");
    }

    /// Every file in it with its content, to detect changes.
    pub fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        collect(&self.path, &mut files);
        files.sort();
        files
    }
}

fn collect(path: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("directories can be listed");
        entries.flatten().for_each(|entry| collect(&entry.path(), files));
    } else if path.file_name().is_some_and(|name| name != ".lock") && path.exists() {
        files.push((path.to_path_buf(), fs::read(path).expect("files can be read")));
    }
}
