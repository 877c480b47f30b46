//! Downloads well-known data sets from their public mirrors, checks them, and goes on where a download was interrupted.
//!
//! A file is written under a name with [`PART`] until its checksum is right, so a file with its own name is whole. The
//! four files of a set end up in one directory, which a job names as `data.source`.

mod checksum;
mod sets;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use millefeuille_core::failure::{Failure, FailureKind};

use self::checksum::Checksum;
pub use self::sets::DataSet;
use self::sets::{Archive, FileOf};
use crate::data::remote;

/// Follows the name of a file that is not whole yet.
const PART: &str = ".part";

/// Downloads a data set into a directory, from its own mirrors or from `mirror`. Calls `says` with a line for each file.
///
/// # Errors
/// The address and what is wrong with it, if no mirror gives the file; the file, if it is not what it should be or can't be
/// written.
pub fn fetch(
    set: DataSet,
    mirror: Option<&str>,
    into: &Path,
    says: &mut dyn FnMut(String),
) -> Result<(), Failure> {
    fs::create_dir_all(into).map_err(|error| unwritable(into, &error))?;
    let set = set.get();
    let own;
    let mirrors = match mirror {
        Some(mirror) => {
            own = [mirror];
            &own[..]
        }
        None => set.mirrors,
    };
    match set.archive {
        None => set.files.iter().try_for_each(|file| one(mirrors, file, &into.join(file.name), says)),
        Some(archive) => unpacked(mirrors, archive, into, says),
    }
}

/// Downloads a file, unless it is there.
fn one(mirrors: &[&str], file: &FileOf, target: &Path, says: &mut dyn FnMut(String)) -> Result<(), Failure> {
    if is_right(target, file.checksum)? {
        says(format!("{}: there already", target.display()));
        return Ok(());
    }
    let mut last = None;
    for mirror in mirrors {
        let address = PathBuf::from(format!("{}/{}", mirror.trim_end_matches('/'), file.name));
        match from(&address, file.checksum, target) {
            Ok(bytes) => {
                says(format!("{}: {bytes} bytes from {}", target.display(), address.display()));
                return Ok(());
            }
            Err(failure) => last = Some(failure),
        }
    }
    Err(last.unwrap_or_else(|| Failure::new(FailureKind::Unexpected, "a data set has a mirror")))
}

/// Downloads what is missing of a file, checks all of it and gives it its name. Returns its size.
fn from(address: &Path, checksum: Checksum, target: &Path) -> Result<u64, Failure> {
    let part = with_ending(target, PART);
    if !is_right(&part, checksum)? {
        download(address, &part)?;
    }
    if !is_right(&part, checksum)? {
        // Going on with it would give the same again.
        fs::remove_file(&part).map_err(|error| unwritable(&part, &error))?;
        let what = "is not the file that it should be: its checksum is another one (the download was damaged, or the \
                    mirror has changed it: try again, or name another --mirror)";
        return Err(Failure::at(FailureKind::Data, address.display(), what));
    }
    let named = fs::metadata(&part).and_then(|there| fs::rename(&part, target).map(|()| there.len()));
    named.map_err(|error| unwritable(target, &error))
}

/// Appends to the part of a file what is missing of it; begins anew if the server does not give a part.
fn download(address: &Path, part: &Path) -> Result<(), Failure> {
    let there = fs::metadata(part).map_or(0, |there| there.len());
    if there > 0 && append(address, part, there).is_ok() {
        return Ok(());
    }
    append(address, part, 0)
}

fn append(address: &Path, part: &Path, there: u64) -> Result<(), Failure> {
    let file = OpenOptions::new().create(true).append(there > 0).write(true).truncate(there == 0).open(part);
    let mut file: File = file.map_err(|error| unwritable(part, &error))?;
    remote::download(address, there, |bytes| file.write_all(bytes))?;
    file.sync_all().map_err(|error| unwritable(part, &error))
}

/// The files of a set that lies in an archive: they are taken out of it, and the archive is removed.
fn unpacked(
    mirrors: &[&str],
    archive: &Archive,
    into: &Path,
    says: &mut dyn FnMut(String),
) -> Result<(), Failure> {
    let all_there = archive.members.iter().all(|member| into.join(member).exists());
    if all_there {
        says(format!("{}: there already", into.display()));
        return Ok(());
    }
    let path = into.join(archive.file.name);
    one(mirrors, &archive.file, &path, says)?;
    for member in archive.members {
        let target = into.join(member);
        let size = take_out(&path, archive.directory, member, &target)?;
        says(format!("{}: {size} bytes from {}", target.display(), path.display()));
    }
    fs::remove_file(&path).map_err(|error| unwritable(&path, &error))
}

/// Writes a member of an archive. Returns its size.
fn take_out(archive: &Path, directory: &str, member: &str, target: &Path) -> Result<u64, Failure> {
    let damaged = |error: zip::result::ZipError| {
        Failure::at(
            FailureKind::Data,
            archive.display(),
            format!("{directory}/{member} can't be taken out: {error}"),
        )
    };
    let file =
        File::open(archive).map_err(|error| Failure::of_file(archive.display(), "cannot be read", &error))?;
    let mut zip = zip::ZipArchive::new(io::BufReader::new(file)).map_err(damaged)?;
    let mut content = zip.by_name(&format!("{directory}/{member}")).map_err(damaged)?;
    let part = with_ending(target, PART);
    let copied = File::create(&part).and_then(|mut file| {
        let size = io::copy(&mut content, &mut file)?;
        file.sync_all()?;
        fs::rename(&part, target)?;
        Ok(size)
    });
    copied.map_err(|error| unwritable(target, &error))
}

/// Whether a file is there with this checksum.
fn is_right(path: &Path, checksum: Checksum) -> Result<bool, Failure> {
    if !path.exists() {
        return Ok(false);
    }
    checksum.is_of(path).map_err(|error| Failure::of_file(path.display(), "cannot be read", &error))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::of_file(path.display(), "cannot be written", error)
}
