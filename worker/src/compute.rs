//! Computes pieces, one a slot, and adds them up to the nodes that the coordinator asked for.
//!
//! Slots are plain threads that take pieces from one queue. A piece's gradient is written into a pooled buffer;
//! pieces are added along the reduction tree as they come, by whichever slot brings the second of a pair. When a
//! node is complete it is sent. New work takes the place of what was not begun.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millefeuille_core::control::{Phase, WorkId};
use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::shard::ShardSamples;
use millefeuille_core::learn::elementwise;
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::piece::{self, Learner, PieceOutcome, Scratch};
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::tree::{Node, Reduction};
use millefeuille_proto::wire::Pool;
use tokio::sync::mpsc;

/// A job, as its pieces need it.
pub(crate) struct Job {
    pub(crate) number: u64,
    pub(crate) spec: Spec,
    pub(crate) model: Model,
    plan: Plan,
    /// Each shard's order in the epoch for which it was asked last.
    orders: Mutex<BTreeMap<u32, Order>>,
}

/// A shard's order in one epoch.
struct Order {
    epoch: u32,
    samples: Arc<Vec<u32>>,
}

impl Job {
    pub(crate) fn new(number: u64, spec: Spec) -> Self {
        let model = Model::new(spec.inputs as usize, &spec.layers);
        let plan = Plan::new(spec.sizes.train, spec.batch_size, spec.shards);
        Self { number, spec, model, plan, orders: Mutex::default() }
    }

    fn order(&self, epoch: u32, shard: u32) -> Arc<Vec<u32>> {
        let mut orders = lock(&self.orders);
        if let Some(order) = orders.get(&shard).filter(|order| order.epoch == epoch) {
            return Arc::clone(&order.samples);
        }
        let samples = Arc::new(self.plan.order(self.spec.seed, epoch, shard, self.spec.shuffle));
        orders.insert(shard, Order { epoch, samples: Arc::clone(&samples) });
        samples
    }

    /// The shards of a node that have samples in a unit of work.
    pub(crate) fn present(&self, work: WorkId, node: Node) -> BTreeSet<u32> {
        let has_samples = |&shard: &u32| match work.phase {
            Phase::Train => !self.plan.piece(work.step, shard).is_empty(),
            Phase::Validate | Phase::Test => shard < self.spec.sizes.of(work.phase.split()),
        };
        (node.first..node.end).filter(has_samples).collect()
    }
}

/// A unit of work, with all that its pieces need.
pub(crate) struct Batch {
    pub(crate) work: WorkId,
    pub(crate) job: Arc<Job>,
    pub(crate) parameters: Arc<Vec<f32>>,
    pub(crate) nodes: Vec<Node>,
    /// The samples of every shard of the nodes.
    pub(crate) samples: BTreeMap<u32, ShardSamples>,
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

/// The slots of this worker.
pub(crate) struct Slots {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    pool: Pool,
    done: mpsc::Sender<Done>,
}

#[derive(Default)]
struct Queue {
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
    /// Starts `count` threads; complete nodes go into `done`.
    pub(crate) fn start(count: u32, pool: Pool, done: mpsc::Sender<Done>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new(), pool, done });
        let start = |slot: u32| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("slot-{slot}")).spawn(move || {
                let working = std::panic::AssertUnwindSafe(|| shared.work());
                if std::panic::catch_unwind(working).is_err() {
                    // A worker that beats on but does not compute would hold everybody up.
                    std::process::abort();
                }
            })
        };
        let threads = (0..count).map(start).collect::<Result<_, _>>()?;
        Ok(Self { shared, threads })
    }

    /// Begins a unit of work; what was not begun of the one before is dropped.
    pub(crate) fn begin(&self, batch: Batch) {
        let batch = Arc::new(batch);
        let tasks = batch.nodes.iter().flat_map(|&node| tasks(&batch, node)).collect();
        lock(&self.shared.queue).tasks = tasks;
        self.shared.changed.notify_all();
    }

    /// Drops what was not begun.
    pub(crate) fn clear(&self) {
        lock(&self.shared.queue).tasks.clear();
    }
}

fn tasks(batch: &Arc<Batch>, node: Node) -> Vec<Task> {
    let present = batch.job.present(batch.work, node);
    let reduction = Reduction::over(node, &present);
    let open = Arc::new(OpenNode { node, reduction: Mutex::new(reduction) });
    let task = |shard| Task { batch: Arc::clone(batch), shard, node: Arc::clone(&open) };
    present.into_iter().map(task).collect()
}

impl Drop for Slots {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A slot that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        let mut scratch = Scratch::default();
        while let Some(task) = self.next() {
            let started = Instant::now();
            let (gradient, outcome) = compute(&task, &self.pool, &mut scratch);
            self.add(&task, Sum::new(gradient, outcome, started.elapsed()));
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

    /// Adds a piece to its node, and sends the node if that completes it.
    fn add(&self, task: &Task, sum: Sum) {
        let mut reduction = lock(&task.node.reduction);
        let add = |left: &mut Sum, right| left.add(right, &self.pool);
        reduction.insert(Node::leaf(task.shard), sum, add);
        if let Some(sum) = reduction.take_root(add) {
            drop(reduction);
            // The session is over if nobody listens; then the result is of no use.
            let _ = self.done.blocking_send(Done { work: task.batch.work, node: task.node.node, sum });
        }
    }
}

fn compute(task: &Task, pool: &Pool, scratch: &mut Scratch) -> (Vec<f32>, PieceOutcome) {
    let Task { batch, shard, .. } = task;
    let Batch { job, work, parameters, .. } = &**batch;
    let learner = Learner { model: &job.model, spec: &job.spec, parameters };
    let samples = &batch.samples[shard];
    let samples = piece::ShardSamples {
        shard: *shard,
        shards: job.spec.shards,
        width: samples.width(),
        pixels: samples.pixels(),
        labels: samples.labels(),
    };
    if work.phase != Phase::Train {
        return (Vec::new(), learner.evaluate_piece(&samples, scratch));
    }
    let order = job.order(work.epoch, *shard);
    let Range { start, end } = job.plan.piece(work.step, *shard);
    let order = &order[start as usize..end as usize];
    let mut gradient = pool.take(job.model.parameter_count());
    let outcome = learner.train_piece(&samples, order, work.epoch.into(), &mut gradient, scratch);
    (gradient, outcome)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
