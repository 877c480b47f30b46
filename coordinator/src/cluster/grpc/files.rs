//! What callers get from run directories: rows of a history, and models.
//!
//! Files are read a part at a time, in threads, and a file system may hang. So all calls together have one bound: at
//! most [`READS`] threads read at once, at most [`HASHED`] more hash a model before it is sent, which may take longer, and
//! at most [`MODELS`] models are open. A model's next part is read only when its
//! caller has room for it, so a caller that does not read costs a file and about two parts.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_core::view::EpochRow;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::runs::SavedRun;
use crate::runs::history::Pages;

/// Threads that read at once.
const READS: usize = 16;
/// Models that are hashed at once.
const HASHED: usize = 4;
/// Models that are open at once: as many files.
const MODELS: usize = 128;
/// Bytes of a model in one message.
const PART: usize = 64 << 10;
/// Time limit for a read, and for its turn.
const LIMIT: Duration = Duration::from_secs(20);
/// The same for hashing a model: the largest one at two megabytes a second.
const HASH_LIMIT: Duration = Duration::from_secs(600);

/// The files of all runs, for all calls.
#[derive(Clone, Debug)]
pub(super) struct Files {
    reads: Threads,
    hashes: Threads,
    models: Arc<Semaphore>,
}

/// Threads that read, and how long one may take with its turn.
#[derive(Clone, Debug)]
struct Threads {
    free: Arc<Semaphore>,
    limit: Duration,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            reads: Threads::new(READS, LIMIT),
            hashes: Threads::new(HASHED, HASH_LIMIT),
            models: Arc::new(Semaphore::new(MODELS)),
        }
    }
}

/// A model that is being sent.
struct Model {
    file: Arc<File>,
    len: u64,
    sent: u64,
    _place: OwnedSemaphorePermit,
}

impl Files {
    /// The next page of a history, up to epoch `until`.
    ///
    /// # Errors
    /// If it can't be read.
    pub(super) async fn rows(&self, pages: &mut Pages, until: u64) -> Result<Vec<EpochRow>, Failure> {
        if pages.epoch() >= until {
            return Ok(Vec::new());
        }
        let mut reading = pages.clone();
        let (rows, read) = self.reads.read(move || reading.next(until).map(|rows| (rows, reading))).await?;
        *pages = read;
        Ok(rows)
    }

    /// The model of a run that is done, part by part.
    ///
    /// # Errors
    /// If too many are being sent already, or if it is not the file that was written.
    pub(super) async fn model(
        &self,
        run: PathBuf,
    ) -> Result<impl Stream<Item = Result<Bytes, Failure>> + Send + use<>, Failure> {
        let place = Arc::clone(&self.models).try_acquire_owned().map_err(|_| {
            let what = format!("{MODELS} models are being sent already (try again later)");
            Failure::new(FailureKind::QueueFull, what)
        })?;
        let (file, len) = self.hashes.read(move || SavedRun::open(&run)?.model_as_written()).await?;
        let model = Model { file: Arc::new(file), len, sent: 0, _place: place };
        let files = self.clone();
        Ok(stream::try_unfold(model, move |model| files.clone().next_part(model)))
    }

    async fn next_part(self, mut model: Model) -> Result<Option<(Bytes, Model)>, Failure> {
        if model.sent == model.len {
            return Ok(None);
        }
        let len = (model.len - model.sent).min(PART as u64) as usize;
        let (file, at) = (Arc::clone(&model.file), model.sent);
        let part = self.reads.read(move || {
            let mut part = vec![0; len];
            let changed = |error| Failure::of_file("the model", "has changed while it was sent", &error);
            file.read_exact_at(&mut part, at).map_err(changed).map(|()| part)
        });
        let part = part.await?;
        model.sent += len as u64;
        Ok(Some((part.into(), model)))
    }
}

impl Threads {
    fn new(most: usize, limit: Duration) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), limit }
    }

    /// Reads in a thread, once it is this read's turn.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let free = Arc::clone(&self.free);
        let turn = async {
            let place = free.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let _place = place;
                read()
            })
            .await
        };
        match tokio::time::timeout(self.limit, turn).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => Err(Failure::new(FailureKind::Unexpected, error.to_string())),
            Err(_) => {
                let seconds = self.limit.as_secs_f64();
                let what =
                    format!("the run directory could not be read within {seconds} s (is its disk there?)");
                Err(Failure::new(FailureKind::Data, what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_hangs_holds_a_bounded_number_of_threads() {
        let files = Files { reads: Threads::new(READS, Duration::from_millis(50)), ..Files::default() };
        let (over, hangs) = mpsc::channel::<()>();
        let hangs = Arc::new(std::sync::Mutex::new(hangs));
        let read = |_| {
            let hangs = Arc::clone(&hangs);
            files.reads.read(move || {
                // Ends with the test.
                let _ = hangs.lock().map(|hangs| hangs.recv());
                Ok(())
            })
        };
        let ends = futures_util::future::join_all((0..2 * READS).map(read)).await;
        assert!(ends.iter().all(|end| end.as_ref().is_err_and(|failure| failure.kind == FailureKind::Data)));
        assert_eq!(files.reads.free.available_permits(), 0);
        // Models are hashed by others, and pages do not wait for these.
        assert_eq!(files.hashes.read(|| Ok(7)).await, Ok(7));
        drop(over);
    }
}
