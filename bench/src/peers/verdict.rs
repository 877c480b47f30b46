//! The results of the rounds: medians and extremes, ratios, targets, and disqualifications.

use serde::Serialize;

use super::contender::{ALL, Contender};
use super::measured::{ACCURACY, DEVIATIONS, Measured, Round, Taken};
use crate::measured::CLUSTERS;
use crate::products::BASELINE_TARGET;
use crate::statistics::Summary;

/// The compared figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Figure {
    Fit,
    Command,
}

/// Ratio of two contenders.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Ratio {
    pub(super) of_medians: f64,
    /// The ratios within each round.
    pub(super) by_round: Summary,
}

/// The results of one contender over all rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Standing {
    #[serde(serialize_with = "as_text")]
    pub(super) name: Contender,
    pub(super) fit_seconds: Summary,
    pub(super) command_seconds: Summary,
    pub(super) cpu_seconds: Summary,
    pub(super) test_accuracy: Option<Summary>,
    pub(super) disqualified: bool,
    /// Fit and command time relative to Keras'; `None` if either contender is disqualified, or this one is not a
    /// whole program.
    pub(super) fit_to_keras: Option<Ratio>,
    pub(super) command_to_keras: Option<Ratio>,
    /// Relative to DDP with as many processes.
    pub(super) fit_to_ddp: Option<Ratio>,
    pub(super) command_to_ddp: Option<Ratio>,
}

/// Target: an upper limit on a ratio.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Target {
    #[serde(serialize_with = "as_text")]
    pub(super) what: Contender,
    #[serde(serialize_with = "as_text")]
    pub(super) to: Contender,
    pub(super) figure: Figure,
    pub(super) at_most: f64,
    /// `None` if either contender is disqualified.
    pub(super) ratio: Option<Ratio>,
    /// Whether the ratio of medians is within the limit.
    pub(super) met: bool,
}

/// The results of a benchmark.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) standings: Vec<Standing>,
    pub(super) targets: Vec<Target>,
}

fn as_text<S: serde::Serializer>(contender: &Contender, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(contender)
}

/// The clusters' targets: fit relative to Keras, fit relative to DDP with as many processes, command relative to
/// Keras.
const AGAINST_PEERS: [(f64, Option<f64>, f64); 3] =
    [(0.5, None, 0.35), (0.6, Some(0.42), 0.4), (0.7, Some(0.3), 0.45)];

impl Verdict {
    pub(super) fn of(measured: &Measured) -> Self {
        let rounds = &measured.rounds;
        let standings = ALL.iter().map(|&who| Standing::of(rounds, who)).collect();
        let targets = targets().map(|(what, to, figure, at_most)| {
            let ratio = ratio(rounds, figure, what, to);
            let met = ratio.is_some_and(|ratio| ratio.of_medians <= at_most);
            Target { what, to, figure, at_most, ratio, met }
        });
        Self { standings, targets: targets.collect() }
    }
}

/// All targets: two contenders, the figure, and the upper limit on their ratio.
fn targets() -> impl Iterator<Item = (Contender, Contender, Figure, f64)> {
    let peers = CLUSTERS.iter().zip(AGAINST_PEERS);
    let peers = peers.flat_map(|(&(shape, _), (keras_fit, ddp_fit, keras_command))| {
        let here = Contender::Here(shape);
        let ddp = Contender::Ddp { processes: shape.workers };
        [
            Some((here, Contender::Keras, Figure::Fit, keras_fit)),
            ddp_fit.map(|at_most| (here, ddp, Figure::Fit, at_most)),
            Some((here, Contender::Keras, Figure::Command, keras_command)),
        ]
    });
    let baseline = (Contender::Baseline, Contender::Products, Figure::Fit, BASELINE_TARGET);
    let clusters =
        CLUSTERS.map(|(shape, at_most)| (Contender::Here(shape), Contender::Baseline, Figure::Fit, at_most));
    peers.flatten().chain([baseline]).chain(clusters)
}

impl Standing {
    fn of(rounds: &[Round], who: Contender) -> Self {
        let summary = |of: fn(&Taken) -> f64| Summary::of(rounds.iter().map(|round| of(round.of(who))));
        let accuracies: Vec<f64> = rounds.iter().filter_map(|round| round.of(who).test_accuracy).collect();
        let to = |other: Option<Contender>, figure| {
            ratio(rounds, figure, who, other.filter(|_| who.is_whole_program())?)
        };
        let keras = Some(Contender::Keras);
        let ddp = match who {
            Contender::Here(shape) => Some(Contender::Ddp { processes: shape.workers }),
            _ => None,
        };
        let ddp = ddp.filter(|ddp| ALL.contains(ddp));
        Self {
            name: who,
            fit_seconds: summary(|taken| taken.fit_seconds),
            command_seconds: summary(|taken| taken.command_seconds),
            cpu_seconds: summary(|taken| taken.cpu_seconds),
            test_accuracy: (!accuracies.is_empty()).then(|| Summary::of(accuracies)),
            disqualified: !qualified(rounds, who),
            fit_to_keras: to(keras, Figure::Fit),
            command_to_keras: to(keras, Figure::Command),
            fit_to_ddp: to(ddp, Figure::Fit),
            command_to_ddp: to(ddp, Figure::Command),
        }
    }
}

impl Round {
    pub(super) fn of(&self, who: Contender) -> &Taken {
        let place = ALL.iter().position(|other| *other == who).expect("every round has every contender");
        &self.taken[place]
    }
}

/// Whether the contender's accuracy was within Keras' range in every round. The products have no accuracy.
fn qualified(rounds: &[Round], who: Contender) -> bool {
    let (mean, deviation) = ACCURACY;
    let accuracies = rounds.iter().filter_map(|round| round.of(who).test_accuracy);
    accuracies.into_iter().all(|accuracy| (accuracy - mean).abs() <= DEVIATIONS * deviation)
}

/// `None` if either contender is disqualified.
fn ratio(rounds: &[Round], figure: Figure, what: Contender, to: Contender) -> Option<Ratio> {
    if !qualified(rounds, what) || !qualified(rounds, to) {
        return None;
    }
    let seconds = |round: &Round, who| match figure {
        Figure::Fit => round.of(who).fit_seconds,
        Figure::Command => round.of(who).command_seconds,
    };
    let median = |who| Summary::of(rounds.iter().map(|round| seconds(round, who))).median;
    Some(Ratio {
        of_medians: median(what) / median(to),
        by_round: Summary::of(rounds.iter().map(|round| seconds(round, what) / seconds(round, to))),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const TWO: Contender = Contender::Here(CLUSTERS[1].0);
    const FOUR: Contender = Contender::Here(CLUSTERS[2].0);

    /// A round in which every time is one second, except for these fit times. The accuracy is Keras' mean.
    pub(in super::super) fn round(fits: &[(Contender, f64)]) -> Round {
        let taken = ALL.map(|who| Taken {
            fit_seconds: fits.iter().find(|(other, _)| *other == who).map_or(1.0, |(_, seconds)| *seconds),
            command_seconds: 1.0,
            cpu_seconds: 1.0,
            test_accuracy: (who != Contender::Products).then_some(ACCURACY.0),
        });
        Round { first: String::new(), load: 0.0, taken: taken.into() }
    }

    #[test]
    fn ratios_are_of_medians_and_within_rounds() {
        let rounds = [
            round(&[(TWO, 1.0), (Contender::Keras, 2.0)]),
            round(&[(TWO, 2.0), (Contender::Keras, 8.0)]),
            round(&[(TWO, 6.0), (Contender::Keras, 4.0)]),
        ];
        let ratio = ratio(&rounds, Figure::Fit, TWO, Contender::Keras).unwrap();
        assert_eq!(ratio.of_medians, 2.0 / 4.0);
        assert_eq!(ratio.by_round, Summary { median: 0.5, min: 0.25, max: 1.5 });
    }

    #[test]
    fn a_disqualified_contender_has_no_ratios() {
        let mut wrong = round(&[]);
        let place = ALL.iter().position(|who| *who == TWO).unwrap();
        wrong.taken[place].test_accuracy = Some(0.9);
        let rounds = [round(&[]), wrong];
        let standing = Standing::of(&rounds, TWO);
        assert!(standing.disqualified && standing.fit_to_keras.is_none() && standing.fit_to_ddp.is_none());
        assert!(!Standing::of(&rounds, FOUR).disqualified);
    }

    #[test]
    fn a_cluster_is_compared_with_ddp_of_as_many_processes() {
        let rounds = [round(&[(TWO, 3.0), (Contender::Ddp { processes: 2 }, 6.0)])];
        assert_eq!(Standing::of(&rounds, TWO).fit_to_ddp.unwrap().of_medians, 0.5);
        assert!(Standing::of(&rounds, Contender::Here(CLUSTERS[0].0)).fit_to_ddp.is_none());
    }

    #[test]
    fn every_target_compares_two_measured_contenders() {
        assert_eq!(targets().count(), 12);
        assert!(targets().all(|(what, to, ..)| ALL.contains(&what) && ALL.contains(&to)));
    }
}
