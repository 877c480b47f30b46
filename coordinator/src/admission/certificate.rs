//! The coordinator's certificate, which may be renewed while it runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millefeuille_proto::tls::{CA_FILE, CERTIFICATE_FILE, Identity, KEY_FILE, Role, date, read_file};
use rustls::ServerConfig;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// With less time left, it is warned about.
const SOON: i64 = 7 * DAY;
/// Between two such warnings.
const WARN_EVERY: Duration = Duration::from_secs(DAY as u64);
/// In seconds.
const DAY: i64 = 24 * 60 * 60;

/// A certificate that connections are accepted with. Files that change are read again; new ones that can't be used
/// leave the old in place.
#[derive(Debug)]
pub struct ServerCertificate {
    directory: PathBuf,
    now: RwLock<Loaded>,
}

#[derive(Clone, Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    not_after: i64,
    /// Of the files' contents.
    digest: [u8; 32],
}

impl ServerCertificate {
    /// Reads it from the directory.
    ///
    /// # Errors
    /// One line, if it can't be used, is not a coordinator's, or has expired.
    pub fn read(directory: &Path) -> Result<Self, String> {
        let loaded = Loaded::read(directory)?;
        Ok(Self { directory: directory.to_path_buf(), now: RwLock::new(loaded) })
    }

    /// The settings for the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded().config)
    }

    /// When it ends to be valid, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.loaded().not_after
    }

    fn loaded(&self) -> Loaded {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files again and again.
    pub(super) async fn renew(self: Arc<Self>) {
        let mut last_trouble = None;
        let mut warned = None;
        loop {
            self.warn_of_the_end(&mut warned);
            tokio::time::sleep(LOOK_EVERY).await;
            // Elsewhere: a file system that hangs must not hold the cluster up.
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
                // Files that are just being replaced fit together at the next look.
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

    /// Says once a day that it ends soon, or has ended.
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

/// Of the three files; none while one can't be read.
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
