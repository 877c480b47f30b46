//! Error messages about certificates.

use std::path::Path;

use rustls::{AlertDescription, CertificateError, Error};

/// The problem with a certificate, to follow its subject: "has expired on 2026-11-20".
pub fn certificate_trouble(error: &CertificateError) -> String {
    use CertificateError as Trouble;
    match error {
        Trouble::ExpiredContext { not_after, .. } => {
            format!("has expired on {}", date(seconds(not_after.as_secs())))
        }
        Trouble::Expired => "has expired".into(),
        Trouble::NotValidYetContext { not_before, .. } => {
            format!("is not valid before {}", date(seconds(not_before.as_secs())))
        }
        Trouble::NotValidYet => "is not valid yet".into(),
        Trouble::UnknownIssuer | Trouble::BadSignature => "is from another CA".into(),
        Trouble::NotValidForNameContext { expected, presented } => {
            let names = presented.iter().map(|name| plain_name(name)).filter(|name| !name.contains("://"));
            let presented: Vec<_> = names.collect();
            format!("is for {}, not for {}", presented.join(", "), expected.to_str())
        }
        Trouble::NotValidForName => "is for another name".into(),
        Trouble::ApplicationVerificationFailure => "is not a coordinator's".into(),
        Trouble::InvalidPurpose | Trouble::InvalidPurposeContext { .. } => {
            "is for another side of a connection (its extended key usage)".into()
        }
        other => format!("cannot be used: {other}"),
    }
}

/// Why a client could not agree with the coordinator that it dialled. The client has the certificate `own`, and
/// trusts the CAs in the file `authorities`.
pub(super) fn disagreement(error: &Error, address: &str, authorities: &Path, own: &str) -> String {
    match error {
        Error::InvalidCertificate(trouble) => {
            let remedy = match trouble {
                CertificateError::NotValidForNameContext { .. } | CertificateError::NotValidForName => {
                    " (use one of its names, or issue one with: coordinator certs issue --names)".to_string()
                }
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    format!(" than those in {}", authorities.display())
                }
                _ => String::new(),
            };
            format!("the certificate of {address} {}{remedy}", certificate_trouble(trouble))
        }
        Error::AlertReceived(alert) => match refused_for(*alert) {
            Some(reason) => {
                format!("{address} does not accept the certificate {own}: {reason}")
            }
            None => format!(
                "{address} refuses to speak TLS with this process: {alert:?} (does it serve with --tls?)"
            ),
        },
        Error::InvalidMessage(_) => format!("{address} does not speak TLS (does it serve with --tls?)"),
        other => format!("no encrypted connection with {address}: {other}"),
    }
}

/// Why the peer rejected our certificate, if the alert is about that.
pub fn refused_for(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CertificateExpired => "it has expired, or is not valid yet",
        // `DecryptError` occurs if the other CA has the same name.
        AlertDescription::UnknownCA | AlertDescription::DecryptError => "it is from another CA",
        AlertDescription::BadCertificate => "it is for another name, or damaged",
        AlertDescription::AccessDenied => "it is not a coordinator's",
        AlertDescription::CertificateRequired => "it did not arrive",
        AlertDescription::CertificateRevoked => "it is revoked",
        AlertDescription::UnsupportedCertificate | AlertDescription::CertificateUnknown => {
            "it cannot be used for this"
        }
        _ => return None,
    })
}

/// Formats a time in seconds since 1970: `2026-11-25T00:00:00Z` ([RFC 3339](https://www.rfc-editor.org/rfc/rfc3339)).
pub fn date(seconds: i64) -> String {
    match time::OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => format!("{}T{:02}:{:02}:{:02}Z", at.date(), at.hour(), at.minute(), at.second()),
        Err(_) => "a time beyond the calendar".into(),
    }
}

fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// A name in its usual form: webpki writes `DnsName("localhost")` and `IpAddress(127.0.0.1)`.
fn plain_name(name: &str) -> &str {
    let inner = name.split_once('(').map(|(_, rest)| rest.trim_end_matches(')'));
    inner.unwrap_or(name).trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_people_write_them() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(1_795_564_800), "2026-11-25T00:00:00Z");
        assert_eq!(date(i64::MAX), "a time beyond the calendar");
    }

    #[test]
    fn names_lose_what_only_programs_need() {
        for (written, plain) in
            [("DnsName(\"localhost\")", "localhost"), ("IpAddress(127.0.0.1)", "127.0.0.1"), ("host", "host")]
        {
            assert_eq!(plain_name(written), plain);
        }
    }
}
