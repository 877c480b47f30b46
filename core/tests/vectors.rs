//! Gradients, optimizer steps and an epoch of training, compared with those of Keras.
//!
//! The files in `vectors/` name their source. Cases that this crate does not support yet are listed by name, and
//! the lists must be exact: a new activation, loss or optimizer is tested by removing its cases from the list.

#![allow(clippy::unwrap_used)] // All of this is test code; clippy only knows of the functions marked as tests.

use std::collections::BTreeSet;
use std::path::Path;

use millefeuille_core::data::dataset::Dataset;
use millefeuille_core::data::formats::idx;
use millefeuille_core::data::part::{Part, RawFeatures, RawTargets, TargetValues};
use millefeuille_core::data::plan::Plan;
use millefeuille_core::data::prepare::Parts;
use millefeuille_core::data::schema::{Features, Schema, Target, Truth};
use millefeuille_core::data::shard::{Shard, ShardStore};
use millefeuille_core::data::split::{Sizes, Split};
use millefeuille_core::job::{
    Activation, Dense, Job, Layer, Loss, LossOptions, Metric, Optimizer, OptimizerKind,
};
use millefeuille_core::learn::elementwise::add_assign;
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::optimizers::OptimizerState;
use millefeuille_core::learn::piece::{Learner, PieceOutcome, Scratch, ShardView};
use millefeuille_core::learn::schedules::Schedule;
use millefeuille_core::learn::spec::Spec;
use millefeuille_core::learn::sum::Figures;
use millefeuille_core::learn::tree::{Node, Reduction, Tree};
use millefeuille_core::learn::work::{Unit, Workload};
use serde_json::Value;

const UNSUPPORTED_GRADIENTS: [&str; 0] = [];

fn vectors(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    list(value).iter().map(|number| number.as_f64().unwrap()).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    numbers(value).into_iter().map(|number| number as f32).collect()
}

/// Whether `got` is `wanted` within `relative` of it, or of `floor` where it is smaller.
fn close(got: f64, wanted: f64, relative: f64, floor: f64) -> bool {
    (got - wanted).abs() <= relative * wanted.abs().max(floor)
}

fn assert_close(got: &[f32], wanted: &[f64], relative: f64, floor: f64, what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (index, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        assert!(close(f64::from(*got), *wanted, relative, floor), "{what}[{index}]: {got}, not {wanted}");
    }
}

fn spec(inputs: usize, layers: Vec<Layer>, target: Target, shards: u32) -> Spec {
    Spec {
        seed: 42,
        shards,
        batch_size: 500,
        shuffle: false,
        scale: 1.0,
        schema: Schema::new(Features::image(1, inputs), target),
        layers,
        loss: Loss::CategoricalCrossentropy,
        options: LossOptions::default(),
        metrics: vec![Metric::Accuracy],
        sizes: Sizes { train: 48_000, validation: 12_000, test: 10_000 },
    }
}

/// The layers and the loss of a case; `None` if a name is not known here.
fn expressed(case: &Value) -> Option<(Vec<Layer>, Loss)> {
    let layer = |layer: &Value| {
        let activation: Activation = text(&layer["activation"]).parse().ok()?;
        Some(Layer::dense(layer["units"].as_u64()? as u32, activation))
    };
    let layers = list(&case["layers"]).iter().map(layer).collect::<Option<Vec<_>>>()?;
    Some((layers, text(&case["loss"]).parse().ok()?))
}

/// The targets of a case, `[batch, outputs]`: numbers, or classes in one-hot rows.
enum Targets {
    Reals(Vec<f32>),
    Classes(Vec<u32>),
}

impl Targets {
    fn of(case: &Value, loss: Loss, outputs: usize) -> (Target, Self) {
        let reals = Target::Reals { width: outputs as u32 };
        if loss.outputs(reals).is_ok() {
            return (reals, Self::Reals(floats(&case["y"])));
        }
        let rows = numbers(&case["y"]);
        let rows = rows.chunks(outputs);
        let label = |row: &[f64]| row.iter().position(|y| *y == 1.0).expect("a one-hot row") as u32;
        (Target::Class { classes: outputs as u32 }, Self::Classes(rows.map(label).collect()))
    }

    fn truth(&self) -> Truth<'_> {
        match self {
            Self::Reals(reals) => Truth::Reals(reals),
            Self::Classes(classes) => Truth::Classes(classes),
        }
    }
}

#[test]
fn gradients_are_those_of_keras() {
    let vectors = vectors("gradients.json");
    let mut unsupported = BTreeSet::new();
    for case in list(&vectors["cases"]) {
        match expressed(case) {
            Some((layers, loss)) => check_gradients(case, layers, loss),
            None => {
                unsupported.insert(text(&case["name"]));
            }
        }
    }
    assert_eq!(unsupported, BTreeSet::from(UNSUPPORTED_GRADIENTS));
}

fn check_gradients(case: &Value, layers: Vec<Layer>, loss: Loss) {
    let name = text(&case["name"]);
    let inputs = case["inputs"].as_u64().unwrap() as usize;
    let samples = case["batch"].as_f64().unwrap();
    let model = Model::new(inputs, &layers);
    let (target, targets) = Targets::of(case, loss, model.outputs());
    let metrics = if loss == Loss::CategoricalCrossentropy { vec![Metric::Accuracy] } else { Vec::new() };
    let spec = Spec { loss, metrics, ..spec(inputs, layers, target, 1) };
    let parameters: Vec<f32> = list(&case["layers"])
        .iter()
        .flat_map(|l| [floats(&l["kernel"]), floats(&l["bias"])].concat())
        .collect();
    let wanted: Vec<f64> = list(&case["gradients"])
        .iter()
        .flat_map(|l| [numbers(&l["kernel"]), numbers(&l["bias"])].concat())
        .collect();

    let mut gradient = vec![f32::NAN; model.parameter_count()];
    let learner = Learner { model: &model, spec: &spec, parameters: &parameters };
    let score =
        learner.gradient_of(&floats(&case["x"]), targets.truth(), &mut gradient, &mut Scratch::default());

    let loss = score.loss_sum / samples;
    assert!(close(loss, case["mean_loss"].as_f64().unwrap(), 1e-6, 0.0), "{name}: a loss of {loss}");
    let mean: Vec<f32> = gradient.iter().map(|sum| sum / samples as f32).collect();
    assert_close(&mean, &wanted, 1e-5, 1e-2, name);
}

/// The optimizer of a case; `None` if it is not known here.
fn expressed_optimizer(case: &Value) -> Option<Optimizer> {
    let config = &case["config"];
    let kind = match (text(&case["name"]), config["beta_1"].is_null()) {
        (_, true) => OptimizerKind::Sgd,
        ("adamw", _) => OptimizerKind::AdamW,
        _ => OptimizerKind::Adam,
    };
    let mut optimizer = Optimizer::new(kind);
    for (key, value) in config.as_object()? {
        let value = value.as_f64().or_else(|| value.as_bool().map(f64::from)).unwrap_or(0.0);
        (optimizer.set(key, value as f32) || value == 0.0).then_some(())?;
    }
    Some(optimizer)
}

#[test]
fn optimizers_step_as_those_of_keras() {
    let vectors = vectors("optimizers.json");
    let mut unsupported = BTreeSet::new();
    for case in list(&vectors["optimizers"]) {
        match expressed_optimizer(case) {
            Some(optimizer) => check_steps(case, &optimizer),
            None => {
                unsupported.insert(text(&case["name"]));
            }
        }
    }
    assert!(unsupported.is_empty(), "{unsupported:?}");
}

#[test]
fn schedules_give_the_rates_of_keras() {
    for case in list(&vectors("optimizers.json")["schedules"]) {
        let (name, config) = (text(&case["name"]), case["config"].as_object().unwrap());
        let kind = name.split(' ').next().unwrap().parse().unwrap();
        let (mut schedule, mut rate) = (Schedule::new(kind), 0.0);
        for (key, value) in config {
            let value = value.as_f64().unwrap();
            match key.as_str() {
                // A warm-up from 0 rises to the optimizer's own rate.
                "initial" if value == 0.0 => {}
                "initial" | "warmup_target" => rate = value as f32,
                key => assert!(schedule.set(key, value), "{name}: {key}"),
            }
        }
        for (step, wanted) in (0..).zip(numbers(&case["at_step"])) {
            let got = f64::from(schedule.rate(rate, step));
            assert!(close(got, wanted, 2e-6, 0.0), "{name}, step {step}: {got}, not {wanted}");
        }
    }
}

fn check_steps(case: &Value, optimizer: &Optimizer) {
    let mut parameters = floats(&case["start"]);
    let mut state = OptimizerState::new(optimizer, parameters.len());
    for (step, (gradient, after)) in
        (1..).zip(list(&case["gradients"]).iter().zip(list(&case["after_each_step"])))
    {
        let mut next = vec![0.0; parameters.len()];
        // The sum over four samples whose mean is the gradient of the case.
        let sum: Vec<f32> = floats(gradient).iter().map(|g| g * 4.0).collect();
        state.step(step, 0, &parameters, (&sum, None), 4, &mut next);
        parameters = next;
        assert_close(&parameters, &numbers(after), 1e-5, 1e-1, text(&case["name"]));
    }
}

/// The article's training without dropout, from weights that a formula gives.
struct Article {
    model: Model,
    spec: Spec,
    store: ShardStore,
    parameters: Vec<f32>,
    optimizer: OptimizerState,
    scratch: Scratch,
}

/// The sum of a step's pieces.
struct Sum {
    gradient: Vec<f32>,
    outcome: PieceOutcome,
}

impl Article {
    fn new(shards: u32) -> Self {
        let dense = |units, activation| Layer::dense(units, activation);
        let layers = vec![
            dense(256, Activation::Sigmoid),
            dense(128, Activation::Sigmoid),
            dense(10, Activation::Softmax),
        ];
        let model = Model::new(784, &layers);
        let job = Job::default();
        let dataset = Parts::from(idx::mnist().unwrap()).prepare(job.data.recipe(job.wanted())).unwrap();
        Self {
            spec: Spec {
                schema: dataset.schema.clone(),
                ..spec(784, layers, Target::Class { classes: 10 }, shards)
            },
            store: ShardStore::new(dataset, shards),
            parameters: formula_weights(&model),
            optimizer: OptimizerState::new(&Optimizer::sgd(0.1), model.parameter_count()),
            scratch: Scratch::default(),
            model,
        }
    }

    /// The pieces of step `t`, added along the tree.
    fn step(&mut self, t: u32) -> Sum {
        let plan = Plan::new(self.spec.sizes.train, self.spec.batch_size, self.spec.shards);
        let mut reduction = Reduction::new(Tree::new(self.spec.shards), &plan.present(t));
        for shard in plan.present(t) {
            let range = plan.piece(t, shard);
            let order =
                &plan.order(self.spec.seed, 0, shard, false)[range.start as usize..range.end as usize];
            let mut gradient = vec![f32::NAN; self.model.parameter_count()];
            let learner = Learner { model: &self.model, spec: &self.spec, parameters: &self.parameters };
            let samples = samples(&self.store, Split::Train, shard);
            let outcome = learner.train_piece(&samples, order, 0, &mut gradient, &mut self.scratch);
            reduction.insert(Node::leaf(shard), Sum { gradient, outcome }, add);
        }
        reduction.take_root(add).unwrap()
    }

    fn update(&mut self, sum: &Sum) {
        let mut next = vec![0.0; self.parameters.len()];
        self.optimizer.step(
            1,
            0,
            &self.parameters,
            (&sum.gradient, None),
            sum.outcome.figures.samples,
            &mut next,
        );
        self.parameters = next;
    }

    /// Mean loss and number correct of a whole split.
    fn evaluate(&mut self, split: Split) -> (f64, u64) {
        let learner = Learner { model: &self.model, spec: &self.spec, parameters: &self.parameters };
        let pieces: Vec<_> = (0..self.spec.shards)
            .map(|shard| learner.evaluate_piece(&samples(&self.store, split, shard), &mut self.scratch))
            .collect();
        let count: u64 = pieces.iter().map(|piece| piece.figures.samples).sum();
        assert_eq!(count, u64::from(self.spec.sizes.of(split)));
        let loss: f64 = pieces.iter().map(|piece| piece.figures.loss_sum).sum();
        (loss / count as f64, pieces.iter().map(|piece| piece.figures.correct).sum())
    }
}

fn samples(store: &ShardStore, split: Split, shard: u32) -> ShardView<'_> {
    let samples = &store.get(Shard { split, index: shard }).unwrap().samples;
    ShardView { shard, shards: store.shards(), samples }
}

fn add(left: &mut Sum, right: Sum) {
    add_assign(&mut left.gradient, &right.gradient);
    left.outcome.figures += right.outcome.figures;
}

/// `initial_weights` of the file.
fn formula_weights(model: &Model) -> Vec<f32> {
    let mut parameters = vec![0.0; model.parameter_count()];
    for tensor in model.tensors() {
        if let [inputs, units] = tensor.shape[..] {
            let limit = (6.0 / (inputs + units) as f64).sqrt();
            for k in 0..inputs * units {
                let scattered = (k as u32).wrapping_mul(2_654_435_761);
                parameters[tensor.offset + k] =
                    ((f64::from(scattered) / 2f64.powi(32) * 2.0 - 1.0) * limit) as f32;
            }
        }
    }
    parameters
}

#[test]
fn the_articles_first_steps_are_those_of_keras_with_any_number_of_shards() {
    let wanted = &vectors("article_epoch.json")["runs"]["float64"];
    let (losses, corrects) = (numbers(&wanted["step_loss"]), numbers(&wanted["step_correct"]));
    for shards in [1, 3, 8] {
        let mut article = Article::new(shards);
        for t in 0..10 {
            let sum = article.step(t);
            assert_eq!(sum.outcome.figures.samples, 500);
            if t == 0 {
                check_first_gradient(&article.model, &sum.gradient, wanted);
            }
            let (loss, step) = (sum.outcome.figures.loss_sum / 500.0, t as usize);
            assert!(
                close(loss, losses[step], 1e-4, 0.0),
                "{shards} shards, step {t}: {loss}, not {}",
                losses[step]
            );
            // A sample between two classes may go either way with another kernel's last bits.
            let apart = (sum.outcome.figures.correct as f64 - corrects[step]).abs();
            assert!(apart <= 2.0, "{shards} shards, step {t}: {apart} more or fewer are correct");
            article.update(&sum);
        }
    }
}

/// Norms and samples of each tensor's gradient: every (size / 16)th entry, 16 at most.
fn check_first_gradient(model: &Model, sum: &[f32], wanted: &Value) {
    let (norms, entries) =
        (numbers(&wanted["first_step_gradient_norms"]), list(&wanted["first_step_gradient_samples"]));
    for (index, tensor) in model.tensors().iter().enumerate() {
        let size = tensor.shape.iter().product::<usize>();
        let mean: Vec<f32> = sum[tensor.offset..][..size].iter().map(|sum| sum / 500.0).collect();
        let norm = mean.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!(
            close(norm, norms[index], 1e-5, 0.0),
            "{}: a norm of {norm}, not {}",
            tensor.name,
            norms[index]
        );
        let sampled: Vec<f32> = mean.iter().copied().step_by((size / 16).max(1)).take(16).collect();
        assert_close(&sampled, &numbers(&entries[index]), 1e-4, norm / 100.0, &tensor.name);
    }
}

#[test]
fn the_articles_epoch_ends_where_that_of_keras_does() {
    let wanted = &vectors("article_epoch.json")["runs"]["float64"]["after_epoch"];
    let mut article = Article::new(8);
    for t in 0..96 {
        let sum = article.step(t);
        article.update(&sum);
    }
    for (split, samples) in [(Split::Validation, 12_000.0), (Split::Test, 10_000.0)] {
        let (loss, correct) = article.evaluate(split);
        let wanted = &wanted[split.name()];
        let (wanted_loss, wanted_correct) =
            (wanted["loss"].as_f64().unwrap(), wanted["correct"].as_f64().unwrap());
        assert!(close(loss, wanted_loss, 1e-2, 0.0), "{split}: {loss}, not {wanted_loss}");
        assert!(
            (correct as f64 - wanted_correct).abs() / samples < 0.02,
            "{split}: {correct}, not {wanted_correct}"
        );
    }
}

/// The samples of a case, which train before the last ones validate, with the weights that its job gives them.
fn weighted_data(case: &Value, job: &Job) -> Dataset {
    let rows: Vec<Vec<f32>> = list(&case["x"]).iter().map(floats).collect();
    let values = rows.concat();
    let weights = (!case["sample_weight"].is_null()).then(|| floats(&case["sample_weight"]));
    let targets = match job.target() {
        Target::Class { .. } => {
            TargetValues::Labels(list(&case["y"]).iter().map(|y| y.as_i64().unwrap()).collect())
        }
        Target::Reals { .. } => {
            TargetValues::Numbers { width: 1, values: list(&case["y"]).iter().flat_map(floats).collect() }
        }
    };
    let train = Part {
        name: "case".into(),
        len: rows.len(),
        features: RawFeatures::Numbers { shape: vec![rows[0].len() as u32], values },
        targets: Some(RawTargets { file: "case".into(), columns: Vec::new(), values: targets }),
        weights,
    };
    let parts = Parts { train, validation: None, test: None, files: Vec::new() };
    let mut data = parts.prepare(job.data.recipe(job.wanted())).unwrap();
    data.weigh_classes(&job.compile.class_weight).unwrap();
    data
}

/// The job of a case.
fn weighted_job(case: &Value) -> Job {
    let layer = |layer: &Value| {
        let mut dense =
            Dense::new(layer["units"].as_u64().unwrap() as u32, text(&layer["activation"]).parse().unwrap());
        dense.kernel_regularizer.l2 = layer["l2"].as_f64().unwrap() as f32;
        Layer::Dense(dense)
    };
    let mut job =
        Job { shards: 3, layers: list(&case["layers"]).iter().map(layer).collect(), ..Job::default() };
    job.data.validation_split = case["validation_split"].as_f64().unwrap();
    job.compile.loss = text(&case["loss"]).parse().unwrap();
    job.compile.optimizer = Optimizer::new(text(&case["optimizer"]).parse().unwrap());
    job.compile.optimizer.set("learning_rate", case["learning_rate"].as_f64().unwrap() as f32);
    let weights = case["class_weight"].as_object().unwrap();
    job.compile.class_weight = weights.iter().map(|(k, v)| (k.clone(), v.as_f64().unwrap() as f32)).collect();
    job.compile.metrics.clear();
    job.fit.batch_size = case["batch_size"].as_u64().unwrap() as u32;
    job.fit.shuffle = false;
    job
}

/// Trains the job of a case, and compares each epoch's losses and the trained parameters.
fn check_weights(case: &Value) {
    let (name, job) = (text(&case["name"]), weighted_job(case));
    let store = ShardStore::new(weighted_data(case, &job), job.shards);
    let workload = Workload::new(job.spec(Schema::clone(store.schema()), store.sizes()));
    let flat = |layers: &Value| -> Vec<f64> {
        let layer = |layer: &Value| {
            let kernel = list(&layer["kernel"]).iter().flat_map(numbers);
            kernel.chain(numbers(&layer["bias"])).collect::<Vec<_>>()
        };
        list(layers).iter().flat_map(layer).collect()
    };
    let mut parameters: Vec<f32> = flat(&case["initial"]).into_iter().map(|value| value as f32).collect();
    let mut optimizer =
        OptimizerState::of_model(&job.compile.optimizer, &Schedule::default(), workload.model());
    let sum = |unit: Unit, parameters: &[f32]| {
        let samples = |index| Some(&store.get(Shard { split: unit.split, index })?.samples);
        workload
            .sum_of_node(unit, Tree::new(job.shards).root(), samples, parameters, |len| vec![0.0; len])
            .unwrap()
    };
    let steps = workload.plan().steps();
    let mut figures = [("loss", Vec::new()), ("val_loss", Vec::new())];
    for epoch in 0..case["epochs"].as_u64().unwrap() as u32 {
        let mut trained = Figures::default();
        for step in 0..steps {
            let sum = sum(Unit::train(epoch, step), &parameters);
            let mut next = vec![0.0; parameters.len()];
            optimizer.step_of_sum(u64::from(epoch * steps + step) + 1, &parameters, &sum, &mut next);
            trained += sum.figures;
            parameters = next;
        }
        figures[0].1.push(trained.loss() as f32);
        figures[1].1.push(sum(Unit::evaluate(Split::Validation, epoch), &parameters).figures.loss() as f32);
    }
    for (figure, got) in figures {
        assert_close(&got, &numbers(&case["history"][figure]), 2e-5, 0.1, &format!("{name} {figure}"));
    }
    assert_close(&parameters, &flat(&case["trained"]), 2e-5, 0.1, name);
}

#[test]
fn weights_of_classes_and_samples_do_what_they_do_in_keras() {
    list(&vectors("weights.json")["cases"]).iter().for_each(check_weights);
}
