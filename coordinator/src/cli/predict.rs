//! `coordinator predict`: a saved model's predictions for images.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use millefeuille_core::data::NamedFile;
use millefeuille_core::data::formats::idx::file::{self, Idx, Kind};
use millefeuille_core::data::schema::{Features, Schema};
use millefeuille_core::data::split::Sizes;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::Job;
use millefeuille_core::learn::model::Model;
use millefeuille_core::learn::piece::{EVALUATION_ROWS, Learner, Scratch};
use millefeuille_core::learn::spec::Spec;
use millefeuille_program::kernel;
use millefeuille_program::process::exit;
use serde::Serialize;

use super::saved::{self, own_kernel};
use super::{Failed, Result, columns, ink, print, say};
use crate::input;
use crate::report::class;
use crate::runs::SavedRun;
use crate::see::digits::{self, Tile};
use crate::see::format::{self, Format};
use crate::see::picture::{self, Grey, PictureError, Size};

/// Predict the class of images with a saved model, without training
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator predict runs/article-1 seven.png
  coordinator predict runs/article-1 data/mnist/t10k-images-idx3-ubyte.gz --json

A PNG or JPEG may have any size and colour, shadows, ruled lines and a frame, and
shows one digit: it is made grey, light on dark, cropped to the digit, scaled and
centred by mass in an image of the model's size, as MNIST's digits were (20 x 20
in 28 x 28). Files that cannot be used are named on standard error, the others
predicted all the same; the exit code is then 3.")]
pub(super) struct Args {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// PNG, JPEG or IDX files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Take PNG and JPEG files of the model's size as they are
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
    class: u32,
    probabilities: &'a [f32],
}

/// The images of one file.
struct Images {
    file: String,
    size: Size,
    pixels: Vec<u8>,
}

/// What a model takes as an image.
#[derive(Clone, Copy)]
struct Inputs {
    pixels: usize,
    /// Whether pictures of this size are taken as they are.
    raw: bool,
}

impl Inputs {
    /// The size that a picture is fitted to. A model knows its number of inputs only, and images are square as a rule.
    fn size(self) -> Result<Size, String> {
        let side = self.pixels.isqrt();
        let size = Size { rows: side, columns: side };
        let other =
            || format!("{}, which are no square image (give an IDX file of its own images)", self.taken());
        (size.pixels() == self.pixels).then_some(size).ok_or_else(other)
    }

    /// The images as they are, if they have as many pixels as the model takes.
    fn check(self, images: Images) -> Result<Images, Failure> {
        let Size { rows, columns } = images.size;
        if images.size.pixels() == self.pixels {
            return Ok(images);
        }
        let taken = match self.size() {
            Ok(Size { rows, columns }) => format!("the model takes images of {rows}×{columns}"),
            Err(_) => self.taken(),
        };
        let what = format!(
            "images of {rows}×{columns} pixels, but {taken} (give images of the size that it was trained with)"
        );
        Err(Failure::at(FailureKind::Data, images.file, what))
    }

    fn taken(self) -> String {
        format!("the model takes {} values", self.pixels)
    }
}

pub(super) fn run(args: Args) -> Result {
    let run = SavedRun::open(&args.run)?;
    let job = run.job()?;
    own_kernel(&job)?;
    let inputs = run.inputs(&job)?;
    let spec = spec_of_images(&job, inputs)?;
    kernel::is_right_for(&of_images(&spec))?;
    let inputs = inputs as usize;
    let model = Model::new(inputs, &spec.layers);
    let parameters = saved::parameters(&run, &model)?;
    let learner = Learner { model: &model, spec: &spec, parameters: &parameters };
    let mut refused = false;
    for path in &args.files {
        match read(path, Inputs { pixels: inputs, raw: args.raw }) {
            Ok(images) => predict(&images, &learner, args.json),
            Err(failure) => {
                say(&failure);
                refused = true;
            }
        }
    }
    if refused { Err(Failed::silently(exit::DATA)) } else { Ok(()) }
}

/// The job for images with this many pixels.
fn spec_of_images(job: &Job, inputs: u32) -> Result<Spec> {
    let unfit = || Failed::new(FailureKind::Data, "the model was not trained with images".to_string());
    let target = job.data.source.target().ok_or_else(unfit)?;
    let schema = Schema { features: Features::image(1, inputs as usize), target };
    Ok(job.spec(schema, Sizes { train: 0, validation: 0, test: 0 }))
}

/// The shapes of predictions: of full chunks, and of a single image.
fn of_images(spec: &Spec) -> Spec {
    let sizes = Sizes { train: 0, validation: 0, test: EVALUATION_ROWS as u32 + 1 };
    Spec { shards: 1, sizes, ..spec.clone() }
}

fn predict(images: &Images, learner: &Learner<'_>, json: bool) {
    const AT_ONCE: usize = 1000;
    let inputs = images.size.pixels();
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
                && let Some(grey) = Grey::new(images.size.columns, images.size.rows, picture.to_vec())
            {
                tiles.push(Tile::labelled(grey, class));
            }
        }
    }
    if !json {
        print(&digits::terminal(&tiles, columns(), ink()));
    }
}

/// Maximum number of images shown per file.
const SHOWN: usize = 10;

fn line(images: &Images, index: usize, class: u32, probabilities: &[f32]) -> String {
    let share = probabilities.get(class as usize).copied().unwrap_or(0.0) * 100.0;
    format!("{} [{index}]: {class} ({share:.1} %)\n", images.file)
}

fn read(path: &Path, inputs: Inputs) -> Result<Images, Failure> {
    let wrong = |what: String| Failure::at(FailureKind::Data, path.display(), what);
    let file = path.display().to_string();
    let bytes = input::read(path, worth_reading)?;
    match format::of(&bytes) {
        Format::Picture => {
            let size = inputs.size().map_err(wrong)?;
            let pixels = read_picture(&bytes, size, inputs.raw).map_err(|error| wrong(error.to_string()))?;
            Ok(Images { file, size, pixels })
        }
        Format::Idx => {
            let idx = Idx::decode(NamedFile { name: file.clone(), bytes: bytes.into() }, Kind::Images);
            let Idx { dims, values, .. } =
                idx.map_err(|error| Failure::new(FailureKind::Data, error.to_string()))?;
            // A row of values is shown to nobody, but predicted as an image is.
            let [rows, columns] = if let [_, columns] = dims[..] { [1, columns] } else { [dims[1], dims[2]] };
            inputs.check(Images { file, size: Size { rows, columns }, pixels: values })
        }
        Format::Empty => {
            Err(wrong("the file is empty (give a PNG or a JPEG, or an IDX file of images)".to_string()))
        }
        Format::Other(what) => Err(wrong(format!(
            "{what}, but only PNG, JPEG and IDX files of images are read (save it as PNG)"
        ))),
    }
}

fn read_picture(bytes: &[u8], size: Size, raw: bool) -> Result<Vec<u8>, PictureError> {
    let grey = picture::read(bytes)?;
    if raw { picture::raw(grey, size) } else { picture::fitted(&grey, size) }
}

/// How many bytes of a file are worth reading, by its first bytes.
fn worth_reading(start: &[u8]) -> u64 {
    match format::of(start) {
        Format::Picture => picture::MAX_FILE_BYTES,
        Format::Idx => file::worth_reading(start, Kind::Images),
        Format::Empty | Format::Other(_) => start.len() as u64,
    }
}
