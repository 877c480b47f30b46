//! Counts and sums of metrics that are too many for one message: they follow their result in chunks.
//!
//! They are sent as they are in memory: the counts (`u64`), then the sums (`f64`), little-endian. Only evaluations have so
//! many, and these have no gradient, so that a result is followed by one of the two at most.

use bytes::Bytes;
use millefeuille_core::learn::metrics::{LIGHT, Layout};
use millefeuille_core::learn::sum::Figures;

use crate::buffer::Buffer;

/// The bytes of the counts and sums of this layout that follow a result in chunks; 0 if the result has them itself.
pub fn bytes_apart(layout: &Layout) -> usize {
    let numbers = layout.counts() + layout.sums();
    if numbers > LIGHT { numbers * size_of::<u64>() } else { 0 }
}

/// Takes counts and sums out of the figures, if they are too many for a message.
pub fn detach(figures: &mut Figures) -> Bytes {
    if figures.counts.len() + figures.sums.len() <= LIGHT {
        return Bytes::new();
    }
    let (counts, sums) = (std::mem::take(&mut figures.counts), std::mem::take(&mut figures.sums));
    let counts = counts.into_iter().flat_map(u64::to_le_bytes);
    counts.chain(sums.into_iter().flat_map(f64::to_le_bytes)).collect()
}

/// Puts them back: `values` has the bytes of this layout.
pub fn attach(figures: &mut Figures, values: &Buffer, layout: &Layout) {
    let (words, _) = values.as_ref().as_chunks::<8>();
    let (counts, sums) = words.split_at(layout.counts().min(words.len()));
    figures.counts = counts.iter().map(|&word| u64::from_le_bytes(word)).collect();
    figures.sums = sums.iter().map(|&word| f64::from_le_bytes(word)).collect();
}

#[cfg(test)]
mod tests {
    use millefeuille_core::data::schema::Target;
    use millefeuille_core::data::split::Split;
    use millefeuille_core::job::Metric;

    use super::*;
    use crate::buffer::Pool;
    use crate::wire::{Assembly, chunks};

    #[test]
    fn what_is_taken_out_comes_back() {
        let layout = Layout::of(&[Metric::ConfusionMatrix], Target::Class { classes: 300 }, Split::Test);
        let whole = Figures { samples: 3, counts: (0..90_000).collect(), ..Figures::default() };
        let mut figures = whole.clone();
        let sent = detach(&mut figures);
        assert_eq!((figures.counts.len(), sent.len()), (0, bytes_apart(&layout)));
        let mut assembly = Assembly::new(Pool::default().take(sent.len() / size_of::<f32>()));
        chunks(sent).for_each(|chunk| assembly.push(&chunk).unwrap());
        attach(&mut figures, &assembly.into_values(), &layout);
        assert_eq!(figures, whole);
    }

    #[test]
    fn a_few_stay_in_the_message() {
        let mut figures = Figures { counts: vec![1; LIGHT - 1], sums: vec![0.5], ..Figures::default() };
        assert!(detach(&mut figures).is_empty() && figures.counts.len() == LIGHT - 1);
    }
}
