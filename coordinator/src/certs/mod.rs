//! The certificates with which a cluster's processes authenticate each other, and how they are made.
//!
//! One certificate authority (CA) stands for one cluster. It signs a certificate for each *role*; a process' role
//! decides what it may do. The role is a URI in the certificate ([`Role::uri`]), so that any other authority, such as
//! cert-manager, can issue the same.
//!
//! - [`name`]: the names under which a coordinator is reached.
//! - [`validity`]: validity periods.
//! - [`authority`]: makes keys and signs certificates. It touches no file, and its caller chooses everything, so that
//!   tests can make certificates that no good authority would.
//! - [`certificate`]: reads certificates, also those that other programs made.
//! - [`directory`]: the certificate files: where they are, who may read them, and how they change.
//! - [`init`](mod@init): `coordinator certs init`, which makes all certificates of a cluster.
//!
//! **The files.** A *TLS directory* is what one process reads: `ca.crt` (the CAs that it trusts), `tls.crt` and
//! `tls.key` (its own identity). The CA's own directory has `ca.crt` and `ca.key`. Keys have mode 0600 from the first
//! byte on. Each file is renamed into place when complete. A certificate and its key are two files and cannot change
//! in one step: both are on disk before the first is renamed, and the renames follow each other at once; a reader in
//! between finds a pair that does not match, and reads again.
//!
//! **A CA is never replaced.** Without it, every certificate of the cluster would have to be renewed at once. If its
//! key exists, `init` at most writes a missing certificate for that key, under the same name: everything that the key
//! has signed stays valid. A CA that expires soon causes a warning.

pub mod authority;
pub mod certificate;
pub mod directory;
pub mod init;
pub mod name;
mod usage;
pub mod validity;

use millefeuille_core::failure::Failure;

pub use authority::{Authority, Issued, Leaf};
pub use certificate::Certificate;
pub use init::{Asked, InitMessage, init};
pub use millefeuille_proto::tls::Role;
pub use name::Name;
pub use usage::Usage;
pub use validity::Validity;

/// Why certificates cannot be made or read: one line that names the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertsError {
    /// A certificate file cannot be read, or has the wrong content.
    #[error(transparent)]
    Unusable(Failure),
    /// A file or directory cannot be written.
    #[error(transparent)]
    Unwritable(Failure),
}

impl From<CertsError> for Failure {
    fn from(error: CertsError) -> Self {
        match error {
            CertsError::Unusable(failure) | CertsError::Unwritable(failure) => failure,
        }
    }
}
