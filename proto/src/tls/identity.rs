//! A process's certificate and key, and the CAs that it trusts.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{ALPN, Role, certificate_trouble, date};

/// File of the trusted CAs.
pub const CA_FILE: &str = "ca.crt";
/// File of the certificate, with the chain to a CA.
pub const CERTIFICATE_FILE: &str = "tls.crt";
/// File of the certificate's key.
pub const KEY_FILE: &str = "tls.key";

/// A certificate with its key, and the CAs that its holder trusts.
#[derive(Debug)]
pub struct Identity {
    directory: PathBuf,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// Seconds since 1970.
    validity: (i64, i64),
}

impl Identity {
    /// Reads the three files of a directory.
    ///
    /// # Errors
    /// One line with the file, the problem and a remedy. Dates are not checked: that is up to the peer.
    pub fn read(directory: &Path) -> Result<Self, String> {
        let file = |name| directory.join(name);
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&file(CA_FILE))? {
            let unusable = |error| format!("{}: not a CA's certificate: {error}", file(CA_FILE).display());
            roots.add(certificate).map_err(unusable)?;
        }
        let chain = certificates(&file(CERTIFICATE_FILE))?;
        let validity = validity(&chain[0]).ok_or_else(|| {
            format!(
                "{}: not a certificate (issue another: coordinator certs issue)",
                file(CERTIFICATE_FILE).display()
            )
        })?;
        let key = PrivateKeyDer::from_pem_slice(&read_file(&file(KEY_FILE))?)
            .map_err(|_| format!("{}: no private key in it (expected PEM)", file(KEY_FILE).display()))?;
        Ok(Self { directory: directory.to_path_buf(), roots: Arc::new(roots), chain, key, validity })
    }

    /// The role in the certificate.
    pub fn role(&self) -> Option<Role> {
        Role::of_certificate(&self.chain[0])
    }

    /// The certificate's validity, first and last time, in seconds since 1970.
    pub fn validity(&self) -> (i64, i64) {
        self.validity
    }

    /// Checks that a peer that trusts the same CAs currently accepts the certificate as a server's.
    ///
    /// # Errors
    /// The reason, to follow the certificate's name: "has expired on 2026-11-20T00:00:00Z".
    pub fn is_accepted(&self) -> Result<(), String> {
        let provider = provider();
        let now = UnixTime::now();
        let parsed = ParsedCertificate::try_from(&self.chain[0]);
        let verified = parsed.and_then(|leaf| {
            let algorithms = provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, &self.chain[1..], now, algorithms)
        });
        verified.map_err(|error| match &error {
            rustls::Error::InvalidCertificate(trouble) => certificate_trouble(trouble),
            other => format!("cannot be used: {other}"),
        })
    }

    /// The certificate's file, holder and validity, for messages.
    pub fn description(&self) -> String {
        let path = self.directory.join(CERTIFICATE_FILE);
        let role = self.role().map_or("no role".to_string(), |role| format!("role {role}"));
        let (from, to) = self.validity;
        format!("{} ({role}, valid from {} to {})", path.display(), date(from), date(to))
    }

    /// Settings for a server: TLS 1.3, and every client needs a certificate.
    ///
    /// # Errors
    /// If certificate and key do not belong together.
    pub fn server_config(&self) -> Result<ServerConfig, String> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider()).build();
        let verifier = verifier.map_err(|error| self.unusable(&error))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring speaks TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.unusable(&error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Settings for a client: TLS 1.3, and the server must be a coordinator.
    ///
    /// # Errors
    /// If certificate and key do not belong together.
    pub fn client_config(&self) -> Result<ClientConfig, String> {
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), provider()).build();
        let inner = inner.map_err(|error| self.unusable(&error))?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring speaks TLS 1.3")
            .dangerous() // The word is rustls': what follows checks more than it would, not less.
            .with_custom_certificate_verifier(Arc::new(CoordinatorsOnly { inner }))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.unusable(&error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn unusable(&self, error: &dyn std::fmt::Display) -> String {
        format!(
            "{}: {CERTIFICATE_FILE} and {KEY_FILE} cannot be used: {error} (issue another: coordinator certs issue)",
            self.directory.display()
        )
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Maximum size of a file. Certificates and keys have a few kilobytes.
const MOST_BYTES: u64 = 1 << 20;

/// Reads a certificate's or key's file. It must be a regular file: reading from a pipe would block.
///
/// # Errors
/// One line that names the file, what is wrong with it, and what to do.
pub fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let read = || {
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error: io::Error| {
        format!(
            "{}: {error} (a TLS directory has {CA_FILE}, {CERTIFICATE_FILE} and {KEY_FILE}; make one with: \
             coordinator certs init)",
            path.display()
        )
    })
}

/// The certificates in a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read_file(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let unusable = |error| format!("{}: not a certificate in PEM: {error}", path.display());
    let certificates = certificates.map_err(unusable)?;
    if certificates.is_empty() {
        return Err(format!("{}: no certificate in it (expected PEM)", path.display()));
    }
    Ok(certificates)
}

fn validity(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// Accepts a certificate that WebPKI accepts, if its role is coordinator.
#[derive(Debug)]
struct CoordinatorsOnly {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for CoordinatorsOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        match Role::of_certificate(end_entity) {
            Some(Role::Coordinator) => Ok(verified),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
