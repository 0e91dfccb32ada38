//! The side that is called: connections of clients.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mailroot_common::config::tls::{CertificateName, TlsVersion};
use rustls::server::Acceptor;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ProtocolVersion, ServerConfig, SupportedProtocolVersion};
use smtpd_core::message::received::Tls;
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;

use super::certificates::{Certificates, Shown, provider};
use crate::net::Stream;

static BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
static NEWEST: &[&SupportedProtocolVersion] = &[&TLS13];

/// What clients come under TLS with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
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
}

impl ServerTls {
    /// Shows these certificates, whatever lies in their files at the time.
    #[must_use]
    pub fn new(certificates: &Certificates, wish: &Wish<'_>) -> Self {
        let versions = match wish.min_version {
            TlsVersion::V12 => BOTH,
            TlsVersion::V13 => NEWEST,
        };
        let shown = Arc::new(certificates.shown(wish.names));
        let config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(versions)
            .expect("the provider speaks both versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<_>);
        Self {
            config: Arc::new(config),
            shown,
            computing: Arc::new(Semaphore::new(wish.handshakes)),
            patience: wish.patience,
        }
    }

    /// Whether there is a certificate to show at this moment.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shown.any()
    }

    /// Brings a connection under TLS. What costs time is done for a few connections at once; one that
    /// only waits for its client keeps nobody else from it.
    ///
    /// # Errors
    ///
    /// In words for the log; the connection is gone then.
    pub async fn secure(&self, stream: Stream) -> Result<(Stream, Tls), String> {
        let done = tokio::time::timeout(self.patience, self.handshake(stream)).await;
        done.map_err(|_| "it took too long".to_owned())?.map_err(|error| words(&error))
    }

    async fn handshake(&self, stream: Stream) -> io::Result<(Stream, Tls)> {
        let greeted = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let permit = self.computing.acquire().await.map_err(io::Error::other)?;
        let mut accept = pin!(greeted.into_stream(Arc::clone(&self.config)));
        let first = poll_fn(|context| Poll::Ready(accept.as_mut().poll(context))).await;
        drop(permit);
        let secured = match first {
            Poll::Ready(done) => done?,
            Poll::Pending => accept.await?,
        };
        let stream = Stream::Tls(Box::new(secured.into()));
        let tls = spoken(&stream).ok_or(io::ErrorKind::InvalidData)?;
        Ok((stream, tls))
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
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "the client hung up".to_owned(),
        None => error.to_string(),
    }
}
