//! Logging in by Kerberos: a ticket for the host instead of a password on the wire (RFC 4752), at smart
//! hosts and at directories.
//!
//! The Kerberos library of the system does the work, and its configuration says where tickets come
//! from. What is negotiated beside the login is that nothing more is protected: that is TLS's affair.

use std::fmt;
use std::time::Duration;

use libgssapi::context::{ClientCtx, CtxFlags, SecurityContext};
use libgssapi::credential::{Cred, CredUsage};
use libgssapi::error::Error;
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_HOSTBASED_SERVICE, GSS_NT_KRB5_PRINCIPAL, OidSet};
use mailroot_common::address::Host;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

/// The mechanism's name.
pub const NAME: &str = "GSSAPI";

/// How long the servers that give tickets may take.
const TICKET_WAIT_MAX: Duration = Duration::from_secs(30);
/// The layer that adds nothing (RFC 4752 section 3.3).
const NO_LAYER: u8 = 1;
/// No layer, no room for its messages, and no other name than the ticket's.
const CHOICE: [u8; 4] = [NO_LAYER, 0, 0, 0];

/// What the library's codes of a realm's answers begin at, and the answers that say that our name, its
/// password or its key is no good (RFC 4120 section 7.5.9): expired, unknown, locked, its password expired,
/// another password than ours, an answer that ours does not open.
const ANSWERS: i32 = -1_765_328_384;
const REFUSALS: [i32; 6] = [1, 6, 18, 23, 24, 31];

/// Why a login came to nothing, in words of the library's or of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct TicketError {
    words: String,
    is_refusal: bool,
}

impl TicketError {
    /// Whether the realm does not know us by this name and password or key, so that nothing but another
    /// one helps; whoever goes on trying has the name locked.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        self.is_refusal
    }

    fn of_realm(error: &Error) -> Self {
        let answer = error.minor.cast_signed().wrapping_sub(ANSWERS);
        Self { is_refusal: REFUSALS.contains(&answer), ..failed(&error.to_string()) }
    }
}

/// Who shows a ticket.
#[derive(Debug)]
pub struct Holder {
    /// The principal; whoever the library finds a key or a ticket of, if it is absent.
    pub principal: Option<String>,
    /// The password; if it is absent the library finds a key or a ticket.
    pub password: Option<Zeroizing<String>>,
}

/// A login under way.
pub struct Negotiation {
    context: ClientCtx,
    first: Vec<u8>,
    stage: Stage,
    /// What the login is bound to.
    binding: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Each side shows who it is.
    Names,
    /// The host says which layers it has.
    Layers,
    /// Nothing is left to say.
    Over,
}

impl fmt::Debug for Negotiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Negotiation").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl Negotiation {
    /// Gets a ticket for a service of the host, such as `smtp`. The login is good on the connection alone
    /// that it is bound to, where the host looks at that (RFC 5056).
    ///
    /// # Errors
    ///
    /// [`TicketError`], in the library's words.
    pub async fn start(
        service: &str,
        holder: Holder,
        host: &Host,
        binding: Option<Vec<u8>>,
    ) -> Result<Self, TicketError> {
        let Host::Name(host) = host else {
            return Err(failed("the host is an address, and tickets are for names"));
        };
        let service = format!("{service}@{host}");
        // The library keeps its words for the thread that asked.
        let opening = spawn_blocking(move || {
            open(&holder, &service, binding).map_err(|error| TicketError::of_realm(&error))
        });
        match tokio::time::timeout(TICKET_WAIT_MAX, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(_)) => Err(failed("asking for a ticket broke down")),
            Err(_) => {
                let seconds = TICKET_WAIT_MAX.as_secs();
                Err(failed(&format!("there was no ticket within {seconds}s")))
            }
        }
    }

    /// What is said first.
    #[must_use]
    pub fn first(&self) -> Vec<u8> {
        self.first.clone()
    }

    /// The answer to a challenge.
    ///
    /// # Errors
    ///
    /// [`TicketError`] if the host cannot be the one that was meant, or wants more.
    pub fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, TicketError> {
        let said = |error: Error| failed(&error.to_string());
        match self.stage {
            Stage::Names => {
                let binding = self.binding.as_deref();
                let token = self.context.step(Some(challenge), binding).map_err(said)?;
                // With both names known Kerberos has nothing to add.
                if token.is_none() {
                    self.stage = Stage::Layers;
                }
                Ok(token.map(|token| token.to_vec()).unwrap_or_default())
            }
            Stage::Layers => {
                let offered = self.context.unwrap(challenge).map_err(said)?;
                let &[layers, ..] = &*offered else {
                    return Err(failed("the host names no layers"));
                };
                if offered.len() != CHOICE.len() || layers & NO_LAYER == 0 {
                    return Err(failed("the host insists on a layer of its own beside TLS"));
                }
                let choice = self.context.wrap(false, &CHOICE).map_err(said)?;
                self.stage = Stage::Over;
                Ok(choice.to_vec())
            }
            Stage::Over => Err(failed("the host asks for more than there is to say")),
        }
    }

    /// Whether the host has shown who it is, and everything was said.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }
}

/// Blocks: other hosts are asked for tickets.
fn open(holder: &Holder, service: &str, binding: Option<Vec<u8>>) -> Result<Negotiation, Error> {
    let kerberos = OidSet::singleton(GSS_MECH_KRB5)?;
    let named = |principal: &String| Name::new(principal.as_bytes(), Some(GSS_NT_KRB5_PRINCIPAL));
    let name = holder.principal.as_ref().map(named).transpose()?;
    let (name, usage) = (name.as_ref(), CredUsage::Initiate);
    let ticket = match holder.password.as_deref() {
        Some(password) => {
            Cred::acquire_with_password(name, password, None, usage, Some(&kerberos))?
        }
        None => Cred::acquire(name, None, usage, Some(&kerberos))?,
    };
    let service = Name::new(service.as_bytes(), Some(GSS_NT_HOSTBASED_SERVICE))?;
    // Both sides show who they are; what is negotiated then cannot be changed on the way.
    let flags = CtxFlags::GSS_C_MUTUAL_FLAG | CtxFlags::GSS_C_INTEG_FLAG;
    let mut context = ClientCtx::new(Some(ticket), service, flags, Some(GSS_MECH_KRB5));
    let first = context.step(None, binding.as_deref())?;
    let first = first.map(|token| token.to_vec()).unwrap_or_default();
    Ok(Negotiation { context, first, stage: Stage::Names, binding })
}

fn failed(why: &str) -> TicketError {
    TicketError { words: why.replace('\n', " "), is_refusal: false }
}
