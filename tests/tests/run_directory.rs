//! The files of a run, and the commands that use them later without training.

use millefeuille_tests::data::{FILES, PIXELS, SIDE, SMALL_TEST, idx_labels, idx_of, mnist};
use millefeuille_tests::home::{Home, project};
use millefeuille_tests::process::{Signal, until};
use serde_json::Value;

/// A small run in `run`.
fn trained() -> Home {
    let home = Home::new();
    home.small_job();
    home.coordinator("train small.toml --workers 2 --run-dir run").succeeds();
    home
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

fn is_hash(value: &Value) -> bool {
    value.as_str().is_some_and(|hash| hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit()))
}

#[test]
fn a_run_writes_its_job_history_model_receipt_and_plots() {
    let home = trained();
    let run = home.run("run");

    for file in ["job.toml", "history.jsonl", "events.jsonl", "model.safetensors", "receipt.json", "plots"] {
        assert!(run.has(file), "{file}");
    }
    for plot in std::fs::read_dir(run.path().join("plots")).unwrap() {
        let name = plot.unwrap().file_name().into_string().unwrap();
        let svg = run.text(&format!("plots/{name}"));
        assert!(name.ends_with(".svg") && svg.contains("<svg") && svg.contains("</svg>"), "{name}");
    }

    let history = run.history();
    assert_eq!(history.len(), 3);
    for (row, epoch) in history.iter().zip(1..) {
        assert_eq!(row["epoch"].as_u64(), Some(epoch));
        let numbers =
            ["loss", "accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy", "seconds"];
        for key in numbers {
            assert!(row[key].as_f64().is_some_and(|number| number >= 0.0), "{key} in {row}");
        }
        assert!(is_hash(&row["weights_sha256"]), "{row}");
        assert_eq!(keys(row).len(), numbers.len() + 2, "{row}");
    }

    let receipt = run.receipt();
    for key in ["weights_sha256", "job_sha256", "fingerprint"] {
        assert!(is_hash(&receipt[key]), "{key} in {receipt}");
    }
    for key in ["blas_kernel", "blas_version", "version"] {
        assert!(receipt[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {receipt}");
    }
    assert_eq!(keys(&receipt["data_sha256"]).len(), 4, "{receipt}");
    let of_epochs: Vec<_> = history.iter().map(|row| row["weights_sha256"].clone()).collect();
    assert_eq!(receipt["epoch_weights_sha256"], Value::from(of_epochs.clone()));
    assert_eq!(Some(&receipt["weights_sha256"]), of_epochs.last());

    let job = run.text("job.toml");
    assert!(
        job.contains(&format!("blas_kernel = \"{}\"", run.receipt_text("blas_kernel"))),
        "resolved: {job}"
    );
}

#[test]
fn the_model_has_keras_tensors_and_its_receipts_hash() {
    let home = Home::new();
    home.coordinator("train --epochs 1 --workers 1 --slots 2 --run-dir run").succeeds();
    let run = home.run("run");

    let tensors = run.tensors();

    let expected = [
        ("dense/bias", vec![256]),
        ("dense/kernel", vec![784, 256]),
        ("dense_1/bias", vec![128]),
        ("dense_1/kernel", vec![256, 128]),
        ("dense_2/bias", vec![10]),
        ("dense_2/kernel", vec![128, 10]),
    ];
    assert_eq!(tensors, expected.map(|(name, shape)| (name.to_string(), shape)));
    let order =
        ["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias", "dense_2/kernel", "dense_2/bias"];
    assert_eq!(run.hash_of_tensors(&order), run.hash());
}

#[test]
fn the_job_in_a_run_directory_trains_the_same_model_again() {
    let home = trained();

    home.coordinator("train run/job.toml --workers 1 --run-dir again").succeeds();

    assert_eq!(home.run("again").hash(), home.run("run").hash());
    assert_eq!(home.run("again").receipt_text("job_sha256"), home.run("run").receipt_text("job_sha256"));
    assert_eq!(home.run("again").text("job.toml"), home.run("run").text("job.toml"));
}

#[test]
fn gzipped_files_and_raw_ones_are_the_same_data() {
    use std::io::Write as _;
    let home = trained();
    for name in millefeuille_tests::data::FILES {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&std::fs::read(home.path("data").join(name)).unwrap()).unwrap();
        home.write(&format!("gzipped/{name}.gz"), gzip.finish().unwrap());
    }

    home.coordinator("train small.toml --data gzipped --workers 1 --run-dir again").succeeds();

    assert_eq!(home.run("again").receipt(), home.run("run").receipt());
}

#[test]
fn evaluate_gives_the_same_bits_as_the_last_row_of_the_history() {
    let home = trained();
    let last = home.run("run").history().pop().unwrap();
    let bits = |value: &Value, key: &str| value[key].as_f64().map(f64::to_bits);

    let variables = [
        ("PLAIN", "1"),
        ("OPENBLAS_CORETYPE", "Nehalem"),
        ("OPENBLAS_L2_SIZE", "512"),
        ("OPENBLAS_NUM_THREADS", "2"),
    ];
    for (name, value) in variables {
        let evaluated = home.coordinator("evaluate run --json").env(name, value).succeeds().json();
        assert_eq!(evaluated.len(), 1);
        for key in ["val_loss", "val_accuracy", "test_loss", "test_accuracy"] {
            assert!(bits(&last, key).is_some(), "{key} in {last}");
            assert_eq!(bits(&evaluated[0], key), bits(&last, key), "{key} with {name}={value}");
        }
    }
}

#[test]
fn without_a_validation_split_there_are_no_figures_for_it() {
    let home = Home::new();
    home.small_job();
    home.coordinator("train small.toml --validation-split 0 --workers 2 --run-dir run").succeeds();

    let last = home.run("run").history().pop().unwrap();
    let evaluated = home.coordinator("evaluate run --json").succeeds().json().remove(0);

    assert!(last["val_loss"].is_null() && last["val_accuracy"].is_null(), "{last}");
    assert!(evaluated["val_loss"].is_null() && evaluated["val_accuracy"].is_null(), "{evaluated}");
    assert_eq!(evaluated["test_loss"], last["test_loss"]);
}

#[test]
fn the_newest_checkpoint_of_a_run_can_be_evaluated_before_it_is_done() {
    let home = Home::new();
    home.small_job();
    let mut train = home.coordinator("train small.toml --epochs 100000 --workers 1 --run-dir run").start();
    train.says("Epoch 2/");
    train.signal(Signal::INT);
    train.wait().error(130);

    let error = home.coordinator("evaluate run").fails(3);
    for command in ["coordinator train --run-dir run --resume", "coordinator evaluate run --checkpoint"] {
        assert!(error.contains(command), "{command}: {error}");
    }
    let evaluated = home.coordinator("evaluate run --checkpoint").succeeds();
    assert!(evaluated.stderr.starts_with("evaluating run/checkpoints/"), "{evaluated}");
    assert!(evaluated.stdout.contains("Test accuracy:"), "{evaluated}");
    std::fs::remove_dir_all(home.path("run/checkpoints")).unwrap();
    let none = home.coordinator("evaluate run --checkpoint").fails(3);
    assert!(none.contains("run: there is no checkpoint yet"), "{none}");
}

#[test]
fn the_last_checkpoint_has_the_figures_of_the_historys_last_row() {
    let home = trained();
    let last = home.run("run").history().pop().unwrap();

    let evaluated = home.coordinator("evaluate run --checkpoint --json").succeeds();

    assert!(evaluated.stderr.trim_end().ends_with(", after the last of 3 epochs"), "{evaluated}");
    for key in ["val_loss", "val_accuracy", "test_loss", "test_accuracy"] {
        assert_eq!(evaluated.json()[0][key], last[key], "{key}");
    }
}

#[test]
fn a_run_that_diverged_says_so_and_what_to_change() {
    let home = Home::new();
    home.small_job();
    home.coordinator("train small.toml --learning-rate 3e38 --workers 1 --run-dir run").fails(6);

    let error = home.coordinator("evaluate run").fails(6);

    assert!(error.contains("run: training diverged") && error.contains("--learning-rate"), "{error}");
    assert!(!error.contains("--resume"), "{error}");
}

#[test]
fn a_run_to_resume_that_is_not_there_is_said() {
    let home = Home::new();
    home.small_job();

    let ended = home.coordinator("train small.toml --workers 1 --run-dir typo --resume").succeeds();

    assert!(ended.stderr.contains("warning: typo: there is no run to resume; a new one begins"), "{ended}");
}

#[test]
fn a_run_directory_that_is_removed_ends_its_training() {
    for name in ["", "history.jsonl", "ledger", "job.toml", "events.jsonl", "run.json", ".lock"] {
        let home = Home::new();
        home.small_job();
        let train = "train small.toml --epochs 100000 --workers 1 --run-dir run --checkpoint-interval 0.05";
        let mut train = home.coordinator(train).start();
        train.says("Epoch 2/");
        let path = home.path("run").join(name);
        until(format!("run/{name} is removed"), || {
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.ok()
        });

        let error = train.wait().error(3);

        let place = if name.is_empty() { "run" } else { name };
        assert!(error.contains(place), "{name}: {error}");
        assert!(error.contains("from outside while the job used it"), "{name}: {error}");
        assert!(!home.run("run").has("receipt.json"));
    }
}

#[test]
fn data_of_another_size_than_the_models_is_named() {
    let home = trained();
    for name in millefeuille_tests::data::FILES {
        let mut bytes = std::fs::read(home.path("data").join(name)).unwrap();
        if name.contains("images") {
            // Twice as many rows of half the length would fit: half as many do not.
            let images = u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize;
            bytes[8..12].copy_from_slice(&14u32.to_be_bytes());
            bytes.truncate(16 + images * 14 * 28);
        }
        home.write(&format!("flat/{name}"), bytes);
    }

    let error = home.coordinator("evaluate run --data flat").fails(3);

    assert!(error.starts_with("flat: samples of 392 values"), "{error}");
}

#[test]
fn predict_answers_for_every_image_of_an_idx_file() {
    let home = trained();

    let lines = home.coordinator("predict run data/t10k-images-idx3-ubyte --json").succeeds().json();

    assert_eq!(lines.len(), SMALL_TEST);
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["file"], "data/t10k-images-idx3-ubyte");
        assert_eq!(line["index"].as_u64(), Some(index as u64));
        let probabilities: Vec<f64> =
            line["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
        assert_eq!(probabilities.len(), 10, "{line}");
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{line}");
        let best = probabilities.iter().copied().fold(0.0, f64::max);
        let class = line["class"].as_u64().unwrap() as usize;
        assert_eq!(
            probabilities.iter().position(|&p| p == best),
            Some(class),
            "the lowest of the best: {line}"
        );
    }
    let labels = std::fs::read(home.path("data/t10k-labels-idx1-ubyte")).unwrap();
    let right = lines.iter().zip(&labels[8..]).filter(|(line, label)| line["class"] == **label);
    let accuracy = right.count() as f64 / SMALL_TEST as f64;
    assert_eq!(home.run("run").figures("test_accuracy").last(), Some(&accuracy));
}

/// A PNG of these RGB pixels.
fn png(width: usize, height: usize, rgb: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(rgb));
    written.expect("a picture in memory can be written");
    file
}

/// A digit as drawn by hand: four times as large, dark blue ink on light yellow paper.
fn drawn(digit: &[u8]) -> Vec<u8> {
    const SCALE: usize = 4;
    let mut rgb = Vec::new();
    for y in 0..SIDE * SCALE {
        for x in 0..SIDE * SCALE {
            let ink = f64::from(digit[y / SCALE * SIDE + x / SCALE]) / 255.0;
            let mix = |paper: f64, pen: f64| (paper + (pen - paper) * ink) as u8;
            rgb.extend([mix(250.0, 20.0), mix(245.0, 20.0), mix(190.0, 120.0)]);
        }
    }
    png(SIDE * SCALE, SIDE * SCALE, &rgb)
}

/// The digit that a picture's name says: `_is7`, or `7-` at its start; `None` if it shows no single digit.
fn class_in(name: &str) -> Option<u64> {
    let after = name.split_once("_is").map(|(_, after)| after);
    let digit = after.or_else(|| name.get(1..2).is_some_and(|next| next == "-").then_some(name))?;
    digit.chars().next()?.to_digit(10).map(u64::from)
}

#[test]
fn a_drawn_digit_is_normalised_and_a_raw_one_is_used_unchanged() {
    let home = Home::new();
    let train = "train --epochs 2 --workers 1 --slots 2 --scale 1/255 --learning-rate 1 --batch-size 200";
    home.coordinator(&format!("{train} --run-dir run")).succeeds();
    let images = mnist("t10k-images-idx3-ubyte");
    let labels = mnist("t10k-labels-idx1-ubyte");
    let idx =
        home.coordinator("predict run --json").arg(project().join("data/mnist/t10k-images-idx3-ubyte.gz"));
    let known = idx.succeeds().json();

    // Drawn digits with a confident prediction are recognised.
    let sure = |&index: &usize| {
        let label = usize::from(labels[index]);
        known[index]["class"] == labels[index] && known[index]["probabilities"][label].as_f64().unwrap() > 0.9
    };
    let sure: Vec<usize> = (0..100).filter(sure).take(10).collect();
    assert_eq!(sure.len(), 10, "this model knows ten of the first hundred well");
    let mut predict = home.coordinator("predict run --json");
    for &index in &sure {
        let digit = &images[index * PIXELS..][..PIXELS];
        predict = predict.arg(home.write(&format!("{index}.png"), drawn(digit)));
    }
    let answers = predict.succeeds().json();
    let classes: Vec<_> = answers.iter().map(|line| line["class"].as_u64()).collect();
    assert_eq!(classes, sure.iter().map(|&index| Some(labels[index].into())).collect::<Vec<_>>());
    assert!(answers.iter().all(|line| line["index"] == 0), "{answers:?}");

    // Unchanged, a digit has the same prediction as in its IDX file.
    let grey: Vec<u8> = images[..PIXELS].iter().flat_map(|&value| [value; 3]).collect();
    home.write("raw.png", png(SIDE, SIDE, &grey));
    let raw = home.coordinator("predict run raw.png --raw --json").succeeds().json();
    assert_eq!(raw[0]["class"], known[0]["class"]);
    for class in 0..10 {
        let probability = |line: &Value| line["probabilities"][class].as_f64().unwrap();
        assert!((probability(&raw[0]) - probability(&known[0])).abs() < 1e-5, "{} and {}", raw[0], known[0]);
    }

    // So are those on paper with shadows, lines, frames and specks; two digits are not taken for one.
    let digits = project().join("coordinator/tests/digits");
    let names =
        std::fs::read_dir(&digits).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut shown: Vec<(String, u64)> =
        names.filter_map(|name| Some((name.clone(), class_in(&name)?))).collect();
    shown.sort();
    assert_eq!(shown.len(), 4 * 5 + 6, "{shown:?}");
    let predict = home.coordinator("predict run --json");
    let predict = shown.iter().fold(predict, |predict, (name, _)| predict.arg(digits.join(name)));
    for (answer, (name, class)) in predict.succeeds().json().iter().zip(&shown) {
        assert_eq!(answer["class"].as_u64(), Some(*class), "{name}: {answer}");
    }
    for (name, says) in [("42.png", "2 separate figures"), ("onedot.png", "the image is empty")] {
        let error = home.coordinator("predict run").arg(digits.join(name)).fails(3);
        assert!(error.contains(name) && error.contains(says), "{error}");
    }

    // An image of another size cannot be used unchanged.
    let error = home.coordinator("predict run --raw").arg(format!("{}.png", sure[0])).fails(3);
    assert!(error.contains(&format!("{}.png", sure[0])) && error.contains("112×112"), "{error}");
}

/// An image of MNIST's size as one of this side, its pixels repeated.
fn resized(image: &[u8], side: usize) -> Vec<u8> {
    let at = |place: usize| place * SIDE / side;
    (0..side * side).map(|place| image[at(place / side) * SIDE + at(place % side)]).collect()
}

#[test]
fn a_model_of_other_images_is_given_pictures_of_its_own_size_and_other_data_is_named() {
    const LARGE: usize = 32;
    let home = Home::new();
    let images = |name: &str, count: usize| -> Vec<u8> {
        let images = mnist(name);
        idx_of(
            &[LARGE, LARGE],
            &images.chunks(PIXELS).take(count).flat_map(|image| resized(image, LARGE)).collect::<Vec<_>>(),
        )
    };
    home.write(&format!("large/{}", FILES[0]), images(FILES[0], 10_000));
    home.write(&format!("large/{}", FILES[1]), idx_labels(&mnist(FILES[1])[..10_000]));
    home.write(&format!("large/{}", FILES[2]), images(FILES[2], 500));
    home.write(&format!("large/{}", FILES[3]), idx_labels(&mnist(FILES[3])[..500]));
    home.small_data("small");
    let train = "train --data large --epochs 4 --workers 1 --scale 1/255 --learning-rate 1 --batch-size 100";
    home.coordinator(&format!("{train} --run-dir run")).succeeds();

    // The first ten test images but the ninth, which is a hard one.
    let (tests, labels) = (mnist(FILES[2]), mnist(FILES[3]));
    for index in (0..10).filter(|&index| index != 8) {
        let picture = home.write("picture.png", drawn(&tests[index * PIXELS..][..PIXELS]));
        let answer = home.coordinator("predict run --json").arg(picture).succeeds().json().remove(0);
        assert_eq!(answer["class"], labels[index], "{index}: {answer}");
    }
    let raw = home.coordinator("predict run picture.png --raw").fails(3);
    assert!(raw.contains("112×112 pixels where 32×32 is needed"), "{raw}");
    let idx = home.coordinator(&format!("predict run small/{}", FILES[2])).fails(3);
    assert!(idx.contains("images of 28×28 pixels, but the model takes images of 32×32"), "{idx}");
    let data = home.coordinator("evaluate run --data small").fails(3);
    assert!(data.contains("small: samples of 784 values"), "{data}");
    assert!(!data.contains("model.safetensors"), "{data}");
}

#[test]
fn rows_of_values_are_learned_as_images_are() {
    let home = Home::new();
    home.small_job();
    home.coordinator("train small.toml --workers 1 --run-dir images").succeeds();
    for name in [FILES[0], FILES[2]] {
        let images = std::fs::read(home.path("data").join(name)).unwrap();
        home.write(&format!("data/{name}"), idx_of(&[PIXELS], &images[16..]));
    }
    home.coordinator("train small.toml --workers 1 --run-dir rows").succeeds();
    assert_eq!(home.run("rows").hash(), home.run("images").hash());

    let shown = home.coordinator("show data small.toml").succeeds();
    assert!(shown.stdout.contains("x_train: (2003, 784) uint8"), "{shown}");
    let lines = home.coordinator(&format!("predict rows data/{} --json", FILES[2])).succeeds().json();
    assert_eq!(lines.len(), SMALL_TEST);
}

#[test]
fn standard_output_is_the_report_and_standard_error_the_progress() {
    let home = Home::new();
    home.small_job();

    let ended = home.coordinator("train small.toml --workers 1 --run-dir run").succeeds();

    for text in
        ["epoch", "val_accuracy", "Test loss:", "Test accuracy:", "weights_sha256", &home.run("run").hash()]
    {
        assert!(ended.stdout.contains(text), "{text}: {ended}");
    }
    assert!(!ended.stdout.contains("Epoch 1/3"), "{ended}");
    for epoch in ["Epoch 1/3", "Epoch 2/3", "Epoch 3/3"] {
        assert_eq!(ended.stderr.matches(epoch).count(), 1, "{ended}");
    }
    for key in ["accuracy: ", "loss: ", "val_accuracy: ", "val_loss: "] {
        assert!(ended.stderr.contains(key), "{key}: {ended}");
    }
}

#[test]
fn show_pictures_the_data_the_model_and_the_run() {
    let home = trained();

    let data = home.coordinator("show data --svg digits.svg").succeeds().stdout;
    let words: Vec<_> = data.lines().skip(1).flat_map(str::split_whitespace).collect();
    let of_pictures = words.iter().filter_map(|word| word.parse::<u64>().ok()).take(10);
    assert_eq!(of_pictures.collect::<Vec<_>>(), [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    for shape in ["(60000, 28, 28)", "(60000, 784)", "(60000, 10)", "48000 train / 12000 validation"] {
        assert!(data.contains(shape), "{shape}: {data}");
    }
    assert!(data.contains("[0. 0. 0. 0. 0. 1. 0. 0. 0. 0.]"), "five, one-hot: {data}");
    assert!(std::fs::read_to_string(home.path("digits.svg")).unwrap().contains("<svg"));

    let model = home.coordinator("show model").succeeds().stdout;
    for text in ["dense (Dense)", "(None, 256)", "200,960", "dropout (Dropout)", "Total params: 235,146"] {
        assert!(model.contains(text), "{text}: {model}");
    }

    let run = home.coordinator("show run run").succeeds().stdout;
    for text in ["val_accuracy", "Test accuracy:", &home.run("run").hash()] {
        assert!(run.contains(text), "{text}: {run}");
    }
}

#[test]
fn an_existing_run_is_refused_or_replaced_or_reported() {
    let home = trained();
    let before = home.run("run").snapshot();

    let refused = home.coordinator("train small.toml --workers 1 --run-dir run").fails(3);
    assert!(
        refused.contains("run") && refused.contains("--overwrite") && refused.contains("--resume"),
        "{refused}"
    );
    assert_eq!(home.run("run").snapshot(), before);

    let done = home.coordinator("train small.toml --workers 1 --run-dir run --resume").succeeds();
    assert!(done.stdout.contains(&home.run("run").hash()) && !done.stderr.contains("Epoch"), "{done}");
    assert_eq!(home.run("run").snapshot(), before);

    let another = home.coordinator("train small.toml --workers 1 --run-dir run --resume --seed 8").fails(2);
    assert!(another.contains("seed") && another.contains("--overwrite"), "{another}");
    assert_eq!(home.run("run").snapshot(), before);

    home.coordinator("train small.toml --workers 1 --run-dir run --overwrite --epochs 1").succeeds();
    assert_eq!(home.run("run").history().len(), 1);
}

#[test]
fn replacing_a_run_keeps_unrelated_files() {
    let home = trained();
    home.write("run/notes.txt", "mine");

    home.coordinator("train small.toml --workers 1 --run-dir run --overwrite").succeeds();

    assert_eq!(home.run("run").text("notes.txt"), "mine");
}

#[test]
fn runs_without_a_directory_are_numbered() {
    let home = Home::new();
    home.small_job();

    for _ in 0..2 {
        home.coordinator("train small.toml --epochs 1 --workers 1").succeeds();
    }

    assert_eq!(home.run("runs/small-1").hash(), home.run("runs/small-2").hash());
}

#[test]
fn figures_over_other_data_say_so() {
    let home = trained();
    home.small_data("other");
    let labels = home.path("other/t10k-labels-idx1-ubyte");
    let mut bytes = std::fs::read(&labels).unwrap();
    bytes[8] = (bytes[8] + 1) % 10;
    std::fs::write(&labels, bytes).unwrap();

    let same = home.coordinator("evaluate run --json").succeeds();
    let other = home.coordinator("evaluate run --data other --json").succeeds();

    assert_eq!(same.stderr, "");
    assert_eq!(other.json().len(), 1);
    assert!(other.stderr.starts_with("warning: other: ") && other.stderr.lines().count() == 1, "{other}");
    assert!(other.stderr.contains("t10k-labels") && !other.stderr.contains("train-"), "{other}");
}

#[test]
fn a_directory_with_other_files_is_refused() {
    let home = Home::new();
    home.small_job();
    home.write("mine/notes.txt", "mine");
    std::fs::create_dir(home.path("empty")).unwrap();

    for flag in ["", "--overwrite", "--resume"] {
        let train = home.coordinator(&format!("train small.toml --workers 1 --run-dir mine {flag}"));
        let error = train.fails(3);
        assert!(error.contains("mine: holds notes.txt") && error.contains("empty"), "{flag}: {error}");
    }
    assert_eq!(home.run("mine").snapshot().len(), 1, "nothing was written");
    home.coordinator("train small.toml --workers 1 --epochs 1 --run-dir empty").succeeds();
}
