//! How the connection of a session comes under TLS, and what the client has proved then.

use std::sync::Arc;

use smtpd_core::smtp::auth::Channel;

use super::session::{Gone, Session};
use super::told::Peer;
use crate::net::Stream;
use crate::observe::Level;
use crate::tls::{ClientCertificate, ClientStanding, Handshake};

/// A client's good certificate.
#[derive(Debug)]
pub(super) struct Certificate {
    /// SHA-256 of it.
    pub(super) fingerprint: String,
    /// The user whose it is, if there is one.
    pub(super) user: Option<String>,
}

impl Session<'_> {
    /// TLS from the first octet on. Whoever may not connect is not worth a handshake, without which
    /// he cannot be told.
    pub(super) async fn begin_under_tls(&mut self) -> Result<(), Gone> {
        if self.server.end().is_some() {
            self.server.output().clear();
            self.work().await?;
            return Err(Gone::Said);
        }
        self.secure().await
    }

    /// The handshake. Nothing that was read before it is left: the machine takes no octet behind
    /// STARTTLS, and closes the session where there is one.
    pub(super) async fn secure(&mut self) -> Result<(), Gone> {
        let Some((certificate, channel)) = Box::pin(handshake(self)).await else {
            return Err(Gone::Insecure);
        };
        if self.buffer.used < self.buffer.octets.len() {
            return Err(Gone::Insecure);
        }
        let now = self.client.inner.parts.clock.elapsed();
        self.server.secured(now);
        self.client.facts.authenticated = None;
        (self.client.user, self.client.asked) = (None, None);
        // Under TLS with us is whoever has made the connection, and not whom it speaks for.
        let (certificate, channel) = match self.client.peer {
            Peer::Told => (None, Channel::default()),
            Peer::Caller | Peer::Called => (certificate, channel),
        };
        self.client.facts.certificate = certificate.as_ref().and_then(ClientCertificate::certified);
        self.client.certificate = certificate.and_then(|it| self.good(&it)).map(Box::new);
        let is_users = self.client.certificate.as_ref().is_some_and(|it| it.user.is_some());
        self.server.over(Channel { is_users, ..channel });
        let wall = self.client.inner.parts.clock.now();
        let rules = Arc::clone(self.client.rules(wall));
        self.server.adopt(rules);
        self.helo_shown = false;
        Ok(())
    }

    /// What is known of a client by its certificate, if that is good; the log hears of it either way.
    fn good(&self, certificate: &ClientCertificate) -> Option<Certificate> {
        let parts = &self.client.inner.parts;
        let user = certificate.standing.as_ref().ok().and_then(|standing| self.user_of(standing));
        let standing = match certificate.certified() {
            Some(how) => how.as_str(),
            None => "not-good",
        };
        let line = parts.log.line(Level::Info, "client-certificate").word("server", &parts.name);
        let line = line.word("sid", self.live.id).word("client", self.live.client().ip());
        let line = line.word("cert", certificate.fingerprint).word("standing", standing);
        let line = line.text("user", user.as_deref().unwrap_or_default());
        let line = line.text("subject", &certificate.subject);
        line.text("reason", certificate.standing.as_ref().err().map_or("", String::as_str)).send();
        certificate.standing.as_ref().ok()?;
        let fingerprint = certificate.fingerprint.to_string();
        self.live.show_certificate(Some(&fingerprint));
        Some(Certificate { fingerprint, user })
    }

    /// Whose a good certificate is: the user's who is written beside it, or the only one whose name is a
    /// mail address in it.
    fn user_of(&self, standing: &ClientStanding) -> Option<String> {
        let (users, rules) = (&self.client.inner.parts.users, &self.client.settings.logins);
        let find = |name: &str| users.find(name).filter(|user| user.enabled);
        match standing {
            ClientStanding::Pinned { user } => find(user.as_ref()?).map(|user| user.name.clone()),
            ClientStanding::Trusted { emails } => {
                let mut found = emails.iter().filter_map(|email| find(rules.plain(email)));
                let first = found.next()?;
                found.all(|other| other.name == first.name).then(|| first.name.clone())
            }
        }
    }
}

/// Does the handshake; nothing if it failed, which the log was told then.
async fn handshake(session: &mut Session<'_>) -> Option<(Option<ClientCertificate>, Channel)> {
    let parts = &session.client.inner.parts;
    let tls = session.client.settings.tls.as_ref()?;
    let stream = std::mem::replace(session.stream, Stream::Gone);
    let live = session.live;
    let done = tokio::select! {
        biased;
        done = tls.secure(stream) => done,
        () = live.killed() => Err("the session was ended".to_owned()),
    };
    match done {
        Ok(Handshake { stream, tls, certificate, channel }) => {
            *session.stream = stream;
            session.client.tls = Some(tls);
            live.show_tls(tls.version);
            parts.counters.tls_sessions.add_one();
            let line = parts.log.line(Level::Info, "tls").word("server", &parts.name);
            let line = line.word("sid", live.id).word("client", live.client().ip());
            line.word("tls", tls.version).word("cipher", tls.cipher).send();
            Some((certificate, channel))
        }
        Err(reason) => {
            parts.counters.tls_failed.add_one();
            let line = parts.log.line(Level::Info, "tls-failed").word("server", &parts.name);
            let line = line.word("sid", live.id).word("client", live.client().ip());
            line.word("port", live.client().port()).text("reason", reason).send();
            None
        }
    }
}
