//! The layers of a job with their places in memory.
//!
//! All parameters of a model are one flat run of `f32`, and so is a gradient: layer by layer, the kernel
//! `[inputs, units]`, row-major, then the bias `[units]`, or `gamma` and `beta`. It is what travels, what is added, hashed and
//! saved; [`Model`] says which part is what. Names and shapes are Keras', so that saved models can be read
//! there.

use std::ops::Range;

use super::activations::Activation;
use super::initializers::Initializer;
use super::layers::{Layer, Normalization, Regularizer};

/// A stack of layers, each of which feeds the next; Keras' `Sequential`.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    inputs: usize,
    steps: Vec<LayerPlan>,
    parameters: usize,
}

/// A layer with the widths around it and the place of its parameters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LayerPlan {
    /// Values of a sample that go in.
    pub(super) inputs: usize,
    /// Values of a sample that come out.
    pub(super) outputs: usize,
    /// What happens to them.
    pub(super) operation: Operation,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operation {
    /// `activation(x · kernel + bias)`.
    Dense {
        activation: Activation,
        kernel: Range<usize>,
        /// Empty without a bias.
        bias: Range<usize>,
        initializer: Initializer,
        regularizer: Regularizer,
        trainable: bool,
    },
    /// Only while training: a share `rate` of the values becomes 0.
    Dropout { rate: f32 },
    /// Normalized, times `gamma` plus `beta`.
    LayerNormalization { epsilon: f32, gamma: Range<usize>, beta: Range<usize>, trainable: bool },
}

/// A named part of the parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// As Keras calls it: `dense/kernel`, `dense/bias`, `dense_1/kernel` …
    pub name: String,
    /// `[inputs, units]` for a kernel, `[units]` for a bias; row-major.
    pub shape: Vec<usize>,
    /// Where it begins among all parameters.
    pub offset: usize,
}

/// A line of the model's summary, as Keras' `model.summary()` has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryRow {
    /// The layer's name: `dense_1`.
    pub name: String,
    /// Its type: `Dense`.
    pub kind: &'static str,
    /// Its outputs for a batch of any size: `(None, 128)`.
    pub output_shape: String,
    /// How many parameters it has.
    pub parameters: usize,
}

impl Model {
    /// The model that has these layers above `inputs` values a sample. The layers are those of a valid job.
    pub fn new(inputs: usize, layers: &[Layer]) -> Self {
        let mut model = Self { inputs, steps: Vec::with_capacity(layers.len()), parameters: 0 };
        for layer in layers {
            let step = model.step_above(layer);
            model.steps.push(step);
        }
        model
    }

    fn step_above(&mut self, layer: &Layer) -> LayerPlan {
        let inputs = self.outputs();
        match *layer {
            Layer::Dense(dense) => {
                let outputs = dense.units as usize;
                let kernel = self.place(inputs * outputs);
                let bias = self.place(if dense.use_bias { outputs } else { 0 });
                let operation = Operation::Dense {
                    activation: dense.activation,
                    kernel,
                    bias,
                    initializer: dense.kernel_initializer,
                    regularizer: dense.kernel_regularizer,
                    trainable: dense.trainable,
                };
                LayerPlan { inputs, outputs, operation }
            }
            Layer::LayerNormalization(Normalization { epsilon, trainable }) => {
                let (gamma, beta) = (self.place(inputs), self.place(inputs));
                let operation = Operation::LayerNormalization { epsilon, gamma, beta, trainable };
                LayerPlan { inputs, outputs: inputs, operation }
            }
            Layer::Dropout { rate } => {
                LayerPlan { inputs, outputs: inputs, operation: Operation::Dropout { rate } }
            }
        }
    }

    /// The next `len` parameters.
    fn place(&mut self, len: usize) -> Range<usize> {
        let start = self.parameters;
        self.parameters += len;
        start..self.parameters
    }

    /// Values of a sample that go in.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Values of a sample that come out.
    pub fn outputs(&self) -> usize {
        self.steps.last().map_or(self.inputs, |step| step.outputs)
    }

    /// The length of the parameters, and of a gradient.
    pub fn parameter_count(&self) -> usize {
        self.parameters
    }

    /// Whether a dense layer has no bias.
    pub(super) fn lacks_a_bias(&self) -> bool {
        let lacks =
            |step: &LayerPlan| matches!(&step.operation, Operation::Dense { bias, .. } if bias.is_empty());
        self.steps.iter().any(lacks)
    }

    /// The most values that come out of a layer.
    pub(super) fn widest(&self) -> usize {
        self.steps.iter().map(|step| step.outputs).max().unwrap_or(0)
    }

    pub(super) fn steps(&self) -> &[LayerPlan] {
        &self.steps
    }

    /// The parameters' parts, in the order in which they lie in memory.
    pub fn tensors(&self) -> Vec<Tensor> {
        let named = self.steps.iter().zip(self.names());
        named.flat_map(|(step, name)| step.tensors(&name)).collect()
    }

    /// The place of each part.
    pub fn variables(&self) -> Vec<Range<usize>> {
        let place = |tensor: Tensor| tensor.offset..tensor.offset + tensor.shape.iter().product::<usize>();
        self.tensors().into_iter().map(place).collect()
    }

    /// What `model.summary()` prints in Keras, a row a layer.
    pub fn summary(&self) -> Vec<SummaryRow> {
        let named = self.steps.iter().zip(self.names());
        named
            .map(|(step, name)| SummaryRow {
                name,
                kind: step.type_name(),
                output_shape: format!("(None, {})", step.outputs),
                parameters: step.parameter_count(),
            })
            .collect()
    }

    /// Each layer's name: its type, and from the second of a type on a number, from 1.
    fn names(&self) -> impl Iterator<Item = String> {
        self.steps.iter().enumerate().map(|(index, step)| {
            let base = step.base_name();
            let before =
                self.steps[..index].iter().filter(|other| other.type_name() == step.type_name()).count();
            if before == 0 { base.to_string() } else { format!("{base}_{before}") }
        })
    }

    /// The places of the parameters that training does not change.
    pub fn frozen(&self) -> Vec<Range<usize>> {
        let frozen = self.steps.iter().filter(|step| !step.is_trainable());
        frozen.flat_map(|step| step.places()).filter(|place| !place.is_empty()).collect()
    }

    /// The parameters before the first step: kernels as their layers say (Keras' `GlorotUniform` by default), biases of
    /// zero; in layer normalization a `gamma` of one and a `beta` of zero.
    pub fn initial_parameters(&self, seed: u64) -> Vec<f32> {
        let mut parameters = vec![0.0; self.parameters];
        for (index, step) in self.steps.iter().enumerate() {
            match &step.operation {
                Operation::Dense { kernel, initializer, .. } => {
                    let kernel = &mut parameters[kernel.clone()];
                    initializer.get().fill(seed, index as u64, step.inputs, step.outputs, kernel);
                }
                Operation::LayerNormalization { gamma, .. } => parameters[gamma.clone()].fill(1.0),
                Operation::Dropout { .. } => {}
            }
        }
        parameters
    }
}

impl LayerPlan {
    fn type_name(&self) -> &'static str {
        match self.operation {
            Operation::Dense { .. } => "Dense",
            Operation::Dropout { .. } => "Dropout",
            Operation::LayerNormalization { .. } => "LayerNormalization",
        }
    }

    /// Keras' name of the first layer of this type.
    fn base_name(&self) -> &'static str {
        match self.operation {
            Operation::Dense { .. } => "dense",
            Operation::Dropout { .. } => "dropout",
            Operation::LayerNormalization { .. } => "layer_normalization",
        }
    }

    /// The places of its parameters.
    pub(super) fn places(&self) -> [Range<usize>; 2] {
        match &self.operation {
            Operation::Dense { kernel, bias, .. } => [kernel.clone(), bias.clone()],
            Operation::LayerNormalization { gamma, beta, .. } => [gamma.clone(), beta.clone()],
            Operation::Dropout { .. } => [0..0, 0..0],
        }
    }

    /// Whether training changes its parameters.
    pub(super) fn is_trainable(&self) -> bool {
        match self.operation {
            Operation::Dense { trainable, .. } | Operation::LayerNormalization { trainable, .. } => trainable,
            Operation::Dropout { .. } => false,
        }
    }

    fn parameter_count(&self) -> usize {
        self.places().iter().map(|place| place.len()).sum()
    }

    fn tensors(&self, layer: &str) -> Vec<Tensor> {
        let tensor = |name, shape, offset| Tensor { name: format!("{layer}/{name}"), shape, offset };
        let [first, second] = self.places();
        let kernel = || tensor("kernel", vec![self.inputs, self.outputs], first.start);
        match self.operation {
            Operation::Dense { .. } if second.is_empty() => vec![kernel()],
            Operation::Dense { .. } => vec![kernel(), tensor("bias", vec![self.outputs], second.start)],
            Operation::LayerNormalization { .. } => vec![
                tensor("gamma", vec![self.outputs], first.start),
                tensor("beta", vec![self.outputs], second.start),
            ],
            Operation::Dropout { .. } => Vec::new(),
        }
    }
}
