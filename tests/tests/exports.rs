//! Trained models in other formats: ONNX Runtime, Keras and NumPy read them, and compute the same outputs.

use std::fs;
use std::path::Path;

use clap::ValueEnum as _;
use millefeuille_coordinator::export::{ExportFormat, Exported, Normalizer};
use millefeuille_core::data::schema::{Element, Features, Schema, Target};
use millefeuille_core::data::split::Sizes;
use millefeuille_core::job::{Activation, Dense, Job, Layer, Loss, Normalization as LayerNormalization};
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::piece::{Learner, Scratch};
use millefeuille_core::random;
use millefeuille_tests::data::PIXELS;
use millefeuille_tests::home::{Home, project};
use millefeuille_tests::peers;
use safetensors::tensor::{Dtype, TensorView};

const WRITTEN: &str = "files can be written";
const FORMATS: [&str; 4] = ["onnx", "keras", "npz", "safetensors"];

/// Writes the raw inputs of some samples and the outputs for them, for the readers of others to compare with.
fn expect(directory: &Path, inputs: &[f32], outputs: &[f32], samples: usize) {
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let values = [inputs, outputs].map(|values| (bytes(values), vec![samples, values.len() / samples]));
    let views = values
        .each_ref()
        .map(|(bytes, shape)| TensorView::new(Dtype::F32, shape.clone(), bytes).expect("the shape fits"));
    let file = safetensors::serialize(["inputs", "outputs"].into_iter().zip(views), None);
    fs::write(directory.join("expected.safetensors"), file.expect("tensors can be encoded")).expect(WRITTEN);
}

/// Has the readers of others compare the models in these directories.
fn compare(home: &Home, directories: &[&str]) {
    let Some(ended) = peers::readers(home, &directories.join(" ")) else { return };
    let ended = ended.with_code(0);
    assert!(ended.stdout.contains(&format!("{} models were compared", directories.len())), "{ended}");
}

#[test]
fn others_compute_with_the_articles_model_what_predict_prints() {
    let home = Home::new();
    home.coordinator("train --workers 1 --run-dir run").succeeds();
    fs::create_dir(home.path("article")).unwrap();
    for format in FORMATS {
        let output = format!("article/model.{format}");
        home.coordinator(&format!("export run --format {format} --output {output}")).succeeds();
    }
    let images = project().join("data/mnist/t10k-images-idx3-ubyte.gz");
    let predicted = home.coordinator("predict run --json").arg(&images).succeeds().stdout;
    let outputs = predicted.lines().flat_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let outputs = line["probabilities"].as_array().unwrap().clone();
        outputs.into_iter().map(|output| output.as_f64().unwrap() as f32)
    });
    let outputs: Vec<_> = outputs.collect();
    let pixels = unpacked(&images);
    let pixels: Vec<_> = pixels[pixels.len() - 10_000 * PIXELS..].iter().copied().map(f32::from).collect();
    expect(&home.path("article"), &pixels, &outputs, 10_000);

    compare(&home, &["article"]);
}

fn unpacked(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).expect("the file is there");
    std::io::copy(&mut flate2::read::GzDecoder::new(file), &mut bytes).expect("it can be unpacked");
    bytes
}

/// A job with these layers, for tables of this many columns.
fn job(layers: Vec<Layer>, loss: Loss) -> Job {
    let mut job = Job { name: "table".into(), layers, ..Job::default() };
    job.data.scale = 0.7;
    job.compile.loss = loss;
    job
}

#[test]
fn others_compute_the_same_with_every_activation_and_normalised_inputs() {
    let home = Home::new();
    let dense = |units, activation| Layer::dense(units, activation);
    let mut names = Vec::new();
    for &activation in Activation::ALL.iter().filter(|activation| activation.fits_hidden_layers()) {
        let layers = vec![dense(24, activation), Layer::Dropout { rate: 0.3 }, dense(5, Activation::Softmax)];
        let classes = job(layers, Loss::CategoricalCrossentropy);
        names.push(export(&home, activation.name(), &classes, Target::Class { classes: 5 }));
    }
    let layers = vec![dense(24, Activation::Tanh), dense(3, Activation::Linear)];
    let reals = job(layers, Loss::MeanSquaredError);
    names.push(export(&home, "regression", &reals, Target::Reals { width: 3 }));
    let without_bias = Layer::Dense(Dense { use_bias: false, ..Dense::new(16, Activation::Relu) });
    let normalized = Layer::LayerNormalization(LayerNormalization { epsilon: 0.01, trainable: true });
    let layers = vec![normalized, without_bias, normalized, dense(5, Activation::Softmax)];
    let classes = job(layers, Loss::CategoricalCrossentropy);
    names.push(export(&home, "layer_normalization", &classes, Target::Class { classes: 5 }));

    compare(&home, &names);
}

const COLUMNS: usize = 12;
const SAMPLES: usize = 500;

/// Writes a model with random parameters into a directory, in every format, with what this program computes with it.
fn export<'n>(home: &Home, name: &'n str, job: &Job, target: Target) -> &'n str {
    let model = Model::new(COLUMNS, &job.layers);
    let mut parameters = vec![0.0; model.parameter_count()];
    random::uniform(1, 0, 0.7, &mut parameters);
    // Columns with means and widths of their own; the first is far from zero.
    let normalization = Normalizer {
        offset: (0..COLUMNS).map(|column| 1000.0 / (column + 1) as f32).collect(),
        divisor: (0..COLUMNS).map(|column| 0.3 * (column + 1) as f32).collect(),
    };
    let mut inputs = vec![0.0; SAMPLES * COLUMNS];
    random::uniform(2, 0, 3.0, &mut inputs);
    let each = |row: &mut [f32], change: fn(f32, f32, f32) -> f32| {
        for ((value, offset), divisor) in
            row.iter_mut().zip(&normalization.offset).zip(&normalization.divisor)
        {
            *value = change(*value, *offset, *divisor);
        }
    };
    inputs.chunks_mut(COLUMNS).for_each(|row| each(row, |x, offset, divisor| x * divisor + offset));
    let mut normalised = inputs.clone();
    normalised.chunks_mut(COLUMNS).for_each(|row| each(row, |x, offset, divisor| (x - offset) / divisor));

    let schema = Schema::new(Features { element: Element::F32, shape: vec![COLUMNS as u32] }, target);
    let spec = job.spec(schema, Sizes { train: 0, validation: 0, test: 0 });
    let learner = Learner { model: &model, spec: &spec, parameters: &parameters };
    let stored: Vec<u8> = normalised.iter().flat_map(|value| value.to_le_bytes()).collect();
    let outputs = learner.outputs(&stored, &mut Scratch::default());

    let directory = home.path(name);
    fs::create_dir(&directory).expect("directories can be made");
    expect(&directory, &inputs, &outputs, SAMPLES);
    let exported = Exported {
        normalization: Some(normalization),
        feature_names: (0..COLUMNS).map(|column| format!("column {column}")).collect(),
        class_names: (0..model.outputs()).map(|class| format!("größe {class}")).collect(),
        ..Exported::new(job, &model, &parameters, "none".into())
    };
    for (format, ending) in ExportFormat::value_variants().iter().zip(FORMATS) {
        let file = exported.encode(*format).expect("it can be encoded");
        fs::write(directory.join(format!("model.{ending}")), file).expect(WRITTEN);
    }
    name
}

#[test]
fn a_file_is_written_whole_and_replaced_only_if_asked() {
    let home = Home::small();
    home.coordinator("train small.toml --workers 1 --epochs 1 --run-dir run").succeeds();
    for format in FORMATS {
        let export = format!("export run --format {format} --output out/model");
        let error = home.coordinator(&export).fails(3);
        assert!(error.starts_with("out/model: cannot be written: No such file or directory"), "{error}");
        fs::create_dir(home.path("out")).unwrap();

        let said = home.coordinator(&export).succeeds().stdout;
        let first = fs::read(home.path("out/model")).unwrap();
        assert_eq!(said, format!("out/model: the model of run, {} bytes\n", first.len()));

        home.write("out/model", "mine");
        let error = home.coordinator(&export).fails(3);
        assert!(error.starts_with("out/model: there is a file already (--overwrite replaces it"), "{error}");
        assert_eq!(fs::read(home.path("out/model")).unwrap(), b"mine");
        home.coordinator(&format!("{export} --overwrite")).succeeds();
        assert_eq!(fs::read(home.path("out/model")).unwrap(), first, "the same run gives the same bytes");

        assert_eq!(fs::read_dir(home.path("out")).unwrap().count(), 1, "no temporary file is left");
        fs::remove_dir_all(home.path("out")).unwrap();
    }
}

#[test]
fn what_is_no_file_or_a_runs_is_not_replaced() {
    let home = Home::small();
    home.coordinator("train small.toml --workers 1 --epochs 1 --run-dir run").succeeds();
    for output in ["run/model.safetensors", "run/new.npz", "run/plots/history.svg"] {
        let error =
            home.coordinator(&format!("export run --format npz --output {output} --overwrite")).fails(3);
        assert_eq!(
            error,
            format!("{output}: is in a run directory, where only the run writes (name another --output)")
        );
    }
    for output in ["run", "/dev/null"] {
        let error =
            home.coordinator(&format!("export run --format npz --output {output} --overwrite")).fails(3);
        assert_eq!(error, format!("{output}: is no file to write to (name another --output)"));
    }
}

#[test]
fn a_run_that_is_not_done_is_not_exported() {
    let home = Home::small();
    home.coordinator("train small.toml --workers 1 --epochs 2 --run-dir run").succeeds();
    for file in ["receipt.json", "run.json"] {
        fs::remove_file(home.path("run").join(file)).unwrap();
    }
    let error = home.coordinator("export run --format onnx --output model.onnx").fails(3);
    assert!(
        error.starts_with("run: the job is not done (coordinator train --run-dir run --resume"),
        "{error}"
    );
    assert!(!home.path("model.onnx").exists());

    let error = home.coordinator("export nowhere --format onnx --output model.onnx").fails(3);
    assert!(error.starts_with("nowhere: there is no such run directory"), "{error}");
    let error = home.coordinator("export run --format onxn --output model.onnx").fails(2);
    assert!(error.contains("onnx") && error.contains("--format"), "{error}");
}
