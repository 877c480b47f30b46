//! Makes keys, and signs certificates. Nothing here touches a file or a clock.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, SerialNumber,
};

use super::certificate::{self, Certificate};
use super::{CertsError, Name, Role, Usage, Validity};
use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_program::process::random_hex;

/// The name of every CA. It is always the same, so that a renewed certificate for its key is the same CA.
pub const CA: &str = "Millefeuille CA";

/// A certificate authority: a key, and the certificates that others trust.
pub struct Authority {
    key: KeyPair,
    /// The certificate of the key.
    certificate: Certificate,
    /// The certificates to trust, for `ca.crt`: this one, and perhaps those of other authorities, as while one CA
    /// takes over from another.
    trusted: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// A request for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its name for people.
    pub common_name: String,
    /// The URIs in it: that of its role.
    pub uris: Vec<String>,
    /// The names under which its holder is reached.
    pub names: Vec<Name>,
    /// The side of a connection that presents it.
    pub usage: Usage,
    /// Its validity period.
    pub validity: Validity,
}

impl Leaf {
    /// A request for a role's certificate. The names of a connecting client are never checked.
    pub fn of(role: Role, names: Vec<Name>, validity: Validity) -> Self {
        Self {
            common_name: format!("Millefeuille {role}"),
            uris: vec![role.uri()],
            names,
            usage: Usage::of(role),
            validity,
        }
    }
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, as PEM.
    pub certificate: String,
    /// Its private key, as PEM of PKCS #8.
    pub key: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a CA with a new key.
    ///
    /// # Errors
    /// If there can be no such certificate, as for one that ends in a year beyond 9999.
    pub fn new(validity: Validity) -> Result<Self, CertsError> {
        Self::of_key(new_key()?, validity)
    }

    /// Makes a CA certificate for an existing key.
    ///
    /// # Errors
    /// What is wrong with the key.
    pub fn for_key(key: &str, validity: Validity) -> Result<Self, String> {
        Self::of_key(certificate::key(key)?, validity).map_err(|error| error.to_string())
    }

    fn of_key(key: KeyPair, validity: Validity) -> Result<Self, CertsError> {
        let mut params = params(CA, validity);
        // It may sign certificates of processes, but not of other authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let made = params.self_signed(&key).map_err(impossible)?;
        let unreadable = |what| CertsError::Unusable(Failure::new(FailureKind::NotAllowed, what));
        let certificate = Certificate::of_der(made.der()).map_err(unreadable)?;
        Ok(Self { key, certificate, trusted: made.pem() })
    }

    /// The CA with this key. `certificates` may also hold others: all of them are trusted.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Self, AuthorityError> {
        let held = certificate::all(certificates).map_err(AuthorityError::Certificate)?;
        let key = certificate::key(key).map_err(AuthorityError::Key)?;
        let public = key.subject_public_key_info();
        let own = held.into_iter().filter(|certificate| certificate.public_key() == public);
        let certificate = own.max_by_key(|certificate| certificate.validity().not_after);
        let certificate = certificate
            .ok_or_else(|| AuthorityError::Key("does not belong to the certificate beside it".to_string()))?;
        if !certificate.is_authority() {
            return Err(AuthorityError::Certificate(
                "is not a CA's: what it signs, nobody accepts".to_string(),
            ));
        }
        Ok(Self { key, certificate, trusted: certificates.to_string() })
    }

    /// Signs a certificate for a new key. The requested validity is used even if it exceeds the CA's: see
    /// [`Validity::within`].
    ///
    /// # Errors
    /// If there can be no such certificate, as for one with a URI that is not ASCII.
    pub fn issue(&self, leaf: &Leaf) -> Result<Issued, CertsError> {
        let mut params = params(&leaf.common_name, leaf.validity);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![leaf.usage.purpose()];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = subject_alt_names(leaf).map_err(impossible)?;
        let issuer =
            Issuer::from_ca_cert_der(&self.certificate.der().into(), &self.key).map_err(impossible)?;
        let key = new_key()?;
        let certificate = params.signed_by(&key, &issuer).map_err(impossible)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The certificates to trust, as PEM: the content of `ca.crt`.
    pub fn trusted(&self) -> &str {
        &self.trusted
    }

    /// Its private key, as PEM of PKCS #8.
    pub fn key(&self) -> String {
        self.key.serialize_pem()
    }
}

/// What is wrong with the files of a CA, and with which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityError {
    /// With the certificates.
    Certificate(String),
    /// With the key.
    Key(String),
}

fn new_key() -> Result<KeyPair, CertsError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(impossible)
}

fn params(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(serial_number());
    (params.not_before, params.not_after) = (validity.not_before, validity.not_after);
    params
}

/// 126 random bits, positive and always of the same length.
fn serial_number() -> SerialNumber {
    let mut bytes = hex::decode(random_hex()).unwrap_or_default();
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    bytes.into()
}

fn subject_alt_names(leaf: &Leaf) -> Result<Vec<SanType>, rcgen::Error> {
    let uris = leaf.uris.iter().map(|uri| Ok(SanType::URI(uri.as_str().try_into()?)));
    let names = leaf.names.iter().map(|name| {
        Ok(match name {
            Name::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
            Name::Ip(address) => SanType::IpAddress(*address),
        })
    });
    names.chain(uris).collect()
}

fn impossible(error: rcgen::Error) -> CertsError {
    let what = format!("the certificate cannot be made: {error}");
    CertsError::Unusable(Failure::new(FailureKind::NotAllowed, what))
}
