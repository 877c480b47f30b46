//! The layers of a job with their places in memory.
//!
//! All parameters of a model are one flat run of `f32`, and so is a gradient: layer by layer, the kernel
//! `[inputs, units]`, row-major, then the bias `[units]`. It is what travels, what is added, hashed and
//! saved; [`Model`] says which part is what. Names and shapes are Keras', so that saved models can be read
//! there.

use std::ops::Range;

use super::activations::Activation;
use super::layers::Layer;
use crate::random;

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
    Dense { activation: Activation, kernel: Range<usize>, bias: Range<usize> },
    /// Only while training: a share `rate` of the values becomes 0.
    Dropout { rate: f32 },
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
            Layer::Dense { units, activation } => {
                let outputs = units as usize;
                let kernel = self.place(inputs * outputs);
                let bias = self.place(outputs);
                LayerPlan { inputs, outputs, operation: Operation::Dense { activation, kernel, bias } }
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

    pub(super) fn steps(&self) -> &[LayerPlan] {
        &self.steps
    }

    /// The parameters' parts, in the order in which they lie in memory.
    pub fn tensors(&self) -> Vec<Tensor> {
        let named = self.steps.iter().zip(self.names());
        named.flat_map(|(step, name)| step.tensors(&name)).collect()
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
            let base = step.type_name().to_lowercase();
            let before =
                self.steps[..index].iter().filter(|other| other.type_name() == step.type_name()).count();
            if before == 0 { base } else { format!("{base}_{before}") }
        })
    }

    /// The parameters before the first step: Glorot-uniform kernels (Glorot & Bengio, 2010, equation 16;
    /// Keras' `GlorotUniform`), biases of zero.
    pub fn initial_parameters(&self, seed: u64) -> Vec<f32> {
        let mut parameters = vec![0.0; self.parameters];
        for (index, step) in self.steps.iter().enumerate() {
            if let Operation::Dense { kernel, .. } = &step.operation {
                let limit = (6.0 / (step.inputs + step.outputs) as f32).sqrt();
                random::uniform(seed, index as u64, limit, &mut parameters[kernel.clone()]);
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
        }
    }

    fn parameter_count(&self) -> usize {
        match &self.operation {
            Operation::Dense { kernel, bias, .. } => kernel.len() + bias.len(),
            Operation::Dropout { .. } => 0,
        }
    }

    fn tensors(&self, layer: &str) -> Vec<Tensor> {
        let Operation::Dense { kernel, bias, .. } = &self.operation else {
            return Vec::new();
        };
        let tensor = |name, shape, offset| Tensor { name: format!("{layer}/{name}"), shape, offset };
        vec![
            tensor("kernel", vec![self.inputs, self.outputs], kernel.start),
            tensor("bias", vec![self.outputs], bias.start),
        ]
    }
}
