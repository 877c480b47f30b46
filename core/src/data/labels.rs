//! The classes of a data set: which label or name stands for which.
//!
//! Names are sorted: as numbers if all of them are, else as text. Labels that are the numbers 0 to n - 1 stand for
//! themselves. Other labels, such as 1 to 26, or -1 and 1, become classes in their order if there are as many as the model
//! tells apart.

use super::grouped;
use super::part::{RawTargets, TargetValues, Texts};
use super::place;
use super::schema::Target;
use crate::failure::{Failure, FailureKind};

/// The classes of a data set.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Classes {
    /// A class is its label.
    Numbers(u32),
    /// Classes have these labels, ascending.
    Labels(Vec<i64>, Vec<String>),
    /// Classes have these names, sorted.
    Names(Vec<String>),
}

/// The most classes that labels may stand for.
const MAX_CLASSES: i64 = 65_536;

impl Classes {
    /// The classes of the training data. `count` is how many the model tells apart, if there is one. Of data for a model that
    /// is trained already (`is_trained`), the last classes may be missing.
    ///
    /// # Errors
    /// If there is one class only, or a label that is none.
    pub(super) fn of(targets: &RawTargets, count: Option<u32>, is_trained: bool) -> Result<Self, Failure> {
        match &targets.values {
            TargetValues::Names(texts) => Self::of_names(targets, texts),
            TargetValues::Labels(labels) => Self::of_labels(targets, labels, count, is_trained),
            TargetValues::Numbers { .. } => unreachable!("numbers to learn are no classes"),
        }
    }

    fn of_names(targets: &RawTargets, texts: &Texts) -> Result<Self, Failure> {
        let mut names = texts.different.clone();
        if names.iter().all(|name| name.parse::<f64>().is_ok()) {
            let number = |name: &String| name.parse::<f64>().unwrap_or(f64::NAN);
            names.sort_by(|a, b| number(a).total_cmp(&number(b)).then_with(|| a.cmp(b)));
        } else {
            names.sort();
        }
        if let [name] = &names[..] {
            let what = format!("every row has the class {name}: there is nothing to tell apart");
            return Err(targets.failure(what));
        }
        if names.len() > MAX_CLASSES as usize || (names.len() > 20 && names.len() > texts.codes.len() / 2) {
            let what = format!(
                "{} different values in {} rows are no classes {FOR_NUMBERS}",
                grouped(names.len() as u64),
                grouped(texts.codes.len() as u64)
            );
            return Err(targets.failure(what));
        }
        Ok(Self::Names(names))
    }

    fn of_labels(
        targets: &RawTargets,
        labels: &[i64],
        count: Option<u32>,
        is_trained: bool,
    ) -> Result<Self, Failure> {
        let (low, high) =
            labels.iter().fold((i64::MAX, i64::MIN), |(low, high), &label| (low.min(label), high.max(label)));
        if low == high && !is_trained {
            return Err(targets.failure(format!("every label is {low}: there is nothing to tell apart")));
        }
        let fits = |low: i64, count: u32| low >= 0 && high < i64::from(count);
        match count {
            Some(count) if fits(low, count) && is_trained => return Ok(Self::Numbers(count)),
            Some(count) if fits(low, count) => return Ok(Self::Numbers(high as u32 + 1)),
            None if (0..=1).contains(&low) && high < MAX_CLASSES && high > low => {
                return Ok(if low == 0 {
                    Self::Numbers(high as u32 + 1)
                } else {
                    Self::named((1..=high).collect())
                });
            }
            _ => {}
        }
        let mut different = labels.to_vec();
        different.sort_unstable();
        different.dedup();
        match count {
            Some(count) if different.len() == count as usize => Ok(Self::named(different)),
            Some(count) if low > 0 && high - low < i64::from(count) => {
                Ok(Self::named((low..low + i64::from(count)).collect()))
            }
            None if (2..=MAX_CLASSES as usize).contains(&different.len()) => Ok(Self::named(different)),
            count => Err(unknown(targets, labels, count.unwrap_or(2))),
        }
    }

    /// The classes of a trained model, for data that has labels or names.
    pub(super) fn known(names: &[String], has_labels: bool) -> Self {
        let labels: Option<Vec<i64>> = names.iter().map(|name| name.parse().ok()).collect();
        match labels.filter(|_| has_labels) {
            Some(labels) => Self::Labels(labels, names.to_vec()),
            None => Self::Names(names.to_vec()),
        }
    }

    fn named(labels: Vec<i64>) -> Self {
        let names = labels.iter().map(i64::to_string).collect();
        Self::Labels(labels, names)
    }

    /// How many classes there are.
    pub(super) fn count(&self) -> u32 {
        match self {
            Self::Numbers(count) => *count,
            Self::Labels(labels, _) => labels.len() as u32,
            Self::Names(names) => names.len() as u32,
        }
    }

    /// Their names; none if they are their numbers.
    pub(super) fn names(&self) -> &[String] {
        match self {
            Self::Numbers(_) => &[],
            Self::Labels(_, names) | Self::Names(names) => names,
        }
    }

    /// The stored bytes of these targets.
    ///
    /// # Errors
    /// The first that is none of the classes.
    pub(super) fn encode(&self, targets: &RawTargets) -> Result<Vec<u8>, Failure> {
        let width = Target::Class { classes: self.count() }.bytes();
        let bytes = |classes: Vec<u32>| {
            classes.iter().flat_map(|class| class.to_le_bytes().into_iter().take(width)).collect()
        };
        match (self, &targets.values) {
            (Self::Numbers(count), TargetValues::Labels(labels)) => {
                let class = |label: &i64| u32::try_from(*label).ok().filter(|class| class < count);
                let classes: Option<Vec<u32>> = labels.iter().map(class).collect();
                classes.map(bytes).ok_or_else(|| unknown(targets, labels, *count))
            }
            (Self::Labels(known, _), TargetValues::Labels(labels)) => {
                let classes = labels.iter().enumerate().map(|(index, label)| {
                    let class = known.binary_search(label).map_err(|_| never_seen(targets, index, label));
                    class.map(|class| class as u32)
                });
                classes.collect::<Result<_, _>>().map(bytes)
            }
            (Self::Names(names), TargetValues::Names(texts)) => {
                let place = |text: &String| names.iter().position(|name| name == text);
                let places: Vec<_> = texts.different.iter().map(place).collect();
                let classes =
                    texts.codes.iter().enumerate().map(|(index, &code)| match places[code as usize] {
                        Some(class) => Ok(class as u32),
                        None => Err(never_seen(targets, index, &texts.different[code as usize])),
                    });
                classes.collect::<Result<_, _>>().map(bytes)
            }
            (Self::Numbers(_) | Self::Labels(..), _) | (Self::Names(_), _) => Err(targets
                .failure("its classes are of another kind than those of the training data".to_string())),
        }
    }
}

impl RawTargets {
    fn failure(&self, what: String) -> Failure {
        match &self.columns[..] {
            [] => Failure::at(FailureKind::Data, &self.file, what),
            columns => place::Column { file: &self.file, name: &columns.join(", ") }.failure(what),
        }
    }
}

/// What to do about numbers that are no classes.
pub(super) const FOR_NUMBERS: &str = "(for numbers to learn, set loss = \"mean_squared_error\")";

/// Numbers as labels.
///
/// # Errors
/// The index of the first that is not whole.
pub(super) fn whole(numbers: &[f32]) -> Result<Vec<i64>, usize> {
    let label = |(index, number): (usize, &f32)| match number.fract() == 0.0 {
        true => Ok(*number as i64),
        false => Err(index),
    };
    numbers.iter().enumerate().map(label).collect()
}

/// The failure for labels that are not all classes.
fn unknown(targets: &RawTargets, labels: &[i64], count: u32) -> Failure {
    let is_unknown = |label: &&i64| **label < 0 || **label >= i64::from(count);
    let (index, label) = labels.iter().enumerate().find(|(_, label)| is_unknown(label)).unwrap_or((0, &0));
    targets.failure(format!(
        "the label at index {} is {label} (there are {count} classes, 0 to {})",
        grouped(index as u64),
        count - 1
    ))
}

fn never_seen(targets: &RawTargets, index: usize, label: &dyn std::fmt::Display) -> Failure {
    targets.failure(format!("row {}: `{label}` is no class of the training data", index + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(labels: &[i64]) -> RawTargets {
        RawTargets {
            file: "labels".into(),
            columns: Vec::new(),
            values: TargetValues::Labels(labels.to_vec()),
        }
    }

    #[test]
    fn labels_from_any_base_are_classes_in_their_order() {
        for (labels, count, names, encoded) in [
            (vec![0, 2, 1], 3, vec![], vec![0, 2, 1]),
            (vec![3, 1, 2], 3, vec!["1", "2", "3"], vec![2, 0, 1]),
            (vec![1, -1, 1], 2, vec!["-1", "1"], vec![1, 0, 1]),
            (vec![30, 10, 20], 3, vec!["10", "20", "30"], vec![2, 0, 1]),
            // One of them is missing in between.
            (vec![4, 1, 2], 4, vec!["1", "2", "3", "4"], vec![3, 0, 1]),
        ] {
            let targets = targets(&labels);
            let classes = Classes::of(&targets, Some(count), false).unwrap();
            let names: Vec<_> = names.into_iter().map(str::to_string).collect();
            assert_eq!((classes.count(), classes.names()), (count, &names[..]), "{labels:?}");
            assert_eq!(classes.encode(&targets).unwrap(), encoded, "{labels:?}");
        }
    }

    #[test]
    fn the_data_says_how_many_classes_there_are_until_a_model_is_trained() {
        let labels = targets(&[0, 1, 2]);
        assert_eq!(Classes::of(&labels, Some(10), false), Ok(Classes::Numbers(3)));
        assert_eq!(Classes::of(&labels, Some(10), true), Ok(Classes::Numbers(10)));
        assert_eq!(Classes::of(&labels, None, false), Ok(Classes::Numbers(3)));
    }

    #[test]
    fn a_label_that_is_no_class_is_named() {
        let error =
            |labels: &[i64], count| Classes::of(&targets(labels), count, false).unwrap_err().to_string();
        assert_eq!(
            error(&[0, 3, 1, 2], Some(3)),
            "labels: the label at index 1 is 3 (there are 3 classes, 0 to 2)"
        );
        assert_eq!(error(&[7, 7], Some(3)), "labels: every label is 7: there is nothing to tell apart");
        let unseen = Classes::Numbers(3).encode(&targets(&[0, 3])).unwrap_err().to_string();
        assert_eq!(unseen, "labels: the label at index 1 is 3 (there are 3 classes, 0 to 2)");
    }
}
