//! What the stories are told about.

use std::path::Path;
use std::sync::Arc;

use mailroot_common::address::{Domain, Mailbox, ReversePath};
use mailroot_common::units::{ByteSize, Timestamp};
use smtpd_core::queue::envelope::{BodyKind, Envelope, Origin, Recipient, Via};
use smtpd_core::route::table::{DirectFirst, Settings as TableSettings, Table};

use crate::clock::Clock;
use crate::observe::Log as Journal;
use crate::store::{Body, Draft, Settings, Surroundings};

/// The moment all stories begin.
pub(crate) fn start() -> Timestamp {
    Timestamp::from_millis(1_763_000_000_000)
}

pub(crate) fn table(alias: &[&str]) -> Arc<Table> {
    let domain = |text: &str| Domain::parse(text).unwrap();
    let settings = TableSettings {
        default_domain: domain("here.example"),
        alias_domains: alias.iter().map(|text| domain(text)).collect(),
        sender_routes: Vec::new(),
        remote_domains: Vec::new(),
        smart_hosts: Vec::new(),
        direct_first: DirectFirst::Never,
    };
    Arc::new(Table::new(settings).unwrap())
}

pub(crate) fn envelope(recipients: &[&str], at: Timestamp) -> Envelope {
    Envelope {
        hold: None,
        tls_optional: false,
        sender: ReversePath::parse("sender@here.example").unwrap(),
        recipients: recipients
            .iter()
            .map(|text| Recipient::plain(Mailbox::parse(text).unwrap()))
            .collect(),
        accepted_at: at,
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        hops: 1,
        origin: Origin {
            via: Via::Smtp,
            client: None,
            helo: None,
            session: None,
            source: None,
            user: None,
            uid: None,
            checks: None,
        },
        message_id: None,
        subject: None,
        wishes: smtpd_core::queue::wishes::Wishes::default(),
    }
}

pub(crate) fn draft(recipients: &[&str], at: Timestamp, body: &[u8]) -> Draft {
    Draft { envelope: envelope(recipients, at), body: Body::Memory(body.to_vec()) }
}

pub(crate) fn settings(directory: &Path) -> Settings {
    Settings {
        directory: directory.to_owned(),
        segment_size: Settings::SEGMENT_SIZE_MIN,
        min_free: ByteSize::bytes(0),
        holder: "a test".into(),
    }
}

pub(crate) fn surroundings() -> Surroundings {
    let (clock, journal) = (Clock::real(), Journal::quiet());
    Surroundings {
        table: table(&[]),
        work: Arc::default(),
        clock,
        journal,
        counters: Arc::default(),
    }
}
