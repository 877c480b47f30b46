//! Mutual TLS 1.3, with a role in every certificate.
//!
//! A process reads its identity from a directory of three files, named as in cert-manager's secrets: `ca.crt` (the
//! CAs that it trusts; several while one replaces another), `tls.crt` (its certificate, the leaf first) and
//! `tls.key`. A URI in the certificate, a [`Role`], says what its holder may do: a client only talks to a
//! coordinator, and the coordinator checks the peer's role before every call.
//!
//! tonic's own TLS settings allow TLS 1.2 and keep the certificate from the start of the process. So connections are
//! made here, with tokio-rustls, and passed to tonic: [`Identity::server_config`] for the server, [`Dialer`] for the
//! client. TLS sessions are not resumed: every connection shows its certificate.

mod dial;
mod errors;
mod identity;
mod role;

pub use dial::{Dialer, asks_for_tls};
pub use errors::{certificate_trouble, date, refused_for};
pub use identity::{CA_FILE, CERTIFICATE_FILE, Identity, KEY_FILE, read_file};
pub use role::Role;

/// The application protocol: HTTP/2.
const ALPN: &[u8] = b"h2";
