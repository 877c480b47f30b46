//! Activation functions, one per file.
//!
//! To add one, add a file with a [`Function`] and a line in the registry below. Its name is then valid in jobs,
//! on the wire and in errors, and the Keras vectors that use it are checked.

/// Defines the loops of an activation that takes one number at a time, from its scalar function: `apply(values)`, and
/// `add_bias(z, bias)`, which adds a bias first; with a scalar function of the slope, also `with_slopes(z, bias, slopes)`.
macro_rules! pointwise {
    ($of:ident => $apply:ident, $add_bias:ident) => {
        $crate::learn::elementwise::for_every_level! {
            /// `x ← f(x)`.
            pub fn $apply(values: &mut [f32]) {
                for value in values {
                    *value = $of(*value);
                }
            }

            /// `z ← f(z + bias)`, for every row of `z` `[rows, units]` and `bias` `[units]`.
            pub fn $add_bias(z: &mut [f32], bias: &[f32]) {
                for row in z.chunks_exact_mut(bias.len()) {
                    for (value, bias) in row.iter_mut().zip(bias) {
                        *value = $of(*value + bias);
                    }
                }
            }
        }
    };
    ($of:ident, $slope_of:ident => $apply:ident, $add_bias:ident, $with_slopes:ident) => {
        pointwise!($of => $apply, $add_bias);

        $crate::learn::elementwise::for_every_level! {
            /// `z ← f(z + bias)` and `slopes ← f'(z + bias)`.
            pub fn $with_slopes(z: &mut [f32], bias: &[f32], slopes: &mut [f32]) {
                for (row, slopes) in z.chunks_exact_mut(bias.len()).zip(slopes.chunks_exact_mut(bias.len())) {
                    for ((value, bias), slope) in row.iter_mut().zip(bias).zip(slopes) {
                        let x = *value + bias;
                        (*value, *slope) = ($of(x), $slope_of(x));
                    }
                }
            }
        }
    };
}

mod gelu;
mod leaky_relu;
mod linear;
mod relu;
pub(crate) mod sigmoid;
mod silu;
pub(in crate::learn) mod softmax;
mod tanh;

use crate::registry::registry;

registry! {
    /// An activation function.
    pub enum Activation: dyn Function, "activation", "activations" {
        /// `x · Φ(x)`, with the normal distribution `Φ`.
        Gelu = gelu::Gelu,
        /// `max(0.2 x, x)`.
        LeakyRelu = leaky_relu::LeakyRelu,
        /// `x`: none.
        Linear = linear::Linear,
        /// `max(0, x)`.
        Relu = relu::Relu,
        /// `1 / (1 + exp(-x))`.
        Sigmoid = sigmoid::Sigmoid,
        /// `x / (1 + exp(-x))`.
        Silu = silu::Silu,
        /// `exp(x_i) / Σ exp(x_j)`, over a row.
        Softmax = softmax::Softmax,
        /// `tanh(x)`.
        Tanh = tanh::Tanh,
    }
}

/// The interface of an activation.
pub(crate) trait Function: Sync {
    /// Keras' name.
    fn name(&self) -> &'static str;

    /// `z ← f(z)`, for `z` `[rows, units]`: a model's outputs. `scratch` is overwritten.
    fn apply(&self, z: &mut [f32], units: usize, scratch: &mut Vec<f32>);

    /// The functions for hidden layers; `None` if only an output layer can have this activation.
    fn hidden(&self) -> Option<&dyn Hidden>;
}

/// An activation of a hidden layer, which takes one number at a time.
pub trait Hidden: Sync {
    /// `z ← f(z + bias)`, for every row of `z` `[rows, units]` and `bias` `[units]`.
    fn add_bias(&self, z: &mut [f32], bias: &[f32]);

    /// Whether `backward` takes slopes, because `f'(z)` does not follow from `f(z)`.
    fn needs_slopes(&self) -> bool {
        false
    }

    /// As [`add_bias`](Self::add_bias), and `slopes ← f'(z + bias)`; for functions that need slopes.
    fn add_bias_with_slopes(&self, z: &mut [f32], bias: &[f32], slopes: &mut [f32]) {
        unreachable!("{} slopes of {} outputs with {} biases", slopes.len(), z.len(), bias.len())
    }

    /// Turns the gradient with respect to the outputs into the gradient with respect to `z`: `delta ← delta ·
    /// f'(z)`. `forward` are the outputs `f(z)`, or the slopes `f'(z)` if the function needs them.
    fn backward(&self, delta: &mut [f32], forward: &[f32]);
}

impl Activation {
    /// Whether a hidden layer can have this activation.
    pub fn fits_hidden_layers(self) -> bool {
        self.get().hidden().is_some()
    }

    /// The activation for a hidden layer.
    pub fn hidden(self) -> &'static dyn Hidden {
        self.get().hidden().unwrap_or_else(|| unreachable!("a valid job has {self} only at its output"))
    }
}
