//! A client of an ops port that sends arbitrary bytes.

use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::patience::{Wait, until};
use crate::process::Process;

/// The time between two checks of the wait.
const LOOK: Duration = Duration::from_secs(1);

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers: names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no header: {line:?}"));
            (name.to_lowercase(), value.to_string())
        };
        Self {
            status: status.unwrap_or_else(|| panic!("no status: {head:?}")),
            headers: lines.map(header).collect(),
            body: body.to_string(),
        }
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }
}

/// An ops port.
#[derive(Clone, Debug)]
pub struct Port(pub String);

impl Port {
    /// The ops port of a process, from its log.
    pub fn of(process: &mut Process) -> Self {
        let says = "probes and metrics are at http://";
        let line = process.says(says);
        Self(line[says.len()..].split(": ").next().unwrap_or_default().to_string())
    }

    /// A connection without a request.
    ///
    /// # Panics
    /// If the connection fails.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.0).unwrap_or_else(|error| panic!("{}: {error}", self.0));
        stream.set_read_timeout(Some(LOOK)).expect("a time limit can be set");
        stream
    }

    /// Sends these bytes. Returns everything that is received until the end of the connection.
    pub fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may close before it has read everything.
        let _ = stream.write_all(bytes);
        rest(&mut stream)
    }

    /// The response to a request without a body.
    pub fn request(&self, method: &str, path: &str) -> Answer {
        Answer::parse(&self.say(format!("{method} {path} HTTP/1.1\r\nHost: ops\r\n\r\n").as_bytes()))
    }

    /// The response to these bytes.
    pub fn answer(&self, bytes: &[u8]) -> Answer {
        Answer::parse(&self.say(bytes))
    }

    /// The status and the line of a probe.
    ///
    /// # Panics
    /// If the body is not exactly one line.
    pub fn probe(&self, path: &str) -> (u16, String) {
        let Answer { status, body, .. } = self.request("GET", path);
        let line = body.strip_suffix('\n').filter(|line| !line.contains('\n'));
        (status, line.unwrap_or_else(|| panic!("one line: {body:?}")).to_string())
    }

    /// Waits until a probe has this status. Returns its line.
    pub fn answers(&self, path: &str, status: u16) -> String {
        until(format!("{path} answers {status}"), || {
            let (there, line) = self.probe(path);
            (there == status).then_some(line)
        })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The remaining bytes of a connection, which the server must close.
///
/// # Panics
/// If it does not.
pub fn rest(stream: &mut TcpStream) -> String {
    let mut wait = Wait::new("a connection is closed");
    let mut all = Vec::new();
    // The bytes before an error stay in `all`.
    while let Err(error) = stream.read_to_end(&mut all) {
        match error.kind() {
            // Closing with unread bytes counts as closing.
            ErrorKind::ConnectionReset => break,
            ErrorKind::WouldBlock => wait.poll().unwrap_or_else(|timeout| panic!("{timeout}")),
            _ => panic!("it is not closed: {error}"),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}
