//! Any partition of shards over workers, in any order, with restarts in between, gives the same bits: for each optimizer,
//! schedule, kind of layer, loss, and number of mini-batches in a step, with and without weights of samples.

#![allow(clippy::unwrap_used)] // All of this is test code; clippy only knows of the functions marked as tests.

use std::sync::Arc;

use millefeuille_core::data::schema::{Features, Schema, Target};
use millefeuille_core::data::shard::{ShardSamples, shard_len};
use millefeuille_core::data::split::Sizes;
use millefeuille_core::job::Job;
use millefeuille_core::learn::optimizers::OptimizerState;
use millefeuille_core::learn::piece::Scratch;
use millefeuille_core::learn::sum::Sum;
use millefeuille_core::learn::tree::{Node, Reduction, Tree};
use millefeuille_core::learn::work::{Unit, Workload};
use millefeuille_core::view::EpochRow;
use proptest::prelude::*;

const SHARDS: u32 = 5;
const TRAIN: u32 = 47;
const INPUTS: usize = 9;
const EPOCHS: u32 = 3;

/// Parts of a job file, one of each list at a time.
const OPTIMIZERS: [&str; 8] = [
    "type = \"sgd\"",
    "type = \"sgd\"\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.01",
    "type = \"sgd\"\nclipvalue = 0.01",
    "type = \"rmsprop\"",
    "type = \"rmsprop\"\nmomentum = 0.5\ncentered = true\nglobal_clipnorm = 0.1",
    "type = \"adam\"",
    "type = \"adam\"\nclipnorm = 0.05",
    "type = \"adamw\"",
];
const SCHEDULES: [&str; 5] = [
    "type = \"constant\"\nwarmup_steps = 3",
    "type = \"exponential\"\ndecay_steps = 4\ndecay_rate = 0.7",
    "type = \"cosine\"\ndecay_steps = 12\nwarmup_steps = 2",
    "type = \"one_cycle\"\ntotal_steps = 12",
    "type = \"reduce_on_plateau\"\nmonitor = \"loss\"\npatience = 1\nmin_delta = 10.0\nfactor = 0.5",
];
const LAYERS: [&str; 4] = [
    "type = \"dense\"\nunits = 6\nactivation = \"relu\"",
    "type = \"dense\"\nunits = 6\nactivation = \"gelu\"\nuse_bias = false\nkernel_initializer = \"he_normal\"\n\
     kernel_regularizer = { l1 = 0.01, l2 = 0.02 }",
    "type = \"layer_normalization\"",
    "type = \"dense\"\nunits = 6\nactivation = \"tanh\"\ntrainable = false",
];
/// The loss, with its output layer.
const LOSSES: [(&str, &str); 3] = [
    ("loss = \"categorical_crossentropy\"\nlabel_smoothing = 0.1", "units = 10\nactivation = \"softmax\""),
    ("loss = \"sparse_categorical_crossentropy\"", "units = 10\nactivation = \"softmax\""),
    ("loss = \"categorical_crossentropy\"", "units = 10\nactivation = \"softmax\""),
];

fn job() -> impl Strategy<Value = Job> {
    let parts = (0..OPTIMIZERS.len(), 0..SCHEDULES.len(), 0..LAYERS.len(), 0..LOSSES.len(), 1..4u32);
    parts.prop_map(|(optimizer, schedule, layer, loss, accumulate)| {
        let (optimizer, schedule, layer) = (OPTIMIZERS[optimizer], SCHEDULES[schedule], LAYERS[layer]);
        let (loss, output) = LOSSES[loss];
        let text = format!(
            "shards = {SHARDS}\n[[layers]]\n{layer}\n[[layers]]\ntype = \"dropout\"\nrate = 0.25\n[[layers]]\ntype = \"dense\"\n\
             {output}\n[compile]\n{loss}\n[compile.optimizer]\n{optimizer}\n[compile.schedule]\n{schedule}\n[fit]\n\
             batch_size = 8\nepochs = {EPOCHS}\naccumulate = {accumulate}\n"
        );
        Job::parse("job.toml", &text).unwrap()
    })
}

/// Made-up samples of each shard, and what is to be done with them.
struct Bench {
    job: Job,
    workload: Workload,
    shards: Vec<ShardSamples>,
}

/// What a checkpoint has.
#[derive(Clone)]
struct State {
    parameters: Vec<f32>,
    optimizer: OptimizerState,
    history: Vec<EpochRow>,
}

/// How a step's pieces reach the coordinator.
trait Way {
    /// The nodes that workers compute, in the order in which they come.
    fn nodes(&mut self) -> Vec<Node>;
    /// Whether the coordinator restarts before this step.
    fn restarts(&mut self) -> bool;
}

impl Bench {
    fn new(job: Job, weighted: bool) -> Self {
        let (features, target) = (Features::image(1, INPUTS), Target::Class { classes: 10 });
        let schema = Schema { features, target, weighted };
        let spec = job.spec(schema.clone(), Sizes { train: TRAIN, validation: 0, test: 0 });
        let byte = |i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8;
        let shard = |shard| {
            let samples = shard_len(TRAIN, SHARDS, shard);
            let features = (0..samples * INPUTS as u32).map(|i| byte(i + 1000 * shard) % 4);
            let labels = (0..samples).map(|i| byte(i + 77 * shard) % 10);
            let weights =
                (0..if weighted { samples } else { 0 }).map(|i| f32::from(byte(i + 33 * shard) % 8) / 3.0);
            let bytes: Vec<u8> = features.chain(labels).chain(weights.flat_map(f32::to_le_bytes)).collect();
            ShardSamples::decode(bytes.into(), Arc::new(schema.clone()), samples).unwrap()
        };
        Self { shards: (0..SHARDS).map(shard).collect(), workload: Workload::new(spec), job }
    }

    fn beginning(&self) -> State {
        let (compile, model) = (&self.job.compile, self.workload.model());
        State {
            parameters: model.initial_parameters(self.job.seed),
            optimizer: OptimizerState::of_model(&compile.optimizer, &compile.schedule, model),
            history: Vec::new(),
        }
    }

    /// A state as a new process has it: from the arrays of the optimizer, and from the history.
    fn restarted(&self, before: &State) -> State {
        let mut state = State { history: before.history.clone(), ..self.beginning() };
        state.parameters.copy_from_slice(&before.parameters);
        for ((_, new), (_, old)) in state.optimizer.state_mut().zip(before.optimizer.state()) {
            new.copy_from_slice(old);
        }
        self.take_note(&mut state);
        state
    }

    fn take_note(&self, state: &mut State) {
        let rate = self.job.compile.optimizer.get("learning_rate").unwrap();
        state.optimizer.take_note(rate, &state.history);
    }

    /// The sum of a mini-batch, from nodes that come in this order.
    fn batch(&self, unit: Unit, parameters: &[f32], nodes: &[Node]) -> Sum<Vec<f32>> {
        let present = self.workload.present(unit, 0..SHARDS);
        let mut root = Reduction::new(Tree::new(SHARDS), &present);
        for &node in nodes {
            let mut below = Reduction::over(node, &present);
            for &shard in present.range(node.first..node.end).rev() {
                let samples = &self.shards[shard as usize];
                let mut scratch = Scratch::default();
                let piece = self.workload.sum_of(
                    unit,
                    shard,
                    samples,
                    parameters,
                    |values| vec![0.0; values],
                    &mut scratch,
                );
                let _ = below.insert(Node::leaf(shard), piece, Sum::join);
            }
            if let Some(mut sum) = below.take_root(Sum::join) {
                sum.settle(|| vec![0.0; parameters.len()]);
                let _ = root.insert(node, sum, Sum::join);
            }
        }
        root.take_root(Sum::join).unwrap()
    }

    /// Trains the job. Returns the bits of the parameters after each epoch.
    fn train(&self, way: &mut dyn Way) -> Vec<Vec<u32>> {
        let accumulation = self.job.accumulation(self.workload.plan().steps());
        let (mut state, mut epochs) = (self.beginning(), Vec::new());
        for epoch in 0..EPOCHS {
            let (mut gathered, mut loss) = (None::<Sum<Vec<f32>>>, 0.0);
            for batch in 0..accumulation.of_epoch {
                if accumulation.is_empty_before(batch) && way.restarts() {
                    state = self.restarted(&state);
                }
                let sum = self.batch(Unit::train(epoch, batch), &state.parameters, &way.nodes());
                loss += sum.figures.loss_sum;
                match &mut gathered {
                    None => gathered = Some(sum),
                    Some(before) => before.join_within_bounds(sum, |values| vec![0.0; values]),
                }
                if accumulation.completes(batch) {
                    let taken = accumulation.steps_before(epoch, batch);
                    let mut next = vec![0.0; state.parameters.len()];
                    let sum = gathered.take().unwrap();
                    state.optimizer.step_of_sum(taken + 1, &state.parameters, &sum, &mut next);
                    state.parameters = next;
                }
            }
            state.history.push(row(epoch, loss / f64::from(TRAIN)));
            self.take_note(&mut state);
            epochs.push(state.parameters.iter().map(|value| value.to_bits()).collect());
        }
        epochs
    }
}

fn row(epoch: u32, loss: f64) -> EpochRow {
    EpochRow { epoch: u64::from(epoch) + 1, loss, ..EpochRow::default() }
}

/// One worker has all shards, and nothing happens.
struct Undisturbed;

impl Way for Undisturbed {
    fn nodes(&mut self) -> Vec<Node> {
        vec![Tree::new(SHARDS).root()]
    }

    fn restarts(&mut self) -> bool {
        false
    }
}

/// Workers have neighbouring shards, come in any order, and the coordinator restarts now and then.
struct Disturbed(u64);

impl Disturbed {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    /// A node, or what it is cut into.
    fn cut(&mut self, node: Node, into: &mut Vec<Node>) {
        match Tree::new(SHARDS).children(node).filter(|_| self.next(2) == 0) {
            None => into.push(node),
            Some((left, right)) => [left, right].into_iter().for_each(|child| self.cut(child, into)),
        }
    }
}

impl Way for Disturbed {
    fn nodes(&mut self) -> Vec<Node> {
        let mut nodes = Vec::new();
        self.cut(Tree::new(SHARDS).root(), &mut nodes);
        for last in (1..nodes.len()).rev() {
            let other = self.next(last as u64 + 1) as usize;
            nodes.swap(last, other);
        }
        nodes
    }

    fn restarts(&mut self) -> bool {
        self.next(3) == 0
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_partition_and_any_restart_give_the_same_bits(job in job(), weighted in any::<bool>(), seed in any::<u64>()) {
        let bench = Bench::new(job, weighted);
        let wanted = bench.train(&mut Undisturbed);
        prop_assert!(wanted[0] != wanted[2] || wanted[1] != wanted[2], "it learns something");
        prop_assert!(bench.train(&mut Disturbed(seed)) == wanted, "{}", bench.job.to_toml());
    }
}
