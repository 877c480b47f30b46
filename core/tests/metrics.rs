//! Metrics over many shards: the same bits however the shards are distributed, and the figures of all samples together.

#![allow(clippy::unwrap_used)] // All of this is test code; clippy only knows of the functions marked as tests.

use std::sync::Arc;

use millefeuille_core::data::schema::{Element, Features, Schema, Target};
use millefeuille_core::data::shard::ShardSamples;
use millefeuille_core::data::split::{Sizes, Split};
use millefeuille_core::job::{Layer, Loss, LossOptions};
use millefeuille_core::learn::piece::Scratch;
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::sum::{Figures, Sum};
use millefeuille_core::learn::tree::{Node, Reduction, Tree};
use millefeuille_core::learn::work::{Unit, Workload};
use proptest::prelude::*;

const INPUTS: u32 = 3;

/// A workload of one layer, and the samples of each shard.
struct Bench {
    workload: Workload,
    parameters: Vec<f32>,
    shards: Vec<ShardSamples>,
}

impl Bench {
    fn new(target: Target, loss: Loss, metrics: &[&str], shards: u32, samples: u32) -> Self {
        let features = Features { element: Element::F32, shape: vec![INPUTS] };
        let schema = Schema::new(features, target);
        let units = loss.outputs(target).unwrap();
        let spec = Spec {
            seed: 1,
            shards,
            batch_size: samples,
            shuffle: false,
            scale: 1.0,
            schema: schema.clone(),
            layers: vec![Layer::dense(units, loss.activation())],
            loss,
            options: LossOptions::default(),
            metrics: metrics.iter().map(|name| name.parse().unwrap()).collect(),
            sizes: Sizes { train: samples, validation: 0, test: samples },
        };
        spec.check().unwrap();
        let schema = Arc::new(schema);
        let of_shard = |shard| {
            let samples: Vec<u32> = (shard..samples).step_by(shards as usize).collect();
            let features = samples.iter().flat_map(|&k| (0..INPUTS).map(move |i| number(k, i)));
            let features = features.flat_map(f32::to_le_bytes);
            let targets = samples.iter().flat_map(|&k| target_of(target, k));
            let bytes: Vec<u8> = features.chain(targets).collect();
            ShardSamples::decode(bytes.into(), Arc::clone(&schema), samples.len() as u32).unwrap()
        };
        let workload = Workload::new(spec);
        let parameters = workload.model().initial_parameters(7).iter().map(|value| 3.0 * value).collect();
        Self { parameters, shards: (0..shards).map(of_shard).collect(), workload }
    }

    /// The figures of a unit of work where each worker sends one sum for each of its nodes, in this order, of which the
    /// shards come in that order.
    fn figures(&self, unit: Unit, nodes: &[Node], order: &[u32]) -> Figures {
        let shards = self.shards.len() as u32;
        let present = self.workload.present(unit, 0..shards);
        let mut whole = Reduction::new(Tree::new(shards), &present);
        for &node in nodes {
            let mut part = Reduction::over(node, &present);
            let of_node = |shard: &&u32| (node.first..node.end).contains(*shard) && present.contains(*shard);
            for &shard in order.iter().filter(of_node) {
                let (samples, mut scratch) = (&self.shards[shard as usize], Scratch::default());
                let take = |len| vec![0.0; len];
                let sum = self.workload.sum_of(unit, shard, samples, &self.parameters, take, &mut scratch);
                part.insert(Node::leaf(shard), sum, Sum::join);
            }
            if let Some(sum) = part.take_root(Sum::join) {
                whole.insert(node, sum, Sum::join);
            }
        }
        whole.take_root(Sum::join).unwrap().figures
    }

    /// The same by one worker, shard after shard.
    fn figures_alone(&self, unit: Unit) -> Figures {
        let shards = self.shards.len() as u32;
        let order: Vec<u32> = (0..shards).collect();
        self.figures(unit, &[Tree::new(shards).root()], &order)
    }
}

/// Some number from -1 to 1.
fn number(sample: u32, place: u32) -> f32 {
    let word = (sample * 31 + place * 7 + 1).wrapping_mul(2_654_435_761);
    (word >> 8) as f32 / (1 << 23) as f32 - 1.0
}

fn target_of(target: Target, sample: u32) -> Vec<u8> {
    match target {
        Target::Class { classes } => {
            vec![if number(sample, 0) > 0.3 { 0 } else { (sample % classes) as u8 }]
        }
        Target::Reals { width } => (0..width).flat_map(|i| number(sample, 10 + i).to_le_bytes()).collect(),
    }
}

/// A job of each kind of target, with every metric that fits.
fn benches(shards: u32, samples: u32) -> Vec<Bench> {
    let of_classes = ["accuracy", "top_2_accuracy", "precision", "recall", "f1_score", "confusion_matrix"];
    let of_two = [&of_classes[..], &["auc", "pr_auc"]].concat();
    let of_numbers = ["mse", "mean_absolute_error", "rmse", "r2_score"];
    vec![
        Bench::new(Target::Class { classes: 4 }, Loss::CategoricalCrossentropy, &of_classes, shards, samples),
        Bench::new(Target::Class { classes: 2 }, Loss::BinaryCrossentropy, &of_two, shards, samples),
        Bench::new(Target::Class { classes: 2 }, Loss::CategoricalCrossentropy, &of_two, shards, samples),
        Bench::new(Target::Reals { width: 2 }, Loss::MeanSquaredError, &of_numbers, shards, samples),
    ]
}

/// Cuts a node of the tree into nodes, as `cuts` says; the right ones come first.
fn nodes(tree: &Tree, node: Node, cuts: &mut impl Iterator<Item = bool>) -> Vec<Node> {
    let are_nodes = |mid: &u32| tree.is_node(node.first, *mid) && tree.is_node(*mid, node.end);
    match (node.first + 1..node.end).find(are_nodes).filter(|_| cuts.next() == Some(true)) {
        None => vec![node],
        Some(mid) => {
            let left = nodes(tree, Node { end: mid, ..node }, cuts);
            [nodes(tree, Node { first: mid, ..node }, cuts), left].concat()
        }
    }
}

/// Every bit of the figures.
fn bits(figures: &Figures) -> (u64, u64, u64, Vec<u64>, Vec<u64>) {
    let sums = figures.sums.iter().map(|sum| sum.to_bits()).collect();
    (figures.loss_sum.to_bits(), figures.correct, figures.samples, figures.counts.clone(), sums)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn figures_are_the_same_however_shards_are_distributed(
        shards in 1u32..9,
        samples in 9u32..60,
        order in Just((0..9u32).collect::<Vec<_>>()).prop_shuffle(),
        cuts in prop::collection::vec(any::<bool>(), 16),
    ) {
        for bench in benches(shards, samples) {
            for unit in [Unit::evaluate(Split::Test, 0), Unit::train(0, 0)] {
                let alone = bench.figures_alone(unit);
                let tree = Tree::new(shards);
                let nodes = nodes(&tree, tree.root(), &mut cuts.iter().copied());
                prop_assert_eq!(bits(&bench.figures(unit, &nodes, &order)), bits(&alone));
                let layout = bench.workload.layout(unit.split);
                prop_assert!(layout.fits(alone.samples, &alone.counts, &alone.sums));
            }
        }
    }

    /// Samples are evaluated in batches of another length, so the last digits of their outputs may differ.
    #[test]
    fn figures_are_those_of_all_samples_together(shards in 2u32..9, samples in 9u32..60) {
        for (many, one) in benches(shards, samples).iter().zip(benches(1, samples)) {
            let row = |bench: &Bench| {
                let figures = bench.figures_alone(Unit::evaluate(Split::Test, 0));
                bench.workload.row(0, &Figures::default(), None, Some(&figures))
            };
            for (many, one) in row(many).all_metrics().zip(row(&one).all_metrics()) {
                let (a, b) = (many.test.unwrap(), one.test.unwrap());
                prop_assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{}: {a} and {b}", many.name);
            }
        }
    }
}

#[test]
fn the_row_of_an_epoch_has_what_the_job_asks_for() {
    let bench = &benches(3, 50)[1];
    let test = bench.figures_alone(Unit::evaluate(Split::Test, 0));
    let row = bench.workload.row(4, &bench.figures_alone(Unit::train(0, 0)), None, Some(&test));

    assert_eq!((row.epoch, row.val_loss), (5, None));
    let names: Vec<&str> = row.metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["top_2_accuracy", "precision", "recall", "f1_score", "auc", "pr_auc"]);
    assert!(row.metrics.iter().all(|metric| metric.validation.is_none() && metric.test.is_some()), "{row:?}");
    let in_training = |name| row.metric(name).unwrap().train;
    for name in ["auc", "pr_auc", "f1_score"] {
        // The parameters are the same, and there is no dropout; coarse bins make the difference.
        let (training, test) = (in_training(name).unwrap(), row.metric(name).unwrap().test.unwrap());
        assert!((training - test).abs() < 0.05, "{name}: {training} and {test}");
    }
    let confusion = bench.workload.confusion(&test).unwrap();
    let diagonal: u64 = (0..2).map(|class| confusion.matrix[class][class]).sum();
    assert_eq!((diagonal, confusion.matrix.iter().flatten().sum::<u64>()), (test.correct, 50));
}
