//! Asking the web: one request, one answer, over a connection of its own.
//!
//! In: an [`Endpoint`] and what to say to it. Out: the status and the octets of the answer. Whoever
//! answers is a stranger: time and octets are bounded, redirects are not followed, and under TLS the
//! host must prove its name to those that `tls.trust` names.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use mailroot_common::address::Host;
use mailroot_common::config::oauth::Endpoint;
use smtpd_core::route::loopback::{AddressRule, FoundBy, Refused};
use tokio::time::timeout;

use crate::net::{Net, Stream};
use crate::resolve::{Allowance, Family, LookupError, Resolver};
use crate::tls::{ClientTls, Proof, TlsError};

/// What we call ourselves.
const AGENT: &str = concat!("Mailroot/", env!("CARGO_PKG_VERSION"));
/// How long one address of several may take to answer a call.
const CONNECT_WAIT: Duration = Duration::from_secs(8);

/// By which means the web is asked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Https {
    /// The network.
    pub net: Net,
    /// Asks DNS.
    pub resolver: Resolver,
    /// What connections come under TLS with.
    pub tls: ClientTls,
}

/// How much an answer may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For all of it.
    pub wait: Duration,
    /// Of the answer's body.
    pub octets: usize,
}

/// An answer, whatever its status.
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// What the body is said to be, without parameters, in small letters.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// Without the body, which may hold a secret.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The host's name.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// No address of it could be called.
    #[error("cannot connect to {at}: {source}")]
    Connect {
        /// The last that was tried.
        at: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// An address of it is none that a stranger may have us call.
    #[error("{at} is not connected to: {why}")]
    NotAllowed {
        /// The last that was looked at.
        at: SocketAddr,
        /// Why not.
        why: Refused,
    },
    /// It is not proved to be the host that is meant.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The conversation broke off.
    #[error("the conversation broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// The request cannot be made.
    #[error("the address cannot be asked: {0}")]
    Request(#[from] hyper::http::Error),
    /// Whoever was asked first names an address that is not asked.
    #[error("{0} is not asked: it is no address that begins with https:")]
    Address(String),
    /// There is too much of the answer.
    #[error("the answer is longer than {0} octets")]
    TooLong(usize),
    /// The body of the answer broke off.
    #[error("the answer broke off: {0}")]
    Body(String),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
}

impl Https {
    /// Posts a form and waits for the answer.
    ///
    /// # Errors
    ///
    /// [`HttpsError`]; what the host says with any status is an answer.
    pub async fn post_form(
        &self,
        to: &Endpoint,
        form: String,
        bounds: Bounds,
    ) -> Result<Answer, HttpsError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(to.target())
            .header(header::HOST, to.authority())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, AGENT)
            .body(Full::new(Bytes::from(form)))?;
        let asked = timeout(bounds.wait, self.ask(to, request, bounds.octets, None)).await;
        asked.map_err(|_| HttpsError::TimedOut(bounds.wait))?
    }

    /// Posts octets to an address that a stranger chose: only those hosts are called that the rule lets be
    /// asked for him.
    ///
    /// # Errors
    ///
    /// [`HttpsError`]; what the host says with any status is an answer.
    pub async fn post(
        &self,
        to: &Endpoint,
        (content_type, octets): (&str, Vec<u8>),
        bounds: Bounds,
        rule: &AddressRule,
    ) -> Result<Answer, HttpsError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(to.target())
            .header(header::HOST, to.authority())
            .header(header::CONTENT_TYPE, content_type)
            .header(header::USER_AGENT, AGENT)
            .body(Full::new(Bytes::from(octets)))?;
        let rule = Some((rule, FoundBy::Web));
        let asked = timeout(bounds.wait, self.ask(to, request, bounds.octets, rule)).await;
        asked.map_err(|_| HttpsError::TimedOut(bounds.wait))?
    }

    /// Gets what lies at an address that a stranger chose: only those hosts are called that the rule
    /// lets mail be sent to.
    ///
    /// # Errors
    ///
    /// [`HttpsError`]; what the host says with any status is an answer.
    pub async fn get(
        &self,
        from: &Endpoint,
        bounds: Bounds,
        rule: &AddressRule,
    ) -> Result<Answer, HttpsError> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(from.target())
            .header(header::HOST, from.authority())
            .header(header::USER_AGENT, AGENT)
            .body(Full::default())?;
        let rule = Some((rule, FoundBy::Mx));
        let asked = timeout(bounds.wait, self.ask(from, request, bounds.octets, rule)).await;
        asked.map_err(|_| HttpsError::TimedOut(bounds.wait))?
    }

    /// Makes a request of somebody else's making, whose address is in it. Where there is a rule, the address is a
    /// stranger's: only those hosts are called that the rule lets be asked for him.
    ///
    /// # Errors
    ///
    /// [`HttpsError`]; what the host says with any status is an answer.
    pub async fn request(
        &self,
        mut request: Request<Full<Bytes>>,
        bounds: Bounds,
        rule: Option<&AddressRule>,
    ) -> Result<Response<Bytes>, HttpsError> {
        let address = request.uri().to_string();
        let to = Endpoint::parse(&address).ok_or(HttpsError::Address(address))?;
        *request.uri_mut() = Uri::try_from(to.target()).map_err(hyper::http::Error::from)?;
        let said =
            |text: &str| header::HeaderValue::try_from(text).map_err(hyper::http::Error::from);
        request.headers_mut().insert(header::HOST, said(&to.authority())?);
        request.headers_mut().insert(header::USER_AGENT, said(AGENT)?);
        let rule = rule.map(|rule| (rule, FoundBy::Web));
        let asked = timeout(bounds.wait, self.converse(&to, request, bounds.octets, rule)).await;
        asked.map_err(|_| HttpsError::TimedOut(bounds.wait))?
    }

    async fn ask(
        &self,
        to: &Endpoint,
        request: Request<Full<Bytes>>,
        octets_max: usize,
        rule: Option<(&AddressRule, FoundBy)>,
    ) -> Result<Answer, HttpsError> {
        let answer = self.converse(to, request, octets_max, rule).await?;
        let content_type = answer.headers().get(header::CONTENT_TYPE);
        let content_type = content_type
            .and_then(|value| value.to_str().ok())
            .map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        let status = answer.status().as_u16();
        Ok(Answer { status, content_type, body: answer.into_body() })
    }

    async fn converse(
        &self,
        to: &Endpoint,
        request: Request<Full<Bytes>>,
        octets_max: usize,
        rule: Option<(&AddressRule, FoundBy)>,
    ) -> Result<Response<Bytes>, HttpsError> {
        let stream = self.connect(to, rule).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let talk = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, octets_max).collect().await;
            let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
                Ok(_) => HttpsError::TooLong(octets_max),
                Err(error) => HttpsError::Body(error.to_string()),
            })?;
            Ok::<_, HttpsError>(Response::from_parts(head, body.to_bytes()))
        };
        // The connection works for as long as the talk lasts; then both are over.
        tokio::pin!(talk, connection);
        tokio::select! {
            biased;
            answer = &mut talk => answer,
            ended = &mut connection => {
                ended?;
                talk.await
            }
        }
    }

    /// Calls the host's addresses in order, and comes under TLS with the first that answers.
    async fn connect(
        &self,
        to: &Endpoint,
        rule: Option<(&AddressRule, FoundBy)>,
    ) -> Result<Stream, HttpsError> {
        let allowance = Allowance::default();
        let addresses: Vec<IpAddr> = match to.host() {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.resolver.addresses(name, Family::Any, &allowance).await?,
        };
        let mut last = None;
        for address in addresses {
            let at = SocketAddr::new(address, to.port());
            let checked = rule.map_or(Ok(()), |(rule, by)| rule.check(address, at.port(), by));
            if let Err(why) = checked {
                last = Some(HttpsError::NotAllowed { at, why });
                continue;
            }
            let called = timeout(CONNECT_WAIT, self.net.connect(at, None)).await;
            match called.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) if !to.is_secure() => return Ok(stream),
                Ok(stream) => {
                    let secured = self.tls.secure(stream, to.host(), Proof::Name, None).await?;
                    return Ok(secured.stream);
                }
                Err(source) => last = Some(HttpsError::Connect { at, source }),
            }
        }
        // There is no such list, but nothing is lost by an answer to it.
        Err(last.unwrap_or_else(|| LookupError::NoData(to.authority()).into()))
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::config::Profile;
    use mailroot_common::config::section::Section as _;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::SimulatedNet;
    use crate::resolve::SimulatedDns;

    const HERE: &str = "http://127.0.0.1:8080/token?a=b";

    fn https(net: &Net) -> Https {
        let tls = ClientTls::new(&mailroot_common::config::tls::Tls::defaults(Profile::Modern));
        Https { net: net.clone(), resolver: Resolver::Simulated(SimulatedDns::default()), tls }
    }

    /// Asks somebody who says this, whatever is asked; what was asked, and what came of it.
    async fn ask(answer: &'static [u8]) -> (String, Result<Answer, HttpsError>) {
        let net = Net::Simulated(SimulatedNet::default());
        let listener = net.listen("127.0.0.1:8080".parse().unwrap()).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"x=y") {
                assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0);
            }
            stream.write_all(answer).await.unwrap();
            String::from_utf8(heard).unwrap()
        };
        let to = Endpoint::parse(HERE).unwrap();
        let bounds = Bounds { wait: Duration::from_secs(5), octets: 20 };
        let https = https(&net);
        tokio::join!(serve, https.post_form(&to, "x=y".to_owned(), bounds))
    }

    #[tokio::test(start_paused = true)]
    async fn a_form_is_posted_and_the_answer_is_read_within_bounds() {
        let (heard, answer) = ask(b"HTTP/1.1 400 x\r\ncontent-length: 2\r\n\r\n{}").await;
        assert!(
            heard.starts_with("POST /token?a=b HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n"),
            "{heard}"
        );
        assert!(heard.contains("content-type: application/x-www-form-urlencoded\r\n"), "{heard}");
        let answer = answer.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (400, &b"{}"[..]));

        let (_, answer) =
            ask(b"HTTP/1.1 200 x\r\nconnection: close\r\n\r\nas long as it lasts").await;
        assert_eq!(answer.unwrap().body.len(), 19);
        let (_, answer) =
            ask(b"HTTP/1.1 200 x\r\ncontent-length: 21\r\n\r\n123456789012345678901").await;
        assert!(matches!(answer, Err(HttpsError::TooLong(20))), "{answer:?}");
        let (_, answer) = ask(b"HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\n1").await;
        assert!(matches!(answer, Err(HttpsError::Body(_))), "{answer:?}");
        let (_, answer) = ask(b"220 mail.example ESMTP\r\n").await;
        assert!(matches!(answer, Err(HttpsError::Broken(_))), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_chooses_no_host_of_this_machine() {
        let net = Net::Simulated(SimulatedNet::default());
        let bounds = Bounds { wait: Duration::from_secs(5), octets: 20 };
        let here = Endpoint::parse("https://127.0.0.1/policy").unwrap();
        let answer = https(&net).get(&here, bounds, &AddressRule::default()).await;
        assert!(matches!(answer, Err(HttpsError::NotAllowed { .. })), "{answer:?}");
        let rule = AddressRule { allow_loopback: true, ..AddressRule::default() };
        let answer = https(&net).get(&here, bounds, &rule).await;
        assert!(matches!(answer, Err(HttpsError::Connect { .. })), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_there_and_nobody_who_speaks() {
        let net = Net::Simulated(SimulatedNet::default());
        let bounds = Bounds { wait: Duration::from_secs(30), octets: 20 };
        let here = Endpoint::parse(HERE).unwrap();
        let answer = https(&net).post_form(&here, String::new(), bounds).await;
        assert!(matches!(answer, Err(HttpsError::Connect { .. })), "{answer:?}");
        let _silent = net.listen("127.0.0.1:8080".parse().unwrap()).unwrap();
        let answer = https(&net).post_form(&here, String::new(), bounds).await;
        assert_eq!(answer.unwrap_err().to_string(), "no answer within 30 s");
        let nowhere = Endpoint::parse("https://nowhere.test/").unwrap();
        let answer = https(&net).post_form(&nowhere, String::new(), bounds).await;
        assert!(matches!(answer, Err(HttpsError::Lookup(_))), "{answer:?}");
    }
}
