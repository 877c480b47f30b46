//! Other models than the article's: a wide one against its products alone, and Adam against plain SGD.
//!
//! - *Wide*: 784-2048-2048-10 with ReLU, one epoch, by one worker with two slots. The time of its fit is divided by that of its
//!   [`products`](crate::products), in which no thread waits for another.
//! - *Adam*: the article's fit with Adam divided by the same with SGD, by one worker with two slots. Nearly all
//!   samples train; the test set remains, a twentieth of the products.
//!
//! All four run in turn, round after round. The machine's speed changes by more than what is measured, so the ratio is
//! taken within each round.

use std::path::Path;

use crate::compare::{alone_for, fresh};
use crate::coordinator::{self, Call, Shape, beside_this_program};
use crate::fit::EPOCHS;
use crate::products::Products;
use crate::statistics::Summary;

/// Most of the products' time that the wide model's fit may take.
const WIDE_TARGET: f64 = 1.3;
/// Most of SGD's time that Adam's fit may take.
const ADAM_TARGET: f64 = 1.1;

const WIDE: &str = "layers=[{type=\"dense\",units=2048,activation=\"relu\"},{type=\"dense\",units=2048,activation=\"relu\"},\
                    {type=\"dense\",units=10,activation=\"softmax\"}]";
const ADAM: &str = "compile.optimizer.type=adam";

/// The times of a round, in seconds.
struct Round {
    products: f64,
    wide: f64,
    sgd: f64,
    adam: f64,
}

/// Measures so many rounds after one that warms up, and prints the ratios.
pub(crate) fn run(rounds: u32) -> anyhow::Result<()> {
    let binary = beside_this_program()?;
    let kernel = coordinator::kernel(&binary)?;
    round(&binary, &kernel)?;
    let mut measured = Vec::new();
    for number in 1..=rounds {
        let Round { products, wide, sgd, adam } = round(&binary, &kernel)?;
        eprintln!("round {number}: products {products:.2}, wide {wide:.2}, SGD {sgd:.2}, Adam {adam:.2} s");
        measured.push(Round { products, wide, sgd, adam });
    }
    let show = |what: &str, target: f64, ratio: fn(&Round) -> f64| {
        let Summary { median, min, max } = Summary::of(measured.iter().map(ratio));
        println!("{what}: {median:.3} ({min:.3}–{max:.3}), target {target}");
    };
    show("784-2048-2048-10, fit ÷ products alone", WIDE_TARGET, |round| round.wide / round.products);
    show("the article's fit, Adam ÷ SGD", ADAM_TARGET, |round| round.adam / round.sgd);
    Ok(())
}

fn round(binary: &Path, kernel: &str) -> anyhow::Result<Round> {
    let mut products = alone_for(1, "products", kernel)?;
    products.args(["--set", WIDE]);
    let Products { seconds: products, .. } = fresh(products)?;
    let fit = |epochs: u32, settings: &[&str]| {
        let call = Call { shape: Shape { workers: 1, slots: 2 }, epochs, settings };
        coordinator::train(binary, call).map(|trained| trained.fit.seconds)
    };
    let article = ["--validation-split", "0.001"];
    Ok(Round {
        products,
        // Pixels of 0 to 255 are too much for it.
        wide: fit(1, &["--scale", "1/255", "--set", WIDE])?,
        sgd: fit(EPOCHS, &article)?,
        adam: fit(EPOCHS, &[&article[..], &["--set", ADAM]].concat())?,
    })
}
