//! What the tickets of clients say: logins by Kerberos (RFC 4752), as services judge them.
//!
//! In: tokens of the client's library. Out: words for it, and in the end who it is. The Kerberos
//! library of the system does the work, and its configuration says where our key lies. Beside the
//! login nothing is protected: that is TLS's affair.

use libgssapi::context::{SecurityContext, ServerCtx};
use libgssapi::credential::{Cred, CredUsage};
use libgssapi::error::Error;
use libgssapi::oid::{GSS_MECH_KRB5, OidSet};
use tokio::task::spawn_blocking;

/// The layer that adds nothing, and no room for its messages (RFC 4752 section 3.3).
const NO_LAYER: [u8; 4] = [1, 0, 0, 0];

/// A login under way.
pub(super) struct Ticket {
    context: ServerCtx,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Each side shows who it is.
    Names,
    /// Our last word about that was said, and the client has nothing to add.
    Silence,
    /// The client chooses a layer.
    Layer,
}

/// What comes of a token.
#[derive(Debug)]
pub(super) enum Said {
    /// The client is to hear this.
    Words(Vec<u8>),
    /// It is this principal, with its realm.
    Principal(String),
}

impl Ticket {
    /// A login of which nothing was said yet.
    ///
    /// # Errors
    ///
    /// There is no key that tickets could be for, in the library's words.
    pub(super) async fn begin() -> Result<Self, String> {
        let made = spawn_blocking(|| -> Result<Self, Error> {
            let kerberos = OidSet::singleton(GSS_MECH_KRB5)?;
            let key = Cred::acquire(None, None, CredUsage::Accept, Some(&kerberos))?;
            Ok(Self { context: ServerCtx::new(Some(key)), stage: Stage::Names })
        });
        let made = made.await.map_err(|_| "reading the key broke down".to_owned())?;
        made.map_err(|error| plain(&error))
    }

    /// Takes a token.
    ///
    /// # Errors
    ///
    /// Why it says nothing good, in the library's words.
    pub(super) async fn take(mut self, token: Vec<u8>) -> Result<(Self, Said), String> {
        let judged = spawn_blocking(move || {
            let said = self.judge(&token)?;
            Ok((self, said))
        });
        judged.await.unwrap_or_else(|_| Err("the library broke down".to_owned()))
    }

    fn judge(&mut self, token: &[u8]) -> Result<Said, String> {
        match self.stage {
            Stage::Names => {
                let words = self.context.step(token, None).map_err(|error| plain(&error))?;
                match words {
                    Some(words) => {
                        if self.context.is_complete() {
                            self.stage = Stage::Silence;
                        }
                        Ok(Said::Words(words.to_vec()))
                    }
                    None => self.offer(),
                }
            }
            Stage::Silence if token.is_empty() => self.offer(),
            Stage::Silence => Err("the client says more than there is to say".to_owned()),
            Stage::Layer => {
                let choice = self.context.unwrap(token).map_err(|error| plain(&error))?;
                let Some((layer, other)) = choice.split_at_checked(NO_LAYER.len()) else {
                    return Err("the client chooses no layer".to_owned());
                };
                if layer != NO_LAYER {
                    return Err("the client insists on a layer of its own beside TLS".to_owned());
                }
                let name = self.context.source_name().and_then(|name| name.display_name());
                let name = name.map_err(|error| plain(&error))?;
                let principal = String::from_utf8(name.to_vec())
                    .map_err(|_| "the principal is no text".to_owned())?;
                // Nobody acts for somebody else.
                let first = principal.split('@').next().unwrap_or_default();
                if other.is_empty() || [principal.as_bytes(), first.as_bytes()].contains(&other) {
                    return Ok(Said::Principal(principal));
                }
                Err("the client wants to act for somebody else".to_owned())
            }
        }
    }

    fn offer(&mut self) -> Result<Said, String> {
        self.stage = Stage::Layer;
        let offer = self.context.wrap(false, &NO_LAYER).map_err(|error| plain(&error))?;
        Ok(Said::Words(offer.to_vec()))
    }
}

fn plain(error: &Error) -> String {
    error.to_string().replace('\n', " ")
}
