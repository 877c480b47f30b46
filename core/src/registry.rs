//! Things that a job names: activations, losses, optimizers, metrics.
//!
//! Each of them is a file of its own that implements the trait of its kind. It is listed once in that kind's
//! [`registry!`], which makes an enum of the list. Everything else (job files, the command line, the wire,
//! suggestions in errors) asks the enum for its variants, and each variant for its name.

/// A text that is not a known name, with a suggestion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseNameError(pub(crate) String);

impl ParseNameError {
    /// An unknown name, with the nearest known one or with all of them.
    pub(crate) fn unknown(what: &str, name: &str, plural: &str, known: &[&str]) -> Self {
        Self(format!("unknown {what}; {}", suggestion(name, plural, known)))
    }
}

/// The nearest known name as a suggestion, or else all of them.
pub(crate) fn suggestion(name: &str, plural: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known {plural}: {}", known.join(", ")),
    }
}

/// The known name closest to `name`, if one is similar enough.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |other: &str| strsim::normalized_damerau_levenshtein(&name.to_lowercase(), other);
    let best = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= 0.6).then_some(best)
}

/// An enum of things that implement a trait, each named by the file that has it.
///
/// `registry! { /// Docs. pub enum Kind: dyn Trait, "kind", "kinds" { /// Docs. First = first::First, … } }` gives
/// the enum with `ALL`, `name()`, `meaning()` (its documentation), `get()` (the thing itself), `Display` and `FromStr`. The
/// trait has a method `name`. `First = first::First | "f"` is read as `f`, too, and written as its name.
macro_rules! registry {
    (
        $(#[$docs:meta])*
        pub enum $kind:ident: dyn $rule:ident, $what:literal, $plural:literal {
            $($(#[doc = $meaning:literal])+ $variant:ident = $thing:path $(| $short:literal)?,)+
        }
    ) => {
        $(#[$docs])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $kind {
            $($(#[doc = $meaning])+ $variant,)+
        }

        impl $kind {
            /// Every one, in the order of the registry.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// What its file says of it.
            pub(crate) fn get(self) -> &'static dyn $rule {
                match self {
                    $(Self::$variant => &$thing,)+
                }
            }

            /// The name that Keras users know.
            pub fn name(self) -> &'static str {
                self.get().name()
            }

            /// What it is, in a sentence: its documentation in the registry.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($meaning),+).trim_ascii_start(),)+
                }
            }

            /// Every text that is read as one: the names, and the short ones.
            pub fn spellings() -> Vec<&'static str> {
                let mut spellings = Self::names();
                let short: &[&str] = &[$($($short,)?)+];
                spellings.extend(short);
                spellings
            }

            /// All names, for errors.
            pub(crate) fn names() -> Vec<&'static str> {
                Self::ALL.iter().map(|one| one.name()).collect()
            }
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $kind {
            type Err = $crate::registry::ParseNameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let by_name = Self::ALL.iter().copied().find(|one| one.name() == text);
                let short: &[(&str, Self)] = &[$($(($short, Self::$variant),)?)+];
                let by_short_name = || short.iter().find(|(name, _)| *name == text).map(|(_, one)| *one);
                let found = by_name.or_else(by_short_name);
                let unknown =
                    || $crate::registry::ParseNameError::unknown($what, text, $plural, &Self::names());
                found.ok_or_else(unknown)
            }
        }
    };
}

pub(crate) use registry;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::learn::activations::Activation;
    use crate::learn::heads::Loss;
    use crate::learn::optimizers::OptimizerKind;

    #[test]
    fn names_are_unique_and_read_back() {
        fn check<T: Copy + PartialEq + std::fmt::Debug + std::str::FromStr>(
            all: &[T],
            name: fn(T) -> &'static str,
        ) {
            let names: BTreeSet<_> = all.iter().map(|&one| name(one)).collect();
            assert_eq!(names.len(), all.len(), "{names:?}");
            for &one in all {
                assert_eq!(name(one).parse::<T>().ok(), Some(one));
            }
        }
        check(Activation::ALL, Activation::name);
        check(Loss::ALL, Loss::name);
        check(OptimizerKind::ALL, OptimizerKind::name);
    }

    #[test]
    fn an_unknown_name_suggests_a_similar_one_or_lists_all() {
        let error = |text: &str| text.parse::<Activation>().unwrap_err().to_string();
        assert_eq!(error("sigmiod"), "unknown activation; did you mean `sigmoid`?");
        let all = Activation::names().join(", ");
        assert_eq!(error("zzz"), format!("unknown activation; known activations: {all}"));
    }
}
