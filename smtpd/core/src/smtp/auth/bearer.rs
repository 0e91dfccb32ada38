//! Tokens as clients show them: OAUTHBEARER (RFC 7628) and XOAUTH2, as Google and Microsoft describe it.

use zeroize::Zeroizing;

use super::identity;
use super::scram::unescaped;

/// Between and behind the parts of what is said.
const SEPARATOR: char = '\u{1}';
/// The longest token, in octets: with its user and in base64 it fits the longest response.
const TOKEN_OCTETS_MAX: usize = 8 * 1024;

/// A token and whom the client names with it.
#[derive(PartialEq, Eq)]
pub(super) struct Bearer {
    /// Empty where the client leaves that to the token.
    pub(super) user: String,
    pub(super) token: Zeroizing<String>,
}

impl Bearer {
    /// `n,[a=user],^Akey=value^A...^A^A`, of which `auth` is wanted.
    pub(super) fn oauthbearer(said: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(said).ok()?;
        let (header, rest) = text.split_once(SEPARATOR)?;
        let (flag, rest_of_header) = header.split_once(',')?;
        let authzid = rest_of_header.strip_suffix(',')?;
        let user = match authzid.strip_prefix("a=") {
            Some(name) => unescaped(name).filter(|name| !name.is_empty())?,
            None => authzid.is_empty().then(String::new)?,
        };
        // Tokens cannot be bound to the channel.
        matches!(flag, "n" | "y").then_some(())?;
        Self::of(&user, rest)
    }

    /// `user=name^Aauth=Bearer token^A^A`
    pub(super) fn xoauth2(said: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(said).ok()?;
        let (user, rest) = text.strip_prefix("user=")?.split_once(SEPARATOR)?;
        Self::of(user, rest)
    }

    fn of(user: &str, parts: &str) -> Option<Self> {
        let parts = parts.strip_suffix(SEPARATOR)?.strip_suffix(SEPARATOR)?;
        let mut values = parts.split(SEPARATOR).filter_map(|part| part.strip_prefix("auth="));
        let (value, None) = (values.next()?, values.next()) else { return None };
        let (scheme, token) = value.split_once(' ')?;
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~+/=".contains(&octet);
        let good = scheme.eq_ignore_ascii_case("Bearer")
            && !token.is_empty()
            && token.len() <= TOKEN_OCTETS_MAX
            && token.bytes().all(plain);
        let user = identity(user.as_bytes())?;
        good.then(|| Self { user, token: Zeroizing::new(token.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn told(found: Option<Bearer>) -> Option<(String, String)> {
        found.map(|it| (it.user, it.token.to_string()))
    }

    #[test]
    fn both_forms_name_a_user_and_show_a_token() {
        let ada = Some(("ada@x.example".to_owned(), "tok.1-a_~+/=".to_owned()));
        let said = b"user=ada@x.example\x01auth=Bearer tok.1-a_~+/=\x01\x01";
        assert_eq!(told(Bearer::xoauth2(said)), ada);
        let said = b"n,a=ada@x.example,\x01host=mx\x01port=587\x01auth=bearer tok.1-a_~+/=\x01\x01";
        assert_eq!(told(Bearer::oauthbearer(said)), ada);
        let nobody = Some((String::new(), "t".to_owned()));
        assert_eq!(told(Bearer::oauthbearer(b"n,,\x01auth=Bearer t\x01\x01")), nobody);
        assert_eq!(told(Bearer::xoauth2(b"user=\x01auth=Bearer t\x01\x01")), nobody);
        let odd = Some(("a,b".to_owned(), "t".to_owned()));
        assert_eq!(told(Bearer::oauthbearer(b"y,a=a=2Cb,\x01auth=Bearer t\x01\x01")), odd);
    }

    #[test]
    fn what_makes_no_sense_is_none() {
        let long = format!("user=a\x01auth=Bearer {}\x01\x01", "t".repeat(TOKEN_OCTETS_MAX + 1));
        for said in [
            &b""[..],
            b"\x01",
            b"user=a\x01auth=Bearer t",
            b"user=a\x01auth=Bearer t\x01",
            b"user=a\x01auth=Bearer \x01\x01",
            b"user=a\x01auth=Basic t\x01\x01",
            b"user=a\x01auth=Bearer t t\x01\x01",
            b"user=a\x01auth=Bearer t\x01auth=Bearer u\x01\x01",
            b"user=a\x01\x01",
            b"user=a\nb\x01auth=Bearer t\x01\x01",
            b"user=\xff\x01auth=Bearer t\x01\x01",
            b"auth=Bearer t\x01\x01",
            long.as_bytes(),
        ] {
            assert_eq!(told(Bearer::xoauth2(said)), None, "{}", String::from_utf8_lossy(said));
        }
        for said in [
            &b""[..],
            b"n,a=ada\x01auth=Bearer t\x01\x01",
            b"n,a=,\x01auth=Bearer t\x01\x01",
            b"n,b=ada,\x01auth=Bearer t\x01\x01",
            b"p=tls-exporter,,\x01auth=Bearer t\x01\x01",
            b"n,,\x01host=mx\x01\x01",
            b"n,,",
        ] {
            assert_eq!(told(Bearer::oauthbearer(said)), None, "{}", String::from_utf8_lossy(said));
        }
    }

    proptest! {
        #[test]
        fn no_octets_do_harm(said in any::<Vec<u8>>()) {
            let _ = Bearer::oauthbearer(&said);
            let _ = Bearer::xoauth2(&said);
        }
    }
}
