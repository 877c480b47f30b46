//! Tells ink from paper: how much darker (or lighter) each pixel is than the paper around it.
//!
//! A stroke is narrow compared with the paper around it. A closing (Serra 1982, "Image Analysis and Mathematical Morphology")
//! fills what is narrower than its window and leaves the rest as it is, slopes included; so the closed image is the
//! paper alone, with its shadows, and the difference is ink. A shadow darkens paper and ink by the same factor: the
//! difference is divided by the paper's brightness.
//!
//! Whether the ink is dark or light is shown by what surrounds the digit: the border, or, if that is a frame or a
//! table, what is inside it.

use super::Grey;
use super::plane::{Bounds, Plane, quantile};

/// Images are reduced to this length of their longer side: enough for any digit that could be recognized, few enough pixels
/// for a camera's picture.
const WORKING_SIZE: usize = 600;

/// Paper is what is at least this share of the longer side wide.
const PAPER: f32 = 1.0 / 3.0;

/// From this length of the shorter side on, single pixels are noise rather than ink.
const CALMED: usize = 64;

/// The paper's brightness is taken as at least this, of 255: below, differences are noise.
const DARKEST_PAPER: f32 = 64.0;

/// A ring shows paper if this share of it is alike.
const ALIKE: f32 = 0.9;

/// The ink of each pixel, 0 to 255, at the working size; 0 where it is within the paper's noise.
pub(super) fn ink(image: &Grey) -> Plane<f32> {
    let image = reduced(image);
    let calmed = if image.width().min(image.height()) < CALMED { image.clone() } else { image.calmed() };
    let is_dark = has_dark_ink(&calmed);
    // From here on, ink is dark.
    let (image, calmed) = if is_dark { (image, calmed) } else { (inverted(&image), inverted(&calmed)) };
    let radius = ((image.longest() as f32 * PAPER / 2.0) as usize).max(4);
    let paper = calmed.window(radius, f32::max).window(radius, f32::min);
    let ink = paper.with(&image, |paper, grey| 255.0 * (paper - grey).max(0.0) / paper.max(DARKEST_PAPER));
    let noise = noise(&ink);
    ink.map(|ink| (ink - noise).max(0.0))
}

fn inverted(image: &Plane<f32>) -> Plane<f32> {
    image.map(|grey| 255.0 - grey)
}

fn reduced(image: &Grey) -> Plane<f32> {
    let plane = Plane::new(image.width, image.pixels.iter().map(|&grey| f32::from(grey)).collect());
    let longest = plane.longest();
    if longest <= WORKING_SIZE {
        return plane;
    }
    let fit = |length: usize| (length * WORKING_SIZE / longest).max(1);
    plane.scaled(Bounds::of(&plane), fit(plane.width()), fit(plane.height()))
}

/// Whether the paper is light: the innermost ring that is alike shows paper. If none is, the border does.
fn has_dark_ink(image: &Plane<f32>) -> bool {
    let darkest = image.values().iter().copied().fold(255.0, f32::min);
    let middle = f32::midpoint(darkest, image.strongest());
    let light = |depth: usize| {
        let counted = ring(image, depth);
        let (light, all) =
            counted.fold((0, 0), |(light, all), grey| (light + usize::from(grey >= middle), all + 1));
        light as f32 / all as f32
    };
    let rings = 0..=image.width().min(image.height()) / 4;
    let paper = rings.rev().map(light).find(|&light| light.max(1.0 - light) >= ALIKE);
    paper.unwrap_or_else(|| light(0)) >= 0.5
}

/// The outermost values that are left if `depth` rows and columns are taken off each side.
fn ring(image: &Plane<f32>, depth: usize) -> impl Iterator<Item = f32> + '_ {
    let (right, bottom) = (image.width() - 1 - depth, image.height() - 1 - depth);
    let rows = [depth, bottom].into_iter().flat_map(move |y| (depth..=right).map(move |x| (x, y)));
    let columns = [depth, right].into_iter().flat_map(move |x| (depth..=bottom).map(move |y| (x, y)));
    rows.chain(columns).map(|(x, y)| image.at(x, y))
}

/// Up to where a pixel's ink may be the paper's noise: three standard deviations above the median.
fn noise(ink: &Plane<f32>) -> f32 {
    let limit = ink.strongest() / 2.0;
    let mut paper: Vec<f32> = ink.values().iter().copied().filter(|&ink| ink <= limit).collect();
    let median = quantile(&mut paper, 0.5);
    paper.iter_mut().for_each(|ink| *ink = (*ink - median).abs());
    // The factor converts the median deviation of normal noise to its standard deviation.
    median + 3.0 * 1.4826 * quantile(&mut paper, 0.5)
}
