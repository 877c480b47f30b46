//! Workers that exist in their messages only: what a coordinator with many of them tells its control machine.
//!
//! Everything that the machine orders happens at once: samples arrive, results come, the disk writes. Events of the same
//! kind come together, as those of many workers do, and the time that the machine takes for them is measured without
//! anything else.

use std::collections::BTreeMap;
use std::time::Duration;

use millefeuille_core::arithmetic::Arithmetic;
use millefeuille_core::control::{
    Action, Control, ControlConfig, Event, Facts, Hello, JobId, ResultId, SessionEnd, Start, WorkerId,
};
use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::split::Sizes;
use millefeuille_core::learn::accumulation::Accumulation;
use millefeuille_core::learn::stopping::{Stopping, Watch};

use crate::process::thread_time;

const JOB: JobId = JobId(1);
const SHAPES: &str = "shapes";

/// What a part of a job costs the control machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Its own time.
    pub(crate) time: Duration,
    /// Events that it was told.
    pub(crate) events: usize,
    /// Actions that it ordered.
    pub(crate) actions: usize,
    /// Shards that it told workers to hold.
    pub(crate) told: usize,
}

/// The control machine, with many workers.
pub(crate) struct Crowd {
    control: Control,
    facts: Facts,
    results: u64,
    joined: u64,
    /// What the open step's workers are about to send.
    pending: Vec<Event>,
    cost: Cost,
}

impl Crowd {
    /// A cluster that waits for so many workers, to train a job of so many shards. Each may hold everything.
    pub(crate) fn new(workers: u64, shards: u32) -> Self {
        let seconds = Duration::from_secs;
        let config = ControlConfig {
            incarnation: 1,
            min_workers: 1,
            expected_workers: workers as usize,
            settle: seconds(10),
            wait_workers: None,
            max_workers: 2 * workers as usize,
            heartbeat_deadline: seconds(5),
            stall_deadline: seconds(60),
            checkpoint_interval: None,
            audit_rate: 0.0,
        };
        let facts = Facts {
            epochs: 1000,
            plan: Plan::new(80 * shards, 4 * shards, shards),
            accumulation: Accumulation { batches: 1, of_epoch: 20 },
            shards,
            sizes: Sizes { train: 80 * shards, validation: shards, test: shards },
            sample_bytes: 785,
            kernel_request: "any".into(),
            arithmetic: arithmetic(),
            shapes_fingerprint: SHAPES.into(),
        };
        Self {
            control: Control::new(config),
            facts,
            results: 0,
            joined: 0,
            pending: Vec::new(),
            cost: Cost::default(),
        }
    }

    /// Workers join and a job is submitted, up to its first step.
    pub(crate) fn gather(&mut self, workers: u64) -> Cost {
        let joins = self.joins(workers);
        self.feed(joins);
        self.feed(vec![Event::Submit { job: JOB }]);
        self.spent()
    }

    /// More workers join while the job runs, up to their samples.
    pub(crate) fn join(&mut self, workers: u64) -> Cost {
        let joins = self.joins(workers);
        self.feed(joins);
        self.spent()
    }

    /// Every result of the open step arrives, and the next step is opened.
    pub(crate) fn step(&mut self) -> Cost {
        let results = std::mem::take(&mut self.pending);
        self.feed(results);
        self.spent()
    }

    /// A worker is lost; others compute what was pending with it.
    pub(crate) fn lose(&mut self) -> Cost {
        let Some(&worker) = self.control.members().keys().next() else { return Cost::default() };
        self.pending.retain(|event| !matches!(event, Event::Result { worker: of, .. } if *of == worker));
        self.feed(vec![Event::Leave { worker, end: SessionEnd::Closed }]);
        self.spent()
    }

    /// Two seconds pass, after which the placement is reconsidered.
    pub(crate) fn pass(&mut self, now: Duration) -> Cost {
        let heard = |&worker: &WorkerId| Event::Heard { worker, at: now, moved: 0 };
        let heard: Vec<_> = self.control.members().keys().map(heard).collect();
        self.feed_at(now, heard);
        self.feed_at(now, vec![Event::Tick]);
        self.spent()
    }

    fn spent(&mut self) -> Cost {
        std::mem::take(&mut self.cost)
    }

    fn joins(&mut self, workers: u64) -> Vec<Event> {
        let first = self.joined + 1;
        self.joined += workers;
        (first..=self.joined)
            .map(|worker| Event::Join { worker: WorkerId(worker), hello: hello(worker) })
            .collect()
    }

    fn feed(&mut self, events: Vec<Event>) {
        self.feed_at(Duration::ZERO, events);
    }

    /// Feeds events, and what they lead to, until workers are about to send results.
    fn feed_at(&mut self, now: Duration, mut events: Vec<Event>) {
        while !events.is_empty() {
            self.cost.events += events.len();
            let started = thread_time();
            let actions: Vec<_> = events.into_iter().map(|event| self.control.handle(now, event)).collect();
            self.cost.time += thread_time() - started;
            let actions = actions.into_iter().flatten();
            events = actions.flat_map(|action| self.act(action)).collect();
        }
    }

    fn act(&mut self, action: Action) -> Vec<Event> {
        self.cost.actions += 1;
        match action {
            Action::Load { job } => vec![Event::Loaded {
                job,
                facts: self.facts.clone(),
                from: Start::BEGINNING,
                evicted: BTreeMap::new(),
                watch: Watch::new(Stopping::default()),
            }],
            Action::StartJob { worker, job } => {
                vec![Event::JobAccepted { worker, job, fingerprint: SHAPES.into() }]
            }
            Action::Hold { worker, job, generation, shards, .. } => {
                self.cost.told += shards.len();
                let held = |shard| Event::ShardHeld { worker, job, generation, shard };
                shards.into_iter().map(held).collect()
            }
            Action::Send { worker, work, nodes } => {
                for node in nodes {
                    self.results += 1;
                    let result = ResultId(self.results);
                    let (samples, busy) = (4 * u64::from(node.len()), Duration::from_millis(1));
                    let finite = true;
                    let digest = None;
                    let came = Event::Result { result, worker, work, node, samples, busy, finite, digest };
                    self.pending.push(came);
                }
                Vec::new()
            }
            Action::Close { work } => vec![Event::Closed { work, finite: true, row: None }],
            Action::EndEpoch { job, .. } => vec![Event::EpochWritten { job }],
            _ => Vec::new(),
        }
    }
}

fn arithmetic() -> Arithmetic {
    Arithmetic { kernel: "any".into(), version: "0".into(), fingerprint: "bits".into() }
}

fn hello(worker: u64) -> Hello {
    Hello {
        instance_id: worker.to_string(),
        name: format!("host:{worker}"),
        slots: 1,
        arithmetic: arithmetic(),
        cache_bytes: 1 << 40,
        started_for: "any".into(),
    }
}
