//! The examples in `jobs/` learn what the same models learn in Keras.

use std::path::Path;

use millefeuille_tests::ci;
use millefeuille_tests::home::{Home, project};
use millefeuille_tests::peers;

/// Of 20 trainings with different seeds in Keras 3.15.1 (TensorFlow 2.21.0), 10 of the images: job, figure, mean, standard
/// deviation.
const KERAS: &[(&str, &str, f64, f64)] = &[
    ("breast-cancer", "val_accuracy", 0.963736, 0.0163771),
    ("breast-cancer", "val_auc", 0.997187, 0.00253557),
    ("breast-cancer", "val_loss", 0.107362, 0.047758),
    ("breast-cancer", "test_accuracy", 0.948684, 0.0118288),
    ("breast-cancer", "test_auc", 0.982939, 0.00939398),
    ("breast-cancer", "test_loss", 0.225532, 0.0529178),
    ("diabetes", "val_loss", 0.31917, 0.0223879),
    ("diabetes", "val_mae", 0.458891, 0.0171021),
    ("diabetes", "test_loss", 0.314233, 0.0182953),
    ("diabetes", "test_mae", 0.468521, 0.0162792),
    ("digits", "val_accuracy", 0.921354, 0.00454471),
    ("digits", "val_loss", 0.307739, 0.0153675),
    ("digits", "test_accuracy", 0.953056, 0.004928),
    ("digits", "test_loss", 0.187734, 0.00995587),
    ("mnist-relu-adam", "val_accuracy", 0.977983, 0.00176506),
    ("mnist-relu-adam", "val_loss", 0.0932949, 0.00660528),
    ("mnist-relu-adam", "test_accuracy", 0.97951, 0.00205343),
    ("mnist-relu-adam", "test_loss", 0.0810976, 0.00800275),
    ("fashion-mnist", "val_accuracy", 0.887525, 0.00383033),
    ("fashion-mnist", "val_loss", 0.320728, 0.0107829),
    ("fashion-mnist", "test_accuracy", 0.88003, 0.00258845),
    ("fashion-mnist", "test_loss", 0.348699, 0.0110898),
];

/// A kernel that all x86-64 CPUs since 2013 have: with it the figures are the same on all of them.
const KERNEL: &str = "Haswell";

/// Seeds that each example is trained with.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

/// Trains an example with each seed, and compares the figures after the last epoch.
fn learns_what_keras_learns(home: &Home, name: &str) {
    let job =
        std::fs::read_to_string(project().join(format!("jobs/{name}.toml"))).expect("the example is there");
    home.write(&format!("{name}.toml"), job);
    let last = |seed| {
        let run = format!("{name}-{seed}");
        home.coordinator(&format!(
            "train {name}.toml --seed {seed} --blas-kernel {KERNEL} --workers 1 --run-dir {run}"
        ))
        .succeeds();
        home.run(&run).history().pop().expect("it has epochs")
    };
    let rows: Vec<_> = SEEDS.map(last).collect();

    for (_, figure, keras, deviation) in KERAS.iter().filter(|(job, ..)| *job == name) {
        let figures: Vec<f64> = rows.iter().map(|row| row[*figure].as_f64().expect("a figure")).collect();
        let mean = figures.iter().sum::<f64>() / figures.len() as f64;
        let off = (mean - keras).abs() / deviation;
        assert!(off < 1.5, "{name}, {figure}: mean {mean}, in Keras {keras} ± {deviation}: {figures:?}");
    }
}

#[test]
fn the_examples_learn_what_keras_learns() {
    let home = Home::new();
    if peers::tables(&home).is_none() {
        return;
    }
    for name in ["breast-cancer", "diabetes", "digits"] {
        learns_what_keras_learns(&home, name);
    }
}

/// What `job new` writes for the same tables learns as much as the examples: the figure of the test set, and whether more of
/// it is better.
const WRITTEN: [(&str, &str, &str, bool); 3] = [
    (
        "breast-cancer",
        "--from breast-cancer.csv --target y --test breast-cancer-test.csv",
        "test_accuracy",
        true,
    ),
    ("diabetes", "--from diabetes.csv --target y --test diabetes-test.csv", "test_loss", false),
    ("digits", "--from digits.npz", "test_accuracy", true),
];

#[test]
fn a_written_job_learns_as_much_as_the_examples() {
    let home = Home::new();
    if peers::tables(&home).is_none() {
        return;
    }
    for (name, data, figure, rises) in WRITTEN {
        home.coordinator(&format!("job new {data} --output {name}.toml")).succeeds();
        let of_seed = |seed| {
            let run = format!("{name}-{seed}");
            home.coordinator(&format!(
                "train {name}.toml --seed {seed} --blas-kernel {KERNEL} --workers 1 --run-dir {run}"
            ))
            .succeeds();
            home.coordinator(&format!("evaluate {run} --json")).succeeds().json()[0][figure].as_f64().unwrap()
        };
        let figures: Vec<f64> = SEEDS.take(3).map(of_seed).collect();
        let mean = figures.iter().sum::<f64>() / figures.len() as f64;
        let (.., keras, deviation) = KERAS.iter().find(|row| (row.0, row.1) == (name, figure)).unwrap();
        let worse = if rises { keras - mean } else { mean - keras };
        assert!(
            worse < 3.0 * deviation,
            "{name}, {figure}: mean {mean}, the example's {keras} ± {deviation}"
        );
    }
}

#[test]
fn digits_of_mnist_are_learned_as_in_keras() {
    learns_what_keras_learns(&Home::new(), "mnist-relu-adam");
}

#[test]
fn clothes_are_learned_as_in_keras() {
    if !Path::new("/usr/share/datasets/fashion-mnist").is_dir() {
        return ci::skip("Debian's package dataset-fashion-mnist is not installed");
    }
    learns_what_keras_learns(&Home::new(), "fashion-mnist");
}
