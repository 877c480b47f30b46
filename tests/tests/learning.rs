//! The promise, for every way to learn: optimizers, schedules, clipping, accumulated gradients, layers, losses.
//!
//! Each job is trained by one worker, by three, and by two with a crash of the coordinator in between; the weights are the same,
//! and `verify` computes them again.

use millefeuille_tests::home::Home;
use millefeuille_tests::process::Signal;

/// Trains on this machine. Returns the hash of the weights.
fn trained(home: &Home, name: &str, arguments: &str) -> String {
    home.coordinator(&format!("train {arguments} --run-dir {name}")).succeeds();
    home.run(name).hash()
}

/// Trains a job in each way. Returns the hash of its weights.
fn same_for_all(home: &Home, name: &str, options: &str) -> String {
    let job = format!("small.toml --epochs 6 --scale 1/255 {options}");
    let alone = trained(home, &format!("{name}-alone"), &format!("{job} --workers 1 --slots 2"));
    assert_eq!(trained(home, &format!("{name}-three"), &format!("{job} --workers 3")), alone, "{options}");

    let dies = format!("train {job} --run-dir {name}-dies --workers 2");
    let mut killed = home.coordinator(&format!("{dies} --checkpoint-interval 0.02")).start();
    killed.says("Epoch 3/");
    killed.signal(Signal::KILL);
    killed.wait();
    home.coordinator(&format!("{dies} --resume")).succeeds();
    assert_eq!(home.run(&format!("{name}-dies")).hash(), alone, "{options}");
    home.coordinator(&format!("verify {name}-dies")).succeeds();
    alone
}

fn all_same(cases: &[&str]) {
    let home = Home::new();
    home.small_job();
    let hashes: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(number, options)| same_for_all(&home, &format!("case-{number}"), options))
        .collect();
    let different: std::collections::BTreeSet<_> = hashes.iter().collect();
    assert_eq!(different.len(), cases.len(), "each option counts");
}

#[test]
fn optimizers_and_clipping_give_the_same_model_whatever_happens() {
    all_same(&[
        "--set compile.optimizer.type=rmsprop --set compile.optimizer.momentum=0.5 --set compile.optimizer.centered=true",
        "--set compile.optimizer.type=adamw --set compile.optimizer.clipnorm=0.01",
        "--set compile.optimizer.momentum=0.9 --set compile.optimizer.global_clipnorm=0.05",
        "--set compile.optimizer.clipvalue=0.001",
    ]);
}

#[test]
fn schedules_and_accumulated_gradients_give_the_same_model_whatever_happens() {
    let cosine = "--set compile.schedule={type='cosine',decay_steps=60,warmup_steps=7}";
    let plateau = "--set compile.schedule={type='reduce_on_plateau',patience=1,min_delta=0.5,factor=0.5}";
    all_same(&[
        cosine,
        plateau,
        "--set fit.accumulate=3",
        &format!("{cosine} --set fit.accumulate=5 --set compile.optimizer.type=adam"),
    ]);
}

#[test]
fn layers_and_losses_give_the_same_model_whatever_happens() {
    let layers = "--set layers=[{type='layer_normalization'},{type='dense',units=16,activation='gelu',use_bias=false,\
                  kernel_initializer='he_normal',kernel_regularizer={l1=0.001,l2=0.001}},\
                  {type='layer_normalization',trainable=false},{type='dropout',rate=0.25},\
                  {type='dense',units=10,activation='softmax'}]";
    all_same(&[
        layers,
        "--set layers[0].trainable=false --set compile.optimizer.type=adamw",
        "--set compile.label_smoothing=0.1",
    ]);
}

#[test]
fn accumulated_batches_are_like_one_larger_batch() {
    let home = Home::new();
    home.small_job();
    let losses = |name: &str, options: &str| {
        let job = format!("small.toml --set layers[1].rate=0.0 --shuffle false --scale 1/255 {options}");
        trained(&home, name, &format!("{job} --workers 1"));
        home.run(name).figures("val_loss")
    };
    // 1,602 training samples: a last step of two samples either way.
    let several = losses("several", "--batch-size 50 --set fit.accumulate=4");
    let one = losses("one", "--batch-size 200");
    for (several, one) in several.iter().zip(&one) {
        assert!((several - one).abs() < 1e-5 * one, "{several:?} and {one:?}");
    }
}
