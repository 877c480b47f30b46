//! Reads certificates and keys, also those that other programs made.

use std::net::IpAddr;

use rcgen::KeyPair;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use super::{Name, Role, Usage, Validity};

/// The parts of a certificate that this program uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    subject: String,
    issuer: String,
    roles: Vec<Role>,
    names: Vec<Name>,
    validity: Validity,
    public_key: Vec<u8>,
    usages: Vec<Usage>,
    is_authority: bool,
}

const LABEL: &str = "CERTIFICATE";

/// All certificates of a PEM file, in their order.
///
/// # Errors
/// What is wrong with it, also if it has no certificate.
pub fn all(pem: &str) -> Result<Vec<Certificate>, String> {
    let blocks = Pem::iter_from_buffer(pem.as_bytes());
    let ours = blocks.filter(|block| !block.as_ref().is_ok_and(|block| block.label != LABEL));
    let read = |block: Result<Pem, _>| Certificate::of_der(&block.map_err(|_| NOT_PEM.to_string())?.contents);
    let certificates = ours.map(read).collect::<Result<Vec<_>, String>>()?;
    if certificates.is_empty() { Err(NOT_PEM.to_string()) } else { Ok(certificates) }
}

const NOT_PEM: &str = "is not a certificate in PEM";

/// The private key of a PEM file.
///
/// # Errors
/// What is wrong with it.
pub fn key(pem: &str) -> Result<KeyPair, String> {
    // The library's error might show the key.
    KeyPair::from_pem(pem).map_err(|_| "is not a private key in PEM (PKCS #8)".to_string())
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// If it is not a certificate.
    pub fn of_der(der: &[u8]) -> Result<Self, String> {
        let damaged = || "is a damaged certificate".to_string();
        let parsed = match X509Certificate::from_der(der) {
            Ok(([], parsed)) => parsed,
            _ => return Err(damaged()),
        };
        let general = match parsed.subject_alternative_name() {
            Ok(extension) => {
                extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default()
            }
            Err(_) => return Err(damaged()),
        };
        let validity = parsed.validity();
        Ok(Self {
            der: der.to_vec(),
            subject: common_name(parsed.subject()),
            issuer: common_name(parsed.issuer()),
            roles: general.iter().filter_map(role).collect(),
            names: general.iter().filter_map(name).collect(),
            validity: Validity {
                not_before: validity.not_before.to_datetime(),
                not_after: validity.not_after.to_datetime(),
            },
            public_key: parsed.public_key().raw.to_vec(),
            usages: usages(&parsed),
            is_authority: is_authority(&parsed),
        })
    }

    /// Its bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its subject, for people.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Its stated issuer, for people.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The roles in it; exactly one, if it was made for a cluster.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The names in it.
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// Its validity period.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Its public key, in the form that the key pair returns.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Whether it may be presented on this side of a connection.
    pub fn is_for(&self, usage: Usage) -> bool {
        self.usages.contains(&usage)
    }

    /// Whether it is a CA's.
    pub fn is_authority(&self) -> bool {
        self.is_authority
    }

    /// Whether the owner of another certificate has signed it.
    pub fn is_signed_by(&self, signer: &Self) -> bool {
        let (Ok((_, own)), Ok((_, signer))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&signer.der))
        else {
            return false;
        };
        own.issuer().as_raw() == signer.subject().as_raw()
            && own.verify_signature(Some(signer.public_key())).is_ok()
    }

    /// The SHA-256 of its bytes, in OpenSSL's format.
    pub fn fingerprint(&self) -> String {
        let hash = Sha256::digest(&self.der);
        hash.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }
}

/// The common name, or the whole name if it has none.
fn common_name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|part| part.as_str().ok());
    common.map_or_else(|| name.to_string(), str::to_string)
}

fn role(general: &GeneralName<'_>) -> Option<Role> {
    match general {
        GeneralName::URI(uri) => Role::of_uri(uri),
        _ => None,
    }
}

fn name(general: &GeneralName<'_>) -> Option<Name> {
    match general {
        GeneralName::DNSName(name) => name.parse().ok(),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok().map(Name::Ip)
        }
        _ => None,
    }
}

/// The usages of a certificate; a certificate that names no usage allows all.
fn usages(parsed: &X509Certificate<'_>) -> Vec<Usage> {
    let (server, client) = match parsed.extended_key_usage() {
        Ok(Some(usage)) => {
            (usage.value.any || usage.value.server_auth, usage.value.any || usage.value.client_auth)
        }
        Ok(None) => (true, true),
        Err(_) => (false, false),
    };
    let both = [(server, Usage::Server), (client, Usage::Client)];
    both.into_iter().filter_map(|(is_for, usage)| is_for.then_some(usage)).collect()
}

fn is_authority(parsed: &X509Certificate<'_>) -> bool {
    let signs = match parsed.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    parsed.is_ca() && signs
}
