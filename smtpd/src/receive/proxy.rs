//! Who is behind a balancer: the header that it sends ahead of everything else (the PROXY protocol,
//! versions 1 and 2, as HAProxy's `proxy-protocol.txt` has it).
//!
//! Only named balancers are listened to, and of those the header is wanted: a client that could come
//! past it would be taken for the balancer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How long a balancer may take for its header.
pub(super) const WITHIN: Duration = Duration::from_secs(10);
/// How many may be at it at once.
pub(super) const AT_ONCE_MAX: usize = 1_000;

/// Octets that every header has; the signature of version 2.
const FIRST: usize = 12;
/// The longest header of version 1, its CRLF included (section 2.1).
const FIRST_VERSION_MAX: usize = 107;
/// Octets of version 2 before what is counted by its length (section 2.2).
const FIXED: usize = 16;
/// The longest header of version 2 that is taken; what a balancer adds of TLS is well below.
const SECOND_VERSION_MAX: usize = 4096;

/// Nobody's address: a connection of the balancer's own, or one it does not tell the client of. On no list
/// of those who may do anything.
pub(super) const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Why no client is known.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("the connection ended before its header: {0}")]
    Io(#[from] std::io::Error),
    #[error("there was no header within {}s", WITHIN.as_secs())]
    Late,
    #[error("what came is no header of the PROXY protocol")]
    Bad,
    #[error("the header is longer than {SECOND_VERSION_MAX} octets")]
    Long,
    #[error("the header is about datagrams")]
    Datagrams,
}

/// Reads the header, and no octet behind it.
///
/// # Errors
///
/// [`HeaderError`]; whoever it was is not to be served.
pub(super) async fn client_behind(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<SocketAddr, HeaderError> {
    let read = tokio::time::timeout(WITHIN, read(stream));
    let octets = read.await.map_err(|_| HeaderError::Late)??;
    let (header, used) =
        ProxyHeader::parse(&octets, ParseConfig::default()).map_err(|_| HeaderError::Bad)?;
    if used != octets.len() {
        return Err(HeaderError::Bad);
    }
    match header.proxied_address() {
        Some(address) if address.protocol == Protocol::Datagram => Err(HeaderError::Datagrams),
        Some(address) => Ok(address.source),
        None => Ok(NOBODY),
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, HeaderError> {
    let mut octets = vec![0; FIRST];
    stream.read_exact(&mut octets).await?;
    if octets.starts_with(b"PROXY ") {
        while !octets.ends_with(b"\r\n") {
            if octets.len() >= FIRST_VERSION_MAX {
                return Err(HeaderError::Bad);
            }
            octets.push(stream.read_u8().await?);
        }
        return Ok(octets);
    }
    octets.resize(FIXED, 0);
    let Some(rest) = octets.get_mut(FIRST..) else { return Err(HeaderError::Bad) };
    if !rest.is_empty() {
        stream.read_exact(rest).await?;
    }
    let &[.., high, low] = octets.as_slice() else { return Err(HeaderError::Bad) };
    let whole = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if whole > SECOND_VERSION_MAX {
        return Err(HeaderError::Long);
    }
    octets.resize(whole, 0);
    let Some(rest) = octets.get_mut(FIXED..) else { return Err(HeaderError::Bad) };
    stream.read_exact(rest).await?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use proxy_header::ProxiedAddress;

    use super::*;

    /// What is read of these octets, and how many are left.
    async fn behind(octets: &[u8]) -> (Result<String, HeaderError>, usize) {
        let mut stream = octets;
        let found = client_behind(&mut stream).await;
        (found.map(|it| it.to_string()), stream.len())
    }

    fn second_version(source: &str) -> Vec<u8> {
        let (source, to) = (source.parse().unwrap(), "[2001:db8::1]:25".parse().unwrap());
        let mut octets = Vec::new();
        let header = ProxyHeader::with_address(ProxiedAddress::stream(source, to));
        header.encode_v2(&mut octets).unwrap();
        octets
    }

    #[tokio::test]
    async fn both_versions_tell_the_client_and_nothing_behind_is_taken() {
        for (header, expected) in [
            (&b"PROXY TCP4 192.0.2.7 198.51.100.1 5555 25\r\n"[..], "192.0.2.7:5555"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 5555 25\r\n", "[2001:db8::7]:5555"),
            (&second_version("[2001:db8::9]:77"), "[2001:db8::9]:77"),
            (b"PROXY UNKNOWN\r\n", "0.0.0.0:0"),
            (b"PROXY UNKNOWN 192.0.2.7 198.51.100.1 5555 25\r\n", "0.0.0.0:0"),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "0.0.0.0:0"),
        ] {
            let (found, left) = behind(&[header, b"EHLO a\r\n"].concat()).await;
            assert_eq!((found.unwrap().as_str(), left), (expected, 8), "{header:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".as_slice(), &[0; 70_000]].concat();
        for octets in [
            &b""[..],
            b"EHLO client.example\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 5555 ",
            b"PROXY TCP4 192.0.2.700 198.51.100.1 5555 25\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c0123456789ab",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c0123456789ab",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x02ab",
            &[b"PROXY TCP4 ".as_slice(), &[b'1'; 500]].concat(),
            &long,
        ] {
            assert!(behind(octets).await.0.is_err(), "{octets:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_balancer_that_says_nothing_is_not_waited_for() {
        let (mut ours, _theirs) = tokio::io::duplex(64);
        assert!(matches!(client_behind(&mut ours).await, Err(HeaderError::Late)));
    }
}
