//! The options of losses. They have the names that Keras' classes give them.

/// The value of each option. A loss uses those that its head names; the others have their defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossOptions {
    /// The share of each target that is spread evenly over all classes. In `[0, 1)`.
    pub label_smoothing: f32,
    /// Where the Huber loss becomes linear. Above 0.
    pub delta: f32,
}

impl Default for LossOptions {
    fn default() -> Self {
        Self { label_smoothing: 0.0, delta: 1.0 }
    }
}

/// An option of a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossOption {
    /// Keras' name.
    pub name: &'static str,
    /// The value.
    pub value: f32,
    /// The value that it has unless a job names it.
    pub default: f32,
    /// What is wrong with the value, and which values are valid.
    pub problem: Option<&'static str>,
}

impl LossOptions {
    /// The names of all options.
    pub const NAMES: &[&str] = &["label_smoothing", "delta"];

    /// Every option with its value.
    pub fn all(&self) -> [LossOption; 2] {
        let Self { label_smoothing, delta } = *self;
        let share = "not a share; give at least 0 and less than 1, such as 0.1";
        let smoothing = (!(0.0..1.0).contains(&label_smoothing)).then_some(share);
        let distance = "not a distance; give a finite number above 0, such as 1.0";
        let bend = (!(delta.is_normal() && delta > 0.0)).then_some(distance);
        [
            LossOption { name: "label_smoothing", value: label_smoothing, default: 0.0, problem: smoothing },
            LossOption { name: "delta", value: delta, default: 1.0, problem: bend },
        ]
    }

    /// Those that job files and identities state: all that do not have their default.
    pub fn stated(&self) -> impl Iterator<Item = LossOption> {
        self.all().into_iter().filter(|option| option.value != option.default)
    }

    /// The option with this name.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut f32> {
        match name {
            "label_smoothing" => Some(&mut self.label_smoothing),
            "delta" => Some(&mut self.delta),
            _ => None,
        }
    }
}
