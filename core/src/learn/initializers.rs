//! Initialisers of kernels. Names and formulas are Keras'.
//!
//! All but `zeros` are random with a variance of `scale / fan`: X. Glorot and Y. Bengio (2010) divide by the mean of inputs
//! and units, K. He et al. (2015) and Y. LeCun et al. (1998) by the inputs. Normal ones are cut off at two deviations, and
//! widened so that the variance is as named.

use crate::random;
use crate::registry::registry;

registry! {
    /// An initialiser of a kernel.
    pub enum Initializer: dyn Initial, "initializer", "initializers" {
        /// Normal, with a variance of `2 / (inputs + units)`.
        GlorotNormal = Scaled::GLOROT_NORMAL,
        /// Uniform, with a variance of `2 / (inputs + units)`.
        GlorotUniform = Scaled::GLOROT_UNIFORM,
        /// Normal, with a variance of `2 / inputs`.
        HeNormal = Scaled::HE_NORMAL,
        /// Uniform, with a variance of `2 / inputs`.
        HeUniform = Scaled::HE_UNIFORM,
        /// Normal, with a variance of `1 / inputs`.
        LecunNormal = Scaled::LECUN_NORMAL,
        /// Uniform, with a variance of `1 / inputs`.
        LecunUniform = Scaled::LECUN_UNIFORM,
        /// Zeros.
        Zeros = Zeros,
    }
}

/// The interface of an initialiser.
pub(crate) trait Initial: Sync {
    /// Keras' name.
    fn name(&self) -> &'static str;

    /// Fills the `kernel`, `[inputs, units]`, of layer `layer`.
    fn fill(&self, seed: u64, layer: u64, inputs: usize, units: usize, kernel: &mut [f32]);
}

/// Random numbers whose variance depends on the shape.
pub(crate) struct Scaled {
    name: &'static str,
    scale: f32,
    /// Whether the variance is divided by the mean of inputs and units; otherwise by the inputs.
    by_mean: bool,
    is_normal: bool,
}

impl Scaled {
    const GLOROT_NORMAL: Self = Self { name: "glorot_normal", scale: 1.0, by_mean: true, is_normal: true };
    const GLOROT_UNIFORM: Self = Self { name: "glorot_uniform", scale: 1.0, by_mean: true, is_normal: false };
    const HE_NORMAL: Self = Self { name: "he_normal", scale: 2.0, by_mean: false, is_normal: true };
    const HE_UNIFORM: Self = Self { name: "he_uniform", scale: 2.0, by_mean: false, is_normal: false };
    const LECUN_NORMAL: Self = Self { name: "lecun_normal", scale: 1.0, by_mean: false, is_normal: true };
    const LECUN_UNIFORM: Self = Self { name: "lecun_uniform", scale: 1.0, by_mean: false, is_normal: false };
}

/// The standard deviation of a standard normal distribution that is cut off at ±2.
const CUT_OFF: f32 = 0.879_625_7;

impl Initial for Scaled {
    fn name(&self) -> &'static str {
        self.name
    }

    fn fill(&self, seed: u64, layer: u64, inputs: usize, units: usize, kernel: &mut [f32]) {
        // Twice the number that the variance is divided by.
        let fan = if self.by_mean { inputs + units } else { 2 * inputs } as f32;
        if self.is_normal {
            let deviation = (2.0 * self.scale / fan).sqrt() / CUT_OFF;
            random::truncated_normal(seed, layer, deviation, kernel);
        } else {
            random::uniform(seed, layer, (6.0 * self.scale / fan).sqrt(), kernel);
        }
    }
}

/// Zeros.
pub(crate) struct Zeros;

impl Initial for Zeros {
    fn name(&self) -> &'static str {
        "zeros"
    }

    fn fill(&self, _seed: u64, _layer: u64, _inputs: usize, _units: usize, kernel: &mut [f32]) {
        kernel.fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variance_is_the_one_named() {
        const INPUTS: usize = 300;
        const UNITS: usize = 200;
        let variances = [
            (Initializer::GlorotNormal, 2.0 / 500.0),
            (Initializer::GlorotUniform, 2.0 / 500.0),
            (Initializer::HeNormal, 2.0 / 300.0),
            (Initializer::HeUniform, 2.0 / 300.0),
            (Initializer::LecunNormal, 1.0 / 300.0),
            (Initializer::LecunUniform, 1.0 / 300.0),
        ];
        for (initializer, wanted) in variances {
            let mut kernel = vec![f32::NAN; INPUTS * UNITS];
            initializer.get().fill(7, 2, INPUTS, UNITS, &mut kernel);
            let (count, mean) = (kernel.len() as f64, kernel.iter().map(|w| f64::from(*w)).sum::<f64>());
            let squares: f64 = kernel.iter().map(|w| f64::from(*w).powi(2)).sum();
            assert!(
                (mean / count).abs() < 4.0 * (wanted / count).sqrt(),
                "{initializer}: a mean of {}",
                mean / count
            );
            assert!((squares / count / wanted - 1.0).abs() < 0.02, "{initializer}: {}", squares / count);
        }
        let mut kernel = [1.0; 4];
        Initializer::Zeros.get().fill(7, 2, 2, 2, &mut kernel);
        assert_eq!(kernel, [0.0; 4]);
    }

    #[test]
    fn normal_numbers_are_within_two_deviations() {
        let mut kernel = vec![0.0; 10_000];
        random::truncated_normal(1, 0, 0.5, &mut kernel);
        let largest = kernel.iter().fold(0.0f32, |largest, w| largest.max(w.abs()));
        assert!((0.95..=1.0).contains(&largest), "{largest}");
        let within = kernel.iter().filter(|w| w.abs() < 0.5).count() as f64 / 1e4;
        // erf(1/√2) / erf(√2)
        assert!((within - 0.715_23).abs() < 0.02, "{within}");
    }
}
