//! Gradients beside finite differences in `f64`: the whole loss of a model is computed a second time here, by the
//! textbook, for every activation, layer, regulariser and loss with its options.

#![allow(clippy::unwrap_used)] // All of this is test code; clippy only knows of the functions marked as tests.

use millefeuille_core::data::schema::{Element, Features, Schema, Target, Truth};
use millefeuille_core::data::split::Sizes;
use millefeuille_core::job::{Activation, Dense, Job, Layer, Loss, LossOptions, Normalization, Regularizer};
use millefeuille_core::learn::model::{Model, Tensor};
use millefeuille_core::learn::piece::{Learner, Scratch};
use millefeuille_core::learn::spec::Spec;

const INPUTS: usize = 4;
const ROWS: usize = 5;
/// The step of the differences.
const STEP: f64 = 1e-5;

/// A number from -1 to 1.
fn number(place: usize) -> f32 {
    let word = (place as u32 + 1).wrapping_mul(2_654_435_761);
    (word >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// Targets of rows, of each kind.
struct Targets {
    classes: Vec<u32>,
    reals: Vec<f32>,
}

impl Targets {
    fn new(target: Target) -> Self {
        let (classes, width) = match target {
            Target::Class { classes } => (classes, 0),
            Target::Reals { width } => (1, width as usize),
        };
        Self {
            classes: (0..ROWS as u32).map(|row| row * 7 % classes).collect(),
            // Of use to binary cross-entropy, too.
            reals: (0..ROWS * width).map(|place| number(place + 900).abs()).collect(),
        }
    }

    fn truth(&self, target: Target) -> Truth<'_> {
        match target {
            Target::Class { .. } => Truth::Classes(&self.classes),
            Target::Reals { .. } => Truth::Reals(&self.reals),
        }
    }

    /// The targets of a row, one for each output.
    fn of_row(&self, row: usize, target: Target, outputs: usize) -> Vec<f64> {
        match target {
            Target::Class { .. } if outputs == 1 => vec![f64::from(self.classes[row])],
            Target::Class { .. } => {
                (0..outputs).map(|class| f64::from(u8::from(class == self.classes[row] as usize))).collect()
            }
            Target::Reals { .. } => {
                self.reals[row * outputs..][..outputs].iter().map(|&y| y.into()).collect()
            }
        }
    }
}

/// The error function by its power series.
fn erf(x: f64) -> f64 {
    let terms = (0..60).scan(x, |power, n| {
        let term = *power / f64::from(2 * n + 1);
        *power *= -x * x / f64::from(n + 1);
        Some(term)
    });
    terms.sum::<f64>() * 2.0 / std::f64::consts::PI.sqrt()
}

fn activated(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Linear | Activation::Softmax => x,
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu => x.max(0.2 * x),
        Activation::Sigmoid => sigmoid(x),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Gelu => x * 0.5 * (1.0 + erf(x / 2f64.sqrt())),
    }
}

/// The outputs of a row.
fn outputs(spec: &Spec, parameters: &[f64], row: &[f64]) -> Vec<f64> {
    let (mut values, mut rest) = (row.to_vec(), parameters);
    let mut take = |len: usize| {
        let (taken, left) = rest.split_at(len);
        rest = left;
        taken
    };
    for layer in &spec.layers {
        values = match layer {
            Layer::Dropout { .. } => values,
            Layer::LayerNormalization(Normalization { epsilon, .. }) => {
                let (gamma, beta) = (take(values.len()), take(values.len()));
                let count = values.len() as f64;
                let mean = values.iter().sum::<f64>() / count;
                let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
                let normal = |x: &f64| (x - mean) / (variance + f64::from(*epsilon)).sqrt();
                values.iter().zip(gamma.iter().zip(beta)).map(|(x, (g, b))| normal(x) * g + b).collect()
            }
            Layer::Dense(dense) => {
                let units = dense.units as usize;
                let kernel = take(values.len() * units);
                let bias = take(if dense.use_bias { units } else { 0 });
                let sum = |unit: usize| {
                    let products =
                        values.iter().enumerate().map(|(input, x)| x * kernel[input * units + unit]);
                    products.sum::<f64>() + bias.get(unit).unwrap_or(&0.0)
                };
                (0..units).map(|unit| activated(dense.activation, sum(unit))).collect()
            }
        };
    }
    if spec.loss.activation() == Activation::Softmax {
        let total: f64 = values.iter().map(|z| z.exp()).sum();
        values.iter_mut().for_each(|z| *z = z.exp() / total);
    }
    values
}

/// The loss of a row.
fn loss(spec: &Spec, outputs: &[f64], targets: &[f64]) -> f64 {
    let LossOptions { label_smoothing, delta } = spec.options;
    let (smoothing, delta, count) = (f64::from(label_smoothing), f64::from(delta), outputs.len() as f64);
    let pairs = || outputs.iter().copied().zip(targets.iter().copied());
    let mean = |loss: &dyn Fn(f64) -> f64| pairs().map(|(z, y)| loss(z - y)).sum::<f64>() / count;
    match spec.loss {
        Loss::MeanSquaredError => mean(&|error| error * error),
        Loss::MeanAbsoluteError => mean(&f64::abs),
        Loss::Huber => mean(&|error| match error.abs() {
            size if size <= delta => size * size / 2.0,
            size => delta * size - delta * delta / 2.0,
        }),
        Loss::BinaryCrossentropy => {
            let one = |p: f64, y: f64| {
                let y = y * (1.0 - smoothing) + 0.5 * smoothing;
                -(y * p.ln() + (1.0 - y) * (1.0 - p).ln())
            };
            pairs().map(|(p, y)| one(p, y)).sum::<f64>() / count
        }
        Loss::CategoricalCrossentropy | Loss::SparseCategoricalCrossentropy => {
            pairs().map(|(p, y)| -(y * (1.0 - smoothing) + smoothing / count) * p.ln()).sum()
        }
    }
}

/// What the kernels add to the loss of a row.
fn penalty(spec: &Spec, parameters: &[f64]) -> f64 {
    let model = Model::new(INPUTS, &spec.layers);
    let kernels = model.tensors().into_iter().filter(|tensor| tensor.name.ends_with("/kernel"));
    let dense = spec.layers.iter().filter_map(|layer| match layer {
        Layer::Dense(dense) => Some(dense.kernel_regularizer),
        Layer::Dropout { .. } | Layer::LayerNormalization(_) => None,
    });
    let one = |(tensor, Regularizer { l1, l2 }): (Tensor, Regularizer)| {
        let kernel = &parameters[tensor.offset..][..tensor.shape.iter().product()];
        kernel.iter().map(|w| f64::from(l1) * w.abs() + f64::from(l2) * w * w).sum::<f64>()
    };
    kernels.zip(dense).map(one).sum()
}

fn whole_loss(spec: &Spec, parameters: &[f64], inputs: &[f32], targets: &Targets) -> f64 {
    let target = spec.schema.target;
    let of_row = |(row, inputs): (usize, &[f32])| {
        let inputs: Vec<f64> = inputs.iter().map(|&x| x.into()).collect();
        let outputs = outputs(spec, parameters, &inputs);
        loss(spec, &outputs, &targets.of_row(row, target, outputs.len()))
    };
    let losses: f64 = inputs.chunks(INPUTS).enumerate().map(of_row).sum();
    losses + ROWS as f64 * penalty(spec, parameters)
}

fn check(spec: &Spec) {
    let (model, target) = (Model::new(INPUTS, &spec.layers), spec.schema.target);
    // Away from the first values, which are 0 and 1 in many places.
    let parameters: Vec<f32> = (0..model.parameter_count()).map(number).collect();
    let inputs: Vec<f32> = (0..ROWS * INPUTS).map(|place| number(place + 500)).collect();
    let targets = Targets::new(target);
    let mut gradient = vec![0.0; parameters.len()];
    let learner = Learner { model: &model, spec, parameters: &parameters };
    let figures = learner.gradient_of(&inputs, targets.truth(target), &mut gradient, &mut Scratch::default());

    let mut moved: Vec<f64> = parameters.iter().map(|&value| value.into()).collect();
    let wanted = whole_loss(spec, &moved, &inputs, &targets);
    let name = format!("{} {:?} {:?}", spec.loss, spec.options, spec.layers);
    assert!(
        (figures.loss_sum - wanted).abs() < 2e-5 * wanted.abs().max(1.0),
        "{name}: {}, not {wanted}",
        figures.loss_sum
    );
    for (place, &got) in gradient.iter().enumerate() {
        let at = moved[place];
        let mut loss_at = |value: f64| {
            moved[place] = value;
            whole_loss(spec, &moved, &inputs, &targets)
        };
        let slope = (loss_at(at + STEP) - loss_at(at - STEP)) / (2.0 * STEP);
        moved[place] = at;
        assert!(
            (f64::from(got) - slope).abs() < 1e-4 * slope.abs().max(1.0),
            "{name}, {place}: {got}, not {slope}"
        );
    }
}

/// Layers with everything that layers have, and this activation.
fn layers(hidden: Activation, output: Activation, units: u32) -> Vec<Layer> {
    let regularizer = Regularizer { l1: 0.03, l2: 0.02 };
    let dense = Dense::new(6, hidden);
    vec![
        Layer::LayerNormalization(Normalization { epsilon: 0.01, ..Normalization::default() }),
        Layer::Dense(Dense { use_bias: false, kernel_regularizer: regularizer, ..dense }),
        Layer::LayerNormalization(Normalization::default()),
        Layer::Dense(dense),
        Layer::Dense(Dense {
            kernel_regularizer: Regularizer { l1: 0.0, l2: 0.1 },
            ..Dense::new(units, output)
        }),
    ]
}

#[test]
fn every_gradient_is_the_slope_of_its_loss() {
    let targets = [Target::Class { classes: 2 }, Target::Class { classes: 3 }, Target::Reals { width: 2 }];
    let options = [LossOptions::default(), LossOptions { label_smoothing: 0.2, delta: 0.5 }];
    let mut checked = 0;
    for target in targets {
        for (loss, output, units) in Loss::that_learn(target) {
            for hidden in Activation::ALL.iter().copied().filter(|hidden| hidden.fits_hidden_layers()) {
                for options in options {
                    let features = Features { element: Element::F32, shape: vec![INPUTS as u32] };
                    let sizes = Sizes { train: ROWS as u32, validation: 0, test: 0 };
                    let layers = layers(hidden, output, units);
                    let spec = Job::default().spec(Schema::new(features, target), sizes);
                    check(&Spec { layers, loss, options, metrics: Vec::new(), ..spec });
                    checked += 1;
                }
            }
        }
    }
    assert!(checked >= 9 * 7 * 2, "{checked} models");
}
