//! The certificate files: where they are, who may read them, and how they change.
//!
//! A process that writes into a directory locks the directory itself, which leaves no trace. The lock is held for
//! milliseconds, so others wait for it. Readers need no lock.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_proto::tls::{CA_FILE, CERTIFICATE_FILE, KEY_FILE};
use rcgen::PublicKeyData as _;

use super::authority::AuthorityError;
use super::{Authority, Certificate, CertsError, Issued, Name, certificate};
use crate::input;
use crate::runs::files::{self, READABLE, Staged};

/// A CA's private key.
pub const CA_KEY: &str = "ca.key";

/// Readable by its owner only.
const SECRET: u32 = 0o600;
const PRIVATE: u32 = 0o700;
/// Every user may read, and only the owner may write: a process that can write into a directory can put other keys
/// into it.
const PUBLIC: u32 = 0o755;
/// Maximum size of a file, in bytes.
const LARGEST: u64 = 1 << 20;

/// How long to wait for another process that writes into the same directory.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// A lock for writing into a directory, released on drop.
#[derive(Debug)]
pub struct DirectoryLock {
    path: PathBuf,
    _lock: File,
}

impl DirectoryLock {
    /// Creates the directory if necessary, and locks it. Temporary files of an interrupted process are removed.
    ///
    /// # Errors
    /// If it cannot be created or written, or another process does not release it.
    pub fn take(path: &Path) -> Result<Self, CertsError> {
        input::check_directory(path).map_err(CertsError::Unwritable)?;
        make(path, PUBLIC).map_err(|error| unwritable(path, "cannot be made", &error))?;
        Self::of(path)
    }

    /// Like [`DirectoryLock::take`], for a private directory: if it is open to other users, it is closed, if
    /// possible. A volume that only this process mounts may be open and have another owner.
    ///
    /// # Errors
    /// As [`DirectoryLock::take`].
    pub fn take_private(path: &Path) -> Result<Self, CertsError> {
        input::check_directory(path).map_err(CertsError::Unwritable)?;
        match path.metadata() {
            Ok(there) if there.mode() & !PRIVATE & 0o777 == 0 => {}
            Ok(_) => _ = fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE)),
            Err(_) => make(files::parent(path), PUBLIC)
                .and_then(|()| make(path, PRIVATE))
                .map_err(|error| unwritable(path, "cannot be made", &error))?,
        }
        Self::of(path)
    }

    fn of(path: &Path) -> Result<Self, CertsError> {
        let lock = File::open(path).map_err(|error| unwritable(path, "cannot be opened", &error))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let what = "another process has been making certificates here for a while (end it, and try again)";
                    return Err(CertsError::Unwritable(Failure::at(FailureKind::Data, path.display(), what)));
                }
                Err(TryLockError::Error(error)) => return Err(unwritable(path, "cannot be locked", &error)),
            }
        }
        files::remove_temporary(path).map_err(CertsError::Unwritable)?;
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    /// Writes a CA: first its key, which must not be lost.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_authority(&self, authority: &Authority) -> Result<(), CertsError> {
        self.write(CA_KEY, &authority.key(), "ca-key", SECRET)?;
        self.write(CA_FILE, authority.trusted(), "ca-crt", READABLE)
    }

    /// Writes a CA's certificate beside its existing key.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_authority_certificate(&self, authority: &Authority) -> Result<(), CertsError> {
        self.write(CA_FILE, authority.trusted(), "ca-crt", READABLE)
    }

    /// Writes the CAs that the directory's process trusts.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_trusted(&self, trusted: &str) -> Result<(), CertsError> {
        self.write(CA_FILE, trusted, "tls-ca", READABLE)
    }

    /// Writes a whole TLS directory; certificate and key change as close together as possible.
    ///
    /// # Errors
    /// If a file cannot be written. Certificate and key are then the old ones, unless the very last step failed.
    pub fn write_issued(&self, trusted: &str, issued: &Issued) -> Result<(), CertsError> {
        self.write_trusted(trusted)?;
        let (key, certificate) = (self.path.join(KEY_FILE), self.path.join(CERTIFICATE_FILE));
        let staged_key = stage(&key, &issued.key, "tls-key", SECRET)?;
        let staged_certificate = stage(&certificate, &issued.certificate, "tls-crt", READABLE)?;
        staged_key.rename().map_err(|error| unwritable(&key, UNWRITABLE, &error))?;
        staged_certificate.rename().map_err(|error| unwritable(&certificate, UNWRITABLE, &error))?;
        self.sync()
    }

    fn write(&self, name: &str, content: &str, kind: &str, mode: u32) -> Result<(), CertsError> {
        let path = self.path.join(name);
        let staged = stage(&path, content, kind, mode)?;
        staged.rename().map_err(|error| unwritable(&path, UNWRITABLE, &error))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), CertsError> {
        files::sync_directory(&self.path).map_err(|error| unwritable(&self.path, UNWRITABLE, &error))
    }
}

/// Creates a directory and its parents, with at most this mode whatever the umask. Another process may be creating it
/// at the same time.
fn make(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Writes a TLS directory with this certificate and the CAs to trust.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, trusted: &str, issued: &Issued) -> Result<(), CertsError> {
    DirectoryLock::take(path)?.write_issued(trusted, issued)
}

const UNWRITABLE: &str = "cannot be written";

fn stage<'a>(path: &'a Path, content: &str, kind: &'a str, mode: u32) -> Result<Staged<'a>, CertsError> {
    Staged::new(path, content.as_bytes(), kind, mode).map_err(|error| unwritable(path, UNWRITABLE, &error))
}

fn unwritable(path: &Path, what: &str, error: &io::Error) -> CertsError {
    CertsError::Unwritable(Failure::of_file(path.display(), what, error))
}

fn unusable(path: &Path, what: &str) -> CertsError {
    CertsError::Unusable(Failure::at(FailureKind::NotAllowed, path.display(), what))
}

/// The content of a file, or `None` if it does not exist.
fn read(path: &Path) -> Result<Option<String>, CertsError> {
    if !input::exists(path).map_err(CertsError::Unusable)? {
        return Ok(None);
    }
    let bytes = input::read(path, |_| LARGEST).map_err(CertsError::Unusable)?;
    // Invalid text is not PEM either; the parser will report it.
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Whether users other than its owner may read a file.
pub fn is_open_to_others(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.mode() & 0o077 != 0)
}

/// The state of a CA's directory.
#[derive(Debug)]
pub enum FoundAuthority {
    /// No CA.
    Nothing,
    /// A key without a certificate, as an interrupted `init` leaves it; the key.
    KeyOnly(String),
    /// A whole CA.
    Whole(Box<Authority>),
}

/// Reads the CA in a directory, as far as there is one.
///
/// # Errors
/// If the files are not a CA, or can't be read; with the remedy.
pub fn authority(path: &Path) -> Result<FoundAuthority, CertsError> {
    let (certificates_path, key_path) = (path.join(CA_FILE), path.join(CA_KEY));
    match (read(&certificates_path)?, read(&key_path)?) {
        (None, None) => Ok(FoundAuthority::Nothing),
        (None, Some(key)) => Ok(FoundAuthority::KeyOnly(key)),
        (Some(_), None) => Err(unusable(
            &key_path,
            "is not there, and only it can sign (put it back; or move the directory away, and a new CA is made)",
        )),
        (Some(certificates), Some(key)) => match Authority::from_pem(&certificates, &key) {
            Ok(authority) => Ok(FoundAuthority::Whole(Box::new(authority))),
            Err(AuthorityError::Certificate(what)) => Err(unusable(
                &certificates_path,
                &format!("{what} (restore it; or remove it, and init makes one for {CA_KEY})"),
            )),
            Err(AuthorityError::Key(what)) => Err(unusable_key(&key_path, &what)),
        },
    }
}

/// The error for an unusable CA key.
pub fn unusable_key(path: &Path, what: &str) -> CertsError {
    unusable(path, &format!("{what} (restore it; or move the directory away, and a new CA is made)"))
}

/// The CA in this directory, which must exist.
///
/// # Errors
/// If it does not exist; with the remedy.
pub fn existing_authority(path: &Path) -> Result<Authority, CertsError> {
    match authority(path)? {
        FoundAuthority::Whole(authority) => Ok(*authority),
        FoundAuthority::Nothing => {
            Err(unusable(path, "holds no CA (make one with: coordinator certs init DIR; it is in DIR/ca)"))
        }
        FoundAuthority::KeyOnly(_) => Err(unusable(
            &path.join(CA_FILE),
            "is not there (restore it; or run coordinator certs init, which makes one for the key)",
        )),
    }
}

/// The state of a TLS directory.
#[derive(Debug)]
pub enum Found {
    /// No certificate.
    Nothing,
    /// A file without a valid certificate: what is wrong with it.
    Damaged(String),
    /// A certificate.
    Held(Box<Held>),
}

/// A certificate with its key and the CAs to trust.
#[derive(Debug)]
pub struct Held {
    /// The process' own certificate.
    pub certificate: Certificate,
    /// The certificates to trust.
    pub trusted: Vec<Certificate>,
    /// The same certificates, as text.
    pub trusted_text: Option<String>,
    /// Whether the key is that of the certificate, or what is wrong with it.
    pub key: Result<(), String>,
}

impl Held {
    /// Reads a directory.
    ///
    /// # Errors
    /// If a file is there and cannot be read.
    pub fn read(path: &Path) -> Result<Found, CertsError> {
        let certificate = match first_certificate(path)? {
            Some(Ok(certificate)) => certificate,
            Some(Err(what)) => return Ok(Found::Damaged(format!("{CERTIFICATE_FILE} {what}"))),
            None => return Ok(Found::Nothing),
        };
        let key = match read(&path.join(KEY_FILE))? {
            None => Err(format!("{KEY_FILE} is not there")),
            Some(text) => fits(&text, &certificate),
        };
        let trusted_text = read(&path.join(CA_FILE))?;
        let trusted =
            trusted_text.as_deref().and_then(|text| certificate::all(text).ok()).unwrap_or_default();
        Ok(Found::Held(Box::new(Self { certificate, trusted, trusted_text, key })))
    }

    /// The trusted certificate whose key signed this one.
    pub fn signer(&self) -> Option<&Certificate> {
        self.trusted.iter().find(|signer| self.certificate.is_signed_by(signer))
    }
}

/// The first certificate of a file, or what is wrong with it; `None` if the file does not exist.
fn first_certificate(path: &Path) -> Result<Option<Result<Certificate, String>>, CertsError> {
    let Some(chain) = read(&path.join(CERTIFICATE_FILE))? else { return Ok(None) };
    Ok(certificate::all(&chain).map(|chain| chain.into_iter().next()).transpose())
}

/// The names in a directory's coordinator certificate, for its replacement; empty if there is none. They must not be
/// lost silently: the coordinator could no longer be reached under them.
///
/// # Errors
/// If it cannot be read, with the remedy.
pub fn names(path: &Path) -> Result<Vec<Name>, CertsError> {
    const REMEDY: &str = "its names would be lost: restore it, or say them with --names NAME,…";
    let unknown = |failure: &Failure| {
        let what = format!("{} ({REMEDY})", failure.problem());
        CertsError::Unusable(Failure::new(FailureKind::NotAllowed, what))
    };
    let first = first_certificate(path).map_err(|error| unknown(&error.into()))?;
    match first {
        Some(Ok(certificate)) => Ok(certificate.names().to_vec()),
        Some(Err(what)) => {
            let path = path.join(CERTIFICATE_FILE);
            Err(unknown(&Failure::at(FailureKind::NotAllowed, path.display(), what)))
        }
        None => Ok(Vec::new()),
    }
}

fn fits(key: &str, certificate: &Certificate) -> Result<(), String> {
    let key = certificate::key(key).map_err(|what| format!("{KEY_FILE} {what}"))?;
    let fits = key.subject_public_key_info() == certificate.public_key();
    if fits { Ok(()) } else { Err(format!("{KEY_FILE} belongs to another certificate")) }
}

/// The certificates of a CA's directory, with or without its key.
///
/// # Errors
/// If it cannot be read.
pub fn authority_certificates(path: &Path) -> Result<Vec<Certificate>, CertsError> {
    let path = path.join(CA_FILE);
    let text = read(&path)?;
    text.map_or(Ok(Vec::new()), |text| certificate::all(&text).map_err(|what| unusable(&path, &what)))
}
