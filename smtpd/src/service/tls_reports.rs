//! Reports to other domains about the TLS that mail to them met: where each goes, and its way there.
//!
//! A report is mail of our own, accepted into the queue of a virtual server as any other, or octets for
//! the web. One that a destination has got is not sent there again; the others are tried for a day.

use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::{Domain, Mailbox};
use mailroot_common::config::oauth::Endpoint;
use mailroot_common::control::{TlsReport, TlsReportState};
use mailroot_common::units::Timestamp;
use smtpd_core::tls_report::count::Counted;
use smtpd_core::tls_report::form::{self, About};
use smtpd_core::tls_report::mail;
use smtpd_core::tls_report::record::{self, Destination};
use smtpd_core::trace::note::{Admission, Note};

use super::{Service, ServiceError};
use crate::https::{Bounds, Https};
use crate::observe::{Level, Line};
use crate::queue::{Body, Draft};
use crate::tls_report::{Due, pack};
use crate::virtual_server::VirtualServer;

/// What a destination on the web may take.
const BOUNDS: Bounds = Bounds { wait: Duration::from_secs(30), octets: 16 * 1024 };
/// What the packed report is called (RFC 8460 section 6.5).
const CONTENT_TYPE: &str = "application/tlsrpt+gzip";

/// By whom reports are sent, and in whose name.
struct Sender {
    server: Arc<VirtualServer>,
    https: Https,
    host: Domain,
    organization: String,
    contact: Mailbox,
}

impl Sender {
    fn about<'a>(&'a self, domain: &'a Domain, begins: Timestamp, ends: Timestamp) -> About<'a> {
        let Self { organization, contact, host, .. } = self;
        About { organization, contact, domain, begins, ends, host }
    }
}

/// What became of a report.
enum Told {
    /// It is where it is wanted; by which ways.
    Sent(Vec<String>),
    /// The domain wants none.
    Unwanted,
    /// Some destinations have it, one does not, and why.
    Partly(Vec<String>, String),
}

impl Service {
    /// Sends what is due, in the background and one at a time, if reports are wanted.
    pub fn begin_tls_reports(&self) {
        let is_wanted = self.active().service.tls.reports.enabled;
        if is_wanted && !self.0.ledger.ripe().is_empty() {
            let service = self.clone();
            tokio::spawn(async move { service.send_tls_reports().await });
        }
    }

    /// Ends the period that is counted, and sends the reports about a domain, or all of them, in the
    /// background; how many there are.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NoTlsReports`].
    pub fn hasten_tls_reports(&self, domain: Option<&Domain>) -> Result<u64, ServiceError> {
        if !self.active().service.tls.reports.enabled {
            return Err(ServiceError::NoTlsReports);
        }
        let count = self.0.ledger.hasten(domain);
        self.begin_tls_reports();
        Ok(count as u64)
    }

    /// What is counted and what waits, by domain and time.
    #[must_use]
    pub fn tls_reports(&self) -> Vec<TlsReport> {
        let (current, due) = self.0.ledger.list();
        let row = |domain: &Domain, state, begins, counted: &Counted| TlsReport {
            domain: domain.to_string(),
            state,
            begins,
            successes: counted.successes(),
            failures: counted.failures(),
            ends: None,
            next: None,
            trouble: None,
        };
        let mut rows: Vec<TlsReport> = due
            .iter()
            .map(|due| TlsReport {
                ends: Some(due.ends),
                next: Some(due.next),
                trouble: due.trouble.clone(),
                ..row(&due.domain, TlsReportState::Due, due.begins, &due.counted)
            })
            .collect();
        let counting = current.iter().flat_map(|period| {
            let state = TlsReportState::Counting;
            period.domains.iter().map(move |(domain, it)| row(domain, state, period.begins, it))
        });
        rows.extend(counting);
        rows.sort_by(|a, b| (&a.domain, a.begins).cmp(&(&b.domain, b.begins)));
        rows
    }

    /// The reports about a domain as JSON, the oldest first; the last may still be counted.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]: nobody could send them.
    pub fn tls_reports_about(&self, domain: &Domain) -> Result<Vec<String>, ServiceError> {
        let sender = self.report_sender()?;
        let (current, due) = self.0.ledger.list();
        let now = self.0.clock.now();
        let due = due.iter().filter(|due| due.domain == *domain);
        let mut all: Vec<String> = due
            .map(|due| form::json(&sender.about(domain, due.begins, due.ends), &due.counted))
            .collect();
        if let Some(period) = &current
            && let Some(counted) = period.domains.get(domain)
        {
            all.push(form::json(&sender.about(domain, period.begins, now), counted));
        }
        Ok(all)
    }

    fn report_sender(&self) -> Result<Sender, ServiceError> {
        let loaded = self.active();
        let keys = &loaded.service.tls.reports;
        let contact = keys.contact.clone().filter(|_| keys.enabled);
        let contact = contact.ok_or(ServiceError::NoTlsReports)?;
        let server = match &keys.server {
            Some(name) => self.known(name)?,
            None => {
                let all = self.all();
                let default = all.iter().find(|server| server.name().as_str() == "default");
                let server = default.or_else(|| all.first());
                server.cloned().ok_or(ServiceError::NobodyToCall)?
            }
        };
        let host = server.host();
        let organization = keys.organization.clone().unwrap_or_else(|| loaded.hostname.to_string());
        let https = self.https_by(&self.reach(&loaded)?);
        Ok(Sender { server, https, host, organization, contact })
    }

    async fn send_tls_reports(&self) {
        // Whoever does it already looks again when the next is due.
        let Ok(_one) = self.0.telling.try_lock() else { return };
        let sender = match self.report_sender() {
            Ok(sender) => sender,
            Err(error) => {
                let line = self.0.log.line(Level::Warn, "tls-reports-wait");
                return line.text("reason", error).send();
            }
        };
        for due in self.0.ledger.ripe() {
            let line = |level, event| self.about_report(level, event, &due);
            match self.tell(&sender, &due).await {
                Told::Sent(ways) => {
                    line(Level::Info, "tls-report").text("to", ways.join(" ")).send();
                    self.0.ledger.settle(&due);
                }
                Told::Unwanted => self.0.ledger.settle(&due),
                Told::Partly(done, trouble) => {
                    let waits = self.0.ledger.postpone(&due, done, trouble.clone());
                    let then = if waits { "later" } else { "given-up" };
                    line(Level::Warn, "tls-report-failed")
                        .word("then", then)
                        .text("reason", trouble)
                        .send();
                }
            }
        }
        self.0.ledger.keep().await;
    }

    fn about_report(&self, level: Level, event: &str, due: &Due) -> Line<'_> {
        self.0
            .log
            .line(level, event)
            .word("domain", &due.domain)
            .word("begins", due.begins)
            .word("successes", due.counted.successes())
            .word("failures", due.counted.failures())
    }

    async fn tell(&self, sender: &Sender, due: &Due) -> Told {
        let name = format!("_smtp._tls.{}", due.domain);
        let texts = match sender.https.resolver.texts(&name).await {
            Ok(texts) => texts,
            Err(error) if error.is_temporary() => {
                return Told::Partly(due.done.clone(), error.to_string());
            }
            Err(_) => return Told::Unwanted,
        };
        let destinations = record::destinations(texts.iter().map(String::as_str));
        if destinations.is_empty() {
            return Told::Unwanted;
        }
        let about = sender.about(&due.domain, due.begins, due.ends);
        let packed = match pack(&form::json(&about, &due.counted)) {
            Ok(packed) => packed,
            Err(error) => return Told::Partly(due.done.clone(), error.to_string()),
        };
        let (mut done, mut trouble) = (due.done.clone(), None);
        let is_new = |to: &Destination| !due.done.contains(&to.to_string());
        let (mut mailboxes, mut ways) = (Vec::new(), Vec::new());
        for to in destinations.into_iter().filter(is_new) {
            let way = to.to_string();
            match to {
                Destination::Mail(mailbox) => {
                    mailboxes.push(mailbox);
                    ways.push(way);
                }
                Destination::Web(at) => match post(sender, &at, packed.clone()).await {
                    Ok(()) => done.push(way),
                    Err(why) => trouble = Some(format!("{way}: {why}")),
                },
            }
        }
        if !mailboxes.is_empty() {
            match self.mail_report(sender, &about, &mailboxes, &packed).await {
                Ok(()) => done.extend(ways),
                Err(why) => trouble = Some(why),
            }
        }
        match trouble {
            Some(trouble) => Told::Partly(done, trouble),
            None => Told::Sent(done),
        }
    }

    /// Accepts the message of a report as if somebody had sent it.
    async fn mail_report(
        &self,
        sender: &Sender,
        about: &About<'_>,
        to: &[Mailbox],
        packed: &[u8],
    ) -> Result<(), String> {
        let server = sender.server.name();
        let queue = sender.server.queue();
        let queue = queue.ok_or_else(|| format!("the virtual server {server} does not run"))?;
        let written = mail::write(about, to, packed, self.0.clock.now(), self.0.clock.random());
        let (envelope, size) = (written.envelope.clone(), written.octets.len() as u64);
        let draft = Draft { envelope: written.envelope, body: Body::Memory(written.octets) };
        let id = queue.accept(draft).await.map_err(|error| error.to_string())?;
        if self.0.trace.is_on() {
            let admitted =
                Admission { subjects: self.0.trace.wants_subjects(), ..Admission::default() };
            let note = Note::received(server.as_str(), id, &envelope, size, admitted);
            self.0.trace.record(note);
        }
        let line = self.0.log.line(Level::Info, "received").word("server", server).word("id", id);
        line.word("via", "report").word("about", about.domain).word("size", size).send();
        Ok(())
    }
}

/// Hands a report to the web; the error is for people.
async fn post(sender: &Sender, at: &Endpoint, packed: Vec<u8>) -> Result<(), String> {
    let rule = sender.server.address_rule();
    let posted = sender.https.post(at, (CONTENT_TYPE, packed), BOUNDS, &rule).await;
    match posted.map_err(|error| error.to_string())?.status {
        200..=299 => Ok(()),
        status => Err(format!("it answers {status}")),
    }
}
