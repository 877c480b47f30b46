//! How a file gets onto the disk so that a crash leaves the old one or the new one, and never half of one.
//!
//! A file that is written whole appears in four steps: written under a temporary name beside its place, brought onto
//! the disk, renamed, and the rename brought onto the disk by an fsync of the directory. Lines are appended to the
//! other files; what a crash leaves of them is cut back when the run is resumed. A write that fails leaves what was
//! there, and no temporary file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use millefeuille_core::failure::Failure;
use tempfile::NamedTempFile;

use super::of_content;
use crate::failpoints;

const TEMPORARY: (&str, &str) = (".", ".tmp");

/// Writes a file whole; all of it is on disk when this returns. `kind` names it in failure points.
pub(super) fn write_whole(path: &Path, content: &[u8], kind: &str) -> Result<(), Failure> {
    written(path, staged(path, content, kind))
}

fn staged(path: &Path, content: &[u8], kind: &str) -> io::Result<()> {
    Staged::new(path, content, kind, READABLE)?.rename()?;
    sync_directory(parent(path))
}

/// The mode of a file that everybody may read.
pub(crate) const READABLE: u32 = 0o644;

/// A file that is whole and on disk, under a temporary name beside its place. Dropped, it is gone.
pub(crate) struct Staged<'a> {
    file: NamedTempFile,
    path: &'a Path,
    kind: &'a str,
}

impl<'a> Staged<'a> {
    /// Writes it. It has its mode before its name, and until then nobody else may read it.
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

    /// Gives it its name. That is on disk after an fsync of the directory.
    pub(crate) fn rename(self) -> io::Result<()> {
        self.reached("before-rename");
        let (path, kind) = (self.path, self.kind);
        self.file.persist(path).map_err(|error| error.error)?;
        reached(kind, "after-rename");
        Ok(())
    }

    fn reached(&self, stage: &str) {
        reached(self.kind, stage);
    }
}

fn reached(kind: &str, stage: &str) {
    failpoints::at(&format!("{kind}-{stage}"));
}

/// Adds text to the end of a file. A write that fails leaves the file as it was.
pub(super) fn append(path: &Path, text: &str) -> Result<(), Failure> {
    let appended = || {
        if path.exists() {
            regular(path)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let before = file.metadata()?.len();
        file.write_all(text.as_bytes()).inspect_err(|_| _ = file.set_len(before))
    };
    written(path, appended())
}

/// Cuts a file back to its first `len` bytes, on disk when this returns.
pub(super) fn cut(path: &Path, len: u64) -> Result<(), Failure> {
    let cut = || {
        regular(path)?;
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(len)?;
        file.sync_all()
    };
    written(path, cut())
}

/// Brings what was appended to a file onto the disk. One that is not there has nothing to bring.
pub(super) fn sync(path: &Path) -> Result<(), Failure> {
    written(
        path,
        if_there(regular(path).and_then(|()| File::open(path)).and_then(|file| file.sync_all())).map(|_| ()),
    )
}

/// Brings the names in a directory onto the disk.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The directory that a file is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether it is a file as others are: a pipe in its place would never be read to its end.
pub(super) fn regular(path: &Path) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_file() || kind.is_dir() { Ok(()) } else { Err(io::Error::other("not a regular file")) }
}

/// The content of a file, if it is there.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    if_there(regular(path).and_then(|()| fs::read(path)))
        .map_err(|error| Failure::of_file(path.display(), "cannot be read", &error))
}

/// The content of a file of text, if it is there.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, Failure> {
    read(path)?.map(|bytes| text(path, bytes)).transpose()
}

/// The content of a file as text.
pub(super) fn text(path: &Path, bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| of_content(path, format!("not text: {error}")))
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    removed(path, fs::remove_file(path))
}

/// Removes a directory with all that is in it, if it is there.
pub(super) fn remove_directory(path: &Path) -> Result<(), Failure> {
    removed(path, fs::remove_dir_all(path))
}

/// Removes what writes that were cut short have left in a directory, if it is there.
pub(crate) fn remove_temporary(directory: &Path) -> Result<(), Failure> {
    let mut left = names(directory)?.into_iter().filter(|name| is_temporary(name));
    left.try_for_each(|name| remove(&directory.join(name)))
}

/// Whether a file of this name was left by a write that was cut short.
pub(super) fn is_temporary(name: &str) -> bool {
    let (prefix, suffix) = TEMPORARY;
    name.starts_with(prefix) && name.ends_with(suffix)
}

/// The names in a directory, in order; none if it is not there.
pub(super) fn names(directory: &Path) -> Result<Vec<String>, Failure> {
    let unreadable = |error| Failure::of_file(directory.display(), "cannot be read", &error);
    let Some(entries) = if_there(fs::read_dir(directory)).map_err(unreadable)? else { return Ok(Vec::new()) };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let mut names = entries.map(name).collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
    names.sort();
    Ok(names)
}

/// Makes a directory, if it is not there.
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

/// What could be read or removed, if it is there.
pub(super) fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}
