//! Models and pieces, as workers and the coordinator use them.

#![allow(clippy::unwrap_used)] // All of this is test code; clippy only knows of the functions marked as tests.

use std::sync::Arc;

use millefeuille_core::data::plan;
use millefeuille_core::data::schema::{Features, Schema, Target};
use millefeuille_core::data::shard::ShardSamples;
use millefeuille_core::data::split::Sizes;
use millefeuille_core::job::{
    Activation, Dense, Initializer, Layer, Loss, LossOptions, Metric, Normalization, Regularizer,
};
use millefeuille_core::learn::limits;
use millefeuille_core::learn::model::{Model, Tensor};
use millefeuille_core::learn::piece::{EVALUATION_ROWS, Learner, PieceOutcome, Scratch, ShardView};
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::work::{Unit, Workload};
use millefeuille_core::{arithmetic, random};

const SEED: u64 = 42;

fn dense(units: u32, activation: Activation) -> Layer {
    Layer::dense(units, activation)
}

fn article() -> Vec<Layer> {
    vec![
        dense(256, Activation::Sigmoid),
        dense(128, Activation::Sigmoid),
        Layer::Dropout { rate: 0.5 },
        dense(10, Activation::Softmax),
    ]
}

/// A model small enough to try every parameter, with dropout at its input and in its middle.
fn tiny() -> Vec<Layer> {
    vec![
        Layer::Dropout { rate: 0.2 },
        dense(9, Activation::Sigmoid),
        Layer::Dropout { rate: 0.5 },
        dense(8, Activation::Sigmoid),
        dense(3, Activation::Softmax),
    ]
}

fn spec(inputs: u32, layers: &[Layer], scale: f32) -> Spec {
    let classes = Model::new(inputs as usize, layers).outputs() as u32;
    Spec {
        seed: SEED,
        shards: 8,
        batch_size: 500,
        shuffle: true,
        scale,
        schema: Schema::new(Features::image(1, inputs as usize), Target::Class { classes }),
        layers: layers.to_vec(),
        loss: Loss::CategoricalCrossentropy,
        options: LossOptions::default(),
        metrics: vec![Metric::Accuracy],
        sizes: Sizes { train: 48_000, validation: 12_000, test: 10_000 },
    }
}

/// A shard of made-up samples, and a model to learn them.
struct Bench {
    spec: Spec,
    model: Model,
    parameters: Vec<f32>,
    samples: ShardSamples,
}

impl Bench {
    fn new(inputs: u32, layers: &[Layer], samples: u32) -> Self {
        let spec = spec(inputs, layers, 1.0 / 255.0);
        let model = Model::new(inputs as usize, layers);
        let bytes = |len: u32| (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
        Self {
            parameters: model.initial_parameters(SEED),
            samples: {
                let labels = bytes(samples).map(|byte| byte % model.outputs() as u8);
                let both: Vec<u8> = bytes(samples * inputs).chain(labels).collect();
                ShardSamples::decode(both.into(), Arc::new(spec.schema.clone()), samples).unwrap()
            },
            model,
            spec,
        }
    }

    fn samples(&self) -> ShardView<'_> {
        ShardView { shard: 3, shards: 8, samples: &self.samples }
    }

    fn learner(&self) -> Learner<'_> {
        Learner { model: &self.model, spec: &self.spec, parameters: &self.parameters }
    }

    fn train(&self, order: &[u32], epoch: u64) -> (Vec<f32>, PieceOutcome) {
        self.train_with(order, epoch, &mut Scratch::default())
    }

    fn train_with(&self, order: &[u32], epoch: u64, scratch: &mut Scratch) -> (Vec<f32>, PieceOutcome) {
        let mut gradient = vec![f32::NAN; self.model.parameter_count()];
        let outcome = self.learner().train_piece(&self.samples(), order, epoch, &mut gradient, scratch);
        (gradient, outcome)
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn the_articles_model_has_keras_names_and_sizes() {
    let model = Model::new(784, &article());
    assert_eq!(model.parameter_count(), 235_146);
    let tensor =
        |name: &str, shape: &[usize], offset| Tensor { name: name.into(), shape: shape.into(), offset };
    assert_eq!(
        model.tensors(),
        [
            tensor("dense/kernel", &[784, 256], 0),
            tensor("dense/bias", &[256], 200_704),
            tensor("dense_1/kernel", &[256, 128], 200_960),
            tensor("dense_1/bias", &[128], 233_728),
            tensor("dense_2/kernel", &[128, 10], 233_856),
            tensor("dense_2/bias", &[10], 235_136),
        ]
    );
    let summary = model.summary();
    let rows: Vec<_> =
        summary.iter().map(|row| (&*row.name, row.kind, &*row.output_shape, row.parameters)).collect();
    assert_eq!(
        rows,
        [
            ("dense", "Dense", "(None, 256)", 200_960),
            ("dense_1", "Dense", "(None, 128)", 32_896),
            ("dropout", "Dropout", "(None, 128)", 0),
            ("dense_2", "Dense", "(None, 10)", 1_290),
        ]
    );
}

#[test]
fn initial_kernels_are_drawn_by_the_layers_place_in_the_job_and_biases_are_zero() {
    let model = Model::new(784, &article());
    let parameters = model.initial_parameters(SEED);
    let mut last = vec![0.0; 1280];
    random::uniform(SEED, 3, (6.0f32 / 138.0).sqrt(), &mut last);
    assert_eq!(bits(&parameters[233_856..235_136]), bits(&last));
    for bias in [200_704..200_960, 233_728..233_856, 235_136..235_146] {
        assert!(parameters[bias].iter().all(|value| *value == 0.0));
    }
}

#[test]
fn a_piece_reports_the_samples_that_it_gathered() {
    let bench = Bench::new(20, &tiny(), 40);
    let (_, outcome) = bench.train(&[7, 0, 39], 0);
    assert_eq!(outcome.figures.samples, 3);
    assert_eq!(outcome.samples_sha256, plan::digest([7 * 8 + 3, 3, 39 * 8 + 3]));
}

#[test]
fn a_piece_depends_neither_on_what_was_computed_before_nor_on_how_often() {
    let bench = Bench::new(784, &article(), 400);
    let order: Vec<u32> = (0..63).map(|i| i * 5).collect();
    let fresh = bench.train(&order, 1);
    let mut scratch = Scratch::default();
    bench.learner().evaluate_piece(&bench.samples(), &mut scratch);
    bench.train_with(&order[..10], 0, &mut scratch);
    let again = bench.train_with(&order, 1, &mut scratch);
    assert_eq!(bits(&fresh.0), bits(&again.0));
    assert_eq!(fresh.1, again.1);
}

#[test]
fn a_piece_without_samples_is_zero() {
    let bench = Bench::new(20, &tiny(), 40);
    let (gradient, outcome) = bench.train(&[], 0);
    assert!(gradient.iter().all(|value| *value == 0.0));
    assert_eq!((outcome.figures.samples, outcome.figures.correct, outcome.figures.loss_sum), (0, 0, 0.0));
}

#[test]
fn the_gradient_is_the_slope_of_the_loss_with_dropout_on() {
    let mut bench = Bench::new(20, &tiny(), 40);
    let order: Vec<u32> = (0..40).collect();
    let (gradient, _) = bench.train(&order, 5);
    for (place, got) in gradient.iter().enumerate() {
        let at = bench.parameters[place];
        let mut loss_at = |value: f32| {
            bench.parameters[place] = value;
            bench.train(&order, 5).1.figures.loss_sum
        };
        let (above, below) = (loss_at(at + 0.01), loss_at(at - 0.01));
        bench.parameters[place] = at;
        let slope = (above - below) / 0.02;
        assert!((f64::from(*got) - slope).abs() < 5e-3, "{place}: {got}, not {slope}");
    }
}

/// Layers of every kind, with every option.
fn varied() -> Vec<Layer> {
    let plain = Dense::new(7, Activation::Tanh);
    let penalty = Regularizer { l1: 0.01, l2: 0.02 };
    vec![
        Layer::LayerNormalization(Normalization { epsilon: 0.01, trainable: true }),
        Layer::Dense(Dense { use_bias: false, kernel_regularizer: penalty, ..plain }),
        Layer::LayerNormalization(Normalization::default()),
        Layer::Dropout { rate: 0.25 },
        Layer::Dense(Dense { kernel_initializer: Initializer::HeNormal, units: 6, ..plain }),
        Layer::Dense(Dense { kernel_regularizer: penalty, ..Dense::new(3, Activation::Softmax) }),
    ]
}

fn frozen(mut layers: Vec<Layer>, places: &[usize]) -> Vec<Layer> {
    for &place in places {
        match &mut layers[place] {
            Layer::Dense(dense) => dense.trainable = false,
            Layer::LayerNormalization(normalization) => normalization.trainable = false,
            Layer::Dropout { .. } => {}
        }
    }
    layers
}

#[test]
fn the_gradient_of_every_layer_is_the_slope_of_the_loss() {
    let mut bench = Bench::new(20, &varied(), 40);
    // Away from the first values, which are 0 and 1 in many places; no weight is near 0, where l1 has a corner.
    for (place, value) in bench.parameters.iter_mut().enumerate() {
        *value += ((place * 7919 % 101) as f32 / 101.0 - 0.5) * 0.5;
        *value += value.signum() * 0.05;
    }
    let order: Vec<u32> = (0..40).collect();
    let (gradient, _) = bench.train(&order, 5);
    for (place, got) in gradient.iter().enumerate() {
        let at = bench.parameters[place];
        let mut loss_at = |value: f32| {
            bench.parameters[place] = value;
            bench.train(&order, 5).1.figures.loss_sum
        };
        let (above, below) = (loss_at(at + 0.01), loss_at(at - 0.01));
        bench.parameters[place] = at;
        let slope = (above - below) / 0.02;
        assert!((f64::from(*got) - slope).abs() < 2e-2 + 1e-3 * slope.abs(), "{place}: {got}, not {slope}");
    }
}

#[test]
fn frozen_layers_have_no_gradient_and_the_others_the_same() {
    let order: Vec<u32> = (0..40).collect();
    let (whole, outcome) = Bench::new(20, &varied(), 40).train(&order, 0);
    for places in [&[0, 1][..], &[4], &[2, 5]] {
        let bench = Bench::new(20, &frozen(varied(), places), 40);
        let (gradient, same) = bench.train(&order, 0);
        assert_eq!(same, outcome, "the loss does not change");
        let still = bench.model.frozen();
        assert!(!still.is_empty());
        for (place, (got, whole)) in gradient.iter().zip(&whole).enumerate() {
            let wanted = if still.iter().any(|range| range.contains(&place)) { 0.0 } else { *whole };
            assert_eq!(got.to_bits(), wanted.to_bits(), "{places:?}: {place}");
        }
    }
}

#[test]
fn a_penalty_counts_once_for_each_sample_in_training_and_evaluation() {
    let penalty = Regularizer { l1: 0.5, l2: 0.25 };
    let plain = [dense(5, Activation::Relu), dense(3, Activation::Softmax)];
    let with =
        [Layer::Dense(Dense { kernel_regularizer: penalty, ..Dense::new(5, Activation::Relu) }), plain[1]];
    let samples = EVALUATION_ROWS as u32 + 30;
    let (without, with) = (Bench::new(20, &plain, samples), Bench::new(20, &with, samples));
    let sizes = without.parameters[..100].iter().map(|w| f64::from(*w));
    let wanted: f64 = sizes.map(|w| 0.5 * w.abs() + 0.25 * w * w).sum();
    let order: Vec<u32> = (0..30).collect();
    let more = |a: PieceOutcome, b: PieceOutcome| {
        (b.figures.loss_sum - a.figures.loss_sum) / a.figures.samples as f64
    };
    let evaluated = |bench: &Bench| bench.learner().evaluate_piece(&bench.samples(), &mut Scratch::default());
    for more in [
        more(without.train(&order, 0).1, with.train(&order, 0).1),
        more(evaluated(&without), evaluated(&with)),
    ] {
        assert!((more - wanted).abs() < 1e-9, "{more}, not {wanted}");
    }
}

#[test]
fn layers_of_other_kinds_have_keras_names_and_sizes() {
    let model = Model::new(20, &varied());
    let tensors: Vec<_> = model.tensors().into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
    let wanted: [(&str, &[usize]); 9] = [
        ("layer_normalization/gamma", &[20]),
        ("layer_normalization/beta", &[20]),
        ("dense/kernel", &[20, 7]),
        ("layer_normalization_1/gamma", &[7]),
        ("layer_normalization_1/beta", &[7]),
        ("dense_1/kernel", &[7, 6]),
        ("dense_1/bias", &[6]),
        ("dense_2/kernel", &[6, 3]),
        ("dense_2/bias", &[3]),
    ];
    assert_eq!(tensors, wanted.map(|(name, shape)| (name.to_string(), shape.to_vec())));
    assert_eq!(model.parameter_count() as u64, limits::parameters(20, &varied()));
    let parameters = model.initial_parameters(SEED);
    assert!(
        parameters[..20].iter().all(|gamma| *gamma == 1.0)
            && parameters[20..40].iter().all(|beta| *beta == 0.0)
    );
}

#[test]
fn each_epoch_drops_other_units_and_evaluation_none() {
    let bench = Bench::new(784, &article(), 300);
    let order: Vec<u32> = (0..62).collect();
    assert_ne!(bench.train(&order, 0).1.figures.loss_sum, bench.train(&order, 1).1.figures.loss_sum);

    let evaluated = bench.learner().evaluate_piece(&bench.samples(), &mut Scratch::default());
    let plain: Vec<Layer> =
        article().into_iter().filter(|layer| !matches!(layer, Layer::Dropout { .. })).collect();
    let without = Bench { model: Model::new(784, &plain), spec: spec(784, &plain, 1.0 / 255.0), ..bench };
    assert_eq!(without.learner().evaluate_piece(&without.samples(), &mut Scratch::default()), evaluated);
}

#[test]
fn a_shard_is_evaluated_in_chunks_of_fixed_length() {
    let samples = EVALUATION_ROWS as u32 * 2 + 17;
    let bench = Bench::new(20, &tiny(), samples);
    let (learner, mut scratch) = (bench.learner(), Scratch::default());
    let whole = learner.evaluate_piece(&bench.samples(), &mut scratch);
    assert_eq!(whole.figures.samples, u64::from(samples));
    assert_eq!(whole.samples_sha256, plan::digest((0..u64::from(samples)).map(|k| k * 8 + 3)));

    let outputs = learner.outputs(bench.samples.features(), &mut scratch);
    let rows = || outputs.chunks_exact(3).zip(bench.samples.targets());
    let loss: f64 = rows().map(|(row, label)| -f64::from(row[usize::from(*label)]).ln()).sum();
    assert!((whole.figures.loss_sum - loss).abs() < 1e-3, "{} {loss}", whole.figures.loss_sum);
    let correct = rows().filter(|(row, label)| row.iter().all(|p| *p <= row[usize::from(**label)])).count();
    assert_eq!(whole.figures.correct, correct as u64);
    assert!(outputs.chunks_exact(3).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-6));
}

#[test]
fn a_parameter_that_is_no_number_shows_in_loss_and_gradient() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut bench = Bench::new(20, &tiny(), 40);
        let last = bench.model.parameter_count() - 1;
        bench.parameters[last - 2..].fill(bad);
        let (gradient, outcome) = bench.train(&[0, 1, 2], 0);
        assert!(!outcome.figures.loss_sum.is_finite());
        assert!(gradient.iter().any(|value| !value.is_finite()));
        assert!(
            !bench
                .learner()
                .evaluate_piece(&bench.samples(), &mut Scratch::default())
                .figures
                .loss_sum
                .is_finite()
        );
    }
}

#[test]
fn a_jobs_own_shapes_have_a_fingerprint() {
    let article = spec(784, &article(), 1.0);
    let other = Spec { batch_size: 96, ..article.clone() };
    assert_eq!(arithmetic::model_fingerprint(&article), arithmetic::model_fingerprint(&article));
    assert_ne!(arithmetic::model_fingerprint(&article), arithmetic::model_fingerprint(&other));
    let mut weighted = article.clone();
    weighted.schema.weighted = true;
    assert_ne!(arithmetic::model_fingerprint(&article), arithmetic::model_fingerprint(&weighted));
    // More shards than samples, and a batch that is larger than any chunk.
    for (batch_size, shards) in [(3, 8), (1 << 20, 1)] {
        assert_eq!(arithmetic::model_fingerprint(&Spec { batch_size, shards, ..article.clone() }).len(), 64);
    }
}

#[test]
fn every_epoch_that_a_peer_may_name_has_its_own_order() {
    let workload = Workload::new(spec(784, &article(), 1.0));
    let digests = |epoch| workload.digests(Unit::train(epoch, 0), 0..2);
    let last = digests(u32::MAX);
    assert_ne!(last, digests(0));
    assert_eq!(last, digests(u32::MAX));
}
