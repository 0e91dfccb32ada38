//! What a peer can do, read from its reply to EHLO.

use super::super::reply::Reply;

/// The extensions a peer offers; none after HELO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870): offered, with the limit in octets if it names one.
    pub size: Option<Option<u64>>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// BINARYMIME (RFC 3030).
    pub binary_mime: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// Transactions in one session, from LIMITS (RFC 9422).
    pub mail_max: Option<u32>,
    /// Recipients in one transaction, from LIMITS.
    pub rcpt_max: Option<u32>,
    /// Different recipient domains in one transaction, from LIMITS.
    pub rcpt_domain_max: Option<u32>,
}

impl Peer {
    /// Reads the reply to EHLO; its first line is the peer's name. Keywords that are not known
    /// or not well formed count as not offered.
    #[must_use]
    pub fn from_ehlo(reply: &Reply) -> Self {
        let mut peer = Self::default();
        for line in reply.lines().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => peer.pipelining = true,
                "SIZE" => {
                    let limit = words.next().and_then(|word| word.parse().ok());
                    peer.size = Some(limit.filter(|&limit: &u64| limit != 0));
                }
                "8BITMIME" => peer.eight_bit_mime = true,
                "BINARYMIME" => peer.binary_mime = true,
                "CHUNKING" => peer.chunking = true,
                "SMTPUTF8" => peer.smtputf8 = true,
                "DSN" => peer.dsn = true,
                "LIMITS" => words.for_each(|word| peer.add_limit(word)),
                _ => {}
            }
        }
        peer
    }

    fn add_limit(&mut self, word: &str) {
        let Some((name, value)) = word.split_once('=') else { return };
        let value = value.parse().ok().filter(|&value: &u32| value != 0);
        match name.to_ascii_uppercase().as_str() {
            "MAILMAX" => self.mail_max = value,
            "RCPTMAX" => self.rcpt_max = value,
            "RCPTDOMAINMAX" => self.rcpt_domain_max = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::status::ReplyCode;

    use super::*;

    #[test]
    fn offers_are_read_and_nonsense_is_no_offer() {
        let text = "mx.test\npipelining\nSIZE 1000\n8BITMIME\nDSN\nX-ODD=1 2\n\nCHUNKING\n\
                    LIMITS RCPTMAX=20 MAILMAX=x RCPTDOMAINMAX=1 OTHER=3";
        let peer = Peer::from_ehlo(&Reply::new(ReplyCode::new(250), None, text));
        let expected = Peer {
            pipelining: true,
            size: Some(Some(1000)),
            eight_bit_mime: true,
            dsn: true,
            chunking: true,
            rcpt_max: Some(20),
            rcpt_domain_max: Some(1),
            ..Peer::default()
        };
        assert_eq!(peer, expected);
    }

    #[test]
    fn size_without_a_number_is_an_offer_without_limit() {
        for text in ["mx\nSIZE", "mx\nSIZE 0", "mx\nSIZE big", "mx\nSIZE 99999999999999999999999"] {
            let peer = Peer::from_ehlo(&Reply::new(ReplyCode::new(250), None, text));
            assert_eq!(peer.size, Some(None), "{text:?}");
        }
        let named_pipelining = Reply::new(ReplyCode::new(250), None, "PIPELINING");
        assert!(!Peer::from_ehlo(&named_pipelining).pipelining);
    }
}
