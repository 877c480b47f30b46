//! AdamW (I. Loshchilov and F. Hutter, 2019), as Keras has it: every weight loses a share
//! `learning_rate · weight_decay` before the step of [`Adam`](super::adam).

use super::adam::{self, BETA_1, BETA_2, EPSILON, RATE, Rates};
use super::{DECAY, Key, ParameterSlice, Rule, problem_of_decay, share_lost};

/// Adam with decoupled weight decay.
pub(crate) struct AdamW;

impl Rule for AdamW {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn keys(&self) -> &'static [Key] {
        const { &[RATE, BETA_1, BETA_2, EPSILON, Key::number("weight_decay", 0.004, DECAY, problem_of_decay)] }
    }

    fn state_names(&self, _values: &[f32]) -> &'static [&'static str] {
        adam::STATE
    }

    fn step(&self, values: &[f32], part: ParameterSlice<'_>) {
        let [rate, beta_1, beta_2, epsilon, decay] = values[..5] else {
            unreachable!("a value for each key")
        };
        adam::step(Rates { rate, beta_1, beta_2, epsilon, decay: share_lost(rate, decay) }, part);
    }
}
