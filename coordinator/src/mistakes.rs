//! What a model got wrong: of classes the wrong answers that it was surest of, of numbers those farthest from the truth.

use std::ops::Range;

use millefeuille_core::data::schema::Target;
use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::data::split::Split;
use millefeuille_core::learn::piece::{EVALUATION_ROWS, Learner, Scratch};
use millefeuille_core::learn::work::Workload;

use crate::report::{class, probabilities};

/// The mistakes on a split.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistakes {
    /// How many samples the split has.
    pub samples: u32,
    /// How many of them got a wrong class; `None` if the targets are numbers.
    pub wrong: Option<u32>,
    /// The worst ones, worst first.
    pub worst: Vec<Mistake>,
}

/// A sample with a wrong answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// The sample, from 0 in its split.
    pub index: u32,
    /// What is wrong.
    pub miss: Miss,
}

/// A wrong answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Miss {
    /// Another class.
    Class(WrongClass),
    /// Other numbers.
    Values {
        /// The true numbers.
        targets: Vec<f32>,
        /// The model's.
        values: Vec<f32>,
        /// The largest difference of two of them.
        error: f32,
    },
}

/// A wrong class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WrongClass {
    /// The true class.
    pub label: u32,
    /// The class with the largest output.
    pub class: u32,
    /// The probability that the model gives it.
    pub probability: f32,
}

impl Miss {
    /// How bad it is.
    fn weight(&self) -> f32 {
        match self {
            Self::Class(WrongClass { probability, .. }) => *probability,
            Self::Values { error, .. } => *error,
        }
    }
}

impl Mistakes {
    /// The mistakes of a model with these parameters on a split, the `count` worst among them.
    pub fn find(
        store: &ShardStore,
        workload: &Workload,
        parameters: &[f32],
        split: Split,
        count: usize,
    ) -> Self {
        let (samples, target) = (store.sizes().of(split), store.schema().target);
        let learner = Learner { model: workload.model(), spec: workload.spec(), parameters };
        let (mut found, mut wrong, mut scratch) = (Vec::new(), 0, Scratch::default());
        for start in (0..samples).step_by(EVALUATION_ROWS) {
            let chunk = start..samples.min(start + EVALUATION_ROWS as u32);
            let mistakes = of_chunk(store, &learner, split, chunk, &mut scratch);
            wrong += mistakes.len() as u32;
            found.extend(mistakes);
            keep_worst(&mut found, count);
        }
        let wrong = match target {
            Target::Class { .. } => Some(wrong),
            Target::Reals { .. } => None,
        };
        Self { samples, wrong, worst: found }
    }
}

/// Keeps the worst, worst first; of equal ones the first samples.
fn keep_worst(mistakes: &mut Vec<Mistake>, count: usize) {
    mistakes.sort_by(|a, b| b.miss.weight().total_cmp(&a.miss.weight()).then(a.index.cmp(&b.index)));
    mistakes.truncate(count);
}

fn of_chunk(
    store: &ShardStore,
    learner: &Learner<'_>,
    split: Split,
    chunk: Range<u32>,
    scratch: &mut Scratch,
) -> Vec<Mistake> {
    let samples: Vec<_> = chunk.clone().filter_map(|index| store.sample(split, index)).collect();
    let features: Vec<u8> = samples.iter().flat_map(|(features, _)| features.iter().copied()).collect();
    let outputs = learner.outputs(&features, scratch);
    let rows = outputs.chunks(learner.model.outputs()).zip(samples);
    let miss = |(index, (outputs, (_, truth)))| {
        Some(Mistake { index, miss: of_sample(outputs, truth, store.schema().target)? })
    };
    chunk.zip(rows).filter_map(miss).collect()
}

/// What is wrong with a model's outputs, if anything.
fn of_sample(outputs: &[f32], truth: &[u8], target: Target) -> Option<Miss> {
    match target {
        Target::Class { .. } => {
            let (class, label) = (class(outputs), target.class(truth));
            let probability = probabilities(outputs).get(class as usize).copied().unwrap_or_default();
            (class != label).then_some(Miss::Class(WrongClass { label, class, probability }))
        }
        Target::Reals { .. } => {
            let words = truth.as_chunks::<4>().0;
            let targets: Vec<f32> = words.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let differences = outputs.iter().zip(&targets).map(|(value, target)| (value - target).abs());
            let error = differences.fold(0.0, f32::max);
            Some(Miss::Values { targets, values: outputs.to_vec(), error })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Target = Target::Class { classes: 2 };

    #[test]
    fn a_wrong_class_has_the_probability_that_the_model_gives_it() {
        let wrong =
            |outputs: &[f32], label: u8, classes| of_sample(outputs, &[label], Target::Class { classes });
        let miss = |label, class, probability| Some(Miss::Class(WrongClass { label, class, probability }));
        assert_eq!(wrong(&[0.1, 0.7, 0.2], 1, 3), None);
        assert_eq!(wrong(&[0.1, 0.7, 0.2], 2, 3), miss(2, 1, 0.7));
        // One output alone is the probability of class 1.
        assert_eq!(of_sample(&[0.75], &[0], TWO), miss(0, 1, 0.75));
        assert_eq!(of_sample(&[0.25], &[1], TWO), miss(1, 0, 0.75));
    }

    #[test]
    fn numbers_are_off_by_the_largest_difference() {
        let truth = [1.0f32, -2.0].map(f32::to_le_bytes).concat();
        let miss = of_sample(&[1.5, -4.0], &truth, Target::Reals { width: 2 });
        assert_eq!(
            miss,
            Some(Miss::Values { targets: vec![1.0, -2.0], values: vec![1.5, -4.0], error: 2.0 })
        );
    }

    #[test]
    fn the_worst_come_first_and_equal_ones_in_order() {
        let miss = |index, probability| Mistake {
            index,
            miss: Miss::Class(WrongClass { label: 0, class: 1, probability }),
        };
        let mut mistakes = vec![miss(0, 0.5), miss(1, 0.9), miss(2, 0.9), miss(3, 0.7)];
        keep_worst(&mut mistakes, 3);
        assert_eq!(mistakes.iter().map(|mistake| mistake.index).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
