//! The layers that a job stacks, as it names them.

use std::fmt::{self, Display, Formatter};

use super::activations::Activation;
use super::initializers::Initializer;

/// A layer of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layer {
    /// `activation(x · kernel + bias)`; Keras' `Dense`.
    Dense(Dense),
    /// Inverted dropout: while training, a share `rate` of the units is zero and the rest is divided by `1 - rate`.
    Dropout {
        /// In `[0, 1)`.
        rate: f32,
    },
    /// Each sample's values with mean 0 and variance 1, times `gamma` plus `beta`; Keras' `LayerNormalization`.
    LayerNormalization(Normalization),
}

/// A dense layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dense {
    /// Outputs.
    pub units: u32,
    /// The function applied to every output.
    pub activation: Activation,
    /// Whether there is a bias.
    pub use_bias: bool,
    /// What the kernel is before the first step.
    pub kernel_initializer: Initializer,
    /// What the kernel adds to the loss.
    pub kernel_regularizer: Regularizer,
    /// Whether training changes it.
    pub trainable: bool,
}

/// What a kernel adds to the loss: `l1 Σ |w| + l2 Σ w²`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Regularizer {
    /// The factor of the sum of sizes; at least 0.
    pub l1: f32,
    /// The factor of the sum of squares; at least 0.
    pub l2: f32,
}

/// A layer normalization.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// Added to the variance, so that nothing is divided by 0.
    pub epsilon: f32,
    /// Whether training changes it.
    pub trainable: bool,
}

impl Dense {
    /// A dense layer with the defaults of Keras.
    pub const fn new(units: u32, activation: Activation) -> Self {
        Self {
            units,
            activation,
            use_bias: true,
            kernel_initializer: Initializer::GlorotUniform,
            kernel_regularizer: Regularizer { l1: 0.0, l2: 0.0 },
            trainable: true,
        }
    }
}

impl Default for Normalization {
    fn default() -> Self {
        Self { epsilon: 0.001, trainable: true }
    }
}

impl Regularizer {
    /// Whether it adds nothing.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// What is wrong with a factor, and which ones are valid.
    pub fn problem_of(factor: f32) -> Option<&'static str> {
        let problem = "not a factor of a penalty; give a finite number of at least 0, such as 0.01";
        (!(factor == 0.0 || factor.is_normal() && factor > 0.0)).then_some(problem)
    }
}

impl Normalization {
    /// What is wrong with an `epsilon`, and which ones are valid.
    pub fn problem_of(epsilon: f32) -> Option<&'static str> {
        let problem = "nothing to divide by safely; give a finite number above 0, such as 0.001";
        (!(epsilon.is_normal() && epsilon > 0.0)).then_some(problem)
    }
}

impl Layer {
    /// The types' names, for errors.
    pub(crate) const NAMES: &[&str] = &["dense", "dropout", "layer_normalization"];

    /// A dense layer with the defaults of Keras.
    pub const fn dense(units: u32, activation: Activation) -> Self {
        Self::Dense(Dense::new(units, activation))
    }

    /// Its type in a job file; Keras' class name in lower case.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Dense(_) => "dense",
            Self::Dropout { .. } => "dropout",
            Self::LayerNormalization(_) => "layer_normalization",
        }
    }

    /// Whether training changes it.
    pub const fn is_trainable(&self) -> bool {
        match self {
            Self::Dense(dense) => dense.trainable,
            Self::Dropout { .. } => false,
            Self::LayerNormalization(normalization) => normalization.trainable,
        }
    }
}

impl Display for Layer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense(dense) => dense.fmt(f),
            Self::Dropout { rate } => write!(f, "dropout {rate}"),
            Self::LayerNormalization(Normalization { epsilon, trainable }) => {
                let frozen = if *trainable { "" } else { " frozen" };
                write!(f, "layer_normalization {epsilon}{frozen}")
            }
        }
    }
}

/// `dense 256 sigmoid`, and what does not have its default.
impl Display for Dense {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { units, activation, use_bias, kernel_initializer, kernel_regularizer, trainable } = self;
        let Regularizer { l1, l2 } = kernel_regularizer;
        write!(f, "dense {units} {activation}")?;
        if !use_bias {
            write!(f, " without bias")?;
        }
        if *kernel_initializer != Initializer::GlorotUniform {
            write!(f, " {kernel_initializer}")?;
        }
        if *l1 != 0.0 {
            write!(f, " l1 {l1}")?;
        }
        if *l2 != 0.0 {
            write!(f, " l2 {l2}")?;
        }
        if *trainable { Ok(()) } else { write!(f, " frozen") }
    }
}
