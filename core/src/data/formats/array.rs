//! Arrays of numbers, whichever format they come from: samples first, then the axes of each.

use crate::data::labels::{self, FOR_NUMBERS};
use crate::data::part::{RawFeatures, RawTargets, TargetValues};
use crate::data::request::Wanted;
use crate::data::weights;
use crate::failure::{Failure, FailureKind};

/// An array, its samples first.
pub(super) struct Array {
    /// The file, and the array in it, for failures.
    pub(super) place: String,
    /// With at least one axis and no axis of length 0.
    pub(super) shape: Vec<usize>,
    pub(super) values: Values,
}

/// The numbers of an array, row-major.
pub(super) enum Values {
    Bytes(Vec<u8>),
    Whole(Vec<i64>),
    Floats(Vec<f32>),
}

impl Values {
    /// Decodes numbers of a type that NumPy would call `dtype`; `None` if it is no type of numbers.
    pub(super) fn decode(dtype: &str, data: Vec<u8>) -> Option<Self> {
        if let Some(reversed) = dtype.strip_prefix('>') {
            return Self::decode(&format!("<{reversed}"), reversed_numbers(data, width_of(dtype)?));
        }
        Some(match dtype {
            "|u1" => Self::Bytes(data),
            "|b1" => Self::Bytes(data.iter().map(|&byte| u8::from(byte != 0)).collect()),
            "|i1" => Self::Whole(decoded(&data, |bytes| i8::from_le_bytes(bytes).into())),
            "<u2" => Self::Whole(decoded(&data, |bytes| u16::from_le_bytes(bytes).into())),
            "<i2" => Self::Whole(decoded(&data, |bytes| i16::from_le_bytes(bytes).into())),
            "<u4" => Self::Whole(decoded(&data, |bytes| u32::from_le_bytes(bytes).into())),
            "<i4" => Self::Whole(decoded(&data, |bytes| i32::from_le_bytes(bytes).into())),
            "<u8" => {
                Self::Whole(decoded(&data, |bytes| u64::from_le_bytes(bytes).try_into().unwrap_or(i64::MAX)))
            }
            "<i8" => Self::Whole(decoded(&data, i64::from_le_bytes)),
            "<f2" => Self::Floats(decoded(&data, |bytes| half(u16::from_le_bytes(bytes)))),
            "<f4" => Self::Floats(decoded(&data, f32::from_le_bytes)),
            "<f8" => Self::Floats(decoded(&data, |bytes| f64::from_le_bytes(bytes) as f32)),
            _ => return None,
        })
    }

    pub(super) fn number(&self, index: usize) -> f32 {
        match self {
            Self::Bytes(values) => values[index].into(),
            Self::Whole(values) => values[index] as f32,
            Self::Floats(values) => values[index],
        }
    }

    fn into_numbers(self) -> Vec<f32> {
        match self {
            Self::Bytes(values) => values.into_iter().map(f32::from).collect(),
            Self::Whole(values) => values.into_iter().map(|value| value as f32).collect(),
            Self::Floats(values) => values,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Whole(values) => values.len(),
            Self::Floats(values) => values.len(),
        }
    }
}

/// The bytes of a number of this type.
pub(super) fn width_of(dtype: &str) -> Option<usize> {
    dtype.get(2..)?.parse().ok().filter(|width| *width > 0)
}

/// The same numbers of `width` bytes, with their bytes in the other order.
fn reversed_numbers(mut data: Vec<u8>, width: usize) -> Vec<u8> {
    data.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    data
}

/// Decodes values of `N` bytes.
fn decoded<const N: usize, T>(data: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
}

/// A float of 16 bits (IEEE 754 binary16): 5 bits of exponent, 10 of fraction.
pub(super) fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2_f32.powi(-24),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => (1024.0 + fraction) * 2_f32.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

impl Array {
    pub(super) fn failure(&self, what: impl std::fmt::Display) -> Failure {
        Failure::at(FailureKind::Data, &self.place, what)
    }

    /// The same array, row-major, of one whose first axis is the one that varies fastest.
    pub(super) fn transposed(self) -> Self {
        let Self { place, shape, values } = self;
        let place_of = |index: usize| {
            let (mut rest, mut place, mut stride) = (index, 0, values.len());
            for side in shape.iter().rev() {
                stride /= side;
                place += rest % side * stride;
                rest /= side;
            }
            place
        };
        let order: Vec<usize> = (0..values.len()).map(place_of).collect();
        let values = match values {
            Values::Bytes(values) => Values::Bytes(order.iter().map(|&place| values[place]).collect()),
            Values::Whole(values) => Values::Whole(order.iter().map(|&place| values[place]).collect()),
            Values::Floats(values) => Values::Floats(order.iter().map(|&place| values[place]).collect()),
        };
        Self { place, shape, values }
    }

    pub(super) fn check_finite(&self) -> Result<(), Failure> {
        let Values::Floats(values) = &self.values else { return Ok(()) };
        let Some(index) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
        let width = (values.len() / self.shape[0]).max(1);
        let (sample, value) = (index / width + 1, index % width);
        let what =
            format!("sample {sample}, value {value} is {}, no finite number of 32 bits", values[index]);
        Err(self.failure(what))
    }

    /// A weight for each sample.
    pub(super) fn into_weights(self) -> Result<Vec<f32>, Failure> {
        if self.values.len() != self.shape[0] {
            return Err(
                self.failure(format!("has the shape {:?}: not one weight for each sample", self.shape))
            );
        }
        let weights = self.values.into_numbers();
        let invalid = |(index, weight)| {
            let problem = weights::problem_of(weight).unwrap_or_default();
            Failure::at(
                FailureKind::Data,
                &self.place,
                format!("the weight at {index} is {weight}: {problem}"),
            )
        };
        weights::first_invalid(&weights).map_or(Ok(()), |found| Err(invalid(found)))?;
        Ok(weights)
    }

    /// The features of the samples. Bytes stay bytes if they are `images`; all other numbers become `f32`.
    pub(super) fn into_features(self, images: bool) -> Result<RawFeatures, Failure> {
        self.check_finite()?;
        let sides = &self.shape[1..];
        let shape: Option<Vec<u32>> = sides.iter().map(|&side| u32::try_from(side).ok()).collect();
        let Some(shape) = shape else { return Err(self.failure("has an axis that is too long")) };
        let shape = if shape.is_empty() { vec![1] } else { shape };
        Ok(match self.values {
            Values::Bytes(values) if images => RawFeatures::Bytes { shape, values },
            values => RawFeatures::Numbers { shape, values: values.into_numbers() },
        })
    }

    /// The targets of the samples, as far as the loss learns them.
    pub(super) fn into_targets(self, wanted: Wanted) -> Result<RawTargets, Failure> {
        self.check_finite()?;
        let width = self.values.len() / self.shape[0];
        let values = if wanted.classes && width == 1 {
            TargetValues::Labels(self.labels()?)
        } else if wanted.classes && !wanted.numbers {
            TargetValues::Labels(self.hot()?)
        } else {
            TargetValues::Numbers { width: width as u32, values: self.values.into_numbers() }
        };
        Ok(RawTargets { file: self.place, columns: Vec::new(), values })
    }

    fn labels(&self) -> Result<Vec<i64>, Failure> {
        match &self.values {
            Values::Bytes(values) => Ok(values.iter().map(|&value| value.into()).collect()),
            Values::Whole(values) => Ok(values.clone()),
            Values::Floats(values) => labels::whole(values).map_err(|index| {
                let value = values[index];
                self.failure(format_args!("the label at index {index} is {value}: no class {FOR_NUMBERS}"))
            }),
        }
    }

    /// The classes of one-hot rows.
    fn hot(&self) -> Result<Vec<i64>, Failure> {
        let width = self.values.len() / self.shape[0];
        let class = |row: usize| {
            let number = |place: usize| self.values.number(row * width + place);
            let hot: Vec<usize> = (0..width).filter(|&place| number(place) != 0.0).collect();
            match hot[..] {
                [class] if number(class) == 1.0 => Ok(class as i64),
                _ => {
                    Err(self
                        .failure(format!("row {row} is not one-hot: a single 1 among zeros names its class")))
                }
            }
        };
        (0..self.shape[0]).map(class).collect()
    }
}
