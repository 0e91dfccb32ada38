//! Reports to other domains about the TLS that mail to them met: where each goes, and its way there.
//!
//! A report is mail of our own, accepted into the queue of a virtual server as any other, or octets for
//! the web. One that a destination has got is not sent there again; the others are tried for a day. Some
//! are sent at once, and none waits long for the web, so that no domain holds up the reports of others.

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
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Service, ServiceError};
use crate::https::{Bounds, Https};
use crate::observe::{Level, Line};
use crate::queue::{Body, Draft};
use crate::resolve::LookupError;
use crate::tls_report::{Due, pack};
use crate::virtual_server::VirtualServer;

/// Reports that are sent at once.
const AT_ONCE: usize = 16;
/// How long one report may take to learn where it goes, and once more to be taken on the web.
const WAIT: Duration = Duration::from_secs(45);
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
    /// It is where it is wanted.
    Sent,
    /// The domain wants none.
    Unwanted,
    /// Some destinations may have it, one does not, and why.
    Partly(String),
}

impl Service {
    /// Ends a period whose day is over, and sends what is due, in the background, if reports are wanted.
    pub fn begin_tls_reports(&self) {
        let is_wanted = self.active().service.tls.reports.enabled;
        if self.0.ledger.has_ripe() && is_wanted {
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
        let sender = Arc::new(sender);
        loop {
            let ripe = self.0.ledger.ripe(AT_ONCE);
            if ripe.is_empty() {
                break;
            }
            let mut under_way = JoinSet::new();
            for due in ripe {
                let (service, sender) = (self.clone(), Arc::clone(&sender));
                under_way.spawn(async move { service.send_tls_report(&sender, due).await });
            }
            let mut has_broken = false;
            while let Some(ended) = under_way.join_next().await {
                has_broken |= ended.is_err();
            }
            // Each was settled or has a later moment, but for one that broke down.
            if has_broken {
                break;
            }
        }
        self.0.ledger.keep().await;
    }

    async fn send_tls_report(&self, sender: &Arc<Sender>, mut due: Due) {
        match self.tell(sender, &mut due).await {
            Told::Sent => {
                let line = self.about_report(Level::Info, "tls-report", &due);
                line.text("to", due.done.join(" ")).send();
                self.0.ledger.settle(&due);
            }
            Told::Unwanted => self.0.ledger.settle(&due),
            Told::Partly(trouble) => {
                let line = self.about_report(Level::Warn, "tls-report-failed", &due);
                let waits = self.0.ledger.postpone(due, &trouble);
                let then = if waits { "later" } else { "given-up" };
                line.word("then", then).text("reason", trouble).send();
            }
        }
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

    /// Sends a report wherever it is wanted and not yet, and notes where that is.
    async fn tell(&self, sender: &Arc<Sender>, due: &mut Due) -> Told {
        if due.destinations.is_empty() {
            match timeout(WAIT, destinations(sender, &due.domain)).await {
                Ok(Ok(found)) => due.destinations = found,
                Ok(Err(error)) => return Told::Partly(error.to_string()),
                Err(_) => return Told::Partly("DNS does not answer".to_owned()),
            }
        }
        if due.destinations.is_empty() {
            return Told::Unwanted;
        }
        let about = sender.about(&due.domain, due.begins, due.ends);
        let packed = match pack(&form::json(&about, &due.counted)) {
            Ok(packed) => packed,
            Err(error) => return Told::Partly(error.to_string()),
        };
        let (mut mailboxes, mut ways, mut posts) = (Vec::new(), Vec::new(), JoinSet::new());
        for to in due.destinations.iter().filter(|to| !due.done.contains(&to.to_string())) {
            match to.clone() {
                Destination::Mail(mailbox) => {
                    mailboxes.push(mailbox);
                    ways.push(to.to_string());
                }
                Destination::Web(at) => {
                    let (sender, packed) = (Arc::clone(sender), packed.clone());
                    posts.spawn(async move { post(&sender, at, packed).await });
                }
            }
        }
        let mut trouble = None;
        if !mailboxes.is_empty() {
            match self.mail_report(sender, &about, &mailboxes, &packed).await {
                Ok(()) => due.done.extend(ways),
                Err(why) => trouble = Some(why),
            }
        }
        while let Some(posted) = posts.join_next().await {
            match posted.map_err(|error| error.to_string()).flatten() {
                Ok(way) => due.done.push(way),
                Err(why) => trouble = Some(why),
            }
        }
        match trouble {
            Some(trouble) => Told::Partly(trouble),
            None => Told::Sent,
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

/// Where a domain wants its reports.
async fn destinations(sender: &Sender, domain: &Domain) -> Result<Vec<Destination>, LookupError> {
    match sender.https.resolver.texts(&format!("_smtp._tls.{domain}")).await {
        Ok(texts) => Ok(record::destinations(texts.iter().map(String::as_str))),
        Err(error) if error.is_temporary() => Err(error),
        Err(_) => Ok(Vec::new()),
    }
}

/// Hands a report to the web: its way, or an error for people.
async fn post(sender: &Sender, at: Endpoint, packed: Vec<u8>) -> Result<String, String> {
    let rule = sender.server.address_rule();
    let posting = sender.https.post(&at, (CONTENT_TYPE, packed), BOUNDS, &rule);
    match timeout(WAIT, posting).await {
        Ok(Ok(answer)) if (200..300).contains(&answer.status) => Ok(at.to_string()),
        Ok(Ok(answer)) => Err(format!("{at}: it answers {}", answer.status)),
        Ok(Err(error)) => Err(format!("{at}: {error}")),
        Err(_) => Err(format!("{at}: no answer within {} s", WAIT.as_secs())),
    }
}
