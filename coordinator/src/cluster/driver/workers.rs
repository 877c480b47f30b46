//! How the driver handles workers: the messages to them, and their results.

use std::sync::Arc;

use millefeuille_core::control::{Computed, Event, JobId, ResultId, SessionEnd, Source, WorkId, WorkerId};
use millefeuille_core::data::shard::Shard;
use millefeuille_core::learn::tree::Node;
use millefeuille_proto::session::{self, Hold, Parameters, ShardToHold, ToWorker, Welcome};
use tokio::sync::mpsc;
use tracing::warn;

use super::Driver;
use crate::cluster::messages::{Arbitrated, Connected, DriverMessage, Ended, NodeResult, SessionOutput};
use crate::cluster::records::Session;
use crate::cluster::sums::{digest, is_finite};
use crate::cluster::training::Sent;

impl Driver {
    pub(super) fn connected(&mut self, connected: Connected) {
        let Connected { worker, hello, build, cpu, shared_memory, outbox, traffic, reading } = connected;
        let session =
            Session { build, cpu, shared_memory, worker_slots: None, outbox, traffic, _reading: reading };
        self.sessions.insert(worker, session);
        self.handle(Event::Join { worker, hello });
    }

    pub(super) fn welcome(&mut self, worker: WorkerId) {
        let welcome = Welcome {
            worker,
            incarnation: self.config.control.incarnation,
            heartbeat_interval: self.config.heartbeat_interval,
            heartbeat_deadline: self.config.control.heartbeat_deadline,
        };
        self.say(worker, ToWorker::Welcome(welcome));
    }

    pub(super) fn say(&mut self, worker: WorkerId, message: ToWorker) {
        self.put(worker, SessionOutput::Message(message));
    }

    fn put(&mut self, worker: WorkerId, outgoing: SessionOutput) {
        let Some(session) = self.sessions.get(&worker) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = session.outbox.try_send(outgoing) {
            if self.has_room() {
                warn!("{worker} has stopped reading");
            }
            self.close(worker, None);
            self.happened.push_back(Event::Leave { worker, end: SessionEnd::StoppedReading });
        }
    }

    /// Ends a session, with a last message to the worker.
    pub(super) fn close(&mut self, worker: WorkerId, ended: Option<Ended>) {
        if let Some(training) = &mut self.training {
            training.forget(worker);
        }
        let session = self.sessions.remove(&worker);
        session.iter().for_each(|session| self.tally.moved(&session.traffic));
        if let (Some(session), Some(ended)) = (session, ended) {
            if self.has_room() {
                warn!("{worker} is disconnected: {}", ended.reason);
            }
            let _ = session.outbox.try_send(SessionOutput::Close(ended));
        }
    }

    /// Puts a result into the reduction tree.
    pub(super) fn accept(&mut self, result: ResultId, work: WorkId, node: Node, source: Source) {
        let Some(training) = &mut self.training else { return };
        if let Source::Worker(worker) = source {
            training.took_part(worker, work);
        }
        training.accept(result, node);
    }

    /// Computes a node in the coordinator, or in a process of its own.
    pub(super) fn arbitrate(&self, work: WorkId, node: Node) {
        let Some(training) = &self.training else { return };
        let (arbiter, parameters) = (Arc::clone(&training.arbiter), training.parameters());
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let sum = arbiter.compute(work, node, parameters).await;
            handle.send(DriverMessage::Arbitrated(Box::new(Arbitrated { work, node, sum }))).await;
        });
    }

    pub(super) fn arbitrated(&mut self, Arbitrated { work, node, sum }: Arbitrated) {
        let current = self.control.running() == Some(work.job);
        let Some(training) = self.training.as_mut().filter(|_| current) else { return };
        let computed = sum.map(|sum| {
            let (finite, digest) = (is_finite(&sum), digest(&sum));
            Computed { result: training.store_result(sum), finite, digest }
        });
        self.handle(Event::Arbitrated { work, node, computed });
    }

    pub(super) fn start_job(&mut self, worker: WorkerId, job: JobId) {
        let (Some(training), Some(record)) = (&self.training, self.jobs.get(&job)) else { return };
        if let Some(session) = self.sessions.get_mut(&worker) {
            session.worker_slots = None;
            // The memory must have the job's size before the worker maps it.
            training.prepare_sharing(session.shared_memory);
        }
        let spec = Box::new(training.loaded.spec.clone());
        self.say(worker, ToWorker::JobStart { job, run_id: record.id.clone(), spec });
    }

    /// From now on, this worker gets parameters through shared memory.
    pub(super) fn shares_memory(&mut self, worker: WorkerId, job: JobId) {
        let Some(training) = self.training.as_ref().filter(|_| self.control.running() == Some(job)) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&worker) {
            session.worker_slots = training.prepare_sharing(session.shared_memory);
        }
    }

    pub(super) fn hold(
        &mut self,
        worker: WorkerId,
        job: JobId,
        generation: u64,
        shards: &[Shard],
        standby: bool,
    ) {
        let Some(training) = &self.training else { return };
        let shards = shards.iter().filter_map(|&shard| {
            let stored = training.store().get(shard)?;
            let samples = &stored.samples;
            Some(ShardToHold {
                shard,
                samples: samples.len(),
                bytes: samples.bytes().len() as u64,
                sha256: stored.sha256.clone(),
            })
        });
        let hold = Hold { job, generation, shards: shards.collect(), standby };
        self.say(worker, ToWorker::Hold(hold));
    }

    pub(super) fn send_work(&mut self, worker: WorkerId, work: WorkId, nodes: Vec<Node>) {
        let Some(training) = &mut self.training else { return };
        if let Some(member) = self.control.members().get(&worker) {
            training.asked(worker, &member.hello);
        }
        let worker_slots = self.sessions.get(&worker).and_then(|session| session.worker_slots.as_deref());
        let parameters = training.parameters_for(worker, work.parameter_tag, worker_slots);
        let header = |parameters| ToWorker::Work(session::Work { id: work, nodes, parameters });
        self.put(
            worker,
            match parameters {
                Sent::Before => SessionOutput::Message(header(Parameters::Known)),
                Sent::InSlot(slot) => SessionOutput::Message(header(Parameters::InSlot(slot))),
                Sent::Bytes(bytes) => {
                    SessionOutput::Bulk(header(Parameters::Follow(bytes.len() as u64)), bytes)
                }
            },
        );
    }

    pub(super) fn result(&mut self, result: NodeResult) {
        let NodeResult { worker, work, node, sum, finite, as_planned, busy } = result;
        let current = self.control.running() == Some(work.job);
        let Some(training) = self.training.as_mut().filter(|_| current) else { return };
        let wrong = match (training.fits(work, node, &sum), as_planned) {
            (true, true) => None,
            (true, false) => Some("is of other samples than the plan names"),
            (false, _) => Some("has the wrong shape"),
        };
        if let Some(wrong) = wrong {
            let end = SessionEnd::Violation(format!("a result of {work} {wrong}"));
            self.close(worker, Some(Ended::misbehaved(format!("a result {wrong}"))));
            return self.handle(Event::Leave { worker, end });
        }
        let slots = self.control.members().get(&worker).map_or(1, |member| member.hello.slots);
        training.clock.result(worker, busy / slots);
        let samples = sum.figures.samples;
        let digest = (!finite || self.control.compares(work, node)).then(|| digest(&sum));
        let result = training.store_result(sum);
        self.handle(Event::Result { result, worker, work, node, samples, busy, finite, digest });
    }
}
