//! What a connection under TLS says of itself, so that logins can lean on it.
//!
//! A login that is bound to the channel is worth nothing on another one: whoever stands between client and
//! server has two connections, and each says something else (RFC 5056).

/// A connection as the house knows it. In clear text there is nothing to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// Whether the client's certificate is a user's: without that EXTERNAL is not known.
    pub is_users: bool,
    /// What both sides work out of the keys of the session (RFC 9266), in TLS 1.3.
    pub exporter: Option<[u8; 32]>,
    /// The digest of our certificate (RFC 5929 section 4).
    pub end_point: Option<Vec<u8>>,
    /// Whether clients are offered to bind their logins to it.
    pub is_offered: bool,
}

impl Channel {
    /// Whether logins can be bound to it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.exporter.is_some() || self.end_point.is_some()
    }

    /// What is to be said of it under a name of the registry; nothing for a name that is not known here, or
    /// not on this connection.
    pub(super) fn named(&self, name: &str) -> Option<&[u8]> {
        match name {
            "tls-exporter" => self.exporter.as_ref().map(<[u8; 32]>::as_slice),
            "tls-server-end-point" => self.end_point.as_deref(),
            _ => None,
        }
    }
}
