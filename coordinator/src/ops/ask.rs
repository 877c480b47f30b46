//! Queries an ops port, as `curl` would, for containers without `curl`.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::HOST;
use axum::http::{Request, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use millefeuille_program::process::root_cause;
use tokio::net::TcpStream;

/// Maximum length of a response. One line is expected; a longer response is not from one of our ports.
const ANSWER_BYTES: usize = 64 << 10;

/// Sends `GET` for a path to this port, within a time limit; returns the status and the body's first line.
///
/// # Errors
/// Why there is no response.
pub async fn ask(address: &str, path: &str, limit: Duration) -> Result<(StatusCode, String), String> {
    let answer = tokio::time::timeout(limit, get(address, path)).await;
    answer.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs_f64())))
}

async fn get(address: &str, path: &str) -> Result<(StatusCode, String), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let odd = |error: hyper::Error| format!("no answer in HTTP: {}", root_cause(&error));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(odd)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header(HOST, address).body(Body::empty());
    let request = request.map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(odd)?;
    let (status, body) = (answer.status(), Body::new(answer.into_body()));
    let body = to_bytes(body, ANSWER_BYTES).await.map_err(|error| root_cause(&error))?;
    connection.abort();
    let text = String::from_utf8_lossy(&body);
    let printable = |c: &char| !c.is_control();
    Ok((status, text.lines().next().unwrap_or_default().chars().filter(printable).collect()))
}
