//! Keys that mail is signed with: from the place that the configuration names to a key that signs.

use std::sync::Arc;

use mailroot_common::config::{Diagnostic, DkimEntry, ServerConfig};

use super::secret::{SecretError, Secrets};
use crate::dkim::{KeyError, SigningKey};

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum NoKey {
    /// Its place.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// What stands there.
    #[error("the key {place} cannot sign: {error}")]
    Key {
        /// Where it is.
        place: String,
        /// Why.
        error: KeyError,
    },
}

/// Reads the key of an entry.
///
/// # Errors
///
/// [`NoKey`], in words for people.
pub fn signing_key(secrets: &Secrets, entry: &DkimEntry) -> Result<SigningKey, NoKey> {
    let text = secrets.read_lines(&entry.key)?;
    let bad = |error| NoKey::Key { place: entry.key.to_string(), error };
    SigningKey::from_pem(&text).map_err(bad)
}

/// A warning for each key of a server that cannot be used. Mail of its domain waits then, and all other
/// mail goes on.
pub(super) fn check(config: &Arc<ServerConfig>, secrets: &Secrets, out: &mut Vec<Diagnostic>) {
    for (number, entry) in config.dkim.iter().enumerate() {
        let error = match signing_key(secrets, entry) {
            // Credentials are there only where the service manager starts a program with them.
            Ok(_) | Err(NoKey::Secret(SecretError::NoCredentials(_))) => continue,
            Err(error) => error,
        };
        let title = format!("mail of {} cannot be signed and waits: {error}", entry.domain);
        let mut diagnostic = Diagnostic::warning("W0438", title)
            .help("put the key back, or take the entry out: smtpctl dkim remove");
        if let Some(source) = config.origins.source() {
            let span = config.origins.span(&format!("dkim[{number}].key"));
            diagnostic = diagnostic.at(source, span, "this key");
        }
        out.push(diagnostic);
    }
}
