//! A run directory: what a job leaves behind.
//!
//! | file | what |
//! | --- | --- |
//! | `job.toml` | the job, fully resolved |
//! | `history.jsonl` | a line an epoch ([`crate::see::history::Row`]) |
//! | `events.jsonl` | what happened in the cluster meanwhile |
//! | `model.safetensors` | the trained parameters ([`model`]) |
//! | `receipt.json` | what makes the result checkable ([`receipt`]); appears whole, when the job is done |
//! | `plots/` | pictures: history, digits, predictions |
//!
//! One process owns a run directory while it writes: it holds a lock on `.lock`, which says who it is.

pub mod model;
pub mod receipt;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use millefeuille_core::job::Job;

use crate::see::history::Row;

const JOB: &str = "job.toml";
const HISTORY: &str = "history.jsonl";
const EVENTS: &str = "events.jsonl";
const LOCK: &str = ".lock";
const RECEIPT: &str = "receipt.json";
const MODEL: &str = "model.safetensors";
const PLOTS: &str = "plots";
/// Whatever of these is there, a run is there.
///
/// In the order in which they are removed: what says that the rest is there goes first, what the rest is of last.
const TRACES: [&str; 5] = [RECEIPT, MODEL, HISTORY, EVENTS, JOB];

/// What to do where a run is already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Refuse,
    /// Go on with it.
    Resume,
    /// Remove it first.
    Overwrite,
}

/// A run directory that this process owns.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Held for as long as this process owns the directory.
    _lock: File,
    /// The directories that were made for it, the innermost first.
    made: Vec<PathBuf>,
}

/// What is wrong with a run directory: one line that names it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RunError(String);

impl RunError {
    fn of(path: &Path, what: impl std::fmt::Display) -> Self {
        Self(format!("{}: {what}", path.display()))
    }
}

impl RunDir {
    /// Takes this directory, and makes it if need be.
    ///
    /// # Errors
    /// If it cannot be written, belongs to another process, or holds a run that is not to be touched.
    pub fn claim(path: &Path, existing: Existing) -> Result<Self, RunError> {
        let made =
            path.ancestors().take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists());
        let made = made.map(Path::to_path_buf).collect();
        fs::create_dir_all(path).map_err(|error| RunError::of(path, format!("cannot be made: {error}")))?;
        let lock = lock(path)?;
        let run = Self { path: path.to_path_buf(), _lock: lock, made };
        match existing {
            Existing::Refuse if run.holds_a_run() => Err(RunError::of(
                path,
                "there is a run already (--resume finishes it, --overwrite starts anew, --run-dir names another)",
            )),
            // What is there stays until the new run begins: it may not come to that.
            Existing::Refuse | Existing::Resume | Existing::Overwrite => Ok(run),
        }
    }

    /// Takes the first free directory `<name>-<number>` in `runs` whose name is not `taken`.
    ///
    /// # Errors
    /// If none can be made.
    pub fn claim_next(runs: &Path, name: &str, taken: impl Fn(&str) -> bool) -> Result<Self, RunError> {
        for number in 1..u32::MAX {
            let id = format!("{name}-{number}");
            let path = runs.join(&id);
            if !path.exists() && !taken(&id) {
                return Self::claim(&path, Existing::Refuse);
            }
        }
        Err(RunError::of(runs, "no number is free"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its last component: the run's id.
    pub fn id(&self) -> String {
        let name = self.path.file_name().or_else(|| self.path.parent().and_then(Path::file_name));
        name.map_or_else(|| "run".to_string(), |name| name.to_string_lossy().into_owned())
    }

    fn holds_a_run(&self) -> bool {
        holds_a_run(&self.path)
    }

    /// Removes what a run left; nothing that is not a run's.
    fn clear(&self) -> Result<(), RunError> {
        for name in TRACES {
            remove(&self.path.join(name), |path| fs::remove_file(path))?;
        }
        remove(&self.path.join(PLOTS), |path| fs::remove_dir_all(path))
    }

    /// Begins the run: what an unfinished one before it left is removed, since the job trains from its beginning.
    ///
    /// # Errors
    /// If something can't be written.
    pub fn begin(&self, job: &Job) -> Result<(), RunError> {
        self.clear()?;
        self.write(JOB, job.to_toml().as_bytes())
    }

    /// Adds a line of history.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn append_history(&self, row: &Row) -> Result<(), RunError> {
        self.append(HISTORY, &row.to_line())
    }

    /// Adds a line to the events.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn append_event(&self, line: &str) -> Result<(), RunError> {
        self.append(EVENTS, line)
    }

    fn append(&self, name: &str, line: &str) -> Result<(), RunError> {
        let path = self.path.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(format!("{}\n", line.trim_end()).as_bytes()));
        written.map_err(|error| RunError::of(&path, format!("cannot be written: {error}")))
    }

    /// Writes a file whole: under another name first, then renamed, all of it on disk when this returns.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), RunError> {
        let path = self.path.join(name);
        write_whole(&path, content)
            .map_err(|error| RunError::of(&path, format!("cannot be written: {error}")))
    }

    /// Writes a picture.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write_plot(&self, name: &str, svg: &str) -> Result<(), RunError> {
        let plots = self.path.join(PLOTS);
        fs::create_dir_all(&plots)
            .map_err(|error| RunError::of(&plots, format!("cannot be made: {error}")))?;
        self.write(&format!("{PLOTS}/{name}"), svg.as_bytes())
    }

    /// Brings the history that was appended onto the disk.
    ///
    /// # Errors
    /// If that fails.
    pub fn sync(&self) -> Result<(), RunError> {
        for name in [HISTORY, EVENTS] {
            let path = self.path.join(name);
            let synced = File::open(&path).and_then(|file| file.sync_all());
            match synced {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(RunError::of(&path, format!("cannot be written: {error}")));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // A job that never began leaves no trace.
        if !self.holds_a_run() {
            let _ = fs::remove_file(self.path.join(LOCK));
            for directory in &self.made {
                // One that others use by now is not empty, and stays.
                let _ = fs::remove_dir(directory);
            }
        }
    }
}

/// Whether there is anything of a run in this directory.
pub fn holds_a_run(path: &Path) -> bool {
    TRACES.iter().any(|name| path.join(name).exists())
}

fn lock(path: &Path) -> Result<File, RunError> {
    let file = path.join(LOCK);
    let open = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&file);
    let mut lock = open.map_err(|error| RunError::of(&file, format!("cannot be written: {error}")))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() };
            return Err(RunError::of(path, format!("{holder} works in this run directory")));
        }
        Err(TryLockError::Error(error)) => {
            return Err(RunError::of(&file, format!("cannot be locked: {error}")));
        }
    }
    let holder = format!("process {}\n", millefeuille_worker::process::name());
    let written = lock.set_len(0).and_then(|()| lock.write_all(holder.as_bytes()));
    written.map_err(|error| RunError::of(&file, format!("cannot be written: {error}")))?;
    Ok(lock)
}

fn remove(path: &Path, how: impl Fn(&Path) -> std::io::Result<()>) -> Result<(), RunError> {
    match how(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RunError::of(path, format!("cannot be removed: {error}")))
        }
        _ => Ok(()),
    }
}

fn write_whole(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(readable)?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

/// A run that is read, not written.
#[derive(Clone, Debug)]
pub struct SavedRun {
    path: PathBuf,
}

impl SavedRun {
    /// The run in this directory.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        if !path.is_dir() {
            return Err(RunError::of(path, "there is no such run directory"));
        }
        if !path.join(JOB).is_file() {
            return Err(RunError::of(path, format!("not a run directory: it has no {JOB}")));
        }
        Ok(Self { path: path.to_path_buf() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The job.
    ///
    /// # Errors
    /// If `job.toml` can't be read.
    pub fn job(&self) -> Result<Job, RunError> {
        let path = self.path.join(JOB);
        let text = fs::read_to_string(&path).map_err(|error| RunError::of(&path, error))?;
        Job::parse(&path.display().to_string(), &text).map_err(|error| RunError(error.to_string()))
    }

    /// The lines of history; none for a run that has not finished an epoch.
    ///
    /// # Errors
    /// If `history.jsonl` can't be read.
    pub fn history(&self) -> Result<Vec<Row>, RunError> {
        let path = self.path.join(HISTORY);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = fs::read_to_string(&path).map_err(|error| RunError::of(&path, error))?;
        let row = |(number, line): (usize, &str)| {
            Row::from_line(line).map_err(|error| RunError::of(&path, format!("line {}: {error}", number + 1)))
        };
        text.lines().enumerate().map(row).collect()
    }

    /// The trained parameters, checked against the job's model.
    ///
    /// # Errors
    /// If the job is not done, or its model does not fit the job.
    pub fn parameters(&self, model: &millefeuille_core::learn::model::Model) -> Result<Vec<f32>, RunError> {
        let (path, bytes) = self.model()?;
        model::decode(&bytes, model).map_err(|what| RunError::of(&path, what))
    }

    /// How many values the trained model takes.
    ///
    /// # Errors
    /// If the job is not done, or its model can't be read.
    pub fn inputs(&self) -> Result<usize, RunError> {
        let (path, bytes) = self.model()?;
        model::inputs(&bytes).map_err(|what| RunError::of(&path, what))
    }

    fn model(&self) -> Result<(PathBuf, Vec<u8>), RunError> {
        let path = self.path.join(MODEL);
        if !path.exists() {
            let what =
                format!("there is no {MODEL}: the job is not done (coordinator train --resume finishes it)");
            return Err(RunError::of(&self.path, what));
        }
        let bytes = fs::read(&path).map_err(|error| RunError::of(&path, error))?;
        Ok((path, bytes))
    }

    /// Whether its job is done.
    pub fn is_done(&self) -> bool {
        self.path.join(RECEIPT).exists()
    }

    /// The receipt of a job that is done.
    ///
    /// # Errors
    /// If there is none, or it can't be read.
    pub fn receipt(&self) -> Result<Option<receipt::Receipt>, RunError> {
        let path = self.path.join(RECEIPT);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(|error| RunError::of(&path, error))?;
        serde_json::from_str(&text).map(Some).map_err(|error| RunError::of(&path, error))
    }
}

/// Where files that the result consists of are written.
pub mod names {
    /// The trained parameters.
    pub const MODEL: &str = super::MODEL;
    /// What makes the result checkable.
    pub const RECEIPT: &str = super::RECEIPT;
}
