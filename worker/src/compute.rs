//! Computes pieces, one a slot, and adds them up to the nodes that the coordinator asked for.
//!
//! Slots are plain threads that take pieces from one queue. A piece's gradient is written into a pooled buffer;
//! pieces are added along the reduction tree as they come, by whichever slot brings the second of a pair. When a
//! node is complete it is sent.
//!
//! Nodes that are asked for under the same name of work join what is under way: others' shards taken over in the
//! middle of a step, copies of slow work, audits. A node that is owed already is computed once; one that was
//! answered is computed again, since whoever asks again has not used that answer. Nodes may overlap; each is a sum
//! of its own. Another name of work takes the place of what was not begun.
//!
//! Slots live as long as the process, and longer than a session: one that is busy with a piece for a session that
//! broke holds up nobody. Each piece knows where its sum goes; of a session that is over, that is nowhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millefeuille_core::control::{Phase, WorkId};
use millefeuille_core::data::shard::ShardSamples;
use millefeuille_core::learn::elementwise;
use millefeuille_core::learn::piece::{self, Learner, PieceOutcome, Scratch};
use millefeuille_core::learn::tree::{Node, Reduction};
use millefeuille_proto::wire::Pool;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

use crate::failpoints;
use crate::job::Job;

/// Nodes of one unit of work, with all that their pieces need.
pub(crate) struct Batch {
    pub(crate) work: WorkId,
    pub(crate) job: Arc<Job>,
    pub(crate) parameters: Arc<Vec<f32>>,
    pub(crate) nodes: Vec<Node>,
    /// The samples of every shard of the nodes.
    pub(crate) samples: BTreeMap<u32, ShardSamples>,
    /// Where complete nodes go.
    pub(crate) done: mpsc::Sender<Done>,
}

/// The sum over some pieces.
#[derive(Debug)]
pub(crate) struct Sum {
    /// Sum of the samples' gradients; empty in evaluation.
    pub(crate) gradient: Vec<f32>,
    pub(crate) loss_sum: f64,
    pub(crate) correct: u64,
    pub(crate) samples: u64,
    /// In shard order.
    pub(crate) sample_digests: Vec<[u8; 32]>,
    pub(crate) busy: Duration,
}

impl Sum {
    fn new(gradient: Vec<f32>, outcome: PieceOutcome, busy: Duration) -> Self {
        let PieceOutcome { loss_sum, correct, count, samples_sha256 } = outcome;
        Self { gradient, loss_sum, correct, samples: count, sample_digests: vec![samples_sha256], busy }
    }

    /// Adds what stands to the right of it in the tree.
    fn add(&mut self, right: Self, pool: &Pool) {
        elementwise::add_assign(&mut self.gradient, &right.gradient);
        pool.give(right.gradient);
        self.loss_sum += right.loss_sum;
        self.correct += right.correct;
        self.samples += right.samples;
        self.sample_digests.extend(right.sample_digests);
        self.busy += right.busy;
    }
}

/// A node whose sum is complete.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) work: WorkId,
    pub(crate) node: Node,
    pub(crate) sum: Sum,
}

/// The slots of this worker. They end with this value, each after the piece that it computes.
pub(crate) struct Slots {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    pool: Pool,
    /// Pieces computed so far.
    computed: Counter,
}

/// What is to be computed.
#[derive(Default)]
struct Queue {
    /// The unit of work that was asked for last.
    work: Option<WorkId>,
    /// Its nodes that were asked for and not answered since.
    owed: BTreeSet<Node>,
    /// Pieces that were not begun.
    tasks: VecDeque<Task>,
    closed: bool,
}

/// One piece to compute.
struct Task {
    batch: Arc<Batch>,
    shard: u32,
    node: Arc<OpenNode>,
}

/// A node that pieces are added up to.
struct OpenNode {
    node: Node,
    reduction: Mutex<Reduction<Sum>>,
}

impl Slots {
    /// Starts `count` threads, which count the pieces that they compute.
    ///
    /// # Errors
    /// If the operating system gives no more threads.
    pub(crate) fn start(count: u32, pool: Pool, computed: Counter) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new(), pool, computed });
        let slots = Self { shared };
        for slot in 0..count {
            let shared = Arc::clone(&slots.shared);
            std::thread::Builder::new().name(format!("slot-{slot}")).spawn(move || {
                let working = std::panic::AssertUnwindSafe(|| shared.work());
                if std::panic::catch_unwind(working).is_err() {
                    // A worker that beats on but does not compute would hold everybody up.
                    std::process::abort();
                }
            })?;
        }
        Ok(slots)
    }

    /// Asks for nodes: more of the work under way, or other work in its place.
    pub(crate) fn ask(&self, batch: Batch) {
        let batch = Arc::new(batch);
        let mut queue = lock(&self.shared.queue);
        queue.turn_to(batch.work);
        for &node in &batch.nodes {
            if queue.owed.insert(node) {
                queue.tasks.extend(tasks(&batch, node));
            }
        }
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// A node's sum is on its way to the coordinator. Asked for again, it is computed again.
    pub(crate) fn answered(&self, work: WorkId, node: Node) {
        let mut queue = lock(&self.shared.queue);
        if queue.work == Some(work) {
            queue.owed.remove(&node);
        }
    }

    /// Forgets what was asked for. Pieces that were begun are finished for nobody.
    pub(crate) fn clear(&self) {
        let mut queue = lock(&self.shared.queue);
        let closed = queue.closed;
        *queue = Queue { closed, ..Queue::default() };
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.changed.notify_all();
    }
}

impl Queue {
    fn turn_to(&mut self, work: WorkId) {
        if self.work != Some(work) {
            self.work = Some(work);
            self.owed.clear();
            self.tasks.clear();
        }
    }
}

fn tasks(batch: &Arc<Batch>, node: Node) -> Vec<Task> {
    let present = batch.job.present(batch.work, node);
    let reduction = Reduction::over(node, &present);
    let open = Arc::new(OpenNode { node, reduction: Mutex::new(reduction) });
    let task = |shard| Task { batch: Arc::clone(batch), shard, node: Arc::clone(&open) };
    present.into_iter().map(task).collect()
}

impl Shared {
    fn work(&self) {
        let mut scratch = Scratch::default();
        while let Some(task) = self.next() {
            failpoints::die_at(failpoints::BEFORE_PIECE);
            if task.batch.work.phase != Phase::Train {
                failpoints::die_at(failpoints::BEFORE_EVALUATION);
            }
            failpoints::dawdle_at(failpoints::HANG);
            self.step(&task, &mut scratch);
        }
    }

    fn next(&self) -> Option<Task> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return None;
            }
            if let Some(task) = queue.tasks.pop_front() {
                return Some(task);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn step(&self, task: &Task, scratch: &mut Scratch) {
        let started = Instant::now();
        failpoints::dawdle_at(failpoints::SLOW);
        let (mut gradient, mut outcome) = compute(task, &self.pool, scratch);
        self.computed.inc();
        failpoints::spoil(&mut gradient, &mut outcome.loss_sum);
        self.add(task, Sum::new(gradient, outcome, started.elapsed()));
    }

    /// Adds a piece to its node, and sends the node if that completes it.
    fn add(&self, task: &Task, sum: Sum) {
        let mut reduction = lock(&task.node.reduction);
        let add = |left: &mut Sum, right| left.add(right, &self.pool);
        reduction.insert(Node::leaf(task.shard), sum, add);
        if let Some(sum) = reduction.take_root(add) {
            drop(reduction);
            let done = Done { work: task.batch.work, node: task.node.node, sum };
            if let Err(mpsc::error::SendError(done)) = task.batch.done.blocking_send(done) {
                self.pool.give(done.sum.gradient);
            }
        }
    }
}

fn compute(task: &Task, pool: &Pool, scratch: &mut Scratch) -> (Vec<f32>, PieceOutcome) {
    let Task { batch, shard, .. } = task;
    let Batch { job, work, parameters, .. } = &**batch;
    let learner = Learner { model: &job.model, spec: &job.spec, parameters };
    let samples = piece::ShardSamples::of(&batch.samples[shard], *shard, job.spec.shards);
    if work.phase != Phase::Train {
        return (Vec::new(), learner.evaluate_piece(&samples, scratch));
    }
    let (order, part) = job.part(*work, *shard);
    let mut gradient = pool.take(job.model.parameter_count());
    let outcome = learner.train_piece(&samples, &order[part], work.epoch.into(), &mut gradient, scratch);
    (gradient, outcome)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use millefeuille_core::control::JobId;
    use millefeuille_core::data::split::Sizes;
    use millefeuille_core::job::{Activation, Layer, Loss};
    use millefeuille_core::learn::spec::Spec;

    use super::*;

    const SHARDS: u32 = 4;
    const PER_SHARD: u32 = 3;
    const WIDTH: u32 = 5;

    /// Slots without threads: a test takes the pieces itself, one by one.
    struct Desk {
        slots: Slots,
        job: Arc<Job>,
        parameters: Arc<Vec<f32>>,
        sender: mpsc::Sender<Done>,
        done: mpsc::Receiver<Done>,
        scratch: Scratch,
    }

    impl Desk {
        fn new() -> Self {
            let job = Job::new(1, spec());
            let parameters = job.model.initial_parameters(7);
            let (sender, done) = mpsc::channel(16);
            Self {
                slots: Slots::start(0, Pool::default(), Counter::default()).unwrap(),
                job: Arc::new(job),
                parameters: Arc::new(parameters),
                sender,
                done,
                scratch: Scratch::default(),
            }
        }

        fn ask(&self, work: WorkId, nodes: &[(u32, u32)]) {
            self.slots.ask(Batch {
                work,
                job: Arc::clone(&self.job),
                parameters: Arc::clone(&self.parameters),
                nodes: nodes.iter().map(|&(first, end)| Node { first, end }).collect(),
                samples: (0..SHARDS).map(|shard| (shard, samples(shard))).collect(),
                done: self.sender.clone(),
            });
        }

        fn waiting(&self) -> usize {
            lock(&self.slots.shared.queue).tasks.len()
        }

        /// Computes the next pieces.
        fn compute(&mut self, count: usize) {
            for _ in 0..count {
                let task = lock(&self.slots.shared.queue).tasks.pop_front().expect("a piece waits");
                self.slots.shared.step(&task, &mut self.scratch);
            }
        }

        /// Sends the nodes that are complete, as a session does.
        fn send(&mut self) -> Vec<Done> {
            let sent: Vec<_> = std::iter::from_fn(|| self.done.try_recv().ok()).collect();
            sent.iter().for_each(|done| self.slots.answered(done.work, done.node));
            sent
        }

        fn sent_nodes(&mut self) -> Vec<(u32, u32)> {
            self.send().iter().map(|done| (done.node.first, done.node.end)).collect()
        }

        /// Computes everything; what is sent.
        fn finish(&mut self) -> Vec<Done> {
            self.compute(self.waiting());
            self.send()
        }
    }

    fn spec() -> Spec {
        let dense = |units, activation| Layer::Dense { units, activation };
        Spec {
            seed: 7,
            shards: SHARDS,
            batch_size: SHARDS * 2,
            shuffle: true,
            scale: 1.0 / 255.0,
            inputs: WIDTH,
            classes: 10,
            layers: vec![dense(6, Activation::Sigmoid), dense(10, Activation::Softmax)],
            loss: Loss::CategoricalCrossentropy,
            sizes: Sizes { train: SHARDS * PER_SHARD, validation: 2, test: 2 },
        }
    }

    fn samples(shard: u32) -> ShardSamples {
        let pixels = (0..PER_SHARD * WIDTH).map(|place| (place * 37 + shard * 11) as u8);
        let labels = (0..PER_SHARD).map(|sample| ((sample + shard) % 10) as u8);
        let bytes: Vec<u8> = pixels.chain(labels).collect();
        ShardSamples::decode(bytes.into(), WIDTH as usize, PER_SHARD).unwrap()
    }

    fn step(step: u32) -> WorkId {
        let phase = Phase::Train;
        WorkId { job: JobId(1), incarnation: 1, epoch: 0, phase, step, parameter_tag: step.into() }
    }

    fn bits(done: &Done) -> Vec<u32> {
        done.sum.gradient.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn more_nodes_of_the_same_work_join_what_is_under_way() {
        let mut desk = Desk::new();
        desk.ask(step(0), &[(0, 2)]);
        desk.compute(1);

        // Another worker is lost in the middle of the step: its half is asked for too.
        desk.ask(step(0), &[(2, 4)]);

        assert_eq!(desk.waiting(), 3);
        desk.compute(1);
        assert_eq!(desk.sent_nodes(), [(0, 2)], "what was begun is finished first");
        desk.compute(2);
        assert_eq!(desk.sent_nodes(), [(2, 4)]);
    }

    #[test]
    fn other_work_takes_the_place_of_what_was_not_begun() {
        let mut desk = Desk::new();
        desk.ask(step(0), &[(0, 1), (2, 4)]);
        desk.compute(1);

        desk.ask(step(1), &[(2, 4)]);

        assert_eq!(desk.waiting(), 2);
        let sent = desk.finish();
        let named: Vec<_> = sent.iter().map(|done| (done.work.step, done.node.first)).collect();
        assert_eq!(named, [(0, 0), (1, 2)], "what was complete is sent all the same");
        assert_eq!(desk.waiting(), 0);
    }

    #[test]
    fn a_node_asked_for_twice_is_computed_once_until_it_is_answered() {
        let mut desk = Desk::new();
        desk.ask(step(0), &[(0, 2)]);
        desk.compute(1);
        desk.ask(step(0), &[(0, 2)]);
        assert_eq!(desk.waiting(), 1);

        // It is complete, and not on its way yet: its answer comes after the second request.
        desk.compute(1);
        desk.ask(step(0), &[(0, 2)]);
        assert_eq!(desk.waiting(), 0);
        let first = desk.send();
        assert_eq!(first.len(), 1);

        // It was answered before the third request, which may not have seen the answer: it gets one of its own.
        desk.ask(step(0), &[(0, 2)]);
        let again = desk.finish();
        assert_eq!(again.len(), 1);
        assert_eq!(bits(&first[0]), bits(&again[0]));
    }

    #[test]
    fn a_node_that_was_dropped_is_computed_when_it_is_asked_for_again() {
        let mut desk = Desk::new();
        desk.ask(step(0), &[(0, 4)]);
        desk.compute(1);
        desk.ask(step(1), &[(0, 1)]);

        desk.ask(step(0), &[(0, 4)]);

        assert_eq!(desk.waiting(), 4);
        let sent = desk.finish();
        assert_eq!((sent.len(), sent[0].work, sent[0].sum.sample_digests.len()), (1, step(0), 4));
    }

    #[test]
    fn nodes_may_overlap_and_give_the_same_bits() {
        let mut desk = Desk::new();
        desk.ask(step(0), &[(0, 4)]);
        desk.compute(1);
        desk.ask(step(0), &[(2, 4), (2, 3)]);
        let whole = desk.finish();
        let named: Vec<_> = whole.iter().map(|done| (done.node.first, done.node.end)).collect();
        assert_eq!(named, [(0, 4), (2, 4), (2, 3)]);

        let mut other = Desk::new();
        other.ask(step(0), &[(2, 3), (2, 4)]);
        let halves = other.finish();

        assert_eq!(bits(&whole[1]), bits(&halves[1]));
        assert_eq!(bits(&whole[2]), bits(&halves[0]));
        assert_eq!(whole[0].sum.sample_digests[2..], whole[1].sum.sample_digests);
    }

    #[test]
    fn a_late_answer_to_other_work_settles_nothing_of_this_one() {
        let mut desk = Desk::new();
        desk.ask(step(0), &[(0, 1)]);
        desk.compute(1);
        desk.ask(step(1), &[(0, 1)]);
        assert_eq!(desk.send()[0].work, step(0));

        desk.ask(step(1), &[(0, 1)]);

        assert_eq!(desk.waiting(), 1, "it is under way already");
    }

    #[test]
    fn what_was_forgotten_is_not_begun_and_goes_nowhere() {
        let mut desk = Desk::new();
        desk.ask(step(0), &[(0, 1), (1, 2)]);
        let begun = lock(&desk.slots.shared.queue).tasks.pop_front().unwrap();

        // The session ends while a slot is busy; the next one is asked for the same.
        desk.slots.clear();
        assert_eq!(desk.waiting(), 0);
        (desk.sender, desk.done) = mpsc::channel(16);
        desk.ask(step(0), &[(0, 1)]);
        desk.slots.shared.step(&begun, &mut desk.scratch);

        assert!(desk.sent_nodes().is_empty(), "the old session's piece is nobody's");
        assert_eq!(desk.finish().len(), 1);
    }

    #[test]
    fn threads_compute_what_is_asked_for() {
        let mut desk = Desk::new();
        desk.slots = Slots::start(3, Pool::default(), Counter::default()).unwrap();
        desk.ask(step(0), &[(0, 4)]);

        let done = desk.done.blocking_recv().unwrap();

        assert_eq!((done.node, done.sum.samples), (Node { first: 0, end: 4 }, 8));
    }
}
