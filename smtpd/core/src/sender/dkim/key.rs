//! Reads public keys as DNS has them (RFC 6376 section 3.6.1, RFC 8463).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::tags::Tags;
use crate::message::sign::Algorithm;

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What it is for.
    pub algorithm: Algorithm,
    /// RSA: the key in DER. Ed25519: its 32 octets.
    pub public: Vec<u8>,
    /// Whether the identity that is signed for must be of the domain itself, and none below.
    pub(in super::super) strict: bool,
}

/// Why a record holds no key that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum KeyFault {
    /// It was taken back.
    Revoked,
    /// It is of another form, or for something else.
    Unusable,
}

impl Key {
    /// A key for signatures of any identity.
    #[must_use]
    pub const fn new(algorithm: Algorithm, public: Vec<u8>) -> Self {
        Self { algorithm, public, strict: false }
    }

    /// Reads the text of a record.
    pub(in super::super) fn parse(text: &str) -> Result<Self, KeyFault> {
        let tags = Tags::parse(text).ok_or(KeyFault::Unusable)?;
        let lists = |tag: &str, word: &str| {
            let list = tags.get(tag);
            list.is_none_or(|list| list.split(':').any(|one| [word, "*"].contains(&one.trim())))
        };
        let version = tags.get("v");
        let is_ours =
            version.is_none() || version == Some("DKIM1") && tags.first() == Some(("v", "DKIM1"));
        if !is_ours || !lists("h", "sha256") || !lists("s", "email") {
            return Err(KeyFault::Unusable);
        }
        let algorithm = match tags.get("k").unwrap_or("rsa") {
            "rsa" => Algorithm::RsaSha256,
            "ed25519" => Algorithm::Ed25519Sha256,
            _ => return Err(KeyFault::Unusable),
        };
        let text = tags.dense("p").ok_or(KeyFault::Unusable)?;
        if text.is_empty() {
            return Err(KeyFault::Revoked);
        }
        let public = STANDARD.decode(text).map_err(|_| KeyFault::Unusable)?;
        let flags = tags.get("t").unwrap_or_default();
        let strict = flags.split(':').any(|flag| flag.trim() == "s");
        Ok(Self { strict, ..Self::new(algorithm, public) })
    }

    /// The key among the texts of a name.
    pub(in super::super) fn among(texts: &[String]) -> Result<Self, KeyFault> {
        let mut fault = KeyFault::Unusable;
        for text in texts {
            match Self::parse(text) {
                Ok(key) => return Ok(key),
                Err(KeyFault::Revoked) => fault = KeyFault::Revoked,
                Err(KeyFault::Unusable) => {}
            }
        }
        Err(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_keys_are_read_and_others_refused() {
        let key = Key::parse("v=DKIM1; k=ed25519; p=AQ ID; t=y:s; n=note").unwrap();
        assert_eq!(
            (key.algorithm, &*key.public, key.strict),
            (Algorithm::Ed25519Sha256, &[1, 2, 3][..], true)
        );
        let key = Key::parse("p=AQID; h=sha1:sha256; s=*").unwrap();
        assert_eq!((key.algorithm, key.strict), (Algorithm::RsaSha256, false));
        assert_eq!(Key::parse("v=DKIM1; p="), Err(KeyFault::Revoked));
        for bad in [
            "",
            "v=DKIM2; p=AQID",
            "k=rsa; v=DKIM1; p=AQID",
            "h=sha1; p=AQID",
            "s=tlsrpt; p=AQID",
            "k=dsa; p=AQID",
            "p=*",
            "v=spf1 -all",
            "k=rsa",
        ] {
            assert_eq!(Key::parse(bad), Err(KeyFault::Unusable), "{bad}");
        }
        let texts = ["v=spf1 -all".to_owned(), "p=AQID".to_owned()];
        assert!(Key::among(&texts).is_ok());
        assert_eq!(Key::among(&texts[..1]), Err(KeyFault::Unusable));
    }
}
