//! The layers that a job stacks, as it names them.

use std::fmt::{self, Display, Formatter};

use super::activations::Activation;

/// A layer of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layer {
    /// `activation(x · kernel + bias)`; Keras' `Dense`.
    Dense {
        /// Outputs.
        units: u32,
        /// The function applied to every output.
        activation: Activation,
    },
    /// Inverted dropout: while training, a share `rate` of the units is zero and the rest is divided by `1 - rate`.
    Dropout {
        /// In `[0, 1)`.
        rate: f32,
    },
}

impl Layer {
    /// The types' names, for errors.
    pub(crate) const NAMES: &[&str] = &["dense", "dropout"];

    /// Its type in a job file; Keras' class name in lower case.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Dense { .. } => "dense",
            Self::Dropout { .. } => "dropout",
        }
    }
}

impl Display for Layer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense { units, activation } => write!(f, "dense {units} {activation}"),
            Self::Dropout { rate } => write!(f, "dropout {rate}"),
        }
    }
}
