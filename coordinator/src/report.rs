//! The images of a finished job: its history, its data, its predictions.

use millefeuille_core::data::shard::ShardStore;
use millefeuille_core::data::split::Split;
use millefeuille_core::learn::piece::{Learner, Scratch};
use millefeuille_core::learn::work::Workload;
use millefeuille_core::view::{EpochRow, Prediction};

use crate::see::digits::{self, Tile};
use crate::see::picture::Grey;
use crate::see::plots;

/// Number of images in a picture.
pub const PICTURED: u32 = 10;

/// A test image with its prediction and, if that is wrong, a mark.
pub fn tile(prediction: &Prediction) -> Option<Tile> {
    let (rows, columns) = prediction.image;
    let grey = Grey::new(columns, rows, prediction.pixels.clone())?;
    Some(Tile::predicted(grey, prediction.class, prediction.label))
}

/// The first test images with the model's predictions.
pub fn first_test_images(store: &ShardStore, workload: &Workload, parameters: &[f32]) -> Vec<Prediction> {
    let Some(image) = store.schema().features.rows_and_columns() else { return Vec::new() };
    let images = first_images(store, Split::Test);
    let pixels: Vec<u8> = images.iter().flat_map(|(pixels, _)| pixels.iter().copied()).collect();
    let learner = Learner { model: workload.model(), spec: workload.spec(), parameters };
    let outputs = learner.outputs(&pixels, &mut Scratch::default());
    let classes = outputs.chunks(workload.model().outputs()).map(class);
    let shown = |((pixels, label), class)| Prediction { image, pixels, label, class };
    images.into_iter().zip(classes).map(shown).collect()
}

/// The class with the largest output; the lowest class on a tie. One output alone is the probability of class 1.
pub fn class(outputs: &[f32]) -> u32 {
    if let [probability] = outputs {
        return u32::from(*probability > 0.5);
    }
    let best = outputs.iter().enumerate().rev().max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map_or(0, |(class, _)| class as u32)
}

/// A probability for each class. One output alone is that of class 1.
pub fn probabilities(outputs: &[f32]) -> Vec<f32> {
    match outputs {
        [probability] => vec![1.0 - probability, *probability],
        outputs => outputs.to_vec(),
    }
}

/// The first images of a split with their labels.
pub fn first_images(store: &ShardStore, split: Split) -> Vec<(Vec<u8>, u32)> {
    let target = store.schema().target;
    let sample =
        |index| store.sample(split, index).map(|(pixels, label)| (pixels.to_vec(), target.class(label)));
    (0..PICTURED).map_while(sample).collect()
}

/// The first training images with their labels.
pub fn first_training_tiles(store: &ShardStore) -> Vec<Tile> {
    let Some((rows, columns)) = store.schema().features.rows_and_columns() else { return Vec::new() };
    let tile = |(pixels, label)| Some(Tile::labelled(Grey::new(columns, rows, pixels)?, label));
    first_images(store, Split::Train).into_iter().filter_map(tile).collect()
}

/// The files of a run's `plots/`, by name.
pub fn pictures(history: &[EpochRow], store: &ShardStore, shown: &[Prediction]) -> Vec<(String, String)> {
    // Drawing to memory does not fail. If it ever should, the run must not be lost for it.
    let mut pictures = plots::plots(history).unwrap_or_default();
    pictures.push(("digits.svg".to_string(), digits::svg(&first_training_tiles(store))));
    let predictions: Vec<Tile> = shown.iter().filter_map(tile).collect();
    pictures.push(("predictions.svg".to_string(), digits::svg(&predictions)));
    pictures
}
