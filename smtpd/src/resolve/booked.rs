//! Questions about who sends a message, which are written by strangers, answered for the book.
//!
//! Names are not host names here: they have underscores, and whatever macros of SPF make of an address.
//! What was asked lately is not asked again.

use std::net::IpAddr;

use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use mailroot_common::address::Domain;
use smtpd_core::sender::book::{Answer, Found, Nothing, Question};

use super::dns::address_of;
use super::{Allowance, Dns, LookupError, Resolver, SimulatedDns};

/// Records of one answer that are looked at. Large domains have dozens of texts.
const RECORDS_MAX: usize = 200;

impl Resolver {
    /// Answers a question.
    ///
    /// # Errors
    ///
    /// [`Nothing`]: there is nothing of the kind, or nobody can tell.
    pub async fn look_up(&self, question: &Question, allowance: &Allowance) -> Answer {
        let found = match self {
            Self::Dns(dns) => dns.look_up(question, allowance).await,
            Self::Simulated(dns) => allowance.take("").and_then(|()| dns.look_up(question)),
        };
        found.map_err(|error| if error.is_temporary() { Nothing::Unknown } else { Nothing::Absent })
    }
}

impl Dns {
    async fn look_up(
        &self,
        question: &Question,
        allowance: &Allowance,
    ) -> Result<Found, LookupError> {
        let (name, kind) = match question {
            Question::Texts(name) => (named(name)?, RecordType::TXT),
            Question::Addresses { name, v4: true } => (named(name)?, RecordType::A),
            Question::Addresses { name, v4: false } => (named(name)?, RecordType::AAAA),
            Question::Hosts(name) => (named(name)?, RecordType::MX),
            Question::Names(address) => (Name::from(*address), RecordType::PTR),
        };
        let found = self.asker().await.ask(&name, kind, allowance).await?;
        let records = found.records.iter().take(RECORDS_MAX);
        Ok(match kind {
            RecordType::TXT => Found::Texts(records.filter_map(text_of).collect()),
            RecordType::A | RecordType::AAAA => {
                Found::Addresses(records.filter_map(address_of).collect())
            }
            RecordType::MX => {
                let mut hosts: Vec<(u16, String)> = records.filter_map(host_of).collect();
                hosts.sort();
                Found::Names(hosts.into_iter().map(|(_, host)| host).collect())
            }
            _ => Found::Names(records.filter_map(name_of).collect()),
        })
    }
}

impl SimulatedDns {
    fn look_up(&self, question: &Question) -> Result<Found, LookupError> {
        let domain =
            |name: &str| Domain::parse(name).map_err(|_| LookupError::NoSuchName(name.to_owned()));
        Ok(match question {
            Question::Texts(name) => {
                Found::Texts(self.answer(&domain(name)?, |host| host.texts.clone())?)
            }
            Question::Addresses { name, v4 } => {
                let all = self.answer(&domain(name)?, |host| host.addresses.clone())?;
                let wanted = |address: &IpAddr| address.is_ipv4() == *v4;
                Found::Addresses(all.into_iter().filter(wanted).collect())
            }
            Question::Hosts(name) => {
                let all = self.answer(&domain(name)?, |host| host.mx.clone())?;
                let hosts = all.into_iter().filter_map(|record| record.exchange);
                Found::Names(hosts.map(|host| host.to_string()).collect())
            }
            Question::Names(address) => {
                let names = self.claimed_names(*address)?;
                Found::Names(names.into_iter().map(|name| name.to_string()).collect())
            }
        })
    }
}

/// A name of any octets, with its final dot.
fn named(name: &str) -> Result<Name, LookupError> {
    let labels = name.split('.').map(str::as_bytes);
    let found = Name::from_labels(labels).map_err(|_| LookupError::NoSuchName(name.to_owned()));
    found.map(|mut name| {
        name.set_fqdn(true);
        name
    })
}

fn text_of(record: &Record) -> Option<String> {
    match &record.data {
        RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
        _ => None,
    }
}

fn host_of(record: &Record) -> Option<(u16, String)> {
    match &record.data {
        RData::MX(mx) => Some((mx.preference, plain(&mx.exchange))),
        _ => None,
    }
}

fn name_of(record: &Record) -> Option<String> {
    match &record.data {
        RData::PTR(name) => Some(plain(&name.0)),
        _ => None,
    }
}

/// The name without its final dot.
fn plain(name: &Name) -> String {
    let mut text = name.to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    text
}
