//! Pooled buffers of parameters and gradients.
//!
//! A freed buffer of a megabyte goes back to the operating system, and the pages of the next one must be zeroed
//! again, which costs as much as sending it. So a [`Buffer`] comes from a [`Pool`] and returns there when it is
//! dropped, even if it was sent in between. A buffer may also be a slot of shared memory ([`shared`](crate::shared));
//! code that uses it need not know.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::shared::SlotRange;

#[cfg(target_endian = "big")]
compile_error!("parameters and gradients travel as little-endian f32, straight from memory");

/// Limits per length: this many spare buffers are always kept, and more up to this many bytes. The rest is freed.
const SPARE: usize = 4;
const SPARE_BYTES: usize = 64 << 20;
/// Different lengths that one job needs: the model's, a section's and the last section's. A further length means that
/// another job has begun.
const LENGTHS: usize = 3;

/// Row-major numbers. Dropping the buffer returns its memory to where it came from.
pub struct Buffer(Kind);

enum Kind {
    Pooled { values: Vec<f32>, pool: Pool },
    Shared(SlotRange),
}

impl Buffer {
    /// The values as little-endian bytes for sending. The memory returns to its source when the last reference to the
    /// bytes is dropped.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl From<SlotRange> for Buffer {
    fn from(part: SlotRange) -> Self {
        Self(Kind::Shared(part))
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.0 {
            Kind::Pooled { values, .. } => values,
            Kind::Shared(part) => part,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.0 {
            Kind::Pooled { values, .. } => values,
            Kind::Shared(part) => part,
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Kind::Pooled { values, pool } = &mut self.0 {
            pool.give(std::mem::take(values));
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer of {} values", self.len())
    }
}

/// Spare buffers. Clones are the same pool.
#[derive(Clone, Debug, Default)]
pub struct Pool(Arc<Mutex<BTreeMap<usize, Vec<Vec<f32>>>>>);

impl Pool {
    /// Takes a buffer of `len` values with arbitrary contents.
    pub fn take(&self, len: usize) -> Buffer {
        let spare = self.lock().get_mut(&len).and_then(Vec::pop);
        self.adopt(spare.unwrap_or_else(|| vec![0.0; len]))
    }

    /// Wraps these values in a buffer, whose memory joins the pool when it is dropped.
    pub fn adopt(&self, values: Vec<f32>) -> Buffer {
        Buffer(Kind::Pooled { values, pool: self.clone() })
    }

    /// Frees the spare buffers.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn give(&self, values: Vec<f32>) {
        let mut spare = self.lock();
        if spare.len() >= LENGTHS && !spare.contains_key(&values.len()) {
            spare.clear();
        }
        let alike = spare.entry(values.len()).or_default();
        if alike.len() < SPARE || alike.len() * size_of_val(&*values) < SPARE_BYTES {
            alike.push(values);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Vec<Vec<f32>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::chunks;

    #[test]
    fn a_buffer_comes_back_when_its_last_chunk_is_gone() {
        let pool = Pool::default();
        let buffer = pool.take(100_000);
        let address = buffer.as_ptr();
        let sent: Vec<Bytes> = chunks(buffer.into_bytes()).collect();
        let other = pool.take(100_000);
        assert_ne!(other.as_ptr(), address);
        drop(sent);
        assert_eq!(pool.take(100_000).as_ptr(), address);
    }

    #[test]
    fn lengths_of_another_job_take_the_place_of_the_last_ones() {
        let pool = Pool::default();
        (1..=LENGTHS).for_each(|len| drop(pool.take(len)));
        assert_eq!(pool.lock().len(), LENGTHS);
        drop(pool.take(100));
        assert_eq!(pool.lock().keys().copied().collect::<Vec<_>>(), [100]);
    }
}
