//! Accumulation: several mini-batches make one step of the optimizer.
//!
//! The gradients of `batches` mini-batches are added, in their order, and the optimizer divides the sum by all their
//! samples. Between them the parameters, and so their tag, stay the same. An epoch's last step may have fewer.

/// How many mini-batches make a step of the optimizer, and how many an epoch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accumulation {
    /// Mini-batches that make a step, at least 1.
    pub batches: u32,
    /// Mini-batches of an epoch.
    pub of_epoch: u32,
}

impl Accumulation {
    /// Whether the optimizer takes a step after mini-batch `batch` of an epoch, from 0.
    pub fn completes(self, batch: u32) -> bool {
        let next = batch.saturating_add(1);
        next.is_multiple_of(self.batches) || next >= self.of_epoch
    }

    /// Whether no gradient is kept before mini-batch `batch`.
    pub fn is_empty_before(self, batch: u32) -> bool {
        batch == 0 || self.completes(batch - 1)
    }

    /// The steps of the optimizer before mini-batch `batch` of an epoch, both from 0.
    pub fn steps_before(self, epoch: u32, batch: u32) -> u64 {
        let of_epoch = u64::from(self.of_epoch.div_ceil(self.batches));
        u64::from(epoch) * of_epoch + u64::from(batch / self.batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_is_in_one_step() {
        let accumulation = Accumulation { batches: 3, of_epoch: 8 };
        let completing: Vec<_> = (0..8).filter(|&batch| accumulation.completes(batch)).collect();
        assert_eq!(completing, [2, 5, 7]);
        let empty: Vec<_> = (0..=8).filter(|&batch| accumulation.is_empty_before(batch)).collect();
        assert_eq!(empty, [0, 3, 6, 8]);
        assert_eq!(
            [(0, 0), (0, 2), (0, 7), (1, 0), (2, 4)].map(|(e, b)| accumulation.steps_before(e, b)),
            [0, 0, 2, 3, 7]
        );
        let plain = Accumulation { batches: 1, of_epoch: 8 };
        assert!((0..8).all(|batch| plain.completes(batch)) && plain.steps_before(2, 3) == 19);
    }
}
