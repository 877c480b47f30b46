//! `coordinator errors`: what a model got most confidently wrong, compared with what `predict` says of the same samples.

use std::fmt::Write as _;

use millefeuille_tests::data::{FILES, SMALL_TEST};
use millefeuille_tests::home::Home;
use serde_json::Value;

/// A small run that has not learned enough to be right always.
fn trained() -> Home {
    let home = Home::small();
    home.coordinator("train small.toml --workers 1 --epochs 1 --run-dir run").succeeds();
    home
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is a number"))
}

#[test]
fn wrong_classes_come_with_their_probability_the_surest_first() {
    let home = trained();
    let predicted = home.coordinator(&format!("predict run data/{} --json", FILES[2])).succeeds().json();
    let file = std::fs::read(home.path("data").join(FILES[3])).unwrap();
    let labels = &file[8..];
    assert_eq!((predicted.len(), labels.len()), (SMALL_TEST, SMALL_TEST));
    let mut wrong: Vec<_> = predicted
        .iter()
        .zip(labels)
        .filter(|(line, label)| line["class"] != **label)
        .map(|(line, &label)| {
            let class = line["class"].as_u64().unwrap();
            (number(&line["probabilities"][class as usize]), line["index"].as_u64().unwrap(), class, label)
        })
        .collect();
    wrong.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    assert!(wrong.len() > 12, "it has not learned enough");

    let errors = home.coordinator("errors run --json --count 12").succeeds().json();

    assert_eq!(errors.len(), 12);
    for (line, (probability, index, class, label)) in errors.iter().zip(&wrong) {
        assert_eq!((line["index"].as_u64(), line["class"].as_u64()), (Some(*index), Some(*class)), "{line}");
        assert_eq!(line["label"], *label);
        assert_eq!(number(&line["probability"]), *probability);
    }
    let text = home.coordinator("errors run --count 3").succeeds().stdout;
    assert!(text.contains(&format!("{} of 301 samples of the test split are wrong", wrong.len())), "{text}");
    let (_, index, class, label) = wrong[0];
    assert!(text.contains(&format!("{class} ✗ (is {label})")), "pictures are shown: {text}");
    assert!(text.contains(&index.to_string()) && text.contains('▄'), "{text}");
}

#[test]
fn each_split_can_be_looked_at() {
    let home = trained();
    for (split, samples) in [("test", "301"), ("validation", "401"), ("training", "1,602")] {
        let text = home.coordinator(&format!("errors run --split {split} --count 1")).succeeds().stdout;
        assert!(text.contains(&format!("of {samples} samples")), "{split}: {text}");
    }
    home.coordinator("errors run --split tests").run().with_code(2);
    home.coordinator("errors run --count 0").run().with_code(2);
    let error = home.coordinator("errors data").fails(3);
    assert!(error.contains("data"), "{error}");
}

/// A table with a price that depends on the area, and on what no column says.
fn houses(rows: usize, seed: usize) -> String {
    let mut text = "area,price,sold\n".to_string();
    for row in 0..rows {
        let area = (row * 37 + seed) % 100;
        let price = 2 * area + row * row % 7;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{area},{price},{}", if price > 110 { "yes" } else { "no" });
    }
    text
}

fn table_job(target: &str, drop: &str, output: &str, compile: &str) -> String {
    format!(
        "[data]\nsource = \"houses.csv\"\ntest = \"test.csv\"\ntarget = \"{target}\"\ndrop = [\"{drop}\"]\n\
         normalize = \"standardize\"\nvalidation_split = 0.0\n\
         [[layers]]\ntype = \"dense\"\n{output}\n[compile]\n{compile}\n[compile.optimizer]\ntype = \"adam\"\n\
         learning_rate = 0.05\n[fit]\nbatch_size = 32\nepochs = 5\n"
    )
}

fn table() -> Home {
    let home = Home::new();
    home.write("houses.csv", houses(600, 0));
    home.write("test.csv", houses(120, 13));
    home
}

#[test]
fn numbers_are_sorted_by_their_error() {
    let home = table();
    let output = "units = 1\nactivation = \"linear\"";
    home.write("price.toml", table_job("price", "sold", output, "loss = \"mse\"\nmetrics = []"));
    home.coordinator("train price.toml --workers 1 --run-dir run").succeeds();
    let predicted = home.coordinator("predict run test.csv --json").succeeds().json();
    let table = houses(120, 13);
    let prices = table.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().parse::<f64>().unwrap());
    let mut errors: Vec<(f64, usize)> = predicted
        .iter()
        .zip(prices)
        .enumerate()
        .map(|(index, (line, price))| ((number(&line["values"][0]) - price).abs(), index))
        .collect();
    errors.sort_by(|a, b| b.0.total_cmp(&a.0));

    let lines = home.coordinator("errors run --json --count 4").succeeds().json();

    assert_eq!(lines.len(), 4);
    for (line, (error, index)) in lines.iter().zip(&errors) {
        assert_eq!(line["index"], *index);
        assert!((number(&line["error"]) - error).abs() < 1e-4 * error.max(1.0), "{line}: {error}");
        assert_eq!(line["values"], predicted[*index]["values"]);
    }
    let text = home.coordinator("errors run --count 4").succeeds().stdout;
    assert!(text.starts_with("The 4 largest errors of 120 samples of the test split:"), "{text}");
    assert!(text.contains("predicted") && !text.contains('▄'), "{text}");
}

#[test]
fn classes_of_a_table_have_their_names() {
    let home = table();
    let output = "units = 2\nactivation = \"softmax\"";
    home.write("sold.toml", table_job("sold", "price", output, "loss = \"categorical_crossentropy\""));
    home.coordinator("train sold.toml --workers 1 --run-dir run").succeeds();
    let lines = home.coordinator("errors run --json --count 1").succeeds().json();
    let names = [&lines[0]["label_name"], &lines[0]["class_name"]];
    assert!(names == ["no", "yes"] || names == ["yes", "no"], "{lines:?}");

    let error = home.coordinator("errors run --split validation").fails(3);
    assert!(error.contains("run: its data has no validation split (name another --split)"), "{error}");
}
