//! Weights of samples: the loss of a sample is multiplied by its weight, as by Keras' `sample_weight` and `class_weight`.
//!
//! A weight is the value of the column, or of the array, that the job names, in each split whose file has it. Or it is the
//! weight of the sample's class, in the training split alone: class weights say what to learn, not how good a model is. As
//! in Keras, a job has one or the other, and its metrics count each sample once.
//!
//! Weights are stored with the samples. So shards, their hashes and whoever computes with them have them.

use std::collections::BTreeMap;

use super::dataset::Dataset;
use super::schema::Target;
use crate::failure::{Failure, FailureKind};

/// The weight of each class that a job names; the others weigh 1.
pub type ClassWeights = BTreeMap<String, f32>;

/// What is wrong with a weight, and which ones are valid.
pub fn problem_of(weight: f32) -> Option<&'static str> {
    let problem = "not a weight; give a finite number of at least 0";
    (!(weight.is_finite() && weight >= 0.0)).then_some(problem)
}

/// The first of these weights that is none, and its place.
pub(super) fn first_invalid(weights: &[f32]) -> Option<(usize, f32)> {
    let all = weights.iter().copied().enumerate();
    all.into_iter().find(|&(_, weight)| problem_of(weight).is_some())
}

impl Dataset {
    /// Weighs the training samples by their classes, named as in the data, or by their numbers from 0.
    ///
    /// # Errors
    /// If there is no such class.
    pub fn weigh_classes(&mut self, class_weight: &ClassWeights) -> Result<(), Failure> {
        if class_weight.is_empty() {
            return Ok(());
        }
        let of_classes = self.of_classes(class_weight)?;
        let target = self.schema.target;
        let classes = self.train.targets.chunks_exact(target.bytes()).map(|bytes| target.class(bytes));
        let trained = self.sizes.train as usize;
        let mut weights: Vec<f32> = classes.map(|class| of_classes[class as usize]).collect();
        weights[trained..].fill(1.0);
        self.train.weights = weights;
        self.test.weights = vec![1.0; self.test.len as usize];
        self.schema.weighted = true;
        Ok(())
    }

    /// The weight of each class.
    fn of_classes(&self, class_weight: &ClassWeights) -> Result<Vec<f32>, Failure> {
        let count = match self.schema.target {
            Target::Class { classes } => classes as usize,
            Target::Reals { .. } => 0,
        };
        let mut weights = vec![1.0; count];
        for (key, weight) in class_weight {
            let class =
                self.class(key).filter(|&class| class < count).ok_or_else(|| self.unknown(key, count))?;
            weights[class] = *weight;
        }
        Ok(weights)
    }

    /// The class of this name. Numbers count from 0, unless names are numbers themselves.
    fn class(&self, key: &str) -> Option<usize> {
        let names = &self.inputs.classes;
        let number = || key.parse().ok().filter(|_| names.iter().all(|name| name.parse::<f64>().is_err()));
        names.iter().position(|name| name == key).or_else(number)
    }

    fn unknown(&self, key: &str, count: usize) -> Failure {
        let known = match &self.inputs.classes[..] {
            [] => format!("0 to {}", count.saturating_sub(1)),
            [first, .., last] if count > 10 => format!("{count} from {first} to {last}"),
            names => names.join(", "),
        };
        let what = format!("class_weight: there is no class {key}; the data has {known}");
        Failure::new(FailureKind::Usage, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Samples;
    use crate::data::inputs::Inputs;
    use crate::data::schema::{Features, Schema};
    use crate::data::split::Sizes;

    /// Five training samples, of which two validate, and a test sample, of three classes.
    fn data(classes: &[&str]) -> Dataset {
        let schema = Schema::new(Features::image(1, 1), Target::Class { classes: 3 });
        let samples = |targets: &[u8]| Samples {
            len: targets.len() as u32,
            features: targets.to_vec(),
            targets: targets.to_vec(),
            weights: Vec::new(),
        };
        let classes = classes.iter().map(ToString::to_string).collect();
        Dataset {
            schema,
            train: samples(&[0, 2, 1, 2, 0]),
            test: samples(&[2]),
            sizes: Sizes { train: 3, validation: 2, test: 1 },
            inputs: Inputs { classes, ..Inputs::default() },
            files: Vec::new(),
        }
    }

    fn weighed(classes: &[&str], weights: &[(&str, f32)]) -> Result<(Vec<f32>, Vec<f32>), String> {
        let mut data = data(classes);
        let weights = weights.iter().map(|(class, weight)| (class.to_string(), *weight)).collect();
        data.weigh_classes(&weights).map_err(|failure| failure.to_string())?;
        assert_eq!(data.schema.weighted, !weights.is_empty());
        Ok((data.train.weights, data.test.weights))
    }

    #[test]
    fn classes_weigh_in_training_alone() {
        let wanted = Ok((vec![0.5, 3.0, 1.0, 1.0, 1.0], vec![1.0]));
        assert_eq!(weighed(&[], &[("0", 0.5), ("2", 3.0)]), wanted);
        assert_eq!(weighed(&["a", "b", "c"], &[("a", 0.5), ("c", 3.0)]), wanted);
        assert_eq!(weighed(&["a", "b", "c"], &[("0", 0.5), ("c", 3.0)]), wanted);
        assert_eq!(weighed(&["1", "2", "3"], &[("1", 0.5), ("3", 3.0)]), wanted);
        assert_eq!(weighed(&[], &[]), Ok((vec![], vec![])));
    }

    #[test]
    fn a_class_that_is_not_there_is_refused() {
        let problem = |classes: &[&str], key| weighed(classes, &[(key, 1.0)]).unwrap_err();
        let text = "class_weight: there is no class d; the data has a, b, c";
        assert!(problem(&["a", "b", "c"], "d").contains(text), "{}", problem(&["a", "b", "c"], "d"));
        assert!(problem(&[], "3").contains("the data has 0 to 2"));
        assert!(problem(&["1", "2", "3"], "0").contains("there is no class 0"), "1 is a name here");
    }

    #[test]
    fn weights_are_finite_and_not_negative() {
        assert_eq!(first_invalid(&[0.0, 1.5, -1.0]), Some((2, -1.0)));
        assert!(first_invalid(&[f32::INFINITY]).is_some() && first_invalid(&[f32::NAN]).is_some());
        assert_eq!(first_invalid(&[0.0, 7.0]), None);
    }
}
