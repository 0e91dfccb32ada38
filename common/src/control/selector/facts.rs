//! What conditions are held against: one object, and those who get it.

use std::net::IpAddr;

use crate::units::Timestamp;

/// What is known of one object. A condition about something unknown does not hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// Its id as written.
    pub id: &'a str,
    /// Its virtual server.
    pub server: &'a str,
    /// Its state's word.
    pub state: &'a str,
    /// When it began or was accepted.
    pub at: Option<Timestamp>,
    /// Its octets.
    pub size: Option<u64>,
    /// The envelope's sender; empty for the null path.
    pub from: Option<&'a str>,
    /// Its subject.
    pub subject: Option<&'a str>,
    /// The client it came from.
    pub client: Option<IpAddr>,
}

/// What is known of one recipient.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecipientFacts<'a> {
    /// The address.
    pub address: &'a str,
    /// The last words.
    pub reason: Option<&'a str>,
    /// The last enhanced code.
    pub code: Option<&'a str>,
    /// What pauses call the destination.
    pub destinations: &'a [&'a str],
    /// Whether the network failed the last attempt.
    pub network_error: bool,
}
