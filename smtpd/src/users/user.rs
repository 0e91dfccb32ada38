//! One user, and why a login of his is not taken.

use std::net::IpAddr;

use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::control::selector::AddressPattern;
use mailroot_common::password::{Kept, Verifier};
use mailroot_common::rate::Rate;
use mailroot_common::units::Timestamp;

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    /// The name to log in with, in small letters.
    pub name: String,
    /// Whether a login is taken at all.
    pub enabled: bool,
    /// The addresses that mail may be sent as; all if there is none.
    pub send_as: Vec<AddressPattern>,
    /// The addresses that a directory has for one of whom nothing is said here; he sends as nobody else.
    pub(super) own: Option<Vec<Mailbox>>,
    /// How many recipients he may send to in a span; as many as he likes if there is none.
    pub quota: Option<Rate>,
    /// When the password was set.
    pub password_since: Timestamp,
    /// By what his password is told; nothing of one whom somebody else vouches for and nobody made here.
    pub(super) kept: Option<Kept>,
}

impl User {
    /// One whom somebody else vouches for, and of whom nothing is said here.
    pub(super) fn guest(name: String, own: Option<Vec<Mailbox>>) -> Self {
        let (send_as, password_since) = (Vec::new(), Timestamp::default());
        Self { name, enabled: true, send_as, own, quota: None, password_since, kept: None }
    }

    pub(super) fn verifier(&self) -> Option<Verifier> {
        self.kept.as_ref()?.verifier()
    }

    /// Whether mail may be sent as this sender. Reports and receipts have none.
    #[must_use]
    pub fn may_send_as(&self, sender: &ReversePath) -> bool {
        let Some(mailbox) = sender.mailbox() else { return true };
        let address = mailbox.to_string();
        if let Some(own) = &self.own {
            let wanted = address.to_lowercase();
            return own.iter().any(|it| it.to_string().to_lowercase() == wanted);
        }
        self.send_as.is_empty() || self.send_as.iter().any(|it| it.matches(&address))
    }
}

/// What is known of a user's logins since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logins {
    /// The last one that was good.
    pub last: Option<(Timestamp, IpAddr)>,
    /// How many were not.
    pub failed: u64,
}

/// Why a login is not taken, for the log. The client hears the same of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Nobody has the name.
    UnknownUser,
    /// The password is wrong, or the proof.
    BadPassword,
    /// The ticket is none, or of a realm that is not listed.
    BadTicket,
    /// The token is not good here.
    BadToken,
    /// The certificate or the token is another user's.
    BadIdentity,
    /// The user is disabled.
    Disabled,
    /// Too many were wrong of late.
    Banned,
}

impl Denied {
    /// The word of the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown-user",
            Self::BadPassword => "bad-password",
            Self::BadTicket => "bad-ticket",
            Self::BadToken => "bad-token",
            Self::BadIdentity => "bad-identity",
            Self::Disabled => "disabled",
            Self::Banned => "banned",
        }
    }
}
