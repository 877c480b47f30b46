//! The certificates by which the processes of a cluster know each other, and how they are made.
//!
//! One certificate authority (CA) stands for one cluster. It signs a certificate for each *role*; which of them a process
//! holds decides what it may do. The role is a URI in the certificate ([`Role::uri`]), so that any other authority, as
//! cert-manager, can issue the same.
//!
//! - [`name`]: the names under which a coordinator is reached.
//! - [`validity`]: from when until when.
//! - [`authority`]: makes keys and signs certificates. Pure: it touches no file, and lets its caller choose everything,
//!   so that tests can make certificates that no good authority would.
//! - [`certificate`]: reads certificates, whoever made them.
//! - [`directory`]: the files: where they are, who may read them, and how they change.
//! - [`init`](mod@init): what `coordinator certs init` does: all that a cluster needs, as often as one likes.
//!
//! **The files.** A *TLS directory* is what one process reads: `ca.crt` (whom it trusts), `tls.crt` and `tls.key` (who it
//! is). The CA's own directory has `ca.crt` and `ca.key`. Keys have mode 0600 from the first byte on. Each file appears
//! whole, by a rename. A certificate and its key are two files and cannot change in one step: both are written and on
//! disk before the first is renamed, and the renames follow each other at once; who reads in between finds a pair that
//! does not match, and reads again.
//!
//! **A CA is never replaced.** Whoever lost it would have to renew every certificate of the cluster at once. While its key
//! is there, the most that `init` does is to write a missing certificate for that key, under the same name: what the key
//! has signed stays good. A CA that ends soon is warned about.

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
pub use init::{Asked, Told, init};
pub use millefeuille_proto::tls::Role;
pub use name::Name;
pub use usage::Usage;
pub use validity::Validity;

/// Why certificates are not made or read: one line that names the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertsError {
    /// A file of certificates cannot be read, or is not what it has to be.
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
