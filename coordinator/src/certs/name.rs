//! The names under which a coordinator is reached.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rustls::pki_types::DnsName;

/// A name under which a coordinator is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A host's name in lower case; the first part may be `*`, which stands for any one part.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl Name {
    /// The default names: a container service, and this machine.
    pub fn usual() -> Vec<Self> {
        let dns = |name: &str| Self::Dns(name.to_string());
        let ip = |address: IpAddr| Self::Ip(address);
        vec![
            dns("coordinator"),
            dns("localhost"),
            ip(std::net::Ipv4Addr::LOCALHOST.into()),
            ip(std::net::Ipv6Addr::LOCALHOST.into()),
        ]
    }

    /// Formats names as a list, for people.
    pub fn list(names: &[Self]) -> String {
        names.iter().map(Self::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        // A resolver accepts a trailing dot, but no name matches a certificate with one.
        if DnsName::try_from(name).is_err() || name.ends_with('.') {
            return Err(
                "is neither a host's name nor an address (without a port; several: a,b,c)".to_string()
            );
        }
        Ok(Self::Dns(text.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hosts_and_addresses() {
        for (text, name) in [
            ("coordinator", Name::Dns("coordinator".into())),
            ("Coordinator.Millefeuille.svc", Name::Dns("coordinator.millefeuille.svc".into())),
            ("*.example", Name::Dns("*.example".into())),
            ("my_host", Name::Dns("my_host".into())),
            ("127.0.0.1", Name::Ip([127, 0, 0, 1].into())),
            ("::1", Name::Ip(std::net::Ipv6Addr::LOCALHOST.into())),
        ] {
            assert_eq!(text.parse(), Ok(name), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(64);
        for text in [
            "",
            ".",
            "a..b",
            "a b",
            "-a",
            "a-",
            "a.",
            "*",
            "*.",
            "a.*.b",
            "127.0.0.300",
            "a:7070",
            "ä",
            &long,
        ] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }
}
