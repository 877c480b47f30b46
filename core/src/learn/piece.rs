//! A piece: one shard's part of a training step, or one shard of an evaluation.
//!
//! A training piece gathers its samples, runs the forward and the backward pass, and returns the *sum* of the
//! per-sample gradients. It depends only on the parameters, the shard, its order and the epoch, never on the
//! process that computes it or on other pieces. Evaluation goes through a shard in ascending chunks of
//! [`EVALUATION_ROWS`] samples, without dropout.
//!
//! ```text
//! bytes ─scale▶ x ─gemm▶ +bias, sigmoid ─▶ … ─gemm▶ +bias ─softmax, cross-entropy▶ p, loss, correct
//!      gradient ◀gemm─ δ·a(1-a) ◀gemm─ … ◀─ p - y
//! ```
//!
//! The gradient with respect to the samples is not needed, so it is not computed. Every GEMM writes its part of
//! the gradient in place, so there is no other pass over that memory. Buffers are kept in a [`Scratch`], one for
//! each thread that computes.

use std::ops::Range;

use super::activations::Activation;
use super::elementwise;
use super::gemm::{Matrix, gemm};
use super::heads::{self, Aim};
use super::metrics::{Layout, Metric, Rows};
use super::model::{LayerPlan, Model, Operation};
use super::normalization;
use super::regularization;
use super::spec::Spec;
use super::subnormals::flushed;
use super::sum::Figures;
use crate::data::plan;
use crate::data::schema::{Element, Truth, Truths};
use crate::data::shard::ShardSamples;
use crate::data::split::Split;
use crate::random::DropoutWords;

/// The number of samples that an evaluation computes at once.
///
/// A row's bits depend on the number of rows of its GEMM, so changing this changes the history of a job.
pub const EVALUATION_ROWS: usize = 250;

/// The samples of a shard, and its index.
#[derive(Clone, Copy, Debug)]
pub struct ShardView<'a> {
    /// The shard's index.
    pub shard: u32,
    /// The number of shards: local sample k is sample `k · shards + shard` of its split.
    pub shards: u32,
    /// The shard's samples.
    pub samples: &'a ShardSamples,
}

/// The result of a piece, except for its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct PieceOutcome {
    /// The loss and the metrics of the samples.
    pub figures: Figures,
    /// SHA-256 over the samples' indices in the split, each as 8 bytes, little-endian, in the order of the
    /// samples.
    pub samples_sha256: [u8; 32],
}

/// Buffers reused from piece to piece, so that only the first piece allocates.
#[derive(Debug, Default)]
pub struct Scratch {
    /// `values[i]` is the input of layer i, `[rows, inputs]`; the last one is the model's output.
    values: Vec<Vec<f32>>,
    /// For a dropout layer i, `factors[i]`, `[rows, units]`, holds the factors that its inputs were multiplied by; for
    /// a dense layer whose activation needs them, the slopes of its outputs; for a layer normalization, its normalized
    /// inputs.
    factors: Vec<Vec<f32>>,
    /// For a layer normalization i, `scales[i]`, `[rows]`, holds the factors that normalized its rows.
    scales: Vec<Vec<f32>>,
    /// In place of the bias of a layer without one.
    zeros: Vec<f32>,
    /// The random words of a dropout layer, `[rows, units]`.
    words: Vec<u32>,
    /// The gradients with respect to the outputs of the current layer, `[rows, outputs]`, and to its inputs.
    delta: Vec<f32>,
    delta_below: Vec<f32>,
    /// The targets of the rows.
    truths: Truths,
    /// Their weights; empty if each counts as one.
    weights: Vec<f32>,
    /// Per-row scratch space for the head.
    loss_scratch: heads::LossScratch,
}

/// A model with its current parameters: everything that a piece needs besides the samples.
#[derive(Clone, Copy, Debug)]
pub struct Learner<'a> {
    /// The layers.
    pub model: &'a Model,
    /// The job.
    pub spec: &'a Spec,
    /// All of the model's parameters.
    pub parameters: &'a [f32],
}

/// What a forward pass is for.
#[derive(Clone, Copy)]
enum Pass<'a> {
    /// The outputs alone, without dropout.
    Inference,
    /// A backward pass follows. Without a context, dropout is disabled.
    Training(Option<&'a DropoutContext<'a>>),
}

/// The dropout of one training piece.
struct DropoutContext<'a> {
    seed: u64,
    epoch: u64,
    samples: &'a ShardView<'a>,
    order: &'a [u32],
}

impl Learner<'_> {
    /// Computes a training piece: the samples at `order` (their indices in the shard) in `epoch` (from 0).
    ///
    /// `gradient`, as long as the parameters, is overwritten with the sum of the samples' gradients.
    pub fn train_piece(
        &self,
        samples: &ShardView<'_>,
        order: &[u32],
        epoch: u64,
        gradient: &mut [f32],
        scratch: &mut Scratch,
    ) -> PieceOutcome {
        assert_eq!(gradient.len(), self.model.parameter_count(), "a gradient is as long as the parameters");
        let rows = order.len();
        let dropout = DropoutContext { seed: self.spec.seed, epoch, samples, order };

        self.prepare(samples, scratch);
        self.gather(samples, order, scratch);
        self.forward(rows, Pass::Training(Some(&dropout)), scratch);
        let mut figures = Figures::default();
        self.score(rows, &self.layout(Split::Train), &mut figures, scratch);
        self.add_penalty(&mut figures);
        self.backward(rows, gradient, scratch);
        samples.outcome(figures, order.iter().copied())
    }

    /// Computes the summed gradient for `inputs`, `[rows, inputs]`, already scaled, without dropout.
    ///
    /// `gradient`, as long as the parameters, is overwritten.
    pub fn gradient_of(
        &self,
        inputs: &[f32],
        truth: Truth<'_>,
        gradient: &mut [f32],
        scratch: &mut Scratch,
    ) -> Figures {
        assert_eq!(gradient.len(), self.model.parameter_count(), "a gradient is as long as the parameters");
        let rows = inputs.len() / self.model.inputs();
        self.allocate(scratch);
        sized(&mut scratch.values[0], inputs.len()).copy_from_slice(inputs);
        scratch.truths.clear();
        scratch.truths.add(truth);
        scratch.weights.clear();
        self.forward(rows, Pass::Training(None), scratch);
        let mut figures = Figures::default();
        self.score(rows, &self.layout(Split::Train), &mut figures, scratch);
        self.add_penalty(&mut figures);
        self.backward(rows, gradient, scratch);
        figures
    }

    /// Evaluates a whole shard.
    pub fn evaluate_piece(&self, samples: &ShardView<'_>, scratch: &mut Scratch) -> PieceOutcome {
        self.prepare(samples, scratch);
        // Every held-out split has the same tallies.
        let (layout, mut figures) = (self.layout(Split::Validation), Figures::default());
        let len = samples.samples.len();
        for first in (0..len).step_by(EVALUATION_ROWS) {
            let chunk = first..len.min(first + EVALUATION_ROWS as u32);
            let rows = self.forward_chunk(samples.samples.features_of(chunk.clone()), scratch);
            scratch.truths.clear();
            scratch.truths.extend(self.spec.schema.target, samples.samples.targets_of(chunk.clone()));
            scratch.weights.clear();
            scratch.weights.extend(weights(samples.samples, chunk));
            self.score(rows, &layout, &mut figures, scratch);
        }
        self.add_penalty(&mut figures);
        samples.outcome(figures, 0..len)
    }

    /// The model's outputs, `[samples, outputs]`, for the `features` of samples as they are stored, one after another.
    pub fn outputs(&self, features: &[u8], scratch: &mut Scratch) -> Vec<f32> {
        let (width, bytes) = (self.model.outputs(), self.spec.schema.features.bytes());
        self.allocate(scratch);
        let mut outputs = Vec::with_capacity(features.len() / bytes * width);
        for chunk in features.chunks(EVALUATION_ROWS * bytes) {
            let rows = self.forward_chunk(chunk, scratch);
            let last = &mut scratch.values[self.model.steps().len()][..rows * width];
            let totals = &mut scratch.loss_scratch.totals;
            flushed(|| self.output_activation().get().apply(last, width, totals));
            outputs.extend_from_slice(last);
        }
        outputs
    }

    fn prepare(&self, samples: &ShardView<'_>, scratch: &mut Scratch) {
        assert_eq!(samples.samples.schema(), &self.spec.schema, "the samples are the job's");
        self.allocate(scratch);
    }

    fn allocate(&self, scratch: &mut Scratch) {
        assert_eq!(self.parameters.len(), self.model.parameter_count(), "the parameters are the model's");
        assert_eq!(self.spec.inputs(), self.model.inputs(), "a sample is as wide as the model's input");
        let layers = self.model.steps().len();
        scratch.values.resize_with(layers + 1, Vec::new);
        scratch.factors.resize_with(layers, Vec::new);
        scratch.scales.resize_with(layers, Vec::new);
        if self.model.lacks_a_bias() {
            sized(&mut scratch.zeros, self.model.widest());
        }
    }

    fn gather(&self, samples: &ShardView<'_>, order: &[u32], scratch: &mut Scratch) {
        let (width, target) = (self.model.inputs(), self.spec.schema.target);
        let input = sized(&mut scratch.values[0], order.len() * width);
        for (row, &k) in input.chunks_exact_mut(width).zip(order) {
            self.scaled(samples.samples.features_of(k..k + 1), row);
        }
        scratch.truths.clear();
        scratch.weights.clear();
        for &k in order {
            scratch.truths.extend(target, samples.samples.targets_of(k..k + 1));
            scratch.weights.extend(weights(samples.samples, k..k + 1));
        }
    }

    /// Converts stored features to the model's inputs.
    fn scaled(&self, features: &[u8], out: &mut [f32]) {
        match self.spec.schema.features.element {
            Element::U8 => elementwise::scaled_bytes(features, self.spec.scale, out),
            Element::F32 => elementwise::scaled_floats(features, self.spec.scale, out),
        }
    }

    /// Runs the forward pass on contiguous stored features. Returns the number of samples.
    fn forward_chunk(&self, features: &[u8], scratch: &mut Scratch) -> usize {
        let rows = features.len() / self.spec.schema.features.bytes();
        self.scaled(features, sized(&mut scratch.values[0], rows * self.model.inputs()));
        self.forward(rows, Pass::Inference, scratch);
        rows
    }

    /// The forward pass, up to the last layer's sums before its activation.
    fn forward(&self, rows: usize, pass: Pass<'_>, scratch: &mut Scratch) {
        let steps = self.model.steps();
        for (index, step) in steps.iter().enumerate() {
            let (below, above) = scratch.values.split_at_mut(index + 1);
            let input = &below[index][..rows * step.inputs];
            let output = sized(&mut above[0], rows * step.outputs);
            match (&step.operation, pass) {
                (Operation::Dense { activation, kernel, bias, .. }, _) => {
                    let weights = Matrix::new(&self.parameters[kernel.clone()], step.outputs);
                    gemm(Matrix::new(input, step.inputs), weights, output);
                    let bias = match &self.parameters[bias.clone()] {
                        [] => &scratch.zeros[..step.outputs],
                        bias => bias,
                    };
                    // The head applies the output layer's activation.
                    match (index + 1 < steps.len(), pass) {
                        (false, _) => elementwise::add_bias(output, bias),
                        (true, Pass::Training(_)) if activation.hidden().needs_slopes() => {
                            let slopes = sized(&mut scratch.factors[index], output.len());
                            activation.hidden().add_bias_with_slopes(output, bias, slopes);
                        }
                        (true, _) => activation.hidden().add_bias(output, bias),
                    }
                }
                (Operation::LayerNormalization { epsilon, gamma, beta, .. }, _) => {
                    let normalized = sized(&mut scratch.factors[index], input.len());
                    let scales = sized(&mut scratch.scales[index], rows);
                    normalization::normalize(input, step.inputs, *epsilon, normalized, scales);
                    let [gamma, beta] = [gamma, beta].map(|place| &self.parameters[place.clone()]);
                    normalization::stretch(normalized, gamma, beta, output);
                }
                (Operation::Dropout { .. }, Pass::Inference | Pass::Training(None)) => {
                    output.copy_from_slice(input)
                }
                (Operation::Dropout { rate }, Pass::Training(Some(dropout))) => {
                    let factors = sized(&mut scratch.factors[index], input.len());
                    dropout.factors(index, *rate, step.outputs, &mut scratch.words, factors);
                    elementwise::multiply(input, factors, output);
                }
            }
        }
    }

    /// What the regularised kernels add to the loss of each sample; 0 if there are none.
    fn penalty(&self) -> f64 {
        let regularized = self.model.steps().iter().filter_map(|step| match &step.operation {
            Operation::Dense { kernel, regularizer, .. } if !regularizer.is_none() => {
                Some((kernel, regularizer))
            }
            Operation::Dense { .. } | Operation::Dropout { .. } | Operation::LayerNormalization { .. } => {
                None
            }
        });
        let penalties = regularized.map(|(kernel, regularizer)| {
            regularization::penalty(*regularizer, &self.parameters[kernel.clone()])
        });
        penalties.fold(0.0, |sum, penalty| sum + penalty)
    }

    fn output_activation(&self) -> Activation {
        match self.model.steps().last() {
            Some(LayerPlan { operation: Operation::Dense { activation, .. }, .. }) => *activation,
            _ => unreachable!("a valid job ends with a dense layer"),
        }
    }

    /// Adds the penalty of every sample to the loss.
    fn add_penalty(&self, figures: &mut Figures) {
        let penalty = self.penalty();
        if penalty != 0.0 {
            figures.loss_sum += figures.samples as f64 * penalty;
        }
    }

    /// Where the tallies of the metrics lie.
    fn layout(&self, split: Split) -> Layout {
        Layout::of(&self.spec.metrics, self.spec.schema.target, split)
    }

    /// Computes the loss and the metrics from the last layer's sums, adds them to `figures`, and turns the sums into the
    /// model's outputs.
    fn score(&self, rows: usize, layout: &Layout, figures: &mut Figures, scratch: &mut Scratch) {
        let (width, Scratch { values, truths, weights, loss_scratch, .. }) = (self.model.outputs(), scratch);
        let last = &mut values[self.model.steps().len()][..rows * width];
        let truth = truths.get(self.spec.schema.target);
        let aim = Aim { width, truth, options: self.spec.options, weights };
        let loss_sum = flushed(|| self.spec.loss.get().forward(last, aim, loss_scratch));
        let scored = Rows { outputs: last, width, truth };
        figures.loss_sum += loss_sum;
        figures.samples += rows as u64;
        if self.spec.metrics.contains(&Metric::Accuracy) {
            figures.correct += scored.correct();
        }
        figures.counts.resize(layout.counts(), 0);
        figures.sums.resize(layout.sums(), 0.0);
        layout.add(scored, &mut figures.counts, &mut figures.sums);
    }

    /// The backward pass, from the outputs to the first layer that learns. Gradients of frozen parameters are 0.
    fn backward(&self, rows: usize, gradient: &mut [f32], scratch: &mut Scratch) {
        let Scratch { values, factors, scales, delta, delta_below, truths, weights, .. } = scratch;
        let steps = self.model.steps();
        let first = steps.iter().position(LayerPlan::is_trainable);
        for step in steps.iter().filter(|step| !step.is_trainable()) {
            step.places().into_iter().for_each(|place| gradient[place].fill(0.0));
        }

        let width = self.model.outputs();
        let outputs = &values[steps.len()][..rows * width];
        let last = sized(delta, outputs.len());
        last.copy_from_slice(outputs);
        let (truth, options) = (truths.get(self.spec.schema.target), self.spec.options);
        let aim = Aim { width, truth, options, weights };
        flushed(|| {
            self.spec.loss.get().backward(last, aim);
            aim.weigh(last);
        });

        for (index, step) in steps.iter().enumerate().rev() {
            let above = &mut delta[..rows * step.outputs];
            match &step.operation {
                Operation::Dropout { .. } => {
                    elementwise::multiply_assign(above, &factors[index][..above.len()])
                }
                Operation::LayerNormalization { gamma, beta, trainable, .. } => {
                    let normalized = &factors[index][..above.len()];
                    if *trainable {
                        elementwise::column_sums(above, &mut gradient[beta.clone()]);
                        normalization::gradient_of_gamma(above, normalized, &mut gradient[gamma.clone()]);
                    }
                    if Some(index) == first {
                        return;
                    }
                    let gamma = &self.parameters[gamma.clone()];
                    normalization::pass_back(above, gamma, normalized, &scales[index][..rows]);
                }
                Operation::Dense { activation, kernel, bias, regularizer, trainable, .. } => {
                    if index + 1 < steps.len() {
                        let hidden = activation.hidden();
                        let forward =
                            if hidden.needs_slopes() { &factors[index] } else { &values[index + 1] };
                        hidden.backward(above, &forward[..rows * step.outputs]);
                    }
                    if *trainable && !bias.is_empty() {
                        elementwise::column_sums(above, &mut gradient[bias.clone()]);
                    }
                    let input = Matrix::new(&values[index][..rows * step.inputs], step.inputs);
                    let above = Matrix::new(above, step.outputs);
                    if *trainable {
                        gemm(input.transposed(), above, &mut gradient[kernel.clone()]);
                        if !regularizer.is_none() {
                            let (weights, sums) =
                                (&self.parameters[kernel.clone()], &mut gradient[kernel.clone()]);
                            regularization::add_gradient(*regularizer, rows, weights, sums);
                        }
                    }
                    if Some(index) == first {
                        return;
                    }
                    let weights = Matrix::new(&self.parameters[kernel.clone()], step.outputs);
                    gemm(above, weights.transposed(), sized(delta_below, rows * step.inputs));
                    std::mem::swap(delta, delta_below);
                }
            }
        }
    }
}

impl ShardView<'_> {
    /// The index in the split of local sample `k`.
    fn index(&self, k: u32) -> u64 {
        u64::from(k) * u64::from(self.shards) + u64::from(self.shard)
    }

    fn outcome(&self, figures: Figures, gathered: impl ExactSizeIterator<Item = u32>) -> PieceOutcome {
        PieceOutcome { figures, samples_sha256: plan::digest(gathered.map(|k| self.index(k))) }
    }
}

impl DropoutContext<'_> {
    /// The factors by which layer `layer`, with `units` units, multiplies each row: 0, or 1 / (1 - rate).
    fn factors(&self, layer: usize, rate: f32, units: usize, words: &mut Vec<u32>, factors: &mut [f32]) {
        let words = sized(words, factors.len());
        let mut random = DropoutWords::new(self.seed, self.epoch, layer as u64);
        for (row, k) in words.chunks_exact_mut(units).zip(self.order) {
            random.fill(self.samples.index(*k), row);
        }
        // A rate below 1 is at most 1 - 2⁻²⁴, so the threshold fits.
        let threshold = (f64::from(rate) * 2f64.powi(32)).round() as u32;
        elementwise::dropout_factors(words, threshold, 1.0 / (1.0 - rate), factors);
    }
}

/// The weights of some of a shard's samples; none if each counts as one.
fn weights(samples: &ShardSamples, range: Range<u32>) -> impl Iterator<Item = f32> {
    samples.weights_of(range).as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes))
}

/// The first `len` elements of a buffer that grows as needed and never shrinks.
fn sized<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}
