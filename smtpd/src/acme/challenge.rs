//! The answer to an authority's question (HTTP-01, RFC 8555 section 8.3), given for as long as a request
//! lasts.
//!
//! In: tokens, and what is to be said when one is asked for. Whoever comes in is a stranger: connections,
//! their time and the octets of a request are bounded, and nothing but those answers is ever said.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::AcmeError;
use crate::net::{Listener, Net, Stream};

/// Where answers lie.
const PLACE: &str = "/.well-known/acme-challenge/";
/// Connections at the same time; more are closed unheard.
const CONNECTIONS_MAX: usize = 64;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most octets of a request; hyper takes no less.
const HEAD_OCTETS_MAX: usize = 8 * 1024;
/// The wait after a connection that could not be accepted.
const BREATH: Duration = Duration::from_millis(200);

/// What is answered, and how often it was asked for.
#[derive(Debug, Default)]
struct Table {
    answers: Mutex<HashMap<String, String>>,
    asked: AtomicUsize,
}

/// Listeners that answer; they end when dropped.
#[derive(Debug)]
pub(super) struct Answers {
    table: Arc<Table>,
    places: Vec<SocketAddr>,
    /// Addresses that could not be had, with the reason.
    refused: Vec<String>,
    _listening: JoinSet<()>,
}

impl Answers {
    /// Listens on all of these addresses that can be had.
    ///
    /// # Errors
    ///
    /// [`AcmeError::Listen`] if none can.
    pub(super) fn listen(net: &Net, addresses: &[SocketAddr]) -> Result<Self, AcmeError> {
        let (table, turns) =
            (Arc::new(Table::default()), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        let (mut places, mut refused, mut listening) = (Vec::new(), Vec::new(), JoinSet::new());
        for address in addresses {
            match net.listen(*address) {
                Ok(listener) => {
                    places.push(*address);
                    listening.spawn(accept(listener, Arc::clone(&table), Arc::clone(&turns)));
                }
                Err(error) => refused.push(format!("{address}: {}", words(&error))),
            }
        }
        if places.is_empty() {
            return Err(AcmeError::Listen(refused.join("; ")));
        }
        Ok(Self { table, places, refused, _listening: listening })
    }

    /// Has a token answered from now on.
    pub(super) fn add(&self, token: &str, answer: &str) {
        self.table.lock().insert(token.to_owned(), answer.to_owned());
    }

    /// Whether anybody has asked, in words for whoever looks for the reason of a failure.
    pub(super) fn words(&self) -> String {
        let places: Vec<String> = self.places.iter().map(SocketAddr::to_string).collect();
        let places = places.join(" and ");
        let mut text = match self.table.asked.load(Ordering::Relaxed) {
            0 => format!("nobody came to {places} to ask"),
            1 => format!("the answer was fetched once at {places}"),
            times => format!("the answer was fetched {times} times at {places}"),
        };
        if !self.refused.is_empty() {
            text.push_str(&format!("; not answered on {}", self.refused.join(", ")));
        }
        text
    }
}

/// What the system's error means here.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "{error}: ports below 1024 need CAP_NET_BIND_SERVICE, which the unit mailroot.service gives"
        ),
        io::ErrorKind::AddrInUse => format!(
            "{error}: have that program pass {PLACE} on to an address named in tls.acme.listen"
        ),
        _ => error.to_string(),
    }
}

async fn accept(listener: Listener, table: Arc<Table>, turns: Arc<Semaphore>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Ok(turn) = Arc::clone(&turns).try_acquire_owned() else { continue };
                let table = Arc::clone(&table);
                tokio::spawn(async move {
                    // Whoever is too slow, or says what is no request, has got his answer by that.
                    let _ended = tokio::time::timeout(PATIENCE, serve(stream, &table)).await;
                    drop(turn);
                });
            }
            Err(_) => tokio::time::sleep(BREATH).await,
        }
    }
}

async fn serve(stream: Stream, table: &Table) -> hyper::Result<()> {
    let reply = service_fn(|request: Request<Incoming>| {
        let reply = table.reply(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(reply) }
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    connection.keep_alive(false).max_buf_size(HEAD_OCTETS_MAX);
    connection.serve_connection(TokioIo::new(stream), reply).await
}

impl Table {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reply(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let token = path.strip_prefix(PLACE).filter(|_| method == Method::GET);
        let answer = token.and_then(|token| self.lock().get(token).cloned());
        let is_known = answer.is_some();
        self.asked.fetch_add(usize::from(is_known), Ordering::Relaxed);
        let mut response = Response::new(Full::from(answer.unwrap_or_default()));
        if is_known {
            let octets = header::HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(header::CONTENT_TYPE, octets);
        } else {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::SimulatedNet;

    async fn ask(net: &Net, request: &[u8]) -> String {
        let mut stream = net.connect("127.0.0.1:80".parse().unwrap(), None).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap_or_default();
        said
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_answered_and_nothing_else() {
        let net = Net::Simulated(SimulatedNet::default());
        let here = ["127.0.0.1:80".parse().unwrap()];
        let answers = Answers::listen(&net, &here).unwrap();
        answers.add("tok-1", "tok-1.thumb");
        assert_eq!(answers.words(), "nobody came to 127.0.0.1:80 to ask");
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: mx.test\r\n\r\n").into_bytes();
        let said = ask(&net, &get("/.well-known/acme-challenge/tok-1")).await;
        assert!(
            said.starts_with("HTTP/1.1 200 ") && said.ends_with("\r\n\r\ntok-1.thumb"),
            "{said}"
        );
        for path in ["/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/../tok-1"] {
            let said = ask(&net, &get(path)).await;
            assert!(said.starts_with("HTTP/1.1 404 "), "{path}: {said}");
        }
        assert!(answers.words().contains("fetched once"), "{}", answers.words());
        assert!(ask(&net, b"EHLO mx.test\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        assert_eq!(ask(&net, &[b'x'; 64 * 1024]).await.find("200"), None);
        assert_eq!(ask(&net, b"").await, "", "whoever says nothing is closed after a while");

        let taken = Answers::listen(&net, &here).unwrap_err().to_string();
        assert!(taken.contains("tls.acme.listen"), "{taken}");
        drop(answers);
    }
}
