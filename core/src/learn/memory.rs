//! How much memory a job takes in a process that computes it, estimated from its spec before anything is allocated.
//!
//! The estimate is for limits: it counts what grows with the job, and rounds up.

use super::layers::Layer;
use super::optimizers::Optimizer;
use super::piece::EVALUATION_ROWS;
use super::spec::Spec;
use crate::data::split::Split;

const NUMBER: u64 = size_of::<f32>() as u64;

/// The bytes that `slots` threads take to compute a job, apart from its samples ([`of_samples`]).
pub fn of_job(spec: &Spec, slots: u32) -> u64 {
    let (slots, levels) = (u64::from(slots), u64::from(spec.shards.max(1).ilog2()) + 1);
    // The newest parameters and the ones before, a gradient for each slot, a partial sum for each level of the tree.
    let parameters = of_parameters(spec).saturating_mul(2 + slots + levels);
    let scratch = rows(spec).saturating_mul(of_row(spec)).saturating_mul(slots);
    // The fingerprint makes up the samples of a piece, and copies them.
    let made_up = rows(spec).saturating_mul(spec.schema.sample_bytes() as u64).saturating_mul(2);
    parameters.saturating_add(scratch).saturating_add(made_up)
}

/// The bytes that a coordinator takes: the samples of all splits, the parameters and the next ones, the optimizer's state,
/// and sums that wait for others, as many as a tree has levels.
pub fn of_coordinator(spec: &Spec, optimizer: &Optimizer) -> u64 {
    let levels = u64::from(spec.shards.max(1).ilog2()) + 1;
    let arrays = 2 + optimizer.state_names().len() as u64 + levels;
    of_parameters(spec).saturating_mul(arrays).saturating_add(of_all_samples(spec))
}

/// The bytes of the samples of all splits, as workers hold them.
pub fn of_all_samples(spec: &Spec) -> u64 {
    let splits = Split::ALL.iter().map(|&split| of_samples(spec, spec.sizes.of(split)));
    splits.fold(0, u64::saturating_add)
}

/// The bytes of the parameters, and of a gradient.
pub fn of_parameters(spec: &Spec) -> u64 {
    spec.parameters().saturating_mul(NUMBER)
}

/// The bytes of so many samples that a process holds, and of their order in an epoch.
pub fn of_samples(spec: &Spec, samples: u32) -> u64 {
    u64::from(samples)
        .saturating_mul((spec.schema.sample_bytes() as u64).saturating_add(size_of::<u32>() as u64))
}

/// The most rows that are computed at once: a piece of training, or a chunk of an evaluation.
fn rows(spec: &Spec) -> u64 {
    let share = |samples: u32| u64::from(samples.div_ceil(spec.shards.max(1)));
    let trained = share(spec.batch_size.min(spec.sizes.train));
    let evaluated = share(spec.sizes.validation.max(spec.sizes.test)).min(EVALUATION_ROWS as u64);
    trained.max(evaluated)
}

/// The bytes of a row in a slot's scratch space: the values between the layers, the slopes or the factors of dropout and
/// their random words, the gradients on both sides of a layer, the target.
fn of_row(spec: &Spec) -> u64 {
    let mut width = spec.inputs() as u64;
    let (mut numbers, mut widest) = (width, width);
    for layer in &spec.layers {
        if let Layer::Dense(dense) = layer {
            width = dense.units.into();
        }
        numbers = numbers.saturating_add(width.saturating_mul(2));
        widest = widest.max(width);
    }
    numbers.saturating_add(widest.saturating_mul(4)).saturating_mul(NUMBER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::schema::{Features, Schema, Target};
    use crate::data::split::Sizes;
    use crate::job::{Activation, Job, OptimizerKind};

    fn article() -> Spec {
        let schema = Schema::new(Features::image(28, 28), Target::Class { classes: 10 });
        Job::default().spec(schema, Sizes { train: 48_000, validation: 12_000, test: 10_000 })
    }

    #[test]
    fn the_default_job_takes_some_megabytes() {
        let megabytes = of_job(&article(), 2) >> 20;
        assert!((5..20).contains(&megabytes), "{megabytes}");
        assert_eq!(of_samples(&article(), 6_000), 6_000 * 789);
    }

    #[test]
    fn a_coordinator_holds_samples_parameters_and_the_state_of_the_optimizer() {
        let (article, parameters) = (article(), 4 * 235_146);
        let samples = 70_000 * 789;
        assert_eq!(of_all_samples(&article), samples);
        assert_eq!(of_coordinator(&article, &Optimizer::sgd(0.1)), samples + (2 + 4) * parameters);
        let adam = Optimizer::new(OptimizerKind::Adam);
        assert_eq!(of_coordinator(&article, &adam), samples + (2 + 2 + 4) * parameters);
    }

    #[test]
    fn what_grows_with_a_job_is_counted() {
        let article = article();
        let more = |change: fn(&mut Spec)| {
            let mut spec = article.clone();
            change(&mut spec);
            of_job(&spec, 1) - of_job(&article, 1)
        };
        let rows = (48_000 - 500) / 8;
        assert!(more(|spec| spec.batch_size = 48_000) > rows * 784 * NUMBER);
        let wide = Layer::dense(65_536, Activation::Sigmoid);
        assert!(
            of_job(&Spec { layers: [vec![wide], article.layers.clone()].concat(), ..article.clone() }, 1)
                > 65_536 * 784 * NUMBER
        );
    }

    #[test]
    fn no_size_overflows() {
        let mut spec = article();
        spec.schema.features.shape = vec![u32::MAX; 9];
        spec.batch_size = u32::MAX;
        spec.sizes = Sizes { train: u32::MAX, validation: u32::MAX, test: u32::MAX };
        spec.shards = 1;
        assert_eq!(of_job(&spec, u32::MAX), u64::MAX);
        assert_eq!(of_samples(&spec, u32::MAX), u64::MAX);
    }
}
