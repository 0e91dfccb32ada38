//! Certificates that are asked of an authority: when, and what becomes of what it gives.

use std::path::PathBuf;

use mailroot_common::config::tls::{CertificateName, Tls};
use mailroot_common::control::{self, Edited};
use smtpd_core::acme::Wanted;
use smtpd_core::certificate::Facts;

use super::certificates::keep;
use super::change::Asked;
use super::{Service, ServiceError};
use crate::acme::{AcmeError, Means, Turn};
use crate::config::{CertificateWish, EditError, Loaded, certificate_files};
use crate::https::Https;
use crate::tls::{Certificate, ClientTls, Texts};

type Due = (CertificateName, Wanted, Option<Facts>);

impl Service {
    /// Asks for certificates that are due, in the background and one after the other; nothing while
    /// that is under way.
    pub fn begin_acme_requests(&self) {
        let is_wanted =
            self.active().service.tls.certificates.0.values().any(|it| !it.acme.is_empty());
        let Some(turn) = is_wanted.then(|| self.0.acme.turn()).flatten() else { return };
        let service = self.clone();
        tokio::spawn(async move {
            while let Some((name, wanted, _)) = service.due_certificate() {
                service.request(&turn, &name, &wanted).await;
            }
        });
    }

    fn due_certificate(&self) -> Option<Due> {
        let all = self.certificates_asked_for(&self.active());
        self.0.acme.due(&all).cloned()
    }

    /// Those of a configuration, with what is there of them.
    pub(super) fn certificates_asked_for(&self, loaded: &Loaded) -> Vec<Due> {
        let there = self.0.certificates.list();
        let facts = |name: &CertificateName| {
            let found = there.iter().find(|it| it.name == *name && it.asked_for)?;
            found.certificate.as_ref().map(|it| it.facts.clone())
        };
        let tls = &loaded.service.tls;
        let asked = tls.certificates.0.keys().filter_map(|name| Some((name, wanted(tls, name)?)));
        asked.map(|(name, wanted)| (name.clone(), wanted, facts(name))).collect()
    }

    /// Asks for one, and shows what was given.
    async fn request(&self, turn: &Turn, name: &CertificateName, wanted: &Wanted) {
        self.0.acme.begin(turn, name);
        let (service, its_name, wish) = (self.clone(), name.clone(), wanted.clone());
        // A task of its own, so that a fault in it counts as a failure and is waited for.
        let attempt = tokio::spawn(async move { service.attempt(&its_name, &wish).await });
        let outcome = attempt.await;
        let outcome = outcome.unwrap_or_else(|error| Err(AcmeError::Broken(error.to_string())));
        self.0.acme.done(name, wanted, &outcome).await;
        let why = outcome.err().map(|error| error.to_string());
        self.0.certificates.set_refused(name, why.as_deref());
    }

    async fn attempt(&self, name: &CertificateName, wanted: &Wanted) -> Result<(), AcmeError> {
        let means = self.means().map_err(|error| AcmeError::Means(error.to_string()))?;
        let texts = self.0.acme.ask(name, (wanted, &means)).await?;
        self.take_certificate(name, wanted, texts).await
    }

    /// Keeps what an authority gave, unless something else is wanted by now.
    async fn take_certificate(
        &self,
        name: &CertificateName,
        asked: &Wanted,
        texts: Texts,
    ) -> Result<(), AcmeError> {
        let _one_at_a_time = self.0.changing.lock().await;
        if wanted(&self.active().service.tls, name).as_ref() != Some(asked) {
            return Err(AcmeError::Unfit("something else is wanted by now".to_owned()));
        }
        let files = self.kept_files(name);
        let given = Certificate::of(&texts, &files);
        let given = given.map_err(|error| AcmeError::Unfit(error.to_string()))?;
        if let Some(name) = asked.names.iter().find(|name| !given.facts.is_for(name)) {
            return Err(AcmeError::Unfit(format!("it is not for {name}")));
        }
        let (place, kept_name): (PathBuf, _) = (self.kept_certificates(), name.clone());
        let keeping =
            tokio::task::spawn_blocking(move || keep(&place, &kept_name, &texts.chain, &texts.key));
        let kept = keeping.await.map_err(std::io::Error::other).flatten();
        kept.map_err(AcmeError::KeepCertificate)?;
        self.read_certificates_again().await;
        Ok(())
    }

    fn means(&self) -> Result<Means, ServiceError> {
        let loaded = self.active();
        let (tls, reach) = (&loaded.service.tls, self.reach(&loaded)?);
        let trusting = ClientTls::new(&Tls { trust: tls.acme.trust.clone(), ..tls.clone() });
        let https = Https { net: self.0.net.clone(), resolver: reach.resolver, tls: trusting };
        let email = tls.acme.email.as_ref().map(ToString::to_string);
        Ok(Means { https, listen: tls.acme.listen.clone(), email })
    }

    /// Has a certificate asked for from now on, and makes it known.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn request_certificate(
        &self,
        name: &CertificateName,
        wish: &CertificateWish,
        asked: &Asked,
    ) -> Result<Edited, ServiceError> {
        let active = self.active();
        let known = active.service.tls.certificates.0.get(name).and_then(certificate_files);
        if known.is_some_and(|known| known != self.kept_files(name)) {
            return Err(EditError::CertificateElsewhere(name.clone()).into());
        }
        let done = self.edit(asked, |editor| editor.request_certificate(name, wish)).await?;
        if !asked.terms.dry_run {
            self.0.acme.wish(name);
            self.begin_acme_requests();
        }
        Ok(done.edited)
    }

    /// Asks for a certificate anew, whether it is due or not; how it stands.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`] if there is none, [`ServiceError::NotAskedFor`] if it comes from elsewhere.
    pub fn renew_certificate(
        &self,
        name: &CertificateName,
    ) -> Result<control::Certificate, ServiceError> {
        let all = self.certificates();
        let no_such = || EditError::NoCertificate(name.clone());
        let found = all.iter().find(|it| it.name == name.as_str()).ok_or_else(no_such)?;
        if found.acme.is_none() {
            return Err(ServiceError::NotAskedFor(name.clone()));
        }
        self.0.acme.wish(name);
        self.begin_acme_requests();
        let after = self.certificates().into_iter().find(|it| it.name == name.as_str());
        Ok(after.ok_or_else(no_such)?)
    }

    /// Certificates that were had over ACME, and requests that failed, since the daemon began.
    #[must_use]
    pub fn acme_counts(&self) -> (u64, u64) {
        self.0.acme.counts()
    }

    /// How a certificate stands that is asked for.
    pub(super) fn acme_state(&self, (name, wanted, there): &Due) -> control::AcmeState {
        let standing = self.0.acme.standing(name, wanted, there.as_ref());
        let last = standing.tries.last.as_ref();
        control::AcmeState {
            authority: wanted.directory.clone(),
            hosts: wanted.names.clone(),
            asking: standing.asking,
            failures: standing.tries.failures,
            failed_at: last.map(|last| last.at),
            trouble: last.map(|last| last.why.clone()),
            next: standing.next.max(self.0.clock.now()),
        }
    }
}

/// What is asked for under this name; nothing if it comes from elsewhere.
fn wanted(tls: &Tls, name: &CertificateName) -> Option<Wanted> {
    let keys = tls.certificates.0.get(name).filter(|keys| !keys.acme.is_empty())?;
    let names = keys.acme.iter().map(ToString::to_string).collect();
    Some(Wanted { names, directory: tls.acme.directory() })
}
