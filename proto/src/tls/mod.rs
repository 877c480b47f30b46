//! Who may talk to whom: mutual TLS 1.3, with a role in every certificate.
//!
//! A process finds its identity in a directory of three files, named as cert-manager names them in its secrets:
//! `ca.crt` (whom it trusts; several CAs while one replaces another), `tls.crt` (its certificate, the leaf first) and
//! `tls.key`. What a certificate allows is a URI in it, a [`Role`]: a client only talks to a coordinator, and the
//! coordinator asks the peer's role before every call.
//!
//! tonic's own TLS settings admit TLS 1.2 and keep the certificate that a process started with. So the connections
//! are made here, over tokio-rustls, and handed to tonic: [`Identity::server_config`] for the side that listens,
//! [`Dialer`] for the side that connects. Nothing is resumed: every connection shows its certificate.

mod dial;
mod errors;
mod identity;
mod role;

pub use dial::{Dialer, asks_for_tls};
pub use errors::{certificate_trouble, date, refused_for};
pub use identity::{CA_FILE, CERTIFICATE_FILE, Identity, KEY_FILE, read_file};
pub use role::Role;

/// The protocol that is spoken inside: HTTP/2.
const ALPN: &[u8] = b"h2";
