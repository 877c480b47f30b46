//! Schedules: the learning rate as a function of the number of optimizer steps taken; one schedule per file.
//!
//! A schedule is a [`Shape`] behind a warm-up. Over the first `warmup_steps` the rate rises in a straight line, from 0 to the
//! optimizer's `learning_rate`, or from `learning_rate` to `warmup_target` where that is given. Then the shape begins, at
//! its own step 0, with the rate that the warm-up has reached. That is Keras' `CosineDecay` for any shape.
//!
//! [`ReduceOnPlateau`](plateau) alone looks at the training: at the history of finished epochs, which a resumed run has too.
//! Rates are computed in `f64`, with functions of this project's own, and then rounded once.

mod constant;
mod cosine;
mod exponential;
mod functions;
mod one_cycle;
mod plateau;
mod step;

use std::fmt::{self, Display, Formatter};

use super::monitor::Monitor;
use crate::registry::registry;
use crate::view::EpochRow;

registry! {
    /// A kind of schedule.
    pub enum ScheduleKind: dyn Shape, "schedule", "schedules" {
        /// The same rate throughout.
        Constant = constant::Constant,
        /// Half a cosine down to a share of the rate; Keras' `CosineDecay`.
        Cosine = cosine::Cosine,
        /// A constant factor for each so many steps; Keras' `ExponentialDecay`.
        Exponential = exponential::Exponential,
        /// Up to the rate, and down to almost nothing; PyTorch's `OneCycleLR`.
        OneCycle = one_cycle::OneCycle,
        /// Lower where a figure no longer improves; Keras' `ReduceLROnPlateau`.
        ReduceOnPlateau = plateau::ReduceOnPlateau,
        /// Lower by a factor at every so many steps; PyTorch's `StepLR`.
        Step = step::Step,
    }
}

/// The interface of a schedule.
pub(crate) trait Shape: Sync {
    /// Keras' name, in lower case and short.
    fn name(&self) -> &'static str;

    /// Its settings in a job, besides those of the warm-up; at most [`MOST_KEYS`] with these.
    fn keys(&self) -> &'static [ScheduleKey];

    /// The rate after `step` optimizer steps, of which `values` has a value for each of the keys and `rate` is the highest.
    fn rate(&self, values: &[f64], rate: f64, step: u64) -> f64;

    /// Whether the shape's own beginning is a warm-up, which takes the place of the common one.
    fn warms_up(&self) -> bool {
        false
    }

    /// Whether it looks at the history.
    fn watches(&self) -> bool {
        false
    }

    /// The rate after epochs in which the monitored figure had these values, oldest first.
    fn after(&self, _values: &[f64], rate: f32, _monitor: Monitor, _history: &[EpochRow]) -> f32 {
        rate
    }
}

/// A setting of a schedule.
#[derive(Debug)]
pub struct ScheduleKey {
    /// Keras' name.
    pub name: &'static str,
    /// What it sets.
    pub meaning: &'static str,
    /// The default; `None` if a job has to name it.
    pub default: Option<f64>,
    /// What its value is.
    pub form: Form,
    /// What is wrong with a value, and which values are valid.
    pub problem: Problem,
}

/// What is wrong with a value, if anything.
type Problem = fn(f64) -> Option<&'static str>;

/// What the value of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A whole number of 32 bits.
    Whole,
    /// A number.
    Number,
    /// True or false: 1 or 0.
    Flag,
}

const fn whole(
    name: &'static str,
    default: Option<f64>,
    meaning: &'static str,
    problem: Problem,
) -> ScheduleKey {
    ScheduleKey { name, meaning, default, form: Form::Whole, problem }
}

const fn number(
    name: &'static str,
    default: Option<f64>,
    meaning: &'static str,
    problem: Problem,
) -> ScheduleKey {
    ScheduleKey { name, meaning, default, form: Form::Number, problem }
}

fn problem_of_steps(steps: f64) -> Option<&'static str> {
    (steps < 1.0).then_some("no steps; give at least 1")
}

fn problem_of_factor(factor: f64) -> Option<&'static str> {
    (!(factor > 0.0 && factor < 1.0))
        .then_some("not a factor that lowers; give more than 0 and less than 1, such as 0.5")
}

fn problem_of_share(share: f64) -> Option<&'static str> {
    (!(0.0..=1.0).contains(&share)).then_some("not a share; give at least 0 and at most 1, such as 0.1")
}

fn problem_of_divisor(divisor: f64) -> Option<&'static str> {
    (!(divisor.is_finite() && divisor >= 1.0)).then_some("not a divisor; give at least 1, such as 25")
}

fn problem_of_rate(rate: f64) -> Option<&'static str> {
    (!(rate.is_finite() && rate >= 0.0)).then_some("not a learning rate; give a finite number of at least 0")
}

const fn anything(_: f64) -> Option<&'static str> {
    None
}

/// The keys of the warm-up. A `warmup_target` of 0 stands for none.
const WARM_UP: &[ScheduleKey] = &[
    whole(
        "warmup_steps",
        Some(0.0),
        "Steps over which the rate first rises in a straight line; of `one_cycle` the length of its rise",
        anything,
    ),
    number(
        "warmup_target",
        Some(0.0),
        "The rate to rise to from `learning_rate`; with 0 the rise is from 0 to `learning_rate`",
        problem_of_rate,
    ),
];

/// The maximum number of keys of a schedule.
pub const MOST_KEYS: usize = 8;

/// A schedule with its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    kind: ScheduleKind,
    /// A value for each key, followed by zeros; NaN where a value is still to be named.
    values: [f64; MOST_KEYS],
    /// The figure that the schedule looks at, if it looks at any.
    pub monitor: Monitor,
}

impl Default for Schedule {
    fn default() -> Self {
        Self::new(ScheduleKind::Constant)
    }
}

impl ScheduleKind {
    /// Its settings in a job but the monitor, with those of the warm-up.
    pub(crate) fn all_keys(self) -> impl Iterator<Item = &'static ScheduleKey> {
        self.get().keys().iter().chain(WARM_UP)
    }

    /// The names of its keys in a job.
    pub fn keys(self) -> impl Iterator<Item = &'static str> {
        let monitor = self.get().watches().then_some("monitor");
        monitor.into_iter().chain(self.all_keys().map(|key| key.name))
    }
}

impl Schedule {
    /// A schedule with the default of every key that has one.
    pub fn new(kind: ScheduleKind) -> Self {
        let mut values = [0.0; MOST_KEYS];
        for (value, key) in values.iter_mut().zip(kind.all_keys()) {
            *value = key.default.unwrap_or(f64::NAN);
        }
        Self { kind, values, monitor: Monitor::VAL_LOSS }
    }

    /// The kind of schedule.
    pub fn kind(&self) -> ScheduleKind {
        self.kind
    }

    /// Whether it looks at the history, at the figure `monitor`.
    pub fn watches(&self) -> bool {
        self.kind.get().watches()
    }

    /// The keys with their values.
    pub fn settings(&self) -> impl Iterator<Item = (&'static ScheduleKey, f64)> {
        self.kind.all_keys().zip(self.values)
    }

    /// Those that do not have their default.
    pub fn stated(&self) -> impl Iterator<Item = (&'static ScheduleKey, f64)> {
        self.settings().filter(|(key, value)| key.default != Some(*value))
    }

    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static ScheduleKey> {
        self.kind.all_keys().find(|key| key.name == name)
    }

    /// Sets the value of a key. Returns whether the schedule has the key.
    pub fn set(&mut self, name: &str, value: f64) -> bool {
        let place = self.kind.all_keys().position(|key| key.name == name);
        place.map(|place| self.values[place] = value).is_some()
    }

    /// The learning rate of the step after `taken` optimizer steps, with the optimizer's own rate.
    pub fn rate(&self, learning_rate: f32, taken: u64) -> f32 {
        let (shape, own) = (self.kind.get(), self.kind.get().keys().len());
        let (values, warm_up) = self.values.split_at(own);
        let [steps, target] = warm_up[..2] else { unreachable!("every schedule has a warm-up") };
        if steps == 0.0 || shape.warms_up() {
            return shape.rate(self.values.as_slice(), learning_rate.into(), taken) as f32;
        }
        let base = f64::from(learning_rate);
        let (from, to) = if target > 0.0 { (base, target) } else { (0.0, base) };
        let steps = steps as u64;
        match taken.checked_sub(steps) {
            None => (from + (to - from) * (taken as f64 / steps as f64)) as f32,
            Some(after) => shape.rate(values, to, after) as f32,
        }
    }

    /// The optimizer's own rate after these epochs: lower than `learning_rate` if the schedule reduces it on a plateau.
    pub fn after(&self, learning_rate: f32, history: &[EpochRow]) -> f32 {
        self.kind.get().after(&self.values, learning_rate, self.monitor, history)
    }

    /// What is wrong with the schedule as a whole: a key that has to be named.
    pub fn missing(&self) -> Option<&'static str> {
        self.settings().find(|(_, value)| value.is_nan()).map(|(key, _)| key.name)
    }
}

/// `cosine decay_steps 1000`.
impl Display for Schedule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if self.watches() {
            write!(f, " monitor {}", self.monitor)?;
        }
        self.stated().try_for_each(|(key, value)| write!(f, " {} {value}", key.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind, settings: &[(&str, f64)]) -> Schedule {
        let mut schedule = Schedule::new(kind);
        settings.iter().for_each(|(name, value)| assert!(schedule.set(name, *value), "{name}"));
        schedule
    }

    #[test]
    fn keys_are_read_and_written_by_name() {
        for &kind in ScheduleKind::ALL {
            let schedule = Schedule::new(kind);
            assert!(schedule.settings().count() <= MOST_KEYS, "{kind}");
            let valid = |(key, value): (&ScheduleKey, f64)| value.is_nan() || (key.problem)(value).is_none();
            assert!(schedule.settings().all(valid), "{kind}");
            assert!(kind.keys().any(|key| key == "warmup_steps"));
        }
        assert_eq!(Schedule::new(ScheduleKind::Cosine).missing(), Some("decay_steps"));
    }

    #[test]
    fn a_constant_rate_is_that_of_the_optimizer_to_the_last_bit() {
        for rate in [0.1f32, 1e-3, f32::MIN_POSITIVE, 3.0] {
            assert_eq!(Schedule::default().rate(rate, 12_345).to_bits(), rate.to_bits());
        }
    }

    #[test]
    fn a_warm_up_rises_to_the_rate_or_to_its_target() {
        let rates = |schedule: Schedule| [0, 1, 4, 5, 99].map(|taken| schedule.rate(0.5, taken));
        let steps = ("warmup_steps", 4.0);
        assert_eq!(rates(schedule(ScheduleKind::Constant, &[steps])), [0.0, 0.125, 0.5, 0.5, 0.5]);
        let target = ("warmup_target", 1.0);
        assert_eq!(rates(schedule(ScheduleKind::Constant, &[steps, target])), [0.5, 0.625, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn one_cycle_rises_and_falls() {
        let cycle = schedule(ScheduleKind::OneCycle, &[("total_steps", 100.0)]);
        let rates: Vec<_> = (0..=120).map(|taken| cycle.rate(1.0, taken)).collect();
        assert_eq!((rates[0], rates[30]), (0.04, 1.0));
        assert!(rates[..31].is_sorted() && rates[30..].is_sorted_by(|a, b| a >= b));
        assert!((rates[100] - 4e-6).abs() < 1e-9 && rates[120] == rates[100]);
        let sooner = schedule(ScheduleKind::OneCycle, &[("total_steps", 100.0), ("warmup_steps", 10.0)]);
        assert_eq!((sooner.rate(1.0, 0), sooner.rate(1.0, 10)), (0.04, 1.0));
    }

    #[test]
    fn an_exponential_decay_is_smooth_or_a_staircase() {
        let settings = [("decay_steps", 10.0), ("decay_rate", 0.5)];
        let smooth = schedule(ScheduleKind::Exponential, &settings);
        assert_eq!([0, 10, 20].map(|taken| smooth.rate(1.0, taken)), [1.0, 0.5, 0.25]);
        assert!((f64::from(smooth.rate(1.0, 5)) - 0.5f64.sqrt()).abs() < 1e-7);
        let stairs = schedule(ScheduleKind::Exponential, &[settings[0], settings[1], ("staircase", 1.0)]);
        assert_eq!([0, 9, 10, 19, 20].map(|taken| stairs.rate(1.0, taken)), [1.0, 1.0, 0.5, 0.5, 0.25]);
    }

    fn row(val_loss: f64) -> EpochRow {
        EpochRow { val_loss: Some(val_loss), ..EpochRow::default() }
    }

    #[test]
    fn a_plateau_lowers_the_rate_and_each_beginning_of_a_history_says_the_same() {
        let settings = [("factor", 0.5), ("patience", 2.0), ("min_lr", 0.2), ("cooldown", 1.0)];
        let plateau = schedule(ScheduleKind::ReduceOnPlateau, &settings);
        let losses = [1.0, 0.9, 0.9, 0.9, 0.95, 0.9, 0.9, 0.9, 0.9, 0.5, 0.5];
        let history: Vec<_> = losses.map(row).into();
        let rates: Vec<_> =
            (0..=history.len()).map(|epochs| plateau.after(1.0, &history[..epochs])).collect();
        assert_eq!(rates, [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2, 0.2]);
    }
}
