//! On which side of a connection a certificate is shown.

use rcgen::ExtendedKeyUsagePurpose;

use super::Role;

/// On which side of a connection a certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The side that accepts the connection.
    Server,
    /// The side that makes the connection.
    Client,
}

impl Usage {
    /// The usage for a role.
    pub fn of(role: Role) -> Self {
        if role == Role::Coordinator { Self::Server } else { Self::Client }
    }

    /// The extended key usage in a certificate.
    pub(super) fn purpose(self) -> ExtendedKeyUsagePurpose {
        match self {
            Self::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Self::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }
    }
}
