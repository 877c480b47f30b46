//! `coordinator certs`: makes the certificates of a cluster, and shows them.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args as ClapArgs, Subcommand};
use millefeuille_core::failure::FailureKind;
use millefeuille_proto::tls::{CA_FILE, CERTIFICATE_FILE, KEY_FILE};
use serde_json::json;
use time::OffsetDateTime;

use millefeuille_program::process;

use super::{Failed, Result, print};
use crate::certs::directory::{self, CA_KEY, DirectoryLock, Found, Held};
use crate::certs::validity::{shown, whole_seconds};
use crate::certs::{Asked, Certificate, CertsError, InitMessage, Name, Role, Usage, init};

/// Make, renew and show the certificates of a cluster
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator certs init tls --names coordinator.example,10.0.0.7
  coordinator certs issue worker tls-of-another-worker --ca tls/ca
  coordinator certs show tls

A TLS directory holds ca.crt, tls.crt and tls.key; --tls takes one.
Exit codes: 3 if a file cannot be written, 4 if one of certificates cannot be used.")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    Init(InitArgs),
    Issue(IssueArgs),
    Show(ShowArgs),
}

/// Make a CA, and a TLS directory for each role; keep valid ones
///
/// Makes DIR/ca, DIR/coordinator, DIR/operator, DIR/reader and DIR/worker. Run again, it keeps the CA, and every
/// certificate that is from this CA, has the requested names and more than a third of its time left; the others are
/// renewed. A CA is never replaced: for a new one, move DIR/ca away.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator certs init tls
  coordinator certs init tls --names coordinator.example,10.0.0.7 --days 30
  coordinator certs init tls --renew")]
struct InitArgs {
    /// The directory; DIR/ca holds the signing key, which only the issuer of certificates needs
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[command(flatten)]
    names: NamesArgs,
    #[command(flatten)]
    days: DaysArgs,
    /// Days until a new CA expires
    #[arg(long, value_name = "N", default_value_t = 3650, value_parser = days(), allow_negative_numbers = true)]
    ca_days: u32,
    /// Renew every certificate, valid ones too; the CA is kept
    #[arg(long)]
    renew: bool,
}

/// The roles, with what each allows.
fn roles() -> impl TypedValueParser<Value = Role> {
    let values = [
        PossibleValue::new(Role::Coordinator.name()).help("Serves: what workers and clients connect to"),
        PossibleValue::new(Role::Operator.name()).help("Asks for anything: submits and cancels jobs too"),
        PossibleValue::new(Role::Reader.name()).help("Asks, and changes nothing"),
        PossibleValue::new(Role::Worker.name()).help("Computes"),
    ];
    PossibleValuesParser::new(values)
        .map(|name| Role::of_name(&name).expect("every possible value is a role"))
}

/// Issue one certificate, with a new key, into a TLS directory; what is in it is replaced
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator certs issue worker tls-of-another-worker --ca tls/ca
  coordinator certs issue coordinator tls/coordinator --ca tls/ca --names coordinator.example")]
struct IssueArgs {
    /// The role of its holder
    #[arg(value_name = "ROLE", value_parser = roles())]
    role: Role,
    /// The TLS directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The CA's directory, as made by init
    #[arg(long, value_name = "CADIR")]
    ca: PathBuf,
    #[command(flatten)]
    names: NamesArgs,
    #[command(flatten)]
    days: DaysArgs,
}

/// Show the certificates in a directory, and when they expire
///
/// Takes a TLS directory, a CA's, or one that init has made. Exit code 4 if a certificate is not valid.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  coordinator certs show tls
  coordinator certs show tls/worker --json")]
struct ShowArgs {
    /// The directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// A JSON object a certificate, one a line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, ClapArgs)]
struct NamesArgs {
    /// Names and addresses of the coordinator [default: those of its certificate, or
    /// coordinator,localhost,127.0.0.1,::1]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    names: Option<Vec<Name>>,
}

#[derive(Clone, Copy, Debug, ClapArgs)]
struct DaysArgs {
    /// Days until a certificate expires; never after its CA
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = days(), allow_negative_numbers = true)]
    days: u32,
}

/// A number of days, at most a century.
fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=36_500)
}

impl From<CertsError> for Failed {
    fn from(error: CertsError) -> Self {
        match error {
            CertsError::Unusable(failure) => Self::from(failure).exits_as(FailureKind::NotAllowed),
            CertsError::Unwritable(failure) => failure.into(),
        }
    }
}

pub(super) fn run(args: Args) -> Result {
    let now = whole_seconds(OffsetDateTime::now_utc());
    match args.what {
        What::Init(args) => make_all(args, now),
        What::Issue(args) => issue(args, now),
        What::Show(args) => show(&args, now),
    }
}

fn make_all(args: InitArgs, now: OffsetDateTime) -> Result {
    let InitArgs { directory, names, days, ca_days, renew } = args;
    let asked = Asked { names: names.names, days: days.days, ca_days, renew, now };
    // Print only when everything is done: if the reader of the output goes away, no certificate must be left half
    // made.
    let mut done = String::new();
    let made = init(&directory, &asked, &mut |told| match told {
        InitMessage::Done(name, what) => done.push_str(&format!("{name:WIDTH$}{what}\n")),
        InitMessage::Warning(what) => process::say(&format!("warning: {what}")),
    });
    print(&done);
    Ok(made?)
}

/// Width of the labels before a line's content.
const WIDTH: usize = 13;

fn issue(args: IssueArgs, now: OffsetDateTime) -> Result {
    let IssueArgs { role, directory, ca, names, days } = args;
    let names = match (role, names.names) {
        (Role::Coordinator, Some(names)) => names,
        (Role::Coordinator, None) => init::names_in(&directory)?,
        (_, None) => Vec::new(),
        (_, Some(_)) => {
            let message = format!(
                "--names is for a coordinator: a {role} connects and is not connected to (leave it out)"
            );
            return Err(Failed::new(FailureKind::Usage, message));
        }
    };
    let authority = directory::existing_authority(&ca)?;
    init::check_validity(&ca, &authority, now)?;
    let lock = DirectoryLock::take(&directory)?;
    let made = init::issue(&lock, &authority, role, names, days.days, now)?;
    print(&format!("{:WIDTH$}made, {made}\n", role.name()));
    Ok(())
}

fn show(args: &ShowArgs, now: OffsetDateTime) -> Result {
    let seen = look(&args.directory, now)?;
    let text: Vec<String> =
        seen.iter().map(|seen| if args.json { seen.json(now) } else { seen.text(now) }).collect();
    print(&text.join(if args.json { "" } else { "\n" }));
    // One line for all certificates: each has reported its own problem.
    let problem = seen.iter().find_map(|seen| Some((seen, seen.problem.as_ref()?)));
    problem.map_or(Ok(()), |(seen, problem)| {
        let remedy = if seen.is_authority {
            "see coordinator certs init --help"
        } else {
            "renew it with coordinator certs init or issue"
        };
        Err(Failed::new(
            FailureKind::NotAllowed,
            format!("{}: {problem} ({remedy})", seen.directory.display()),
        ))
    })
}

/// Reads the certificates of a directory, or of the directories that `init` makes in it.
fn look(path: &Path, now: OffsetDateTime) -> Result<Vec<Seen>> {
    let own = look_here(path, now)?;
    if !own.is_empty() {
        return Ok(own);
    }
    let names = [init::CA].into_iter().chain(Role::ALL.into_iter().map(Role::name));
    let below = names.map(|name| look_here(&path.join(name), now)).collect::<Result<Vec<_>>>()?;
    let below: Vec<Seen> = below.into_iter().flatten().collect();
    if below.is_empty() {
        let message = format!(
            "{}: no certificates are here (expected {CERTIFICATE_FILE} or {CA_FILE}; make some with: coordinator certs init)",
            path.display()
        );
        return Err(Failed::new(FailureKind::NotAllowed, message));
    }
    Ok(below)
}

fn look_here(path: &Path, now: OffsetDateTime) -> Result<Vec<Seen>> {
    match Held::read(path)? {
        Found::Held(held) => Ok(vec![Seen::of_leaf(path, *held, now)]),
        Found::Damaged(what) => {
            let message =
                format!("{}: {what} (renew it with coordinator certs init or issue)", path.display());
            Err(Failed::new(FailureKind::NotAllowed, message))
        }
        Found::Nothing if path.join(KEY_FILE).exists() => {
            let message = format!(
                "{}: is not there (renew it with coordinator certs init or issue)",
                path.join(CERTIFICATE_FILE).display()
            );
            Err(Failed::new(FailureKind::NotAllowed, message))
        }
        Found::Nothing => {
            let certificates = directory::authority_certificates(path)?;
            Ok(certificates
                .into_iter()
                .map(|certificate| Seen::of_authority(path, certificate, now))
                .collect())
        }
    }
}

/// A certificate that is shown.
struct Seen {
    directory: PathBuf,
    is_authority: bool,
    certificate: Certificate,
    signer: Option<Certificate>,
    /// Why it cannot be used.
    problem: Option<String>,
    /// A warning about a certificate that can be used.
    note: Option<String>,
}

impl Seen {
    fn of_leaf(path: &Path, held: Held, now: OffsetDateTime) -> Self {
        let signer = held.signer().cloned();
        let (problem, note) = (problem(&held, now), open_key(&path.join(KEY_FILE)));
        Self {
            directory: path.to_path_buf(),
            is_authority: false,
            certificate: held.certificate,
            signer,
            problem,
            note,
        }
    }

    fn of_authority(path: &Path, certificate: Certificate, now: OffsetDateTime) -> Self {
        let problem = if certificate.is_authority() {
            wrong_time(&certificate, now)
        } else {
            Some("not a CA's certificate".to_string())
        };
        let note = open_key(&path.join(CA_KEY));
        Self { directory: path.to_path_buf(), is_authority: true, certificate, signer: None, problem, note }
    }

    fn role(&self) -> Option<String> {
        let roles: Vec<_> = self.certificate.roles().iter().map(Role::to_string).collect();
        match (self.is_authority, roles.is_empty()) {
            (true, _) => Some("CA".to_string()),
            (false, true) => None,
            (false, false) => Some(roles.join(", ")),
        }
    }

    fn is_nearly_over(&self, now: OffsetDateTime) -> bool {
        self.certificate.validity().is_nearly_over(now)
    }

    fn state(&self, now: OffsetDateTime) -> String {
        if let Some(problem) = &self.problem {
            return problem.clone();
        }
        let ending = self.is_nearly_over(now).then(|| "less than a third of its time is left".to_string());
        let notes = ending.into_iter().chain(self.note.clone());
        ["valid".to_string()].into_iter().chain(notes).collect::<Vec<_>>().join("; ")
    }

    fn text(&self, now: OffsetDateTime) -> String {
        let validity = self.certificate.validity();
        let named = |certificate: &Certificate| {
            format!("{}, sha256 {}", certificate.subject(), certificate.fingerprint())
        };
        let signer = match (self.is_authority, &self.signer) {
            (true, _) => self.certificate.issuer().to_string(),
            (false, Some(signer)) => named(signer),
            (false, None) => format!("{}, which is not in {CA_FILE}", self.certificate.issuer()),
        };
        let lines = [
            ("directory", self.directory.display().to_string()),
            ("role", self.role().unwrap_or_else(|| "none".to_string())),
            ("subject", self.certificate.subject().to_string()),
            ("names", Name::list(self.certificate.names())),
            ("valid from", shown(validity.not_before)),
            ("expires", shown(validity.not_after)),
            ("days left", validity.days_left(now).to_string()),
            ("sha256", self.certificate.fingerprint()),
            ("signed by", signer),
            ("state", self.state(now)),
        ];
        lines
            .into_iter()
            .map(|(name, value)| format!("{name:WIDTH$}{value}").trim_end().to_string() + "\n")
            .collect()
    }

    fn json(&self, now: OffsetDateTime) -> String {
        let validity = self.certificate.validity();
        let names: Vec<_> = self.certificate.names().iter().map(Name::to_string).collect();
        let signer = self.signer.as_ref();
        let signer =
            signer.map(|signer| json!({ "subject": signer.subject(), "sha256": signer.fingerprint() }));
        let line = json!({
            "directory": self.directory.display().to_string(),
            "role": self.role(),
            "subject": self.certificate.subject(),
            "names": names,
            "not_before": shown(validity.not_before),
            "not_after": shown(validity.not_after),
            "days_left": validity.days_left(now),
            "renew": self.is_nearly_over(now),
            "sha256": self.certificate.fingerprint(),
            "ca": signer,
            "problem": self.problem,
            "note": self.note,
        });
        format!("{line}\n")
    }
}

/// Why a process cannot use this certificate.
fn problem(held: &Held, now: OffsetDateTime) -> Option<String> {
    let certificate = &held.certificate;
    if let Err(what) = &held.key {
        return Some(what.clone());
    }
    if held.signer().is_none() {
        return Some(format!("{CERTIFICATE_FILE} is not signed by a CA in {CA_FILE}"));
    }
    match certificate.roles() {
        [] => return Some(format!("{CERTIFICATE_FILE} says no role")),
        [role] if !certificate.is_for(Usage::of(*role)) => {
            return Some(format!(
                "{CERTIFICATE_FILE} is not for what a {role} does (its extended key usage)"
            ));
        }
        [_] => {}
        _ => return Some(format!("{CERTIFICATE_FILE} says several roles")),
    }
    wrong_time(certificate, now)
}

fn wrong_time(certificate: &Certificate, now: OffsetDateTime) -> Option<String> {
    let validity = certificate.validity();
    if validity.is_over(now) {
        return Some(format!("expired on {}", shown(validity.not_after)));
    }
    validity.is_to_come(now).then(|| format!("not valid before {}", shown(validity.not_before)))
}

fn open_key(path: &Path) -> Option<String> {
    let name = path.file_name()?.display();
    directory::is_open_to_others(path)
        .then(|| format!("{name} can be read by others; chmod 600 {}", path.display()))
}
