//! Tables: trained on, evaluated and predicted as people have them, with the same bits on any cluster.

use std::fmt::Write as _;

use millefeuille_tests::home::Home;

const ROWS: usize = 1_000;

/// A table of numbers and colours, with a price to learn and whether it was sold.
fn houses(rows: usize) -> String {
    let mut text = "area,age,colour,price,sold\n".to_string();
    for row in 0..rows {
        let (area, age) = ((row * 37 % 211) as f64 / 2.0, (row * 53 % 97) as f64);
        let colour = ["red", "green", "blue"][row * row % 7 % 3];
        let price = 3.0 * area - age + if colour == "red" { 20.0 } else { 0.0 };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{area},{age},{colour},{price},{}", if price > 120.0 { "yes" } else { "no" });
    }
    text
}

fn job(name: &str, data: &str, output: &str, compile: &str) -> String {
    format!(
        "name = \"{name}\"\n[data]\nsource = \"houses.csv\"\nnormalize = \"standardize\"\n{data}\n\
         [[layers]]\ntype = \"dense\"\nunits = 16\nactivation = \"relu\"\n\
         [[layers]]\ntype = \"dense\"\n{output}\n\
         [compile]\n{compile}\n[compile.optimizer]\ntype = \"adam\"\nlearning_rate = 0.02\n\
         [fit]\nbatch_size = 32\nepochs = 20\n"
    )
}

fn home() -> Home {
    let home = Home::new();
    home.write("houses.csv", houses(ROWS));
    let price = job(
        "price",
        "target = \"price\"\ndrop = [\"sold\"]\ntest_split = 0.2\nshuffle_split = 7",
        "units = 1\nactivation = \"linear\"",
        "loss = \"mean_squared_error\"\nmetrics = []",
    );
    home.write("price.toml", price);
    let sold = job(
        "sold",
        "target = \"sold\"\ndrop = [\"price\"]\nshuffle_split = 7",
        "units = 2\nactivation = \"softmax\"",
        "loss = \"categorical_crossentropy\"\nmetrics = [\"accuracy\"]",
    );
    home.write("sold.toml", sold);
    home
}

#[test]
fn a_table_gives_the_same_bits_on_any_cluster_and_after_a_restart() {
    let home = home();
    home.coordinator("train price.toml --workers 1 --run-dir one").succeeds();
    home.coordinator("train price.toml --workers 3 --run-dir three").succeeds();
    home.coordinator("train price.toml --workers 2 --epochs 5 --run-dir half").succeeds();
    assert_eq!(home.run("one").hash(), home.run("three").hash());
    assert_ne!(home.run("one").hash(), home.run("half").hash());

    home.coordinator("verify one").succeeds();
}

#[test]
fn weights_travel_with_the_samples() {
    let home = home();
    let weight = |row: usize| if row == 0 { "weight".to_string() } else { (row % 5).to_string() };
    let rows = houses(ROWS);
    let rows: Vec<_> =
        rows.lines().enumerate().map(|(row, line)| format!("{line},{}", weight(row))).collect();
    home.write("weighted.csv", rows.join("\n"));
    let price = std::fs::read_to_string(home.path("price.toml")).unwrap();
    let weighted = price.replace("houses.csv", "weighted.csv");
    home.write("weighted.toml", weighted.replace("drop = [", "sample_weight = \"weight\"\ndrop = ["));
    home.write("unweighted.toml", weighted.replace("drop = [", "drop = [\"weight\", "));
    home.coordinator("train weighted.toml --workers 1 --run-dir one").succeeds();
    home.coordinator("train weighted.toml --workers 3 --run-dir three").succeeds();
    home.coordinator("train unweighted.toml --workers 1 --epochs 1 --run-dir un").succeeds();
    assert_eq!(home.run("one").hash(), home.run("three").hash());
    let first = |run: &str| home.run(run).history()[0].clone();
    for figure in ["loss", "val_loss", "test_loss", "weights_sha256"] {
        assert_ne!(first("one")[figure], first("un")[figure], "{figure}");
    }
    home.coordinator("verify one").succeeds();
    let evaluated = home.coordinator("evaluate one --json").succeeds().json();
    assert_eq!(evaluated[0]["test_loss"], home.run("one").history().last().unwrap()["test_loss"]);
    home.write("new.csv", "area,age,colour,weight\n100,10,red,heavy\n");
    home.coordinator("predict one new.csv").succeeds();
}

#[test]
fn classes_weigh_by_their_names() {
    let home = home();
    let sold = std::fs::read_to_string(home.path("sold.toml")).unwrap();
    let with =
        |weights: &str| sold.replace("[compile]\n", &format!("[compile]\nclass_weight = {{ {weights} }}\n"));
    home.write("names.toml", with("yes = 3.0, no = 0.5"));
    home.write("numbers.toml", with("1 = 3.0, 0 = 0.5"));
    for (job, workers) in [("sold", 1), ("names", 1), ("numbers", 2)] {
        home.coordinator(&format!("train {job}.toml --epochs 2 --workers {workers} --run-dir {job}"))
            .succeeds();
    }
    assert_eq!(home.run("names").hash(), home.run("numbers").hash());
    assert_ne!(home.run("names").hash(), home.run("sold").hash());
    home.coordinator("verify names").succeeds();
    home.write("none.toml", with("maybe = 2.0"));
    let error = home.coordinator("train none.toml --workers 1 --run-dir none").fails(2);
    assert!(error.contains("class_weight: there is no class maybe; the data has no, yes"), "{error}");
}

#[test]
fn numbers_are_learned_evaluated_and_predicted() {
    let home = home();
    let trained = home.coordinator("train price.toml --workers 2 --run-dir run").succeeds();
    assert!(trained.stdout.contains("Test loss:"), "{trained}");
    let history = home.run("run").history();
    let last = history.last().unwrap();
    // A model that knows the mean alone has the variance of the prices, about 9,000, for its loss.
    assert!(last["test_loss"].as_f64().unwrap() < 200.0, "{last}");

    let evaluated = home.coordinator("evaluate run --json").succeeds().json();
    assert_eq!(evaluated[0]["test_loss"], last["test_loss"]);

    // Without the columns that were dropped or learned, in another order, with a column more.
    home.write("new.csv", "note,colour,age,area\na,red,10,100\nb,blue,50,20\n");
    let predicted = home.coordinator("predict run new.csv --csv").succeeds();
    let lines: Vec<_> = predicted.stdout.lines().collect();
    assert_eq!((lines[0], lines.len()), ("file,index,price", 3), "{predicted}");
    let price = |line: &str| line.rsplit(',').next().unwrap().parse::<f64>().unwrap();
    assert!((price(lines[1]) - 310.0).abs() < 40.0 && (price(lines[2]) - 10.0).abs() < 40.0, "{predicted}");
    let values = home.coordinator("predict run new.csv --json").succeeds().json();
    assert_eq!(values[0]["values"][0].as_f64().unwrap() as f32, price(lines[1]) as f32);
}

#[test]
fn classes_have_their_names_and_no_test_set_has_no_figures() {
    let home = home();
    let trained = home.coordinator("train sold.toml --workers 2 --run-dir run").succeeds();
    assert!(!trained.stdout.contains("test_loss") && !trained.stdout.contains("Test loss"), "{trained}");
    let history = home.run("run").history();
    assert!(history.last().unwrap()["test_loss"].is_null());
    assert!(history.last().unwrap()["val_accuracy"].as_f64().unwrap() > 0.9, "{history:?}");

    home.write("new.csv", "area,age,colour\n100,10,red\n5,90,blue\n");
    let predicted = home.coordinator("predict run new.csv").succeeds().stdout;
    let names: Vec<_> = predicted.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
    assert_eq!(names, ["yes", "no"], "{predicted}");
    let json = home.coordinator("predict run new.csv --json").succeeds().json();
    assert_eq!((&json[0]["class"], &json[0]["name"]), (&1.into(), &"yes".into()));
}

#[test]
fn a_test_set_and_a_validation_set_have_files_of_their_own() {
    let home = home();
    home.write("test.csv", houses(90));
    home.write("validation.csv", houses(120));
    let text = std::fs::read_to_string(home.path("sold.toml")).unwrap();
    let own = text.replace("shuffle_split = 7", "test = \"test.csv\"\nvalidation = \"validation.csv\"");
    home.write("own.toml", own);
    home.coordinator("train own.toml --workers 2 --run-dir run").succeeds();
    let receipt = home.run("run").receipt();
    let files: Vec<_> = receipt["data_sha256"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(files, ["houses.csv", "test/test.csv", "validation/validation.csv"]);

    home.write("test.csv", houses(90).replace(",yes", ",perhaps"));
    let error = home.coordinator("train own.toml --workers 1 --run-dir again").fails(3);
    assert!(
        error.contains("test.csv, column sold: row ") && error.contains("`perhaps` is no class"),
        "{error}"
    );
    home.write("test.csv", houses(90).replace("blue", "violet"));
    let error = home.coordinator("train own.toml --workers 1 --run-dir again").fails(3);
    assert!(
        error.contains("test.csv, row ") && error.contains("column colour: `violet` is none of"),
        "{error}"
    );
}

#[test]
fn what_is_predicted_for_must_be_what_was_trained_with() {
    let home = home();
    home.coordinator("train sold.toml --workers 1 --epochs 1 --run-dir run").succeeds();
    for (table, says) in [
        ("area,colour\n1,red\n", "new.csv: there is no column age"),
        ("area,age,colour\n1,old,red\n", "new.csv, row 1, column age: `old` is no number"),
        ("area,age,colour\n1,,red\n", "new.csv, row 1, column age: the value is missing"),
        (
            "area,age,colour\n1,2,pink\n",
            "new.csv, row 1, column colour: `pink` is none of the column's 3 values",
        ),
        ("", "new.csv: the file is empty"),
    ] {
        home.write("new.csv", table);
        let error = home.coordinator("predict run new.csv").fails(3);
        assert!(error.contains(says), "{table:?}: {error}");
    }
}

#[test]
fn a_model_of_images_takes_no_table() {
    let home = Home::small();
    home.coordinator("train small.toml --workers 1 --epochs 1 --run-dir run").succeeds();
    home.write("new.csv", "area\n1\n");
    let error = home.coordinator("predict run new.csv").fails(3);
    assert!(error.contains("new.csv: is a table, but the training data is bytes"), "{error}");
}

#[test]
fn an_output_layer_that_does_not_fit_the_table_is_explained() {
    let home = home();
    let text = std::fs::read_to_string(home.path("sold.toml")).unwrap();
    home.write("three.toml", text.replace("units = 2", "units = 3"));
    let error = home.coordinator("train three.toml --workers 1 --run-dir run").fails(2);
    assert!(error.contains("the data has labels of 2 classes; give the output layer 2 units"), "{error}");
}

#[test]
fn a_table_is_shown_as_the_model_sees_it() {
    let home = home();
    let shown = home.coordinator("show data price.toml").succeeds().stdout;
    for says in ["area", "colour", "blue, green, red", "price", "640 train / 160 validation", "200 test"] {
        assert!(shown.contains(says), "{says}: {shown}");
    }
    let report = home.coordinator("show data price.toml --json").succeeds().json();
    assert_eq!((&report[0]["train_samples"], &report[0]["test_samples"]), (&640.into(), &200.into()));
    assert_eq!(report[0]["columns"][2]["name"], "colour");
}
