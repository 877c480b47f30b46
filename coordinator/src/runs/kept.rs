//! The files of a run as its owner has left them, so that the owner notices if one is removed or changed from
//! outside.
//!
//! Of each file that the owner writes, the identity (device and inode), the length and the SHA-256 are kept in memory.
//! Identity and length are compared before each write and each checkpoint, the content before the receipt is written:
//! a receipt certifies what the owner wrote, and nothing else.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use millefeuille_core::failure::Failure;
use sha2::{Digest as _, Sha256};

use super::{files, of_run, resume_command};

/// The files that this process has written into a run directory, or has found there and continues.
#[derive(Debug)]
pub(super) struct Kept {
    run: PathBuf,
    files: BTreeMap<String, State>,
}

/// The state of a file.
#[derive(Debug)]
struct State {
    device: u64,
    inode: u64,
    len: u64,
    content: Sha256,
}

impl Kept {
    /// No file yet, of the run in this directory.
    pub(super) fn new(run: &Path) -> Self {
        Self { run: run.to_path_buf(), files: BTreeMap::new() }
    }

    /// Writes a complete file, durably. `kind` names it in failure points.
    pub(super) fn write(&mut self, name: &str, content: &[u8], kind: &str) -> Result<(), Failure> {
        files::write_whole(&self.run.join(name), content, kind)?;
        self.note(name, content)
    }

    /// Appends text to a file, which must be as it was left, or not there yet.
    pub(super) fn append(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.run.join(name);
        let Some(state) = self.files.get_mut(name) else {
            files::create(&path, text)?;
            return self.note(name, text.as_bytes());
        };
        state.check(&path)?;
        files::append(&path, text)?;
        state.len += text.len() as u64;
        state.content.update(text);
        Ok(())
    }

    /// Continues a file of an earlier process from its current state, if it is there.
    pub(super) fn adopt(&mut self, name: &str) -> Result<(), Failure> {
        match files::read(&self.run.join(name))? {
            Some(content) => self.note(name, &content),
            None => Ok(()),
        }
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), Failure> {
        self.files.remove(name);
        files::remove(&self.run.join(name))
    }

    /// Removes a directory and its files, if it is there.
    pub(super) fn remove_directory(&mut self, name: &str) -> Result<(), Failure> {
        self.files.retain(|file, _| !Path::new(file).starts_with(name));
        files::remove_directory(&self.run.join(name))
    }

    /// Checks that every file is there, is the same file, and has its length.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.files.iter().try_for_each(|(name, state)| state.check(&self.run.join(name)))
    }

    /// Checks the content of every file, too.
    pub(super) fn check_content(&self) -> Result<(), Failure> {
        self.check()?;
        for (name, state) in &self.files {
            let path = self.run.join(name);
            let there = files::read(&path)?.unwrap_or_default();
            if Sha256::digest(&there) != state.content.clone().finalize() {
                return Err(outside_change(&path, "changed"));
            }
        }
        Ok(())
    }

    /// Hex SHA-256 of each file.
    pub(super) fn sha256(&self) -> BTreeMap<String, String> {
        let hash = |state: &State| hex::encode(state.content.clone().finalize());
        self.files.iter().map(|(name, state)| (name.clone(), hash(state))).collect()
    }

    fn note(&mut self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let path = self.run.join(name);
        let there = there(&path)?.ok_or_else(|| outside_change(&path, "removed"))?;
        let state = State {
            device: there.dev(),
            inode: there.ino(),
            len: content.len() as u64,
            content: Sha256::new_with_prefix(content),
        };
        self.files.insert(name.to_string(), state);
        Ok(())
    }
}

impl State {
    fn check(&self, path: &Path) -> Result<(), Failure> {
        let Some(there) = there(path)? else { return Err(outside_change(path, "removed")) };
        if (there.dev(), there.ino()) != (self.device, self.inode) {
            return Err(outside_change(path, "replaced"));
        }
        match there.len() {
            len if len == self.len => Ok(()),
            len => Err(outside_change(path, &format!("changed from {} to {len} bytes", self.len))),
        }
    }
}

fn there(path: &Path) -> Result<Option<Metadata>, Failure> {
    let there = files::if_there(fs::metadata(path));
    there.map_err(|error| Failure::of_file(path.display(), "cannot be read", &error))
}

/// The failure for a file that was removed or changed from outside.
fn outside_change(path: &Path, how: &str) -> Failure {
    let what = format!(
        "{how} from outside while the job used it (put the file back, and {} continues the run; --overwrite starts \
         over)",
        resume_command(files::parent(path))
    );
    of_run(path, what)
}
