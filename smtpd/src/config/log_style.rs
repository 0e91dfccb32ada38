//! How the log is written by a configuration, with the key by which addresses are told apart in it. The
//! key outlives the daemon, so that lines about one address look alike for ever; without it nobody can find
//! an address by trying.

use std::io;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use mailroot_common::config::Secret;
use mailroot_common::config::logging::{Addresses, Logging};

use super::secret::{SecretError, Secrets};
use super::{Loaded, Paths};
use crate::observe::{KEY_OCTETS, LogError, Mask, Style};

/// The file of the key, among what the daemon remembers.
const NAME: &str = "log.key";

/// How the log is to be written; `journal` is whether standard output is that.
///
/// # Errors
///
/// [`LogError::Key`] where addresses are to be hashed and the key cannot be had.
pub fn log_style(paths: &Paths, loaded: &Loaded, journal: bool) -> Result<Style, LogError> {
    let logging = &loaded.service.logging;
    Ok(Style::of(logging, journal, mask(&paths.state, logging)?))
}

fn mask(state: &Path, logging: &Logging) -> Result<Option<Arc<Mask>>, LogError> {
    Ok(match logging.addresses {
        Addresses::Full => None,
        Addresses::DomainOnly => Some(Arc::new(Mask::DomainOnly)),
        Addresses::Hashed => {
            let failed = |source| LogError::Key { path: state.join(NAME), source };
            Some(Arc::new(Mask::hashed(&key(state).map_err(failed)?)))
        }
    })
}

/// The key that is kept; made if there is none.
fn key(state: &Path) -> io::Result<[u8; KEY_OCTETS]> {
    let place = Secrets::in_directory(state);
    match place.read(&Secret::File(NAME.to_owned())) {
        Ok(text) => {
            let octets = STANDARD_NO_PAD.decode(text.as_bytes()).ok();
            octets.and_then(|octets| octets.try_into().ok()).ok_or_else(|| {
                let words = "it is none that was made here: remove it, and one is made anew";
                io::Error::new(io::ErrorKind::InvalidData, words)
            })
        }
        Err(SecretError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let mut fresh = [0; KEY_OCTETS];
            rand::fill(&mut fresh).map_err(|_| io::Error::other("the system has no randomness"))?;
            place.keep(NAME, &STANDARD_NO_PAD.encode(fresh))?;
            Ok(fresh)
        }
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::config::ServiceConfig;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_a_bad_one_is_told() {
        let state = tempfile::tempdir().unwrap();
        let made = key(state.path()).unwrap();
        assert_eq!(key(state.path()).unwrap(), made);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(key(other.path()).unwrap(), made);
        Secrets::in_directory(state.path()).keep(NAME, "short").unwrap();
        let plain = ServiceConfig::default().logging;
        let hashed = Logging { addresses: Addresses::Hashed, ..plain.clone() };
        let refused = mask(state.path(), &hashed).unwrap_err();
        assert!(refused.to_string().contains("log.key"), "{refused}");
        assert!(mask(state.path(), &plain).unwrap().is_none());
    }
}
