//! `coordinator predict`: what a saved model says about images.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use millefeuille_core::data::NamedFile;
use millefeuille_core::data::idx::{Idx, Kind};
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::piece::{Learner, Scratch};
use millefeuille_worker::process::exit;
use serde::Serialize;

use super::saved::own_kernel;
use super::{Failed, Result, columns, ink, print};
use crate::cluster::load;
use crate::report::class;
use crate::runs::SavedRun;
use crate::see::digits::{self, Tile};
use crate::see::picture::{self, Grey};

/// Predict the class of images with a saved model, without training
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator predict runs/article-1 seven.png
  coordinator predict runs/article-1 data/mnist/t10k-images-idx3-ubyte.gz --json

A PNG may have any size and colour: it is made grey, inverted if its border is light, cropped to its ink, scaled to
20 x 20 and centred by mass in 28 x 28, as MNIST's digits were.")]
pub(super) struct Args {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// PNG or IDX files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Take PNG files of 28 x 28 as they are
    #[arg(long)]
    raw: bool,
    /// Print a JSON object a line: file, index, class, probabilities
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Prediction<'a> {
    file: &'a str,
    index: usize,
    class: u8,
    probabilities: &'a [f32],
}

/// The images of one file.
struct Images {
    file: String,
    rows: usize,
    columns: usize,
    pixels: Vec<u8>,
}

impl Images {
    /// Whether the model takes images of this size.
    fn fit(&self, inputs: usize) -> Result {
        let Self { file, rows, columns, .. } = self;
        if rows * columns == inputs {
            return Ok(());
        }
        let message =
            format!("{file}: images of {rows}×{columns} pixels, but the model takes {inputs} values");
        Err(Failed::new(exit::DATA, message))
    }
}

pub(super) fn run(args: Args) -> Result {
    let run = SavedRun::open(&args.run)?;
    let job = run.job()?;
    own_kernel(&job)?;
    // Every file is checked before the first answer is given.
    let files = args.files.iter().map(|path| read(path, args.raw)).collect::<Result<Vec<_>>>()?;
    let inputs = run.inputs()?;
    files.iter().try_for_each(|images| images.fit(inputs))?;
    let spec = load::spec_for_inputs(&job, inputs as u32);
    let model = Model::new(inputs, &spec.layers);
    let parameters = run.parameters(&model)?;
    let learner = Learner { model: &model, spec: &spec, parameters: &parameters };
    files.iter().for_each(|images| predict(images, &learner, args.json));
    Ok(())
}

fn predict(images: &Images, learner: &Learner<'_>, json: bool) {
    const AT_ONCE: usize = 1000;
    let inputs = images.rows * images.columns;
    let mut scratch = Scratch::default();
    let mut tiles = Vec::new();
    for (block, pixels) in images.pixels.chunks(AT_ONCE * inputs).enumerate() {
        let outputs = learner.outputs(pixels, &mut scratch);
        for (place, probabilities) in outputs.chunks(learner.model.outputs()).enumerate() {
            let index = block * AT_ONCE + place;
            let class = class(probabilities);
            if json {
                let line = Prediction { file: &images.file, index, class, probabilities };
                print(&(serde_json::to_string(&line).unwrap_or_default() + "\n"));
            } else {
                print(&line(images, index, class, probabilities));
            }
            let picture = &pixels[place * inputs..][..inputs];
            if !json
                && tiles.len() < SHOWN
                && let Some(grey) = Grey::new(images.columns, images.rows, picture.to_vec())
            {
                tiles.push(Tile::labelled(grey, class));
            }
        }
    }
    if !json {
        print(&digits::terminal(&tiles, columns(), ink()));
    }
}

/// Pictures shown of one file.
const SHOWN: usize = 10;

fn line(images: &Images, index: usize, class: u8, probabilities: &[f32]) -> String {
    let share = probabilities.get(usize::from(class)).copied().unwrap_or(0.0) * 100.0;
    format!("{} [{index}]: {class} ({share:.1} %)\n", images.file)
}

fn read(path: &Path, raw: bool) -> Result<Images> {
    let file = path.display().to_string();
    let failed = |what: &dyn std::fmt::Display| Failed::new(exit::DATA, format!("{file}: {what}"));
    let bytes = std::fs::read(path).map_err(|error| failed(&format!("cannot be read: {error}")))?;
    if bytes.starts_with(b"\x89PNG") {
        let grey = picture::read_png(&bytes).map_err(|error| failed(&error))?;
        let prepared = if raw { picture::raw(&grey) } else { picture::to_mnist(&grey) };
        let pixels = prepared.map_err(|error| failed(&error))?;
        return Ok(Images { file, rows: picture::SIDE, columns: picture::SIDE, pixels: pixels.to_vec() });
    }
    let looks_like_idx = bytes.starts_with(&[0, 0]) || bytes.starts_with(&[0x1f, 0x8b]);
    if !looks_like_idx {
        return Err(failed(&"neither a PNG nor an IDX file of images"));
    }
    let idx = Idx::decode(NamedFile { name: file.clone(), bytes: bytes.into() }, Kind::Images);
    let Idx { dims, values, .. } = idx.map_err(|error| Failed::new(exit::DATA, error.to_string()))?;
    Ok(Images { file, rows: dims[1], columns: dims[2], pixels: values })
}
