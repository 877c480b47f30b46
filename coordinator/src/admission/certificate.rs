//! The coordinator's certificate, which may be renewed while it runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millefeuille_proto::tls::{CA_FILE, CERTIFICATE_FILE, Identity, KEY_FILE, Role, date, read_file};
use rustls::ServerConfig;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

/// Interval at which the files are checked.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// In seconds. With less time left, a warning is logged.
const SOON: i64 = 7 * DAY;
/// Time between two such warnings.
const WARN_EVERY: Duration = Duration::from_secs(DAY as u64);
/// A day, in seconds.
const DAY: i64 = 24 * 60 * 60;

/// The certificate for accepting connections. Changed files are read again; if the new ones can't be used, the old
/// certificate stays.
#[derive(Debug)]
pub struct ServerCertificate {
    directory: PathBuf,
    now: RwLock<Loaded>,
}

#[derive(Clone, Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    not_after: i64,
    /// Digest of the files' contents.
    digest: [u8; 32],
}

impl ServerCertificate {
    /// Reads the certificate from the directory.
    ///
    /// # Errors
    /// If it can't be used, is not a coordinator's, or has expired: one line.
    pub fn read(directory: &Path) -> Result<Self, String> {
        let loaded = Loaded::read(directory)?;
        Ok(Self { directory: directory.to_path_buf(), now: RwLock::new(loaded) })
    }

    /// The TLS settings for the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded().config)
    }

    /// When it expires, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.loaded().not_after
    }

    fn loaded(&self) -> Loaded {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Checks the files periodically.
    pub(super) async fn renew(self: Arc<Self>) {
        let mut last_trouble = None;
        let mut warned = None;
        loop {
            self.warn_of_the_end(&mut warned);
            tokio::time::sleep(LOOK_EVERY).await;
            // On another thread: a hanging file system must not block the cluster.
            let looking = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || {
                let digest = digest(&looking.directory);
                let changed = digest != Some(looking.loaded().digest);
                (digest, changed.then(|| Loaded::read(&looking.directory)))
            });
            let Ok((digest, read)) = looked.await else { continue };
            let Some(read) = read else {
                last_trouble = None;
                continue;
            };
            match read {
                Ok(loaded) => {
                    tracing::info!("the certificate was renewed: valid until {}", date(loaded.not_after));
                    *self.now.write().unwrap_or_else(PoisonError::into_inner) = loaded;
                    (last_trouble, warned) = (None, None);
                }
                // Files that are just being replaced will match at the next check.
                Err(trouble) => {
                    if last_trouble.as_ref() == Some(&(digest, trouble.clone())) {
                        continue;
                    }
                    tracing::warn!("the new certificate is not used: {trouble}");
                    last_trouble = Some((digest, trouble));
                }
            }
        }
    }

    /// Warns once a day that it expires soon, or has expired.
    fn warn_of_the_end(&self, warned: &mut Option<Instant>) {
        let (until, left) = (date(self.not_after()), self.not_after() - now());
        if left >= SOON || warned.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            return;
        }
        *warned = Some(Instant::now());
        let directory = self.directory.display();
        if left > 0 {
            tracing::warn!("the certificate in {directory} is valid until {until} only: {RENEW}");
        } else {
            tracing::error!(
                "the certificate in {directory} has expired on {until}, and nobody can connect: {RENEW}"
            );
        }
    }
}

const RENEW: &str = "renew it with coordinator certs init, or certs issue";

impl Loaded {
    fn read(directory: &Path) -> Result<Self, String> {
        let digest = digest(directory).unwrap_or_default();
        let identity = Identity::read(directory)?;
        let config = Arc::new(identity.server_config()?);
        let what = identity.description();
        if identity.role() != Some(Role::Coordinator) {
            return Err(format!(
                "{what}: not a coordinator's (its URI would be {})",
                Role::Coordinator.uri()
            ));
        }
        identity.is_accepted().map_err(|trouble| format!("{what}: {trouble} ({RENEW})"))?;
        Ok(Self { config, not_after: identity.validity().1, digest })
    }
}

/// The digest of the three files, or `None` if one can't be read.
fn digest(directory: &Path) -> Option<[u8; 32]> {
    let mut sha = Sha256::new();
    for name in [CA_FILE, CERTIFICATE_FILE, KEY_FILE] {
        let bytes = read_file(&directory.join(name)).ok()?;
        sha.update((bytes.len() as u64).to_le_bytes());
        sha.update(bytes);
    }
    Some(sha.finalize().into())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
