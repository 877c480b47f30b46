//! Jobs that begin with the parameters of a file: whole, or some layers of it; and are resumed and verified without it.

use millefeuille_tests::home::Home;
use safetensors::SafeTensors;

/// The small job with `[init]`, and layers as `change` leaves them.
fn job(name: &str, init: &str, change: impl FnOnce(String) -> String) -> String {
    let small = millefeuille_tests::data::small_job_as(name, 3);
    let (before, layers) = small.split_once("[[layers]]").expect("the job has layers");
    format!("{before}[init]\n{init}\n\n[[layers]]{}", change(layers.to_string()))
}

/// A tensor of a run's model.
fn tensor(home: &Home, run: &str, name: &str) -> Vec<u8> {
    let bytes = std::fs::read(home.path(run).join("model.safetensors")).expect("the run is done");
    let file = SafeTensors::deserialize(&bytes).expect("a model is safetensors");
    file.tensor(name).expect("the layer is there").data().to_vec()
}

/// A home with a trained run, `first`.
fn home() -> Home {
    let home = Home::small();
    home.coordinator("train small.toml --workers 1 --epochs 2 --run-dir first").succeeds();
    home
}

#[test]
fn a_job_begins_where_another_ended_with_the_same_bits_on_any_cluster() {
    let home = home();
    home.write("run.toml", job("more", "from = \"first\"", |layers| layers));
    home.write("file.toml", job("more", "from = \"first/model.safetensors\"", |layers| layers));
    home.coordinator("train run.toml --workers 1 --run-dir one").succeeds();
    home.coordinator("train file.toml --workers 3 --run-dir three").succeeds();
    assert_eq!(home.run("one").hash(), home.run("three").hash());
    let loss = |run: &str, epoch: usize| home.run(run).history()[epoch]["loss"].as_f64().unwrap();
    assert!(loss("one", 0) < loss("first", 1), "it begins with what was learned");
    assert_eq!(home.run("one").receipt()["job_sha256"], home.run("three").receipt()["job_sha256"]);

    // What the run began with may go: it has a copy.
    std::fs::remove_dir_all(home.path("first")).unwrap();
    home.coordinator("verify one").succeeds();
    home.coordinator("train --run-dir three --resume --epochs 4").succeeds();
    home.coordinator("verify three").succeeds();
    let error = home.coordinator("train run.toml --workers 1 --run-dir again").fails(3);
    assert!(error.contains("init.from = ") && error.contains("there is no such file"), "{error}");
    assert!(!home.path("again").exists(), "nothing is begun");
}

#[test]
fn another_file_is_another_job() {
    let home = home();
    home.write("more.toml", job("more", "from = \"first\"", |layers| layers));
    home.coordinator("train more.toml --workers 1 --run-dir one").succeeds();
    home.coordinator("train small.toml --workers 1 --epochs 2 --seed 9 --run-dir first --overwrite")
        .succeeds();
    home.coordinator("train more.toml --workers 1 --run-dir two").succeeds();
    assert_ne!(home.run("one").receipt()["job_sha256"], home.run("two").receipt()["job_sha256"]);
    assert_ne!(home.run("one").hash(), home.run("two").hash());
    // A copy that is not the run's own is found.
    std::fs::copy(home.path("two/init.safetensors"), home.path("one/init.safetensors")).unwrap();
    home.coordinator("verify one --quick").fails(7);
}

#[test]
fn frozen_layers_keep_what_they_were_given() {
    let home = home();
    let frozen = |layers: String| layers.replacen("activation", "trainable = false\nactivation", 1);
    home.write("frozen.toml", job("frozen", "from = \"first\"\nlayers = [\"dense\"]", frozen));
    home.coordinator("train frozen.toml --workers 2 --run-dir frozen").succeeds();
    for name in ["dense/kernel", "dense/bias"] {
        assert_eq!(tensor(&home, "frozen", name), tensor(&home, "first", name), "{name}");
    }
    assert_ne!(tensor(&home, "frozen", "dense_1/kernel"), tensor(&home, "first", "dense_1/kernel"));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let home = home();
    let train = |init: &str, change: &dyn Fn(String) -> String| {
        home.write("bad.toml", job("bad", init, change));
        home.coordinator("train bad.toml --workers 1 --run-dir bad --overwrite")
    };
    let same = |layers: String| layers;
    let wider = |layers: String| layers.replacen("units = ", "units = 1", 1);
    let error = train("from = \"first\"", &wider).fails(3);
    assert!(error.contains("model.safetensors: dense/kernel is F32 ["), "{error}");
    assert!(
        error.contains("and the job's is F32 [") && error.contains("leave dense out of init.layers"),
        "{error}"
    );
    let deeper =
        |layers: String| format!("\ntype = \"dense\"\nunits = 8\nactivation = \"relu\"\n[[layers]]{layers}");
    let error = train("from = \"first\"\nlayers = [\"dense_2\"]", &deeper).fails(3);
    assert!(error.contains("has no tensor dense_2/kernel, which the job begins with"), "{error}");
    let error = train("from = \"first\"\nlayers = [\"dens\"]", &same).fails(2);
    assert!(
        error.contains("layers[0]") && error.contains("no layer with parameters; did you mean `dense`?"),
        "{error}"
    );
    home.write("garbage.safetensors", "no tensors");
    let error = train("from = \"garbage.safetensors\"", &same).fails(3);
    assert!(error.contains("garbage.safetensors: not a safetensors file"), "{error}");
    let error = train("from = \".\"", &same).fails(3);
    assert!(error.contains("there is no such file (give a safetensors file"), "{error}");
}
