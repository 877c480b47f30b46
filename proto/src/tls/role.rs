//! The role in a certificate, which says what its holder may do.

use std::fmt;

use rustls::pki_types::CertificateDer;

/// A process's role in a cluster. In a certificate it is a URI among the subject's alternative names, as
/// [SPIFFE](https://spiffe.io) writes identities and cert-manager can issue them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Serves a cluster.
    Coordinator,
    /// Computes for a cluster.
    Worker,
    /// Submits and cancels jobs, and reads.
    Operator,
    /// Reads: jobs, workers, metrics, models.
    Reader,
}

/// Prefix of every role's URI.
const PREFIX: &str = "spiffe://millefeuille/role/";

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Coordinator, Self::Operator, Self::Reader, Self::Worker];

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Worker => "worker",
            Self::Operator => "operator",
            Self::Reader => "reader",
        }
    }

    /// The role's URI in a certificate.
    pub fn uri(self) -> String {
        format!("{PREFIX}{}", self.name())
    }

    /// The role that this URI stands for.
    pub fn of_uri(uri: &str) -> Option<Self> {
        Self::of_name(uri.strip_prefix(PREFIX)?)
    }

    /// The role of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// The role in a certificate; `None` if the certificate has no role, or several.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut roles = certificate.valid_uri_names().filter_map(Self::of_uri);
        roles.next().filter(|_| roles.next().is_none())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_is_found_again_by_its_uri() {
        for role in Role::ALL {
            assert_eq!(Role::of_uri(&role.uri()), Some(role));
        }
        for odd in ["", "worker", "spiffe://millefeuille/role/", "spiffe://elsewhere/role/worker"] {
            assert_eq!(Role::of_uri(odd), None, "{odd}");
        }
    }
}
