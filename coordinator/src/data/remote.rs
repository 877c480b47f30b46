//! Reads data from object stores and web servers: `s3://`, `gs://`, `az://`, `http://` and `https://`.
//!
//! The crate `object_store` speaks their protocols. Credentials come from the environment, under the names that the
//! stores' own programs use (`AWS_ACCESS_KEY_ID`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` and so on), and
//! stay there: a job file, a log and a receipt have the address alone, and an address with a password in it is refused.
//!
//! A caller waits on its own thread, as for a file. No wait is without end: an attempt to connect, a server that says
//! nothing and repeated attempts have a limit each.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use millefeuille_core::data::address;
use millefeuille_core::data::formats::idx::file::START;
use millefeuille_core::failure::{Failure, FailureKind};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{
    ClientConfigKey, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, RetryConfig,
};
use tokio::time::timeout;

/// For how long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// For how long a request that failed is tried again.
const RETRIES: Duration = Duration::from_secs(20);
/// Settings of every client. The crate's limit for a whole request would end long transfers.
const CLIENT: [(ClientConfigKey, &str); 3] = [
    (ClientConfigKey::ConnectTimeout, "10 seconds"),
    (ClientConfigKey::Timeout, "1 day"),
    (ClientConfigKey::UserAgent, concat!("millefeuille/", env!("CARGO_PKG_VERSION"))),
];

/// Whether there is an object at this address.
///
/// # Errors
/// If the server does not say.
pub(super) fn exists(address: &Path) -> Result<bool, Failure> {
    let object = Object::at(address)?;
    match wait(async { timeout(SILENCE, object.store.head(&object.key)).await })? {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(Error::NotFound { .. })) => Ok(false),
        Ok(Err(error)) => Err(object.failed(&error)),
        Err(_) => Err(object.silent()),
    }
}

/// Whether objects lie below this address. A web server does not say: there, it is a directory if nothing lies at it.
pub(super) fn is_directory(address: &Path) -> bool {
    if is_web(address) {
        exists(address) == Ok(false)
    } else {
        list(address).is_ok_and(|names| !names.is_empty())
    }
}

/// The names of what lies directly below this address, sorted.
///
/// # Errors
/// If the server does not say.
pub(super) fn list(address: &Path) -> Result<Vec<String>, Failure> {
    if is_web(address) {
        let what = "a web server does not say which files there are (give the address of one file)";
        return Err(wrong(address, what));
    }
    let object = Object::at(address)?;
    let listed = wait(async { timeout(SILENCE, object.store.list_with_delimiter(Some(&object.key))).await })?;
    let listed = listed.map_err(|_| object.silent())?.map_err(|error| object.failed(&error))?;
    let keys = listed.objects.into_iter().map(|object| object.location).chain(listed.common_prefixes);
    let mut names: Vec<_> = keys.filter_map(|key| key.filename().map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

fn is_web(address: &Path) -> bool {
    address::parts(address).is_some_and(|(scheme, ..)| scheme.starts_with("http"))
}

/// Reads as many bytes of an object as `worth` returns for its first [`START`] bytes, or all, if there are fewer. Calls
/// `moved` whenever bytes have come; if that fails, so does the read.
///
/// # Errors
/// The address and what is wrong with it.
pub(super) fn read(
    address: &Path,
    worth: impl FnOnce(&[u8]) -> u64,
    moved: impl FnMut() -> io::Result<()>,
) -> Result<Vec<u8>, Failure> {
    let object = Object::at(address)?;
    wait(object.read(worth, moved))?
}

/// Gives an object's bytes from `first` on to `take`, as they come.
///
/// # Errors
/// The address and what is wrong with it; so also if the server gives whole objects only, or if `take` fails.
pub(crate) fn download(
    address: &Path,
    first: u64,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Failure> {
    if let Some(problem) = address::problem(address) {
        return Err(wrong(address, problem));
    }
    let object = Object::at(address)?;
    let range = (first > 0).then_some(GetRange::Offset(first));
    wait(object.chunks(GetOptions { range, ..GetOptions::default() }, |chunk| take(chunk).map(|()| true)))?
}

/// An object of a store.
struct Object<'a> {
    address: &'a Path,
    scheme: &'a str,
    store: Arc<dyn ObjectStore>,
    key: Key,
}

impl<'a> Object<'a> {
    fn at(address: &'a Path) -> Result<Self, Failure> {
        let (scheme, host, path) = address::parts(address).ok_or_else(|| wrong(address, "is no address"))?;
        let unusable =
            |error: &dyn std::error::Error| wrong(address, format!("cannot be read: {}", cause(error)));
        let key = Key::from_url_path(path).map_err(|error| unusable(&error))?;
        let store = store(scheme, &format!("{scheme}://{host}"));
        let store = store.map_err(|error| unusable(&error).with_hint(credentials(scheme)))?;
        Ok(Self { address, scheme, store, key })
    }

    async fn read(
        &self,
        worth: impl FnOnce(&[u8]) -> u64,
        mut moved: impl FnMut() -> io::Result<()>,
    ) -> Result<Vec<u8>, Failure> {
        let (mut bytes, mut worth, mut most) = (Vec::new(), Some(worth), u64::MAX);
        let take = |chunk: &[u8]| {
            bytes.extend_from_slice(chunk);
            moved()?;
            if bytes.len() >= START
                && let Some(worth) = worth.take()
            {
                most = worth(&bytes[..START]).max(START as u64);
            }
            Ok((bytes.len() as u64) < most)
        };
        self.chunks(GetOptions::default(), take).await?;
        if let Some(worth) = worth {
            most = worth(&bytes);
        }
        bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        Ok(bytes)
    }

    /// Gives the object's bytes to `take` as they come, for as long as it returns true.
    async fn chunks(
        &self,
        options: GetOptions,
        mut take: impl FnMut(&[u8]) -> io::Result<bool>,
    ) -> Result<(), Failure> {
        let asked =
            timeout(SILENCE, self.store.get_opts(&self.key, options)).await.map_err(|_| self.silent())?;
        let mut chunks = asked.map_err(|error| self.failed(&error))?.into_stream();
        while let Some(chunk) = timeout(SILENCE, chunks.next()).await.map_err(|_| self.silent())? {
            let chunk = chunk.map_err(|error| self.failed(&error))?;
            let goes_on = take(&chunk);
            let unusable = |error| Failure::of_file(self.address.display(), "cannot be read", &error);
            if !goes_on.map_err(unusable)? {
                break;
            }
        }
        Ok(())
    }

    fn failed(&self, error: &Error) -> Failure {
        let credentials = credentials(self.scheme);
        match error {
            Error::NotFound { .. } => wrong(self.address, "there is nothing at this address"),
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                wrong(self.address, format!("access is denied ({credentials})"))
            }
            error => wrong(self.address, format!("cannot be read: {} ({credentials})", cause(error))),
        }
    }

    fn silent(&self) -> Failure {
        let what =
            format!("the server has said nothing for {} s (can it be reached from here?)", SILENCE.as_secs());
        wrong(self.address, what)
    }
}

/// The store at this address, with the credentials of the environment.
fn store(scheme: &str, root: &str) -> Result<Arc<dyn ObjectStore>, Error> {
    // One library for TLS in the whole program. Another one may be set already: that is this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig { max_retries: 4, retry_timeout: RETRIES, ..RetryConfig::default() };
    Ok(match scheme {
        "s3" => {
            let builder = AmazonS3Builder::from_env().with_url(root).with_retry(retry);
            let set = |builder: AmazonS3Builder, (key, value)| {
                builder.with_config(AmazonS3ConfigKey::Client(key), value)
            };
            Arc::new(CLIENT.into_iter().fold(builder, set).build()?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(root).with_retry(retry);
            let set = |builder: GoogleCloudStorageBuilder, (key, value)| {
                builder.with_config(GoogleConfigKey::Client(key), value)
            };
            Arc::new(CLIENT.into_iter().fold(builder, set).build()?)
        }
        "az" => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(root).with_retry(retry);
            let set = |builder: MicrosoftAzureBuilder, (key, value)| {
                builder.with_config(AzureConfigKey::Client(key), value)
            };
            Arc::new(CLIENT.into_iter().fold(builder, set).build()?)
        }
        _ => {
            let builder = HttpBuilder::new().with_url(root).with_retry(retry);
            // Who writes http:// means it.
            let builder = builder.with_config(ClientConfigKey::AllowHttp, "true");
            let set = |builder: HttpBuilder, (key, value)| builder.with_config(key, value);
            Arc::new(CLIENT.into_iter().fold(builder, set).build()?)
        }
    })
}

/// Where the credentials for a store come from.
fn credentials(scheme: &str) -> &'static str {
    match scheme {
        "s3" => {
            "credentials come from the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
             AWS_SKIP_SIGNATURE=true for a public bucket; AWS_REGION, AWS_ENDPOINT and AWS_ALLOW_HTTP say where it is"
        }
        "gs" => {
            "credentials come from the environment: GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS, or \
             GOOGLE_SKIP_SIGNATURE=true for a public bucket"
        }
        "az" => {
            "credentials come from the environment: AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or \
             AZURE_SKIP_SIGNATURE=true for a public container"
        }
        _ => "is the address right, and can it be reached from here?",
    }
}

fn wrong(address: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::at(FailureKind::Data, address.display(), what)
}

/// What is at the bottom of an error: what is above it repeats the address.
fn cause(mut error: &dyn std::error::Error) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Waits on this thread, which is none of the runtime's.
fn wait<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(FailureKind::Unexpected, error.to_string()))?;
    Ok(runtime.block_on(work))
}
