//! On which side of a connection a certificate is shown.

use rcgen::ExtendedKeyUsagePurpose;

use super::Role;

/// On which side of a connection a certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// By who accepts it.
    Server,
    /// By who makes it.
    Client,
}

impl Usage {
    /// That of a role.
    pub fn of(role: Role) -> Self {
        if role == Role::Coordinator { Self::Server } else { Self::Client }
    }

    /// What it says so in a certificate.
    pub(super) fn purpose(self) -> ExtendedKeyUsagePurpose {
        match self {
            Self::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Self::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }
    }
}
