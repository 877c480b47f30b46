//! Reads a job file over a job.
//!
//! The parsed TOML is read by hand, not through a derived deserializer, so that every error about an entry can
//! name its key, its value as written and its line. Entries are read in the order of the file, and reading stops
//! at the first error. Only types are checked here; `check` checks the values, after flags were applied.
//!
//! A value of `--set` is read by the same code, as a file of one line.
//!
//! Units, activation and rate of a layer have no defaults: they are its layer, and a default activation would differ from
//! that of Keras (none).

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::problem_of_whole;
use super::error::Places;
use super::keys::{Kind, LAYERS, OPTIMIZER, REGULARIZER, SCHEDULE, SECTIONS, Section};
use super::names::ParseNameError;
use super::{
    ClassWeights, ColumnName, Compile, Data, EarlyStopping, Fit, Init, Job, JobError, Layer, LossOptions,
    Optimizer, OptimizerKind, Schedule, ScheduleKind, StopAt, parse_scale,
};
use crate::learn::layers::{Dense, Normalization, Regularizer};
use crate::learn::limits::{POSITIVE, SHARDS, UNITS};
use crate::learn::schedules::Form;
use crate::registry::suggestion;

/// The known keys of a section; none of what is no section.
fn keys_of(section: &str) -> Vec<&'static str> {
    Section::named(section).map_or(Vec::new(), Section::key_names)
}

/// The known keys of a layer of this type.
fn keys_of_layer(name: &str) -> Vec<&'static str> {
    let mut kinds = Section::named(LAYERS).into_iter().flat_map(|section| &section.kinds);
    kinds.find(|kind| kind.name == name).map_or(Vec::new(), Kind::key_names)
}

/// The maximum size of a job file in bytes: ample for a job, and small enough that a hostile file from the wire
/// costs little.
pub const MAX_BYTES: usize = 64 * 1024;

/// Overlays `job` with the values of a job file, and records the place of each value.
pub(super) fn read(file: &str, text: &str, job: &mut Job, places: &mut Places) -> Result<(), JobError> {
    if text.len() > MAX_BYTES {
        let problem = format!("more than {MAX_BYTES} bytes, too many for a job file; is it another file?");
        return Err(JobError::new(file, problem));
    }
    let document = DeTable::parse(text).map_err(|error| syntax_error(file, text, &error))?;
    let mut reader = Reader { source: SourceText { name: file, text, is_flag: false }, places };
    reader.top(document.get_ref(), job)
}

/// Overlays `job` with one value, given as `key=value`; `place` names it in errors.
///
/// The key is dotted, as in `fit.epochs`, or names a key of a layer, as in `layers[0].units`. The value is TOML, or a text
/// without its quotes.
pub(super) fn set(place: &str, given: &str, job: &mut Job, places: &mut Places) -> Result<(), JobError> {
    let advice = "give KEY=VALUE, such as fit.epochs=10 or layers[0].units=64";
    let Some((key, value)) = given.split_once('=') else {
        return Err(JobError::new(place, format!("no value; {advice}")));
    };
    let (key, value) = (key.trim(), value.trim());
    let text = match layer_key(key) {
        Some((index, key)) => {
            with_layer_key(job, index, key, value).map_err(|what| JobError::new(place, what))?
        }
        None => assignment(key, value),
    };
    if given.len() > MAX_BYTES {
        return Err(JobError::new("--set", format!("more than {MAX_BYTES} bytes")));
    }
    let document = DeTable::parse(&text)
        .map_err(|_| JobError::new(place, format!("not a key and a value; {advice}")))?;
    let mut reader = Reader { source: SourceText { name: place, text: &text, is_flag: true }, places };
    reader.top(document.get_ref(), job)
}

/// A line of TOML: the value as written, or else as a text.
fn assignment(key: &str, value: &str) -> String {
    let written = format!("{key} = {value}");
    let is_toml = !value.contains('\n') && DeTable::parse(&written).is_ok();
    if is_toml { written } else { format!("{key} = {}", toml::Value::from(value)) }
}

/// The index and the key of `layers[0].units`.
fn layer_key(key: &str) -> Option<(usize, &str)> {
    let (index, key) = key.strip_prefix("layers[")?.split_once("].")?;
    Some((index.parse().ok()?, key))
}

/// All layers as TOML, with one key of one of them replaced.
fn with_layer_key(job: &Job, index: usize, key: &str, value: &str) -> Result<String, String> {
    let mut layers: Vec<toml::Table> = job.layers.iter().map(super::write::layer_table).collect();
    let count = layers.len();
    let layer = layers.get_mut(index).ok_or_else(|| {
        format!(
            "there is no such layer; the job has {count}, from layers[0] to layers[{}]",
            count.saturating_sub(1)
        )
    })?;
    let changed: toml::Table = assignment(key, value)
        .parse()
        .map_err(|_| "not a key and a value; give layers[0].units=64".to_string())?;
    layer.extend(changed);
    let layers = layers.into_iter().map(toml::Value::Table).collect();
    Ok(toml::Table::from_iter([("layers".to_string(), toml::Value::Array(layers))]).to_string())
}

fn syntax_error(file: &str, text: &str, error: &toml::de::Error) -> JobError {
    let start = error.span().map_or(0, |span| span.start);
    let message = error.message().lines().collect::<Vec<_>>().join("; ");
    let token = error.span().and_then(|span| text.get(span)).and_then(|token| token.lines().next());
    let token = match token {
        Some(token) if (1..=40).contains(&token.len()) => format!(", at `{}`", token.escape_debug()),
        _ => String::new(),
    };
    JobError::new(format!("{file}:{}", line_number(text, start)), format!("not TOML: {message}{token}"))
}

fn line_number(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

/// A text that is read, and how errors name places in it.
#[derive(Clone, Copy)]
struct SourceText<'a> {
    name: &'a str,
    text: &'a str,
    /// Whether it is a flag, all of which is one place.
    is_flag: bool,
}

struct Reader<'a> {
    source: SourceText<'a>,
    places: &'a mut Places,
}

impl<'a> Reader<'a> {
    fn top(&mut self, table: &'a DeTable<'a>, job: &mut Job) -> Result<(), JobError> {
        for entry in self.entries(table, "") {
            match entry.name {
                "name" => job.name = entry.string()?.to_owned(),
                "seed" => job.seed = entry.whole(0..=u64::MAX)?,
                "shards" => job.shards = entry.whole(SHARDS)?,
                "replicas" => job.replicas = entry.whole(POSITIVE)?,
                "blas_kernel" => job.blas_kernel = entry.named()?,
                "data" => self.data(entry.table()?, &mut job.data)?,
                "layers" => job.layers = self.layers(&entry)?,
                "init" => job.init = Some(self.init(&entry, job.init.take())?),
                "compile" => self.compile(entry.table()?, &mut job.compile)?,
                "fit" => self.fit(entry.table()?, &mut job.fit)?,
                _ => return Err(entry.unknown_in("")),
            }
        }
        Ok(())
    }

    fn data(&mut self, table: &'a DeTable<'a>, data: &mut Data) -> Result<(), JobError> {
        let entries = self.entries(table, "data");
        for entry in &entries {
            match entry.name {
                "source" => data.source = entry.named()?,
                "format" => data.format = Some(entry.named()?),
                "target" => data.table.target = entry.columns()?,
                "drop" => data.table.drop = entry.columns()?,
                "sample_weight" => data.table.sample_weight = Some(entry.column()?),
                "header" => data.table.header = entry.boolean()?,
                "separator" => data.table.separator = Some(entry.character()?),
                "missing" => data.table.missing = entry.named()?,
                "test" => data.test = Some(PathBuf::from(entry.string()?)),
                "test_split" => data.test_split = entry.number()?,
                "validation" => data.validation = Some(PathBuf::from(entry.string()?)),
                "validation_split" => data.validation_split = entry.number()?,
                "shuffle_split" => data.shuffle_split = Some(entry.whole(0..=u64::MAX)?),
                "scale" => data.scale = entry.scale()?,
                "normalize" => data.normalize = entry.named()?,
                _ => return Err(entry.unknown_in("data")),
            }
        }
        if data.validation.is_some() && entries.iter().all(|entry| entry.name != "validation_split") {
            data.validation_split = 0.0;
        }
        Ok(())
    }

    fn layers(&mut self, entry: &Entry<'a>) -> Result<Vec<Layer>, JobError> {
        let items = entry.items("a list of layers, each under a [[layers]] of its own")?;
        items.into_iter().map(|item| self.layer(&item)).collect()
    }

    fn layer(&mut self, item: &Entry<'a>) -> Result<Layer, JobError> {
        self.places.insert(item.path.clone(), item.place());
        let table = item.table()?;
        let entries = self.entries(table, &item.path);
        let Some(kind) = entries.iter().find(|entry| entry.name == "type") else {
            let what = "its `type` is missing; give \"dense\", \"dropout\" or \"layer_normalization\"";
            return Err(item.error(what));
        };
        let name = kind.string()?;
        let keys = LayerKeys { layer: name, item, entries: &entries, known: keys_of_layer(name) };
        match name {
            "dense" => {
                let units = keys.required("units")?.whole(UNITS)?;
                let mut dense = Dense::new(units, keys.required("activation")?.named()?);
                if let Some(entry) = keys.optional("use_bias") {
                    dense.use_bias = entry.boolean()?;
                }
                if let Some(entry) = keys.optional("kernel_initializer") {
                    dense.kernel_initializer = entry.named()?;
                }
                if let Some(entry) = keys.optional("kernel_regularizer") {
                    dense.kernel_regularizer = self.regularizer(entry)?;
                }
                if let Some(entry) = keys.optional("trainable") {
                    dense.trainable = entry.boolean()?;
                }
                Ok(Layer::Dense(dense))
            }
            "layer_normalization" => {
                keys.check()?;
                let mut normalization = Normalization::default();
                if let Some(entry) = keys.optional("epsilon") {
                    normalization.epsilon = entry.number()?;
                }
                if let Some(entry) = keys.optional("trainable") {
                    normalization.trainable = entry.boolean()?;
                }
                Ok(Layer::LayerNormalization(normalization))
            }
            "dropout" => Ok(Layer::Dropout { rate: keys.required("rate")?.number()? }),
            other => Err(kind.error(ParseNameError::unknown("layer type", other, "types", Layer::NAMES))),
        }
    }

    fn regularizer(&mut self, entry: &Entry<'a>) -> Result<Regularizer, JobError> {
        let mut regularizer = Regularizer::default();
        for entry in self.entries(entry.table()?, &entry.path) {
            match entry.name {
                "l1" => regularizer.l1 = entry.number()?,
                "l2" => regularizer.l2 = entry.number()?,
                _ => {
                    let advice = suggestion(entry.name, "keys", &keys_of(REGULARIZER));
                    return Err(entry.unknown("in a kernel_regularizer", &advice));
                }
            }
        }
        Ok(regularizer)
    }

    fn init(&mut self, item: &Entry<'a>, before: Option<Init>) -> Result<Init, JobError> {
        let (mut from, mut layers) = before.map_or((None, Vec::new()), |init| (Some(init.from), init.layers));
        for entry in self.entries(item.table()?, "init") {
            match entry.name {
                "from" => from = Some(PathBuf::from(entry.string()?)),
                "layers" => {
                    let names = entry.items("a list of layers' names, such as [\"dense\", \"dense_1\"]")?;
                    let names = names.iter().map(|name| name.string().map(str::to_owned));
                    layers = names.collect::<Result<_, _>>()?;
                }
                _ => return Err(entry.unknown_in("init")),
            }
        }
        let missing =
            || item.error("its `from` is missing; give a safetensors file, or the directory of a run");
        Ok(Init { from: from.ok_or_else(missing)?, layers })
    }

    fn compile(&mut self, table: &'a DeTable<'a>, compile: &mut Compile) -> Result<(), JobError> {
        for entry in self.entries(table, "compile") {
            match entry.name {
                "loss" => compile.loss = entry.named()?,
                name if LossOptions::NAMES.contains(&name) => {
                    let value = entry.number()?;
                    compile.options.get_mut(name).into_iter().for_each(|option| *option = value);
                }
                "class_weight" => compile.class_weight = self.class_weight(&entry)?,
                "metrics" => {
                    let metrics = entry.items("a list, such as [\"accuracy\"]")?;
                    compile.metrics = metrics.iter().map(Entry::named).collect::<Result<_, _>>()?;
                }
                "optimizer" => self.optimizer(entry.table()?, &mut compile.optimizer)?,
                "schedule" => self.schedule(entry.table()?, &mut compile.schedule)?,
                _ => return Err(entry.unknown_in("compile")),
            }
        }
        Ok(())
    }

    /// Each class, as a name or a number in quotes or without, and its weight.
    fn class_weight(&mut self, entry: &Entry<'a>) -> Result<ClassWeights, JobError> {
        let table = entry.value.get_ref().as_table();
        let table =
            table.ok_or_else(|| entry.wrong_type("a table of classes, such as { 0 = 1.0, 1 = 2.5 }"))?;
        let entries = self.entries(table, &entry.path);
        entries.iter().map(|entry| Ok((entry.name.to_owned(), entry.number()?))).collect()
    }

    fn optimizer(&mut self, table: &'a DeTable<'a>, optimizer: &mut Optimizer) -> Result<(), JobError> {
        let entries = self.entries(table, OPTIMIZER);
        if let Some(kind) = entries.iter().find(|entry| entry.name == "type") {
            let kind: OptimizerKind = kind.named()?;
            if kind != optimizer.kind() {
                *optimizer = Optimizer::new(kind);
            }
        }
        for entry in entries.iter().filter(|entry| entry.name != "type") {
            if optimizer.get(entry.name).is_none() {
                let keys: Vec<_> = ["type"].into_iter().chain(optimizer.kind().keys()).collect();
                let advice = suggestion(entry.name, &format!("keys of {}", optimizer.kind()), &keys);
                return Err(entry.unknown("in [compile.optimizer]", &advice));
            }
            let is_flag = optimizer.is_flag(entry.name) == Some(true);
            let value = if is_flag { f32::from(u8::from(entry.boolean()?)) } else { entry.number()? };
            optimizer.set(entry.name, value);
        }
        Ok(())
    }

    fn schedule(&mut self, table: &'a DeTable<'a>, schedule: &mut Schedule) -> Result<(), JobError> {
        let entries = self.entries(table, SCHEDULE);
        if let Some(kind) = entries.iter().find(|entry| entry.name == "type") {
            let kind: ScheduleKind = kind.named()?;
            if kind != schedule.kind() {
                *schedule = Schedule::new(kind);
            }
        }
        for entry in entries.iter().filter(|entry| entry.name != "type") {
            if entry.name == "monitor" && schedule.watches() {
                schedule.monitor = entry.named()?;
                continue;
            }
            let Some(key) = schedule.key(entry.name) else {
                let keys: Vec<_> = ["type"].into_iter().chain(schedule.kind().keys()).collect();
                let advice = suggestion(entry.name, &format!("keys of {}", schedule.kind()), &keys);
                return Err(entry.unknown("in [compile.schedule]", &advice));
            };
            let value = match key.form {
                Form::Whole => entry.whole(0..=u32::MAX)?.into(),
                Form::Number => entry.number()?,
                Form::Flag => f64::from(u8::from(entry.boolean()?)),
            };
            schedule.set(entry.name, value);
        }
        Ok(())
    }

    fn fit(&mut self, table: &'a DeTable<'a>, fit: &mut Fit) -> Result<(), JobError> {
        for entry in self.entries(table, "fit") {
            match entry.name {
                "batch_size" => fit.batch_size = entry.whole(POSITIVE)?,
                "epochs" => fit.epochs = entry.whole(POSITIVE)?,
                "shuffle" => fit.shuffle = entry.boolean()?,
                "accumulate" => fit.accumulate = entry.whole(POSITIVE)?,
                "early_stopping" => {
                    self.early_stopping(entry.table()?, fit.stopping.early.get_or_insert_default())?;
                }
                "stop_at" => fit.stopping.at = Some(self.stop_at(&entry, fit.stopping.at)?),
                _ => return Err(entry.unknown_in("fit")),
            }
        }
        Ok(())
    }

    fn early_stopping(&mut self, table: &'a DeTable<'a>, early: &mut EarlyStopping) -> Result<(), JobError> {
        for entry in self.entries(table, "fit.early_stopping") {
            match entry.name {
                "monitor" => early.monitor = entry.named()?,
                "patience" => early.patience = entry.whole(0..=u32::MAX)?,
                "min_delta" => early.min_delta = entry.number()?,
                "restore_best" => early.restore_best = entry.boolean()?,
                _ => return Err(entry.unknown_in("fit.early_stopping")),
            }
        }
        Ok(())
    }

    fn stop_at(&mut self, item: &Entry<'a>, before: Option<StopAt>) -> Result<StopAt, JobError> {
        let (mut metric, mut value) = (before.map(|at| at.metric), before.map(|at| at.value));
        for entry in self.entries(item.table()?, "fit.stop_at") {
            match entry.name {
                "metric" => metric = Some(entry.named()?),
                "value" => value = Some(entry.number()?),
                _ => return Err(entry.unknown_in("fit.stop_at")),
            }
        }
        let missing = || item.error("needs both, as in { metric = \"val_accuracy\", value = 0.97 }");
        Ok(StopAt { metric: metric.ok_or_else(missing)?, value: value.ok_or_else(missing)? })
    }

    /// The entries of a table in the order of the file. Records their places.
    fn entries(&mut self, table: &'a DeTable<'a>, section: &str) -> Vec<Entry<'a>> {
        let source = self.source;
        let mut entries: Vec<Entry<'a>> = table
            .iter()
            .map(|(key, value)| {
                let name: &str = key.get_ref();
                let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
                Entry { source, path, name, start: key.span().start, value }
            })
            .collect();
        entries.sort_by_key(|entry| entry.start);
        for entry in &entries {
            self.places.insert(entry.path.clone(), entry.place());
        }
        entries
    }
}

/// A key (or an index in a list) with its value and position.
struct Entry<'a> {
    source: SourceText<'a>,
    /// The dotted key, such as `fit.epochs` or `layers[2].rate`.
    path: String,
    /// The last part of the key.
    name: &'a str,
    /// The byte offset of the entry.
    start: usize,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Entry<'a> {
    fn line(&self) -> String {
        let SourceText { name, text, is_flag } = self.source;
        if is_flag { name.to_string() } else { format!("{name}:{}", line_number(text, self.start)) }
    }

    /// File, line and entry: with its value as written if that is short, otherwise only its path.
    fn place(&self) -> String {
        if self.source.is_flag {
            return self.line();
        }
        let written = self.source.text.get(self.value.span()).unwrap_or_default();
        let is_list_item = self.path.ends_with(']');
        let is_short = written.len() <= 100 && !written.contains('\n');
        let is_header = matches!(self.value.get_ref(), DeValue::Table(_)) || written.starts_with("[[");
        if is_short && !is_header {
            let label = if is_list_item { &self.path } else { self.name };
            format!("{}: {label} = {written}", self.line())
        } else {
            format!("{}: {}", self.line(), self.path)
        }
    }

    fn error(&self, problem: impl Display) -> JobError {
        JobError::new(self.place(), problem.to_string())
    }

    fn wrong_type(&self, expected: &str) -> JobError {
        self.error(format_args!("found {}, expected {expected}", kind(self.value.get_ref())))
    }

    fn string(&self) -> Result<&'a str, JobError> {
        self.value.get_ref().as_str().ok_or_else(|| self.wrong_type("a string in quotes"))
    }

    fn boolean(&self) -> Result<bool, JobError> {
        self.value.get_ref().as_bool().ok_or_else(|| self.wrong_type("true or false"))
    }

    fn table(&self) -> Result<&'a DeTable<'a>, JobError> {
        self.value.get_ref().as_table().ok_or_else(|| {
            let section = if self.name == "kernel_regularizer" { REGULARIZER } else { &self.path };
            let known = keys_of(section);
            let keys = if known.is_empty() { vec!["type", "…"] } else { known };
            self.wrong_type(&format!("a table with the keys {}", keys.join(", ")))
        })
    }

    /// Reads a string as one of a set of names.
    fn named<T: FromStr<Err = ParseNameError>>(&self) -> Result<T, JobError> {
        self.string()?.parse().map_err(|error| self.error(error))
    }

    /// Reads a whole number within `range`, which the type `T` can hold.
    fn whole<T>(&self, range: RangeInclusive<T>) -> Result<T, JobError>
    where
        T: Copy + TryFrom<i128>,
        i128: From<T>,
    {
        let integer = self.value.get_ref().as_integer().ok_or_else(|| self.wrong_type("a whole number"))?;
        let (min, max) = (i128::from(*range.start()), i128::from(*range.end()));
        let value = i128::from_str_radix(integer.as_str(), integer.radix());
        // Numbers beyond 128 bits are out of any range.
        let beyond = if integer.as_str().starts_with('-') { i128::MIN } else { i128::MAX };
        let value = value.unwrap_or(beyond);
        // A flag may still replace a value that only breaks a rule, but not a value that its type can't hold.
        T::try_from(value).map_err(|_| self.error(problem_of_whole(value, min, max).unwrap_or_default()))
    }

    fn number<T: FromStr>(&self) -> Result<T, JobError> {
        let digits = match self.value.get_ref() {
            DeValue::Float(float) => Cow::Borrowed(float.as_str()),
            DeValue::Integer(integer) => match i128::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(value) => Cow::Owned(value.to_string()),
                Err(_) => Cow::Borrowed(integer.as_str()),
            },
            _ => return Err(self.wrong_type("a number")),
        };
        // Parse the digits directly: going through f64 would round an f32 twice.
        digits.parse().map_err(|_| self.wrong_type("a number"))
    }

    fn scale(&self) -> Result<f32, JobError> {
        match self.value.get_ref() {
            DeValue::String(text) => parse_scale(text).map_err(|error| self.error(error)),
            DeValue::Integer(_) | DeValue::Float(_) => self.number(),
            _ => Err(self.wrong_type("a number or a fraction such as \"1/255\"")),
        }
    }

    /// Reads a column, or a list of columns.
    fn columns(&self) -> Result<Vec<ColumnName>, JobError> {
        if self.value.get_ref().as_array().is_none() {
            return Ok(vec![self.column()?]);
        }
        self.items("a list of columns")?.iter().map(Self::column).collect()
    }

    fn column(&self) -> Result<ColumnName, JobError> {
        match self.value.get_ref() {
            DeValue::String(name) => Ok(ColumnName::Name(name.to_string())),
            DeValue::Integer(_) => self.whole(0..=u32::MAX).map(ColumnName::Number),
            _ => Err(self.wrong_type("a column's name in quotes, or its number from 0")),
        }
    }

    fn character(&self) -> Result<char, JobError> {
        let mut text = self.string()?.chars();
        match (text.next(), text.next()) {
            (Some(character), None) if character.is_ascii() && !"\"\r\n".contains(character) => Ok(character),
            _ => Err(self.error("not one ASCII character; give one such as \";\" or \"\\t\"")),
        }
    }

    /// The items of a list, as entries.
    fn items(&self, expected: &str) -> Result<Vec<Entry<'a>>, JobError> {
        let array = self.value.get_ref().as_array().ok_or_else(|| self.wrong_type(expected))?;
        let item = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| Entry {
            path: format!("{}[{index}]", self.path),
            start: value.span().start,
            value,
            ..*self
        };
        Ok(array.iter().enumerate().map(item).collect())
    }

    /// The error that `section` has no such key. Names the right section, if another section has the key.
    fn unknown_in(&self, section: &str) -> JobError {
        let known = keys_of(section);
        let homes = || SECTIONS.iter().filter(|section| !section.name.starts_with(LAYERS));
        // A key of a type, such as `epsilon`, may belong to another type, but a key of a section to no other section.
        let (typed, plain): (Vec<_>, Vec<_>) = homes().partition(|section| section.has_types());
        let mut sections = plain.into_iter().chain(typed);
        let home = sections.find(|section| section.key_names().contains(&self.name)).map(|home| home.name);
        let advice = match home {
            Some("") => "it belongs at the top, before the first [section]".to_owned(),
            Some(home) => format!("it belongs in [{home}]"),
            None => suggestion(self.name, "keys", &known),
        };
        let place = if section.is_empty() { "at the top".to_owned() } else { format!("in [{section}]") };
        self.unknown(&place, &advice)
    }

    fn unknown(&self, holder: &str, advice: &str) -> JobError {
        JobError::new(self.line(), format!("unknown key `{}` {holder}; {advice}", self.name.escape_debug()))
    }
}

/// The keys of a layer.
struct LayerKeys<'a, 'e> {
    /// The layer's type, as written.
    layer: &'a str,
    item: &'e Entry<'a>,
    entries: &'e [Entry<'a>],
    /// The only valid keys.
    known: Vec<&'static str>,
}

impl<'a, 'e> LayerKeys<'a, 'e> {
    /// Refuses other keys.
    fn check(&self) -> Result<(), JobError> {
        let Self { layer, entries, known, .. } = self;
        if let Some(unknown) = entries.iter().find(|entry| !known.contains(&entry.name)) {
            let holder = format!("in a {layer} layer");
            return Err(unknown.unknown(&holder, &suggestion(unknown.name, "keys", known)));
        }
        Ok(())
    }

    /// The entry of this name, if there is one.
    fn optional(&self, name: &str) -> Option<&'e Entry<'a>> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The entry of this name.
    fn required(&self, name: &str) -> Result<&'e Entry<'a>, JobError> {
        self.check()?;
        self.optional(name).ok_or_else(|| {
            let keys = self.known.join(", ");
            self.item.error(format_args!("its `{name}` is missing; its keys are {keys}"))
        })
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
