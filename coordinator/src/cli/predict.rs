//! `coordinator predict`: a saved model's predictions for images and tables.

mod answers;

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use millefeuille_core::data::NamedFile;
use millefeuille_core::data::formats::DataFormat;
use millefeuille_core::data::formats::idx::file::{self, Idx, Kind};
use millefeuille_core::data::inputs::Inputs;
use millefeuille_core::data::part::{Part, RawFeatures};
use millefeuille_core::data::schema::{Schema, width};
use millefeuille_core::data::split::Sizes;
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::job::Job;
use millefeuille_core::learn::piece::{EVALUATION_ROWS, Learner, Scratch};
use millefeuille_core::learn::spec::Spec;
use millefeuille_program::kernel;
use millefeuille_program::process::exit;

use super::saved::{self, own_kernel};
use super::{Failed, Result, columns, ink, print, say};
use crate::input;
use crate::report::class;
use crate::runs::{SavedRun, TrainedModel};
use crate::see::digits::{self, Tile};
use crate::see::format::{self, Format};
use crate::see::picture::{self, Grey, PictureError, Size};
use answers::{Answers, Form};

/// Predict with a saved model, without training
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator predict runs/article-1 seven.png
  coordinator predict runs/article-1 data/mnist/t10k-images-idx3-ubyte.gz --json
  coordinator predict runs/houses-1 new-houses.csv --csv > prices.csv

Files are raw, as those to train on: what was fitted to these (categories, means,
normalisation) is saved with the model. A table needs no column to predict.

A PNG or JPEG may have any size and colour, shadows, ruled lines and a frame, and
shows one digit: it is made grey, light on dark, cropped to the digit, scaled and
centred by mass in an image of the model's size, as MNIST's digits were (20 x 20
in 28 x 28). Files that cannot be used are named on standard error, the others
predicted all the same; the exit code is then 3.")]
pub(super) struct Args {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Tables, or PNG, JPEG or IDX files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Take PNG and JPEG files of the model's size as they are
    #[arg(long)]
    raw: bool,
    /// Print a JSON object a line: file, index, and class, name and probabilities, or values
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print a table in CSV, with a row for each sample
    #[arg(long)]
    csv: bool,
}

/// The images of one file.
struct Images {
    file: String,
    size: Size,
    features: RawFeatures,
}

/// What a model takes as an image.
#[derive(Clone, Copy)]
struct Taken {
    pixels: usize,
    /// Whether pictures of this size are taken as they are.
    raw: bool,
}

impl Taken {
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
    let TrainedModel { inputs: width, described, shape: model, parameters } = saved::trained(&run, &job)?;
    let inputs = described.unwrap_or_else(|| Inputs { shape: vec![1, width], ..Inputs::default() });
    let features = inputs.features();
    let spec = job.spec(Schema::new(features, job.target()), Sizes { train: 0, validation: 0, test: 0 });
    kernel::is_right_for(&of_predictions(&spec))?;
    let learner = Learner { model: &model, spec: &spec, parameters: &parameters };
    let answers = Answers::new(&job, &inputs);
    let form = if args.csv {
        Form::Csv
    } else if args.json {
        Form::Json
    } else {
        Form::Text
    };
    if args.csv {
        print(&answers.header());
    }
    let mut refused = false;
    for path in &args.files {
        match read(path, &job, &inputs, args.raw) {
            Ok(samples) => predict(samples, &learner, &answers, form),
            Err(failure) => {
                say(&failure);
                refused = true;
            }
        }
    }
    if refused { Err(Failed::silently(exit::DATA)) } else { Ok(()) }
}

/// The shapes of predictions: of full chunks, and of a single sample.
fn of_predictions(spec: &Spec) -> Spec {
    let sizes = Sizes { train: 0, validation: 0, test: EVALUATION_ROWS as u32 + 1 };
    Spec { shards: 1, sizes, ..spec.clone() }
}

/// Samples of one file, encoded as the model takes them.
struct Samples {
    file: String,
    features: Vec<u8>,
    /// The size of each, if they are images to show.
    size: Option<Size>,
}

fn predict(samples: Samples, learner: &Learner<'_>, answers: &Answers<'_>, form: Form) {
    const AT_ONCE: usize = 1000;
    let Samples { file, features, size } = samples;
    let bytes = learner.spec.schema.features.bytes();
    let mut scratch = Scratch::default();
    let mut tiles = Vec::new();
    for (block, features) in features.chunks(AT_ONCE * bytes).enumerate() {
        let outputs = learner.outputs(features, &mut scratch);
        for (place, outputs) in outputs.chunks(learner.model.outputs()).enumerate() {
            print(&answers.line(&file, block * AT_ONCE + place, outputs, form));
            let picture = &features[place * bytes..][..bytes];
            if let Some(Size { rows, columns }) = size
                && tiles.len() < SHOWN
                && let Some(grey) = Grey::new(columns, rows, picture.to_vec())
            {
                tiles.push(Tile::labelled(grey, class(outputs)));
            }
        }
    }
    if form == Form::Text {
        print(&digits::terminal(&tiles, columns(), ink()));
    }
}

/// Maximum number of images shown per file.
const SHOWN: usize = 10;

fn read(path: &Path, job: &Job, inputs: &Inputs, raw: bool) -> Result<Samples, Failure> {
    let file = path.display().to_string();
    let format = job.data.format.unwrap_or_else(|| DataFormat::of(path));
    if !inputs.columns.is_empty() || format != DataFormat::Idx {
        let part = crate::data::read_to_predict(path, format, job, inputs)?;
        return Ok(Samples { file, features: inputs.encode(part)?, size: None });
    }
    let width = width(&inputs.shape);
    let Images { file, size, features } = read_images(path, Taken { pixels: width, raw })?;
    let shown = (!inputs.are_floats).then_some(size);
    let features = features.in_shape(inputs.shape.clone());
    let part = Part { name: file.clone(), len: 0, features, targets: None, weights: None };
    Ok(Samples { features: inputs.encode(part)?, file, size: shown })
}

fn read_images(path: &Path, inputs: Taken) -> Result<Images, Failure> {
    let wrong = |what: String| Failure::at(FailureKind::Data, path.display(), what);
    let file = path.display().to_string();
    let bytes = input::read(path, worth_reading)?;
    match format::of(&bytes) {
        Format::Picture => {
            let size = inputs.size().map_err(wrong)?;
            let pixels = read_picture(&bytes, size, inputs.raw).map_err(|error| wrong(error.to_string()))?;
            let shape = vec![size.rows as u32, size.columns as u32];
            Ok(Images { file, size, features: RawFeatures::Bytes { shape, values: pixels } })
        }
        Format::Idx => {
            let idx = Idx::decode(NamedFile { name: file.clone(), bytes: bytes.into() }, Kind::Images);
            let idx = idx.map_err(|error| Failure::new(FailureKind::Data, error.to_string()))?;
            // Rows of values, and images with channels, are shown to nobody, but predicted as images are.
            let size = match idx.dims[1..] {
                [rows, columns] => Size { rows, columns },
                ref sides => Size { rows: 1, columns: sides.iter().product() },
            };
            let features = idx.into_features(file.clone())?;
            inputs.check(Images { file, size, features })
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
