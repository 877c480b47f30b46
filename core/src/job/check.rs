//! The rules for a job's values, beyond their types.
//!
//! Rules that need more than the job are checked elsewhere: whether OpenBLAS has the kernel, whether the data
//! exists, and how many samples the validation split leaves for training.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::error::{Places, shown};
use super::names::problem_of_path;
use super::{
    Activation, DataFormat, EarlyStopping, Init, Job, JobError, Layer, Loss, Monitor, Source, StopAt,
    Stopping,
};
use crate::data::schema::Target;
use crate::data::weights;
use crate::learn::layers::{Dense, Normalization, Regularizer};
use crate::learn::limits::{self, MAX_LAYERS, UNITS};
pub use crate::learn::limits::{POSITIVE, SHARDS};
use crate::registry::suggestion;
use crate::text;

const MAX_NAME_BYTES: usize = 64;

impl Job {
    /// Checks every rule, for a job that was built by hand. A job from [`Job::resolve`] is already valid.
    ///
    /// # Errors
    ///
    /// The first rule that is broken, with the dotted key as its place.
    pub fn validate(&self) -> Result<(), JobError> {
        self.validate_at(&Places::default())
    }

    /// Checks that the loss, the metrics and the output layer fit this target.
    ///
    /// # Errors
    ///
    /// If the loss or a metric needs another target, or the output layer has another activation or number of units.
    pub fn check_target(&self, target: Target) -> Result<(), JobError> {
        self.check_target_at(Some(target), &Places::default())
    }

    pub(super) fn validate_at(&self, places: &Places) -> Result<(), JobError> {
        self.check_top(places)?;
        self.check_data(places)?;
        self.check_layers(places)?;
        self.check_init(places)?;
        self.check_target_at(self.data.source.target(), places)?;
        self.check_compile(places)?;
        self.check_fit(places)
    }

    fn check_top(&self, places: &Places) -> Result<(), JobError> {
        if let Some(problem) = problem_of_name(&self.name) {
            return Err(places.error("name", format!("{:?}", self.name), problem));
        }
        check_count(places, "shards", self.shards, SHARDS)?;
        check_count(places, "replicas", self.replicas, POSITIVE)?;
        let kernel = &self.blas_kernel;
        kernel.check().map_err(|error| places.error("blas_kernel", shown(kernel), error.to_string()))
    }

    fn check_data(&self, places: &Places) -> Result<(), JobError> {
        let data = &self.data;
        data.source.check().map_err(|e| places.error("data.source", shown(&data.source), e.to_string()))?;
        if !data.scale.is_normal() {
            let rule =
                "inputs cannot be multiplied by this; give a finite number that is not 0, such as \"1/255\"";
            return Err(places.error("data.scale", data.scale, rule));
        }
        for (key, share) in [("validation_split", data.validation_split), ("test_split", data.test_split)] {
            if !(0.0..1.0).contains(&share) {
                let rule = "not a share; give at least 0 and less than 1, such as 0.2";
                return Err(places.error(&format!("data.{key}"), share, rule));
            }
        }
        for (key, path) in [("data.test", &data.test), ("data.validation", &data.validation)] {
            if let Some((path, problem)) = path.as_ref().and_then(|path| Some((path, problem_of_path(path)?)))
            {
                return Err(places.error(key, shown(path.display()), problem));
            }
        }
        self.check_splits(places)
    }

    /// Checks that each split has one source.
    fn check_splits(&self, places: &Places) -> Result<(), JobError> {
        let data = &self.data;
        if data.validation.is_some() && data.validation_split > 0.0 {
            let rule = "there is a validation set of its own; leave out validation or validation_split";
            return Err(places.error("data.validation_split", data.validation_split, rule));
        }
        if data.test.is_some() && data.test_split > 0.0 {
            let rule = "there is a test set of its own; leave out test or test_split";
            return Err(places.error("data.test_split", data.test_split, rule));
        }
        let has_test_set = data.format_of_source().is_none_or(DataFormat::has_test_set);
        if has_test_set && data.test_split > 0.0 {
            let rule = "the source has a test set of its own; leave test_split out";
            return Err(places.error("data.test_split", data.test_split, rule));
        }
        if data.source == Source::Mnist && (data.test.is_some() || data.validation.is_some()) {
            let key = if data.test.is_some() { "data.test" } else { "data.validation" };
            let rule = "the data that is built in has no other files; give the source as a path, too";
            return Err(places.error_of_whole(key, rule));
        }
        Ok(())
    }

    fn check_layers(&self, places: &Places) -> Result<(), JobError> {
        if self.layers.is_empty() {
            let rule = "no layers; give at least a dense one, the output";
            return Err(places.error_of_whole("layers", rule));
        }
        if self.layers.len() > MAX_LAYERS {
            let rule = format!("{} layers are too many; give at most {MAX_LAYERS}", self.layers.len());
            return Err(places.error_of_whole("layers", rule));
        }
        for (index, layer) in self.layers.iter().enumerate() {
            self.check_layer(index, layer, places)?;
        }
        if !self.layers.iter().any(Layer::is_trainable) {
            let rule = "no layer learns; leave out a `trainable = false`";
            return Err(places.error_of_whole("layers", rule));
        }
        self.check_size(self.data.source.least_inputs()).map_err(|rule| places.error_of_whole("layers", rule))
    }

    fn check_init(&self, places: &Places) -> Result<(), JobError> {
        let Some(Init { from, layers }) = &self.init else { return Ok(()) };
        if let Some(problem) = problem_of_path(from) {
            return Err(places.error("init.from", shown(from.display()), problem));
        }
        let known = self.layer_names();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        for (index, layer) in layers.iter().enumerate() {
            let key = format!("init.layers[{index}]");
            if !known.contains(&layer.as_str()) {
                let rule = format!("no layer with parameters; {}", suggestion(layer, "layers", &known));
                return Err(places.error(&key, quoted(layer), rule));
            }
            if layers[..index].contains(layer) {
                return Err(places.error(&key, quoted(layer), "it is there twice; give each layer once"));
            }
        }
        Ok(())
    }

    /// Checks that the model over `inputs` input values is not too large.
    ///
    /// # Errors
    /// If it has too many parameters.
    pub fn check_size(&self, inputs: u32) -> Result<(), String> {
        limits::check_parameters(inputs.into(), &self.layers)
    }

    fn check_layer(&self, index: usize, layer: &Layer, places: &Places) -> Result<(), JobError> {
        let is_output = index + 1 == self.layers.len();
        let key = |name: &str| format!("layers[{index}].{name}");
        match *layer {
            Layer::Dense(Dense { units, activation, kernel_regularizer: Regularizer { l1, l2 }, .. }) => {
                check_count(places, &key("units"), units, UNITS)?;
                if !activation.fits_hidden_layers() && !is_output {
                    let rule = format!(
                        "only the output layer, the last one, can have {activation}; use {} here",
                        hidden_activations()
                    );
                    return Err(places.error(&key("activation"), quoted(activation), rule));
                }
                for (name, factor) in [("l1", l1), ("l2", l2)] {
                    if let Some(problem) = Regularizer::problem_of(factor) {
                        return Err(places.error(
                            &key(&format!("kernel_regularizer.{name}")),
                            factor,
                            problem,
                        ));
                    }
                }
            }
            Layer::LayerNormalization(Normalization { epsilon, .. }) => {
                if let Some(problem) = Normalization::problem_of(epsilon) {
                    return Err(places.error(&key("epsilon"), epsilon, problem));
                }
                if is_output {
                    let rule = "the last layer is the output and cannot be a layer normalization; end with a dense layer";
                    return Err(places.error_of_whole(&format!("layers[{index}]"), rule));
                }
            }
            Layer::Dropout { rate } => {
                if !(0.0..1.0).contains(&rate) {
                    let rule = "not a share of units to drop; give at least 0 and less than 1, such as 0.5";
                    return Err(places.error(&key("rate"), rate, rule));
                }
                if is_output {
                    let rule = "the last layer is the output and cannot be dropout; end with a dense layer";
                    return Err(places.error_of_whole(&format!("layers[{index}]"), rule));
                }
            }
        }
        Ok(())
    }

    fn check_target_at(&self, target: Option<Target>, places: &Places) -> Result<(), JobError> {
        let (loss, last) = (self.compile.loss, self.layers.len().wrapping_sub(1));
        let of_data = |what: &str, needs, target, instead: &str| {
            let rule = format!("{what} needs {needs}, and the data has {target}{instead}");
            places.error("compile.loss", quoted(loss), rule)
        };
        // Check first what no layer can fix.
        let outputs = target.map(|target| {
            let unfit = |needs| of_data(loss.name(), needs, target, &losses_for(target));
            loss.outputs(target).map_err(unfit)
        });
        let outputs = outputs.transpose()?;
        let Some(&Layer::Dense(Dense { units, activation, .. })) = self.layers.last() else {
            return Err(places.error_of_whole("layers", "no output layer; end with a dense layer"));
        };
        let key = |name: &str| format!("layers[{last}].{name}");
        if activation != loss.activation() {
            let (needs, right) = (loss.needs(), loss.activation());
            let rule = format!("{loss} needs {needs}; give the output layer {right}");
            return Err(places.error(&key("activation"), quoted(activation), rule));
        }
        let (Some(target), Some(outputs)) = (target, outputs) else { return Ok(()) };
        if units != outputs {
            let noun = if outputs == 1 { "unit" } else { "units" };
            let reason = format!("the data has {target}");
            let rule = match activation {
                Activation::Softmax => format!("{reason}; give the output layer {outputs} {noun}"),
                _ => format!(
                    "{reason}, for which {loss} needs {outputs} {noun}; give the output layer {outputs}"
                ),
            };
            return Err(places.error(&key("units"), units, rule));
        }
        for metric in &self.compile.metrics {
            metric.fits(target).map_err(|needs| of_data(&metric.name(), needs, target, ""))?;
        }
        Ok(())
    }

    fn check_loss(&self, places: &Places) -> Result<(), JobError> {
        let loss = self.compile.loss;
        for option in self.compile.options.all() {
            let error = |problem: String| {
                Err(places.error(&format!("compile.{}", option.name), format!("{:?}", option.value), problem))
            };
            if let Some(problem) = option.problem {
                return error(problem.to_string());
            }
            if option.value != option.default && !loss.options().contains(&option.name) {
                let having: Vec<_> =
                    Loss::ALL.iter().filter(|loss| loss.options().contains(&option.name)).collect();
                let having: Vec<_> = having.into_iter().map(|loss| loss.name()).collect();
                return error(format!(
                    "{loss} has no such option; leave it out, or use {}",
                    having.join(" or ")
                ));
            }
        }
        Ok(())
    }

    fn check_weights(&self, places: &Places) -> Result<(), JobError> {
        let (classes, key) = (&self.compile.class_weight, "compile.class_weight");
        for (class, weight) in classes {
            if let Some(problem) = weights::problem_of(*weight) {
                return Err(places.error(&format!("{key}.{class}"), weight, problem));
            }
        }
        if !classes.is_empty() && self.data.table.sample_weight.is_some() {
            let rule =
                "samples weigh by their classes or by data.sample_weight, as in Keras; leave out one of them";
            return Err(places.error_of_whole(key, rule));
        }
        if !classes.is_empty() && !self.wanted().classes {
            let rule = format!(
                "{} learns numbers, which have no classes; leave class_weight out",
                self.compile.loss
            );
            return Err(places.error_of_whole(key, rule));
        }
        if self.data.table.sample_weight.is_some()
            && self.data.format_of_source().is_none_or(|format| format == DataFormat::Idx)
        {
            let rule = "IDX files have no weights; leave it out, or give a table or an .npz";
            return Err(places.error_of_whole("data.sample_weight", rule));
        }
        Ok(())
    }

    fn check_stopping(&self, places: &Places) -> Result<(), JobError> {
        let Stopping { early, at } = self.fit.stopping;
        if let Some(EarlyStopping { monitor, min_delta, .. }) = early {
            self.check_monitor(monitor, "fit.early_stopping.monitor", places)?;
            if !(min_delta.is_finite() && min_delta >= 0.0) {
                let rule = "not a difference of figures; give a finite number of at least 0";
                return Err(places.error("fit.early_stopping.min_delta", min_delta, rule));
            }
        }
        if let Some(StopAt { metric, value }) = at {
            self.check_monitor(metric, "fit.stop_at.metric", places)?;
            if !value.is_finite() {
                return Err(places.error("fit.stop_at.value", value, "not a figure; give a finite number"));
            }
        }
        Ok(())
    }

    fn check_schedule(&self, places: &Places) -> Result<(), JobError> {
        let schedule = &self.compile.schedule;
        if let Some(missing) = schedule.missing() {
            let rule = format!("{} needs a value for `{missing}`", schedule.kind());
            return Err(places.error_of_whole("compile.schedule", rule));
        }
        for (key, value) in schedule.settings() {
            if let Some(problem) = (key.problem)(value) {
                return Err(places.error(&format!("compile.schedule.{}", key.name), value, problem));
            }
        }
        if schedule.watches() {
            self.check_monitor(schedule.monitor, "compile.schedule.monitor", places)?;
        }
        Ok(())
    }

    /// Checks that epochs have the figure that something looks at.
    fn check_monitor(&self, monitor: Monitor, key: &str, places: &Places) -> Result<(), JobError> {
        let error = |rule: String| Err(places.error(key, quoted(monitor), rule));
        if let Some(metric) = monitor.metric.filter(|metric| !self.compile.metrics.contains(metric)) {
            return error(format!("the job does not count it; add \"{metric}\" to compile.metrics"));
        }
        if monitor.validation && self.data.validation_split == 0.0 && self.data.validation.is_none() {
            let instead = monitor.to_string().replace("val_", "");
            return error(format!(
                "there is no validation split; raise data.validation_split, or give \"{instead}\""
            ));
        }
        Ok(())
    }

    fn check_compile(&self, places: &Places) -> Result<(), JobError> {
        self.check_loss(places)?;
        self.check_weights(places)?;
        for (key, value) in self.compile.optimizer.settings() {
            if let Some(problem) = (key.problem)(value) {
                return Err(places.error(&format!("compile.optimizer.{}", key.name), value, problem));
            }
        }
        let clippings: Vec<_> = self.compile.optimizer.clippings().collect();
        if let [first, second, ..] = clippings[..] {
            let value = self.compile.optimizer.get(second).unwrap_or_default();
            let rule = format!(
                "gradients are clipped in one way, as in Keras, and {first} is there, too; leave one out"
            );
            return Err(places.error(&format!("compile.optimizer.{second}"), value, rule));
        }
        self.check_schedule(places)?;
        for (index, metric) in self.compile.metrics.iter().enumerate() {
            if self.compile.metrics[..index].contains(metric) {
                let rule = format!("{metric} is there twice; give each metric once");
                return Err(places.error_of_whole("compile.metrics", rule));
            }
        }
        Ok(())
    }

    fn check_fit(&self, places: &Places) -> Result<(), JobError> {
        check_count(places, "fit.batch_size", self.fit.batch_size, POSITIVE)?;
        check_count(places, "fit.epochs", self.fit.epochs, POSITIVE)?;
        check_count(places, "fit.accumulate", self.fit.accumulate, POSITIVE)?;
        self.check_stopping(places)?;
        if self.batch() <= u64::from(u32::MAX) {
            return Ok(());
        }
        let rule = format!(
            "batch_size × replicas is {} × {} = {}; lower one of them, to {} at most in all",
            self.fit.batch_size,
            self.replicas,
            self.batch(),
            u32::MAX
        );
        // Only `replicas` above 1 can cause this, so it was given explicitly, unless the job was built by hand.
        let culprit = if places.contains("replicas") { "replicas" } else { "fit.batch_size" };
        let value = if culprit == "replicas" { self.replicas } else { self.fit.batch_size };
        Err(places.error(culprit, value, rule))
    }
}

/// Why `name` can't be the name of a directory, if it can't.
fn problem_of_name(name: &str) -> Option<String> {
    let problem = if name.is_empty() {
        "empty; it names the run directory, so give it a letter at least"
    } else if name == "." || name == ".." {
        "this is a directory already; the name becomes the run directory's, so give another"
    } else if name.len() > MAX_NAME_BYTES {
        return Some(format!("{} bytes are too long for a name; give at most {MAX_NAME_BYTES}", name.len()));
    } else if name.contains('/') {
        "contains a slash; the name becomes the run directory's, so leave it out"
    } else if name.contains(text::is_hidden) {
        "contains a character that is invisible or controls how others are shown; leave it out"
    } else {
        return None;
    };
    Some(problem.to_owned())
}

fn check_count(places: &Places, key: &str, value: u32, range: RangeInclusive<u32>) -> Result<(), JobError> {
    match problem_of_whole(i128::from(value), i128::from(*range.start()), i128::from(*range.end())) {
        None => Ok(()),
        Some(problem) => Err(places.error(key, value, problem)),
    }
}

/// What is wrong with a whole number that must be from `min` to `max`, if anything; `value` may exceed the range
/// of the key's own type.
pub(super) fn problem_of_whole(value: i128, min: i128, max: i128) -> Option<String> {
    let kind = match value {
        _ if value < min => "too small",
        _ if value > max => "too large",
        _ => return None,
    };
    // A `max` that is only the limit of the type does not help if the value is too small.
    let open = value < min && max >= i128::from(u32::MAX);
    let range = if open { format!("of at least {min}") } else { format!("from {min} to {max}") };
    Some(format!("{kind}; give a whole number {range}"))
}

/// What to write instead of a loss that can't learn this target.
fn losses_for(target: Target) -> String {
    let one = |(loss, activation, units): (Loss, Activation, u32)| match units {
        1 => format!("{loss} (an output of 1 {activation} unit)"),
        units => format!("{loss} (an output of {units} {activation} units)"),
    };
    let fitting: Vec<_> = Loss::that_learn(target).map(one).collect();
    format!("; give {}", fitting.join(" or "))
}

/// The names of the activations that any layer can have.
fn hidden_activations() -> String {
    let names = Activation::ALL.iter().filter(|activation| activation.fits_hidden_layers());
    names.map(|activation| activation.name()).collect::<Vec<_>>().join(", ")
}

fn quoted(name: impl Display) -> String {
    format!("\"{name}\"")
}
