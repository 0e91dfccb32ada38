//! The side that is called: connections of clients.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mailroot_common::config::tls::{CertificateName, TlsVersion};
use rustls::server::{Acceptor, ServerConnection};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ProtocolVersion, ServerConfig, SupportedProtocolVersion};
use smtpd_core::message::received::Tls;
use smtpd_core::smtp::auth::Channel;
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;

use super::binding;
use super::certificates::{Certificates, Shown, provider};
use super::clients::{self, ClientCertificate, Clients};
use crate::net::Stream;

static BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
static NEWEST: &[&SupportedProtocolVersion] = &[&TLS13];

/// What clients come under TLS with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
    /// Looks at certificates of clients, if they are asked for any.
    clients: Option<Arc<Clients>>,
    /// Whether logins can be bound to the connection.
    binds: bool,
    /// Who may compute now.
    computing: Arc<Semaphore>,
    patience: Duration,
}

/// How a virtual server shows itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish<'a> {
    /// The certificates, the first one for whoever asks for no name.
    pub names: &'a [CertificateName],
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// How many handshakes are computed at once.
    pub handshakes: usize,
    /// How long a handshake may take.
    pub patience: Duration,
    /// Whether logins can be bound to the connection.
    pub binds: bool,
}

/// What a handshake came to.
#[derive(Debug)]
pub struct Handshake {
    /// The connection.
    pub stream: Stream,
    /// How it is protected.
    pub tls: Tls,
    /// What the client has shown, if it was asked.
    pub certificate: Option<ClientCertificate>,
    /// What logins can be bound to.
    pub channel: Channel,
}

impl ServerTls {
    /// Shows these certificates, whatever lies in their files at the time.
    #[must_use]
    pub fn new(certificates: &Certificates, wish: &Wish<'_>, clients: Option<Clients>) -> Self {
        let versions = match wish.min_version {
            TlsVersion::V12 => BOTH,
            TlsVersion::V13 => NEWEST,
        };
        let shown = Arc::new(certificates.shown(wish.names));
        let clients = clients.map(Arc::new);
        let config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(versions)
            .expect("the provider speaks both versions");
        let config = match &clients {
            Some(clients) => config.with_client_cert_verifier(Arc::clone(clients) as Arc<_>),
            None => config.with_no_client_auth(),
        };
        let mut config = config.with_cert_resolver(Arc::clone(&shown) as Arc<_>);
        config.ignore_client_order = true;
        Self {
            config: Arc::new(config),
            shown,
            clients,
            binds: wish.binds,
            computing: Arc::new(Semaphore::new(wish.handshakes)),
            patience: wish.patience,
        }
    }

    /// Whether there is a certificate to show at this moment.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shown.any()
    }

    /// Why no issuer of clients' certificates can be trusted, if that is so.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.clients.as_ref()?.trouble()
    }

    /// Brings a connection under TLS. What costs time is done for a few connections at once; one that
    /// only waits for its client keeps nobody else from it.
    ///
    /// # Errors
    ///
    /// In words for the log; the connection is gone then.
    pub async fn secure(&self, stream: Stream) -> Result<Handshake, String> {
        let done = tokio::time::timeout(self.patience, self.handshake(stream)).await;
        done.map_err(|_| "it took too long".to_owned())?.map_err(|error| words(&error))
    }

    async fn handshake(&self, stream: Stream) -> io::Result<Handshake> {
        let greeted = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let end_point = self.end_point(greeted.client_hello().server_name());
        let permit = self.computing.acquire().await.map_err(io::Error::other)?;
        let mut accept = pin!(greeted.into_stream(Arc::clone(&self.config)));
        let first = poll_fn(|context| Poll::Ready(accept.as_mut().poll(context))).await;
        drop(permit);
        let secured = match first {
            Poll::Ready(done) => done?,
            Poll::Pending => accept.await?,
        };
        let session = secured.get_ref().1;
        let certificate = self.certificate(session)?;
        let channel = Channel { exporter: self.exporter(session), end_point, ..Channel::default() };
        let stream = Stream::Tls(Box::new(secured.into()));
        let tls = spoken(&stream).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Handshake { stream, tls, certificate, channel })
    }

    /// What the client has shown, looked at anew: it may have come back with keys of an earlier session.
    fn certificate(&self, session: &ServerConnection) -> io::Result<Option<ClientCertificate>> {
        let Some(clients) = &self.clients else { return Ok(None) };
        let found = clients.judge(session.peer_certificates().unwrap_or_default());
        let why = match &found {
            None => Some(clients::words(&rustls::Error::NoCertificatesPresented)),
            Some(found) => found.standing.as_ref().err().cloned(),
        };
        match why.filter(|_| clients.are_required()) {
            Some(why) => Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
            None => Ok(found),
        }
    }

    /// RFC 9266; in older versions it says too little of the session.
    fn exporter(&self, session: &ServerConnection) -> Option<[u8; 32]> {
        let is_new = session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let make =
            || session.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""));
        (self.binds && is_new).then(make)?.ok()
    }

    /// The digest of the certificate that a client gets which asks for this name (RFC 5929 section 4.1).
    fn end_point(&self, host: Option<&str>) -> Option<Vec<u8>> {
        let key = self.binds.then(|| self.shown.choose(host))??;
        binding::of_certificate(key.cert.first()?)
    }
}

/// What a connection is protected by, whichever side has called; nothing if it is in clear text.
#[must_use]
pub fn spoken(stream: &Stream) -> Option<Tls> {
    let Stream::Tls(stream) = stream else { return None };
    let session = stream.get_ref().1;
    let is_new = session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
    Some(Tls {
        version: if is_new { "TLSv1.3" } else { "TLSv1.2" },
        cipher: suite.and_then(registered).unwrap_or("unknown"),
    })
}

/// A suite as it is registered; those of TLS 1.3 are called otherwise in the library.
fn registered(suite: CipherSuite) -> Option<&'static str> {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => Some("TLS_AES_128_GCM_SHA256"),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => Some("TLS_AES_256_GCM_SHA384"),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some("TLS_CHACHA20_POLY1305_SHA256"),
        other => other.as_str(),
    }
}

/// What went wrong, as an administrator would say it.
fn words(error: &io::Error) -> String {
    use rustls::Error;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(_)) => "the client does not speak TLS".to_owned(),
        Some(Error::AlertReceived(alert)) => format!("the client broke it off: {alert:?}"),
        Some(Error::PeerIncompatible(why)) => format!("the client speaks another TLS: {why:?}"),
        Some(other) => clients::words(other),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "the client hung up".to_owned(),
        None => error.to_string(),
    }
}
