//! Certificates that clients are shown: which there are, the one that we make ourselves, and files
//! that change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mailroot_common::config::access::TlsMode;
use mailroot_common::config::tls::{CertificateKeys, CertificateName};
use mailroot_common::config::{ServerConfig, ServerName};
use mailroot_common::control::{self, Edited};
use mailroot_common::units::{Span, Timestamp};
use zeroize::Zeroizing;

use super::change::Asked;
use super::{Service, ServiceError};
use crate::config::{EditError, Loaded, Secrets, certificate_files};
use crate::observe::Level;
use crate::tls::{
    Certificate, EXPIRES_SOON, Files, News, Place, Standing, Texts, generate, until_words,
};

/// One of ours is made anew when it has so little time left.
const RENEW: Span = Span::days(30);

impl Service {
    /// Goes by the certificates of a configuration; makes our own if it is wanted and not there.
    pub(super) async fn set_certificates(&self, loaded: &Loaded) {
        let configured = &loaded.service.tls.certificates.0;
        let mut wanted: BTreeMap<CertificateName, Place> = configured
            .iter()
            .filter_map(|(name, keys)| Some((name.clone(), self.place(name, keys)?)))
            .collect();
        let hosts = hosts_of_auto(loaded);
        if !hosts.is_empty() {
            let files = self.kept_files(&CertificateName::auto());
            self.make_auto(&files, hosts).await;
            wanted.insert(CertificateName::auto(), Place { files, asked_for: false });
        }
        let (certificates, now) = (self.0.certificates.clone(), self.0.clock.now());
        let reading = tokio::task::spawn_blocking(move || certificates.set(wanted, now));
        for news in reading.await.unwrap_or_default() {
            self.tell_certificate(&news);
        }
        let asked_for = self.certificates_asked_for(loaded);
        self.0.acme.keep_only(&asked_for.iter().map(|(name, ..)| name.clone()).collect());
        for due in &asked_for {
            let trouble = self.acme_state(due).trouble;
            self.0.certificates.set_refused(&due.0, trouble.as_deref());
        }
    }

    /// Where a configured certificate lies.
    fn place(&self, name: &CertificateName, keys: &CertificateKeys) -> Option<Place> {
        if !keys.acme.is_empty() {
            return Some(Place { files: self.kept_files(name), asked_for: true });
        }
        Some(Place { files: certificate_files(keys)?, asked_for: false })
    }

    /// Reads certificates again whose files changed. Sessions under way keep theirs.
    pub async fn look_at_certificates(&self) {
        // Whoever changes something now looks at them as well.
        let Ok(_one_at_a_time) = self.0.changing.try_lock() else { return };
        self.read_certificates_again().await;
    }

    /// The caller holds the right to change things.
    pub(super) async fn read_certificates_again(&self) {
        let (certificates, now) = (self.0.certificates.clone(), self.0.clock.now());
        let reading = tokio::task::spawn_blocking(move || certificates.look_again(now));
        let news = reading.await.unwrap_or_default();
        news.iter().for_each(|news| self.tell_certificate(news));
        if news.iter().any(|news| news.first) {
            // What is offered depends on whether there is one.
            for server in self.all() {
                if let Err(error) = server.refresh().await {
                    let line = self.0.log.line(Level::Error, "server-failed");
                    line.word("server", server.name()).text("reason", error).send();
                }
            }
        }
    }

    /// The files of a certificate that the daemon keeps itself.
    pub(super) fn kept_files(&self, name: &CertificateName) -> Files {
        let both = self.kept_certificates().join(kept_name(name));
        Files { chain: both.clone(), key: both }
    }

    pub(super) fn kept_certificates(&self) -> PathBuf {
        self.0.paths.state.join("tls")
    }

    /// Makes our own certificate unless a good one is there.
    async fn make_auto(&self, files: &Files, hosts: Vec<String>) {
        let (files, now, place) = (files.clone(), self.0.clock.now(), self.kept_certificates());
        let making = tokio::task::spawn_blocking(move || {
            let good = Certificate::read(&files).is_ok_and(|it| {
                it.facts.not_after > now.after(RENEW)
                    && hosts.iter().all(|host| it.facts.is_for(host))
            });
            if good { Ok(()) } else { make(&place, &CertificateName::auto(), &hosts, now) }
        });
        if let Err(reason) = making.await.unwrap_or_else(|error| Err(error.to_string())) {
            let line = self.0.log.line(Level::Warn, "certificate-refused").word("name", "auto");
            line.text("reason", reason).send();
        }
    }

    fn tell_certificate(&self, News { standing, .. }: &News) {
        match (&standing.trouble, &standing.certificate) {
            (Some(trouble), shown) => {
                let line = self.0.log.line(Level::Warn, "certificate-refused");
                let line = line.word("name", &standing.name).text("reason", trouble);
                line.word("old", if shown.is_some() { "shown" } else { "none" }).send();
            }
            (None, Some(shown)) => {
                let line = self.0.log.line(Level::Info, "certificate");
                let line = line.word("name", &standing.name);
                let line = line.text("hosts", shown.facts.names.join(", "));
                line.word("until", shown.facts.not_after).send();
            }
            (None, None) => {}
        }
    }
}

/// What is wrong with one that is shown, or soon will be.
pub(super) fn warning(standing: &Standing, now: Timestamp) -> Option<String> {
    let name = &standing.name;
    match (&standing.trouble, &standing.certificate) {
        (None, None) if standing.asked_for => {
            let why = standing.refused.as_deref().unwrap_or("it is being asked for");
            Some(format!("certificate {name} is not there yet, auto stands in for it: {why}"))
        }
        (None, Some(shown)) if let Some(why) = &standing.refused => {
            let until = until_words(&shown.facts, now);
            Some(format!("certificate {name} {until} and could not be renewed: {why}"))
        }
        (Some(trouble), None) => Some(format!("certificate {name} cannot be shown: {trouble}")),
        (Some(trouble), Some(_)) => {
            Some(format!("certificate {name}: the old one is still shown: {trouble}"))
        }
        (None, Some(shown)) if shown.facts.not_after <= now.after(EXPIRES_SOON) => {
            Some(format!("certificate {name} {}", until_words(&shown.facts, now)))
        }
        (None, _) => None,
    }
}

/// Makes a certificate for these hosts and keeps it.
pub(super) fn make(
    place: &Path,
    name: &CertificateName,
    hosts: &[String],
    now: Timestamp,
) -> Result<(), String> {
    let texts = generate::self_signed(hosts, now)?;
    keep(place, name, &texts.chain, &texts.key).map_err(|error| error.to_string())
}

/// Keeps a certificate and its key where nobody else can read them, in one file: so neither is ever
/// without the other, whatever comes in between.
pub(super) fn keep(
    place: &Path,
    name: &CertificateName,
    chain: &[u8],
    key: &[u8],
) -> std::io::Result<()> {
    let text = |octets| std::str::from_utf8(octets).map_err(std::io::Error::other);
    let (chain, key) = (text(chain)?.trim_end(), text(key)?.trim_end());
    let both = Zeroizing::new(format!("{key}\n{chain}\n"));
    Secrets::in_directory(place).keep_text(&kept_name(name), &both)
}

fn kept_name(name: &CertificateName) -> String {
    format!("{name}.pem")
}

/// A certificate to be kept.
#[derive(Debug)]
pub enum CertificateSpec {
    /// Texts of PEM.
    Given {
        /// The certificate and those that vouch for it.
        chain: String,
        /// Its private key.
        key: Zeroizing<String>,
    },
    /// One that signs itself, for these names and addresses.
    SelfSigned(Vec<String>),
}

impl Service {
    /// All of them, by name.
    #[must_use]
    pub fn certificates(&self) -> Vec<control::Certificate> {
        let loaded = self.active();
        let asked_for = self.certificates_asked_for(&loaded);
        let shows = |name: &CertificateName, config: &ServerConfig| {
            config.access.tls.mode != TlsMode::Off && config.access.tls.certificate.contains(name)
        };
        let describe = |standing: &Standing| {
            let servers = loaded.servers.iter();
            let users = servers.filter(|(_, config)| shows(&standing.name, config));
            let shown = standing.certificate.as_ref();
            control::Certificate {
                name: standing.name.to_string(),
                hosts: shown.map(|it| it.facts.names.clone()).unwrap_or_default(),
                issuer: shown.map(|it| it.facts.issuer.clone()),
                self_signed: shown.is_some_and(|it| it.facts.self_signed),
                not_before: shown.map(|it| it.facts.not_before),
                not_after: shown.map(|it| it.facts.not_after),
                chain: shown.map_or(0, |it| it.chain as u64),
                used_by: users.map(|(name, _)| name.to_string()).collect(),
                chain_file: standing.files.chain.display().to_string(),
                key_file: standing.files.key.display().to_string(),
                since: shown.map(|_| standing.since),
                acme: asked_for
                    .iter()
                    .find(|(name, ..)| *name == standing.name)
                    .map(|due| self.acme_state(due)),
                trouble: standing.trouble.as_ref().map(ToString::to_string),
            }
        };
        self.0.certificates.list().iter().map(describe).collect()
    }

    /// Keeps a certificate in files of the daemon's own, or another in its place, and makes it known.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; the one before is shown.
    pub async fn put_certificate(
        &self,
        name: &CertificateName,
        spec: CertificateSpec,
        asked: &Asked,
    ) -> Result<Edited, ServiceError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let (files, place, now) =
            (self.kept_files(name), self.kept_certificates(), self.0.clock.now());
        let active = self.active();
        let known = active.service.tls.certificates.0.get(name).and_then(certificate_files);
        if known.as_ref().is_some_and(|known| *known != files) {
            return Err(EditError::CertificateElsewhere(name.clone()).into());
        }
        let unfit = |why: String| EditError::CertificateUnfit(why);
        let texts = match spec {
            CertificateSpec::Given { chain, key } => {
                Texts { chain: chain.into_bytes(), key: Zeroizing::new(key.as_bytes().to_vec()) }
            }
            CertificateSpec::SelfSigned(hosts) => {
                generate::self_signed(&hosts, now).map_err(unfit)?
            }
        };
        Certificate::of(&texts, &files).map_err(|error| unfit(error.to_string()))?;
        // Nothing is kept for a change that would be refused.
        let change = self.editor(asked).set_certificate(name, &files)?;
        if asked.terms.dry_run {
            return Ok(self.make(asked, change).await?.edited);
        }
        drop(change);
        let kept_name = name.clone();
        let keeping =
            tokio::task::spawn_blocking(move || keep(&place, &kept_name, &texts.chain, &texts.key));
        let kept = keeping.await.map_err(std::io::Error::other).flatten();
        kept.map_err(|source| EditError::Write { path: files.chain.clone(), source })?;
        let change = self.editor(asked).set_certificate(name, &files)?;
        let edited = self.make(asked, change).await?.edited;
        self.read_certificates_again().await;
        Ok(edited)
    }

    /// Takes a certificate that nobody shows out of the configuration; its files stay.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn remove_certificate(
        &self,
        name: &CertificateName,
        asked: &Asked,
    ) -> Result<Edited, ServiceError> {
        Ok(self.edit(asked, |editor| editor.remove_certificate(name)).await?.edited)
    }
}

/// The names of the servers that show our own certificate, or may have to while another is asked for.
fn hosts_of_auto(loaded: &Loaded) -> Vec<String> {
    let certificates = &loaded.service.tls.certificates.0;
    let is_asked_for =
        |name: &CertificateName| certificates.get(name).is_some_and(|keys| !keys.acme.is_empty());
    let shows = |(_, config): &(&ServerName, &std::sync::Arc<ServerConfig>)| {
        let tls = &config.access.tls;
        let is_auto = |name: &CertificateName| name.is_auto() || is_asked_for(name);
        tls.mode != TlsMode::Off && tls.certificate.iter().any(is_auto)
    };
    let host = |config: &ServerConfig| {
        config.delivery.fqdn.as_ref().unwrap_or(&loaded.hostname).to_string()
    };
    let mut hosts: Vec<String> =
        loaded.servers.iter().filter(shows).map(|(_, config)| host(config)).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}
