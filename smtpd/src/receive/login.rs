//! How a client's login is judged: by the users, slowed when it is wrong, told to the log.

use std::net::IpAddr;
use std::sync::Arc;
#[cfg(feature = "gssapi")]
use std::sync::Mutex;
use std::time::Duration;

use mailroot_common::config::backends::{Backend, PamService};
use smtpd_core::policy::guess::Limit;
use smtpd_core::smtp::auth::Claim;
use smtpd_core::smtp::refusal::Refusal;

use super::password;
use super::session::Session;
#[cfg(feature = "gssapi")]
use super::ticket::{Said, Ticket};
use crate::ldap::Directory;
use crate::oauth::NoGood;
use crate::observe::Level;
use crate::users::{Denied, User, Users};

/// How long a client waits for its password to be looked at; then it hears that it should come again.
pub(super) const TURN_WITHIN: Duration = Duration::from_secs(30);

/// What the configuration says about logins.
#[derive(Clone, Debug)]
pub struct LoginRules {
    /// How long a client waits for a "no" (`access.auth_failures.delay`).
    pub delay: Duration,
    /// How many may be wrong (`access.auth_failures.max` and `ban`).
    pub limit: Limit,
    /// What is taken off a name, as `@domain` behind it or `DOMAIN\` in front (`access.basic.domain`).
    pub domain: Option<String>,
    /// Whose tickets are good (`access.integrated.realms`).
    pub realms: Vec<String>,
    /// Who judges passwords (`access.basic.backends`).
    pub backends: Vec<Backend>,
    /// By which rules PAM judges (`access.basic.pam_service`).
    pub pam_service: PamService,
    /// The directory, where it is one of those.
    pub directory: Option<Directory>,
}

impl LoginRules {
    /// By which name a principal is known here: only of a realm whose tickets are good, and only one that
    /// a user could have, so that he can be kept out. Machines and services have none.
    #[cfg(any(feature = "gssapi", test))]
    fn name_of(&self, principal: &str) -> Option<String> {
        use mailroot_common::control::user;

        let (name, realm) = principal.rsplit_once('@')?;
        let is_listed = self.realms.iter().any(|listed| listed == realm);
        let is_usual = self.domain.as_deref().is_some_and(|it| it.eq_ignore_ascii_case(realm));
        let known = if is_usual { name } else { principal };
        let is_good = is_listed && !name.contains('@') && user::is_user_name(known);
        is_good.then(|| known.to_lowercase())
    }

    /// A name without the domain that need not be said.
    pub(super) fn plain<'a>(&self, name: &'a str) -> &'a str {
        let Some(domain) = &self.domain else { return name };
        let is_it = |text: &str| text.eq_ignore_ascii_case(domain);
        match (name.split_once('\\'), name.rsplit_once('@')) {
            (Some((front, rest)), _) if is_it(front) => rest,
            (_, Some((rest, behind))) if is_it(behind) => rest,
            _ => name,
        }
    }
}

/// Answers the machine's question.
pub(super) async fn judge(session: &mut Session<'_>) {
    let client = session.live.client().ip();
    let users = session.client.inner.parts.users.clone();
    let settings = session.client.settings;
    let Some(claim) = session.server.claim().cloned() else {
        session.server.judged(Err(Refusal::LoginUnavailable), elapsed(session));
        return;
    };
    let rules = &settings.logins;
    let mut name = rules.plain(claim.user()).to_owned();
    let is_guess = !matches!(claim, Claim::Token { .. } | Claim::External { .. });
    let found = match claim {
        Claim::Token { token, first } => match by_ticket(session, token, first).await {
            Some((said, found)) => {
                name = said;
                found
            }
            None => return,
        },
        Claim::External { .. } => by_certificate(session, &users, &mut name),
        Claim::Verifier { .. } => return show_verifier(session, &users, &name).await,
        Claim::Bearer { token, .. } => match by_token(session, &users, &mut name, &token).await {
            Some(found) => found,
            None => return,
        },
        // What was judged when the proof came is only looked at again.
        Claim::Agreed { .. } => asked_for(session, users.proved(&name, true)),
        // Counted before it is looked at, so that many at once are no more than one after the other. What
        // is not looked at is no guess: a user who has mended his slip is let in when the ban ends.
        _ if !users.may_guess(&name, client, rules.limit) => Err(Denied::Banned),
        Claim::Password { password, .. } => {
            match password::check(session, &users, &name, password).await {
                Ok(found) => found,
                Err(password::Unjudged { is_unknown }) => {
                    users.not_judged(&name, client, is_unknown);
                    session.server.judged(Err(Refusal::LoginUnavailable), elapsed(session));
                    return;
                }
            }
        }
        Claim::Proof { good, .. } => match asked_for(session, users.proved(&name, good)) {
            // Only who has taken our last word as well is logged in.
            Ok(user) => {
                session.client.asked = Some(Arc::clone(&user));
                session.server.judged(Ok(user.name.clone()), elapsed(session));
                return;
            }
            Err(why) => Err(why),
        },
    };
    let found = found.and_then(|user| still(session, user));
    note(&users, (&name, client), is_guess, &found);
    let verdict = match found {
        Ok(user) => {
            admit(session, &user, client);
            Ok(user.name.clone())
        }
        Err(why) => {
            deny(session, &name, why).await;
            Err(Refusal::LoginFailed)
        }
    };
    session.server.judged(verdict, elapsed(session));
}

/// Counts how a login ended.
fn note(
    users: &Users,
    (name, client): (&str, IpAddr),
    is_guess: bool,
    found: &Result<Arc<User>, Denied>,
) {
    match found {
        Err(Denied::Banned) => {}
        Err(_) => users.count(name, client, false),
        Ok(user) => {
            // A ticket is no guess, and one that is good makes up for no wrong password.
            if is_guess {
                users.forgive(name, client);
            }
            users.count(&user.name, client, true);
        }
    }
}

/// Whose the certificate is that the client has shown.
fn own_name<'s>(session: &'s Session<'_>) -> Option<&'s str> {
    session.client.certificate.as_ref()?.user.as_deref()
}

/// Whether the client's certificate is that of whom it wants to be; it need not say who that is.
fn by_certificate(
    session: &Session<'_>,
    users: &Users,
    wanted: &mut String,
) -> Result<Arc<User>, Denied> {
    let own = own_name(session).ok_or(Denied::BadIdentity)?;
    if wanted.is_empty() {
        own.clone_into(wanted);
    }
    if wanted.to_lowercase() != own {
        return Err(Denied::BadIdentity);
    }
    users.proved(own, true)
}

/// Whose the token is that the client has shown, who must be whom it named, if it did. Where that cannot
/// be said now, the client is told to come again: it was no guess then.
async fn by_token(
    session: &mut Session<'_>,
    users: &Users,
    name: &mut String,
    token: &str,
) -> Option<Result<Arc<User>, Denied>> {
    let settings = session.client.settings;
    let (client, limit) = (session.live.client().ip(), settings.logins.limit);
    // Held until a wrong one is counted, so that many at once are not asked about while a ban is near.
    let turn = tokio::select! {
        turn = session.client.inner.token_turns.take(client) => turn,
        () = session.client.inner.parts.clock.sleep(TURN_WITHIN) => None,
        () = session.live.killed() => None,
    };
    if turn.is_some() && users.is_banned(name, client, limit) {
        return Some(Err(Denied::Banned));
    }
    let said = match &turn {
        Some(_) => asked_about(session, token).await,
        None => None,
    };
    let Some(said) = said else {
        session.server.judged(Err(Refusal::LoginUnavailable), elapsed(session));
        return None;
    };
    let owner = said.map(|owner| settings.logins.plain(&owner).to_lowercase());
    if let (true, Some(owner)) = (name.is_empty(), &owner) {
        owner.clone_into(name);
    }
    if !users.may_guess(name, client, limit) {
        return Some(Err(Denied::Banned));
    }
    Some(match owner {
        None => Err(Denied::BadToken),
        Some(owner) if name.to_lowercase() == owner => users.proved(&owner, true),
        Some(_) => Err(Denied::BadIdentity),
    })
}

/// Whose a token is, if it is good; nothing where nobody says so in time, which the log is told.
async fn asked_about(session: &Session<'_>, token: &str) -> Option<Option<String>> {
    let parts = &session.client.inner.parts;
    let judge = session.client.settings.tokens.as_ref()?;
    let said = tokio::select! {
        said = judge.owner(token) => said.map_err(|why| why.to_string()),
        () = parts.clock.sleep(TURN_WITHIN) => Err("it took too long".to_owned()),
        () = session.live.killed() => return None,
    };
    let report = |why: &String| {
        let line = parts.log.line(Level::Error, "token-not-judged").word("server", &parts.name);
        line.word("sid", session.live.id).text("reason", why).send();
    };
    let said = said.inspect_err(report).ok()?;
    let refused = |why: &NoGood| {
        let line = parts.log.line(Level::Info, "token-no-good").word("server", &parts.name);
        line.word("sid", session.live.id).text("reason", why).send();
    };
    Some(said.inspect_err(refused).ok())
}

/// What a ticket says: by which name the client is to be known, or why not. Nothing while more has to
/// be said.
#[cfg(feature = "gssapi")]
async fn by_ticket(
    session: &mut Session<'_>,
    token: Vec<u8>,
    first: bool,
) -> Option<(String, Result<Arc<User>, Denied>)> {
    let begun = match session.ticket.take().and_then(|it| it.into_inner().ok()) {
        Some(ticket) if !first => Ok(ticket),
        _ => Ticket::begin().await,
    };
    let ticket = match begun {
        Ok(ticket) => ticket,
        Err(why) => {
            let parts = &session.client.inner.parts;
            let line = parts.log.line(Level::Error, "tickets-unusable");
            line.word("server", &parts.name).word("error", why).send();
            session.server.judged(Err(Refusal::LoginUnavailable), elapsed(session));
            return None;
        }
    };
    let principal = match ticket.take(token).await {
        Ok((ticket, Said::Words(words))) => {
            session.ticket = Some(Box::new(Mutex::new(ticket)));
            session.server.challenged(words, elapsed(session));
            return None;
        }
        Ok((_, Said::Principal(principal))) => principal,
        Err(why) => {
            let parts = &session.client.inner.parts;
            let line = parts.log.line(Level::Info, "ticket-refused").word("server", &parts.name);
            line.word("sid", session.live.id).word("error", why).send();
            return Some((String::new(), Err(Denied::BadTicket)));
        }
    };
    let Some(name) = session.client.settings.logins.name_of(&principal) else {
        return Some((principal, Err(Denied::BadTicket)));
    };
    let parts = &session.client.inner.parts;
    let Some(found) = parts.users.vouched(&name, None) else {
        let line = parts.log.line(Level::Error, "tickets-unusable").word("server", &parts.name);
        line.text("error", parts.users.trouble().unwrap_or_default()).send();
        session.server.judged(Err(Refusal::LoginUnavailable), elapsed(session));
        return None;
    };
    Some((name, found))
}

/// A build without Kerberos offers no logins by it.
#[cfg(not(feature = "gssapi"))]
#[expect(clippy::unused_async, reason = "with the feature it waits for the library")]
async fn by_ticket(
    session: &mut Session<'_>,
    _token: Vec<u8>,
    _first: bool,
) -> Option<(String, Result<Arc<User>, Denied>)> {
    session.server.judged(Err(Refusal::LoginUnavailable), elapsed(session));
    None
}

/// By what a proof is told; who it is must still be the same when the proof comes.
async fn show_verifier(session: &mut Session<'_>, users: &Users, name: &str) {
    session.client.asked = users.find(name);
    let answer = users.verifier(name).await;
    let now = elapsed(session);
    match answer {
        Some((verifier, nonce)) => session.server.verifier(verifier, &nonce, now),
        None => session.server.judged(Err(Refusal::LoginUnavailable), now),
    }
}

/// Whether a user is who he was when the client asked by what its proof is told.
fn asked_for(
    session: &mut Session<'_>,
    found: Result<Arc<User>, Denied>,
) -> Result<Arc<User>, Denied> {
    let asked = session.client.asked.take();
    let user = found?;
    match asked.is_some_and(|it| Arc::ptr_eq(&it, &user)) {
        true => Ok(user),
        false => Err(Denied::BadPassword),
    }
}

/// Whether a line begins a login, and so may hold a password.
pub(super) fn is_auth(line: &[u8]) -> bool {
    line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH"))
}

fn elapsed(session: &Session<'_>) -> Duration {
    session.client.inner.parts.clock.elapsed()
}

/// Has the session found by whoever ends a user's sessions, and only then looks whether he is still who
/// was judged: a password that was changed meanwhile lets nobody in.
fn still(session: &Session<'_>, user: Arc<User>) -> Result<Arc<User>, Denied> {
    session.live.show_user(Some(&user.name));
    let users = &session.client.inner.parts.users;
    if users.is_still(&user) {
        return Ok(user);
    }
    session.live.show_user(None);
    Err(Denied::BadPassword)
}

fn admit(session: &mut Session<'_>, user: &Arc<User>, client: IpAddr) {
    let parts = &session.client.inner.parts;
    parts.counters.logins.add_one();
    let mechanism = session.server.mechanism().map(|it| it.name());
    let line = parts.log.line(Level::Info, "login").word("server", &parts.name);
    let line = line.word("client", client).word("port", session.live.client().port());
    let line = line.word("sid", session.live.id).maybe("mech", mechanism);
    line.text("user", &user.name).send();
    session.client.facts.authenticated = Some(user.name.clone());
    session.client.user = Some(Arc::clone(user));
    let settings = session.client.settings;
    let rules = settings.rules_for(&session.client.facts, parts.clock.now());
    session.server.adopt(Arc::clone(rules));
}

/// Tells the log, in one form whatever the reason, and lets the client wait. What the client chose
/// stands last.
async fn deny(session: &Session<'_>, name: &str, why: Denied) {
    let parts = &session.client.inner.parts;
    parts.counters.logins_failed.add_one();
    let mechanism = session.server.mechanism().map(|it| it.name());
    let line = parts.log.line(Level::Warn, "login-failed").word("server", &parts.name);
    let line = line.word("client", session.live.client().ip());
    let line = line.word("port", session.live.client().port()).word("sid", session.live.id);
    let line = line.maybe("mech", mechanism).word("reason", why.as_str());
    line.text("user", name).send();
    tokio::select! {
        () = parts.clock.sleep(session.client.settings.logins.delay) => {}
        () = session.live.killed() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_are_known_by_names_that_users_could_have() {
        let rules = LoginRules {
            delay: Duration::ZERO,
            limit: Limit { failures: 5, ban: None },
            domain: Some("corp.example".to_owned()),
            realms: vec!["CORP.EXAMPLE".to_owned(), "OTHER.EXAMPLE".to_owned()],
            backends: vec![Backend::Users],
            pam_service: PamService::parse("mailroot").unwrap(),
            directory: None,
        };
        for (principal, name) in [
            ("Ada@CORP.EXAMPLE", Some("ada")),
            ("ada@OTHER.EXAMPLE", Some("ada@other.example")),
            ("ada@corp.example", None),
            ("ada@FOREIGN.EXAMPLE", None),
            ("CORP.EXAMPLE\\tom@OTHER.EXAMPLE", None),
            ("ada\\@x@CORP.EXAMPLE", None),
            ("eve@x@CORP.EXAMPLE", None),
            ("host/pc@CORP.EXAMPLE", None),
            ("PC01$@CORP.EXAMPLE", None),
            ("WELLKNOWN/ANONYMOUS@CORP.EXAMPLE", None),
            ("@CORP.EXAMPLE", None),
            ("ada", None),
        ] {
            assert_eq!(rules.name_of(principal).as_deref(), name, "{principal}");
        }
    }

    #[test]
    fn the_usual_domain_need_not_be_said() {
        let rules = |domain: Option<&str>| LoginRules {
            backends: Vec::new(),
            pam_service: PamService::parse("mailroot").unwrap(),
            directory: None,
            delay: Duration::ZERO,
            limit: Limit { failures: 5, ban: None },
            domain: domain.map(str::to_owned),
            realms: Vec::new(),
        };
        let corp = rules(Some("corp.example"));
        for (said, name) in [
            ("ada", "ada"),
            ("ada@corp.example", "ada"),
            ("CORP.example\\ada", "ada"),
            ("ada@other.example", "ada@other.example"),
        ] {
            assert_eq!(corp.plain(said), name);
            assert_eq!(rules(None).plain(said), said);
        }
    }
}
