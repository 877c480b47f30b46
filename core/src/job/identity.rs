//! The identity of a job: a hash of everything that determines the numbers, and a list of the differences between
//! two jobs.

use std::fmt::{Display, Write};

use sha2::{Digest, Sha256};

use super::write::columns;
use super::{
    Compile, Data, EarlyStopping, Fit, Init, Job, Layer, Missing, Normalize, Schedule, StopAt, Stopping,
    TableLayout,
};
use crate::learn::initializers::Initializer;
use crate::learn::layers::{Dense, Normalization, Regularizer};
use crate::learn::optimizers::Key;

impl Job {
    /// `job_sha256`: the SHA-256, in hexadecimal, of everything that determines the trained numbers.
    ///
    /// `blas_kernel` is the name of the kernel that the job resolved to, as in the receipt, and `data_hashes` are
    /// the hashes of the data's files, in the data set's order. The hash does not cover the name, the path of the
    /// data, and the metrics, which are reported but not learned from; `batch_size` and `replicas` count only
    /// through their product.
    ///
    /// The hash is over the UTF-8 text below, each line ended by a line feed. Floats are written as the bits of
    /// their IEEE 754 form in hexadecimal, `f32` in 8 digits and `f64` in 16, with -0 written as 0. In names and
    /// hashes a backslash is written `\\` and a line feed `\n`, so that different jobs never share a text. Any
    /// change of this format changes its first line.
    ///
    /// ```text
    /// millefeuille job 1
    /// seed 42
    /// shards 8
    /// batch 500
    /// blas_kernel SkylakeX
    /// scale 3f800000
    /// validation_split 3fc999999999999a
    /// layer dense 256 sigmoid
    /// layer dense 128 sigmoid
    /// layer dropout 3f000000
    /// layer dense 10 softmax
    /// loss categorical_crossentropy
    /// optimizer sgd 3dcccccd
    /// epochs 5
    /// shuffle true
    /// data <first hash>
    /// data <second hash> …
    /// ```
    ///
    /// What has its default and came after version 1 was first written is left out: options of the loss
    /// (`label_smoothing 3dcccccd`, after `loss`), optional keys of the optimizer, the schedule (`schedule cosine
    /// decay_steps 408f400000000000`, after `optimizer`), after `shuffle` `accumulate 4`,
    /// `early_stopping val_loss 3 0000000000000000 restore_best` and `stop_at val_accuracy 3fef0a3d70a3d70a`, and in the line of a dense layer `without_bias`, its initialiser, `l1 3dcccccd`, `l2
    /// 3dcccccd` and `frozen`. A layer normalization is `layer layer_normalization 3a83126f`, with `frozen`.
    /// `init dense dense_1`, or `init all`, follows the layers; the hash of its file is then the last one.
    /// The weights of classes follow the options of the loss: `class_weight 3f000000 malignant`.
    /// The optional keys of `[data]` follow `validation_split`: `target`, `drop`, `sample_weight`, `header`, `separator` (its code point),
    /// `missing`, `test file`, `test_split`, `validation file`, `shuffle_split`, `normalize`.
    pub fn sha256(&self, data_hashes: &[String], blas_kernel: &str) -> String {
        hex::encode(Sha256::digest(self.canonical(data_hashes, blas_kernel)))
    }

    fn canonical(&self, data_hashes: &[String], kernel: &str) -> String {
        // Destructure the job, so that a new field can't be forgotten.
        let Self { name: _, seed, shards, replicas: _, blas_kernel: _, data, layers, init, compile, fit } =
            self;
        let Data { scale, validation_split, .. } = data;
        let Compile { loss, options, class_weight, optimizer, schedule, metrics: _ } = compile;
        let Fit { batch_size: _, epochs, shuffle, accumulate, stopping } = fit;

        let mut text = String::from("millefeuille job 1\n");
        line(&mut text, "seed", seed);
        line(&mut text, "shards", shards);
        line(&mut text, "batch", self.batch());
        line(&mut text, "blas_kernel", escaped(kernel));
        line(&mut text, "scale", bits_f32(*scale));
        line(&mut text, "validation_split", bits_f64(*validation_split));
        text += &data.canonical();
        for layer in layers {
            match layer {
                Layer::Dense(dense) => line(&mut text, "layer dense", canonical_dense(dense)),
                Layer::LayerNormalization(Normalization { epsilon, trainable }) => {
                    let frozen = if *trainable { "" } else { " frozen" };
                    line(&mut text, "layer layer_normalization", format!("{}{frozen}", bits_f32(*epsilon)));
                }
                Layer::Dropout { rate } => line(&mut text, "layer dropout", bits_f32(*rate)),
            }
        }
        if let Some(Init { from: _, layers }) = init {
            let layers = if layers.is_empty() { "all".to_string() } else { layers.join(" ") };
            line(&mut text, "init", layers);
        }
        line(&mut text, "loss", loss);
        for option in options.stated() {
            line(&mut text, option.name, bits_f32(option.value));
        }
        for (class, weight) in class_weight {
            line(&mut text, "class_weight", format!("{} {}", bits_f32(*weight), escaped(class)));
        }
        let values: Vec<_> = optimizer.stated().map(|(key, value)| stated(key, value)).collect();
        line(&mut text, "optimizer", format!("{} {}", optimizer.kind(), values.join(" ")));
        if *schedule != Schedule::default() {
            line(&mut text, "schedule", canonical_schedule(schedule));
        }
        line(&mut text, "epochs", epochs);
        line(&mut text, "shuffle", shuffle);
        if *accumulate != 1 {
            line(&mut text, "accumulate", accumulate);
        }
        let Stopping { early, at } = stopping;
        if let Some(EarlyStopping { monitor, patience, min_delta, restore_best }) = early {
            let restores = if *restore_best { " restore_best" } else { "" };
            let delta = bits_f64(*min_delta);
            line(&mut text, "early_stopping", format!("{monitor} {patience} {delta}{restores}"));
        }
        if let Some(StopAt { metric, value }) = at {
            line(&mut text, "stop_at", format!("{metric} {}", bits_f64(*value)));
        }
        for hash in data_hashes {
            line(&mut text, "data", escaped(hash));
        }
        text
    }

    /// The differences of `other`, one line per key: `fit.epochs: 5 → 6`. Empty if the jobs are equal.
    ///
    /// Values are compared as written: `blas_kernel = "native"` differs from the name that it resolved to.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (self.settings(), other.settings());
        let value = |settings: &[(String, String)], key: &str| {
            settings.iter().find(|(name, _)| name == key).map_or("none", |(_, value)| value).to_string()
        };
        // Optimizers have different keys.
        let only_theirs = theirs.iter().filter(|(key, _)| ours.iter().all(|(name, _)| name != key));
        let keys = ours.iter().chain(only_theirs).map(|(key, _)| key);
        let pairs = keys.map(|key| (key, value(&ours, key), value(&theirs, key)));
        let mut differences: Vec<String> = pairs
            .filter(|(_, our, their)| our != their)
            .map(|(key, our, their)| format!("{key}: {our} → {their}"))
            .collect();
        differences.extend(self.layer_differences(other));
        differences
    }

    fn layer_differences(&self, other: &Self) -> Vec<String> {
        if self.layers.len() != other.layers.len() {
            return vec![format!("layers: {} → {}", listed(&self.layers), listed(&other.layers))];
        }
        let pairs = self.layers.iter().zip(&other.layers).enumerate();
        pairs
            .filter(|(_, (our, their))| our != their)
            .map(|(index, (our, their))| format!("layers[{index}]: {our} → {their}"))
            .collect()
    }
}

impl Data {
    /// The lines of the keys that are optional, where they are not the default.
    fn canonical(&self) -> String {
        let Self { source: _, format: _, table, test, test_split, validation, .. } = self;
        let Self { shuffle_split, normalize, scale: _, validation_split: _, .. } = self;
        let TableLayout { target, drop, sample_weight, header, separator, missing } = table;

        let mut text = String::new();
        let mut optional = |is_given: bool, key: &str, value: &dyn Display| {
            if is_given {
                line(&mut text, key, value);
            }
        };
        optional(!target.is_empty(), "target", &escaped(&columns(target)));
        optional(!drop.is_empty(), "drop", &escaped(&columns(drop)));
        optional(sample_weight.is_some(), "sample_weight", &escaped(&columns(sample_weight.as_slice())));
        optional(!header, "header", header);
        optional(separator.is_some(), "separator", &separator.map_or(0, u32::from));
        optional(*missing != Missing::default(), "missing", &missing.name());
        optional(test.is_some(), "test", &"file");
        optional(*test_split > 0.0, "test_split", &bits_f64(*test_split));
        optional(validation.is_some(), "validation", &"file");
        optional(shuffle_split.is_some(), "shuffle_split", &shuffle_split.unwrap_or_default());
        optional(*normalize != Normalize::None, "normalize", &normalize.name());
        text
    }
}

/// A dense layer: units, activation, and what does not have its default.
fn canonical_dense(dense: &Dense) -> String {
    let Dense { units, activation, use_bias, kernel_initializer, kernel_regularizer, trainable } = dense;
    let Regularizer { l1, l2 } = kernel_regularizer;
    let mut text = format!("{units} {activation}");
    let mut add = |used: bool, what: String| text.extend(used.then(|| format!(" {what}")));
    add(!use_bias, "without_bias".to_string());
    add(*kernel_initializer != Initializer::GlorotUniform, kernel_initializer.to_string());
    add(*l1 != 0.0, format!("l1 {}", bits_f32(*l1)));
    add(*l2 != 0.0, format!("l2 {}", bits_f32(*l2)));
    add(!trainable, "frozen".to_string());
    text
}

/// A schedule: its kind, the figure that it looks at if any, and each key that does not have its default.
fn canonical_schedule(schedule: &Schedule) -> String {
    let monitor = if schedule.watches() { format!(" monitor {}", schedule.monitor) } else { String::new() };
    let stated = schedule.stated().map(|(key, value)| format!(" {} {}", key.name, bits_f64(value)));
    format!("{}{monitor}{}", schedule.kind(), stated.collect::<String>())
}

fn line(text: &mut String, key: &str, value: impl Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{key} {value}");
}

/// A setting of an optimizer; optional ones have their names with them.
fn stated(key: &Key, value: f32) -> String {
    if key.is_optional { format!("{} {}", key.name, bits_f32(value)) } else { bits_f32(value) }
}

// Adding +0 turns -0, which gives the same results, into 0, and changes no other value.
fn bits_f32(value: f32) -> String {
    format!("{:08x}", (value + 0.0).to_bits())
}

fn bits_f64(value: f64) -> String {
    format!("{:016x}", (value + 0.0).to_bits())
}

fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('\n', r"\n")
}

fn listed(layers: &[Layer]) -> String {
    layers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
