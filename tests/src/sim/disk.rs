//! A model of the coordinator's disk and of its disk thread.
//!
//! [`Files`] guarantees only what a file system guarantees: a file is complete after a crash only if it was synced,
//! and its name exists for certain only if its directory was synced afterwards. Whatever was not synced may survive
//! or not, depending on the seed.
//!
//! A run's files are those of a run directory. Every order consists of a few operations (`operations`), in the
//! coordinator's order, and a crash can happen between any two.

use std::collections::{BTreeMap, VecDeque};

use millefeuille_core::control::{JobId, Outcome, Start};

use super::random::Random;
use super::toy::Ledger;

/// How many checkpoints are kept.
const KEPT: usize = 3;

/// The state of a job between two steps.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) from: Start,
    pub(crate) parameters: u64,
    /// The figures of the epoch so far.
    pub(crate) figures: u64,
    pub(crate) ledger: Ledger,
    /// The rows of the history so far.
    pub(crate) rows: Vec<u64>,
}

/// The state of a job in its record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    Unfinished,
    Ended(Outcome),
}

/// The content of a file.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Record(Record),
    /// A checkpoint's parameters.
    Parameters(u64),
    Manifest(Box<Snapshot>),
    Model(u64),
    /// A file that is appended to: its lines, and how many of them were synced.
    Lines(Vec<u64>, usize),
    /// A file that was not synced before a crash.
    Torn,
    /// A file that the disk has damaged.
    Damaged,
}

/// A file's name: its job, its kind, and the checkpoint's number.
pub(crate) type Name = (JobId, &'static str, u64);

const RECORD: &str = "record";
const PARAMETERS: &str = "parameters";
const MANIFEST: &str = "manifest";
const HISTORY: &str = "history";
const MODEL: &str = "model";
const RECEIPT: &str = "receipt";
const TEMPORARY: &str = "temporary";

/// One operation. The coordinator may crash between two of them.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Write(Name, Content),
    Append(Name, u64),
    Sync(Name),
    Rename(Name, Name),
    SyncDirectory(JobId),
    Remove(Name),
    /// Report to the driver.
    Tell(Written),
}

/// A report to the driver.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    Claimed(JobId),
    Checkpoint(JobId, Start),
    Epoch(JobId),
    Result(JobId),
    Ended(JobId),
}

/// An order of the driver.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Claim(JobId),
    Checkpoint(JobId, Box<Snapshot>),
    /// Writes a line of the history, and a checkpoint if so.
    Epoch(JobId, Box<Snapshot>, bool),
    Save(JobId, u64),
    End(JobId, Outcome),
}

struct File {
    content: Content,
    synced: bool,
}

/// The files: their current and their durable names.
#[derive(Default)]
pub(crate) struct Files {
    files: BTreeMap<u64, File>,
    names: BTreeMap<Name, u64>,
    durable: BTreeMap<Name, u64>,
    next: u64,
}

/// Queued orders, and the operations of the current one.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) orders: VecDeque<Order>,
    pub(crate) operations: VecDeque<Operation>,
}

impl Files {
    pub(crate) fn carry_out(&mut self, operation: &Operation) {
        match operation {
            Operation::Write(name, content) => {
                self.next += 1;
                self.files.insert(self.next, File { content: content.clone(), synced: false });
                self.names.insert(*name, self.next);
            }
            Operation::Append(name, line) => self.append(*name, *line),
            Operation::Sync(name) => self.sync(*name),
            Operation::Rename(from, to) => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(*to, file);
                }
            }
            Operation::SyncDirectory(job) => {
                self.durable.retain(|name, _| name.0 != *job);
                let names = self.names.iter().filter(|(name, _)| name.0 == *job);
                self.durable.extend(names.map(|(&name, &file)| (name, file)));
            }
            Operation::Remove(name) => {
                self.names.remove(name);
            }
            Operation::Tell(_) => {}
        }
    }

    fn append(&mut self, name: Name, line: u64) {
        if !self.names.contains_key(&name) {
            self.carry_out(&Operation::Write(name, Content::Lines(Vec::new(), 0)));
        }
        if let Some(File { content: Content::Lines(lines, _), synced }) = self.file_mut(name) {
            lines.push(line);
            *synced = false;
        }
    }

    fn sync(&mut self, name: Name) {
        let Some(file) = self.file_mut(name) else { return };
        file.synced = true;
        if let Content::Lines(lines, synced) = &mut file.content {
            *synced = lines.len();
        }
    }

    fn file_mut(&mut self, name: Name) -> Option<&mut File> {
        self.names.get(&name).and_then(|file| self.files.get_mut(file))
    }

    fn content(&self, name: Name) -> Option<&Content> {
        self.names.get(&name).and_then(|file| self.files.get(file)).map(|file| &file.content)
    }

    /// Keeps what the seed lets survive a crash.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        let all: Vec<Name> = self.names.keys().chain(self.durable.keys()).copied().collect();
        let mut left = BTreeMap::new();
        for name in all {
            let (new, old) = (self.names.get(&name), self.durable.get(&name));
            let there = if random.chance(0.5) { new } else { old };
            if let Some(&file) = if new == old { new } else { there } {
                left.entry(name).or_insert(file);
            }
        }
        for file in self.files.values_mut() {
            match &mut file.content {
                Content::Lines(lines, synced) => {
                    lines.truncate(random.within(*synced as u64..=lines.len() as u64) as usize);
                    *synced = lines.len();
                }
                content if !file.synced && random.chance(0.7) => *content = Content::Torn,
                _ => {}
            }
            file.synced = true;
        }
        self.names.clone_from(&left);
        self.durable = left;
        let kept: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|file, _| kept.contains(file));
    }

    /// Damages the newest checkpoint's manifest or parameters. Returns whether there was one.
    pub(crate) fn damage(&mut self, job: JobId, random: &mut Random) -> bool {
        let kind = random.pick(&[MANIFEST, PARAMETERS]);
        let newest = self.names.keys().rfind(|name| (name.0, name.1) == (job, kind)).copied();
        newest.and_then(|name| self.file_mut(name)).map(|file| file.content = Content::Damaged).is_some()
    }

    /// A torn file with its final name.
    pub(crate) fn torn(&self) -> Option<Name> {
        let torn = |name: &&Name| name.1 != TEMPORARY && matches!(self.content(**name), Some(Content::Torn));
        self.names.keys().find(torn).copied()
    }

    /// Whether a job's record survives a crash.
    pub(crate) fn is_durable_record(&self, job: JobId) -> bool {
        self.durable.contains_key(&(job, RECORD, 0))
    }

    pub(crate) fn record(&self, job: JobId) -> Option<&Record> {
        match self.content((job, RECORD, 0)) {
            Some(Content::Record(record)) => Some(record),
            _ => None,
        }
    }

    /// The newest complete checkpoint.
    pub(crate) fn newest_checkpoint(&self, job: JobId) -> Option<&Snapshot> {
        let manifests = self.names.keys().rev().filter(|name| (name.0, name.1) == (job, MANIFEST));
        manifests.copied().find_map(|name| {
            match (self.content(name), self.content((job, PARAMETERS, name.2))) {
                (Some(Content::Manifest(snapshot)), Some(Content::Parameters(parameters)))
                    if *parameters == snapshot.parameters =>
                {
                    Some(&**snapshot)
                }
                _ => None,
            }
        })
    }

    /// Truncates the history to the newest complete checkpoint, and removes incomplete checkpoints.
    pub(crate) fn cut_back(&mut self, job: JobId) {
        let newest = self.newest_checkpoint(job);
        let (rows, tag) = newest
            .map_or((Vec::new(), None), |newest| (newest.rows.clone(), Some(newest.from.parameter_tag)));
        let beyond =
            |name: &Name| [MANIFEST, PARAMETERS].contains(&name.1) && tag.is_none_or(|tag| name.2 > tag);
        self.names.retain(|name, _| name.0 != job || !beyond(name));
        let length = rows.len();
        self.carry_out(&Operation::Write((job, HISTORY, 0), Content::Lines(rows, length)));
        self.sync((job, HISTORY, 0));
        self.carry_out(&Operation::SyncDirectory(job));
    }

    /// The lines of the history.
    pub(crate) fn history(&self, job: JobId) -> Vec<u64> {
        match self.content((job, HISTORY, 0)) {
            Some(Content::Lines(lines, _)) => lines.clone(),
            _ => Vec::new(),
        }
    }

    /// The saved model, if its receipt has been written.
    pub(crate) fn model(&self, job: JobId) -> Option<u64> {
        match (self.content((job, RECEIPT, 0)), self.content((job, MODEL, 0))) {
            (Some(Content::Model(receipt)), Some(Content::Model(model))) if receipt == model => Some(*model),
            _ => None,
        }
    }

    /// The operations of an order. `syncs_late`: the mistake of renaming before syncing.
    pub(crate) fn operations(&self, order: &Order, syncs_late: bool) -> VecDeque<Operation> {
        let put = |name: Name, content: Content| {
            let temporary = (name.0, TEMPORARY, 0);
            let directory = Operation::SyncDirectory(name.0);
            let write = Operation::Write(temporary, content);
            if syncs_late {
                return vec![write, Operation::Rename(temporary, name), directory, Operation::Sync(name)];
            }
            vec![write, Operation::Sync(temporary), Operation::Rename(temporary, name), directory]
        };
        let mut all = Vec::new();
        match order.clone() {
            Order::Claim(job) => {
                all.extend(put((job, RECORD, 0), Content::Record(Record::Unfinished)));
                all.push(Operation::Tell(Written::Claimed(job)));
            }
            Order::Checkpoint(job, snapshot) => {
                let from = snapshot.from;
                all.extend(self.checkpoint(job, snapshot, put));
                all.push(Operation::Tell(Written::Checkpoint(job, from)));
            }
            Order::Epoch(job, snapshot, checkpoint) => {
                let history = (job, HISTORY, 0);
                let row = snapshot.rows.last().copied().unwrap_or_default();
                all.extend([Operation::Append(history, row), Operation::Sync(history)]);
                let from = snapshot.from;
                if checkpoint {
                    all.extend(self.checkpoint(job, snapshot, put));
                    all.push(Operation::Tell(Written::Checkpoint(job, from)));
                }
                all.push(Operation::Tell(Written::Epoch(job)));
            }
            Order::Save(job, parameters) => {
                all.extend(put((job, MODEL, 0), Content::Model(parameters)));
                all.extend(put((job, RECEIPT, 0), Content::Model(parameters)));
                all.extend(put((job, RECORD, 0), Content::Record(Record::Ended(Outcome::Done))));
                all.push(Operation::Tell(Written::Result(job)));
            }
            Order::End(job, outcome) => {
                if outcome != Outcome::Done {
                    all.extend(put((job, RECORD, 0), Content::Record(Record::Ended(outcome))));
                }
                all.push(Operation::Tell(Written::Ended(job)));
            }
        }
        all.into()
    }

    /// Writes the parameters, then the manifest, and then removes older checkpoints, each manifest first.
    fn checkpoint(
        &self,
        job: JobId,
        snapshot: Box<Snapshot>,
        put: impl Fn(Name, Content) -> Vec<Operation>,
    ) -> Vec<Operation> {
        let tag = snapshot.from.parameter_tag;
        let mut all = put((job, PARAMETERS, tag), Content::Parameters(snapshot.parameters));
        all.extend(put((job, MANIFEST, tag), Content::Manifest(snapshot)));
        let older = self.names.keys().filter(|name| (name.0, name.1) == (job, MANIFEST) && name.2 < tag);
        for name in older.rev().skip(KEPT - 1) {
            all.extend([Operation::Remove(*name), Operation::Remove((job, PARAMETERS, name.2))]);
        }
        all
    }
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.operations.is_empty()
    }

    /// Whether a job's claim is queued.
    pub(crate) fn claims(&self, job: JobId) -> bool {
        let waits = self.orders.iter().any(|order| matches!(order, Order::Claim(of) if *of == job));
        let tells =
            |operation: &Operation| matches!(operation, Operation::Tell(Written::Claimed(of)) if *of == job);
        waits || self.operations.iter().any(tells)
    }
}
