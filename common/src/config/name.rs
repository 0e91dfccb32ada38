//! The name of a virtual server: also the name of its file and of its directory.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::node::Node;
use super::section::{Reader, Setting};
use super::value::scalar;

/// A text that cannot name a virtual server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot name a virtual server: use 1 to {max} of a-z, 0-9, dot, hyphen and underscore, \
     beginning with a letter or digit",
    max = ServerName::OCTETS_MAX
)]
pub struct ServerNameError(String);

/// The name of a virtual server; cheap to clone.
///
/// It is a file name without surprises: small letters, digits, `.`, `-` and `_`, no leading dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerName(Arc<str>);

impl ServerName {
    /// Longest name, in octets.
    pub const OCTETS_MAX: usize = 32;

    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`ServerNameError`] with the text.
    pub fn parse(text: &str) -> Result<Self, ServerNameError> {
        let octets = text.as_bytes();
        let plain = |octet: &u8| octet.is_ascii_lowercase() || octet.is_ascii_digit();
        let good = octets.len() <= Self::OCTETS_MAX
            && octets.first().is_some_and(plain)
            && octets.iter().all(|octet| plain(octet) || b"._-".contains(octet));
        if good { Ok(Self(text.into())) } else { Err(ServerNameError(text.to_owned())) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ServerName {
    type Err = ServerNameError;

    fn from_str(text: &str) -> Result<Self, ServerNameError> {
        Self::parse(text)
    }
}

impl Setting for ServerName {
    type Quantity = u8;

    fn type_name() -> String {
        "name of a virtual server".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, reader, "the name of a virtual server")?;
        let read = Self::parse(text);
        if let Err(error) = &read {
            let diagnostic = reader.error_at("E0350", error.to_string(), node, "not a name");
            reader.report(diagnostic.help("smtpctl server list names the virtual servers"));
        }
        read.ok()
    }
}

impl Serialize for ServerName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ServerName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_safe_file_name() {
        for good in ["default", "printers", "a", "0", "lan-2.test_x", &"a".repeat(32)] {
            assert_eq!(ServerName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".a", "-a", "A", "a/b", "a b", "ä", "a\0", &"a".repeat(33)] {
            assert!(ServerName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
