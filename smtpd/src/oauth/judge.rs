//! Tokens that clients show: whoever gave them is asked whose they are, or has signed them.
//!
//! Good answers are kept for a while under the token's digest, never the token itself, so that a client that
//! comes often costs one question. A bad answer is not kept: the next question may be answered otherwise.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use mailroot_common::config::client_tokens::ClientTokens;
use mailroot_common::config::oauth::Endpoint;
use mailroot_common::config::secret::Secret;
use mailroot_common::units::{Span, Timestamp};
use smtpd_core::oauth::introspection::{Unreadable, Wanted, form};
use smtpd_core::oauth::jwks::NoKeys;
use smtpd_core::oauth::jwt::Flaw;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::lock;
use super::signed::Signatures;
use crate::clock::Clock;
use crate::config::Secrets;
use crate::https::{Bounds, Https, HttpsError};

/// What an answer may take.
const BOUNDS: Bounds = Bounds { wait: Duration::from_secs(20), octets: 64 * 1024 };
/// Questions that are asked at once.
const ASKING_MAX: usize = 16;
/// Good answers that are kept.
const KEPT_MAX: usize = 10_000;

/// Why nothing is known of a token.
#[derive(Debug, thiserror::Error)]
pub enum Unjudged {
    /// Our secret.
    #[error("{0}")]
    Secret(String),
    /// No answer.
    #[error("{0}")]
    Unreached(#[from] HttpsError),
    /// An answer that is an error of the endpoint, or of our question.
    #[error("the endpoint answers with status {0}")]
    Status(u16),
    /// An answer that says nothing.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// An answer without keys.
    #[error(transparent)]
    NoKeys(#[from] NoKeys),
    /// The keys that tokens are signed by cannot be had.
    #[error("the keys of tokens cannot be had: {0}")]
    Keys(String),
}

/// Why a token is no good here, for the log. The client hears the same of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoGood {
    /// Whoever gave it does not call it good, or not for us.
    #[error(
        "whoever is asked about it does not call it good here (active, iss, aud, scope, exp, nbf)"
    )]
    Asked,
    /// What it says itself.
    #[error(transparent)]
    Signed(#[from] Flaw),
}

/// Judges tokens by the settings in force. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Judge(By);

#[derive(Clone, Debug)]
enum By {
    Asking(Asking),
    Signatures(Signatures),
}

/// Asks about each token.
#[derive(Clone)]
struct Asking(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    client_id: Option<String>,
    client_secret: Option<Secret>,
    wanted: Wanted,
    keep: Span,
    https: Https,
    secrets: Secrets,
    clock: Clock,
    asking: Semaphore,
    kept: Mutex<HashMap<[u8; 32], Kept>>,
}

/// A good answer.
struct Kept {
    user: String,
    until: Timestamp,
}

/// What is kept is nobody else's business.
impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Asking").field(&self.0.endpoint).finish()
    }
}

impl Judge {
    /// As the configuration has it; nothing where no tokens are taken.
    #[must_use]
    pub fn new(keys: &ClientTokens, https: Https, secrets: Secrets, clock: Clock) -> Option<Self> {
        if !keys.enabled {
            return None;
        }
        let wanted = Wanted {
            issuer: keys.issuer.clone(),
            audience: keys.audience.clone(),
            scope: keys.scope.clone(),
            user: keys.user.clone(),
        };
        let Some(endpoint) = keys.introspection.clone() else {
            return Signatures::new(keys, wanted, https, clock).map(|it| Self(By::Signatures(it)));
        };
        Some(Self(By::Asking(Asking(Arc::new(Inner {
            endpoint,
            client_id: keys.client_id.clone(),
            client_secret: keys.client_secret.clone(),
            wanted,
            keep: keys.keep,
            https,
            secrets,
            clock,
            asking: Semaphore::new(ASKING_MAX),
            kept: Mutex::default(),
        })))))
    }

    /// Whose a token is, or why it is no good here.
    ///
    /// # Errors
    ///
    /// [`Unjudged`]; then nothing is known of it.
    pub async fn owner(&self, token: &str) -> Result<Result<String, NoGood>, Unjudged> {
        match &self.0 {
            By::Asking(asking) => Ok(asking.owner(token).await?.ok_or(NoGood::Asked)),
            By::Signatures(keys) => Ok(keys.owner(token).await?.map_err(NoGood::Signed)),
        }
    }
}

impl Asking {
    /// Whose a token is; nothing if it is not good here.
    async fn owner(&self, token: &str) -> Result<Option<String>, Unjudged> {
        let inner = &*self.0;
        let key = digest_of(token);
        if let Some(user) = inner.kept(&key) {
            return Ok(Some(user));
        }
        // It is never closed.
        let _turn = inner.asking.acquire().await;
        let answer = inner.ask(token).await?;
        let now = inner.clock.now();
        let Some(owner) = inner.wanted.read(&answer, now)? else { return Ok(None) };
        let latest = now.after(inner.keep);
        let until = owner.until.map_or(latest, |end| end.min(latest));
        inner.keep(key, Kept { user: owner.user.clone(), until });
        Ok(Some(owner.user))
    }
}

impl Inner {
    fn kept(&self, key: &[u8; 32]) -> Option<String> {
        let now = self.clock.now();
        lock(&self.kept).get(key).filter(|kept| kept.until > now).map(|kept| kept.user.clone())
    }

    fn keep(&self, key: [u8; 32], answer: Kept) {
        let (now, mut kept) = (self.clock.now(), lock(&self.kept));
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, kept| kept.until > now);
        }
        if kept.len() < KEPT_MAX && answer.until > now {
            kept.insert(key, answer);
        }
    }

    async fn ask(&self, token: &str) -> Result<Vec<u8>, Unjudged> {
        let (secrets, place) = (self.secrets.clone(), self.client_secret.clone());
        let read = move || place.map(|place| secrets.read(&place)).transpose();
        let secret = tokio::task::spawn_blocking(read).await;
        let secret = secret.map_err(|error| Unjudged::Secret(error.to_string()))?;
        let secret = secret.map_err(|error| Unjudged::Secret(error.to_string()))?;
        let secret = secret.as_ref().map(|secret: &Zeroizing<String>| secret.as_str());
        let form = form(token, self.client_id.as_deref(), secret);
        let answer = self.https.post_form(&self.endpoint, form, BOUNDS).await?;
        match answer.status {
            200 => Ok(answer.body.to_vec()),
            status => Err(Unjudged::Status(status)),
        }
    }
}

fn digest_of(token: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    out
}
