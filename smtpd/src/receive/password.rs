//! Whose password it is: those who judge are asked in order, and the first that knows the name decides.
//!
//! One that gives no answer is no "no": the client is told to come again, and no guess is counted. Where
//! others than we are asked, a wrong password is answered on a whole second, so that the answer does not
//! tell who was asked.

use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::Mailbox;
use mailroot_common::config::backends::Backend;
use mailroot_common::control::user::is_user_name;
use zeroize::Zeroizing;

use super::login::TURN_WITHIN;
#[cfg(feature = "pam")]
use super::pam::{Question, Said};
use super::session::Session;
use crate::ldap::Login;
use crate::observe::Level;
use crate::users::{Denied, User, Users};

/// Wrong passwords are answered at a multiple of this, counted from the client's last word.
const BEAT: Duration = Duration::from_secs(1);

/// Nobody says in time whether it is the password of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unjudged {
    /// Somebody who was asked before does not know the name, which the missing answer tells the client.
    pub(super) is_unknown: bool,
}

/// Whether it is the password of a user.
pub(super) async fn check(
    session: &Session<'_>,
    users: &Users,
    name: &str,
    password: Zeroizing<String>,
) -> Result<Result<Arc<User>, Denied>, Unjudged> {
    let clock = &session.client.inner.parts.clock;
    let began = clock.elapsed();
    let mut is_unknown = false;
    let found = tokio::select! {
        // Boxed, so that sessions that ask nobody hold no room for it.
        found = Box::pin(ask(session, users, name, password, &mut is_unknown)) => found,
        () = clock.sleep(TURN_WITHIN) => None,
        () = session.live.killed() => None,
    };
    let are_ours = Backend::are_ours(&session.client.settings.logins.backends);
    if !are_ours && matches!(found, Some(Err(_))) {
        let rest = until_beat(clock.elapsed().saturating_sub(began));
        tokio::select! {
            () = clock.sleep(rest) => {}
            () = session.live.killed() => {}
        }
    }
    found.ok_or(Unjudged { is_unknown })
}

/// How long it is until the next beat.
fn until_beat(spent: Duration) -> Duration {
    let beat = u64::try_from(BEAT.as_micros()).unwrap_or(u64::MAX);
    let over = u64::try_from(spent.as_micros()).unwrap_or(u64::MAX) % beat;
    Duration::from_micros(beat - over)
}

async fn ask(
    session: &Session<'_>,
    users: &Users,
    name: &str,
    password: Zeroizing<String>,
    is_unknown: &mut bool,
) -> Option<Result<Arc<User>, Denied>> {
    let (rules, client) = (&session.client.settings.logins, session.live.client().ip());
    if Backend::are_ours(&rules.backends) {
        return Some(users.check(name, password, client).await);
    }
    let _turn = session.client.inner.password_turns.take(client).await?;
    for backend in &rules.backends {
        let said = match backend {
            Backend::Users => users.check(name, password.clone(), client).await,
            // Nobody elsewhere is known here by a name that no user can have.
            _ if !is_user_name(name) => Err(Denied::UnknownUser),
            Backend::Ldap => by_directory(session, users, name, &password).await?,
            Backend::Pam => by_pam(session, users, name, &password).await?,
        };
        if !matches!(said, Err(Denied::UnknownUser)) {
            return Some(said);
        }
        *is_unknown = true;
    }
    Some(Err(Denied::UnknownUser))
}

/// What the directory says.
async fn by_directory(
    session: &Session<'_>,
    users: &Users,
    name: &str,
    password: &str,
) -> Option<Result<Arc<User>, Denied>> {
    let said = match &session.client.settings.logins.directory {
        Some(directory) => directory.login(name, password).await.map_err(|why| why.to_string()),
        None => Err("no directory is asked (ldap.enabled)".to_owned()),
    };
    match said {
        Ok(Login::Right { name, senders }) => {
            vouched(session, users, Backend::Ldap, (&name, senders))
        }
        Ok(Login::Wrong) => Some(Err(Denied::BadPassword)),
        Ok(Login::Unknown) => Some(Err(Denied::UnknownUser)),
        Err(why) => {
            not_judged(session, Backend::Ldap, &why);
            None
        }
    }
}

/// What PAM says.
#[cfg(feature = "pam")]
async fn by_pam(
    session: &Session<'_>,
    users: &Users,
    name: &str,
    password: &Zeroizing<String>,
) -> Option<Result<Arc<User>, Denied>> {
    let question = Question {
        service: session.client.settings.logins.pam_service.as_str().to_owned(),
        // Names that differ in capitals are one user here, and must be one account there.
        name: name.to_lowercase(),
        password: password.clone(),
        client: session.live.client().ip(),
    };
    match session.client.inner.pam.ask(question).await {
        Said::Right => vouched(session, users, Backend::Pam, (name, None)),
        Said::Wrong => Some(Err(Denied::BadPassword)),
        Said::Unsaid(why) => {
            not_judged(session, Backend::Pam, &why);
            None
        }
    }
}

/// A build without PAM judges nothing by it.
#[cfg(not(feature = "pam"))]
#[expect(clippy::unused_async, reason = "with the feature it waits for the library")]
async fn by_pam(
    session: &Session<'_>,
    _users: &Users,
    _name: &str,
    _password: &Zeroizing<String>,
) -> Option<Result<Arc<User>, Denied>> {
    not_judged(session, Backend::Pam, "smtpd was built without its feature pam");
    None
}

/// Who it is whose password is right by the word of somebody else.
fn vouched(
    session: &Session<'_>,
    users: &Users,
    backend: Backend,
    (name, own): (&str, Option<Vec<Mailbox>>),
) -> Option<Result<Arc<User>, Denied>> {
    let found = users.vouched(name, own);
    if found.is_none() {
        not_judged(session, backend, users.trouble().unwrap_or_default());
    }
    found
}

/// Tells the log that nobody could say whether a password was right.
fn not_judged(session: &Session<'_>, backend: Backend, why: &str) {
    let parts = &session.client.inner.parts;
    let line = parts.log.line(Level::Error, "password-not-judged").word("server", &parts.name);
    let line = line.word("sid", session.live.id).word("backend", backend.word());
    line.text("reason", why).send();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_on_a_beat_and_never_at_once() {
        let ms = Duration::from_millis;
        for (spent, rest) in [(0, 1000), (1, 999), (999, 1), (1000, 1000), (2300, 700)] {
            assert_eq!(until_beat(ms(spent)), ms(rest));
        }
    }
}
