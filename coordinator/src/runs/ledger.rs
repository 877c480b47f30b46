//! `ledger`: which samples the accepted pieces used, as their workers reported them.
//!
//! Each piece has the digest of the indices of its samples. The digests of one epoch, phase and shard are chained in
//! step order, starting from 32 zero bytes: `h ← SHA-256(h ‖ digest)`. When the epoch is over, each chain becomes a
//! line:
//!
//! ```text
//! millefeuille ledger 1
//! 1 train 0 6000 <hex chain> <hex link>
//! 1 train 1 6000 …
//! ```
//!
//! The fields are: epoch (from 1), phase, shard, samples, the chain, and a *link* over the file so far: `link ←
//! SHA-256(link ‖ the line up to its link)`, starting from the SHA-256 of the first line. So a missing, duplicate or
//! changed line is found and named. [`expected`] computes the correct lines from the plan alone: if they agree, each
//! sample was used exactly once per epoch.
//!
//! If a rule stops the job, one more line says so: epoch, `stop`, and the reason in words, then the
//! link.
//!
//! The file grows once per epoch. Its state so far, with the chains of the current epoch, is a [`LedgerState`], which
//! checkpoints store: after a crash the file is cut back to it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use millefeuille_core::control::Phase;
use millefeuille_core::data::plan::{self, Plan};
use millefeuille_core::data::shard::shard_len;
use millefeuille_core::learn::spec::Spec;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::seal::Broken;

/// The version of the format that this program writes.
const FORMAT: u32 = 1;
const TITLE: &str = "millefeuille ledger ";

/// Between the epoch and the reason, in the line of a job that stops.
const STOP: &str = " stop ";

type Hash = [u8; 32];

/// The first line of the file.
pub fn header() -> String {
    format!("{TITLE}{FORMAT}\n")
}

/// Identifies a chain: epoch (from 0), phase, shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The epoch, from 0.
    pub epoch: u32,
    /// The phase.
    pub phase: Phase,
    /// The shard.
    pub shard: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}, {}, shard {}", self.epoch + 1, phase_name(self.phase), self.shard)
    }
}

/// The state of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Number of samples.
    pub samples: u64,
    /// The chained digests of their pieces.
    pub hash: Hash,
}

impl Chain {
    fn add(&mut self, samples: u64, digest: &Hash) {
        self.samples += samples;
        self.hash = chained(self.hash, digest);
    }
}

/// The ledger of a running run.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Hash of the whole file so far.
    file: Sha256,
    bytes: u64,
    link: Hash,
    open: BTreeMap<Place, Chain>,
}

impl Default for Ledger {
    fn default() -> Self {
        let header = header();
        let file = Sha256::new().chain_update(&header);
        Self { file, bytes: header.len() as u64, link: first_link(), open: BTreeMap::new() }
    }
}

impl Ledger {
    /// Adds a used piece. Call this once per piece, in step order, when the step is closed.
    pub fn piece(&mut self, epoch: u32, phase: Phase, shard: u32, samples: u64, digest: &[u8; 32]) {
        self.open.entry(Place { epoch, phase, shard }).or_default().add(samples, digest);
    }

    /// Ends the epoch, the last one if the job is `stopped`; returns its lines, to be appended to the file.
    #[must_use = "the lines belong into the file"]
    pub fn end_epoch(&mut self, epoch: u32, stopped: Option<&str>) -> String {
        let mut lines = String::new();
        for (place, chain) in self.open.extract_if(.., |place, _| place.epoch == epoch) {
            let body = body(place, &chain);
            self.link = chained(self.link, body.as_bytes());
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "{body} {}", hex::encode(self.link));
        }
        if let Some(reason) = stopped {
            let body = format!("{}{STOP}{reason}", epoch + 1);
            self.link = chained(self.link, body.as_bytes());
            let _ = writeln!(lines, "{body} {}", hex::encode(self.link));
        }
        self.file.update(&lines);
        self.bytes += lines.len() as u64;
        lines
    }

    /// The state that a checkpoint stores.
    pub fn state(&self) -> LedgerState {
        let open = |(&place, &chain): (&Place, &Chain)| Open {
            epoch: place.epoch,
            phase: phase_name(place.phase).to_string(),
            shard: place.shard,
            samples: chain.samples,
            chain: hex::encode(chain.hash),
        };
        let sha256 = hex::encode(self.file.clone().finalize());
        LedgerState { bytes: self.bytes, sha256, open: self.open.iter().map(open).collect() }
    }

    /// Restores the ledger from a checkpoint and the file's content.
    ///
    /// # Errors
    /// If the file does not begin with the content that the checkpoint recorded.
    pub fn restore(state: &LedgerState, file: &[u8]) -> Result<Self, String> {
        let prefix = usize::try_from(state.bytes).ok().and_then(|bytes| file.get(..bytes));
        let prefix = prefix
            .ok_or_else(|| format!("{} bytes, but {} belong to the checkpoint", file.len(), state.bytes))?;
        if hex::encode(Sha256::digest(prefix)) != state.sha256 {
            return Err("its beginning is not what belongs to the checkpoint".to_string());
        }
        let text = std::str::from_utf8(prefix).map_err(|error| error.to_string())?;
        let read = read(text).map_err(|broken| broken.to_string())?;
        let open = state.open.iter().map(Open::restore).collect::<Option<_>>();
        let open = open.ok_or("the chains in the checkpoint are none")?;
        Ok(Self { file: Sha256::new().chain_update(prefix), bytes: state.bytes, link: read.link, open })
    }
}

/// The state of a ledger: the length of its file, and the chains of the current epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerState {
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// Hex SHA-256 of these bytes.
    pub sha256: String,
    /// The chains that are not yet in the file.
    pub open: Vec<Open>,
}

/// A chain of the current epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    epoch: u32,
    phase: String,
    shard: u32,
    samples: u64,
    chain: String,
}

impl Open {
    fn restore(&self) -> Option<(Place, Chain)> {
        let place = Place { epoch: self.epoch, phase: phase_of(&self.phase)?, shard: self.shard };
        Some((place, Chain { samples: self.samples, hash: hash_of(&self.chain)? }))
    }
}

/// The content of a ledger file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries {
    /// The chains, line by line.
    pub chains: Vec<(Place, Chain)>,
    /// The last epoch, from 1, and the reason, if the job has stopped.
    pub stop: Option<(u32, String)>,
    link: Hash,
}

impl Default for Entries {
    /// Those of a file that has only its first line.
    fn default() -> Self {
        Self { chains: Vec::new(), stop: None, link: first_link() }
    }
}

/// Reads a ledger file.
///
/// # Errors
/// The first wrong line, with its number, or the newer format.
pub fn read(text: &str) -> Result<Entries, Broken> {
    check_format(text)?;
    let mut entries = Entries::default();
    let mut before = "";
    for (number, line) in (1..).zip(text.split_inclusive('\n')).skip(1) {
        let wrong = |what: &str| Broken::Damaged(format!("line {number}: {what}"));
        let whole = line.strip_suffix('\n').ok_or_else(|| wrong("cut short"))?;
        let (body, link) = whole.rsplit_once(' ').ok_or_else(|| wrong("not a line of a ledger"))?;
        entries.link = chained(entries.link, body.as_bytes());
        if hash_of(link) != Some(entries.link) {
            return Err(wrong(if line == before { DOUBLED } else { UNLINKED }));
        }
        let stop =
            body.split_once(STOP).and_then(|(epoch, reason)| Some((epoch.parse().ok()?, reason.to_string())));
        match stop {
            Some(stop) => entries.stop = Some(stop),
            None => entries.chains.push(parsed(body).ok_or_else(|| wrong("not a line of a ledger"))?),
        }
        before = line;
    }
    Ok(entries)
}

const DOUBLED: &str = "it is there twice";
const UNLINKED: &str =
    "it does not follow from the lines before it: a line is missing here, or this one was changed";

/// Checks the first line.
pub(super) fn check_format(text: &str) -> Result<(), Broken> {
    let first = text.split_inclusive('\n').next().unwrap_or_default();
    if first == header() {
        return Ok(());
    }
    let version = first.trim_end().strip_prefix(TITLE).and_then(|version| version.parse::<u32>().ok());
    Err(match version {
        Some(found) if found > FORMAT => Broken::Newer { found, known: FORMAT },
        _ => {
            let begins = header();
            Broken::Damaged(format!("line 1: not a ledger, which begins with {:?}", begins.trim_end()))
        }
    })
}

fn parsed(body: &str) -> Option<(Place, Chain)> {
    let fields: Vec<&str> = body.split(' ').collect();
    let [epoch, phase, shard, samples, hash] = fields[..] else { return None };
    let epoch = epoch.parse::<u32>().ok()?.checked_sub(1)?;
    let place = Place { epoch, phase: phase_of(phase)?, shard: shard.parse().ok()? };
    Some((place, Chain { samples: samples.parse().ok()?, hash: hash_of(hash)? }))
}

fn body(place: Place, chain: &Chain) -> String {
    let Place { epoch, phase, shard } = place;
    format!("{} {} {shard} {} {}", epoch + 1, phase_name(phase), chain.samples, hex::encode(chain.hash))
}

/// The entries of a correct ledger with this many epochs, from the plan alone.
pub fn expected(spec: &Spec, epochs: u32) -> Vec<(Place, Chain)> {
    let plan = Plan::new(spec.sizes.train, spec.batch_size, spec.shards);
    let mut chains = Vec::new();
    for epoch in 0..epochs {
        for phase in [Phase::Train, Phase::Validate, Phase::Test] {
            let present = (0..spec.shards).filter(|&shard| shard < spec.sizes.of(phase.split()));
            chains.extend(present.map(|shard| {
                let chain = match phase {
                    Phase::Train => trained(spec, &plan, epoch, shard),
                    Phase::Validate | Phase::Test => evaluated(spec, phase, shard),
                };
                (Place { epoch, phase, shard }, chain)
            }));
        }
    }
    chains
}

fn trained(spec: &Spec, plan: &Plan, epoch: u32, shard: u32) -> Chain {
    let order = plan.order(spec.seed, epoch, shard, spec.shuffle);
    let mut chain = Chain::default();
    for step in 0..plan.steps() {
        let samples = plan.piece(step, shard).len() as u64;
        if samples > 0 {
            chain.add(samples, &plan::digest(plan.indices(&order, step, shard)));
        }
    }
    chain
}

fn evaluated(spec: &Spec, phase: Phase, shard: u32) -> Chain {
    let len = shard_len(spec.sizes.of(phase.split()), spec.shards, shard);
    let index = |k: u32| u64::from(k) * u64::from(spec.shards) + u64::from(shard);
    let mut chain = Chain::default();
    chain.add(len.into(), &plan::digest((0..len).map(index)));
    chain
}

/// The first line of a ledger that differs from the plan, and how it differs.
pub fn first_difference(found: &[(Place, Chain)], expected: &[(Place, Chain)]) -> Option<String> {
    for (index, (place, chain)) in expected.iter().enumerate() {
        match found.get(index) {
            Some(entry) if *entry == (*place, *chain) => {}
            // Line 1 is the header.
            Some((other, _)) if other != place => {
                return Some(format!("line {}: {other}, where {place} belongs", index + 2));
            }
            Some((_, other)) if other.samples != chain.samples => {
                let (has, needs) = (other.samples, chain.samples);
                return Some(format!("line {}: {place}: {has} samples, the plan has {needs}", index + 2));
            }
            Some(_) => {
                let what = "other samples than the plan's, or in another order";
                return Some(format!("line {}: {place}: {what}", index + 2));
            }
            None => return Some(format!("line {} is missing: {place}", index + 2)),
        }
    }
    let more = found.get(expected.len())?;
    Some(format!("line {}: {}, which the plan does not have", expected.len() + 2, more.0))
}

fn chained(before: Hash, next: &[u8]) -> Hash {
    Sha256::new().chain_update(before).chain_update(next).finalize().into()
}

fn first_link() -> Hash {
    Sha256::digest(header()).into()
}

fn hash_of(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    // Only lower case, so that each value has one spelling and every changed bit is noticed.
    let plain = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    (plain && hex::decode_to_slice(text, &mut hash).is_ok()).then_some(hash)
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Train => "train",
        Phase::Validate => "validate",
        Phase::Test => "test",
    }
}

fn phase_of(name: &str) -> Option<Phase> {
    [Phase::Train, Phase::Validate, Phase::Test].into_iter().find(|&phase| phase_name(phase) == name)
}
