//! Jobs: reading, flags, checks, writing and hashes.

#[path = "words/schema.rs"]
mod schema;

use std::path::PathBuf;

use millefeuille_core::data::schema::Target;
use millefeuille_core::job::{
    Activation, BlasKernel, Fit, Job, Layer, Loss, Optimizer, Overrides, POSITIVE, Source, Stopping,
    parse_scale, parse_whole,
};
use millefeuille_core::text;
use proptest::prelude::*;

const ARTICLE: &str = include_str!("../../jobs/article.toml");

fn error(text: &str) -> String {
    Job::parse("job.toml", text).expect_err(text).to_string()
}

fn error_of_flags(file: Option<&str>, flags: &Overrides) -> String {
    Job::resolve(file.map(|text| ("job.toml", text)), flags).expect_err("flags").to_string()
}

/// What a schema can't know: rules of more than one key, and what TOML tells apart and JSON does not.
const BEYOND_A_SCHEMA: &[&str] = &[
    "a directory already",
    "a float, expected a whole number",
    "batch_size × replicas",
    "cannot be dropout",
    "give the output layer",
    "has no such option",
    "invisible",
    "only the output layer",
    "parameters are too many",
    "there is no validation split",
    "clipped in one way",
    "have no classes",
    "no layer with parameters",
    "have no weights",
    "leave out one of them",
];

fn assert_errors(table: &[(&str, &str)]) {
    for (text, expected) in table {
        let is_beyond = BEYOND_A_SCHEMA.iter().any(|rule| expected.contains(rule));
        assert_eq!(schema::accepts(text), is_beyond, "for the job file\n{text}");
    }
    for (text, expected) in table {
        assert_eq!(error(text), *expected, "for the job file\n{text}");
    }
}

// ---- reading

#[test]
fn the_written_out_article_is_the_default() {
    assert_eq!(Job::parse("article.toml", ARTICLE), Ok(Job::default()));
    assert_eq!(Job::parse("empty.toml", ""), Ok(Job::default()));
    assert_eq!(Job::resolve(None, &Overrides::default()), Ok(Job::default()));
    assert_eq!(Job::default().validate(), Ok(()));
}

#[test]
fn the_written_out_article_has_every_key() {
    let keys = |text: &str| -> Vec<String> {
        let lines =
            text.lines().map(|line| line.split(['=', '#']).next().unwrap_or_default().trim().to_owned());
        lines.filter(|line| !line.is_empty()).collect()
    };
    assert_eq!(keys(ARTICLE), keys(&Job::default().to_toml()));
}

#[test]
fn the_article_has_235_146_parameters_and_batches_of_500() {
    assert_eq!(Job::default().parameters(784), 235_146);
    assert_eq!(Job::default().batch(), 500);
    let job = Job::parse("job.toml", "replicas = 4").unwrap();
    assert_eq!((job.fit.batch_size, job.batch()), (500, 2000));
}

#[test]
fn a_file_changes_what_it_names() {
    let text = r#"
        seed = 18446744073709551615
        data = { source = "data/own", scale = "1/255" }
        compile.optimizer.learning_rate = 1
        [[layers]]
        type = "dense"
        units = 10
        activation = "softmax"
    "#;
    let mut expected = Job { seed: u64::MAX, ..Job::default() };
    expected.data.source = Source::Path(PathBuf::from("data/own"));
    expected.data.scale = 1.0 / 255.0;
    expected.compile.optimizer = Optimizer::sgd(1.0);
    expected.layers = vec![Layer::dense(10, Activation::Softmax)];
    assert_eq!(Job::parse("job.toml", text), Ok(expected));
}

#[test]
fn numbers_are_read_as_written() {
    let scale = |text: &str| Job::parse("job.toml", &format!("data.scale = {text}")).unwrap().data.scale;
    assert_eq!(scale("2"), 2.0);
    assert_eq!(scale("0x10"), 16.0);
    assert_eq!(scale("1_000.5"), 1000.5);
    assert_eq!(scale("-1e-3"), -0.001);
    // Nearest to f32's own tie only by way of f64: a second rounding would give 1.0.
    assert_eq!(scale("1.00000005960464477539062500001"), 1.0 + f32::EPSILON);
    assert_eq!(parse_scale("1/255"), Ok(1.0 / 255.0));
    assert_eq!(parse_scale(" 1 / 3 "), Ok(1.0 / 3.0));
    assert!(parse_scale("1/255/2").is_err() && parse_scale("").is_err() && parse_scale("/").is_err());
}

#[test]
fn a_flag_overrides_the_file() {
    let flags = Overrides {
        name: Some("mine".to_owned()),
        seed: Some(7),
        shards: Some(3),
        replicas: Some(2),
        blas_kernel: Some(BlasKernel::Named("Haswell".to_owned())),
        data: Some("somewhere".to_owned()),
        scale: Some(0.5),
        validation_split: Some(0.0),
        learning_rate: Some(0.25),
        batch_size: Some(10),
        epochs: Some(1),
        shuffle: Some(false),
        set: Vec::new(),
        places: [].into(),
    };
    // The invalid value in the file is replaced before it is checked.
    let job = Job::resolve(Some(("job.toml", "shards = 0\n[fit]\nbatch_size = 0")), &flags).unwrap();
    let mut expected = Job {
        name: "mine".to_owned(),
        seed: 7,
        shards: 3,
        replicas: 2,
        blas_kernel: BlasKernel::Named("Haswell".to_owned()),
        fit: Fit { batch_size: 10, epochs: 1, shuffle: false, accumulate: 1, stopping: Stopping::default() },
        ..Job::default()
    };
    expected.data.source = Source::Path(PathBuf::from("somewhere"));
    expected.data.scale = 0.5;
    expected.data.validation_split = 0.0;
    expected.compile.optimizer = Optimizer::sgd(0.25);
    assert_eq!(job, expected);
}

#[test]
fn names_are_read_as_they_are_written() {
    assert!(Activation::ALL.iter().all(|value| value.to_string().parse() == Ok(*value)));
    assert!(Loss::ALL.iter().all(|value| value.to_string().parse() == Ok(*value)));
    for text in ["native", "environment", "SkylakeX", "NEOVERSEN1"] {
        assert_eq!(text.parse::<BlasKernel>().unwrap().to_string(), text);
    }
    for text in ["mnist", "./mnist", "data/mnist"] {
        assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
    }
    let listed: Vec<String> = Job::default().layers.iter().map(ToString::to_string).collect();
    assert_eq!(listed, ["dense 256 sigmoid", "dense 128 sigmoid", "dropout 0.5", "dense 10 softmax"]);
    assert_eq!(Job::default().compile.optimizer.to_string(), "sgd 0.1");
    assert_eq!(
        "swish".parse::<Activation>().unwrap_err().to_string(),
        "unknown activation; known activations: gelu, leaky_relu, linear, relu, sigmoid, silu, softmax, tanh"
    );
    assert_eq!(
        "Softmax".parse::<Activation>().unwrap_err().to_string(),
        "unknown activation; did you mean `softmax`?"
    );
}

// ---- errors

#[test]
fn text_that_is_not_toml() {
    assert_errors(&[
        ("[fit\nepochs = 5", "job.toml:1: not TOML: unclosed table, expected `]`"),
        ("[fit]\nepochs 5", "job.toml:2: not TOML: key with no value, expected `=`"),
        ("[fit]\nepochs = 5\nepochs = 6", "job.toml:3: not TOML: duplicate key, at `epochs`"),
        ("[fit]\n\nshuffle = True", "job.toml:3: not TOML: invalid boolean, expected `true`, at `True`"),
        ("name = \"mine", "job.toml:1: not TOML: invalid basic string, expected `\"`"),
    ]);
    assert_eq!(
        error(&"#".repeat(65_537)),
        "job.toml: more than 65536 bytes, too many for a job file; is it another file?"
    );
}

#[test]
fn unknown_keys() {
    assert_errors(&[
        ("[fit]\nepoch = 5", "job.toml:2: unknown key `epoch` in [fit]; did you mean `epochs`?"),
        (
            "[fit]\n\nlr = 5",
            "job.toml:3: unknown key `lr` in [fit]; known keys: batch_size, epochs, shuffle, accumulate, early_stopping, stop_at",
        ),
        ("sharts = 5", "job.toml:1: unknown key `sharts` at the top; did you mean `shards`?"),
        ("epochs = 5", "job.toml:1: unknown key `epochs` at the top; it belongs in [fit]"),
        (
            "[fit]\nseed = 5",
            "job.toml:2: unknown key `seed` in [fit]; it belongs at the top, before the first [section]",
        ),
        (
            "[compile]\nlearning_rate = 5",
            "job.toml:2: unknown key `learning_rate` in [compile]; it belongs in [compile.optimizer]",
        ),
        (
            "[compile.optimizer]\nrho = 0.9",
            "job.toml:2: unknown key `rho` in [compile.optimizer]; known keys of sgd: type, learning_rate, momentum, nesterov, weight_decay, clipnorm, clipvalue, global_clipnorm",
        ),
        (
            "[training]\nepochs = 5",
            "job.toml:1: unknown key `training` at the top; known keys: name, seed, shards, replicas, \
             blas_kernel, data, layers, init, compile, fit",
        ),
        // The first in the file, not in the alphabet.
        (
            "[data]\nzoom = 1\nangle = 2",
            "job.toml:2: unknown key `zoom` in [data]; known keys: source, \
             format, target, drop, sample_weight, header, separator, missing, test, test_split, validation, \
             validation_split, shuffle_split, scale, normalize",
        ),
        (
            "\"a\\nb\" = 1",
            "job.toml:1: unknown key `a\\nb` at the top; known keys: name, seed, shards, replicas, \
             blas_kernel, data, layers, init, compile, fit",
        ),
    ]);
}

#[test]
fn wrong_types() {
    assert_errors(&[
        ("name = 2024-01-01", "job.toml:1: name = 2024-01-01: found a date, expected a string in quotes"),
        (
            "[fit]\nepochs = \"five\"",
            "job.toml:2: epochs = \"five\": found a string, expected a whole number",
        ),
        ("[fit]\nepochs = 5.0", "job.toml:2: epochs = 5.0: found a float, expected a whole number"),
        ("[fit]\nshuffle = 1", "job.toml:2: shuffle = 1: found an integer, expected true or false"),
        (
            "[data]\nscale = true",
            "job.toml:2: scale = true: found a boolean, expected a number or a fraction such as \"1/255\"",
        ),
        (
            "[data]\nvalidation_split = [0.2]",
            "job.toml:2: validation_split = [0.2]: found a list, expected a number",
        ),
        (
            "[compile.optimizer]\nlearning_rate = \"0.1\"",
            "job.toml:2: learning_rate = \"0.1\": found a string, expected a number",
        ),
        (
            "fit = 3",
            "job.toml:1: fit = 3: found an integer, expected a table with the keys batch_size, epochs, shuffle, accumulate, early_stopping, stop_at",
        ),
        (
            "[compile]\noptimizer = \"sgd\"",
            "job.toml:2: optimizer = \"sgd\": found a string, expected a table with the keys type, learning_rate, beta_1, beta_2, epsilon, clipnorm, clipvalue, global_clipnorm, weight_decay, rho, momentum, centered, nesterov",
        ),
        (
            "[compile]\nmetrics = \"accuracy\"",
            "job.toml:2: metrics = \"accuracy\": found a string, expected a list, such as [\"accuracy\"]",
        ),
        (
            "[layers]\ntype = \"dense\"",
            "job.toml:1: layers: found a table, expected a list of layers, each under a [[layers]] of its own",
        ),
        (
            "layers = [3]",
            "job.toml:1: layers[0] = 3: found an integer, expected a table with the keys type, …",
        ),
    ]);
}

#[test]
fn numbers_out_of_range() {
    assert_errors(&[
        ("seed = -1", "job.toml:1: seed = -1: too small; give a whole number of at least 0"),
        (
            "seed = 18446744073709551616",
            "job.toml:1: seed = 18446744073709551616: too large; give a whole number from 0 to 18446744073709551615",
        ),
        ("shards = 0", "job.toml:1: shards = 0: too small; give a whole number from 1 to 1024"),
        ("shards = 1025", "job.toml:1: shards = 1025: too large; give a whole number from 1 to 1024"),
        ("replicas = 0", "job.toml:1: replicas = 0: too small; give a whole number of at least 1"),
        (
            "replicas = 10_000_000",
            "job.toml:1: replicas = 10_000_000: batch_size × replicas is 500 × 10000000 = 5000000000; \
             lower one of them, to 4294967295 at most in all",
        ),
        ("[fit]\nbatch_size = 0", "job.toml:2: batch_size = 0: too small; give a whole number of at least 1"),
        (
            "[fit]\nbatch_size = -5",
            "job.toml:2: batch_size = -5: too small; give a whole number of at least 1",
        ),
        (
            "[fit]\nepochs = 5_000_000_000",
            "job.toml:2: epochs = 5_000_000_000: too large; give a whole number from 1 to 4294967295",
        ),
        (
            "[fit]\nepochs = 500000000000000000000000000000000000000000",
            "job.toml:2: epochs = 500000000000000000000000000000000000000000: too large; \
             give a whole number from 1 to 4294967295",
        ),
    ]);
}

#[test]
fn floats_out_of_range() {
    for value in ["1.5", "1", "-0.1", "nan", "-nan", "inf"] {
        assert_eq!(
            error(&format!("[data]\nvalidation_split = {value}")),
            format!(
                "job.toml:2: validation_split = {value}: not a share; give at least 0 and less than 1, such as 0.2"
            )
        );
    }
    for value in ["nan", "0", "-0.0", "-1e-3", "inf", "1e400", "1e-60"] {
        assert_eq!(
            error(&format!("[compile.optimizer]\nlearning_rate = {value}")),
            format!(
                "job.toml:2: learning_rate = {value}: nothing can be learned at this rate; \
                 give a finite number above 0, such as 0.1 (what counts as one is about 1.2e-38 to 3.4e38)"
            )
        );
    }
    for value in ["0", "nan", "inf", "1e-60", "\"1/0\"", "\"0/0\"", "\"0/255\""] {
        assert_eq!(
            error(&format!("[data]\nscale = {value}")),
            format!(
                "job.toml:2: scale = {value}: inputs cannot be multiplied by this; \
                 give a finite number that is not 0, such as \"1/255\""
            )
        );
    }
    for value in ["1.0", "nan", "-0.5"] {
        assert_eq!(
            error(&format!("[[layers]]\ntype = \"dropout\"\nrate = {value}")),
            format!(
                "job.toml:3: rate = {value}: not a share of units to drop; \
                 give at least 0 and less than 1, such as 0.5"
            )
        );
    }
}

#[test]
fn unknown_names() {
    let bad_kernel =
        "not a kernel; give native, environment or the name of an OpenBLAS core, such as Haswell";
    assert_errors(&[
        (
            "name = \"\"",
            "job.toml:1: name = \"\": empty; it names the run directory, so give it a letter at least",
        ),
        (
            "name = \"a/b\"",
            "job.toml:1: name = \"a/b\": contains a slash; the name becomes the run directory's, so leave it out",
        ),
        (
            "name = \"..\"",
            "job.toml:1: name = \"..\": this is a directory already; the name becomes the run directory's, so give another",
        ),
        (
            "name = \"a\\u0007b\"",
            "job.toml:1: name = \"a\\u0007b\": contains a character that is invisible or controls how others are shown; leave it out",
        ),
        ("blas_kernel = \"sky lake\"", &format!("job.toml:1: blas_kernel = \"sky lake\": {bad_kernel}")),
        ("blas_kernel = \"\"", &format!("job.toml:1: blas_kernel = \"\": {bad_kernel}")),
        (
            "[data]\nsource = \"\"",
            "job.toml:2: source = \"\": empty; give \"mnist\" or the path of a file or directory",
        ),
        (
            "[data]\nscale = \"a third\"",
            "job.toml:2: scale = \"a third\": not a number; give one such as 0.5, or a fraction such as 1/255",
        ),
        (
            "[compile]\nloss = \"hinge\"",
            "job.toml:2: loss = \"hinge\": unknown loss; known losses: binary_crossentropy, categorical_crossentropy, huber, mean_absolute_error, mean_squared_error, sparse_categorical_crossentropy",
        ),
        (
            "[compile]\nloss = \"categorical_cross_entropy\"",
            "job.toml:2: loss = \"categorical_cross_entropy\": unknown loss; did you mean `categorical_crossentropy`?",
        ),
        (
            "[compile]\nmetrics = [\n  \"acc\",\n]",
            "job.toml:3: compile.metrics[0] = \"acc\": unknown metric; did you mean `accuracy`?",
        ),
        (
            "[compile]\nmetrics = [\"accuracy\", \"accuracy\"]",
            "job.toml:2: metrics = [\"accuracy\", \"accuracy\"]: accuracy is there twice; give each metric once",
        ),
        (
            "[compile.optimizer]\ntype = \"lion\"",
            "job.toml:2: type = \"lion\": unknown optimizer; known optimizers: adam, adamw, rmsprop, sgd",
        ),
    ]);
    let long = "x".repeat(65);
    assert_eq!(
        error(&format!("name = \"{long}\"")),
        format!("job.toml:1: name = \"{long}\": 65 bytes are too long for a name; give at most 64")
    );
}

#[test]
fn invalid_layers() {
    let output = "[[layers]]\ntype = \"dense\"\nunits = 10\nactivation = \"softmax\"\n";
    assert_errors(&[
        ("layers = []", "job.toml:1: layers = []: no layers; give at least a dense one, the output"),
        (
            "seed = 1\n[[layers]]\nunits = 3",
            "job.toml:2: layers[0]: its `type` is missing; give \"dense\", \"dropout\" or \"layer_normalization\"",
        ),
        (
            "[[layers]]\ntype = \"dense\"\nunits = 10",
            "job.toml:1: layers[0]: its `activation` is missing; its keys are type, units, activation, use_bias, kernel_initializer, kernel_regularizer, trainable",
        ),
        (
            "[[layers]]\ntype = \"dropout\"",
            "job.toml:1: layers[0]: its `rate` is missing; its keys are type, rate",
        ),
        (
            "[[layers]]\ntype = \"conv2d\"",
            "job.toml:2: type = \"conv2d\": unknown layer type; known types: dense, dropout, layer_normalization",
        ),
        (
            "[[layers]]\ntype = \"dense\"\nunits = 10\nrate = 0.5",
            "job.toml:4: unknown key `rate` in a dense layer; known keys: type, units, activation, use_bias, kernel_initializer, kernel_regularizer, trainable",
        ),
        (
            "[[layers]]\nrates = 0.5\ntype = \"dropout\"",
            "job.toml:2: unknown key `rates` in a dropout layer; did you mean `rate`?",
        ),
        (
            "[[layers]]\ntype = \"dense\"\nunits = 10\nactivation = \"swish\"",
            "job.toml:4: activation = \"swish\": unknown activation; known activations: gelu, leaky_relu, linear, relu, sigmoid, silu, softmax, tanh",
        ),
        (
            "[[layers]]\ntype = \"dense\"\nunits = 0\nactivation = \"sigmoid\"",
            "job.toml:3: units = 0: too small; give a whole number from 1 to 65536",
        ),
        (
            "[[layers]]\ntype = \"dense\"\nunits = 65537\nactivation = \"sigmoid\"",
            "job.toml:3: units = 65537: too large; give a whole number from 1 to 65536",
        ),
        (
            "[[layers]]\ntype = \"dense\"\nunits = 5\nactivation = \"sigmoid\"\n[[layers]]\ntype = \"dropout\"\nrate = 0.5",
            "job.toml:5: layers[1]: the last layer is the output and cannot be dropout; end with a dense layer",
        ),
        (
            &output.repeat(2),
            "job.toml:4: activation = \"softmax\": only the output layer, the last one, can have softmax; \
             use gelu, leaky_relu, linear, relu, sigmoid, silu, tanh here",
        ),
        (
            &output.replace("10", "12"),
            "job.toml:3: units = 12: the data has labels of 10 classes; give the output layer 10 units",
        ),
        (
            &output.replace("softmax", "sigmoid"),
            "job.toml:4: activation = \"sigmoid\": categorical_crossentropy needs probabilities; \
             give the output layer softmax",
        ),
        (
            &("[[layers]]\ntype = \"dense\"\nunits = 65536\nactivation = \"sigmoid\"\n".repeat(2) + output),
            "job.toml:1: layers: 4347133962 parameters are too many, 268435456 the most; use fewer units",
        ),
        (
            &("[[layers]]\ntype = \"dropout\"\nrate = 0.5\n".repeat(256) + output),
            "job.toml:1: layers: 257 layers are too many; give at most 256",
        ),
    ]);
}

/// A flag, and the expected error.
type Blame = (fn(&mut Overrides), &'static str);

#[test]
fn an_error_names_the_flag_of_the_value() {
    let with = |change: fn(&mut Overrides)| {
        let mut flags = Overrides::default();
        change(&mut flags);
        // The file has the key too, but the flag's value is the one that counts.
        error_of_flags(Some(ARTICLE), &flags)
    };
    let table: [Blame; 12] = [
        (|f| f.batch_size = Some(0), "--batch-size 0: too small; give a whole number of at least 1"),
        (|f| f.epochs = Some(0), "--epochs 0: too small; give a whole number of at least 1"),
        (|f| f.shards = Some(0), "--shards 0: too small; give a whole number from 1 to 1024"),
        (|f| f.replicas = Some(0), "--replicas 0: too small; give a whole number of at least 1"),
        (
            |f| f.learning_rate = Some(f32::NAN),
            "--learning-rate NaN: nothing can be learned at this rate; give a finite number above 0, such as 0.1 (what counts as one is about 1.2e-38 to 3.4e38)",
        ),
        (
            |f| f.validation_split = Some(1.5),
            "--validation-split 1.5: not a share; give at least 0 and less than 1, such as 0.2",
        ),
        (
            |f| f.scale = Some(0.0),
            "--scale 0: inputs cannot be multiplied by this; give a finite number that is not 0, such as \"1/255\"",
        ),
        (
            |f| f.name = Some(String::new()),
            "--name \"\": empty; it names the run directory, so give it a letter at least",
        ),
        (
            |f| f.name = Some("a\nb".to_owned()),
            "--name \"a\\nb\": contains a character that is invisible or controls how others are shown; leave it out",
        ),
        (
            |f| f.data = Some(String::new()),
            "--data \"\": empty; give \"mnist\" or the path of a file or directory",
        ),
        (
            |f| f.blas_kernel = Some(BlasKernel::Named("a b".to_owned())),
            "--blas-kernel \"a b\": not a kernel; give native, environment or the name of an OpenBLAS core, such as Haswell",
        ),
        (
            |f| f.replicas = Some(u32::MAX),
            "--replicas 4294967295: batch_size × replicas is 500 × 4294967295 = 2147483647500; \
             lower one of them, to 4294967295 at most in all",
        ),
    ];
    for (change, expected) in table {
        assert_eq!(with(change), expected);
    }
}

#[test]
fn an_error_of_a_job_without_flags_names_the_key() {
    let problem = |change: fn(&mut Job)| {
        let mut job = Job::default();
        change(&mut job);
        job.validate().unwrap_err().to_string()
    };
    assert_eq!(
        problem(|job| job.fit.batch_size = 0),
        "fit.batch_size = 0: too small; give a whole number of at least 1"
    );
    assert_eq!(
        problem(|job| job.layers[2] = Layer::Dropout { rate: 1.0 }),
        "layers[2].rate = 1: not a share of units to drop; give at least 0 and less than 1, such as 0.5"
    );
    assert_eq!(problem(|job| job.layers.clear()), "layers: no layers; give at least a dense one, the output");
    assert_eq!(
        problem(|job| job.data.source = Source::Path(PathBuf::from("mnist"))),
        "data.source = mnist: this means the built-in data; for a directory of that name give ./mnist"
    );
    assert!(problem(|job| job.blas_kernel = BlasKernel::Named("native".to_owned())).contains("not a kernel"));
    assert_eq!(
        Job::default().check_target(Target::Class { classes: 7 }).unwrap_err().to_string(),
        "layers[3].units = 10: the data has labels of 7 classes; give the output layer 7 units"
    );
    assert_eq!(Job::default().check_target(Target::Class { classes: 10 }), Ok(()));
}

// ---- writing

fn layers() -> impl Strategy<Value = Vec<Layer>> {
    let hidden = prop_oneof![
        (1..=400u32).prop_map(|units| Layer::dense(units, Activation::Sigmoid)),
        (0.0f32..1.0).prop_map(|rate| Layer::Dropout { rate }),
    ];
    prop::collection::vec(hidden, 0..6).prop_map(|mut layers| {
        layers.push(Layer::dense(10, Activation::Softmax));
        layers
    })
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![Just("mnist".to_owned()), "[^\\p{C}]{1,40}", "[\"'\\\\ #=\\[\\]]{1,20}"]
        .prop_filter_map("a path that can be shown", |text| text.parse().ok())
}

fn kernel() -> impl Strategy<Value = BlasKernel> {
    prop_oneof![Just("native".to_owned()), Just("environment".to_owned()), "[A-Za-z0-9_]{1,64}"]
        .prop_map(|text| text.parse().expect("a valid name"))
}

prop_compose! {
    fn valid_job()(
        name in "[^/\\p{Cc}]{1,16}".prop_filter("a directory that can be shown", |name| {
            name != "." && name != ".." && !name.contains(text::is_hidden)
        }),
        seed in any::<u64>(),
        (shards, replicas, batch_size, epochs) in (1..=1024u32, 1..=60_000u32, 1..=60_000u32, 1..=u32::MAX),
        blas_kernel in kernel(),
        source in source(),
        scale in any::<f32>().prop_filter("no scale", |scale| scale.is_normal()),
        validation_split in 0.0f64..1.0,
        layers in layers(),
        learning_rate in prop::num::f32::POSITIVE,
        with_accuracy in any::<bool>(),
        shuffle in any::<bool>(),
    ) -> Job {
        let mut job = Job { name, seed, shards, replicas, blas_kernel, layers, ..Job::default() };
        job.data.source = source;
        job.data.scale = scale;
        job.data.validation_split = validation_split;
        job.compile.optimizer = Optimizer::sgd(learning_rate.clamp(f32::MIN_POSITIVE, f32::MAX));
        job.compile.metrics.truncate(usize::from(with_accuracy));
        job.fit = Fit { batch_size, epochs, shuffle, accumulate: 1, stopping: Stopping::default() };
        job
    }
}

proptest! {
    #[test]
    fn a_written_job_reads_back_as_itself(job in valid_job()) {
        prop_assert_eq!(job.validate(), Ok(()));
        let text = job.to_toml();
        let back = Job::parse("job.toml", &text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert!(schema::accepts(&text), "editors take it: {}", text);
        prop_assert_eq!(back.to_toml(), text);
        prop_assert!(job.differences(&back).is_empty());
        prop_assert_eq!(back, job);
    }

    #[test]
    fn no_text_makes_it_panic_or_answer_in_two_lines(text in "([a-z]{1,6}|[\\[\\]={}.,\"'\n #]|[-0-9]{1,3}){0,60}|\\PC{0,200}") {
        if let Err(error) = Job::parse("job.toml", &text) {
            prop_assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}

#[test]
fn the_default_written_out() {
    let expected = r#"name = "article"
seed = 42
shards = 8
replicas = 1
blas_kernel = "native"

[data]
source = "mnist"
scale = 1.0
validation_split = 0.2

[[layers]]
type = "dense"
units = 256
activation = "sigmoid"

[[layers]]
type = "dense"
units = 128
activation = "sigmoid"

[[layers]]
type = "dropout"
rate = 0.5

[[layers]]
type = "dense"
units = 10
activation = "softmax"

[compile]
loss = "categorical_crossentropy"
metrics = ["accuracy"]

[compile.optimizer]
type = "sgd"
learning_rate = 0.1

[fit]
batch_size = 500
epochs = 5
shuffle = true
"#;
    assert_eq!(Job::default().to_toml(), expected);
}

// ---- hashes and differences

fn sha256(job: &Job) -> String {
    job.sha256(&["aa".to_owned(), "bb".to_owned()], "SkylakeX")
}

/// Made from the documented text by the `sha256sum` tool. Another value means other receipts for the same job.
#[test]
fn the_articles_hash_is_golden() {
    assert_eq!(sha256(&Job::default()), "943e530981ab9d044738b87233274170cdc4b3fbe5b3bf0bcf8d04dbe236b3bc");
}

#[test]
fn what_determines_the_numbers_is_hashed() {
    let changes: [fn(&mut Job); 13] = [
        |job| job.seed += 1,
        |job| job.shards += 1,
        |job| job.replicas += 1,
        |job| job.data.scale = 1.0 / 255.0,
        |job| job.data.validation_split = 0.1,
        |job| job.layers[0] = Layer::dense(255, Activation::Sigmoid),
        |job| job.layers[0] = Layer::dense(256, Activation::Softmax),
        |job| job.layers[2] = Layer::Dropout { rate: 0.25 },
        |job| job.layers.swap(0, 1),
        |job| job.compile.optimizer = Optimizer::sgd(0.01),
        |job| job.fit.batch_size += 1,
        |job| job.fit.epochs += 1,
        |job| job.fit.shuffle = false,
    ];
    let mut hashes = vec![sha256(&Job::default())];
    for change in changes {
        let mut job = Job::default();
        change(&mut job);
        hashes.push(sha256(&job));
    }
    let data = |hashes: &[&str]| hashes.iter().map(ToString::to_string).collect::<Vec<_>>();
    hashes.push(Job::default().sha256(&data(&["aa", "bb"]), "Haswell"));
    hashes.push(Job::default().sha256(&data(&["bb", "aa"]), "SkylakeX"));
    hashes.push(Job::default().sha256(&data(&["aa\ndata bb"]), "SkylakeX"));
    hashes.push(Job::default().sha256(&data(&[r"aa\ndata bb"]), "SkylakeX"));
    hashes.push(Job::default().sha256(&[], "SkylakeX"));
    let count = hashes.len();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), count);
}

#[test]
fn what_does_not_determine_the_numbers_is_not_hashed() {
    let changes: [fn(&mut Job); 6] = [
        |job| job.name = "mine".to_owned(),
        |job| job.data.source = Source::Path(PathBuf::from("elsewhere")),
        |job| job.compile.metrics.clear(),
        |job| job.blas_kernel = BlasKernel::Named("SkylakeX".to_owned()),
        |job| (job.replicas, job.fit.batch_size) = (4, 125),
        |job| job.data.scale = 1.0,
    ];
    for change in changes {
        let mut job = Job::default();
        change(&mut job);
        assert_eq!(sha256(&job), sha256(&Job::default()));
    }
    let with_split = |validation_split| {
        let mut job = Job::default();
        job.data.validation_split = validation_split;
        job
    };
    assert_eq!(sha256(&with_split(-0.0)), sha256(&with_split(0.0)));
}

#[test]
fn differences_name_their_keys() {
    let ours = Job::default();
    let mut theirs = ours.clone();
    assert!(ours.differences(&theirs).is_empty());

    theirs.fit.epochs = 6;
    theirs.data.source = Source::Path(PathBuf::from("own"));
    theirs.compile.optimizer = Optimizer::sgd(0.01);
    theirs.layers[0] = Layer::dense(64, Activation::Sigmoid);
    assert_eq!(
        ours.differences(&theirs),
        [
            "data.source: \"mnist\" → \"own\"",
            "compile.optimizer.learning_rate: 0.1 → 0.01",
            "fit.epochs: 5 → 6",
            "layers[0]: dense 256 sigmoid → dense 64 sigmoid",
        ]
    );

    theirs = Job { layers: ours.layers[1..].to_vec(), ..ours.clone() };
    assert_eq!(
        ours.differences(&theirs),
        ["layers: dense 256 sigmoid, dense 128 sigmoid, dropout 0.5, dense 10 softmax \
          → dense 128 sigmoid, dropout 0.5, dense 10 softmax"]
    );
}

#[test]
fn an_invalid_value_is_named_as_it_was_given() {
    let given = |flag: &str, place: &str| {
        let places = [(flag.to_owned(), place.to_owned())].into();
        let learning_rate = (flag == "--learning-rate").then_some(0.0);
        let epochs = (flag == "--epochs").then_some(0);
        error_of_flags(None, &Overrides { learning_rate, epochs, places, ..Overrides::default() })
    };
    assert!(given("--learning-rate", "--learning-rate 1e-50").starts_with("--learning-rate 1e-50: nothing"));
    assert!(given("--epochs", "MILLEFEUILLE_EPOCHS=0").starts_with("MILLEFEUILLE_EPOCHS=0: too small"));
    assert!(given("--epochs", "--epochs 00").starts_with("--epochs 00: too small"));
}

#[test]
fn whole_numbers_of_flags_are_those_of_the_file() {
    let error = |text: &str| parse_whole(text, POSITIVE).unwrap_err().to_string();
    assert_eq!(parse_whole("4294967295", POSITIVE), Ok(u32::MAX));
    assert_eq!(parse_whole("+7", POSITIVE), Ok(7));
    assert_eq!(
        parse_whole("0", POSITIVE),
        Ok(0),
        "the job's own check refuses it, and knows where it stands"
    );
    assert_eq!(error("-1"), "too small; give a whole number of at least 1");
    for huge in ["4294967296", "99999999999999999999999999999999999999999999999999"] {
        assert_eq!(error(huge), "too large; give a whole number from 1 to 4294967295", "{huge}");
    }
    for none in ["", "-", "1.5", "1e3", "many", "--seed", "1_000", " 1"] {
        assert!(error(none).starts_with("not a whole number; "), "{none}");
    }
    assert_eq!(
        parse_whole("-1", 0..=u64::MAX).unwrap_err().to_string(),
        "too small; give a whole number of at least 0"
    );
}

#[test]
fn an_optimizer_has_the_keys_and_the_defaults_of_its_kind() {
    let job = |text: &str| Job::parse("job.toml", text);
    let adam = job("[compile.optimizer]\nbeta_1 = 0.8\ntype = \"adam\"").unwrap();
    let settings: Vec<_> =
        adam.compile.optimizer.stated().map(|(key, value)| format!("{} {value}", key.name)).collect();
    assert_eq!(settings, ["learning_rate 0.001", "beta_1 0.8", "beta_2 0.999", "epsilon 0.0000001"]);
    assert_eq!(Job::parse("again", &adam.to_toml()).as_ref(), Ok(&adam));
    assert_ne!(adam.sha256(&[], "Haswell"), Job::default().sha256(&[], "Haswell"));
    assert_eq!(
        job("[compile.optimizer]\ntype = \"adam\"\nbeta_2 = 1.0").unwrap_err().to_string(),
        "job.toml:3: beta_2 = 1.0: not a share; give at least 0 and less than 1, such as 0.9"
    );
    assert_eq!(
        job("[compile.optimizer]\ntype = \"adam\"\nbeta3 = 1.0").unwrap_err().to_string(),
        "job.toml:3: unknown key `beta3` in [compile.optimizer]; did you mean `beta_2`?"
    );
}

#[test]
fn a_loss_reports_its_requirements_of_layers_and_data() {
    let mse = "[[layers]]\ntype = \"dense\"\nunits = 1\nactivation = \"linear\"\n[compile]\nloss = \"mse\"\nmetrics = []";
    assert_eq!(
        Job::parse("job.toml", mse).unwrap_err().to_string(),
        "job.toml:6: loss = \"mse\": mean_squared_error needs targets that are numbers, and the data has labels of 10 classes; \
         give categorical_crossentropy (an output of 10 softmax units) or sparse_categorical_crossentropy (an output of 10 \
         softmax units)"
    );
    assert_eq!(
        Job::parse("job.toml", "[compile]\nloss = \"mse\"").unwrap_err().to_string(),
        "job.toml:2: loss = \"mse\": mean_squared_error needs targets that are numbers, and the data has labels of 10 classes; \
         give categorical_crossentropy (an output of 10 softmax units) or sparse_categorical_crossentropy (an output of 10 \
         softmax units)"
    );
}

#[test]
fn optimizers_of_different_kinds_differ_key_by_key() {
    let job = |text: &str| Job::parse("job.toml", text).unwrap();
    let (sgd, adam) = (job(""), job("[compile.optimizer]\ntype = \"adam\"\n[fit]\nepochs = 6"));
    assert_eq!(
        sgd.differences(&adam),
        [
            "compile.optimizer.type: \"sgd\" → \"adam\"",
            "compile.optimizer.learning_rate: 0.1 → 0.001",
            "fit.epochs: 5 → 6",
            "compile.optimizer.beta_1: none → 0.9",
            "compile.optimizer.beta_2: none → 0.999",
            "compile.optimizer.epsilon: none → 1e-7",
        ]
    );
    assert!(adam.differences(&sgd).contains(&"compile.optimizer.beta_1: 0.9 → none".to_string()));
}

#[test]
fn a_subnormal_setting_is_refused() {
    for text in [
        "[compile.optimizer]\nlearning_rate = 1e-40",
        "[compile.optimizer]\ntype = \"adam\"\nepsilon = 1e-39",
        "[data]\nscale = 1e-40",
    ] {
        assert!(Job::parse("job.toml", text).is_err(), "{text}");
    }
    assert!(Job::parse("job.toml", "[compile.optimizer]\nlearning_rate = 1.2e-38").is_ok());
}

#[test]
fn optional_settings_of_an_optimizer_are_written_and_part_of_the_identity_once_they_are_used() {
    let text = "[compile.optimizer]\nmomentum = 0.9\nnesterov = true\n";
    let job = Job::parse("job.toml", text).unwrap();
    let optimizer = job.compile.optimizer;
    let used =
        ["learning_rate", "momentum", "nesterov", "weight_decay"].map(|key| optimizer.get(key).unwrap());
    assert_eq!(used, [0.1, 0.9, 1.0, 0.0]);
    assert_eq!(optimizer.to_string(), "sgd 0.1 momentum 0.9 nesterov 1");
    let written = job.to_toml();
    assert!(
        written.contains("momentum = 0.9\nnesterov = true\n") && !written.contains("weight_decay"),
        "{written}"
    );
    assert_eq!(Job::parse("job.toml", &written).unwrap(), job);
    let plain = Job::default();
    assert!(!plain.to_toml().contains("momentum"));
    assert_ne!(job.sha256(&[], "Zen"), plain.sha256(&[], "Zen"));
    assert_eq!(
        plain.differences(&job),
        ["compile.optimizer.momentum: none → 0.9", "compile.optimizer.nesterov: none → true"]
    );

    let wrong = Job::parse("job.toml", "[compile.optimizer]\nnesterov = 1").unwrap_err().to_string();
    assert_eq!(wrong, "job.toml:2: nesterov = 1: found an integer, expected true or false");
    let wrong = Job::parse("job.toml", "[compile.optimizer]\nmomentum = 1").unwrap_err().to_string();
    assert_eq!(wrong, "job.toml:2: momentum = 1: not a share; give at least 0 and less than 1, such as 0.9");
}

// ---- --set

fn with_set(file: Option<&str>, given: &[&str]) -> Result<Job, String> {
    let set = given.iter().map(ToString::to_string).collect();
    let file = file.map(|text| ("job.toml", text));
    Job::resolve(file, &Overrides { set, ..Overrides::default() }).map_err(|error| error.to_string())
}

#[test]
fn every_key_can_be_set_by_a_flag() {
    let job = with_set(
        Some("fit.epochs = 3"),
        &[
            "fit.epochs=7",
            "compile.optimizer.type=adam",
            "compile.optimizer.beta_1 = 0.5",
            "name=mine",
            "data.scale=1/255",
            "compile.metrics=[]",
            "layers[0].units=64",
            "layers[1].activation=relu",
            "fit = { batch_size = 9, shuffle = false }",
        ],
    )
    .unwrap();
    assert_eq!((job.fit.epochs, job.fit.batch_size, job.fit.shuffle), (7, 9, false));
    assert_eq!(job.compile.optimizer.to_string(), "adam 0.001 0.5 0.999 0.0000001");
    assert_eq!((&*job.name, job.data.scale, job.compile.metrics.len()), ("mine", 1.0 / 255.0, 0));
    assert_eq!(job.layers[0].to_string(), "dense 64 sigmoid");
    assert_eq!(job.layers[1].to_string(), "dense 128 relu");
}

#[test]
fn a_flag_of_its_own_wins_over_set() {
    let flags = Overrides { epochs: Some(2), set: vec!["fit.epochs=9".into()], ..Overrides::default() };
    assert_eq!(Job::resolve(None, &flags).unwrap().fit.epochs, 2);
}

#[test]
fn an_error_of_set_names_it() {
    let error = |given: &str| with_set(Some("fit.epochs = 3"), &[given]).unwrap_err();
    assert_eq!(
        error("fit.epoch=5"),
        "--set fit.epoch=5: unknown key `epoch` in [fit]; did you mean `epochs`?"
    );
    assert_eq!(error("fit.epochs=0"), "--set fit.epochs=0: too small; give a whole number of at least 1");
    assert_eq!(error("fit.epochs=many"), "--set fit.epochs=many: found a string, expected a whole number");
    assert_eq!(
        error("fit.epochs"),
        "--set fit.epochs: no value; give KEY=VALUE, such as fit.epochs=10 or layers[0].units=64"
    );
    assert_eq!(
        error("layers[9].units=5"),
        "--set layers[9].units=5: there is no such layer; the job has 4, from layers[0] to layers[3]"
    );
    assert_eq!(
        error("layers[0].unit=5"),
        "--set layers[0].unit=5: unknown key `unit` in a dense layer; did you mean `units`?"
    );
    assert!(error("=5").starts_with("--set =5: "));
    assert!(error("a b=\n[fit]").starts_with("--set \"a b=\\n[fit]\": "));
    assert_eq!(
        error("layers[3].activation=linear"),
        "--set layers[3].activation=linear: categorical_crossentropy needs probabilities; give the output layer softmax"
    );
}

// ---- options of losses

#[test]
fn options_of_a_loss_are_written_and_part_of_the_identity_once_they_are_used() {
    let job = |text: &str| Job::parse("job.toml", text);
    let smoothed = job("compile.label_smoothing = 0.1").unwrap();
    assert_eq!(smoothed.compile.options.label_smoothing, 0.1);
    assert!(smoothed.to_toml().contains("loss = \"categorical_crossentropy\"\nlabel_smoothing = 0.1\n"));
    assert_eq!(Job::parse("again", &smoothed.to_toml()).as_ref(), Ok(&smoothed));
    assert_ne!(sha256(&smoothed), sha256(&Job::default()));
    assert_eq!(sha256(&job("compile.label_smoothing = 0.0").unwrap()), sha256(&Job::default()));
    assert_eq!(Job::default().differences(&smoothed), ["compile.label_smoothing: none → 0.1"]);
    assert_errors(&[
        (
            "compile.label_smoothing = 1.0",
            "job.toml:1: label_smoothing = 1.0: not a share; give at least 0 and less than 1, such as 0.1",
        ),
        (
            "compile.delta = 2.0",
            "job.toml:1: delta = 2.0: categorical_crossentropy has no such option; leave it out, or use huber",
        ),
        (
            "[compile]\nloss = \"sparse_categorical_crossentropy\"\nlabel_smoothing = 0.2",
            "job.toml:3: label_smoothing = 0.2: sparse_categorical_crossentropy has no such option; leave it out, or use \
             binary_crossentropy or categorical_crossentropy",
        ),
    ]);
}

#[test]
fn what_does_not_fit_the_targets_gets_what_to_write_instead() {
    let of_target = |loss, units, activation, target| {
        let mut job = Job::default();
        job.compile.metrics.clear();
        job.compile.loss = loss;
        job.layers = vec![Layer::dense(units, activation)];
        job.check_target(target).map_err(|error| error.to_string())
    };
    use Activation::{Linear, Sigmoid, Softmax};
    let two = Target::Class { classes: 2 };
    assert_eq!(of_target(Loss::BinaryCrossentropy, 1, Sigmoid, two), Ok(()));
    assert_eq!(of_target(Loss::BinaryCrossentropy, 3, Sigmoid, Target::Reals { width: 3 }), Ok(()));
    assert_eq!(of_target(Loss::SparseCategoricalCrossentropy, 2, Softmax, two), Ok(()));
    assert_eq!(of_target(Loss::Huber, 1, Linear, Target::Reals { width: 1 }), Ok(()));
    assert_eq!(
        of_target(Loss::BinaryCrossentropy, 2, Sigmoid, two),
        Err("layers[0].units = 2: the data has labels of 2 classes, for which binary_crossentropy needs 1 unit; give the \
             output layer 1"
            .to_string())
    );
    assert_eq!(
        of_target(Loss::BinaryCrossentropy, 1, Sigmoid, Target::Class { classes: 3 }),
        Err("compile.loss = \"binary_crossentropy\": binary_crossentropy needs targets of two classes, or numbers from 0 \
             to 1, and the data has labels of 3 classes; give categorical_crossentropy (an output of 3 softmax units) or \
             sparse_categorical_crossentropy (an output of 3 softmax units)"
            .to_string())
    );
    assert_eq!(
        of_target(Loss::BinaryCrossentropy, 1, Softmax, two).unwrap_err(),
        "layers[0].activation = \"softmax\": binary_crossentropy needs a probability for each label; give the output \
         layer sigmoid"
    );
}

// ---- layers, schedules and steps beyond the article

fn reads_back(job: &Job) {
    let text = job.to_toml();
    assert!(schema::accepts(&text), "{text}");
    assert_eq!(Job::parse("again", &text).as_ref(), Ok(job), "{text}");
    assert_ne!(sha256(job), sha256(&Job::default()));
}

#[test]
fn options_of_layers_are_read_written_and_hashed() {
    let output = "[[layers]]\ntype = \"dense\"\nunits = 10\nactivation = \"softmax\"\n";
    let job = |layer: &str| Job::parse("job.toml", &format!("[[layers]]\n{layer}\n{output}"));
    let dense = "type = \"dense\"\nunits = 5\nactivation = \"relu\"\n";
    let options = [
        ("use_bias = false", "dense 5 relu without bias"),
        ("kernel_initializer = \"he_normal\"", "dense 5 relu he_normal"),
        ("kernel_regularizer = { l2 = 0.01 }", "dense 5 relu l2 0.01"),
        ("kernel_regularizer = { l1 = 0.5, l2 = 0.25 }", "dense 5 relu l1 0.5 l2 0.25"),
        ("trainable = false", "dense 5 relu frozen"),
    ];
    let mut hashes = std::collections::BTreeSet::new();
    for (option, shown) in options {
        let job = job(&format!("{dense}{option}")).unwrap();
        assert_eq!(job.layers[0].to_string(), shown);
        reads_back(&job);
        hashes.insert(sha256(&job));
    }
    for (option, shown) in [
        ("", "layer_normalization 0.001"),
        ("epsilon = 0.1\ntrainable = false", "layer_normalization 0.1 frozen"),
    ] {
        let job = job(&format!("type = \"layer_normalization\"\n{option}")).unwrap();
        assert_eq!(job.layers[0].to_string(), shown);
        reads_back(&job);
        hashes.insert(sha256(&job));
    }
    hashes.insert(sha256(&job(dense).unwrap()));
    assert_eq!(hashes.len(), options.len() + 3);

    let error = |layer: &str| job(layer).unwrap_err().to_string();
    assert_eq!(
        error(&format!("{dense}kernel_regularizer = 0.1")),
        "job.toml:5: kernel_regularizer = 0.1: found a float, expected a table with the keys l1, l2"
    );
    assert_eq!(
        error(&format!("{dense}kernel_regularizer = {{ l3 = 0.1 }}")),
        "job.toml:5: unknown key `l3` in a kernel_regularizer; known keys: l1, l2"
    );
    assert_eq!(
        error(&format!("{dense}kernel_regularizer = {{ l1 = -0.1 }}")),
        "job.toml:5: l1 = -0.1: not a factor of a penalty; give a finite number of at least 0, such as 0.01"
    );
    assert_eq!(
        error(&format!("{dense}kernel_initializer = \"he\"")),
        "job.toml:5: kernel_initializer = \"he\": unknown initializer; known initializers: glorot_normal, \
         glorot_uniform, he_normal, he_uniform, lecun_normal, lecun_uniform, zeros"
    );
    assert_eq!(
        error("type = \"layer_normalization\"\nepsilon = 0"),
        "job.toml:3: epsilon = 0: nothing to divide by safely; give a finite number above 0, such as 0.001"
    );
    assert_eq!(
        Job::parse("job.toml", &format!("{output}trainable = false")).unwrap_err().to_string(),
        "job.toml:1: layers: no layer learns; leave out a `trainable = false`"
    );
}

#[test]
fn schedules_are_read_written_and_hashed() {
    let job = |text: &str| Job::parse("job.toml", &format!("[compile.schedule]\n{text}"));
    let schedules = [
        ("warmup_steps = 100", "constant warmup_steps 100"),
        ("type = \"step\"\nevery = 50", "step every 50"),
        (
            "type = \"exponential\"\ndecay_steps = 10\ndecay_rate = 0.96\nstaircase = true",
            "exponential decay_steps 10 decay_rate 0.96 staircase 1",
        ),
        (
            "type = \"cosine\"\ndecay_steps = 480\nalpha = 0.1\nwarmup_steps = 96",
            "cosine decay_steps 480 alpha 0.1 warmup_steps 96",
        ),
        ("type = \"one_cycle\"\ntotal_steps = 480", "one_cycle total_steps 480"),
        (
            "type = \"reduce_on_plateau\"\nmonitor = \"val_accuracy\"\npatience = 2",
            "reduce_on_plateau monitor val_accuracy patience 2",
        ),
    ];
    let mut hashes = std::collections::BTreeSet::new();
    for (text, shown) in schedules {
        let job = job(text).unwrap();
        assert_eq!(job.compile.schedule.to_string(), shown);
        reads_back(&job);
        hashes.insert(sha256(&job));
    }
    assert_eq!(hashes.len(), schedules.len());
    assert_eq!(job("type = \"constant\"").unwrap(), Job::default());

    let error = |text: &str| job(text).unwrap_err().to_string();
    assert_eq!(
        error("type = \"cosine\""),
        "job.toml:1: compile.schedule: cosine needs a value for `decay_steps`"
    );
    assert_eq!(
        error("type = \"cosine\"\ndecay_steps = 0"),
        "job.toml:3: decay_steps = 0: no steps; give at least 1"
    );
    assert_eq!(
        error("type = \"cosine\"\ndecay_step = 5"),
        "job.toml:3: unknown key `decay_step` in [compile.schedule]; did you mean `decay_steps`?"
    );
    assert_eq!(
        error("type = \"reduce_on_plateau\"\nmonitor = \"test_loss\""),
        "job.toml:3: monitor = \"test_loss\": a model chosen by the test set would no longer be tested by it; monitor the \
         validation split"
    );
    assert_eq!(
        error("type = \"reduce_on_plateau\"\n[data]\nvalidation_split = 0.0"),
        "compile.schedule.monitor = \"val_loss\": there is no validation split; raise data.validation_split, or give \
         \"loss\""
    );
    assert_eq!(
        error("type = \"reduce_on_plateau\"\nmonitor = \"accuracy\"\n[compile]\nmetrics = []"),
        "job.toml:3: monitor = \"accuracy\": the job does not count it; add \"accuracy\" to compile.metrics"
    );
}

#[test]
fn gradients_are_clipped_in_one_way_and_accumulated_over_some_batches() {
    let job = |text: &str| Job::parse("job.toml", text);
    for text in
        ["compile.optimizer.clipnorm = 1.0", "fit.accumulate = 4", "compile.optimizer.type = \"rmsprop\""]
    {
        reads_back(&job(text).unwrap());
    }
    assert_errors(&[
        (
            "[compile.optimizer]\nclipnorm = 1.0\nclipvalue = 0.5",
            "job.toml:3: clipvalue = 0.5: gradients are clipped in one way, as in Keras, and clipnorm is there, too; \
             leave one out",
        ),
        (
            "compile.optimizer.global_clipnorm = -1.0",
            "job.toml:1: global_clipnorm = -1.0: gradients cannot be clipped to this; give a finite number above 0, such \
             as 1.0",
        ),
        ("fit.accumulate = 0", "job.toml:1: accumulate = 0: too small; give a whole number of at least 1"),
    ]);
}

#[test]
fn rules_that_stop_a_job_are_read_written_and_hashed() {
    let job = |text: &str| Job::parse("job.toml", text);
    let early =
        job("[fit.early_stopping]\nmonitor = \"val_accuracy\"\npatience = 3\nrestore_best = true").unwrap();
    reads_back(&early);
    let text = early.to_toml();
    assert!(text.ends_with(
        "shuffle = true\n\n[fit.early_stopping]\nmonitor = \"val_accuracy\"\npatience = 3\nmin_delta = 0.0\nrestore_best = true\n"
    ), "{text}");
    let at = job("fit.stop_at = { metric = \"val_accuracy\", value = 0.97 }").unwrap();
    reads_back(&at);
    let both = job("[fit]\nstop_at = { metric = \"loss\", value = 0.1 }\n[fit.early_stopping]\npatience = 1")
        .unwrap();
    reads_back(&both);
    assert_errors(&[
        (
            "fit.stop_at = { metric = \"loss\" }",
            "job.toml:1: fit.stop_at: needs both, as in { metric = \"val_accuracy\", value = 0.97 }",
        ),
        (
            "[fit.early_stopping]\nmonitor = \"val_los\"",
            "job.toml:2: monitor = \"val_los\": unknown figure; did you mean `val_loss`?",
        ),
        (
            "[fit.early_stopping]\npatients = 1",
            "job.toml:2: unknown key `patients` in [fit.early_stopping]; did you mean `patience`?",
        ),
        (
            "data.validation_split = 0.0\n[fit.early_stopping]\npatience = 1",
            "fit.early_stopping.monitor = \"val_loss\": there is no validation split; raise data.validation_split, or \
             give \"loss\"",
        ),
    ]);
    assert_eq!(
        with_set(None, &["fit.early_stopping.patience=2"]).unwrap().fit.stopping.early.unwrap().patience,
        2
    );
}

#[test]
fn first_parameters_are_read_written_and_part_of_the_identity() {
    let job = |text: &str| Job::parse("job.toml", text).unwrap();
    let (whole, some) =
        (job("init.from = \"a b\""), job("[init]\nfrom = \"a b\"\nlayers = [\"dense_1\", \"dense\"]"));
    let hash = |job: &Job| job.sha256(&["aa".into()], "Haswell");
    for job in [&whole, &some] {
        reads_back(job);
        assert_ne!(hash(job), hash(&Job::default()));
    }
    assert_ne!(hash(&whole), hash(&some));
    assert!(some.to_toml().contains("\n[init]\nfrom = \"a b\"\nlayers = [\"dense_1\", \"dense\"]\n"));
    // Where the file lies is no part of it: its own hash is.
    assert_eq!(hash(&job("init.from = \"elsewhere\"")), hash(&whole));
    assert_eq!(Job::default().differences(&whole), ["init.from: none → \"a b\""]);
    let set = with_set(Some("init.from = \"a\""), &["init.layers=[\"dense\"]"]).unwrap().init.unwrap();
    assert_eq!((set.from.to_str(), &set.layers[..]), (Some("a"), &["dense".to_string()][..]));
    assert_errors(&[
        (
            "init.layers = [\"dense\"]",
            "job.toml:1: init: its `from` is missing; give a safetensors file, or the directory of a run",
        ),
        ("init.from = \"\"", "job.toml:1: from = \"\": empty; give the path of a file or a directory"),
        (
            "[init]\nfrom = \"a\"\nlayers = [\"dropout\"]",
            "init.layers[0] = \"dropout\": no layer with parameters; known layers: dense, dense_1, dense_2",
        ),
    ]);
}

#[test]
fn weights_of_classes_are_read_written_and_part_of_the_identity() {
    let job = |text: &str| Job::parse("job.toml", text).unwrap();
    let weighted = job("[compile]\nclass_weight = { 0 = 2, \"a b\" = 0.5, yes = 1 }");
    let weights = [("0", 2.0), ("a b", 0.5), ("yes", 1.0)];
    assert!(
        weighted.compile.class_weight.iter().map(|(class, weight)| (class.as_str(), *weight)).eq(weights)
    );
    assert!(weighted.to_toml().contains("class_weight = { \"0\" = 2.0, \"a b\" = 0.5, \"yes\" = 1.0 }\n"));
    reads_back(&weighted);
    assert_ne!(sha256(&weighted), sha256(&Job::default()));
    assert_eq!(sha256(&job("compile.class_weight = {}")), sha256(&Job::default()));
    assert_eq!(with_set(None, &["compile.class_weight.3=2.5"]).unwrap().compile.class_weight["3"], 2.5);
    assert_errors(&[
        (
            "compile.class_weight = [1.0, 2.0]",
            "job.toml:1: class_weight = [1.0, 2.0]: found a list, expected a table of classes, such as { 0 = 1.0, 1 = 2.5 }",
        ),
        ("[compile.class_weight]\n0 = \"a\"", "job.toml:2: 0 = \"a\": found a string, expected a number"),
        (
            "[compile.class_weight]\n0 = -1.0",
            "job.toml:2: 0 = -1.0: not a weight; give a finite number of at least 0",
        ),
        (
            "[data]\nsource = \"a.csv\"\nsample_weight = \"w\"\n[compile]\nclass_weight = { 0 = 1.0 }",
            "job.toml:5: compile.class_weight: samples weigh by their classes or by data.sample_weight, as in Keras; \
             leave out one of them",
        ),
        (
            "[data]\nsource = \"a.csv\"\n[[layers]]\ntype = \"dense\"\nunits = 1\nactivation = \"linear\"\n[compile]\n\
             loss = \"mse\"\nmetrics = []\nclass_weight = { 0 = 1.0 }",
            "job.toml:10: compile.class_weight: mean_squared_error learns numbers, which have no classes; leave \
             class_weight out",
        ),
        (
            "data.sample_weight = \"w\"",
            "job.toml:1: sample_weight = \"w\": IDX files have no weights; leave it out, or give a table or an .npz",
        ),
    ]);
}

#[test]
fn every_key_of_the_data_reads_back_and_has_its_part_in_the_hash() {
    let base = "[data]\nsource = \"a.csv\"\n";
    let keys = [
        "target = [\"x\\\"y\", 3]",
        "drop = [0, \"c d\"]",
        "sample_weight = \"w\"",
        "sample_weight = 3",
        "header = false",
        "separator = \"\\t\"",
        "missing = \"mean\"",
        "test = \"t.csv\"",
        "test_split = 0.25",
        "validation = \"v.csv\"",
        "shuffle_split = 9",
        "normalize = \"standardize\"",
    ];
    let plain = Job::parse("job.toml", base).unwrap();
    let mut hashes = vec![plain.sha256(&[], "Haswell")];
    for key in keys {
        let job = Job::parse("job.toml", &format!("{base}{key}\n")).unwrap();
        assert_ne!(job, plain, "{key}");
        reads_back(&job);
        hashes.push(job.sha256(&[], "Haswell"));
    }
    let all = hashes.len();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), all, "each key changes the hash");
}
