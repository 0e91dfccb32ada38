//! From the configuration to the settings of the rooms.
//!
//! Each room takes a plain struct of what it goes by. Built here anew whenever the configuration
//! changes; two that are equal need no room to be told.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::config::access::{LoginMechanism, Quota, TlsMode};
use mailroot_common::config::backends::Backend;
use mailroot_common::config::client_tokens::{ClientTokens, TokenMechanism};
use mailroot_common::config::domains::{Drop, DropFormat};
use mailroot_common::config::general::Extension as Word;
use mailroot_common::config::ldap::UnknownRecipient;
use mailroot_common::config::messages::Fix;
use mailroot_common::config::senders::{Check, Mark};
use mailroot_common::config::submission::RecordUser;
use mailroot_common::config::{DomainKind, Limit, ServerConfig, delivery};
use mailroot_common::units::{ByteSize, Span};
use smtpd_core::message::import::Rules;
use smtpd_core::policy::guess;
use smtpd_core::queue::wishes::Priority;
use smtpd_core::route::loopback::AddressRule;
use smtpd_core::route::table::Table;
use smtpd_core::sender::Wanted;
use smtpd_core::smtp::auth::Mechanism;
use smtpd_core::smtp::body::BodyLimits;
use smtpd_core::smtp::client::Timeouts;
use smtpd_core::smtp::command::Grammar;
use smtpd_core::smtp::extension::{Extension, Offer};
use smtpd_core::smtp::server;

use super::directory::Domains;
use super::root::MailRoot;
use super::{Shared, rules};
use crate::badmail::{self, Badmail};
use crate::deliver::Signing;
use crate::drop::{self, DropDirectory};
use crate::https::Https;
use crate::ldap::Directory;
use crate::oauth::Judge;
use crate::receive::{LocalRules, Tallies};
use crate::resolve::Family;
use crate::sender::Checks;
use crate::tls::{Clients, ServerTls, Wish};
use crate::{deliver, pickup, process, receive};

/// A span that stands for "no limit": no session and no wait lasts that long.
const FOR_EVER: Duration = Duration::from_hours(24 * 366);
/// Recipients that a message of users of this machine may have, if `messages.max_recipients` is less.
const LOCAL_RECIPIENTS: u32 = 10_000;
/// What a session of ours may wait for the answer to DATA and for the network to take a piece,
/// where RFC 5321 section 4.5.3.2 wants less than `delivery.connections.timeout`.
const DATA_WAIT_MAX: Duration = Duration::from_mins(2);
const BLOCK_WAIT_MAX: Duration = Duration::from_mins(3);

/// The name the server goes by: `delivery.fqdn`, or the machine's.
pub(super) fn host<'a>(config: &'a ServerConfig, shared: &'a Shared) -> &'a Domain {
    config.delivery.fqdn.as_ref().unwrap_or(&shared.hostname)
}

fn number(limit: Limit<u32>) -> u32 {
    limit.value().unwrap_or(u32::MAX)
}

fn size(octets: ByteSize) -> usize {
    usize::try_from(octets.as_u64()).unwrap_or(usize::MAX)
}

/// What the receiver goes by.
pub(super) fn receive(
    config: &ServerConfig,
    shared: &Shared,
    Domains { table, directory }: &Domains,
    tallies: Tallies,
) -> receive::Settings {
    let (general, messages) = (&config.general, &config.messages);
    let tls = server_tls(config, shared);
    let session = server::Settings {
        host: host(config, shared).to_string(),
        banner: general.banner.clone(),
        grammar: Grammar {
            offer: offer(config, table),
            default_domain: table.default_domain().clone(),
            auth: config.access.takes_logins(),
            inquiries: false,
        },
        body: BodyLimits {
            size_max: rules::octets(messages.max_size),
            line_max: size(config.limits.line_length),
            header_max: size(config.limits.header_size),
        },
        recipients_max: number(messages.max_recipients),
        release_max: messages.future_release,
        deliver_by_min: messages.deliver_by_min,
        priority_max: Priority::MAX,
        session_octets_max: rules::octets(messages.max_session_size),
        errors_max: number(general.max_errors),
        idle_commands_max: number(config.limits.idle_commands),
        idle: general.idle_timeout.as_duration(),
        session_time: general.max_session_time.value().map_or(FOR_EVER, |time| time.as_duration()),
        rate_min: config.limits.min_rate.as_u64(),
        tls: offered_tls(config, tls.as_ref()),
        logins: logins(config),
    };
    let (strangers, local) = (strangers(&session), local(&session, shared.mail_name.as_ref()));
    receive::Settings {
        session: Arc::new(session),
        strangers: Arc::new(strangers),
        local: Arc::new(local),
        submission: LocalRules::new(
            rules::sender_policy(shared.submission.sender_policy),
            shared.submission.record_user == RecordUser::Header,
        ),
        tls,
        tokens: tokens(config, shared),
        logins: login_rules(config, directory.as_ref()),
        connect: rules::connect_policy(config),
        relay: rules::relay_policy(config),
        tallies,
        balancers: config.access.proxy_from.clone(),
        tellers: config.access.xclient_from.clone(),
        quota: quota(&config.access.quota),
        table: Arc::clone(table),
        directory: directory.clone().filter(|it| it.unknown() == UnknownRecipient::Refuse),
        senders_directory: directory.clone().filter(|it| it.looks_at_senders()),
        senders: senders(config, shared),
        connections: rules::connection_limits(config),
        reverse_dns: config.access.reverse_dns,
        outbound_tls: rules::tls_policy(config.delivery.security.tls),
        hops_max: config.delivery.max_hops,
        add_date: messages.fix.contains(&Fix::Date),
        add_message_id: messages.fix.contains(&Fix::MessageId),
        body_memory_max: config.limits.body_memory.as_u64(),
        milters: messages.milters.clone().into(),
        resolver: shared.resolver.clone(),
    }
}

fn quota(keys: &Quota) -> receive::ClientQuota {
    let Quota { connections, messages, recipients } = *keys;
    receive::ClientQuota { connections, messages, recipients }
}

/// Who judges tokens of clients, if they are taken.
fn tokens(config: &ServerConfig, shared: &Shared) -> Option<Judge> {
    let (net, resolver) = (shared.net.clone(), shared.resolver.clone());
    let https = Https { net, resolver, tls: shared.tls.clone() };
    Judge::new(&config.access.tokens, https, shared.secrets.clone(), shared.clock.clone())
}

/// What sessions of clients go by who may not relay. They could fill the queue with mail that lies there,
/// and push in front of everybody else.
fn strangers(session: &server::Settings) -> server::Settings {
    let mut strangers = session.clone();
    strangers.grammar.offer = strangers.grammar.offer.without(Extension::FutureRelease);
    strangers.priority_max = Priority::NORMAL;
    strangers
}

/// What sessions of users of this machine go by: they need no TLS and no login, a program may write
/// its mail as slowly as it likes, and nothing is held for them that they could ask for. `sendmail` has no
/// second transaction for recipients that the first had no room for, so that it takes many.
fn local(session: &server::Settings, mail_name: Option<&Domain>) -> server::Settings {
    let mut local = session.clone();
    if let Some(name) = mail_name {
        local.grammar.default_domain.clone_from(name);
    }
    local.recipients_max = local.recipients_max.max(LOCAL_RECIPIENTS);
    local.grammar.auth = false;
    local.grammar.inquiries = true;
    local.grammar.offer = local.grammar.offer.without(Extension::Etrn);
    local.tls = server::Tls::Off;
    local.logins = server::Logins::default();
    local.rate_min = 0;
    local
}

/// How mail of strangers is looked at, if it is.
fn senders(config: &ServerConfig, shared: &Shared) -> Option<Arc<Checks>> {
    let keys = &config.senders;
    let wanted = Wanted {
        spf: keys.spf != Check::Off,
        dkim: keys.dkim != Mark::Off,
        dmarc: keys.dmarc != Check::Off,
        arc: keys.arc != Mark::Off,
        refuse_spf: keys.spf == Check::Reject,
        refuse_dmarc: keys.dmarc == Check::Reject,
    };
    let host = keys.name.as_ref().unwrap_or_else(|| host(config, shared));
    wanted.any().then(|| {
        Arc::new(Checks {
            wanted,
            host: host.as_str().into(),
            trusted: keys.trusted_sealers.as_slice().into(),
            patience: keys.timeout.as_duration(),
            resolver: shared.resolver.clone(),
        })
    })
}

/// How clients may log in.
fn logins(config: &ServerConfig) -> server::Logins {
    let mechanism = |word: LoginMechanism| match word {
        LoginMechanism::ScramSha256Plus => Mechanism::ScramSha256Plus,
        LoginMechanism::ScramSha256 => Mechanism::ScramSha256,
        LoginMechanism::Plain => Mechanism::Plain,
        LoginMechanism::Login => Mechanism::Login,
    };
    let tickets = config.access.integrated.enabled.then_some(Mechanism::Gssapi);
    let certificates = config.access.certificates.login.then_some(Mechanism::External);
    let token = |word: &TokenMechanism| match word {
        TokenMechanism::OauthBearer => Mechanism::OauthBearer,
        TokenMechanism::Xoauth2 => Mechanism::Xoauth2,
    };
    let ClientTokens { enabled, mechanisms, .. } = &config.access.tokens;
    let tokens = mechanisms.iter().filter(|_| *enabled).map(token);
    let first = tickets.into_iter().chain(certificates).chain(tokens);
    server::Logins {
        mechanisms: first.chain(config.access.passwords().map(mechanism)).collect(),
        only_under_tls: config.access.basic.require_tls,
        failures_max: config.access.auth_failures.max,
    }
}

fn login_rules(config: &ServerConfig, directory: Option<&Directory>) -> receive::LoginRules {
    let backends = config.access.basic.backends.clone();
    let keys = &config.access.auth_failures;
    let ban = keys.ban.value().map(|span| span.as_duration());
    receive::LoginRules {
        delay: keys.delay.as_duration(),
        limit: guess::Limit { failures: keys.max, ban },
        domain: config.access.basic.domain.clone(),
        realms: config.access.integrated.realms.clone(),
        directory: directory.filter(|_| backends.contains(&Backend::Ldap)).cloned(),
        pam_service: config.access.basic.pam_service.clone(),
        backends,
    }
}

/// What clients come under TLS with, if they may.
fn server_tls(config: &ServerConfig, shared: &Shared) -> Option<ServerTls> {
    let keys = &config.access.tls;
    let wish = Wish {
        names: &keys.certificate,
        min_version: keys.min_version.unwrap_or(shared.tls_min_version),
        handshakes: config.limits.handshakes as usize,
        patience: config.limits.handshake_time.as_duration(),
        binds: logins(config).mechanisms.contains(&Mechanism::ScramSha256Plus),
    };
    let clients = Clients::new(&config.access.certificates);
    (keys.mode != TlsMode::Off).then(|| ServerTls::new(&shared.certificates, &wish, clients))
}

/// What is offered of it: without a certificate only what is required, which then says why not.
fn offered_tls(config: &ServerConfig, tls: Option<&ServerTls>) -> server::Tls {
    match (config.access.tls.mode, tls) {
        (TlsMode::Off, _) => server::Tls::Off,
        (TlsMode::Required, _) => server::Tls::Required,
        (TlsMode::Optional, Some(tls)) if tls.is_ready() => server::Tls::Optional,
        (TlsMode::Optional, _) => server::Tls::Off,
    }
}

/// What is offered of what may be: nobody can ask for mail where none is held, or have it held for
/// no time.
fn offer(config: &ServerConfig, table: &Table) -> Offer {
    let offer: Offer = config.general.extensions.iter().copied().map(extension).collect();
    let holds = config.messages.future_release > Span::ZERO;
    let offer = if holds { offer } else { offer.without(Extension::FutureRelease) };
    let offer = if table.holds_any() { offer } else { offer.without(Extension::Etrn) };
    match table.has_fetchers() && config.access.takes_logins() {
        true => offer,
        false => offer.without(Extension::Atrn).without(Extension::Turn),
    }
}

fn extension(word: Word) -> Extension {
    match word {
        Word::Pipelining => Extension::Pipelining,
        Word::Size => Extension::Size,
        Word::EightBitMime => Extension::EightBitMime,
        Word::BinaryMime => Extension::BinaryMime,
        Word::Chunking => Extension::Chunking,
        Word::SmtpUtf8 => Extension::SmtpUtf8,
        Word::Dsn => Extension::Dsn,
        Word::EnhancedStatusCodes => Extension::EnhancedStatusCodes,
        Word::Limits => Extension::Limits,
        Word::Etrn => Extension::Etrn,
        Word::Atrn => Extension::Atrn,
        Word::Turn => Extension::Turn,
        Word::DeliverBy => Extension::DeliverBy,
        Word::FutureRelease => Extension::FutureRelease,
        Word::MtPriority => Extension::MtPriority,
        Word::RequireTls => Extension::RequireTls,
    }
}

/// Which addresses of other hosts are tried.
pub(super) fn family(config: &ServerConfig) -> Family {
    match config.delivery.ip_version {
        delivery::IpVersion::Any => Family::Any,
        delivery::IpVersion::V4 => Family::V4,
        delivery::IpVersion::V6 => Family::V6,
        delivery::IpVersion::Prefer4 => Family::Prefer4,
    }
}

/// Which addresses mail is not sent to.
pub(super) fn addresses(config: &ServerConfig, listeners: Vec<SocketAddr>) -> AddressRule {
    let allow_loopback = config.delivery.allow_loopback;
    AddressRule { allow_loopback, listeners, own_addresses: process::own_addresses() }
}

/// What delivery goes by.
pub(super) fn deliver(
    config: &ServerConfig,
    shared: &Shared,
    Domains { table, directory }: &Domains,
    listeners: Vec<SocketAddr>,
    ends: (DropDirectory, Badmail),
) -> deliver::Settings {
    let delivery = &config.delivery;
    let connections = &delivery.connections;
    let wait = connections.timeout.as_duration();
    let (drop, badmail) = ends;
    deliver::Settings {
        table: Arc::clone(table),
        schedules: rules::schedules(config),
        in_doubt: rules::in_doubt(delivery.outbound.in_doubt),
        host: host(config, shared).clone(),
        other_names: vec![shared.hostname.clone()],
        senders: rules::senders(config),
        max_hops: delivery.max_hops,
        resolver: shared.resolver.clone(),
        family: family(config),
        addresses: addresses(config, listeners),
        sources: delivery.source.clone(),
        port: connections.port,
        tls: shared.tls.clone(),
        tls_policy: rules::tls_policy(delivery.security.tls),
        smart_hosts: Arc::clone(&shared.smart_hosts),
        secrets: shared.secrets.clone(),
        tokens: shared.tokens.clone(),
        recall: shared.recall.clone(),
        tls_reports: shared.tls_reports.clone(),
        dane: shared.dane,
        mta_sts: shared.mta_sts.clone(),
        signing: Arc::new(
            Signing::new(&config.dkim, shared.secrets.clone(), rules::relay_policy(config))
                .sealing(config.senders.seal.clone()),
        ),
        connect_timeout: connections.connect.as_duration(),
        timeouts: Timeouts {
            greeting: connections.greeting.as_duration(),
            command: wait,
            data: wait.min(DATA_WAIT_MAX),
            block: wait.min(BLOCK_WAIT_MAX),
            end: connections.data_end.as_duration(),
        },
        connections_max: number(connections.max) as usize,
        connections_per_route: number(connections.per_domain) as usize,
        messages_per_connection: number(config.messages.max_per_connection),
        reuse: connections.reuse.value().map(|span| span.as_duration()),
        directory: directory.clone(),
        drop,
        badmail,
        ndr_copy_to: config.messages.ndr_copy_to.clone(),
        ndr_full_message: config.messages.ndr_full_message,
    }
}

/// What Pickup goes by.
pub(super) fn pickup(
    name: &str,
    config: &ServerConfig,
    shared: &Shared,
    root: &MailRoot,
) -> pickup::Settings {
    let keys = &config.store.pickup;
    pickup::Settings {
        server: name.to_owned(),
        fqdn: host(config, shared).to_string(),
        directory: root.pickup.clone(),
        poll: keys.poll,
        settle: keys.settle,
        rules: Rules::of(config),
        local_domains: rules::local_domains(config),
        milters: config.messages.milters.iter().filter(|it| it.local).cloned().collect(),
        patience: config.delivery.local.expire,
    }
}

/// The directories of a mail root, as the configuration has them.
pub(super) fn places(root: &Path, config: &ServerConfig) -> MailRoot {
    let drop = drop_keys(config).map_or_else(|| Path::new("Drop"), |keys| &keys.dir);
    MailRoot::at(root, drop, &config.messages.badmail.dir)
}

/// The keys of the default domain's Drop directory.
pub(super) fn drop_keys(config: &ServerConfig) -> Option<&Drop> {
    config.domains.iter().find_map(|entry| match &entry.kind {
        DomainKind::Default(drop) => Some(drop),
        DomainKind::Alias | DomainKind::Remote { .. } => None,
    })
}

/// What the Drop directory goes by.
pub(super) fn drop(
    name: &str,
    config: &ServerConfig,
    shared: &Shared,
    root: &MailRoot,
) -> drop::Settings {
    let keys = drop_keys(config);
    drop::Settings {
        server: name.to_owned(),
        directory: root.drop.clone(),
        format: match keys.map(|keys| keys.format) {
            Some(DropFormat::Maildir) => drop::Format::Maildir,
            Some(DropFormat::Eml) | None => drop::Format::Eml,
        },
        quota: keys.and_then(|keys| keys.quota.value()),
        host: host(config, shared).to_string(),
    }
}

/// What Badmail goes by.
pub(super) fn badmail(name: &str, config: &ServerConfig, root: &MailRoot) -> badmail::Settings {
    let keys = &config.messages.badmail;
    badmail::Settings {
        server: name.to_owned(),
        directory: root.badmail.clone(),
        keep: keys.keep.value(),
        max_size: keys.max_size.value(),
    }
}
