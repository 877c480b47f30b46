//! Reads the coordinator's log while it is written.
//!
//! The coordinator writes a line for each step that closes, at a level that only this program requests. Lines carry
//! their time in UTC, to the microsecond. Only the time of day is used, because the measurements take minutes.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::process::ChildStderr;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// The log filter of the coordinator, which must include the messages of [`What`].
pub(super) const FILTER: &str = "info,millefeuille_coordinator::cluster::driver=trace";

const DAY: i64 = 24 * 60 * 60 * 1_000_000;
/// Number of lines kept for error messages.
const LAST: usize = 20;

/// A time of day, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(i64);

impl Moment {
    pub(super) fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self((since_1970.as_micros() % DAY as u128) as i64)
    }

    /// Parses a time such as `2026-05-01T12:00:00.123456Z`.
    fn parse(text: &str) -> Option<Self> {
        let (_, time) = text.strip_suffix('Z')?.split_once('T')?;
        let mut parts = time.split(':');
        let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
        let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
        let micros = (seconds.parse::<f64>().ok()? * 1e6).round() as i64;
        Some(Self(minutes * 60_000_000 + micros))
    }

    /// Seconds since another moment; negative if that is later. The two are less than half a day apart.
    pub(super) fn since(self, other: Self) -> f64 {
        let ahead = (self.0 - other.0 + DAY / 2).rem_euclid(DAY) - DAY / 2;
        ahead as f64 / 1e6
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) at: Moment,
    pub(super) what: What,
}

/// The content of a line. Workers and units of work have the log's names: `worker 4`, `step 5 of epoch 2`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Listening {
        address: String,
    },
    /// All results of a unit of work have arrived and are summed.
    Closed {
        work: String,
    },
    Joined {
        worker: String,
        process: u32,
    },
    Left {
        worker: String,
    },
    /// Pending nodes of a worker that is lost or a straggler were assigned to others.
    Reassigned {
        work: String,
        pending_with: String,
    },
    Other,
}

impl What {
    fn parse(text: &str) -> Self {
        closed(text)
            .or_else(|| listening(text))
            .or_else(|| joined(text))
            .or_else(|| left(text))
            .or_else(|| reassigned(text))
            .unwrap_or(Self::Other)
    }
}

fn closed(text: &str) -> Option<What> {
    Some(What::Closed { work: text.strip_suffix(" is closed")?.to_owned() })
}

fn listening(text: &str) -> Option<What> {
    let (address, _) = text.strip_prefix("listening on ")?.split_once(';')?;
    Some(What::Listening { address: address.to_owned() })
}

fn joined(text: &str) -> Option<What> {
    let (worker, rest) = text.split_once(" (")?;
    let (name, _) = rest.split_once(") joined with ")?;
    let process = name.rsplit_once(':')?.1.parse().ok()?;
    Some(What::Joined { worker: worker.to_owned(), process })
}

fn left(text: &str) -> Option<What> {
    let (worker, rest) = text.split_once(" (")?;
    rest.contains(") left: ").then(|| What::Left { worker: worker.to_owned() })
}

fn reassigned(text: &str) -> Option<What> {
    let (what, _) = text.split_once(": ")?;
    let (pending_with, work) =
        what.split_once(" is lost in ").or_else(|| what.split_once(" is a straggler in "))?;
    Some(What::Reassigned { work: work.to_owned(), pending_with: pending_with.to_owned() })
}

/// The log of a running coordinator.
#[derive(Debug)]
pub(super) struct Log {
    lines: Receiver<String>,
    last: VecDeque<String>,
}

/// A line as the coordinator writes it in JSON.
#[derive(Deserialize)]
struct Line {
    timestamp: String,
    fields: Fields,
}

#[derive(Deserialize)]
struct Fields {
    message: String,
}

impl Log {
    /// Starts a thread that reads the log, so that the coordinator never blocks on a full pipe.
    pub(super) fn of(stderr: ChildStderr) -> Self {
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            // The receiver is dropped once the measurement is over.
            lines.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
        });
        Self { lines, last: VecDeque::new() }
    }

    /// Waits for the next line, for at most `limit`.
    pub(super) fn next(&mut self, limit: Duration) -> anyhow::Result<Entry> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => self.read(line),
            Err(error) => {
                let last = self.last.make_contiguous().join("\n");
                bail!("the coordinator's log: {error}; its last lines were\n{last}")
            }
        }
    }

    /// The next line, if it has already been read.
    pub(super) fn next_there(&mut self) -> anyhow::Result<Option<Entry>> {
        self.lines.try_recv().ok().map(|line| self.read(line)).transpose()
    }

    fn read(&mut self, line: String) -> anyhow::Result<Entry> {
        let Line { timestamp, fields } =
            serde_json::from_str(&line).with_context(|| format!("not a log line: {line}"))?;
        let at = Moment::parse(&timestamp).with_context(|| format!("not a time: {timestamp}"))?;
        let what = What::parse(&fields.message);
        self.last.extend((!matches!(what, What::Closed { .. })).then_some(line));
        if self.last.len() > LAST {
            self.last.pop_front();
        }
        Ok(Entry { at, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_compared_over_midnight() {
        let moment = |text| Moment::parse(text).unwrap();
        let late = moment("2026-05-01T23:59:59.999000Z");
        let early = moment("2026-05-02T00:00:00.001500Z");
        assert_eq!((early.since(late), late.since(early)), (0.0025, -0.0025));
        assert!(Moment::parse("yesterday").is_none());
    }

    #[test]
    fn lines_are_understood() {
        let (worker, work) = ("worker 4".to_owned(), "step 5 of epoch 2".to_owned());
        assert_eq!(What::parse("step 5 of epoch 2 is closed"), What::Closed { work: work.clone() });
        let reassigned = What::Reassigned { work, pending_with: worker.clone() };
        assert_eq!(What::parse("worker 4 is lost in step 5 of epoch 2: worker 1 computes 0–1"), reassigned);
        assert_eq!(
            What::parse("worker 4 is a straggler in step 5 of epoch 2: worker 1 computes 0–1"),
            reassigned
        );
        assert_eq!(
            What::parse("worker 4 (host (a):17) joined with 1 slots"),
            What::Joined { worker: worker.clone(), process: 17 }
        );
        assert_eq!(What::parse("worker 4 (host:17) left: its connection was closed"), What::Left { worker });
        assert_eq!(
            What::parse("listening on 127.0.0.1:7070; workers join with: worker"),
            What::Listening { address: "127.0.0.1:7070".into() }
        );
        assert_eq!(What::parse("job article-1 is done"), What::Other);
    }
}
