//! Writes a job in full, as TOML that reads back as an equal job.

use std::fmt::Write;
use std::path::PathBuf;

use super::{
    ColumnName, Compile, Data, EarlyStopping, Fit, Init, Job, Layer, Missing, Normalize, Schedule, StopAt,
    Stopping, TableLayout,
};
use crate::learn::initializers::Initializer;
use crate::learn::layers::{Dense, Normalization, Regularizer};
use crate::learn::schedules::Form;

impl Job {
    /// The job as a job file with every value written out.
    ///
    /// Equal jobs give equal text. If this job is valid, [`Job::parse`] returns an equal job; floats are written
    /// with the fewest digits that ensure this.
    pub fn to_toml(&self) -> String {
        let settings = self.settings();
        let (before, after): (Vec<_>, Vec<_>) =
            settings.iter().partition(|(key, _)| !key.starts_with("compile") && !key.starts_with("fit"));
        let mut text = String::new();
        write_settings(&mut text, &before);
        for layer in &self.layers {
            write_layer(&mut text, layer);
        }
        write_settings(&mut text, &after);
        text
    }

    /// Everything except the layers: dotted keys and their values in TOML, section by section.
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        // Destructure the job, so that a new field can't be forgotten.
        let Self { name, seed, shards, replicas, blas_kernel, data, layers: _, init, compile, fit } = self;
        let Compile { loss, options, class_weight, optimizer, schedule, metrics } = compile;
        let Fit { batch_size, epochs, shuffle, accumulate, stopping } = fit;

        let metrics: Vec<String> = metrics.iter().map(|metric| string(&metric.name())).collect();
        let before = [
            ("name", string(name)),
            ("seed", seed.to_string()),
            ("shards", shards.to_string()),
            ("replicas", replicas.to_string()),
            ("blas_kernel", string(&blas_kernel.to_string())),
        ];
        let compiled = [("compile.loss", string(loss.name()))];
        let options = options
            .stated()
            .map(|option| (format!("compile.{}", option.name), format!("{:?}", option.value)));
        let weights = class_weight.iter().map(|(class, weight)| format!("{} = {weight:?}", string(class)));
        let weights = weights.collect::<Vec<_>>().join(", ");
        let weights = (!class_weight.is_empty())
            .then(|| ("compile.class_weight".to_string(), format!("{{ {weights} }}")));
        let within = [
            ("compile.metrics", format!("[{}]", metrics.join(", "))),
            ("compile.optimizer.type", string(optimizer.kind().name())),
        ];
        let optimizer = optimizer.stated().map(|(key, value)| {
            let value = if key.is_flag { (value != 0.0).to_string() } else { format!("{value:?}") };
            (format!("compile.optimizer.{}", key.name), value)
        });
        let after = [
            ("fit.batch_size", batch_size.to_string()),
            ("fit.epochs", epochs.to_string()),
            ("fit.shuffle", shuffle.to_string()),
        ];
        let accumulate = (*accumulate != 1).then(|| ("fit.accumulate".to_string(), accumulate.to_string()));
        let owned = |(key, value): (&str, String)| (key.to_string(), value);
        let compile = options
            .chain(weights)
            .chain(within.into_iter().map(owned))
            .chain(optimizer)
            .chain(settings_of(schedule));
        let fit = after.into_iter().map(owned).chain(accumulate).chain(settings_of_stopping(stopping));
        let init = init.iter().flat_map(Init::settings);
        let before = before.into_iter().chain(data.settings()).chain(init).chain(compiled);
        before.map(owned).chain(compile).chain(fit).collect()
    }
}

impl Data {
    /// The keys of `[data]` with their values; those that are optional only where they are not the default.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let Self { source, format, table, test, test_split, validation, .. } = self;
        let Self { shuffle_split, normalize, scale, validation_split, .. } = self;
        let path = |path: &PathBuf| string(&path.to_string_lossy());
        let mut settings = vec![("data.source", string(&source.to_string()))];
        settings.extend(format.map(|format| ("data.format", string(format.name()))));
        settings.extend(table.settings());
        settings.extend(test.as_ref().map(|test| ("data.test", path(test))));
        settings.extend((*test_split > 0.0).then(|| ("data.test_split", format!("{test_split:?}"))));
        settings.extend(validation.as_ref().map(|validation| ("data.validation", path(validation))));
        settings.extend(shuffle_split.map(|seed| ("data.shuffle_split", seed.to_string())));
        settings.push(("data.scale", format!("{scale:?}")));
        let normalized = *normalize != Normalize::None;
        settings.extend(normalized.then(|| ("data.normalize", string(normalize.name()))));
        settings.push(("data.validation_split", format!("{validation_split:?}")));
        settings
    }
}

impl Init {
    fn settings(&self) -> impl Iterator<Item = (&'static str, String)> {
        let Self { from, layers } = self;
        let names = layers.iter().map(|layer| string(layer)).collect::<Vec<_>>().join(", ");
        let layers = (!layers.is_empty()).then(|| ("init.layers", format!("[{names}]")));
        [("init.from", string(&from.to_string_lossy()))].into_iter().chain(layers)
    }
}

impl TableLayout {
    fn settings(&self) -> impl Iterator<Item = (&'static str, String)> {
        let Self { target, drop, sample_weight, header, separator, missing } = self;
        let target = (!target.is_empty()).then(|| ("data.target", columns(target)));
        let drop = (!drop.is_empty()).then(|| ("data.drop", columns(drop)));
        let weight = sample_weight.as_ref().map(|name| ("data.sample_weight", column(name)));
        let header = (!header).then(|| ("data.header", header.to_string()));
        let separator = separator.map(|separator| ("data.separator", string(&separator.to_string())));
        let missing = (*missing != Missing::default()).then(|| ("data.missing", string(missing.name())));
        [target, drop, weight, header, separator, missing].into_iter().flatten()
    }
}

/// Columns as a list.
pub(super) fn columns(columns: &[ColumnName]) -> String {
    format!("[{}]", columns.iter().map(column).collect::<Vec<_>>().join(", "))
}

fn column(column: &ColumnName) -> String {
    match column {
        ColumnName::Name(name) => string(name),
        ColumnName::Number(number) => number.to_string(),
    }
}

/// The settings of a schedule; none of the default one.
fn settings_of(schedule: &Schedule) -> Vec<(String, String)> {
    if *schedule == Schedule::default() {
        return Vec::new();
    }
    let mut settings = vec![("type".to_string(), string(schedule.kind().name()))];
    settings
        .extend(schedule.watches().then(|| ("monitor".to_string(), string(&schedule.monitor.to_string()))));
    settings.extend(schedule.stated().map(|(key, value)| {
        let value = match key.form {
            Form::Whole => format!("{value:.0}"),
            Form::Number => format!("{value:?}"),
            Form::Flag => (value != 0.0).to_string(),
        };
        (key.name.to_string(), value)
    }));
    settings.into_iter().map(|(key, value)| (format!("compile.schedule.{key}"), value)).collect()
}

/// The settings of the rules that stop a job.
fn settings_of_stopping(stopping: &Stopping) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    if let Some(StopAt { metric, value }) = stopping.at {
        let metric = string(&metric.to_string());
        settings.push(("fit.stop_at".to_string(), format!("{{ metric = {metric}, value = {value:?} }}")));
    }
    if let Some(EarlyStopping { monitor, patience, min_delta, restore_best }) = stopping.early {
        let key = |key: &str, value: String| (format!("fit.early_stopping.{key}"), value);
        settings.push(key("monitor", string(&monitor.to_string())));
        settings.push(key("patience", patience.to_string()));
        settings.push(key("min_delta", format!("{min_delta:?}")));
        settings.push(key("restore_best", restore_best.to_string()));
    }
    settings
}

/// Writes settings under the headers of their sections.
fn write_settings(text: &mut String, settings: &[&(String, String)]) {
    let mut current = "";
    for (key, value) in settings {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        if section != current {
            current = section;
            line(text, format_args!("\n[{section}]"));
        }
        line(text, format_args!("{name} = {value}"));
    }
}

fn write_layer(text: &mut String, layer: &Layer) {
    line(text, format_args!("\n[[layers]]\ntype = \"{}\"", layer.name()));
    match layer {
        Layer::Dense(dense) => write_dense(text, dense),
        Layer::LayerNormalization(Normalization { epsilon, trainable }) => {
            if *epsilon != Normalization::default().epsilon {
                line(text, format_args!("epsilon = {epsilon:?}"));
            }
            if !trainable {
                line(text, format_args!("trainable = false"));
            }
        }
        Layer::Dropout { rate } => line(text, format_args!("rate = {rate:?}")),
    }
}

/// The keys of a dense layer; those that have Keras' default are left out.
fn write_dense(text: &mut String, dense: &Dense) {
    let Dense { units, activation, use_bias, kernel_initializer, kernel_regularizer, trainable } = dense;
    line(text, format_args!("units = {units}\nactivation = \"{activation}\""));
    if !use_bias {
        line(text, format_args!("use_bias = false"));
    }
    if *kernel_initializer != Initializer::GlorotUniform {
        line(text, format_args!("kernel_initializer = \"{kernel_initializer}\""));
    }
    if !kernel_regularizer.is_none() {
        let Regularizer { l1, l2 } = kernel_regularizer;
        line(text, format_args!("kernel_regularizer = {{ l1 = {l1:?}, l2 = {l2:?} }}"));
    }
    if !trainable {
        line(text, format_args!("trainable = false"));
    }
}

/// A layer as a table of TOML.
pub(super) fn layer_table(layer: &Layer) -> toml::Table {
    let mut text = String::new();
    write_layer(&mut text, layer);
    let table: Option<toml::Table> =
        text.trim_start().strip_prefix("[[layers]]").and_then(|keys| keys.parse().ok());
    table.unwrap_or_else(|| unreachable!("a layer is written as TOML"))
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{content}");
}

fn string(value: &str) -> String {
    toml::Value::from(value).to_string()
}
