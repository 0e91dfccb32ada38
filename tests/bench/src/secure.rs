//! Sessions under TLS, for what they take of the server; every certificate is good to this client.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};

use crate::Outcome;

/// How long one reply may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A session under TLS.
pub(crate) type Secured = BufReader<StreamOwned<ClientConnection, TcpStream>>;

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

/// With whole handshakes only.
pub(crate) fn config() -> Outcome<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Everybody))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn client(config: &Arc<ClientConfig>) -> Outcome<ClientConnection> {
    let name = ServerName::try_from("relay.test")?;
    Ok(ClientConnection::new(Arc::clone(config), name)?)
}

/// A client's first octets: a server has all the work with them, and whoever sends them again none.
pub(crate) fn hello() -> Outcome<Vec<u8>> {
    let mut octets = Vec::new();
    client(&config()?)?.write_tls(&mut octets)?;
    Ok(octets)
}

/// Connects, says EHLO and STARTTLS, comes under TLS and says EHLO again.
pub(crate) fn open(port: u16, config: &Arc<ClientConfig>) -> Outcome<Secured> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut clear = BufReader::new(stream);
    reply(&mut clear, "220")?;
    clear.get_mut().write_all(b"EHLO client.test\r\n")?;
    reply(&mut clear, "250")?;
    clear.get_mut().write_all(b"STARTTLS\r\n")?;
    reply(&mut clear, "220")?;
    let mut secured =
        BufReader::with_capacity(1024, StreamOwned::new(client(config)?, clear.into_inner()));
    secured.get_mut().write_all(b"EHLO client.test\r\n")?;
    reply(&mut secured, "250")?;
    Ok(secured)
}

/// Reads one reply, which must have this code.
fn reply(from: &mut impl BufRead, code: &str) -> io::Result<()> {
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::Error::other("the server hung up"));
        }
        if line.get(3..4) != Some("-") {
            let is_good = line.starts_with(code);
            return is_good.then_some(()).ok_or_else(|| io::Error::other(line));
        }
    }
}
