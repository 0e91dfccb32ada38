//! What is kept of tokens over a restart: one file for each smart host, one line of JSON, open to
//! nobody else. What was given to another application, or by another provider, is not used.

use std::io;

use mailroot_common::config::oauth::{Grant, TokenSource};
use mailroot_common::config::{Secret, SmartHostName};
use mailroot_common::units::Timestamp;
use serde::{Deserialize, Serialize};
use smtpd_core::oauth::answer::Granted;
use smtpd_core::oauth::life::Life;

use crate::config::{SecretError, Secrets};

/// What is kept. It holds secrets, so it has no form for debug output.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Who gave it, and to which application.
    whose: String,
    /// The token at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) access: Option<AccessToken>,
    /// The right to ask for the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// When that right was given, or last used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    right_used: Option<Timestamp>,
}

/// A token and its life.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AccessToken {
    pub(super) token: String,
    /// By which right, and for what it was asked.
    asked_for: String,
    since: Timestamp,
    pub(super) until: Timestamp,
}

impl AccessToken {
    pub(super) const fn life(&self) -> Life {
        Life { since: self.since, until: self.until }
    }
}

fn whose(source: &TokenSource) -> String {
    format!("{} {}", source.token_endpoint, source.client_id)
}

fn asked_for(source: &TokenSource) -> String {
    format!("{} {}", source.grant.word(), source.scope.as_deref().unwrap_or_default())
}

impl Kept {
    /// A right that was given elsewhere.
    pub(super) fn with_refresh_token(
        source: &TokenSource,
        refresh_token: &str,
        now: Timestamp,
    ) -> Self {
        let refresh_token = Some(refresh_token.to_owned());
        Self { whose: whose(source), access: None, refresh_token, right_used: Some(now) }
    }

    /// Takes in what was given; the right to ask stays where none was given.
    pub(super) fn take(&mut self, source: &TokenSource, granted: Granted, life: Life) {
        if self.whose != whose(source) {
            *self = Self { whose: whose(source), ..Self::default() };
        }
        self.access = Some(AccessToken {
            token: granted.access_token,
            asked_for: asked_for(source),
            since: life.since,
            until: life.until,
        });
        if granted.refresh_token.is_some() || source.grant == Grant::RefreshToken {
            self.right_used = Some(life.since);
        }
        self.refresh_token = granted.refresh_token.or_else(|| self.refresh_token.take());
    }

    /// When the right to ask was last used, if there is one for these settings and if that is known.
    pub(super) fn right_used(&self, source: &TokenSource) -> Option<Option<Timestamp>> {
        let is_there = self.refresh_token.is_some() && self.whose == whose(source);
        is_there.then_some(self.right_used)
    }

    /// The token at hand, if it was asked for by these settings.
    pub(super) fn access_for(&self, source: &TokenSource) -> Option<&AccessToken> {
        let access = self.access.as_ref().filter(|_| self.whose == whose(source))?;
        (access.asked_for == asked_for(source)).then_some(access)
    }

    /// The right to ask, if it was given for these settings.
    pub(super) fn refresh_for(&self, source: &TokenSource) -> Option<String> {
        self.refresh_token.clone().filter(|_| self.whose == whose(source))
    }

    /// The line of its file.
    pub(super) fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What the file holds; nothing if there is none.
    pub(super) fn read(files: &Secrets, name: &SmartHostName) -> Result<Self, String> {
        match files.read(&Secret::File(name.to_string())) {
            Ok(line) => serde_json::from_str(&line)
                .map_err(|_| "the file of its token cannot be read: sign in again".to_owned()),
            Err(SecretError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}
