//! Where a domain wants its reports: the TXT record below `_smtp._tls` (RFC 8460 section 3).
//!
//! In: the texts of the record. Out: addresses of mail and of the web. A stranger wrote them: there are
//! few, and each is one that we could have been given by an operator.

use mailroot_common::address::Mailbox;
use mailroot_common::config::oauth::Endpoint;
use serde::{Deserialize, Serialize};

/// Destinations heeded.
const DESTINATIONS_MAX: usize = 4;

/// Of the web: a stranger must not have us call other services.
const PORT: u16 = 443;

/// Where a report goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Destination {
    /// By mail.
    Mail(Mailbox),
    /// By a request to the web.
    Web(Endpoint),
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mail(mailbox) => write!(f, "mailto:{mailbox}"),
            Self::Web(at) => at.fmt(f),
        }
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.to_string()
    }
}

impl TryFrom<String> for Destination {
    type Error = &'static str;

    /// Reads what [`Destination`] is shown as; unlike in a record nothing stands in code there.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let found = match text.strip_prefix("mailto:") {
            Some(address) => Mailbox::parse(address).ok().map(Self::Mail),
            None => on_the_web(&text).map(Self::Web),
        };
        found.ok_or("not a destination of reports")
    }
}

/// The destinations; none unless one of the texts, and only one, speaks of reports.
#[must_use]
pub fn destinations<'t>(texts: impl IntoIterator<Item = &'t str>) -> Vec<Destination> {
    let mut ours = texts.into_iter().filter_map(after_version);
    let (Some(fields), None) = (ours.next(), ours.next()) else { return Vec::new() };
    let blank = [' ', '\t'];
    let fields = fields.split(';').filter_map(|field| field.split_once('='));
    let rua = fields.map(|(key, value)| (key.trim_matches(blank), value)).find(|it| it.0 == "rua");
    let all = rua.map_or("", |(_, value)| value).split(',');
    all.filter_map(|uri| destination(uri.trim_matches(blank))).take(DESTINATIONS_MAX).collect()
}

fn after_version(text: &str) -> Option<&str> {
    text.strip_prefix("v=TLSRPTv1")?.trim_start_matches([' ', '\t']).strip_prefix(';')
}

fn destination(uri: &str) -> Option<Destination> {
    let (scheme, rest) = uri.split_once(':')?;
    match scheme.to_ascii_lowercase().as_str() {
        "mailto" => {
            let address = decoded(rest.split('?').next().unwrap_or_default())?;
            Mailbox::parse(&address).ok().map(Destination::Mail)
        }
        "https" => {
            // A comma and an exclamation mark are written in code; nothing else is touched.
            let uri = format!("https:{rest}").replace("%2C", ",").replace("%21", "!");
            on_the_web(&uri).map(Destination::Web)
        }
        _ => None,
    }
}

fn on_the_web(uri: &str) -> Option<Endpoint> {
    let at = Endpoint::parse(uri).filter(Endpoint::is_secure);
    at.filter(|at| at.port() == PORT)
}

/// A text without percent codes (RFC 3986 section 2.1); nothing if one is broken.
fn decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(&octet) = rest.next() {
        if octet == b'%' {
            let digits = [*rest.next()?, *rest.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            octets.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            octets.push(octet);
        }
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_record_and_no_more_says_where() {
        for (texts, expected) in [
            (&["v=TLSRPTv1;rua=mailto:reports@example.com"][..], "mailto:reports@example.com"),
            (
                &["v=TLSRPTv1; rua=https://reports.example.com/v1/tlsrpt"],
                "https://reports.example.com/v1/tlsrpt",
            ),
            (
                &["v=TLSRPTv1 ; rua = mailto:a@b.test , HTTPS://c.test/%2Cx!;"],
                "mailto:a@b.test https://c.test/,x!",
            ),
            (&["v=TLSRPTv1; x=y; rua=MAILTO:a%2Bb@c.test?subject=x"], "mailto:a+b@c.test"),
            (&["v=spf1 -all", "v=TLSRPTv1; rua=mailto:a@b.test"], "mailto:a@b.test"),
            (&["v=TLSRPTv1; rua=mailto:a@b.test", "v=TLSRPTv1; rua=mailto:a@b.test"], ""),
            (&["v=TLSRPTv2; rua=mailto:a@b.test"], ""),
            (&["v=TLSRPTv1 rua=mailto:a@b.test"], ""),
            (&["v=TLSRPTv1; rua=http://localhost/x,https://a.test:25/x"], ""),
            (&["v=TLSRPTv1; rua=ftp://a.test/x,mailto:,mailto:a%zz@b.test,mailto:a%0d@b.test"], ""),
            (&["v=TLSRPTv1;"], ""),
            (&[], ""),
        ] {
            let found = destinations(texts.iter().copied());
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.join(" "), expected, "{texts:?}");
            for kept in destinations(texts.iter().copied()) {
                let text = serde_json::to_string(&kept).unwrap();
                assert_eq!(serde_json::from_str::<Destination>(&text).unwrap(), kept);
            }
        }
        let many = format!("v=TLSRPTv1; rua={}", "mailto:a@b.test,".repeat(50));
        assert_eq!(destinations([many.as_str()]).len(), DESTINATIONS_MAX);
    }

    proptest! {
        #[test]
        fn strangers_may_write_anything(rest in "\\PC{0,200}") {
            let text = format!("v=TLSRPTv1;rua={rest}");
            let found = destinations([text.as_str()]);
            prop_assert!(found.len() <= DESTINATIONS_MAX);
            for kept in found {
                prop_assert_eq!(Destination::try_from(kept.to_string()), Ok(kept));
            }
        }
    }
}
