//! Durable file writes: after a crash, the old file or the new one is there, never half of one.
//!
//! A complete file is written in four steps: under a temporary name in the same directory, fsync, rename, fsync of
//! the directory. Other files grow by appended lines; a torn end after a crash is cut off when the run is resumed. A
//! write that fails leaves the existing file unchanged, and no temporary file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt};
use std::path::Path;

use millefeuille_core::failure::Failure;
use rustix::fs::OFlags;
use tempfile::NamedTempFile;

use super::{of_content, of_run};
use crate::{failpoints, input};

const TEMPORARY: (&str, &str) = (".", ".tmp");

/// Writes a complete file, durably. `kind` names it in failure points.
pub(super) fn write_whole(path: &Path, content: &[u8], kind: &str) -> Result<(), Failure> {
    written(path, staged(path, content, kind))
}

fn staged(path: &Path, content: &[u8], kind: &str) -> io::Result<()> {
    Staged::new(path, content, kind, READABLE)?.rename()?;
    sync_directory(parent(path))
}

/// Writes a complete file for users, durably. Returns whether it was written: a file that is there already is kept, unless
/// it may be overwritten.
pub(crate) fn write_output(path: &Path, content: &[u8], overwrite: bool) -> io::Result<bool> {
    let staged = Staged::new(path, content, "output", READABLE)?;
    let written = if overwrite { staged.rename().map(|()| true) } else { staged.rename_if_new() }?;
    sync_directory(parent(path))?;
    Ok(written)
}

/// The mode of a file that every user may read.
pub(crate) const READABLE: u32 = 0o644;

/// A complete file on disk under a temporary name in its directory. Dropping the value removes the file.
pub(crate) struct Staged<'a> {
    file: NamedTempFile,
    path: &'a Path,
    kind: &'a str,
}

impl<'a> Staged<'a> {
    /// Writes the file. It gets its mode before its name; until then no other user may read it.
    pub(crate) fn new(path: &'a Path, content: &[u8], kind: &'a str, mode: u32) -> io::Result<Self> {
        let (prefix, suffix) = TEMPORARY;
        let file = tempfile::Builder::new().prefix(prefix).suffix(suffix).tempfile_in(parent(path))?;
        let mut staged = Self { file, path, kind };
        staged.file.write_all(content)?;
        staged.file.as_file().set_permissions(PermissionsExt::from_mode(mode))?;
        staged.reached("before-fsync");
        staged.file.as_file().sync_all()?;
        staged.reached("after-fsync");
        Ok(staged)
    }

    /// Renames the file into place. The rename is durable after an fsync of the directory.
    pub(crate) fn rename(self) -> io::Result<()> {
        self.reached("before-rename");
        let (path, kind) = (self.path, self.kind);
        self.file.persist(path).map_err(|error| error.error)?;
        reached(kind, "after-rename");
        Ok(())
    }

    /// Renames the file into place, if there is none. Returns whether it did.
    fn rename_if_new(self) -> io::Result<bool> {
        self.reached("before-rename");
        match self.file.persist_noclobber(self.path) {
            Ok(_) => Ok(true),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.error),
        }
    }

    fn reached(&self, stage: &str) {
        reached(self.kind, stage);
    }
}

fn reached(kind: &str, stage: &str) {
    failpoints::at(&format!("{kind}-{stage}"));
}

/// Creates a file that grows by appended text. A file that is there already is an error.
pub(super) fn create(path: &Path, text: &str) -> Result<(), Failure> {
    let created = OpenOptions::new().create_new(true).append(true).open(path);
    written(path, created.and_then(|file| append_whole(file, text)))
}

/// Appends text to an existing file. A write that fails leaves the file unchanged.
pub(super) fn append(path: &Path, text: &str) -> Result<(), Failure> {
    let opened = regular(path).and_then(|()| OpenOptions::new().append(true).open(path));
    written(path, opened.and_then(|file| append_whole(file, text)))
}

fn append_whole(mut file: File, text: &str) -> io::Result<()> {
    let before = file.metadata()?.len();
    file.write_all(text.as_bytes()).inspect_err(|_| _ = file.set_len(before))
}

/// Truncates a file to its first `len` bytes, durably.
pub(super) fn cut(path: &Path, len: u64) -> Result<(), Failure> {
    let cut = || {
        regular(path)?;
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(len)?;
        file.sync_all()
    };
    written(path, cut())
}

/// Syncs a file to the disk. A missing file is no error.
pub(super) fn sync(path: &Path) -> Result<(), Failure> {
    written(
        path,
        if_there(regular(path).and_then(|()| File::open(path)).and_then(|file| file.sync_all())).map(|_| ()),
    )
}

/// Syncs a directory's entries to the disk.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The directory that contains a file.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Checks that a file is a regular file: reading a pipe would never end.
pub(super) fn regular(path: &Path) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_file() || kind.is_dir() { Ok(()) } else { Err(io::Error::other("not a regular file")) }
}

/// Checks that a file, if it exists, is a regular file of at most this many bytes.
pub(super) fn check(path: &Path, limit: u64) -> Result<(), Failure> {
    if !input::exists(path)? {
        return Ok(());
    }
    match input::check(path)? {
        len if len > limit => {
            let what = format!("{len} bytes are too many, {limit} the most (is it another file?)");
            Err(of_run(path, what))
        }
        _ => Ok(()),
    }
}

/// Opens a file for reading. It must be a regular file, which a symbolic link is not: opening a pipe could block, and
/// a link leads to another file than the run's.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => io::Error::other("a symbolic link"),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// The content of a file, or `None` if it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    if_there(regular(path).and_then(|()| fs::read(path)))
        .map_err(|error| Failure::of_file(path.display(), "cannot be read", &error))
}

/// The content of a regular file of at most this many bytes.
pub(super) fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    regular(path)?;
    let len = fs::metadata(path)?.len();
    if len > limit {
        return Err(io::Error::other(format!("{len} bytes are too many, {limit} the most")));
    }
    fs::read(path)
}

/// Converts the content of a file to text.
pub(super) fn text(path: &Path, bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| of_content(path, format!("not text: {error}")))
}

/// Removes a file, if it exists.
pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    removed(path, fs::remove_file(path))
}

/// Removes a directory and its contents, if it exists.
pub(super) fn remove_directory(path: &Path) -> Result<(), Failure> {
    removed(path, fs::remove_dir_all(path))
}

/// Removes the temporary files of interrupted writes from a directory, if it exists.
pub(crate) fn remove_temporary(directory: &Path) -> Result<(), Failure> {
    let mut left = names(directory)?.into_iter().filter(|name| is_temporary(name));
    left.try_for_each(|name| remove(&directory.join(name)))
}

/// Whether a file with this name is the temporary file of an interrupted write.
pub(super) fn is_temporary(name: &str) -> bool {
    let (prefix, suffix) = TEMPORARY;
    name.starts_with(prefix) && name.ends_with(suffix)
}

/// The names in a directory, sorted; empty if it does not exist.
pub(super) fn names(directory: &Path) -> Result<Vec<String>, Failure> {
    let unreadable = |error| Failure::of_file(directory.display(), "cannot be read", &error);
    let Some(entries) = if_there(fs::read_dir(directory)).map_err(unreadable)? else { return Ok(Vec::new()) };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let mut names = entries.map(name).collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
    names.sort();
    Ok(names)
}

/// Creates a directory, if it does not exist.
pub(super) fn make_directory(path: &Path) -> Result<(), Failure> {
    let made = || {
        if !path.is_dir() {
            fs::create_dir_all(path)?;
            sync_directory(parent(path))?;
        }
        Ok(())
    };
    made().map_err(|error: io::Error| Failure::of_file(path.display(), "cannot be made", &error))
}

fn written(path: &Path, written: io::Result<()>) -> Result<(), Failure> {
    written.map_err(|error| Failure::of_file(path.display(), "cannot be written", &error))
}

fn removed(path: &Path, removed: io::Result<()>) -> Result<(), Failure> {
    let removed =
        if_there(removed).map_err(|error| Failure::of_file(path.display(), "cannot be removed", &error));
    removed.map(|_| ())
}

/// Turns a "not found" error into `None`.
pub(super) fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}
