//! Addresses of data that lies in an object store or on a web server, such as `s3://bucket/path/data.csv`.
//!
//! A job gives them where it gives paths, and they are kept as paths: their endings name formats, and a directory's
//! files are joined to it. An address is written into job files, logs and receipts, so it must hold no secret.

use std::path::Path;

/// The schemes of addresses.
pub const SCHEMES: [&str; 5] = ["s3", "gs", "az", "http", "https"];

/// Scheme, host or bucket, and the path below it without its first slash; `None` of a path on this machine.
pub fn parts(path: &Path) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = path.to_str()?.split_once("://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    SCHEMES.contains(&scheme).then_some((scheme, host, path))
}

/// Whether this is an address.
pub fn is_address(path: &Path) -> bool {
    parts(path).is_some()
}

/// What is wrong with an address, if it is one.
pub fn problem(path: &Path) -> Option<&'static str> {
    let (_, host, path) = parts(path)?;
    if host.contains('@') {
        return Some(
            "has a name or a password in it, which would be written into the run; credentials come from the \
                     environment",
        );
    }
    if path.contains(['?', '#']) {
        return Some(
            "ends in a query, which may hold a secret and would be written into the run; give the address \
                     without it, and credentials in the environment",
        );
    }
    if host.is_empty() || path.is_empty() {
        return Some("names no file; give an address such as s3://bucket/data.csv or https://host/data.csv");
    }
    None
}

/// A text with the passwords and the queries of the addresses in it left out.
pub fn without_secrets(text: &str) -> String {
    let Some((before, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(|c: char| c.is_whitespace() || c == '"' || c == '\'').unwrap_or(rest.len());
    let (address, after) = rest.split_at(end);
    let (host, path) = address.split_once('/').map_or((address, None), |(host, path)| (host, Some(path)));
    let host = host.rsplit_once('@').map_or(host.to_owned(), |(_, host)| format!("…@{host}"));
    let path = path.map(|path| match path.split_once('?') {
        Some((path, _)) => format!("/{path}?…"),
        None => format!("/{path}"),
    });
    format!("{before}://{host}{}{}", path.unwrap_or_default(), without_secrets(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        let parts = |text: &'static str| parts(Path::new(text));
        assert_eq!(parts("s3://bucket/a/b.csv"), Some(("s3", "bucket", "a/b.csv")));
        assert_eq!(parts("http://127.0.0.1:80/b.csv"), Some(("http", "127.0.0.1:80", "b.csv")));
        for path in ["/data/s3.csv", "s3:/bucket/a.csv", "ftp://host/a.csv", "./https/a.csv", "C://a"] {
            assert_eq!(parts(path), None, "{path}");
        }
    }

    #[test]
    fn an_address_with_a_secret_or_without_a_file_has_a_problem() {
        let problem = |text: &'static str| problem(Path::new(text)).unwrap_or_default();
        assert!(problem("https://me:secret@host/a.csv").contains("a password"));
        assert!(problem("https://host/a.csv?X-Amz-Signature=1").contains("a query"));
        for address in ["s3://", "s3://bucket", "s3://bucket/", "https:///a.csv"] {
            assert!(problem(address).contains("names no file"), "{address}");
        }
        assert_eq!(problem("s3://bucket/a.csv"), "");
        assert_eq!(problem("a.csv?b#c@d"), "");
    }

    #[test]
    fn secrets_of_addresses_are_left_out() {
        for (text, shown) in [
            (
                "line 3: source = \"https://me:pass@host/a.csv\", no",
                "line 3: source = \"https://…@host/a.csv\", no",
            ),
            ("--data s3://b/a?Sig=x and gs://me@b", "--data s3://b/a?… and gs://…@b"),
            ("a path, ./a@b?c", "a path, ./a@b?c"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }
}
