//! What is known of a client, and what policy says about it.

use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::config::ldap::UnknownSender;
use mailroot_common::units::Timestamp;
use smtpd_core::policy::relay::RelayRule;
use smtpd_core::policy::{self, Admitted, Facts, NameFact, Verdict};
use smtpd_core::smtp::refusal::Refusal;

use super::message::Client;
use super::{Inner, Settings, lock};
use crate::queue::Unready;

/// Asks DNS for the client's names if anything depends on them.
pub(super) async fn gather(inner: &Inner, settings: &Settings, client: std::net::IpAddr) -> Facts {
    let now = inner.parts.clock.now();
    let wanted = settings.reverse_dns
        || settings.connect.list.needs_name_of(client, now)
        || settings.relay.list.needs_name_of(client, now);
    let mut facts = Facts::of_address(client);
    if wanted {
        facts.name = match settings.resolver.names(client).await {
            Ok(names) => NameFact::Names(names),
            Err(error) if error.is_temporary() => NameFact::Unknown,
            Err(_) => NameFact::None,
        };
    }
    facts
}

/// What a quota is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Message,
    Recipient,
}

/// Uses one of the user's quota, or of the client's if it has not logged in. A user's quota is about
/// recipients alone.
pub(super) fn charge(client: &Client<'_>, piece: Piece) -> Result<(), Refusal> {
    let Client { inner, settings, facts, user, .. } = client;
    if client.local.is_some() {
        // They have no address of their own: one of them would use up what all the others have.
        return Ok(());
    }
    let now = inner.parts.clock.elapsed();
    let charged = match (user, piece) {
        (Some(user), Piece::Recipient) => inner.parts.users.charge(user, now),
        (Some(_), Piece::Message) => Ok(()),
        (None, piece) => {
            let quota = match piece {
                Piece::Message => settings.quota.messages,
                Piece::Recipient => settings.quota.recipients,
            };
            let Some(quota) = quota else { return Ok(()) };
            let who = policy::client::Client::of(facts.client);
            let mut used = lock(&inner.used);
            let used = match piece {
                Piece::Message => &mut used.messages,
                Piece::Recipient => &mut used.recipients,
            };
            used.charge(who, quota, now)
        }
    };
    charged.map_err(|_| Refusal::QuotaReached)
}

pub(super) fn may_connect(
    settings: &Settings,
    facts: &Facts,
    now: Timestamp,
) -> Result<(), Refusal> {
    match settings.connect.judge(facts, now) {
        Verdict::Admit(welcome) => {
            settings.tallies.connect.note(welcome.entry(), now);
            Ok(())
        }
        Verdict::Defer(_) => Err(Refusal::ConnectUnavailable),
        Verdict::Refuse(denial) => {
            settings.tallies.connect.note(denial.entry.as_ref(), now);
            Err(denial.reason.into())
        }
    }
}

/// Whether a client may begin a message from this sender.
pub(super) fn may_begin(client: &Client<'_>, sender: Option<&ReversePath>) -> Result<(), Refusal> {
    let settings = client.settings;
    let is_foreign = |sender: &ReversePath| match (&client.local, &client.user) {
        (Some(local), _) => !local.may_send_as(sender, &settings.submission, &settings.table),
        (None, Some(user)) => !user.may_send_as(sender),
        (None, None) => false,
    };
    if sender.is_some_and(is_foreign) {
        return Err(Refusal::SenderNotAllowed);
    }
    said(client.relay().judge_sender(&client.facts)).map(drop)
}

/// Whether a client may send to a recipient; counts the entry of the relay list that decided.
fn may_relay(client: &Client<'_>, to: &Mailbox, now: Timestamp) -> Result<RelayRule, Refusal> {
    let settings = client.settings;
    let verdict = client.relay().judge(&client.facts, to, &settings.table, now);
    let decided = match &verdict {
        Verdict::Admit(admitted) => match admitted.rule() {
            RelayRule::List(entry) => Some(entry),
            _ => None,
        },
        Verdict::Defer(denial) | Verdict::Refuse(denial) => denial.entry.as_ref(),
    };
    settings.tallies.relay.note(decided, now);
    said(verdict).map(Admitted::into_rule)
}

/// Whether a client may send to a recipient, and there is one.
pub(super) async fn may_send_to(
    client: &Client<'_>,
    to: &Mailbox,
    now: Timestamp,
) -> Result<RelayRule, Refusal> {
    let rule = may_relay(client, to, now)?;
    exists(client, to).await.map(|()| rule)
}

/// Whether there is such a recipient, where a directory says so and clients are told. A name that the
/// file of aliases has is one; whom it stands for is looked up when the mail is delivered.
async fn exists(client: &Client<'_>, to: &Mailbox) -> Result<(), Refusal> {
    let settings = client.settings;
    let is_local = |domain: &_| settings.table.is_local(domain);
    let Some(directory) = &settings.directory else { return Ok(()) };
    if !to.domain().is_some_and(is_local) || is_alias(client, to).await {
        return Ok(());
    }
    // Boxed, so that sessions that ask nobody hold no room for it.
    match Box::pin(directory.knows(to)).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::UnknownRecipient),
        Err(_) => Err(Refusal::DirectoryUnavailable),
    }
}

async fn is_alias(client: &Client<'_>, address: &Mailbox) -> bool {
    let aliases = client.inner.parts.aliases.current().await;
    aliases.is_some_and(|aliases| aliases.find(address.local()).is_some())
}

/// Whether there is such a sender in a domain of ours, where that is asked, and the address that the mail
/// goes on from if it is to be another one of his.
pub(super) async fn find_sender(
    client: &Client<'_>,
    from: &Mailbox,
    is_utf8: bool,
) -> Result<Option<Mailbox>, Refusal> {
    let settings = client.settings;
    let Some(directory) = &settings.senders_directory else { return Ok(None) };
    if !from.domain().is_some_and(|domain| settings.table.is_local(domain)) {
        return Ok(None);
    }
    let rules = &directory.keys().senders;
    let must_exist = rules.unknown == UnknownSender::Refuse && client.local.is_none();
    match Box::pin(directory.primary(from)).await {
        Ok(Some(own)) => {
            let is_other = own != *from && (is_utf8 || own.is_ascii());
            Ok(Some(own).filter(|_| rules.primary && is_other))
        }
        Ok(None) if must_exist && !is_alias(client, from).await => Err(Refusal::UnknownSender),
        Err(_) if must_exist && !is_alias(client, from).await => Err(Refusal::DirectoryUnavailable),
        Ok(None) | Err(_) => Ok(None),
    }
}

pub(super) fn unready(why: Unready) -> Refusal {
    match why {
        Unready::NoRoom => Refusal::StorageFull,
        Unready::Trouble => Refusal::LocalTrouble,
    }
}

/// What a verdict comes to; the proof it carries is used up by the envelope that is built from the
/// same words.
pub(super) fn said<P>(verdict: Verdict<P>) -> Result<P, Refusal> {
    match verdict {
        Verdict::Admit(proof) => Ok(proof),
        Verdict::Defer(denial) | Verdict::Refuse(denial) => Err(denial.reason.into()),
    }
}
