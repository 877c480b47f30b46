//! Job files by themselves: `coordinator job`.

use millefeuille_tests::home::{Home, project};

fn text_of(path: &str) -> String {
    std::fs::read_to_string(project().join(path)).expect(path)
}

#[test]
fn the_articles_job_is_checked() {
    let home = Home::new();

    let report = &home.coordinator("job check --json").succeeds().json()[0];

    // The figures of the article, and 4 bytes for each parameter.
    assert_eq!((&report["parameters"], &report["step_bytes"]), (&235_146.into(), &940_584.into()));
    assert_eq!((&report["steps_per_epoch"], &report["optimizer_steps"]), (&96.into(), &480.into()));
    let data = &report["data"];
    let samples = ["train_samples", "validation_samples", "test_samples"].map(|name| data[name].as_u64());
    assert_eq!(samples, [Some(48_000), Some(12_000), Some(10_000)]);
    assert_eq!(data["shape"], serde_json::json!([28, 28]));
    assert_eq!(data["classes"].as_array().map(Vec::len), Some(10));
    let params: Vec<_> = report["layers"].as_array().unwrap().iter().map(|layer| &layer["params"]).collect();
    assert_eq!(params, [200_960, 32_896, 0, 1_290]);
    // All samples are held once by the coordinator and once by the workers, and take 785 bytes each.
    for holder in ["coordinator_bytes", "sample_bytes"] {
        assert!(report["memory"][holder].as_u64().unwrap() > 70_000 * 785, "{report}");
    }

    let text = home.coordinator("job check").succeeds().stdout;
    for says in
        ["The job article is valid.", "mnist: 48,000 train / 12,000 validation / 10,000 test", "235,146"]
    {
        assert!(text.contains(says), "{says}: {text}");
    }
}

#[test]
fn flags_count_for_a_check() {
    let home = Home::small();
    let report =
        |flags: &str| home.coordinator(&format!("job check small.toml --json {flags}")).succeeds().json();
    let before = report("");
    let wider = report("--set layers[0].units=64 --set fit.accumulate=4 --epochs 2");
    // 1603 training samples in batches of 100.
    assert_eq!((&before[0]["steps_per_epoch"], &wider[0]["steps_per_epoch"]), (&17.into(), &17.into()));
    assert_eq!((&before[0]["optimizer_steps"], &wider[0]["optimizer_steps"]), (&51.into(), &10.into()));
    assert_eq!(before[0]["parameters"], 784 * 24 + 24 + 24 * 10 + 10);
    assert_eq!(wider[0]["parameters"], 784 * 64 + 64 + 64 * 10 + 10);
}

#[test]
fn a_table_is_checked_with_its_classes() {
    let home = Home::new();
    home.write(
        "table.csv",
        (0..100)
            .map(|row| format!("{row},{}\n", ["no", "yes"][row % 2]))
            .fold("a,b\n".into(), |text: String, row| text + &row),
    );
    let job = "name = \"t\"\n[data]\nsource = \"table.csv\"\ntarget = \"b\"\n[[layers]]\ntype = \"dense\"\nunits = 2\n\
               activation = \"softmax\"\n";
    home.write("t.toml", job);
    let report = &home.coordinator("job check t.toml --json").succeeds().json()[0];
    assert_eq!(report["data"]["classes"], serde_json::json!(["no", "yes"]));
    assert_eq!(report["data"]["files"], serde_json::json!(["table.csv"]));

    home.write("t.toml", job.replace("units = 2", "units = 3"));
    let error = home.coordinator("job check t.toml").fails(2);
    assert!(error.contains("the data has labels of 2 classes; give the output layer 2 units"), "{error}");
}

#[test]
fn what_is_wrong_with_a_job_is_named() {
    let home = Home::small();
    home.write("typo.toml", "[fit]\nepoch = 5");
    let error = home.coordinator("job check typo.toml").fails(2);
    assert!(error.contains("typo.toml:2: unknown key `epoch` in [fit]; did you mean `epochs`?"), "{error}");

    let error = home.coordinator("job check small.toml --data nowhere").fails(3);
    assert!(
        error.contains("--data nowhere") && error.contains("there is no such file or directory"),
        "{error}"
    );

    let error = home.coordinator("job check small.toml --validation-split 0.9999").fails(2);
    assert!(error.contains("leaves no sample to train on"), "{error}");

    let error = home.coordinator("job check absent.toml").fails(2);
    assert!(error.contains("absent.toml"), "{error}");
}

#[test]
fn the_schema_is_printed() {
    assert_eq!(Home::new().coordinator("job schema").succeeds().stdout, text_of("docs/job.schema.json"));
}

// ---- job new

/// A table with a column of every kind: numbers, texts, missing values, numbers of rows, names, a constant.
fn people(rows: usize) -> String {
    let row = |row: usize| {
        let age = 20 + row * 37 % 50;
        let height = if row.is_multiple_of(9) { String::new() } else { (150 + row * 53 % 40).to_string() };
        let town = ["Bern", "Genf", "NA"][row % 11 % 3];
        let pays = if age + row % 5 > 45 { "yes" } else { "no" };
        format!("{},Person {row},{age},{height},{town},CH,{pays}\n", row + 1000)
    };
    "nr,name,age,height,town,country,pays\n".to_string() + &(0..rows).map(row).collect::<String>()
}

#[test]
fn a_job_is_written_for_a_messy_table_and_trains_as_it_stands() {
    let home = Home::new();
    home.write("people.csv", people(600));
    let written = home.coordinator("job new --from people.csv --target pays --output people.toml").succeeds();
    assert!(written.stdout.contains("coordinator train people.toml"), "{written}");
    let text = std::fs::read_to_string(home.path("people.toml")).unwrap();
    for says in [
        "# nr numbers the rows.",
        "# name has nearly as many values as rows.",
        "# country has the same value in each row.",
        "drop = [\"nr\", \"name\", \"country\"]",
        "# Values are missing in height, town: the mean",
        "missing = \"mean\"",
        "to learn which of two classes",
    ] {
        assert!(text.contains(says), "{says}:\n{text}");
    }

    let report = &home.coordinator("job check people.toml --json").succeeds().json()[0];
    // Age, height, and a town that is one of two.
    assert_eq!(report["data"]["shape"], serde_json::json!([4]));
    assert_eq!(report["data"]["classes"], serde_json::json!(["no", "yes"]));
    home.coordinator("train people.toml --workers 1 --run-dir run").succeeds();
    let evaluated = &home.coordinator("evaluate run --json").succeeds().json()[0];
    assert!(evaluated["test_accuracy"].as_f64().unwrap() > 0.93, "{evaluated}");
    assert!(home.run("run").history().len() < 200, "training stops early");
}

#[test]
fn a_table_says_itself_how_it_is_laid_out() {
    let home = Home::new();
    let rows = |separator: &str| {
        (0..100)
            .map(|row| {
                [row * 7 % 31, row * row % 17, row * 7 % 31 * 10]
                    .map(|cell| f64::from(cell) + 0.5)
                    .map(|cell| cell.to_string())
                    .join(separator)
                    + "\n"
            })
            .collect::<String>()
    };
    for (header, separator, target, says) in [
        ("a;b;c\n", ";", "c", "separator = \";\""),
        ("", ",", "2", "header = false"),
        ("a,b,c\n", ",", "c", "target = \"c\""),
        ("", ";", "2", "separator = \";\""),
    ] {
        home.write("data.csv", format!("{header}{}", rows(separator)));
        let text = home.coordinator(&format!("job new --from data.csv --target {target}")).succeeds().stdout;
        assert!(text.contains(says) && text.contains("loss = \"mean_squared_error\""), "{says}:\n{text}");
    }
}

#[test]
fn a_written_job_never_replaces_a_file_unasked() {
    let home = Home::new();
    home.write("people.csv", people(100));
    home.write("people.toml", "mine");
    let new = "job new --from people.csv --target pays";
    let error = home.coordinator(&format!("{new} --output people.toml")).fails(3);
    assert!(error.contains("people.toml: there is a file already (--overwrite replaces it"), "{error}");
    assert_eq!(std::fs::read_to_string(home.path("people.toml")).unwrap(), "mine");
    home.coordinator(&format!("{new} --overwrite")).run().with_code(2);

    home.coordinator(&format!("{new} --output people.toml --overwrite")).succeeds();

    // Without a file it is printed, and the same again.
    let printed = home.coordinator(new).succeeds().stdout;
    assert_eq!(std::fs::read_to_string(home.path("people.toml")).unwrap(), printed);
}

#[test]
fn jobs_are_written_for_images_and_arrays_too() {
    let home = Home::small();
    for (from, says) in [("data", "units = 10"), ("mnist", "scale = \"1/255\"")] {
        home.coordinator(&format!("job new --from {from} --output new-{from}.toml")).succeeds();
        let text = std::fs::read_to_string(home.path(&format!("new-{from}.toml"))).unwrap();
        assert!(text.contains(says) && text.contains("sparse_categorical_crossentropy"), "{text}");
        assert!(!text.contains("test_split"), "the source has a test set: {text}");
        home.coordinator(&format!("job check new-{from}.toml")).succeeds();
    }
    home.coordinator("train new-data.toml --epochs 5 --workers 1 --run-dir run").succeeds();
    let evaluated = &home.coordinator("evaluate run --json").succeeds().json()[0];
    assert!(evaluated["test_accuracy"].as_f64().unwrap() > 0.95, "{evaluated}");
}

#[test]
fn what_no_job_can_be_written_for_is_named() {
    let home = Home::new();
    home.write("people.csv", people(100));
    home.write("same.csv", "a,b\n5,x\n9,x\n5,x\n");
    home.write("empty.csv", "");
    home.write("ragged.csv", "a,b\n1,2\n3\n");
    for (data, says) in [
        ("people.csv", "people.csv: which column is to be learned? (set target to one of nr, name, age"),
        ("people.csv --target pay", "there is no column pay; did you mean `pays`?"),
        (
            "same.csv --target b",
            "same.csv, column b: every row has the class x: there is nothing to tell apart",
        ),
        ("empty.csv --target b", "empty.csv: the file is empty"),
        ("ragged.csv --target b", "ragged.csv:3: 1 fields, but the first line has 2"),
        ("nowhere.csv --target b", "nowhere.csv: cannot be read"),
    ] {
        let error = home.coordinator(&format!("job new --from {data} --output new.toml")).fails(3);
        assert!(error.contains(says), "{data}: {error}");
        assert!(!home.path("new.toml").exists());
    }
    let error = home.coordinator("job new --from people.csv --target pays --name a/b").fails(2);
    assert!(error.contains("contains a slash"), "{error}");
}
