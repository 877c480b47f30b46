//! Shared memory for bulk data between a coordinator and the workers that it starts itself.
//!
//! Workers on the coordinator's own host need not copy parameters and gradients through sockets. The coordinator
//! creates one memory file for parameters, which all its workers read, and one file for each worker's results.
//! Workers inherit them as open files. Control messages stay on gRPC, and name slots only:
//!
//! ```text
//! parameters' file   [ slot 0 | slot 1 | … ]                    written by the coordinator
//! a worker's file    [ header | slot 0 | slot 1 | … ]           written by that worker
//!                      a word for each of its slots: with the coordinator?
//!                      a word for each of the parameters' slots: with this worker?
//! ```
//!
//! **A slot is written only while no other process may read it.** A worker fills a slot that it does not use and
//! whose word is 0, sets the word to 1 and sends the slot's number. The coordinator sets the word back to 0 when it
//! no longer needs the numbers. The coordinator fills a parameters slot that it does not use and whose word is 0 for
//! every worker, and sets a worker's word to 1 before it sends that worker the slot's number; the worker sets it
//! back. If no slot is free, the numbers go over the wire, so a slot that is never released costs only speed. When a
//! worker dies, its file goes with it. The length of slots changes only between jobs, and only while no slot is in
//! use.
//!
//! Words are atomics: stored with release ordering by the side that gives a slot away, loaded with acquire ordering
//! by the side that takes it. So writes of one process happen before the reads of the other, as between threads. Both
//! processes run the same program, one started by the other, so there is no protection against a worker that breaks
//! these rules on purpose.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};

/// Slots for parameters: the current ones, the next ones, and those that a checkpoint or a late worker still uses.
const PARAMETERS: usize = 4;
/// Slots for a worker's results: a run of shards rarely covers more nodes of the tree.
const RESULTS: usize = 4;
const HEADER_BYTES: usize = 4096;
/// Slots are aligned to pages.
const PAGE_BYTES: usize = 4096;

/// The slots of one file, as this process has mapped it.
struct Slots {
    map: MmapRaw,
    header_bytes: usize,
    /// Number of values in a slot.
    values: usize,
    /// Which slots this process uses, for reading or writing.
    in_use: Vec<AtomicBool>,
}

impl Slots {
    /// Maps a file. If `grow` is set, extends it to the required length.
    fn map(file: &OwnedFd, header_bytes: usize, count: usize, values: usize, grow: bool) -> io::Result<Self> {
        let bytes = header_bytes + count * stride(values);
        let there = fstat(file)?.st_size as usize;
        if there < bytes && grow {
            ftruncate(file, bytes as u64)?;
        } else if there < bytes {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the shared memory is too short"));
        }
        let map = MmapOptions::new().len(bytes).map_raw(file)?;
        let in_use = (0..count).map(|_| AtomicBool::new(false)).collect();
        Ok(Self { map, header_bytes, values, in_use })
    }

    /// A word of the header.
    #[allow(unsafe_code)] // Reaches into mapped memory.
    fn word(&self, index: usize) -> &AtomicU32 {
        assert!((index + 1) * size_of::<u32>() <= self.header_bytes, "the header has this word");
        // SAFETY: the mapping is at least as long as its header, is page-aligned, and lives as long as the reference;
        // words are only ever accessed as atomics.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().cast::<u32>().add(index)) }
    }

    /// Takes the first slot that this process does not use and that, according to `free`, no other process uses.
    fn take(self: &Arc<Self>, free: impl Fn(usize) -> bool) -> Option<Slot> {
        let unused = |&slot: &usize| !self.in_use[slot].load(Ordering::Acquire) && free(slot);
        let index = (0..self.in_use.len()).find(unused)?;
        let taken = !self.in_use[index].swap(true, Ordering::AcqRel);
        taken.then(|| Slot { slots: Arc::clone(self), index, given_back: None })
    }

    /// Takes a slot that another process has given to this one; `None` if the slot does not exist or is already in
    /// use.
    fn receive(self: &Arc<Self>, index: usize, given_back: (Arc<Self>, usize)) -> Option<Slot> {
        let taken = !self.in_use.get(index)?.swap(true, Ordering::AcqRel);
        taken.then(|| Slot { slots: Arc::clone(self), index, given_back: Some(given_back) })
    }

    fn is_idle(&self) -> bool {
        self.in_use.iter().all(|used| !used.load(Ordering::Acquire))
    }

    fn start(&self, slot: usize) -> *mut f32 {
        let offset = self.header_bytes + slot * stride(self.values);
        self.map.as_mut_ptr().wrapping_add(offset).cast()
    }
}

/// Distance between two slots in bytes.
fn stride(values: usize) -> usize {
    (values * size_of::<f32>()).next_multiple_of(PAGE_BYTES)
}

/// A slot in use by this process. Dropping it frees the slot.
struct Slot {
    slots: Arc<Slots>,
    index: usize,
    /// The word that tells the other process that the slot is free.
    given_back: Option<(Arc<Slots>, usize)>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.in_use[self.index].store(false, Ordering::Release);
        if let Some((slots, word)) = &self.given_back {
            slots.word(*word).store(0, Ordering::Release);
        }
    }
}

/// A range of a slot's values, accessed only through this part.
pub struct SlotRange {
    slot: Arc<Slot>,
    range: Range<usize>,
}

impl SlotRange {
    fn whole(slot: Slot) -> Self {
        let range = 0..slot.slots.values;
        Self { slot: Arc::new(slot), range }
    }

    /// Cuts the part into parts of `len` values; the last may be shorter.
    pub fn cut(self, len: usize) -> impl Iterator<Item = Self> {
        let Self { slot, range } = self;
        let end = range.end;
        range.step_by(len).map(move |start| {
            let range = start..end.min(start + len);
            Self { slot: Arc::clone(&slot), range }
        })
    }

    /// The number of the part's slot.
    pub fn slot(&self) -> u32 {
        self.slot.index as u32
    }

    fn start(&self) -> *mut f32 {
        self.slot.slots.start(self.slot.index).wrapping_add(self.range.start)
    }
}

impl Deref for SlotRange {
    type Target = [f32];

    #[allow(unsafe_code)] // Reaches into mapped memory.
    fn deref(&self) -> &[f32] {
        // SAFETY: the range lies within the slot and the slot within the mapping, which lives as long as the slot.
        // Parts of a slot don't overlap, and no other process writes to a slot that this one uses.
        unsafe { std::slice::from_raw_parts(self.start(), self.range.len()) }
    }
}

impl DerefMut for SlotRange {
    #[allow(unsafe_code)] // Reaches into mapped memory.
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and this part is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.range.len()) }
    }
}

/// The coordinator's side: the parameters' file, and a file for each worker process.
pub struct SharedMemory {
    parameters: OwnedFd,
    /// The parameters' slots of the newest job.
    mapped: Mutex<Weak<Slots>>,
    children: AtomicU64,
    workers: Mutex<BTreeMap<u64, Weak<OwnedFd>>>,
}

/// A worker process's file. It lives as long as the process.
pub struct InheritedFiles {
    id: u64,
    parameters: RawFd,
    file: Arc<OwnedFd>,
}

impl SharedMemory {
    /// Creates the parameters' file.
    ///
    /// # Errors
    /// If the system cannot create a memory file.
    pub fn new() -> io::Result<Self> {
        let (parameters, children) = (new_file()?, AtomicU64::new(0));
        Ok(Self { parameters, mapped: Mutex::default(), children, workers: Mutex::default() })
    }

    /// Creates the file for a worker process that is about to be started.
    ///
    /// # Errors
    /// If the system cannot create the file.
    pub fn child(&self) -> io::Result<InheritedFiles> {
        let file = Arc::new(new_file()?);
        ftruncate(&*file, HEADER_BYTES as u64)?;
        let id = self.children.fetch_add(1, Ordering::Relaxed) + 1;
        let mut workers = self.workers();
        workers.retain(|_, file| file.strong_count() > 0);
        workers.insert(id, Arc::downgrade(&file));
        Ok(InheritedFiles { id, parameters: self.parameters.as_raw_fd(), file })
    }

    /// Maps memory for a model of `values` values.
    ///
    /// # Errors
    /// If there is not enough memory, or parameters of the previous job are still in use.
    pub fn map(self: &Arc<Self>, values: usize) -> io::Result<ParameterSlots> {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if mapped.upgrade().is_some_and(|slots| !slots.is_idle()) {
            return Err(io::Error::other("parameters of the job before are still in use"));
        }
        let parameters = Arc::new(Slots::map(&self.parameters, 0, PARAMETERS, values, true)?);
        *mapped = Arc::downgrade(&parameters);
        Ok(ParameterSlots { host: Arc::clone(self), parameters, workers_slots: Mutex::default() })
    }

    fn workers(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<OwnedFd>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Implements an opaque `Debug`, so that types that contain these can derive theirs.
macro_rules! opaque {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}
opaque!(SharedMemory, InheritedFiles, ParameterSlots, WorkerSlots, InheritedMemory, OwnSlots);

fn new_file() -> io::Result<OwnedFd> {
    Ok(memfd_create(c"millefeuille", MemfdFlags::CLOEXEC)?)
}

impl InheritedFiles {
    /// Text for the worker process: its number, and the open files that it inherits.
    pub fn to_inherit(&self) -> String {
        format!("{},{},{}", self.id, self.parameters, self.file.as_raw_fd())
    }

    /// The open files that it inherits.
    pub fn files(&self) -> [RawFd; 2] {
        [self.parameters, self.file.as_raw_fd()]
    }
}

/// Makes open files inheritable by a program that is about to be run. Call this between fork and exec.
///
/// # Errors
/// If the system call fails.
///
/// # Safety
/// The files must be open, as those of a [`InheritedFiles`] are for as long as it lives.
#[allow(unsafe_code)] // Borrows files by their numbers.
pub unsafe fn keep_over_exec(files: [RawFd; 2]) -> io::Result<()> {
    files.into_iter().try_for_each(|file| {
        // SAFETY: the caller guarantees that the file is open.
        let file = unsafe { BorrowedFd::borrow_raw(file) };
        Ok(rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty())?)
    })
}

/// Memory for one job, on the coordinator's side.
pub struct ParameterSlots {
    host: Arc<SharedMemory>,
    parameters: Arc<Slots>,
    workers_slots: Mutex<BTreeMap<u64, Arc<WorkerSlots>>>,
}

/// A worker process that shares memory with this one.
pub struct WorkerSlots {
    slots: Arc<Slots>,
    /// Dead once the worker process has ended.
    file: Weak<OwnedFd>,
}

impl ParameterSlots {
    /// The worker process with this number, if it is alive.
    ///
    /// # Errors
    /// If the worker's memory can't be mapped.
    pub fn worker_slots(&self, worker: u64) -> io::Result<Option<Arc<WorkerSlots>>> {
        let mut workers_slots = self.workers_slots();
        workers_slots.retain(|_, worker_slots| worker_slots.is_alive());
        if let Some(known) = workers_slots.get(&worker) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(file) = self.host.workers().get(&worker).and_then(Weak::upgrade) else { return Ok(None) };
        let slots = Slots::map(&file, HEADER_BYTES, RESULTS, self.parameters.values, true)?;
        // Slots that an earlier job never released are free again.
        (0..RESULTS + PARAMETERS).for_each(|word| slots.word(word).store(0, Ordering::Release));
        let worker_slots = Arc::new(WorkerSlots { slots: Arc::new(slots), file: Arc::downgrade(&file) });
        workers_slots.insert(worker, Arc::clone(&worker_slots));
        Ok(Some(worker_slots))
    }

    /// Takes a slot for the next parameters, if one is free.
    pub fn take(&self) -> Option<SlotRange> {
        let workers_slots = self.workers_slots();
        let has = |worker_slots: &Arc<WorkerSlots>, slot| {
            worker_slots.in_use_by_worker(slot).load(Ordering::Acquire) != 0
        };
        let free = |slot| {
            !workers_slots.values().any(|worker_slots| worker_slots.is_alive() && has(worker_slots, slot))
        };
        self.parameters.take(free).map(SlotRange::whole)
    }

    fn workers_slots(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<WorkerSlots>>> {
        self.workers_slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkerSlots {
    /// Marks this slot of parameters as used by the worker. Call this before its number is sent.
    pub fn mark_in_use(&self, slot: u32) {
        self.in_use_by_worker(slot as usize).store(1, Ordering::Release);
    }

    /// The result in this slot, which the worker named; `None` if the number is invalid.
    pub fn result(&self, slot: u32) -> Option<SlotRange> {
        let index = slot as usize;
        if index >= RESULTS || self.slots.word(index).load(Ordering::Acquire) != 1 {
            return None;
        }
        self.slots.receive(index, (Arc::clone(&self.slots), index)).map(SlotRange::whole)
    }

    fn in_use_by_worker(&self, slot: usize) -> &AtomicU32 {
        assert!(slot < PARAMETERS, "a slot of parameters");
        self.slots.word(RESULTS + slot)
    }

    fn is_alive(&self) -> bool {
        self.file.strong_count() > 0
    }
}

/// The worker's side: the inherited files.
pub struct InheritedMemory {
    id: u64,
    parameters: OwnedFd,
    file: OwnedFd,
    /// For the newest job: the parameters' slots and this process's own.
    mapped: Mutex<[Weak<Slots>; 2]>,
}

/// Memory for one job, on a worker's side.
#[derive(Clone)]
pub struct OwnSlots {
    parameters: Arc<Slots>,
    results: Arc<Slots>,
}

impl InheritedMemory {
    /// Opens the files that `inherited` names, in the format of [`InheritedFiles::to_inherit`]; `None` if the text
    /// is invalid or the files don't exist.
    ///
    /// The files are opened again, so that the inherited ones stay open for a program that replaces this one.
    pub fn of(inherited: &str) -> Option<Self> {
        let mut numbers = inherited.split(',');
        let id = numbers.next()?.parse().ok()?;
        let mut file = || {
            let number: RawFd = numbers.next()?.parse().ok()?;
            let link = format!("/proc/self/fd/{number}");
            Some(OwnedFd::from(File::options().read(true).write(true).open(link).ok()?))
        };
        Some(Self { id, parameters: file()?, file: file()?, mapped: Mutex::default() })
    }

    /// The number that the coordinator knows this process by.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Maps memory for a job whose model has `values` values. `None` while a piece of a job with another length is
    /// still being computed there.
    ///
    /// # Errors
    /// If the files can't be mapped.
    pub fn map(&self, values: usize) -> io::Result<Option<OwnSlots>> {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        match mapped.each_ref().map(Weak::upgrade) {
            // Another session for the same length: a piece of the previous session may still be computed there, and
            // its slots are marked as in use.
            [Some(parameters), Some(results)] if results.values == values => {
                return Ok(Some(OwnSlots { parameters, results }));
            }
            [None, None] => {}
            _ => return Ok(None),
        }
        let parameters = Arc::new(Slots::map(&self.parameters, 0, PARAMETERS, values, false)?);
        let results = Arc::new(Slots::map(&self.file, HEADER_BYTES, RESULTS, values, false)?);
        *mapped = [&parameters, &results].map(Arc::downgrade);
        Ok(Some(OwnSlots { parameters, results }))
    }
}

impl OwnSlots {
    /// Takes a slot for a result, if one is free.
    pub fn take(&self) -> Option<SlotRange> {
        self.results.take(|slot| self.results.word(slot).load(Ordering::Acquire) == 0).map(SlotRange::whole)
    }

    /// Gives this slot to the coordinator. Call this before the result that names it is sent.
    pub fn hand_over(&self, slot: u32) {
        self.results.word(slot as usize).store(1, Ordering::Release);
    }

    /// The parameters in this slot, which the coordinator named; `None` if the number is invalid.
    pub fn parameters(&self, slot: u32) -> Option<SlotRange> {
        let index = slot as usize;
        if index >= PARAMETERS || self.results.word(RESULTS + index).load(Ordering::Acquire) != 1 {
            return None;
        }
        self.parameters.receive(index, (Arc::clone(&self.results), RESULTS + index)).map(SlotRange::whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: usize = 5_000;

    /// A coordinator and one of its workers, both in this process.
    struct Pair {
        host: Arc<SharedMemory>,
        child: InheritedFiles,
        inherited: InheritedMemory,
    }

    impl Pair {
        fn new() -> Self {
            let host = Arc::new(SharedMemory::new().unwrap());
            let child = host.child().unwrap();
            let inherited = inherited(&child);
            Self { host, child, inherited }
        }

        fn map(&self, values: usize) -> (ParameterSlots, Arc<WorkerSlots>, OwnSlots) {
            let parameter_slots = self.host.map(values).unwrap();
            let worker_slots = parameter_slots.worker_slots(self.child.id).unwrap().unwrap();
            (parameter_slots, worker_slots, self.inherited.map(values).unwrap().unwrap())
        }
    }

    /// The worker's side of this child.
    fn inherited(child: &InheritedFiles) -> InheritedMemory {
        InheritedMemory::of(&child.to_inherit()).unwrap()
    }

    #[test]
    fn parameters_and_results_arrive_without_being_sent() {
        let pair = Pair::new();
        let (parameter_slots, worker_slots, own_slots) = pair.map(VALUES);

        let mut parameters = parameter_slots.take().unwrap();
        parameters.fill(1.5);
        worker_slots.mark_in_use(parameters.slot());
        let read = own_slots.parameters(parameters.slot()).unwrap();
        assert!(read.len() == VALUES && read.iter().all(|value| *value == 1.5));

        let result = own_slots.take().unwrap();
        let slot = result.slot();
        for (number, mut part) in result.cut(2_000).enumerate() {
            part.fill(number as f32);
        }
        own_slots.hand_over(slot);
        let sum = worker_slots.result(slot).unwrap();
        assert_eq!([sum[0], sum[1_999], sum[2_000], sum[VALUES - 1]], [0.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn a_result_is_the_workers_again_once_the_coordinator_has_done_with_it() {
        let pair = Pair::new();
        let (_lender, worker_slots, own_slots) = pair.map(VALUES);
        let taken: Vec<_> = std::iter::from_fn(|| own_slots.take()).collect();
        assert_eq!(taken.len(), RESULTS, "then the wire has to do");
        let slot = taken[2].slot();
        own_slots.hand_over(slot);
        drop(taken);

        let free = || {
            let taken: Vec<_> = std::iter::from_fn(|| own_slots.take()).collect();
            taken.iter().map(SlotRange::slot).collect::<Vec<_>>()
        };
        assert!(!free().contains(&slot), "it is with the coordinator");
        let result = worker_slots.result(slot).unwrap();
        assert!(worker_slots.result(slot).is_none(), "it has it already");
        drop(result);
        assert!(free().contains(&slot));
    }

    #[test]
    fn parameters_that_a_worker_has_are_not_overwritten() {
        let pair = Pair::new();
        let (parameter_slots, worker_slots, own_slots) = pair.map(VALUES);
        let slot = parameter_slots.take().unwrap().slot();
        worker_slots.mark_in_use(slot);
        // The slot was named, but the worker has not taken it yet.
        assert_ne!(parameter_slots.take().unwrap().slot(), slot);
        let read = own_slots.parameters(slot).unwrap();
        assert_ne!(parameter_slots.take().unwrap().slot(), slot);
        drop(read);
        assert_eq!(parameter_slots.take().unwrap().slot(), slot);
    }

    #[test]
    fn a_worker_that_is_gone_holds_nothing() {
        let Pair { host, child, inherited } = Pair::new();
        let parameter_slots = host.map(VALUES).unwrap();
        let worker_slots = parameter_slots.worker_slots(child.id).unwrap().unwrap();
        let slot = parameter_slots.take().unwrap().slot();
        worker_slots.mark_in_use(slot);
        let id = child.id;
        drop((child, inherited));
        assert_eq!(parameter_slots.take().unwrap().slot(), slot);
        assert!(parameter_slots.worker_slots(id).unwrap().is_none());
        assert_ne!(host.child().unwrap().id, id, "another one is not taken for it");
    }

    #[test]
    fn slots_that_can_not_be_are_refused() {
        let pair = Pair::new();
        let (_lender, worker_slots, own_slots) = pair.map(VALUES);
        for slot in [0, RESULTS as u32, u32::MAX] {
            assert!(worker_slots.result(slot).is_none(), "nothing was handed over in {slot}");
        }
        for slot in [0, PARAMETERS as u32, u32::MAX] {
            assert!(own_slots.parameters(slot).is_none(), "no slot is in use: {slot}");
        }
        for text in ["", "1", "1,2", "x,3,4", "1,99999,99998"] {
            assert!(InheritedMemory::of(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn another_job_has_slots_of_another_length_once_the_last_is_over() {
        let pair = Pair::new();
        let (parameter_slots, worker_slots, own_slots) = pair.map(VALUES);
        let busy = own_slots.take().unwrap();
        assert!(pair.inherited.map(10).unwrap().is_none(), "a slot thread is still busy");
        let again = pair.inherited.map(VALUES).unwrap().unwrap();
        assert_ne!(again.take().unwrap().slot(), busy.slot(), "another session of the same job knows of it");
        drop(again);
        drop((busy, own_slots));
        let parameters = parameter_slots.take().unwrap();
        assert!(pair.host.map(10).is_err(), "a checkpoint is still written");
        drop((parameters, parameter_slots, worker_slots));
        let (_lender, _borrower, own_slots) = pair.map(3 * VALUES);
        assert_eq!(own_slots.take().unwrap().len(), 3 * VALUES);
    }

    #[test]
    fn memory_that_the_coordinator_has_not_made_is_not_mapped() {
        let pair = Pair::new();
        assert!(pair.inherited.map(VALUES).is_err());
    }
}
