//! What a login is bound to, so that nobody in between can pass it on: the certificate of the side that was
//! called (RFC 5929 section 4).

use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use smtpd_core::certificate::{SignatureDigest, end_point_digest};

use crate::net::Stream;

/// The digest of a certificate that a login is bound to.
pub(super) fn of_certificate(der: &[u8]) -> Option<Vec<u8>> {
    let algorithm = match end_point_digest(der)? {
        SignatureDigest::Sha256 => &SHA256,
        SignatureDigest::Sha384 => &SHA384,
        SignatureDigest::Sha512 => &SHA512,
    };
    Some(digest(algorithm, der).as_ref().to_vec())
}

/// What a login is bound to at a host that we have called: `tls-server-end-point`, its name in front; nothing
/// in clear text.
#[must_use]
pub fn end_point(stream: &Stream) -> Option<Vec<u8>> {
    let Stream::Tls(stream) = stream else { return None };
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    Some([&b"tls-server-end-point:"[..], &of_certificate(certificate)?].concat())
}
