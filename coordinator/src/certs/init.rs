//! `coordinator certs init`: makes all certificates of a cluster; can be repeated.
//!
//! It makes a directory for the CA and one for each role in one place. Existing certificates that are good are kept.
//! The CA's directory is locked for the whole time, so of two processes at once the second waits, and finds
//! everything there. An interrupted process leaves whole files, of which the next one keeps the good ones.

use std::path::Path;

use millefeuille_core::failure::{Failure, FailureKind};
use millefeuille_proto::tls::{CA_FILE, KEY_FILE};
use time::OffsetDateTime;

use super::directory::{self, CA_KEY, DirectoryLock, Found, FoundAuthority, Held};
use super::validity::shown;
use super::{Authority, CertsError, Leaf, Name, Role, Usage, Validity};

/// The request to [`init`].
#[derive(Clone, Debug)]
pub struct Asked {
    /// Under which names the coordinator is reached. Without, those that its certificate has, or the usual ones
    /// where there is none.
    pub names: Option<Vec<Name>>,
    /// Validity of a new certificate, in days.
    pub days: u32,
    /// Validity of a new CA, in days.
    pub ca_days: u32,
    /// Whether valid certificates are renewed too.
    pub renew: bool,
    /// The current time.
    pub now: OffsetDateTime,
}

/// A progress message of [`init`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitMessage {
    /// The directory's name, and what was done with it.
    Done(&'static str, String),
    /// A warning.
    Warning(String),
}

/// The name of the CA's directory.
pub const CA: &str = "ca";

/// Makes the CA and the certificates of all roles, as far as they are missing.
///
/// # Errors
/// If the CA is not usable, something cannot be read or written, or the certificate with the coordinator's names is
/// damaged. Files made before the error stay.
pub fn init(path: &Path, asked: &Asked, tell: &mut dyn FnMut(InitMessage)) -> Result<(), CertsError> {
    let ca = path.join(CA);
    let lock = DirectoryLock::take_private(&ca)?;
    if directory::is_open_to_others(&ca) {
        let name = ca.display();
        tell(InitMessage::Warning(format!(
            "{name}: is open to others, and cannot be closed; whoever can write there can replace the CA (chmod 700 {name} as \
             its owner)"
        )));
    }
    let authority = authority(&lock, &ca, asked, tell)?;
    check_validity(&ca, &authority, asked.now)?;
    look_after(&ca, &authority, asked.now, tell);
    for role in Role::ALL {
        let done = leaf(&path.join(role.name()), role, &authority, asked, tell)?;
        tell(InitMessage::Done(role.name(), done));
    }
    Ok(())
}

fn authority(
    lock: &DirectoryLock,
    path: &Path,
    asked: &Asked,
    tell: &mut dyn FnMut(InitMessage),
) -> Result<Authority, CertsError> {
    let validity = Validity::days(asked.now, asked.ca_days);
    let (authority, what) = match directory::authority(path)? {
        FoundAuthority::Whole(authority) => (*authority, "kept"),
        FoundAuthority::Nothing => {
            let authority = Authority::new(validity)?;
            lock.write_authority(&authority)?;
            (authority, "made")
        }
        FoundAuthority::KeyOnly(key) => {
            let unusable = |what: String| directory::unusable_key(&path.join(CA_KEY), &what);
            let authority = Authority::for_key(&key, validity).map_err(unusable)?;
            lock.write_authority_certificate(&authority)?;
            (authority, "made for the key that was there")
        }
    };
    tell(InitMessage::Done(CA, format!("{what}, {}", until(authority.certificate().validity(), asked.now))));
    Ok(authority)
}

/// Rejects a CA that has expired or is not valid yet: its signatures would not be valid.
///
/// # Errors
/// With the remedy.
pub fn check_validity(path: &Path, authority: &Authority, now: OffsetDateTime) -> Result<(), CertsError> {
    let validity = authority.certificate().validity();
    let unusable = |what| {
        let file = path.join(CA_FILE);
        Err(CertsError::Unusable(Failure::at(FailureKind::NotAllowed, file.display(), what)))
    };
    if validity.is_over(now) {
        let ended = shown(validity.not_after);
        return unusable(format!(
            "the CA expired on {ended} (move its directory away and run coordinator certs init: every certificate is renewed)"
        ));
    }
    if validity.is_to_come(now) {
        let begins = shown(validity.not_before);
        return unusable(format!("the CA is not valid before {begins} (set this machine's clock)"));
    }
    Ok(())
}

fn look_after(path: &Path, authority: &Authority, now: OffsetDateTime, tell: &mut dyn FnMut(InitMessage)) {
    let validity = authority.certificate().validity();
    if validity.is_nearly_over(now) {
        tell(InitMessage::Warning(format!(
            "{}: the CA {}; before that, move its directory away and run this again: every certificate is renewed",
            path.join(CA_FILE).display(),
            ends(validity, now),
        )));
    }
    warn_of_open_key(&path.join(CA_KEY), tell);
}

fn warn_of_open_key(path: &Path, tell: &mut dyn FnMut(InitMessage)) {
    if directory::is_open_to_others(path) {
        let path = path.display();
        tell(InitMessage::Warning(format!("{path}: others can read this key; chmod 600 {path}")));
    }
}

/// Keeps or makes the certificate of a role; reports which.
fn leaf(
    path: &Path,
    role: Role,
    authority: &Authority,
    asked: &Asked,
    tell: &mut dyn FnMut(InitMessage),
) -> Result<String, CertsError> {
    let lock = DirectoryLock::take(path)?;
    let held = match Held::read(path)? {
        Found::Held(held) => held,
        Found::Nothing => return make(&lock, path, role, authority, asked, ""),
        Found::Damaged(what) => return make(&lock, path, role, authority, asked, &what),
    };
    if let Some(reason) = reason_to_renew(&held, role, authority, asked) {
        return make(&lock, path, role, authority, asked, &reason);
    }
    warn_of_open_key(&path.join(KEY_FILE), tell);
    let still = until(held.certificate.validity(), asked.now);
    if held.trusted_text.as_deref() == Some(authority.trusted()) {
        return Ok(format!("kept, {still}"));
    }
    lock.write_trusted(authority.trusted())?;
    Ok(format!("kept, {still}; {CA_FILE} rewritten"))
}

/// Why a certificate is not kept.
fn reason_to_renew(held: &Held, role: Role, authority: &Authority, asked: &Asked) -> Option<String> {
    let Held { certificate, key, .. } = held;
    let validity = certificate.validity();
    let missing: Vec<Name> = match &asked.names {
        Some(names) if role == Role::Coordinator => {
            names.iter().filter(|name| !certificate.names().contains(name)).cloned().collect()
        }
        _ => Vec::new(),
    };
    let reason = match () {
        () if asked.renew => "requested".to_string(),
        () if !certificate.is_signed_by(authority.certificate()) => "it was not from this CA".to_string(),
        () if key.is_err() => key.clone().err()?,
        () if certificate.roles() != [role] || !certificate.is_for(Usage::of(role)) => {
            format!("it was not a {role}'s")
        }
        () if validity.is_over(asked.now) => format!("it expired on {}", shown(validity.not_after)),
        () if validity.is_to_come(asked.now) => {
            format!("it was not valid before {}", shown(validity.not_before))
        }
        () if validity.is_nearly_over(asked.now) => "less than a third of its time was left".to_string(),
        () if !missing.is_empty() => format!("it lacked {}", Name::list(&missing)),
        () => return None,
    };
    Some(reason)
}

/// Issues a certificate; with a reason, it replaces an existing one.
fn make(
    lock: &DirectoryLock,
    path: &Path,
    role: Role,
    authority: &Authority,
    asked: &Asked,
    reason: &str,
) -> Result<String, CertsError> {
    let names = match (role, &asked.names) {
        (Role::Coordinator, Some(names)) => names.clone(),
        (Role::Coordinator, None) => names_in(path)?,
        _ => Vec::new(),
    };
    let made = issue(lock, authority, role, names, asked.days, asked.now)?;
    Ok(if reason.is_empty() { format!("made, {made}") } else { format!("renewed ({reason}), {made}") })
}

/// The names of the coordinator's certificate that is about to be replaced, if it has any, or the usual ones.
///
/// # Errors
/// If it is there and cannot be read: its names would be lost.
pub fn names_in(path: &Path) -> Result<Vec<Name>, CertsError> {
    let names = directory::names(path)?;
    Ok(if names.is_empty() { Name::usual() } else { names })
}

/// Makes a certificate that ends no later than its CA, and writes it with its key and the CAs to trust. Returns the
/// end of its validity.
///
/// # Errors
/// If it cannot be written.
pub fn issue(
    lock: &DirectoryLock,
    authority: &Authority,
    role: Role,
    names: Vec<Name>,
    days: u32,
    now: OffsetDateTime,
) -> Result<String, CertsError> {
    let wanted = Validity::days(now, days);
    let validity = wanted.within(authority.certificate().validity());
    lock.write_issued(authority.trusted(), &authority.issue(&Leaf::of(role, names, validity))?)?;
    let why = if validity == wanted { "" } else { ": the CA expires then" };
    Ok(format!("{}{why}", until(validity, now)))
}

fn until(validity: Validity, now: OffsetDateTime) -> String {
    format!("expires {} ({})", shown(validity.not_after), days(validity.days_left(now)))
}

fn ends(validity: Validity, now: OffsetDateTime) -> String {
    format!("expires on {} ({})", shown(validity.not_after), days(validity.days_left(now)))
}

fn days(days: i64) -> String {
    if days == 1 { "1 day".to_string() } else { format!("{days} days") }
}
