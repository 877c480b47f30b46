//! `history.jsonl`: one line per epoch.
//!
//! A line keeps every bit of a number: it is written in the shortest form that reads back as the same `f64`. JSON has no
//! NaN and no infinity, so these are written as `null`. Training stops at the first such value, so the
//! row is only ever displayed.
//!
//! The file may be long, and it is the only place that has all rows: a checkpoint has the [`HistoryState`] that says
//! which beginning of the file belongs to it, and whoever shows a history takes it from the file in [pages](Pages).

use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use millefeuille_core::failure::Failure;
use millefeuille_core::view::EpochRow;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

use super::{HISTORY, files, json, of_content};

/// The most rows of a page.
pub const PAGE: usize = 1000;

/// The row as one line of JSON, without a line feed.
pub fn to_line(row: &EpochRow) -> String {
    serde_json::to_string(row).expect("a row of numbers and one string always has a JSON form")
}

/// Reads a line that [`to_line`] wrote. Unknown keys are ignored, so that a later version may add some.
///
/// # Errors
/// When the line is not JSON or lacks a field. The caller knows which file and line to name.
pub fn from_line(line: &str) -> Result<EpochRow, String> {
    json::parse(line.as_bytes())
}

/// A history as it grows.
#[derive(Clone, Debug, Default)]
pub struct History {
    rows: Vec<EpochRow>,
    bytes: u64,
    file: Sha256,
}

/// The state of a history: what a checkpoint has of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryState {
    /// The number of rows.
    pub epochs: u64,
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// Hex SHA-256 of these bytes.
    pub sha256: String,
}

impl History {
    /// Adds a row.
    pub fn push(&mut self, row: EpochRow) {
        let line = to_line(&row) + "\n";
        self.file.update(&line);
        self.bytes += line.len() as u64;
        self.rows.push(row);
    }

    /// Every row.
    pub fn rows(&self) -> &[EpochRow] {
        &self.rows
    }

    /// The state that a checkpoint stores.
    pub fn state(&self) -> HistoryState {
        let sha256 = hex::encode(self.file.clone().finalize());
        HistoryState { epochs: self.rows.len() as u64, bytes: self.bytes, sha256 }
    }

    /// Restores the history from a checkpoint and the file's content.
    ///
    /// # Errors
    /// If the file does not begin with the content that the checkpoint recorded.
    pub fn restore(state: &HistoryState, file: &[u8]) -> Result<Self, String> {
        let prefix = usize::try_from(state.bytes).ok().and_then(|bytes| file.get(..bytes));
        let prefix = prefix
            .ok_or_else(|| format!("{} bytes, but {} belong to the checkpoint", file.len(), state.bytes))?;
        let file = Sha256::new().chain_update(prefix);
        if hex::encode(file.clone().finalize()) != state.sha256 {
            return Err("its beginning is not what belongs to the checkpoint".to_string());
        }
        let text = std::str::from_utf8(prefix).map_err(|error| error.to_string())?;
        let rows: Result<Vec<_>, _> = text.lines().map(from_line).collect();
        let rows = rows?;
        if rows.len() as u64 != state.epochs {
            return Err(format!("{} lines, but the checkpoint has {} epochs", rows.len(), state.epochs));
        }
        Ok(Self { rows, bytes: state.bytes, file })
    }
}

impl FromIterator<EpochRow> for History {
    fn from_iter<I: IntoIterator<Item = EpochRow>>(rows: I) -> Self {
        let mut history = Self::default();
        rows.into_iter().for_each(|row| history.push(row));
        history
    }
}

/// Reads the state from a manifest. Manifests of format 1 have all rows, which fix the file's bytes just as well.
pub(super) fn state_or_rows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HistoryState, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Recorded {
        State(HistoryState),
        Rows(Vec<EpochRow>),
    }
    Ok(match Recorded::deserialize(deserializer)? {
        Recorded::State(state) => state,
        Recorded::Rows(rows) => rows.into_iter().collect::<History>().state(),
    })
}

/// Reads the history of a run forward, a page at a time, while it grows.
#[derive(Clone, Debug)]
pub struct Pages {
    path: PathBuf,
    /// The last row that was read or skipped.
    epoch: u64,
    /// Where the rows after it begin, if that is known.
    offset: u64,
}

impl Pages {
    /// The rows after this epoch of the run in this directory.
    pub fn of(run: &Path, after: u64) -> Self {
        Self { path: run.join(HISTORY), epoch: after, offset: 0 }
    }

    /// The last epoch that was read.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The next rows, up to epoch `until`, and at most [`PAGE`].
    ///
    /// # Errors
    /// If the file can't be read, or has no row for an epoch that has ended.
    pub fn next(&mut self, until: u64) -> Result<Vec<EpochRow>, Failure> {
        if self.epoch >= until {
            return Ok(Vec::new());
        }
        let mut page = self.read(until)?;
        if page.first().is_none_or(|row| row.epoch != self.epoch + 1) && self.offset > 0 {
            // The file has been cut back and has grown again: lines may have other lengths.
            self.offset = 0;
            page = self.read(until)?;
        }
        for row in &page {
            if row.epoch != self.epoch + 1 {
                return Err(self.without(self.epoch + 1));
            }
            self.epoch = row.epoch;
        }
        if page.is_empty() { Err(self.without(self.epoch + 1)) } else { Ok(page) }
    }

    /// Reads from the offset on, without the rows before the next epoch; stops at a line that is no row.
    fn read(&mut self, until: u64) -> Result<Vec<EpochRow>, Failure> {
        let unreadable =
            |error: std::io::Error| Failure::of_file(self.path.display(), "cannot be read", &error);
        let mut file = BufReader::new(files::open(&self.path).map_err(unreadable)?);
        file.seek(SeekFrom::Start(self.offset)).map_err(unreadable)?;
        let (mut rows, mut line) = (Vec::new(), String::new());
        let most = PAGE.min(usize::try_from(until - self.epoch).unwrap_or(PAGE));
        // From the beginning of the file, a row is an epoch; only those that are wanted are decoded.
        let mut number = if self.offset == 0 { 0 } else { self.epoch };
        while rows.len() < most {
            line.clear();
            let read = file.read_line(&mut line).map_err(unreadable)?;
            number += 1;
            if !line.ends_with('\n') {
                break;
            }
            self.offset += read as u64;
            if number > self.epoch {
                let Ok(row) = from_line(&line) else { break };
                rows.push(row);
            }
        }
        Ok(rows)
    }

    fn without(&self, epoch: u64) -> Failure {
        of_content(&self.path, format!("epoch {epoch} has ended and has no line"))
    }
}

#[cfg(test)]
mod tests {
    use millefeuille_core::view::EpochMetric;

    use super::*;

    fn row() -> EpochRow {
        EpochRow {
            epoch: 1,
            loss: 1.0 / 3.0,
            accuracy: Some(0.1 + 0.2),
            val_loss: Some(f64::MIN_POSITIVE),
            test_loss: Some(1.5),
            test_accuracy: Some(0.5),
            seconds: 0.25,
            weights_sha256: "0123456789abcdef".into(),
            ..EpochRow::default()
        }
    }

    #[test]
    fn a_line_has_the_contracts_keys_and_keeps_every_bit() {
        let line = to_line(&row());
        assert!(!line.contains('\n'));
        let expected = "{\"epoch\":1,\"loss\":0.3333333333333333,\"accuracy\":0.30000000000000004,\
                        \"val_loss\":2.2250738585072014e-308,\"val_accuracy\":null,\"test_loss\":1.5,\
                        \"test_accuracy\":0.5,\"seconds\":0.25,\"weights_sha256\":\"0123456789abcdef\"}";
        assert_eq!(line, expected);
        assert_eq!(from_line(&line).unwrap(), row());
    }

    #[test]
    fn other_metrics_are_keys_with_three_prefixes() {
        let metric = |name: &str, train| EpochMetric {
            name: name.into(),
            train,
            validation: Some(0.1 + 0.2),
            test: Some(0.25),
        };
        let metrics = vec![metric("f1_score", Some(0.5)), metric("auc", None)];
        let line = to_line(&EpochRow { metrics, ..row() });
        let expected = "\"test_accuracy\":0.5,\
                        \"f1_score\":0.5,\"val_f1_score\":0.30000000000000004,\"test_f1_score\":0.25,\
                        \"auc\":null,\"val_auc\":0.30000000000000004,\"test_auc\":0.25,\"seconds\":0.25,";
        assert!(line.contains(expected), "{line}");
        assert_eq!(from_line(&line).unwrap().metrics, [metric("f1_score", Some(0.5)), metric("auc", None)]);
        let later = line.replacen('{', "{\"words\":\"of a later version\",\"list\":[1,{\"a\":null}],", 1);
        assert_eq!(from_line(&later).unwrap(), from_line(&line).unwrap());
    }

    fn at(epoch: u64) -> EpochRow {
        EpochRow { epoch, ..row() }
    }

    fn write(run: &Path, rows: impl IntoIterator<Item = EpochRow>) {
        let lines: String = rows.into_iter().map(|row| to_line(&row) + "\n").collect();
        std::fs::write(run.join(HISTORY), lines).unwrap();
    }

    fn epochs(rows: &[EpochRow]) -> Vec<u64> {
        rows.iter().map(|row| row.epoch).collect()
    }

    #[test]
    fn a_history_comes_back_from_its_state_and_its_file() {
        let history: History = (1..=3).map(at).collect();
        let file: String = (1..=4).map(|epoch| to_line(&at(epoch)) + "\n").collect();
        let back = History::restore(&history.state(), file.as_bytes()).unwrap();
        assert_eq!((epochs(back.rows()), back.state()), (vec![1, 2, 3], history.state()));

        let changed = file.replacen("1.5", "1.6", 1);
        let error = History::restore(&history.state(), changed.as_bytes()).unwrap_err();
        assert_eq!(error, "its beginning is not what belongs to the checkpoint");
        let short = History::restore(&history.state(), &file.as_bytes()[..50]).unwrap_err();
        assert!(short.starts_with("50 bytes, but "), "{short}");
    }

    #[test]
    fn a_state_has_a_size_that_does_not_depend_on_the_epochs() {
        let size =
            |epochs| serde_json::to_string(&(1..=epochs).map(at).collect::<History>().state()).unwrap().len();
        assert!(size(5_000) < size(5) + 10, "{} and {} bytes", size(5), size(5_000));
    }

    #[test]
    fn pages_follow_a_history_that_grows() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), (1..=2_500).map(at));
        let mut pages = Pages::of(run.path(), 0);
        let sizes: Vec<_> = std::iter::from_fn(|| Some(pages.next(2_400).unwrap().len())).take(4).collect();
        assert_eq!(sizes, [1_000, 1_000, 400, 0], "what has not ended yet is not read");
        assert_eq!(epochs(&pages.next(2_402).unwrap()), [2_401, 2_402]);
        assert_eq!(epochs(&Pages::of(run.path(), 2_498).next(2_500).unwrap()), [2_499, 2_500]);
        assert!(Pages::of(run.path(), 9_000).next(2_500).unwrap().is_empty());
    }

    #[test]
    fn pages_find_their_place_in_a_file_that_was_written_anew() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), (1..=3).map(at));
        let mut pages = Pages::of(run.path(), 0);
        assert_eq!(pages.next(3).unwrap().len(), 3);
        // A resumed run computes rows again, of which the seconds differ.
        write(run.path(), (1..=5).map(|epoch| EpochRow { seconds: 12.625, ..at(epoch) }));
        assert_eq!(epochs(&pages.next(5).unwrap()), [4, 5]);

        write(run.path(), (1..=2).map(at));
        let missing = Pages::of(run.path(), 0).next(5).map(|page| page.len());
        assert_eq!(missing, Ok(2));
        let failure = pages.next(6).unwrap_err();
        assert!(failure.to_string().contains("epoch 6 has ended and has no line"), "{failure}");
    }

    #[test]
    fn what_is_not_finite_is_null_and_reads_back_as_nan() {
        let line = to_line(&EpochRow { loss: f64::NAN, ..row() });
        assert!(line.contains("\"loss\":null"), "{line}");
        assert!(from_line(&line).unwrap().loss.is_nan());
        assert!(from_line("{\"epoch\":1}").is_err());
    }
}
