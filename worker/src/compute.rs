//! Computes pieces, one per slot, and sums them into the nodes that the coordinator assigned.
//!
//! Slots are plain threads that take tasks from one queue. A slot writes a piece's gradient into a pooled buffer. The
//! slot that computes the last piece of a node calls the other slots to help: together they sum the gradients section
//! by section, in the order of the reduction tree, and the worker sends the node. A node of many shards is summed in
//! parts, so that its gradients need not all stay in memory until the end.
//!
//! ```text
//! slot 0   piece 0 | piece 2 | sections 0, 1, 4 …
//! slot 1   piece 1 | piece 3 | sections 2, 3, 5 … ▶ sent
//! ```
//!
//! Nodes that are assigned under the same [`WorkId`] are added to the current work: shards of a lost worker, backup
//! tasks, result validation. A node that is already pending is computed once. A node whose result was sent is
//! computed again, since the coordinator assigns it again only if it has not used that result. Nodes may overlap;
//! each has its own sum. A different `WorkId` replaces all tasks that have not begun.
//!
//! Slots live as long as the process, longer than a session: a slot that is still computing for a broken session
//! does not delay a new one. Each piece knows where its sum goes; if its session is over, the sum is discarded.
//!
//! Everything that a node needs is allocated when it is assigned, so slots allocate nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use millefeuille_core::control::{Phase, WorkId};
use millefeuille_core::data::shard::ShardSamples;
use millefeuille_core::learn::piece::{PieceOutcome, Scratch};
use millefeuille_core::learn::sum::{self, AdditionScratch, Figures, PartialSum, TERMS, Term};
use millefeuille_core::learn::tree::Node;
use millefeuille_proto::buffer::{Buffer, Pool};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

use crate::failpoints;
use crate::job::WorkerJob;

/// Nodes of one unit of work, with everything that their pieces need.
pub(crate) struct Batch {
    pub(crate) work: WorkId,
    pub(crate) job: Arc<WorkerJob>,
    pub(crate) parameters: Arc<Buffer>,
    pub(crate) nodes: Vec<Node>,
    /// The samples of every shard of the nodes.
    pub(crate) samples: BTreeMap<u32, ShardSamples>,
    /// Receives the complete nodes.
    pub(crate) done: mpsc::Sender<Done>,
}

/// The sum over the pieces of a node.
pub(crate) struct Sum {
    /// Sum of the samples' gradients, in sections; empty in evaluation.
    pub(crate) gradient: Vec<Buffer>,
    /// The slot of shared memory that holds the sections.
    pub(crate) slot: Option<u32>,
    pub(crate) figures: Figures,
    /// In shard order.
    pub(crate) sample_digests: Vec<[u8; 32]>,
    pub(crate) busy: Duration,
}

/// A node whose sum is complete.
pub(crate) struct Done {
    open: Arc<OpenNode>,
    figures: Figures,
}

impl Done {
    pub(crate) fn work(&self) -> WorkId {
        self.open.batch.work
    }

    pub(crate) fn node(&self) -> Node {
        self.open.node
    }

    pub(crate) fn into_sum(self) -> Sum {
        let Self { open, figures } = self;
        Sum {
            gradient: open.sections.iter().filter_map(|section| lock(section).take()).collect(),
            slot: open.slot,
            figures,
            sample_digests: open.digests.iter().map(|(_, digest)| *lock(digest)).collect(),
            busy: Duration::from_nanos(open.busy_ns.load(Ordering::Relaxed)),
        }
    }
}

/// The slots of this worker. When this value is dropped, each slot finishes its current task and ends.
pub(crate) struct Slots {
    shared: Arc<Shared>,
}

struct Shared {
    /// Number of threads.
    count: usize,
    queue: Mutex<Queue>,
    changed: Condvar,
    pool: Pool,
    /// Pieces computed so far.
    computed: Counter,
}

/// The tasks that wait for a slot.
#[derive(Default)]
struct Queue {
    /// The last unit of work that was assigned.
    work: Option<WorkId>,
    /// Pending nodes of that work: assigned, with no result sent yet.
    pending: BTreeSet<Node>,
    /// Tasks that no slot has begun.
    tasks: VecDeque<Task>,
    closed: bool,
}

enum Task {
    /// The piece of one shard: an input of a part.
    Piece { node: Arc<OpenNode>, shard: u32, part: usize, place: usize },
    /// Sum sections of a node whose pieces are all computed.
    Add(Arc<OpenNode>),
}

/// Scratch memory that a slot reuses from task to task.
#[derive(Default)]
struct SlotScratch {
    piece: Scratch,
    addition: AdditionScratch,
    figures: Vec<Figures>,
}

impl Slots {
    /// Starts `count` threads. `computed` counts the pieces that they compute.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub(crate) fn start(count: u32, pool: Pool, computed: Counter) -> std::io::Result<Self> {
        let (queue, changed) = (Mutex::default(), Condvar::new());
        let slots =
            Self { shared: Arc::new(Shared { count: count as usize, queue, changed, pool, computed }) };
        for slot in 0..count {
            let shared = Arc::clone(&slots.shared);
            std::thread::Builder::new().name(format!("slot-{slot}")).spawn(move || {
                let working = std::panic::AssertUnwindSafe(|| shared.work());
                if std::panic::catch_unwind(working).is_err() {
                    // A worker that sends heartbeats but does not compute would block the whole cluster.
                    std::process::abort();
                }
            })?;
        }
        Ok(slots)
    }

    /// Assigns nodes: either more of the current work, or other work that replaces it. `target` returns the memory
    /// for the sum of each node.
    pub(crate) fn assign(&self, batch: Batch, mut target: impl FnMut() -> OutputBuffers) {
        let batch = Arc::new(batch);
        let mut queue = lock(&self.shared.queue);
        queue.turn_to(batch.work);
        for &node in &batch.nodes {
            if queue.pending.insert(node) {
                let node = Arc::new(OpenNode::new(&batch, node, target()));
                queue.tasks.extend(node.pieces());
            }
        }
        // Slots push `Add` tasks to call each other; reserve room for them now.
        queue.tasks.reserve(self.shared.count);
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// How many nodes would be pending if these were assigned.
    pub(crate) fn pending_with(&self, work: WorkId, nodes: &[Node]) -> usize {
        let queue = lock(&self.shared.queue);
        let asked: BTreeSet<Node> = nodes.iter().copied().collect();
        if queue.work == Some(work) { queue.pending.union(&asked).count() } else { asked.len() }
    }

    /// Records that a node's result is being sent. If the node is assigned again, it is computed again.
    pub(crate) fn result_sent(&self, work: WorkId, node: Node) {
        let mut queue = lock(&self.shared.queue);
        if queue.work == Some(work) {
            queue.pending.remove(&node);
        }
    }

    /// Drops all assigned work. Pieces that were begun are finished, and their results are discarded.
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
            self.pending.clear();
            self.tasks.clear();
        }
    }
}

/// The memory that a node's sum is written to.
pub(crate) struct OutputBuffers {
    /// One buffer per section; empty in evaluation.
    pub(crate) sections: Vec<Buffer>,
    /// The slot of shared memory that holds the buffers.
    pub(crate) slot: Option<u32>,
}

impl OutputBuffers {
    /// Pooled buffers of this process, for a gradient of `values` values.
    pub(crate) fn pooled(pool: &Pool, values: usize) -> Self {
        Self { sections: sum::sections(values).map(|section| pool.take(section.len())).collect(), slot: None }
    }
}

/// A node whose sum is not complete.
struct OpenNode {
    batch: Arc<Batch>,
    node: Node,
    slot: Option<u32>,
    /// The first part is the whole node.
    parts: Vec<OpenPartialSum>,
    /// The sample digest of each present shard, in shard order.
    digests: Vec<(u32, Mutex<[u8; 32]>)>,
    /// The sections of the whole sum.
    sections: Vec<Mutex<Option<Buffer>>>,
    /// The next section that no slot has taken, and the number of sections that are not finished.
    next: AtomicUsize,
    unfinished: AtomicUsize,
    busy_ns: AtomicU64,
}

/// Inputs of a node that are summed in one pass.
struct OpenPartialSum {
    part: PartialSum,
    inputs: Vec<RwLock<Option<TermValue>>>,
    /// Number of inputs that are not computed yet.
    missing: AtomicUsize,
}

/// One input of a sum.
struct TermValue {
    /// `None` in evaluation.
    gradient: Option<Buffer>,
    figures: Figures,
}

impl OpenNode {
    fn new(batch: &Arc<Batch>, node: Node, target: OutputBuffers) -> Self {
        let present = batch.job.workload.present(batch.work.into(), node.first..node.end);
        let most = sum::terms_at_once(batch.job.workload.model().parameter_count());
        let parts = sum::parts(node, &present, most).into_iter().map(OpenPartialSum::new).collect();
        let unfinished = AtomicUsize::new(target.sections.len());
        Self {
            batch: Arc::clone(batch),
            node,
            slot: target.slot,
            parts,
            digests: present.into_iter().map(|shard| (shard, Mutex::default())).collect(),
            sections: target.sections.into_iter().map(|section| Mutex::new(Some(section))).collect(),
            next: AtomicUsize::new(0),
            unfinished,
            busy_ns: AtomicU64::new(0),
        }
    }

    /// The node's pieces, in shard order.
    fn pieces(self: &Arc<Self>) -> Vec<Task> {
        let mut pieces = Vec::with_capacity(self.digests.len());
        for (part, open) in self.parts.iter().enumerate() {
            for (place, input) in open.part.inputs.iter().enumerate() {
                if let Term::Shard(shard) = *input {
                    pieces.push((shard, part, place));
                }
            }
        }
        pieces.sort_unstable();
        let task = |(shard, part, place)| Task::Piece { node: Arc::clone(self), shard, part, place };
        pieces.into_iter().map(task).collect()
    }

    fn values(&self) -> usize {
        if self.sections.is_empty() { 0 } else { self.batch.job.workload.model().parameter_count() }
    }

    fn was_busy(&self, since: Instant) {
        self.busy_ns.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
}

impl OpenPartialSum {
    fn new(part: PartialSum) -> Self {
        let inputs: Vec<_> = part.inputs.iter().map(|_| RwLock::default()).collect();
        Self { missing: AtomicUsize::new(inputs.len()), part, inputs }
    }

    /// Stores a term at its place. Returns whether it was the last one missing.
    fn put(&self, place: usize, term: TermValue) -> bool {
        *self.inputs[place].write().unwrap_or_else(PoisonError::into_inner) = Some(term);
        self.missing.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Sums one section of the inputs into `out`.
    fn add(&self, section: std::ops::Range<usize>, scratch: &mut AdditionScratch, out: &mut [f32]) {
        let inputs: [_; TERMS] = std::array::from_fn(|place| {
            self.inputs.get(place).map(|input| input.read().unwrap_or_else(PoisonError::into_inner))
        });
        let gradient = |place: usize| -> &[f32] {
            let term = inputs[place].as_ref().and_then(|term| term.as_ref());
            term.and_then(|term| term.gradient.as_deref())
                .expect("the inputs of a part that is added are there")
        };
        let terms: [&[f32]; TERMS] =
            std::array::from_fn(|place| if place < self.inputs.len() { gradient(place) } else { &[] });
        sum::add_section_into(&self.part.order, &terms[..self.inputs.len()], section, scratch, out);
    }

    /// Drops the inputs, which frees their buffers, and returns the sum of their figures.
    fn close(&self, stack: &mut Vec<Figures>) -> Figures {
        let inputs = self.inputs.iter();
        let taken = inputs.map(|input| {
            let term = input.write().unwrap_or_else(PoisonError::into_inner).take();
            term.expect("the inputs of a part that is closed are there").figures
        });
        self.part.order.fold(taken, stack, |left, right| *left += right).expect("a part has inputs")
    }
}

impl Shared {
    fn work(&self) {
        let mut scratch = SlotScratch::default();
        while let Some(task) = self.next() {
            if let Task::Piece { node, .. } = &task {
                failpoints::die_at(failpoints::BEFORE_PIECE);
                if node.batch.work.phase != Phase::Train {
                    failpoints::die_at(failpoints::BEFORE_EVALUATION);
                }
                failpoints::dawdle_at(failpoints::HANG);
            }
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

    fn step(&self, task: &Task, scratch: &mut SlotScratch) {
        match task {
            Task::Piece { node, shard, part, place } => self.piece(node, *shard, (*part, *place), scratch),
            Task::Add(node) => self.add_sections(node, scratch),
        }
    }

    fn piece(&self, node: &Arc<OpenNode>, shard: u32, at: (usize, usize), scratch: &mut SlotScratch) {
        let started = Instant::now();
        failpoints::dawdle_at(failpoints::SLOW);
        let (mut gradient, mut outcome) = compute(&node.batch, shard, &self.pool, &mut scratch.piece);
        self.computed.inc();
        failpoints::spoil(gradient.as_deref_mut().unwrap_or_default(), &mut outcome.figures.loss_sum);
        if let Ok(place) = node.digests.binary_search_by_key(&shard, |(shard, _)| *shard) {
            *lock(&node.digests[place].1) = outcome.samples_sha256;
        }
        node.was_busy(started);
        self.put(node, at, TermValue { gradient, figures: outcome.figures }, scratch);
    }

    /// Stores a term at its place. If that completes a part, stores the part's sum at its place in turn.
    fn put(&self, node: &Arc<OpenNode>, at: (usize, usize), term: TermValue, scratch: &mut SlotScratch) {
        let ((mut part, mut place), mut term) = (at, term);
        while node.parts[part].put(place, term) {
            let Some(parent) = node.parts[part].part.parent else { return self.add_whole(node, scratch) };
            term = self.add_part(node, part, scratch);
            (part, place) = parent;
        }
    }

    /// Sums a part that is not the whole node. One thread does this alone, because there are many such parts.
    fn add_part(&self, node: &OpenNode, part: usize, scratch: &mut SlotScratch) -> TermValue {
        let (started, part, values) = (Instant::now(), &node.parts[part], node.values());
        let gradient = (values > 0).then(|| {
            let mut out = self.pool.take(values);
            part.add(0..values, &mut scratch.addition, &mut out);
            out
        });
        let figures = part.close(&mut scratch.figures);
        node.was_busy(started);
        TermValue { gradient, figures }
    }

    /// Sums the whole node once all its inputs are there, with the help of the idle slots.
    fn add_whole(&self, node: &Arc<OpenNode>, scratch: &mut SlotScratch) {
        if node.sections.is_empty() {
            return self.finish(node, scratch);
        }
        let helpers = self.count.saturating_sub(1).min(node.sections.len() - 1);
        if helpers > 0 {
            let mut queue = lock(&self.queue);
            (0..helpers).for_each(|_| queue.tasks.push_front(Task::Add(Arc::clone(node))));
            drop(queue);
            self.changed.notify_all();
        }
        self.add_sections(node, scratch);
    }

    /// Sums sections until none is left. The slot that finishes the last section sends the sum.
    fn add_sections(&self, node: &Arc<OpenNode>, scratch: &mut SlotScratch) {
        loop {
            let started = Instant::now();
            let index = node.next.fetch_add(1, Ordering::Relaxed);
            let Some(section) = sum::section(node.values(), index) else { return };
            if let Some(out) = &mut *lock(&node.sections[index]) {
                node.parts[0].add(section, &mut scratch.addition, out);
            }
            node.was_busy(started);
            if node.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 {
                return self.finish(node, scratch);
            }
        }
    }

    fn finish(&self, node: &Arc<OpenNode>, scratch: &mut SlotScratch) {
        let figures = node.parts[0].close(&mut scratch.figures);
        let done = Done { open: Arc::clone(node), figures };
        // The send fails if the session is over.
        let _ = node.batch.done.blocking_send(done);
    }
}

fn compute(batch: &Batch, shard: u32, pool: &Pool, scratch: &mut Scratch) -> (Option<Buffer>, PieceOutcome) {
    let Batch { job, work, parameters, samples, .. } = batch;
    job.workload.piece(
        (*work).into(),
        shard,
        &samples[&shard],
        parameters,
        |values| pool.take(values),
        scratch,
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use millefeuille_core::control::JobId;
    use millefeuille_core::data::schema::{Features, Schema, Target};
    use millefeuille_core::data::split::Sizes;
    use millefeuille_core::job::{Activation, Layer, Loss, LossOptions, Metric};
    use millefeuille_core::learn::spec::Spec;

    use super::*;

    const SHARDS: u32 = 4;
    const PER_SHARD: u32 = 3;
    const WIDTH: u32 = 5;

    /// Slots without threads: the test computes the pieces itself, one by one.
    struct TestWorker {
        slots: Slots,
        job: Arc<WorkerJob>,
        parameters: Arc<Buffer>,
        sender: mpsc::Sender<Done>,
        done: mpsc::Receiver<Done>,
        scratch: SlotScratch,
    }

    impl TestWorker {
        fn new() -> Self {
            let job = WorkerJob::new(1, "small-1".into(), spec());
            let parameters = job.workload.model().initial_parameters(7);
            let (sender, done) = mpsc::channel(16);
            Self {
                slots: Slots::start(0, Pool::default(), Counter::default()).unwrap(),
                job: Arc::new(job),
                parameters: Arc::new(Pool::default().adopt(parameters)),
                sender,
                done,
                scratch: SlotScratch::default(),
            }
        }

        fn assign(&self, work: WorkId, nodes: &[(u32, u32)]) {
            let values =
                if work.phase == Phase::Train { self.job.workload.model().parameter_count() } else { 0 };
            let batch = Batch {
                work,
                job: Arc::clone(&self.job),
                parameters: Arc::clone(&self.parameters),
                nodes: nodes.iter().map(|&(first, end)| Node { first, end }).collect(),
                samples: (0..SHARDS).map(|shard| (shard, samples(shard))).collect(),
                done: self.sender.clone(),
            };
            self.slots.assign(batch, || super::OutputBuffers::pooled(&self.slots.shared.pool, values));
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

        /// Sends the complete nodes, as a session does.
        fn send(&mut self) -> Vec<Sent> {
            let sent: Vec<_> = std::iter::from_fn(|| self.done.try_recv().ok()).collect();
            sent.iter().for_each(|done| self.slots.result_sent(done.work(), done.node()));
            sent.into_iter().map(Sent::from).collect()
        }

        fn sent_nodes(&mut self) -> Vec<(u32, u32)> {
            self.send().iter().map(|done| (done.node.first, done.node.end)).collect()
        }

        /// Computes everything and returns what is sent.
        fn finish(&mut self) -> Vec<Sent> {
            self.compute(self.waiting());
            self.send()
        }
    }

    fn spec() -> Spec {
        let dense = |units, activation| Layer::dense(units, activation);
        Spec {
            seed: 7,
            shards: SHARDS,
            batch_size: SHARDS * 2,
            shuffle: true,
            scale: 1.0 / 255.0,
            schema: schema(),
            layers: vec![dense(6, Activation::Sigmoid), dense(10, Activation::Softmax)],
            loss: Loss::CategoricalCrossentropy,
            options: LossOptions::default(),
            metrics: vec![Metric::Accuracy],
            sizes: Sizes { train: SHARDS * PER_SHARD, validation: 2, test: 2 },
        }
    }

    fn schema() -> Schema {
        Schema::new(Features::image(1, WIDTH as usize), Target::Class { classes: 10 })
    }

    fn samples(shard: u32) -> ShardSamples {
        let pixels = (0..PER_SHARD * WIDTH).map(|place| (place * 37 + shard * 11) as u8);
        let labels = (0..PER_SHARD).map(|sample| ((sample + shard) % 10) as u8);
        let bytes: Vec<u8> = pixels.chain(labels).collect();
        ShardSamples::decode(bytes.into(), schema().into(), PER_SHARD).unwrap()
    }

    fn step(step: u32) -> WorkId {
        let phase = Phase::Train;
        WorkId { job: JobId(1), incarnation: 1, epoch: 0, phase, step, parameter_tag: step.into() }
    }

    struct Sent {
        work: WorkId,
        node: Node,
        sum: Sum,
    }

    impl From<Done> for Sent {
        fn from(done: Done) -> Self {
            Self { work: done.work(), node: done.node(), sum: done.into_sum() }
        }
    }

    fn bits(sent: &Sent) -> Vec<u32> {
        sent.sum.gradient.iter().flat_map(|section| section.iter().map(|value| value.to_bits())).collect()
    }

    #[test]
    fn more_nodes_of_the_same_work_are_added() {
        let mut worker = TestWorker::new();
        worker.assign(step(0), &[(0, 2)]);
        worker.compute(1);

        // Another worker is lost in the middle of the step: its half is assigned to this one too.
        worker.assign(step(0), &[(2, 4)]);

        assert_eq!(worker.waiting(), 3);
        worker.compute(1);
        assert_eq!(worker.sent_nodes(), [(0, 2)], "earlier pieces are computed first");
        worker.compute(2);
        assert_eq!(worker.sent_nodes(), [(2, 4)]);
    }

    #[test]
    fn other_work_replaces_the_tasks_that_have_not_begun() {
        let mut worker = TestWorker::new();
        worker.assign(step(0), &[(0, 1), (2, 4)]);
        worker.compute(1);

        worker.assign(step(1), &[(2, 4)]);

        assert_eq!(worker.waiting(), 2);
        let sent = worker.finish();
        let named: Vec<_> = sent.iter().map(|done| (done.work.step, done.node.first)).collect();
        assert_eq!(named, [(0, 0), (1, 2)], "complete nodes are still sent");
        assert_eq!(worker.waiting(), 0);
    }

    #[test]
    fn a_node_assigned_twice_is_computed_once_until_its_result_is_sent() {
        let mut worker = TestWorker::new();
        worker.assign(step(0), &[(0, 2)]);
        worker.compute(1);
        worker.assign(step(0), &[(0, 2)]);
        assert_eq!(worker.waiting(), 1);

        // The node is complete but not sent yet: its result is sent after the second assignment.
        worker.compute(1);
        worker.assign(step(0), &[(0, 2)]);
        assert_eq!(worker.waiting(), 0);
        let first = worker.send();
        assert_eq!(first.len(), 1);

        // The result was sent before the third assignment. The coordinator may not have seen it then, so the node is
        // computed again.
        worker.assign(step(0), &[(0, 2)]);
        let again = worker.finish();
        assert_eq!(again.len(), 1);
        assert_eq!(bits(&first[0]), bits(&again[0]));
    }

    #[test]
    fn a_dropped_node_is_computed_when_it_is_assigned_again() {
        let mut worker = TestWorker::new();
        worker.assign(step(0), &[(0, 4)]);
        worker.compute(1);
        worker.assign(step(1), &[(0, 1)]);

        worker.assign(step(0), &[(0, 4)]);

        assert_eq!(worker.waiting(), 4);
        let sent = worker.finish();
        assert_eq!((sent.len(), sent[0].work, sent[0].sum.sample_digests.len()), (1, step(0), 4));
    }

    #[test]
    fn nodes_may_overlap_and_give_the_same_bits() {
        let mut worker = TestWorker::new();
        worker.assign(step(0), &[(0, 4)]);
        worker.compute(1);
        worker.assign(step(0), &[(2, 4), (2, 3)]);
        let whole = worker.finish();
        let named: Vec<_> = whole.iter().map(|done| (done.node.first, done.node.end)).collect();
        assert_eq!(named, [(0, 4), (2, 4), (2, 3)]);

        let mut other = TestWorker::new();
        other.assign(step(0), &[(2, 3), (2, 4)]);
        let halves = other.finish();

        assert_eq!(bits(&whole[1]), bits(&halves[1]));
        assert_eq!(bits(&whole[2]), bits(&halves[0]));
        assert_eq!(whole[0].sum.sample_digests[2..], whole[1].sum.sample_digests);
    }

    #[test]
    fn a_late_result_of_other_work_leaves_this_work_pending() {
        let mut worker = TestWorker::new();
        worker.assign(step(0), &[(0, 1)]);
        worker.compute(1);
        worker.assign(step(1), &[(0, 1)]);
        assert_eq!(worker.send()[0].work, step(0));

        worker.assign(step(1), &[(0, 1)]);

        assert_eq!(worker.waiting(), 1, "the node is already pending");
    }

    #[test]
    fn cleared_tasks_are_not_begun_and_their_results_are_discarded() {
        let mut worker = TestWorker::new();
        worker.assign(step(0), &[(0, 1), (1, 2)]);
        let begun = lock(&worker.slots.shared.queue).tasks.pop_front().unwrap();

        // The session ends while a slot is busy; the next session is assigned the same nodes.
        worker.slots.clear();
        assert_eq!(worker.waiting(), 0);
        (worker.sender, worker.done) = mpsc::channel(16);
        worker.assign(step(0), &[(0, 1)]);
        worker.slots.shared.step(&begun, &mut worker.scratch);

        assert!(worker.sent_nodes().is_empty(), "the piece of the old session is discarded");
        assert_eq!(worker.finish().len(), 1);
    }

    #[test]
    fn after_the_first_epoch_slots_allocate_nothing() {
        let mut worker = TestWorker::new();
        let mut compute = |epoch, step_number| {
            let work = WorkId { epoch, ..step(step_number) };
            worker.assign(work, &[(0, 2), (2, 4)]);
            let counted = allocation_counter::measure(|| worker.compute(4));
            assert_eq!(worker.send().len(), 2, "epoch {epoch}, step {step_number}");
            counted.count_total
        };
        let first: u64 = (0..40).map(|step| compute(0, step % 2)).sum();
        assert!(first > 0, "reused memory is allocated once");
        let later: u64 = (1..20).flat_map(|epoch| [compute(epoch, 0), compute(epoch, 1)]).sum();
        assert_eq!(later, 0);
    }

    #[test]
    fn threads_compute_the_assigned_nodes() {
        let mut worker = TestWorker::new();
        worker.slots = Slots::start(3, Pool::default(), Counter::default()).unwrap();
        worker.assign(step(0), &[(0, 4)]);

        let sent = Sent::from(worker.done.blocking_recv().unwrap());

        assert_eq!((sent.node, sent.sum.figures.samples), (Node { first: 0, end: 4 }, 8));
    }
}
