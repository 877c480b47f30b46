//! Optimizers: from a step's gradients to the next parameters; one optimizer per file.
//!
//! An optimizer divides the sum of the per-sample gradients by the step's own number of samples: a mean taken
//! earlier, shard by shard, would weigh the samples of a small shard more. Its state stays with the
//! coordinator; workers never see it.
//!
//! Before its step, the gradient of the mean may be clipped (`clipping`), and the learning rate is that of the job's
//! [schedule](super::schedules).
//!
//! To add an optimizer, add a file with a [`Rule`] (its keys in a job, its state, and its step over a part of the
//! parameters) and a line in the registry below.

mod adam;
mod adamw;
mod clipping;
mod rmsprop;
mod sgd;

use std::fmt::{self, Display, Formatter};
use std::ops::{Deref, Range};

use rayon::iter::{IndexedParallelIterator as _, IntoParallelIterator as _, ParallelIterator as _};
use rayon::slice::ParallelSliceMut as _;

use super::model::Model;
use super::schedules::Schedule;
use super::sum::{self, AdditionScratch, SECTION, Sum};
use crate::registry::registry;
use crate::view::EpochRow;
use clipping::Clipping;

registry! {
    /// A kind of optimizer.
    pub enum OptimizerKind: dyn Rule, "optimizer", "optimizers" {
        /// Adaptive moment estimation; Keras' `Adam`.
        Adam = adam::Adam,
        /// Adam with decoupled weight decay; Keras' `AdamW`.
        AdamW = adamw::AdamW,
        /// A step divided by the root of a moving average of squares; Keras' `RMSprop`.
        RmsProp = rmsprop::RmsProp,
        /// Gradient descent, with momentum and weight decay if asked for; Keras' `SGD`.
        Sgd = sgd::Sgd,
    }
}

/// The interface of an optimizer.
pub(crate) trait Rule: Sync {
    /// Keras' class name in lower case.
    fn name(&self) -> &'static str;

    /// Its settings in a job, besides those of clipping; at most [`MOST_KEYS`] with these, `learning_rate` first.
    fn keys(&self) -> &'static [Key];

    /// The names of its state arrays with a value for each of the keys: each array has one number per parameter, 0
    /// before the first step.
    fn state_names(&self, values: &[f32]) -> &'static [&'static str];

    /// One step of a part of the parameters, with a value for each of the keys.
    fn step(&self, values: &[f32], part: ParameterSlice<'_>);
}

/// A setting of an optimizer.
#[derive(Debug)]
pub struct Key {
    /// Keras' name.
    pub name: &'static str,
    /// What it sets.
    pub meaning: &'static str,
    /// The default.
    pub default: f32,
    /// Whether its value is true or false: 1 or 0.
    pub is_flag: bool,
    /// Whether job files and identities leave it out while it has its default.
    pub is_optional: bool,
    /// What is wrong with a value, and which values are valid.
    pub problem: Problem,
}

/// What is wrong with a value, if anything.
type Problem = fn(f32) -> Option<&'static str>;

impl Key {
    /// A number that is always written down.
    const fn number(name: &'static str, default: f32, meaning: &'static str, problem: Problem) -> Self {
        Self { name, meaning, default, is_flag: false, is_optional: false, problem }
    }

    /// A number that is 0 unless a job names it.
    const fn optional(name: &'static str, meaning: &'static str, problem: Problem) -> Self {
        Self { name, meaning, default: 0.0, is_flag: false, is_optional: true, problem }
    }

    /// What is false unless a job names it.
    const fn flag(name: &'static str, meaning: &'static str) -> Self {
        Self { name, meaning, default: 0.0, is_flag: true, is_optional: true, problem: |_| None }
    }
}

/// Whether this is a finite number above 0, also after subnormal numbers are flushed to 0.
fn counts(value: f32) -> bool {
    value.is_normal() && value > 0.0
}

/// What is wrong with a learning rate.
fn problem_of_learning_rate(rate: f32) -> Option<&'static str> {
    let problem = "nothing can be learned at this rate; give a finite number above 0, such as 0.1 (what counts as \
                   one is about 1.2e-38 to 3.4e38)";
    (!counts(rate)).then_some(problem)
}

/// What `weight_decay` sets.
const DECAY: &str = "The share of each weight, times the learning rate, that it loses in a step";

/// What `learning_rate` sets.
const LEARNING_RATE: &str = "The size of a step, the highest of the schedule";

/// What is wrong with a weight decay.
fn problem_of_decay(decay: f32) -> Option<&'static str> {
    let problem = "weights cannot decay so; give at least 0 and less than 1, such as 0.004";
    (!(0.0..1.0).contains(&decay)).then_some(problem)
}

/// The maximum number of keys of an optimizer.
pub const MOST_KEYS: usize = 10;

/// The share that weights lose in a step; a subnormal one counts as zero.
fn share_lost(rate: f32, weight_decay: f32) -> f32 {
    let share = rate * weight_decay;
    if share.is_normal() { share } else { 0.0 }
}

/// A parameter after its decay; without one, the parameter itself, also if it is a negative zero.
#[inline(always)]
fn decayed(parameter: f32, decay: f32) -> f32 {
    if decay == 0.0 { parameter } else { parameter - parameter * decay }
}

/// A part of the parameters that takes a step. All slices are of equal length.
pub(crate) struct ParameterSlice<'a> {
    /// The parameters before the step.
    pub(crate) parameters: &'a [f32],
    /// The sum of the samples' gradients, or its last two terms.
    pub(crate) gradient: (&'a [f32], Option<&'a [f32]>),
    /// The number of samples.
    pub(crate) count: f32,
    /// The number of this step in the training, from 1.
    pub(crate) step: u64,
    /// The optimizer's state for this part, in the order of [`Rule::state_names`].
    pub(crate) state: Vec<&'a mut [f32]>,
    /// The output: the parameters after the step.
    pub(crate) out: &'a mut [f32],
}

impl OptimizerKind {
    /// Its settings in a job, with those of clipping.
    pub(crate) fn all_keys(self) -> impl Iterator<Item = &'static Key> {
        self.get().keys().iter().chain(clipping::KEYS)
    }

    /// The names of its keys in a job.
    pub fn keys(self) -> impl Iterator<Item = &'static str> {
        self.all_keys().map(|key| key.name)
    }
}

/// An optimizer with its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    kind: OptimizerKind,
    /// A value for each of the optimizer's keys, followed by zeros.
    values: [f32; MOST_KEYS],
}

impl Optimizer {
    /// An optimizer with the default of every key.
    pub fn new(kind: OptimizerKind) -> Self {
        let mut values = [0.0; MOST_KEYS];
        for (value, key) in values.iter_mut().zip(kind.all_keys()) {
            *value = key.default;
        }
        Self { kind, values }
    }

    /// Plain gradient descent.
    pub fn sgd(learning_rate: f32) -> Self {
        let mut optimizer = Self::new(OptimizerKind::Sgd);
        optimizer.set("learning_rate", learning_rate);
        optimizer
    }

    /// The kind of optimizer.
    pub fn kind(&self) -> OptimizerKind {
        self.kind
    }

    /// The keys with their values.
    pub fn settings(&self) -> impl Iterator<Item = (&'static Key, f32)> {
        self.kind.all_keys().zip(self.values)
    }

    /// Those that job files and identities state: all but the optional ones that have their default.
    pub fn stated(&self) -> impl Iterator<Item = (&'static Key, f32)> {
        self.settings().filter(|(key, value)| !key.is_optional || *value != key.default)
    }

    /// The value of a key; `None` if the optimizer has no such key.
    pub fn get(&self, name: &str) -> Option<f32> {
        self.settings().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }

    /// Whether the value of a key is true or false; `None` if the optimizer has no such key.
    pub fn is_flag(&self, name: &str) -> Option<bool> {
        self.settings().find(|(key, _)| key.name == name).map(|(key, _)| key.is_flag)
    }

    /// The names of its state arrays.
    pub(super) fn state_names(&self) -> &'static [&'static str] {
        self.kind.get().state_names(&self.values)
    }

    /// The keys of clipping that have a value; a valid job names one at most.
    pub fn clippings(&self) -> impl Iterator<Item = &'static str> {
        let own = self.kind.get().keys().len();
        self.settings().skip(own).filter(|(_, value)| *value != 0.0).map(|(key, _)| key.name)
    }

    fn clipping(&self) -> Option<Clipping> {
        let own = self.kind.get().keys().len();
        Clipping::of(&self.values[own..][..clipping::KEYS.len()])
    }

    /// The same with another learning rate.
    fn with_rate(mut self, rate: f32) -> Self {
        self.values[0] = rate;
        self
    }

    /// Sets the value of a key. Returns whether the optimizer has the key.
    pub fn set(&mut self, name: &str, value: f32) -> bool {
        let place = self.kind.all_keys().position(|key| key.name == name);
        place.map(|place| self.values[place] = value).is_some()
    }
}

/// `sgd 0.1`.
impl Display for Optimizer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        self.stated().try_for_each(|(key, value)| match key.is_optional {
            true => write!(f, " {} {value}", key.name),
            false => write!(f, " {value}"),
        })
    }
}

/// An optimizer with its state between steps.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState {
    /// With the learning rate that the schedule begins with: its own, unless a plateau has lowered it.
    optimizer: Optimizer,
    schedule: Schedule,
    /// The places of the variables, if their norms are needed.
    variables: Vec<Range<usize>>,
    /// The places of parameters that stay as they are. Their gradients are 0, but weights may decay.
    frozen: Vec<Range<usize>>,
    state: Vec<Vec<f32>>,
}

impl OptimizerState {
    /// The state before the first step of a model of one variable with so many `parameters`.
    pub fn new(optimizer: &Optimizer, parameters: usize) -> Self {
        let state = optimizer.state_names().iter().map(|_| vec![0.0; parameters]).collect();
        let variables = optimizer.clipping().map(|_| 0..parameters).into_iter().collect();
        Self { optimizer: *optimizer, schedule: Schedule::default(), variables, frozen: Vec::new(), state }
    }

    /// The state before the first step of this model.
    pub fn of_model(optimizer: &Optimizer, schedule: &Schedule, model: &Model) -> Self {
        let variables = optimizer.clipping().map(|_| model.variables()).unwrap_or_default();
        Self {
            schedule: *schedule,
            variables,
            frozen: model.frozen(),
            ..Self::new(optimizer, model.parameter_count())
        }
    }

    /// Takes note of all epochs that have ended, before the next one begins: the schedule may look at them.
    /// `learning_rate` is the job's.
    pub fn take_note(&mut self, learning_rate: f32, history: &[EpochRow]) {
        if self.schedule.watches() {
            self.optimizer = self.optimizer.with_rate(self.schedule.after(learning_rate, history));
        }
    }

    /// The optimizer with the learning rate of the `step`-th step, from 1.
    fn at(&self, step: u64) -> Optimizer {
        let rate = self.optimizer.values[0];
        self.optimizer.with_rate(self.schedule.rate(rate, step - 1))
    }

    /// The kind of optimizer.
    pub fn kind(&self) -> OptimizerKind {
        self.optimizer.kind
    }

    /// The state arrays, by name; each is as long as the parameters.
    pub fn state(&self) -> impl Iterator<Item = (&'static str, &[f32])> {
        self.optimizer.state_names().iter().copied().zip(self.state.iter().map(Vec::as_slice))
    }

    /// The state arrays, mutable.
    pub fn state_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut [f32])> {
        let names = self.optimizer.state_names().iter().copied();
        names.zip(self.state.iter_mut().map(Vec::as_mut_slice))
    }

    /// The `step`-th step, from 1, of the parameters from place `first` on: `out` becomes the parameters after it.
    ///
    /// `gradient` is the sum of the gradients of `count` samples, at least one, or its last two terms, which one
    /// pass over memory adds with the same bits. All slices are of equal length. With clipping, the part is the whole.
    pub fn step(
        &mut self,
        step: u64,
        first: usize,
        parameters: &[f32],
        gradient: (&[f32], Option<&[f32]>),
        count: u64,
        out: &mut [f32],
    ) {
        let mut slices = [Some(parameters), Some(gradient.0), gradient.1].into_iter().flatten();
        assert!(step > 0 && count > 0, "a step has a number and samples");
        assert!(slices.all(|slice| slice.len() == out.len()), "a gradient is as long as the parameters");
        let Optimizer { kind, values } = self.at(step);
        let state = self.state.iter_mut().map(|state| &mut state[first..][..out.len()]).collect();
        let mut count = count as f32;
        let mut clipped = Vec::new();
        let gradient = match self.optimizer.clipping() {
            None => gradient,
            Some(clipping) => {
                clipped.resize(out.len(), 0.0);
                adam::mean(gradient.0, gradient.1.unwrap_or_default(), count, &mut clipped);
                clipping.apply(&mut clipped, &self.variables);
                count = 1.0;
                (&clipped[..], None)
            }
        };
        kind.get().step(&values, ParameterSlice { parameters, gradient, count, step, state, out });
    }

    /// The mean gradient of a sum, clipped.
    fn clipped<B>(&self, clipping: Clipping, sum: &Sum<B>, len: usize) -> Vec<f32>
    where
        B: Deref<Target = [f32]> + Sync,
    {
        let (mut mean, count) = (vec![0.0; len], sum.figures.samples as f32);
        mean.par_chunks_mut(SECTION).enumerate().for_each_init(
            AdditionScratch::default,
            |scratch, (index, out)| {
                let places =
                    sum::section(len, index).expect("there is a section for each part of the output");
                let first = places.start;
                sum::add_section(sum.order(), sum.terms(), places, scratch, |block, left, right| {
                    let out = &mut out[block.start - first..block.end - first];
                    adam::mean(left, right.unwrap_or_default(), count, out);
                });
            },
        );
        clipping.apply(&mut mean, &self.variables);
        mean
    }

    /// [`step`](Self::step) of all parameters with what is still to be added of `sum`, with all cores: each adds
    /// its sections, and takes the step there while they are in its caches.
    pub fn step_of_sum<B>(&mut self, step: u64, parameters: &[f32], sum: &Sum<B>, out: &mut [f32])
    where
        B: Deref<Target = [f32]> + Sync,
    {
        let (len, count) = (out.len(), sum.figures.samples);
        assert!(step > 0 && count > 0, "a step has a number and samples");
        assert_eq!(parameters.len(), len, "as many parameters come out");
        match self.optimizer.clipping() {
            None => self.step_by_sections(step, parameters, sum, out),
            Some(clipping) => {
                let clipped = self.clipped(clipping, sum, len);
                self.step_of_mean(step, parameters, &clipped, out);
            }
        }
        for place in &self.frozen {
            out[place.clone()].copy_from_slice(&parameters[place.clone()]);
        }
    }

    /// The step with a gradient that is added up at the same time.
    fn step_by_sections<B>(&mut self, step: u64, parameters: &[f32], sum: &Sum<B>, out: &mut [f32])
    where
        B: Deref<Target = [f32]> + Sync,
    {
        let (Optimizer { kind, values }, len, count) = (self.at(step), out.len(), sum.figures.samples);
        let sections = sections(&mut self.state, out);
        sections.into_par_iter().enumerate().for_each_init(
            AdditionScratch::default,
            |scratch, (index, mut section)| {
                let places =
                    sum::section(len, index).expect("there is a section for each part of the output");
                let first = places.start;
                sum::add_section(sum.order(), sum.terms(), places, scratch, |block, left, right| {
                    let within = block.start - first..block.end - first;
                    let state = section.state.iter_mut().map(|state| &mut state[within.clone()]).collect();
                    let (parameters, out) = (&parameters[block], &mut section.out[within.clone()]);
                    let part = ParameterSlice {
                        parameters,
                        gradient: (left, right),
                        count: count as f32,
                        step,
                        state,
                        out,
                    };
                    kind.get().step(&values, part);
                });
            },
        );
    }

    /// The step with a mean gradient that is added up already.
    fn step_of_mean(&mut self, step: u64, parameters: &[f32], mean: &[f32], out: &mut [f32]) {
        let (Optimizer { kind, values }, len) = (self.at(step), out.len());
        let sections = sections(&mut self.state, out);
        sections.into_par_iter().enumerate().for_each(|(index, Section { state, out })| {
            let places = sum::section(len, index).expect("there is a section for each part of the output");
            let (parameters, gradient) = (&parameters[places.clone()], (&mean[places], None));
            kind.get().step(&values, ParameterSlice { parameters, gradient, count: 1.0, step, state, out });
        });
    }
}

/// The part that one thread works on at a time.
struct Section<'a> {
    state: Vec<&'a mut [f32]>,
    out: &'a mut [f32],
}

fn sections<'a>(state: &'a mut [Vec<f32>], out: &'a mut [f32]) -> Vec<Section<'a>> {
    let mut state: Vec<_> = state.iter_mut().map(|state| state.chunks_mut(SECTION)).collect();
    let sections = out
        .chunks_mut(SECTION)
        .map(|out| Section { state: state.iter_mut().filter_map(Iterator::next).collect(), out });
    sections.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::sum::Figures;

    fn numbers(len: usize, salt: u32) -> Vec<f32> {
        let spread = (0..len as u32).map(|i| i.wrapping_mul(2_654_435_761).wrapping_add(salt));
        spread.map(|bits| f32::from_bits(bits & 0xbfff_ffff)).collect()
    }

    #[test]
    fn a_step_with_a_pending_sum_gives_the_same_bits_as_adding_first() {
        let len = 2 * SECTION + 11;
        let parameters = numbers(len, 1);
        let figures = || Figures { samples: 100, ..Figures::default() };
        let same = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
        let clippings = [None, Some("clipnorm"), Some("clipvalue"), Some("global_clipnorm")];
        let kinds = OptimizerKind::ALL.iter().flat_map(|kind| clippings.map(|clipping| (kind, clipping)));
        for (kind, clipping) in kinds {
            let mut optimizer = Optimizer::new(*kind);
            clipping.iter().for_each(|name| assert!(optimizer.set(name, 0.5)));
            let fresh = || OptimizerState::new(&optimizer, len);
            let (mut whole, mut by_sections) = (fresh(), fresh());
            let mut sum = Sum::new(Some(numbers(len, 2)), figures(), Vec::new());
            for terms in 1..=4 {
                let mut settled = sum.clone();
                settled.settle(|| vec![0.0; len]);
                let (mut apart, mut fused) = (vec![0.0; len], vec![0.0; len]);
                whole.step(
                    terms.into(),
                    0,
                    &parameters,
                    (&settled.terms()[0], None),
                    sum.figures.samples,
                    &mut apart,
                );
                by_sections.step_of_sum(terms.into(), &parameters, &sum, &mut fused);
                assert!(same(&apart, &fused), "{kind}, {terms} terms");
                for ((name, one), (_, other)) in whole.state().zip(by_sections.state()) {
                    assert!(same(one, other), "{kind}: {name}");
                }
                sum.join(Sum::new(Some(numbers(len, 2 + terms)), figures(), Vec::new()));
            }
        }
    }

    #[test]
    fn each_section_has_its_own_part_of_the_state() {
        let (mut state, mut out) = (vec![vec![0.0; SECTION + 3]; 2], vec![0.0; SECTION + 3]);
        for (index, section) in sections(&mut state, &mut out).into_iter().enumerate() {
            section.state.into_iter().chain([section.out]).for_each(|part| part.fill(index as f32));
        }
        for numbers in state.iter().chain([&out]) {
            assert!(numbers[..SECTION].iter().all(|x| *x == 0.0) && numbers[SECTION..] == [1.0; 3]);
        }
    }

    #[test]
    fn keys_are_read_and_written_by_name() {
        for kind in OptimizerKind::ALL {
            let mut optimizer = Optimizer::new(*kind);
            assert!((1..=MOST_KEYS).contains(&optimizer.settings().count()), "{kind}");
            assert_eq!(optimizer.settings().next().unwrap().0.name, "learning_rate", "{kind}");
            assert!(optimizer.settings().all(|(key, value)| (key.problem)(value).is_none()), "{kind}");
            assert_eq!(kind.keys().next(), Some("learning_rate"));
            assert!(optimizer.set("learning_rate", 0.25) && !optimizer.set("learning_rat", 1.0));
            assert_eq!((optimizer.get("learning_rate"), optimizer.get("x")), (Some(0.25), None));
        }
        assert_eq!(Optimizer::sgd(0.1).to_string(), "sgd 0.1");
    }
}
