//! A look at the directory for people: each server, and what is said of one address.

use std::time::Duration;

use mailroot_common::address::{Domain, Mailbox};
use mailroot_common::config::ldap::{Ldap, LdapBind, LdapServer, UnknownRecipient};
use mailroot_common::control::{Check, Level};
use smtpd_core::ldap::expand::Resolution;
use smtpd_core::ldap::message::Search;
use smtpd_core::ldap::schema::Target;

use super::connection::{Connection, DirectoryError};
use super::{Directory, ELSEWHERE, Means, is_postmaster};

/// The most recipients that are told.
const TOLD: usize = 10;

fn check(level: Level, name: &str, text: String) -> Check {
    Check::new(level, "ldap", name, text)
}

impl Directory {
    /// Calls each server anew, and resolves an address if one is given, past what is remembered.
    pub async fn test(
        &self,
        address: Option<&Mailbox>,
        is_local: &(dyn Fn(&Domain) -> bool + Sync),
    ) -> Vec<Check> {
        let (keys, means) = (&*self.0.keys, self.0.means.load_full());
        let mut checks = Vec::new();
        for (place, server) in keys.server.iter().enumerate() {
            checks.extend(self.call(&means, (place, server)).await);
        }
        if let Some(address) = address {
            checks.extend(self.look_up(&means, address, is_local).await);
        }
        checks
    }

    /// The same of the servers alone, but that those that are left alone are not called: whoever watches over
    /// the service asks often, and an account is soon locked.
    pub async fn probe(&self) -> Vec<Check> {
        let (keys, means) = (&*self.0.keys, self.0.means.load_full());
        let mut checks = Vec::new();
        for (place, server) in keys.server.iter().enumerate() {
            match self.0.pool.rest(place, means.clock.elapsed()) {
                Some((span, why)) => {
                    let text = format!("left alone for {} s: {why}", span.as_secs().max(1));
                    let hint = "smtpctl ldap test calls it at once";
                    checks.push(check(Level::Fail, "bind", text).hint(hint));
                }
                None => checks.extend(self.call(&means, (place, server)).await),
            }
        }
        checks
    }

    /// Whether a server lets us in and has the base.
    async fn call(&self, means: &Means, (place, server): (usize, &LdapServer)) -> Vec<Check> {
        let (keys, pool) = (&*self.0.keys, &self.0.pool);
        let began = means.clock.elapsed();
        let patience = keys.timeout.as_duration();
        let mut connection = match Connection::open(means, keys, server, patience).await {
            Ok(connection) => connection,
            Err(error) => {
                if error.is_refusal() {
                    pool.note_failure(means, place, &error);
                }
                let text = format!("{server}: {error}");
                return vec![check(Level::Fail, "bind", text).hint(hint(&error))];
            }
        };
        let took = means.clock.elapsed().saturating_sub(began);
        let bind = bound(keys, server, &connection, took);
        let base = find_base(&mut connection, keys, server).await;
        connection.close(Duration::from_secs(1)).await;
        if base.level == Level::Ok {
            pool.note_answer(means, place);
        }
        vec![bind, base]
    }

    async fn look_up(
        &self,
        means: &Means,
        address: &Mailbox,
        is_local: &(dyn Fn(&Domain) -> bool + Sync),
    ) -> Vec<Check> {
        let filter = self.0.schema.filter(address);
        if !address.domain().is_some_and(is_local) {
            let text = format!("{address} is in no domain of ours: the directory is not asked");
            return vec![check(Level::Warn, "lookup", text)];
        }
        let target = Target::Address(address.clone());
        let asked = self.ask(means, &target).await;
        if let Ok(found) = &asked {
            self.remember(&target, found.clone(), means.clock.elapsed());
        }
        let found = match asked {
            Ok(Some(meaning)) => {
                let mail = meaning.mail.as_ref().map(|mail| format!("  mail={mail}"));
                let text = format!("1 entry: {}{}", meaning.dn, mail.unwrap_or_default());
                check(Level::Ok, "lookup", text)
            }
            Ok(None) => check(Level::Warn, "lookup", format!("no entry for {filter}")),
            Err(outage) => {
                let hint = "mail waits until a directory answers";
                return vec![check(Level::Fail, "lookup", outage.to_string()).hint(hint)];
            }
        };
        let said = self.describe(address, is_local).await;
        vec![found, check(Level::Ok, "resolved", format!("{address} -> {said}"))]
    }

    /// What the directory says of an address of ours, in words.
    pub async fn describe(
        &self,
        address: &Mailbox,
        is_local: &(dyn Fn(&Domain) -> bool + Sync),
    ) -> String {
        match self.resolve(address, is_local).await {
            Err(outage) => format!("not known now: {outage}"),
            Ok(Resolution::Here) if is_postmaster(address) => {
                format!("{address}, the postmaster, who is always known")
            }
            Ok(Resolution::Here) => address.to_string(),
            Ok(Resolution::Flawed(flaw)) => format!("nobody: {flaw}; mail is returned"),
            Ok(Resolution::Unknown) => match self.unknown() {
                UnknownRecipient::Refuse => "unknown: 550 5.1.1 (ldap.unknown)".to_owned(),
                UnknownRecipient::Return => "unknown: mail is returned (ldap.unknown)".to_owned(),
                UnknownRecipient::Deliver => {
                    "unknown: into Drop all the same (ldap.unknown)".to_owned()
                }
            },
            Ok(Resolution::To { recipients, is_group, missing, .. }) => {
                let told = recipients.iter().take(TOLD).map(ToString::to_string);
                let told = told.collect::<Vec<_>>().join(", ");
                let more = match recipients.len().saturating_sub(TOLD) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let group = if is_group { ", a group" } else { "" };
                let missing = missing.iter().map(|dn| format!("; not {dn}, {ELSEWHERE}"));
                format!("{told}{more}{group}{}", missing.take(TOLD).collect::<String>())
            }
        }
    }
}

/// That a server has let us in, and as whom.
fn bound(keys: &Ldap, server: &LdapServer, connection: &Connection, took: Duration) -> Check {
    let who = match (keys.bind, keys.bind_name()) {
        (LdapBind::Gssapi, name) => {
            let name = name.map_or_else(String::new, |name| format!("as {name} "));
            format!("{name}by a ticket (gssapi, {})", connection.protection)
        }
        (LdapBind::Simple, Some(name)) => format!("as {name} (simple, {})", connection.protection),
        _ => format!("anonymously ({})", connection.protection),
    };
    let text = format!("{server} {who} in {} ms", took.as_millis());
    check(Level::Ok, "bind", text).figure("took_seconds", took.as_secs_f64())
}

/// Whether a server shows us the base.
async fn find_base(connection: &mut Connection, keys: &Ldap, server: &LdapServer) -> Check {
    let base = keys.base.as_deref().unwrap_or_default();
    let wanted =
        Search { base, filter: None, attributes: &["objectClass"], entries: 1, seconds: 5 };
    match connection.search(&wanted, keys.timeout.as_duration()).await {
        Ok(found) if !found.entries.is_empty() => {
            check(Level::Ok, "base", format!("{server} has {base}"))
        }
        Ok(found) if found.is_elsewhere => {
            let text = format!("{server}: {base} lies in another directory (referral)");
            check(Level::Fail, "base", text).hint("is ldap.base right?")
        }
        Ok(_) => check(Level::Fail, "base", format!("{server} shows us no entry {base}"))
            .hint("is ldap.base right, and may this bind read it?"),
        Err(error) => check(Level::Fail, "base", format!("{server}: {error}")).hint(hint(&error)),
    }
}

const fn hint(error: &DirectoryError) -> &'static str {
    match error {
        DirectoryError::Lookup(_) => "is the name in ldap.server right?",
        DirectoryError::Connect { .. } | DirectoryError::TimedOut(_) => {
            "is the port right (389, 636 for ldaps), the server up, and does a firewall let it through?"
        }
        DirectoryError::Tls(_) => {
            "tls.trust names who may vouch for it; its certificate must be for the name in ldap.server"
        }
        DirectoryError::NoTls(_) | DirectoryError::OctetsBeforeTls | DirectoryError::Clear => {
            "write ldaps:// if it speaks that, or set up TLS on it"
        }
        DirectoryError::Bind(_) | DirectoryError::Secret(_) | DirectoryError::Unnamed => {
            "smtpctl ldap passwd sets name and password anew; many directories want TLS before a bind"
        }
        DirectoryError::Realm(_) => {
            "a newer password (smtpctl ldap passwd) or key helps, then smtpctl ldap test; the account may be locked"
        }
        DirectoryError::Ticket(_) => {
            "see kinit and /etc/krb5.conf; the realm must know ldap/HOST by the name in ldap.server"
        }
        DirectoryError::Broken(_)
        | DirectoryError::Nonsense(_)
        | DirectoryError::TooLong(_)
        | DirectoryError::Unexpected
        | DirectoryError::Ending => {
            "is it a directory that answers on this port, and in this way (ldap, ldaps)?"
        }
        DirectoryError::Search(_) => "is ldap.base right, and may this bind read it?",
    }
}
