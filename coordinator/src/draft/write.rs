//! Writes a job file: for what was found, what usually learns it well, each choice with its reason.

use std::fmt::Write as _;

use millefeuille_core::job::{ColumnName, DEFAULT_SEED, Loss, Missing, Source};

use super::look::{Found, FoundInputs, Task};

/// The text of a job file.
pub(super) fn job_file(name: &str, found: &Found) -> String {
    let mut text = head(name, found);
    text += &data(found);
    text += &layers(found);
    text += &compile(found);
    text += &fit(found);
    text
}

fn head(name: &str, found: &Found) -> String {
    let Found { samples, inputs, task, .. } = found;
    let task = match task {
        Task::Classes { count: 2, .. } => "which of two classes a sample is of".to_string(),
        Task::Classes { count, .. } => format!("which of {count} classes a sample is of"),
        Task::Numbers { width: 1, low, high } => format!("a number, from {low} to {high} in this data"),
        Task::Numbers { width, .. } => format!("{width} numbers"),
    };
    format!(
        "# What `coordinator job new` found: {samples} samples of {} inputs, to learn {task}.\n\
         # A first try that trains as it stands; docs/job.md explains every key.\n\
         name = {}\n",
        inputs.width(),
        quoted(name)
    )
}

fn data(found: &Found) -> String {
    let Found { data, left_out, with_missing, has_test_set, inputs, .. } = found;
    let mut text = format!("\n[data]\nsource = {}\n", quoted(&data.source.to_string()));
    let mut line = |line: &str| text += &format!("{line}\n");
    if !data.table.header {
        line(
            "# The first line is a row as the others are: columns are named by their numbers, from 0.\nheader = false",
        );
    }
    if let Some(separator) = data.table.separator {
        line(&format!("separator = {}", quoted(&separator.to_string())));
    }
    if !data.table.target.is_empty() {
        line(&format!("target = {}", columns(&data.table.target)));
    }
    if !left_out.is_empty() {
        line("# Nothing can be learned from these:");
        left_out.iter().for_each(|(column, reason)| line(&format!("# {column} {reason}.")));
        line(&format!("drop = {}", columns(&data.table.drop)));
    }
    if data.table.missing != Missing::default() {
        line(&format!(
            "# Values are missing in {}: the mean of the column takes their place.",
            with_missing.join(", ")
        ));
        line(&format!("missing = {}", quoted(data.table.missing.name())));
    }
    if let Some(test) = &data.test {
        line(&format!("test = {}", quoted(&test.to_string_lossy())));
    }
    if data.source != Source::Mnist {
        line(
            "# Files are often sorted: their samples get another order before some are kept for validation and test.",
        );
        line(&format!("shuffle_split = {DEFAULT_SEED}"));
    }
    if !has_test_set {
        line("# A fifth of the samples tests the model in the end.\ntest_split = 0.2");
    }
    line("# A fifth of the others tells after each epoch whether the model still learns what holds for all.");
    line("validation_split = 0.2");
    line(match inputs {
        FoundInputs::Columns(_) => {
            "# Each column with mean 0 and variance 1: none counts more for its unit.\nnormalize = \"standardize\""
        }
        FoundInputs::Numbers(_) => "# Each input from 0 to 1.\nnormalize = \"scale\"",
        FoundInputs::Bytes(_) => "# Pixels from 0 to 1.\nscale = \"1/255\"",
    });
    text
}

fn layers(found: &Found) -> String {
    let Output { units, loss } = Output::of(&found.task);
    let mut text = "\n# More units can learn more, and need more samples.\n".to_string();
    for units in hidden(found) {
        text += &layer(units, "relu");
    }
    if found.samples >= MANY {
        text += "[[layers]] # Against learning the samples by heart.\ntype = \"dropout\"\nrate = 0.2\n\n";
    }
    text + &layer(units, loss.activation().name())
}

fn layer(units: u32, activation: &str) -> String {
    format!("[[layers]]\ntype = \"dense\"\nunits = {units}\nactivation = \"{activation}\"\n\n")
}

/// What the last layer and the loss are.
struct Output {
    units: u32,
    loss: Loss,
}

impl Output {
    fn of(task: &Task) -> Self {
        match *task {
            Task::Classes { count: 2, .. } => Self { units: 1, loss: Loss::BinaryCrossentropy },
            Task::Classes { count, .. } => Self { units: count, loss: Loss::SparseCategoricalCrossentropy },
            Task::Numbers { width, .. } => Self { units: width, loss: Loss::MeanSquaredError },
        }
    }
}

/// So many samples are enough for larger models and for dropout.
const MANY: usize = 20_000;
/// So few samples are seen more often.
const FEW: usize = 2_000;

/// The units of the layers before the last.
fn hidden(found: &Found) -> [u32; 2] {
    let factor = match found.samples {
        ..FEW => 1,
        FEW..MANY => 2,
        MANY.. => 4,
    };
    let units = if found.inputs.width() < 32 { 32 } else { 64 };
    [units * factor, units * factor / 2]
}

fn compile(found: &Found) -> String {
    let loss = Output::of(&found.task).loss;
    let (metrics, rate) = match found.task {
        Task::Classes { count: 2, .. } => ("[\"accuracy\", \"auc\"]", rate_of_classes(found)),
        Task::Classes { .. } => ("[\"accuracy\"]", rate_of_classes(found)),
        Task::Numbers { low, high, .. } => ("[\"mae\", \"r2_score\"]", rate_of_numbers(low, high)),
    };
    let mut text = format!("[compile]\nloss = \"{loss}\"\n");
    if let Task::Classes { smallest, largest, .. } = found.task
        && largest > 4 * smallest
    {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "# Classes have from {smallest} to {largest} samples: look at the figures of each class (`coordinator evaluate`)."
        );
    }
    text + &format!("metrics = {metrics}\n\n[compile.optimizer]\ntype = \"adam\"\nlearning_rate = {rate}\n")
}

fn rate_of_classes(found: &Found) -> &'static str {
    if found.samples < FEW { "0.003" } else { "0.001" }
}

/// Larger numbers are farther from where a model begins.
fn rate_of_numbers(low: f32, high: f32) -> &'static str {
    match low.abs().max(high.abs()) {
        ..=10.0 => "0.003",
        ..=1e6 => "0.01",
        _ => "0.1",
    }
}

fn fit(found: &Found) -> String {
    let (batch_size, epochs, patience) = match found.samples {
        ..FEW => (32, 200, 20),
        FEW..MANY => (64, 100, 10),
        MANY.. => (128, 30, 3),
    };
    format!(
        "\n[fit]\nbatch_size = {batch_size}\nepochs = {epochs}\n\n\
         # Training ends, usually long before the last epoch, once the validation split is predicted no better; the model is\n\
         # that of the best epoch.\n\
         [fit.early_stopping]\nmonitor = \"val_loss\"\npatience = {patience}\nrestore_best = true\n"
    )
}

fn columns(columns: &[ColumnName]) -> String {
    let column = |column: &ColumnName| match column {
        ColumnName::Name(name) => quoted(name),
        ColumnName::Number(number) => number.to_string(),
    };
    match columns {
        [one] => column(one),
        several => format!("[{}]", several.iter().map(column).collect::<Vec<_>>().join(", ")),
    }
}

/// A text as TOML has it, which for what can be shown is as JSON has it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
