//! Predictions as lines of text, of JSON, or of CSV.

use millefeuille_core::data::inputs::Inputs;
use millefeuille_core::data::schema::Target;
use millefeuille_core::job::Job;
use serde::Serialize;

use crate::report::{class, probabilities};

/// How predictions are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
    Csv,
}

/// What a model's outputs mean.
pub(super) struct Answers<'a> {
    inputs: &'a Inputs,
    target: Target,
}

/// What `--json` prints of a class.
#[derive(Debug, Serialize)]
struct ClassLine<'a> {
    file: &'a str,
    index: usize,
    class: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    probabilities: &'a [f32],
}

/// What `--json` prints of numbers.
#[derive(Debug, Serialize)]
struct ValuesLine<'a> {
    file: &'a str,
    index: usize,
    values: &'a [f32],
}

impl<'a> Answers<'a> {
    pub(super) fn new(job: &Job, inputs: &'a Inputs) -> Self {
        Self { inputs, target: job.target() }
    }

    /// The first line of a table in CSV.
    pub(super) fn header(&self) -> String {
        let first = ["file", "index"].map(str::to_string);
        let columns: Vec<String> = match self.target {
            Target::Class { classes } => {
                let probabilities = (0..classes).map(|class| format!("p({})", self.inputs.class_name(class)));
                std::iter::once("class".to_string()).chain(probabilities).collect()
            }
            Target::Reals { width } => (0..width as usize).map(|place| self.target_name(place)).collect(),
        };
        csv_line(first.into_iter().chain(columns))
    }

    /// The prediction for a sample.
    pub(super) fn line(&self, file: &str, index: usize, outputs: &[f32], form: Form) -> String {
        match (self.target, form) {
            (Target::Class { .. }, Form::Text) => {
                let (class, probabilities) = (class(outputs), probabilities(outputs));
                let share = probabilities.get(class as usize).copied().unwrap_or(0.0) * 100.0;
                format!("{file} [{index}]: {} ({share:.1} %)\n", self.inputs.class_name(class))
            }
            (Target::Class { .. }, Form::Json) => {
                let (class, probabilities) = (class(outputs), &probabilities(outputs));
                let name = self.inputs.classes.get(class as usize).map(String::as_str);
                json_line(&ClassLine { file, index, class, name, probabilities })
            }
            (Target::Class { .. }, Form::Csv) => {
                let name = self.inputs.class_name(class(outputs));
                let probabilities = probabilities(outputs).into_iter().map(|share| share.to_string());
                csv_line([file.to_string(), index.to_string(), name].into_iter().chain(probabilities))
            }
            (Target::Reals { .. }, Form::Text) => {
                let named = outputs.iter().enumerate();
                let values = named.map(|(place, value)| format!("{} {value}", self.target_name(place)));
                format!("{file} [{index}]: {}\n", values.collect::<Vec<_>>().join(", "))
            }
            (Target::Reals { .. }, Form::Json) => json_line(&ValuesLine { file, index, values: outputs }),
            (Target::Reals { .. }, Form::Csv) => {
                let values = outputs.iter().map(f32::to_string);
                csv_line([file.to_string(), index.to_string()].into_iter().chain(values))
            }
        }
    }

    fn target_name(&self, place: usize) -> String {
        self.inputs.targets.get(place).cloned().unwrap_or_else(|| format!("value_{place}"))
    }
}

fn json_line(line: &impl Serialize) -> String {
    serde_json::to_string(line).unwrap_or_default() + "\n"
}

fn csv_line(fields: impl Iterator<Item = String>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory does not fail.
    let _ = writer.write_record(fields);
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}
