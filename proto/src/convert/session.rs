//! Conversions of a session's messages to the wire and from it.

use std::time::Duration;

use bytes::Bytes;
use millefeuille_core::control::{Hello, JobId, WorkerId};
use millefeuille_core::data::shard::Shard;
use millefeuille_core::job::BlasKernel;
use millefeuille_core::learn::sum::Figures;
use tonic::{Code, Status};

use super::{Malformed, malformed, name, required, sentence};
use crate::session::{
    EndCause, Ended, FromWorker, Hold, Introduction, Parameters, ShardToHold, ToWorker, Welcome, Work,
    WorkResult,
};
use crate::v1;
use crate::v1::session_request::Message as Up;
use crate::v1::session_response::Message as Down;

impl From<FromWorker> for v1::SessionRequest {
    fn from(from: FromWorker) -> Self {
        let message = match from {
            FromWorker::Introduction(introduction) => Up::Hello((*introduction).into()),
            FromWorker::JobAccepted { job, fingerprint, shares_memory } => {
                Up::JobAccepted(v1::JobAccepted { job: job.0, fingerprint, shares_memory })
            }
            FromWorker::ShardHeld { job, generation, shard } => {
                Up::ShardHeld(v1::ShardHeld { job: job.0, id: Some(shard.into()), generation })
            }
            FromWorker::Result(result) => Up::Result((*result).into()),
            FromWorker::Chunk(data) => Up::Chunk(v1::Chunk { data }),
            FromWorker::Goodbye { reason } => Up::Goodbye(v1::Goodbye { reason }),
            FromWorker::Drain { reason } => Up::Drain(v1::Drain { reason }),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<v1::SessionRequest> for FromWorker {
    type Error = Malformed;

    fn try_from(from: v1::SessionRequest) -> Result<Self, Malformed> {
        Ok(match from.message.ok_or_else(|| malformed("it sent a message of an unknown kind"))? {
            Up::Hello(hello) => Self::Introduction(Box::new(hello.try_into()?)),
            Up::JobAccepted(v1::JobAccepted { job, fingerprint, shares_memory }) => {
                Self::JobAccepted { job: JobId(job), fingerprint: name(&fingerprint), shares_memory }
            }
            Up::ShardHeld(v1::ShardHeld { job, id, generation }) => {
                let shard = Shard::try_from(required(id, "id")?)?;
                Self::ShardHeld { job: JobId(job), generation, shard }
            }
            Up::Result(result) => Self::Result(Box::new(result.try_into()?)),
            Up::Chunk(v1::Chunk { data }) => Self::Chunk(data),
            Up::Goodbye(v1::Goodbye { reason }) => Self::Goodbye { reason: sentence(&reason) },
            Up::Drain(v1::Drain { reason }) => Self::Drain { reason: sentence(&reason) },
        })
    }
}

impl From<Introduction> for v1::Hello {
    fn from(from: Introduction) -> Self {
        let Introduction { protocol_version, hello, build, cpu, token, shared_memory } = from;
        Self {
            protocol_version,
            build,
            instance_id: hello.instance_id,
            name: hello.name,
            slots: hello.slots,
            arithmetic: Some((&hello.arithmetic).into()),
            cpu,
            token,
            cache_bytes: hello.cache_bytes,
            started_for: hello.started_for,
            shared_memory,
        }
    }
}

impl TryFrom<v1::Hello> for Introduction {
    type Error = Malformed;

    fn try_from(from: v1::Hello) -> Result<Self, Malformed> {
        Ok(Self {
            protocol_version: from.protocol_version,
            hello: Hello::try_from(&from)?,
            build: name(&from.build),
            cpu: name(&from.cpu),
            token: from.token,
            shared_memory: from.shared_memory,
        })
    }
}

impl From<WorkResult> for v1::WorkResult {
    fn from(from: WorkResult) -> Self {
        let WorkResult {
            work,
            node,
            figures,
            sample_digests,
            gradient_bytes,
            gradient_slot,
            tally_bytes,
            busy,
        } = from;
        Self {
            id: Some(work.into()),
            node: Some(node.into()),
            loss_sum: figures.loss_sum,
            correct: figures.correct,
            samples: figures.samples,
            counts: figures.counts,
            sums: figures.sums,
            tally_bytes,
            sample_digests: sample_digests.iter().map(|digest| Bytes::copy_from_slice(digest)).collect(),
            gradient_bytes,
            gradient_slot,
            busy_ns: busy.as_nanos() as u64,
        }
    }
}

impl TryFrom<v1::WorkResult> for WorkResult {
    type Error = Malformed;

    fn try_from(from: v1::WorkResult) -> Result<Self, Malformed> {
        let v1::WorkResult { loss_sum, correct, samples, counts, sums, .. } = from;
        let v1::WorkResult { gradient_bytes, gradient_slot, tally_bytes, .. } = from;
        Ok(Self {
            work: required(from.id, "id")?.try_into()?,
            node: required(from.node, "node")?.into(),
            figures: Figures { loss_sum, correct, samples, counts, sums },
            sample_digests: from.sample_digests.iter().map(digest).collect::<Result<_, _>>()?,
            gradient_bytes,
            gradient_slot,
            tally_bytes,
            busy: Duration::from_nanos(from.busy_ns),
        })
    }
}

fn digest(bytes: &Bytes) -> Result<[u8; 32], Malformed> {
    bytes.as_ref().try_into().map_err(|_| malformed("a sample digest is not 32 bytes"))
}

impl From<ToWorker> for v1::SessionResponse {
    fn from(from: ToWorker) -> Self {
        let message = match from {
            ToWorker::Welcome(welcome) => Down::Welcome(welcome.into()),
            ToWorker::UseKernel { kernel } => Down::UseKernel(v1::UseKernel { kernel }),
            ToWorker::JobStart { job, run_id, spec } => {
                Down::JobStart(v1::JobStart { job: job.0, run_id, spec: Some((&*spec).into()) })
            }
            ToWorker::Hold(hold) => Down::Hold(hold.into()),
            ToWorker::Work(work) => Down::Work(work.into()),
            ToWorker::Chunk(data) => Down::Chunk(v1::Chunk { data }),
            ToWorker::JobEnd { job } => Down::JobEnd(v1::JobEnd { job: job.0 }),
            ToWorker::Goodbye { reason } => Down::Goodbye(v1::Goodbye { reason }),
            ToWorker::Evict { reason } => Down::Evicted(v1::Evicted { reason }),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<v1::SessionResponse> for ToWorker {
    type Error = Malformed;

    fn try_from(from: v1::SessionResponse) -> Result<Self, Malformed> {
        Ok(match required(from.message, "message")? {
            Down::Welcome(welcome) => Self::Welcome(welcome.into()),
            Down::UseKernel(v1::UseKernel { kernel }) => {
                // It goes into an environment variable.
                let parsed = kernel.parse::<BlasKernel>();
                parsed.map_err(|error| malformed(format!("`kernel`: {error}")))?;
                Self::UseKernel { kernel }
            }
            Down::JobStart(v1::JobStart { job, run_id, spec }) => {
                let spec = Box::new(required(spec, "spec")?.try_into()?);
                Self::JobStart { job: JobId(job), run_id: name(&run_id), spec }
            }
            Down::Hold(hold) => Self::Hold(hold.try_into()?),
            Down::Work(work) => Self::Work(work.try_into()?),
            Down::Chunk(v1::Chunk { data }) => Self::Chunk(data),
            Down::JobEnd(v1::JobEnd { job }) => Self::JobEnd { job: JobId(job) },
            Down::Goodbye(v1::Goodbye { reason }) => Self::Goodbye { reason: sentence(&reason) },
            Down::Evicted(v1::Evicted { reason }) => Self::Evict { reason: sentence(&reason) },
        })
    }
}

impl From<Ended> for Status {
    fn from(from: Ended) -> Self {
        let code = match from.cause {
            EndCause::Lost => Code::Aborted,
            EndCause::Full => Code::ResourceExhausted,
            EndCause::Unfit => Code::FailedPrecondition,
            EndCause::Misbehaved => Code::InvalidArgument,
        };
        Self::new(code, from.reason)
    }
}

impl From<Welcome> for v1::Welcome {
    fn from(from: Welcome) -> Self {
        let millis = |duration: Duration| duration.as_millis() as u32;
        Self {
            worker_id: from.worker.0,
            incarnation: from.incarnation,
            heartbeat_interval_ms: millis(from.heartbeat_interval),
            heartbeat_deadline_ms: millis(from.heartbeat_deadline),
        }
    }
}

impl From<v1::Welcome> for Welcome {
    fn from(from: v1::Welcome) -> Self {
        let millis = |millis: u32| Duration::from_millis(millis.into());
        Self {
            worker: WorkerId(from.worker_id),
            incarnation: from.incarnation,
            heartbeat_interval: millis(from.heartbeat_interval_ms),
            heartbeat_deadline: millis(from.heartbeat_deadline_ms),
        }
    }
}

impl From<Hold> for v1::Hold {
    fn from(from: Hold) -> Self {
        let Hold { job, generation, shards, standby } = from;
        let shards = shards.into_iter().map(v1::Shard::from).collect();
        Self { job: job.0, shards, spare: standby, generation }
    }
}

impl TryFrom<v1::Hold> for Hold {
    type Error = Malformed;

    fn try_from(from: v1::Hold) -> Result<Self, Malformed> {
        let v1::Hold { job, shards, spare, generation } = from;
        let shards = shards.into_iter().map(ShardToHold::try_from).collect::<Result<_, _>>()?;
        Ok(Self { job: JobId(job), generation, shards, standby: spare })
    }
}

impl From<ShardToHold> for v1::Shard {
    fn from(from: ShardToHold) -> Self {
        let ShardToHold { shard, samples, bytes, sha256 } = from;
        Self { id: Some(shard.into()), samples, bytes, sha256 }
    }
}

impl TryFrom<v1::Shard> for ShardToHold {
    type Error = Malformed;

    fn try_from(from: v1::Shard) -> Result<Self, Malformed> {
        let v1::Shard { id, samples, bytes, sha256 } = from;
        Ok(Self { shard: required(id, "id")?.try_into()?, samples, bytes, sha256: name(&sha256) })
    }
}

impl From<Work> for v1::Work {
    fn from(from: Work) -> Self {
        let (parameter_bytes, parameter_slot) = match from.parameters {
            Parameters::Known => (0, None),
            Parameters::Follow(bytes) => (bytes, None),
            Parameters::InSlot(slot) => (0, Some(slot)),
        };
        let nodes = from.nodes.into_iter().map(v1::Node::from).collect();
        Self { id: Some(from.id.into()), nodes, parameter_bytes, parameter_slot }
    }
}

impl TryFrom<v1::Work> for Work {
    type Error = Malformed;

    fn try_from(from: v1::Work) -> Result<Self, Malformed> {
        let parameters = match (from.parameter_slot, from.parameter_bytes) {
            (Some(slot), _) => Parameters::InSlot(slot),
            (None, 0) => Parameters::Known,
            (None, bytes) => Parameters::Follow(bytes),
        };
        let nodes = from.nodes.into_iter().map(Into::into).collect();
        Ok(Self { id: required(from.id, "id")?.try_into()?, nodes, parameters })
    }
}

#[cfg(test)]
mod tests {
    use millefeuille_core::arithmetic::Arithmetic;
    use millefeuille_core::control::{Phase, WorkId};
    use millefeuille_core::data::split::Split;
    use millefeuille_core::learn::tree::Node;

    use super::*;

    const JOB: JobId = JobId(3);
    const SHARD: Shard = Shard { split: Split::Test, index: 7 };
    const NODE: Node = Node { first: 4, end: 8 };

    fn work() -> WorkId {
        WorkId { job: JOB, incarnation: 9, epoch: 1, phase: Phase::Train, step: 95, parameter_tag: 191 }
    }

    fn introduction() -> Introduction {
        let arithmetic =
            Arithmetic { kernel: "Zen".into(), version: "0.3.21".into(), fingerprint: "ab".into() };
        Introduction {
            protocol_version: 2,
            hello: Hello {
                instance_id: "cd".into(),
                name: "host:1".into(),
                slots: 2,
                arithmetic,
                cache_bytes: 5,
                started_for: "native".into(),
            },
            build: "1.0".into(),
            cpu: "a processor".into(),
            token: "secret".into(),
            shared_memory: 6,
        }
    }

    #[test]
    fn what_a_worker_says_goes_to_the_wire_and_back() {
        let result = WorkResult {
            work: work(),
            node: NODE,
            figures: Figures { loss_sum: 0.5, correct: 1, samples: 2, counts: vec![3], sums: vec![0.25] },
            tally_bytes: 0,
            sample_digests: vec![[7; 32]],
            gradient_bytes: 8,
            gradient_slot: Some(0),
            busy: Duration::from_nanos(9),
        };
        for said in [
            FromWorker::Introduction(Box::new(introduction())),
            FromWorker::JobAccepted { job: JOB, fingerprint: "ab".into(), shares_memory: true },
            FromWorker::ShardHeld { job: JOB, generation: 2, shard: SHARD },
            FromWorker::Result(Box::new(result)),
            FromWorker::Chunk(Bytes::from_static(b"abcd")),
            FromWorker::Goodbye { reason: "told to stop".into() },
            FromWorker::Drain { reason: "told to stop".into() },
        ] {
            assert_eq!(FromWorker::try_from(v1::SessionRequest::from(said.clone())).unwrap(), said);
        }
    }

    #[test]
    fn what_a_coordinator_says_goes_to_the_wire_and_back() {
        let second = Duration::from_secs(1);
        let welcome = Welcome {
            worker: WorkerId(1),
            incarnation: 2,
            heartbeat_interval: second,
            heartbeat_deadline: 5 * second,
        };
        let shards = vec![ShardToHold { shard: SHARD, samples: 3, bytes: 15, sha256: "ab".into() }];
        let mut all = vec![
            ToWorker::Welcome(welcome),
            ToWorker::UseKernel { kernel: "Haswell".into() },
            ToWorker::Hold(Hold { job: JOB, generation: 4, shards, standby: true }),
            ToWorker::Chunk(Bytes::from_static(b"abcd")),
            ToWorker::JobEnd { job: JOB },
            ToWorker::Goodbye { reason: "the end".into() },
            ToWorker::Evict { reason: "wrong".into() },
        ];
        for parameters in [Parameters::Known, Parameters::Follow(940), Parameters::InSlot(0)] {
            all.push(ToWorker::Work(Work { id: work(), nodes: vec![NODE], parameters }));
        }
        for said in all {
            assert_eq!(ToWorker::try_from(v1::SessionResponse::from(said.clone())).unwrap(), said);
        }
    }

    #[test]
    fn messages_that_make_no_sense_are_refused() {
        let refused = |message| {
            FromWorker::try_from(v1::SessionRequest { message }).expect_err("it makes no sense").to_string()
        };
        assert_eq!(refused(None), "it sent a message of an unknown kind");
        assert_eq!(refused(Some(Up::ShardHeld(v1::ShardHeld::default()))), "`id` is missing");
        let sample_digests = vec![Bytes::from_static(b"short")];
        let (id, node) = (Some(work().into()), Some(NODE.into()));
        let result = v1::WorkResult { id, node, sample_digests, ..Default::default() };
        assert_eq!(refused(Some(Up::Result(result))), "a sample digest is not 32 bytes");
    }
}
