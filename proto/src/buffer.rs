//! Buffers of parameters and gradients, kept for the next step.
//!
//! A buffer of a megabyte that is freed goes back to the operating system, and its next pages are zeroed again: that costs
//! as much as sending it. So a [`Buffer`] comes from a [`Pool`] and goes back there when it is dropped, also when it was
//! sent in between. Some are a slot of shared memory ([`shared`](crate::shared));
//! whoever computes with a buffer need not know.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::shared::Part;

#[cfg(target_endian = "big")]
compile_error!("parameters and gradients travel as little-endian f32, straight from memory");

/// Spare buffers of a length that are kept in any case, and bytes of them up to which more are. The rest is freed.
const SPARE: usize = 4;
const SPARE_BYTES: usize = 64 << 20;
/// Lengths that one job needs at most: a model's, a section's and the last section's. Another one is a sign of another job.
const LENGTHS: usize = 3;

/// Numbers, row-major, that go back to where they came from when this value is dropped.
pub struct Buffer(Kind);

enum Kind {
    Pooled { values: Vec<f32>, pool: Pool },
    Shared(Part),
}

impl Buffer {
    /// The values as little-endian bytes to be sent. They go back once nobody refers to the bytes.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl From<Part> for Buffer {
    fn from(part: Part) -> Self {
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
    /// A buffer of `len` values, whatever they are.
    pub fn take(&self, len: usize) -> Buffer {
        let spare = self.lock().get_mut(&len).and_then(Vec::pop);
        self.adopt(spare.unwrap_or_else(|| vec![0.0; len]))
    }

    /// These values as a buffer, which stay in the pool afterwards.
    pub fn adopt(&self, values: Vec<f32>) -> Buffer {
        Buffer(Kind::Pooled { values, pool: self.clone() })
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
