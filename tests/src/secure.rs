//! TLS for the tests' own client, to which every certificate is good: what it proves is not its business.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};

use crate::setup::HOSTNAME;

/// A connection under TLS.
pub type Secured = StreamOwned<ClientConnection, TcpStream>;

#[derive(Debug)]
struct Everybody;

impl ServerCertVerifier for Everybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Every handshake is a whole one.
static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Everybody))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
});

fn client() -> ClientConnection {
    let name = ServerName::try_from(HOSTNAME).unwrap();
    ClientConnection::new(Arc::clone(&CONFIG), name).unwrap()
}

/// Does the handshake as a client.
///
/// # Errors
///
/// The system's error, or what is wrong with the server's words.
pub fn connect(mut stream: TcpStream) -> io::Result<Secured> {
    let mut client = client();
    while client.is_handshaking() {
        client.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(client, stream))
}

/// A client's first octets, to be sent as often as one likes: a server has all the work with them and
/// whoever sends them none.
///
/// # Panics
///
/// Never: there is room in memory.
#[must_use]
pub fn hello() -> Vec<u8> {
    let mut octets = Vec::new();
    client().write_tls(&mut octets).unwrap();
    octets
}
