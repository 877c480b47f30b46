//! The keys of a job file: names, types, defaults and meanings, section by section.
//!
//! Reading and its errors take the names from here, `docs/job.md` and `docs/job.schema.json` are written from here. The
//! settings of optimizers and schedules come from their own files, names of losses, activations and the like from their
//! registries, and a default that the article's job has from that job. Whether a value is valid is decided by `check`
//! alone; the ranges here say what it says, as a test sees to.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use super::{
    Activation, DataFormat, Dense, EarlyStopping, Initializer, Job, Loss, LossOptions, Metric, Missing,
    Monitor, Normalization, Normalize, Optimizer, OptimizerKind, Schedule, ScheduleKind,
};
use crate::learn::limits::{POSITIVE, SHARDS, UNITS};
use crate::learn::schedules::Form;

/// Every section, in the order of a job file.
pub static SECTIONS: LazyLock<Vec<Section>> = LazyLock::new(sections);

/// The section of the optimizer's keys.
pub(super) const OPTIMIZER: &str = "compile.optimizer";
/// The section of the schedule's keys.
pub(super) const SCHEDULE: &str = "compile.schedule";
/// The section of the layers' keys.
pub(super) const LAYERS: &str = "layers";
/// The section of a regulariser's keys.
pub(super) const REGULARIZER: &str = "layers.kernel_regularizer";

/// A table of a job file.
#[derive(Clone, Debug)]
pub struct Section {
    /// The dotted name, such as `compile.optimizer`; empty at the top.
    pub name: &'static str,
    /// The keys by `type`. A section without types has one kind, without a name.
    pub kinds: Vec<Kind>,
}

/// The keys that go with a `type`.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The type.
    pub name: &'static str,
    /// What it is.
    pub meaning: &'static str,
    /// Whether it is meant where no type is said.
    pub is_default: bool,
    /// The keys, apart from `type`.
    pub keys: Vec<Key>,
}

/// A key with its values.
#[derive(Clone, Debug)]
pub struct Key {
    /// The name in its section.
    pub name: &'static str,
    /// Which values it can have.
    pub value: Value,
    /// The value that it has where a job does not name it, as TOML; `None` if that is none.
    pub default: Option<String>,
    /// Whether its section is invalid without it.
    pub is_required: bool,
    /// The flag that sets it.
    pub flag: Option<&'static str>,
    /// Keras' name for it.
    pub keras: Option<&'static str>,
    /// What it sets.
    pub meaning: &'static str,
}

/// Which values a key can have.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text that matches this regular expression.
    Text(&'static str),
    /// True or false.
    Flag,
    /// A whole number.
    Whole(RangeInclusive<u64>),
    /// A number.
    Number(Limits),
    /// A number that is not 0, or a fraction as a text.
    Scale,
    /// One of some names.
    Name(Names),
    /// A list of names.
    Names(Names),
    /// A column's name, its number from 0, or a list of these.
    Columns,
    /// A column's name, or its number from 0.
    Column,
    /// A table of classes and their weights.
    Weights,
    /// A list of layers' names.
    Layers,
    /// The table of the section below this one that is named as the key is; a list of tables, of layers.
    Section,
}

/// Names to choose from.
#[derive(Clone, Debug, PartialEq)]
pub struct Names {
    /// Those that can be listed.
    pub listed: Vec<String>,
    /// One more that has a number in it, and the regular expression that all such names match.
    pub numbered: Option<(&'static str, &'static str)>,
}

/// A range of numbers; `(0.0, true)` is an end that belongs to it. Numbers are finite without an end, too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// The lower end.
    pub least: Option<(f64, bool)>,
    /// The upper end.
    pub most: Option<(f64, bool)>,
}

impl Limits {
    const ANY: Self = Self { least: None, most: None };
    const FROM_0: Self = Self { least: Some((0.0, true)), most: None };
    const ABOVE_0: Self = Self { least: Some((0.0, false)), most: None };
    /// A share that is less than all.
    const SHARE: Self = Self { least: Some((0.0, true)), most: Some((1.0, false)) };

    /// The range that a check allows: each of its ends is 0 or 1, or there is none.
    fn of(is_allowed: impl Fn(f64) -> bool) -> Self {
        let least = match [-1.0, 0.0, 0.5].map(&is_allowed) {
            [true, ..] => None,
            [_, true, _] => Some((0.0, true)),
            [_, _, true] => Some((0.0, false)),
            [_, _, false] => Some((1.0, true)),
        };
        let most = match [2.0, 1.0].map(&is_allowed) {
            [true, _] => None,
            [_, is_included] => Some((1.0, is_included)),
        };
        Self { least, most }
    }
}

impl Names {
    fn of<T: ToString>(all: impl IntoIterator<Item = T>) -> Self {
        Self { listed: all.into_iter().map(|one| one.to_string()).collect(), numbered: None }
    }

    fn metrics() -> Self {
        let numbered = Some(("top_5_accuracy", "^top_[1-9][0-9]*_accuracy$"));
        Self { numbered, ..Self::of(Metric::NAMED) }
    }

    fn figures() -> Self {
        let numbered = Some(("val_top_5_accuracy", "^(val_)?top_[1-9][0-9]*_accuracy$"));
        Self { numbered, ..Self::of(Monitor::all()) }
    }
}

impl Key {
    fn new(name: &'static str, value: Value, meaning: &'static str) -> Self {
        Self { name, value, default: None, is_required: false, flag: None, keras: None, meaning }
    }

    fn or(self, default: impl Into<String>) -> Self {
        Self { default: Some(default.into()), ..self }
    }

    fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    fn flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }

    fn keras(self, keras: &'static str) -> Self {
        Self { keras: Some(keras), ..self }
    }
}

impl Section {
    /// The section of this dotted name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        SECTIONS.iter().find(|section| section.name == name)
    }

    /// Whether its keys depend on its `type`.
    pub fn has_types(&self) -> bool {
        self.kinds.iter().any(|kind| !kind.name.is_empty())
    }

    /// The names of the keys of all its kinds, each once.
    pub fn key_names(&self) -> Vec<&'static str> {
        let mut names = if self.has_types() { vec!["type"] } else { Vec::new() };
        for key in self.kinds.iter().flat_map(|kind| &kind.keys) {
            if !names.contains(&key.name) {
                names.push(key.name);
            }
        }
        names
    }
}

impl Kind {
    /// The names of its keys, `type` first.
    pub(super) fn key_names(&self) -> Vec<&'static str> {
        std::iter::once("type").chain(self.keys.iter().map(|key| key.name)).collect()
    }
}

fn sections() -> Vec<Section> {
    let plain = |name, keys| Section {
        name,
        kinds: vec![Kind { name: "", meaning: "", is_default: true, keys: with_defaults(name, keys) }],
    };
    vec![
        plain("", top()),
        plain("data", data()),
        Section { name: LAYERS, kinds: vec![dense(), dropout(), layer_normalization()] },
        plain(REGULARIZER, regularizer()),
        plain("init", init()),
        plain("compile", compile()),
        Section { name: OPTIMIZER, kinds: OptimizerKind::ALL.iter().copied().map(optimizer).collect() },
        Section { name: SCHEDULE, kinds: ScheduleKind::ALL.iter().copied().map(schedule).collect() },
        plain("fit", fit()),
        plain("fit.early_stopping", early_stopping()),
        plain("fit.stop_at", stop_at()),
    ]
}

/// The keys with the defaults that the article's job names.
fn with_defaults(section: &str, keys: Vec<Key>) -> Vec<Key> {
    let settings = Job::default().settings();
    let filled = |key: Key| {
        let path = if section.is_empty() { key.name.to_string() } else { format!("{section}.{}", key.name) };
        let stated = settings.iter().find(|(name, _)| *name == path).map(|(_, value)| value.clone());
        Key { default: key.default.or(stated), ..key }
    };
    keys.into_iter().map(filled).collect()
}

fn top() -> Vec<Key> {
    let (name, kernel) = (Value::Text("^[^/]{1,64}$"), Value::Text("^[A-Za-z0-9_]{1,64}$"));
    vec![
        Key::new("name", name, "Names the run directory: `runs/article-1`, `runs/article-2`, …")
            .flag("--name"),
        Key::new(
            "seed",
            Value::Whole(0..=u64::MAX),
            "All random numbers follow from it: first weights, shuffles, dropout",
        )
        .flag("--seed")
        .keras("keras.utils.set_random_seed"),
        Key::new(
            "shards",
            whole(SHARDS),
            "Into how many parts each split is cut; at most so many workers have work",
        )
        .flag("--shards"),
        Key::new(
            "replicas",
            whole(POSITIVE),
            "Multiplies `batch_size`, for those who think in DDP's “500 for each of 4”",
        )
        .flag("--replicas"),
        Key::new("blas_kernel", kernel, "`native`, the name of a kernel of OpenBLAS, or `environment`")
            .flag("--blas-kernel"),
        Key::new("data", Value::Section, "The samples"),
        Key::new(
            "layers",
            Value::Section,
            "The model's layers, from input to output; a file that has any has all of them",
        )
        .keras("Sequential"),
        Key::new("init", Value::Section, "The parameters to begin with, where they are not all random")
            .keras("load_weights"),
        Key::new("compile", Value::Section, "Loss, optimizer and metrics").keras("compile"),
        Key::new("fit", Value::Section, "Mini-batches and epochs").keras("fit"),
    ]
}

fn data() -> Vec<Key> {
    let path = || Value::Text(".");
    vec![
        Key::new("source", path(), "`mnist`, which is built in, or the path of a file or a directory")
            .flag("--data"),
        Key::new("format", Value::Name(Names::of(DataFormat::ALL)), "The format; without it that of the path's ending"),
        Key::new("target", Value::Columns, "The column to learn, or several with numbers; of arrays the name of one"),
        Key::new("drop", Value::Columns, "Columns to leave out").or("[]"),
        Key::new("sample_weight", Value::Column, "The column, or the array, with the weights of the samples, which multiply their losses")
            .keras("sample_weight"),
        Key::new("header", Value::Flag, "Whether the first line of a table names its columns").or("true"),
        Key::new("separator", Value::Text("^[^\"\\r\\n]$"), "What separates two fields; without it a tab for `.tsv` and a comma for others"),
        Key::new("missing", Value::Name(Names::of(Missing::ALL.map(Missing::name))), "Whether missing values of inputs are refused, or become the column's mean; a missing text then is none of the categories")
            .or(quoted(Missing::default().name())),
        Key::new("test", path(), "A test set of its own"),
        Key::new("test_split", Value::Number(Limits::SHARE), "Or the share of the samples, at the end, that tests; with neither there is no test set, unless the source has one")
            .or("0.0"),
        Key::new("validation", path(), "A validation set of its own").keras("validation_data"),
        Key::new("validation_split", Value::Number(Limits::SHARE), "Or the share of the samples, at the end of what is left, that validates; 0 where there is a set of its own")
            .flag("--validation-split")
            .keras("validation_split"),
        Key::new("shuffle_split", Value::Whole(0..=u64::MAX), "The seed of an order of the samples before they are split, for data that is sorted"),
        Key::new("scale", Value::Scale, "Multiplies every input, after the normalisation").flag("--scale").keras("Rescaling"),
        Key::new("normalize", Value::Name(Names::of(Normalize::ALL.map(Normalize::name))), "Brings each column (of images all values alike) to the range 0 to 1, or to the mean 0 and the variance 1; fitted to the training split")
            .or(quoted(Normalize::default().name()))
            .keras("Normalization"),
    ]
}

fn dense() -> Kind {
    // Only its defaults matter.
    let Dense { use_bias, kernel_initializer, trainable, .. } = Dense::new(1, Activation::Linear);
    let initializer = Value::Name(Names::of(Initializer::ALL));
    let keys = vec![
        Key::new("units", whole(UNITS), "Outputs").required().keras("units"),
        Key::new(
            "activation",
            Value::Name(Names::of(Activation::ALL)),
            "The function of each output; the last layer has the one that the loss needs",
        )
        .required()
        .keras("activation"),
        Key::new("use_bias", Value::Flag, "Whether there is a bias")
            .or(use_bias.to_string())
            .keras("use_bias"),
        Key::new("kernel_initializer", initializer, "What the kernel is before the first step")
            .or(quoted(kernel_initializer.name()))
            .keras("kernel_initializer"),
        Key::new("kernel_regularizer", Value::Section, "What the kernel adds to the loss").keras("L1L2"),
        trainable_or(trainable),
    ];
    Kind {
        name: "dense",
        meaning: "`activation(x · kernel + bias)`; Keras' `Dense`.",
        is_default: false,
        keys,
    }
}

fn dropout() -> Kind {
    let rate = Key::new("rate", Value::Number(Limits::SHARE), "The share of the units that are 0 in a step");
    Kind {
        name: "dropout",
        meaning: "While training, some of the values are 0 and the others larger in proportion; Keras' `Dropout`.",
        is_default: false,
        keys: vec![rate.required().keras("rate")],
    }
}

fn layer_normalization() -> Kind {
    let Normalization { epsilon, trainable } = Normalization::default();
    let epsilon = Key::new(
        "epsilon",
        Value::Number(Limits::ABOVE_0),
        "Added to the variance, so that nothing is divided by 0",
    )
    .or(format!("{epsilon:?}"))
    .keras("epsilon");
    Kind {
        name: "layer_normalization",
        meaning: "Each sample's values with mean 0 and variance 1, times `gamma` plus `beta`; Keras' `LayerNormalization`.",
        is_default: false,
        keys: vec![epsilon, trainable_or(trainable)],
    }
}

fn trainable_or(default: bool) -> Key {
    Key::new("trainable", Value::Flag, "Whether training changes it")
        .or(default.to_string())
        .keras("trainable")
}

fn regularizer() -> Vec<Key> {
    let factor = |name, meaning| Key::new(name, Value::Number(Limits::FROM_0), meaning).or("0.0").keras(name);
    vec![
        factor("l1", "The factor of the sum of the sizes"),
        factor("l2", "The factor of the sum of the squares"),
    ]
}

fn init() -> Vec<Key> {
    vec![
        Key::new("from", Value::Text("."), "A safetensors file, or the directory of a run that is done")
            .required(),
        Key::new(
            "layers",
            Value::Layers,
            "The layers that begin with the parameters of the file, such as `[\"dense\", \"dense_1\"]`; without it all",
        ),
    ]
}

fn compile() -> Vec<Key> {
    let LossOptions { label_smoothing, delta } = LossOptions::default();
    vec![
        Key::new("loss", Value::Name(Names::of(Loss::spellings())), "What training makes smaller").keras("loss"),
        Key::new("label_smoothing", Value::Number(Limits::SHARE), "The share of each target that is spread evenly over the classes; of the cross-entropies but the sparse one")
            .or(format!("{label_smoothing:?}"))
            .keras("label_smoothing"),
        Key::new("delta", Value::Number(Limits::ABOVE_0), "Where `huber` becomes linear").or(format!("{delta:?}")).keras("delta"),
        Key::new("class_weight", Value::Weights, "Multiplies the losses of the training samples of a class; the other classes have 1")
            .or("{}")
            .keras("class_weight"),
        Key::new("metrics", Value::Names(Names::metrics()), "What is counted and shown beside the loss").keras("metrics"),
        Key::new("optimizer", Value::Section, "How a step follows from a gradient").keras("optimizer"),
        Key::new("schedule", Value::Section, "How the learning rate changes from step to step").keras("learning_rate"),
    ]
}

fn optimizer(kind: OptimizerKind) -> Kind {
    let key = |key: &crate::learn::optimizers::Key| {
        let (value, default) = match key.is_flag {
            true => (Value::Flag, (key.default != 0.0).to_string()),
            false => (number(|value| (key.problem)(value as f32).is_none()), format!("{:?}", key.default)),
        };
        let made = Key::new(key.name, value, key.meaning).or(default).keras(key.name);
        if key.name == "learning_rate" { made.flag("--learning-rate") } else { made }
    };
    let is_default = kind == Optimizer::kind(&Job::default().compile.optimizer);
    Kind { name: kind.name(), meaning: kind.meaning(), is_default, keys: kind.all_keys().map(key).collect() }
}

fn schedule(kind: ScheduleKind) -> Kind {
    let key = |key: &crate::learn::schedules::ScheduleKey| {
        let (value, default): (_, fn(f64) -> String) = match key.form {
            Form::Flag => (Value::Flag, |value| (value != 0.0).to_string()),
            Form::Number => (number(|value| (key.problem)(value).is_none()), |value| format!("{value:?}")),
            Form::Whole => {
                (whole(u32::from((key.problem)(0.0).is_some())..=u32::MAX), |value| format!("{value:.0}"))
            }
        };
        let default = key.default.map(default);
        Key { is_required: default.is_none(), default, ..Key::new(key.name, value, key.meaning) }
    };
    let schedule = Schedule::new(kind);
    let monitor = schedule.watches().then(|| monitor(schedule.monitor));
    Kind {
        name: kind.name(),
        meaning: kind.meaning(),
        is_default: kind == Schedule::default().kind(),
        keys: monitor.into_iter().chain(kind.all_keys().map(key)).collect(),
    }
}

fn monitor(default: Monitor) -> Key {
    Key::new("monitor", Value::Name(Names::figures()), "The figure of an epoch that is looked at")
        .or(quoted(&default.to_string()))
        .keras("monitor")
}

fn fit() -> Vec<Key> {
    vec![
        Key::new("batch_size", whole(POSITIVE), "Samples in a step, over the whole cluster").flag("--batch-size").keras("batch_size"),
        Key::new("epochs", whole(POSITIVE), "How often training goes through all training samples").flag("--epochs").keras("epochs"),
        Key::new("shuffle", Value::Flag, "Whether each epoch has a new order of the samples").flag("--shuffle").keras("shuffle"),
        Key::new("accumulate", whole(POSITIVE), "Mini-batches that make one step of the optimizer, with the mean gradient over all their samples; an epoch's last step may have fewer")
            .or("1")
            .keras("gradient_accumulation_steps"),
        Key::new("early_stopping", Value::Section, "Stops where a figure no longer improves, and keeps the best epoch's weights as `best.safetensors`").keras("EarlyStopping"),
        Key::new("stop_at", Value::Section, "Stops after the epoch in which a figure is good enough"),
    ]
}

fn early_stopping() -> Vec<Key> {
    let EarlyStopping { monitor: figure, patience, min_delta, restore_best } = EarlyStopping::default();
    vec![
        monitor(figure),
        Key::new("patience", whole(0..=u32::MAX), "Epochs without an improvement after which training stops")
            .or(patience.to_string())
            .keras("patience"),
        Key::new(
            "min_delta",
            Value::Number(Limits::FROM_0),
            "By how much a figure has to be better to count as an improvement",
        )
        .or(format!("{min_delta:?}"))
        .keras("min_delta"),
        Key::new("restore_best", Value::Flag, "Whether the trained model is that of the best epoch")
            .or(restore_best.to_string())
            .keras("restore_best_weights"),
    ]
}

fn stop_at() -> Vec<Key> {
    vec![
        Key::new("metric", Value::Name(Names::figures()), "The figure, such as `\"val_accuracy\"`")
            .required(),
        Key::new("value", Value::Number(Limits::ANY), "The value that is good enough").required(),
    ]
}

fn whole(range: RangeInclusive<u32>) -> Value {
    Value::Whole((*range.start()).into()..=(*range.end()).into())
}

fn number(is_allowed: impl Fn(f64) -> bool) -> Value {
    Value::Number(Limits::of(is_allowed))
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}
