//! The figures of the article's job, compared with those of Keras 3 for twenty seeds.

use millefeuille_tests::data::mnist;
use millefeuille_tests::home::Home;
use millefeuille_tests::process::Signal;
use millefeuille_tests::run::Run;

/// A figure of Keras' history after an epoch: mean and standard deviation over seeds.
struct Keras {
    key: &'static str,
    epoch: usize,
    mean: f64,
    deviation: f64,
}

const fn row(key: &'static str, epochs: [(f64, f64); 5]) -> [Keras; 5] {
    let [(a, da), (b, db), (c, dc), (d, dd), (e, de)] = epochs;
    [
        Keras { key, epoch: 1, mean: a, deviation: da },
        Keras { key, epoch: 2, mean: b, deviation: db },
        Keras { key, epoch: 3, mean: c, deviation: dc },
        Keras { key, epoch: 4, mean: d, deviation: dd },
        Keras { key, epoch: 5, mean: e, deviation: de },
    ]
}

const HISTORY: [[Keras; 5]; 4] = [
    row(
        "accuracy",
        [(0.4407, 0.0076), (0.7340, 0.0052), (0.8140, 0.0033), (0.8485, 0.0021), (0.8672, 0.0019)],
    ),
    row("loss", [(1.7161, 0.0166), (0.9448, 0.0150), (0.6777, 0.0099), (0.5533, 0.0065), (0.4818, 0.0052)]),
    row(
        "val_accuracy",
        [(0.8277, 0.0078), (0.8803, 0.0034), (0.8982, 0.0020), (0.9076, 0.0014), (0.9131, 0.0015)],
    ),
    row(
        "val_loss",
        [(1.0014, 0.0194), (0.5955, 0.0108), (0.4454, 0.0059), (0.3726, 0.0044), (0.3311, 0.0032)],
    ),
];

const TEST: [Keras; 2] = [
    Keras { key: "test_accuracy", epoch: 5, mean: 0.9129, deviation: 0.0016 },
    Keras { key: "test_loss", epoch: 5, mean: 0.3358, deviation: 0.0037 },
];

fn figures() -> impl Iterator<Item = &'static Keras> {
    HISTORY.iter().flatten().chain(&TEST)
}

impl Keras {
    fn of(&self, run: &Run) -> f64 {
        run.figures(self.key)[self.epoch - 1]
    }

    /// Its distance from Keras' mean, in Keras' standard deviations.
    fn distance(&self, figure: f64) -> f64 {
        (figure - self.mean) / self.deviation
    }

    fn describe(&self, figure: f64) -> String {
        let Self { key, epoch, mean, deviation } = self;
        let distance = self.distance(figure);
        format!(
            "{key} after epoch {epoch}: {figure:.4}, Keras {mean:.4} ± {deviation:.4}: {distance:+.2} deviations\n"
        )
    }
}

/// The figures with a larger distance than this.
fn beyond(limit: f64, figures: &[(&Keras, f64)]) -> String {
    let far = figures.iter().filter(|(keras, figure)| keras.distance(*figure).abs() > limit);
    far.map(|(keras, figure)| keras.describe(*figure)).collect()
}

fn train(home: &Home, name: &str, flags: &str) -> Run {
    home.coordinator(&format!("train --workers 1 --slots 2 --run-dir {name} {flags}")).succeeds();
    home.run(name)
}

#[test]
fn the_figures_agree_with_keras() {
    // Given ten runs, the first of them with the default seed.
    let home = Home::new();
    let default = train(&home, "default", "");
    let seeds = (1..10).map(|seed| train(&home, &format!("seed-{seed}"), &format!("--seed {seed}")));
    let runs: Vec<Run> = std::iter::once(default.clone()).chain(seeds).collect();

    // The default one is within four standard deviations for every figure …
    let of_default: Vec<_> = figures().map(|keras| (keras, keras.of(&default))).collect();
    let all: String = of_default.iter().map(|(keras, figure)| keras.describe(*figure)).collect();
    assert_eq!(beyond(4.0, &of_default), "", "the default seed:\n{all}");

    // … and the means of all runs are within one and a half.
    let mean = |keras: &Keras| runs.iter().map(|run| keras.of(run)).sum::<f64>() / runs.len() as f64;
    let means: Vec<_> = figures().map(|keras| (keras, mean(keras))).collect();
    let all: String = means.iter().map(|(keras, figure)| keras.describe(*figure)).collect();
    assert_eq!(beyond(1.5, &means), "", "the means over ten seeds:\n{all}");

    // The first ten predictions are the article's, and the wrong one is marked.
    let predicted = home.coordinator("predict default --json").arg(test_images()).succeeds().json();
    let classes: Vec<_> = predicted[..10].iter().map(|line| line["class"].as_u64()).collect();
    assert_eq!(classes, [7, 2, 1, 0, 4, 1, 4, 9, 6, 9].map(Some));
    let shown = home.coordinator("show run default").succeeds().stdout;
    let marks: Vec<_> = shown.split_whitespace().filter(|word| ["✓", "✗"].contains(word)).collect();
    assert_eq!(marks, ["✓", "✓", "✓", "✓", "✓", "✓", "✓", "✓", "✗", "✓"]);
    assert!(shown.contains("6 ✗ (is 5)") && shown.contains("9 of 10 are right."), "{shown}");

    // The accuracy of the predictions is that of the history.
    let labels = mnist("t10k-labels-idx1-ubyte");
    let right = predicted.iter().zip(&labels).filter(|(line, label)| line["class"] == **label).count();
    assert_eq!(predicted.len(), labels.len());
    assert_eq!(Some(&(right as f64 / labels.len() as f64)), default.figures("test_accuracy").last());
}

fn test_images() -> std::path::PathBuf {
    millefeuille_tests::home::project().join("data/mnist/t10k-images-idx3-ubyte.gz")
}

const METRICS: &str =
    r#"--set compile.metrics=["f1_score","accuracy","top_3_accuracy","recall","confusion_matrix"]"#;

/// Every metric of a job is in every place that shows figures, with the same bits for any number of workers.
#[test]
fn a_job_has_the_metrics_that_it_asks_for() {
    let home = Home::new();
    home.small_job();
    let train = |more: &str| home.coordinator(&format!("train small.toml {METRICS} {more}")).succeeds();

    let shown = train("--workers 1 --run-dir run");
    train("--workers 3 --slots 1 --run-dir three");
    home.coordinator("verify three").succeeds();

    let last = home.run("run").history().pop().expect("three epochs");
    let key = |prefix: &str, name: &str| format!("{prefix}{name}");
    for name in ["loss", "accuracy", "f1_score", "top_3_accuracy", "recall"] {
        for prefix in ["", "val_", "test_"] {
            let (run, three) =
                [home.run("run"), home.run("three")].map(|run| run.figures(&key(prefix, name))).into();
            assert!(run == three && run.len() == 3, "{prefix}{name}: {run:?}, {three:?}");
        }
        assert!(shown.stderr.contains(&format!(" {name}: ")), "progress: {shown}");
        assert!(shown.stdout.contains(&format!("test_{name}")), "the table: {shown}");
        assert!(home.run("run").has(&format!("plots/{name}.svg")), "{name}");
    }
    assert!(last.get("confusion_matrix").is_none(), "{last}");

    let evaluated = home.coordinator("evaluate run --json").succeeds().json().remove(0);
    for name in ["accuracy", "f1_score", "top_3_accuracy", "recall"] {
        for prefix in ["val_", "test_"] {
            assert_eq!(evaluated[key(prefix, name)], last[key(prefix, name)], "{prefix}{name}");
        }
    }
    let matrix: Vec<Vec<u64>> =
        serde_json::from_value(evaluated["test_confusion_matrix"].clone()).expect("a matrix of counts");
    let diagonal: u64 = matrix.iter().enumerate().map(|(class, row)| row[class]).sum();
    let all: u64 = matrix.iter().flatten().sum();
    assert_eq!(Some(diagonal as f64 / all as f64), last["test_accuracy"].as_f64());
    // The recall of a class is its share of the diagonal, and the metric their mean.
    let recalls =
        matrix.iter().enumerate().map(|(class, row)| row[class] as f64 / row.iter().sum::<u64>() as f64);
    let mean = recalls.fold(0.0, |sum, recall| sum + recall) / matrix.len() as f64;
    assert_eq!(Some(mean), last["test_recall"].as_f64());

    let report = home.coordinator("show run run --json").succeeds().json().remove(0);
    assert_eq!(report["test_confusion_matrix"], evaluated["test_confusion_matrix"]);
    assert_eq!(report["test_classes"], evaluated["test_classes"]);
    for command in ["show run run", "evaluate run"] {
        let text = home.coordinator(command).succeeds().stdout;
        assert!(text.contains("Confusion matrix") && text.contains("precision"), "{text}");
    }
}

/// A run that is interrupted, most likely within an epoch, goes on with what it has counted.
#[test]
fn metrics_survive_a_restart() {
    let home = Home::new();
    home.small_job();
    let train = format!("train small.toml {METRICS} --epochs 40 --workers 1");
    home.coordinator(&format!("{train} --run-dir whole")).succeeds();

    let mut interrupted = home.coordinator(&format!("{train} --run-dir run")).start();
    interrupted.says("Epoch 2/");
    interrupted.signal(Signal::INT);
    interrupted.wait().error(130);
    home.coordinator(&format!("{train} --run-dir run --resume")).succeeds();

    for key in ["loss", "f1_score", "recall", "top_3_accuracy", "val_f1_score", "test_top_3_accuracy"] {
        assert_eq!(home.run("run").figures(key), home.run("whole").figures(key), "{key}");
    }
}
