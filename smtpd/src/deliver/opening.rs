//! From a host's address to a connection that mail can be sent on: TLS, and our login.
//!
//! A token that the host does not take is replaced once, over a new connection.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mailroot_common::address::Host;
use mailroot_common::config::smart_hosts::SmartHostKeys;
use mailroot_common::control::Direction;
use mailroot_common::id::SessionId;
use mailroot_common::status::{Class, EnhancedCode};
use smtpd_core::oauth::sasl::Form;
use smtpd_core::queue::outcome::{Protection, Stage, Verified};
use smtpd_core::smtp::client::{Action, Client, Ending, LoginError};
use smtpd_core::tls_report::FailureKind;
use tokio::time::timeout;

use super::Settings;
use super::aim::Target;
use super::login::{Exchange, Showing, can_show};
use super::permits::Permits;
use super::room::Room;
use super::session::{Connection, SessionView, given_up, words_of};
use super::tls_report::{Trouble, Unopened};
use super::trust::{Rule, TlsUse};
use crate::net::Stream;
use crate::observe::{Level, Party};
use crate::queue::Leashed;
use crate::tls::{Flaw, Identity, Proof, Secured, TlsError};

/// The longest a handshake may take.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_mins(1);

/// How a host is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) helo_only: bool,
    pub(super) tls: TlsUse,
}

/// Why there is no session, and how else there may be one.
struct Failure {
    ending: Ending,
    /// A mode that can less.
    lesser: Option<Mode>,
    /// The host did not take our token, and another may do.
    token_is_old: bool,
    /// What TLS failed with, if it did.
    trouble: Option<Trouble>,
    /// What was said before it failed, where that is kept.
    said: Option<String>,
}

impl From<Ending> for Failure {
    fn from(ending: Ending) -> Self {
        Self { ending, lesser: None, token_is_old: false, trouble: None, said: None }
    }
}

/// A connection that somebody else has made.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) stream: Stream,
    pub(super) session: SessionId,
    pub(super) peer: SocketAddr,
    pub(super) tls: Option<Protection>,
    pub(super) leashed: Leashed,
}

impl Connection {
    /// Connects and says hello. A peer that hangs up at EHLO is called again with HELO; one that
    /// fails at TLS is called again without it where that may be.
    ///
    /// # Errors
    ///
    /// Why there is no session.
    pub(super) async fn open(
        room: &Arc<Room>,
        settings: &Settings,
        target: &Target,
    ) -> Result<Box<Self>, Unopened> {
        let mut trouble = None;
        let mut mode = Mode { helo_only: target.helo_only, tls: target.tls };
        let mut has_new_token = false;
        loop {
            match Self::open_once(room, settings, target, mode).await {
                Ok(mut connection) => {
                    connection.trouble = trouble;
                    return Ok(connection);
                }
                Err(failure) if failure.token_is_old && !has_new_token => has_new_token = true,
                // Each mode can less than the one before, so that this ends.
                Err(Failure { lesser: Some(lesser), trouble: met, .. }) => {
                    (mode, trouble) = (lesser, met.or(trouble));
                }
                Err(Failure { ending, trouble: met, said, .. }) => {
                    return Err(Unopened { ending, trouble: met.or(trouble), said });
                }
            }
        }
    }

    async fn open_once(
        room: &Arc<Room>,
        settings: &Settings,
        target: &Target,
        mode: Mode,
    ) -> Result<Box<Self>, Failure> {
        let stream = connect(room, settings, target).await?;
        room.counters.outbound_connections.add_one();
        let id = room.new_session_id();
        let mut connection = Self::over(room, settings, target, mode, (stream, id));
        room.remember_session(&connection.view);
        match connection.greet(settings, mode).await {
            Ok(()) => Ok(connection),
            Err(mut failure) => {
                connection.flush().await;
                failure.lesser = connection.lesser_mode(&failure.ending, mode);
                failure.trouble = connection.trouble.take();
                failure.said = connection.ear.take_tape();
                Err(failure)
            }
        }
    }

    fn over(
        room: &Arc<Room>,
        settings: &Settings,
        target: &Target,
        mode: Mode,
        (stream, id): (Stream, SessionId),
    ) -> Box<Self> {
        let from = settings.tls_reports.as_ref().and_then(|_| stream.local_ip());
        let host = target.host();
        let view = Arc::new(SessionView {
            id,
            host: host.clone(),
            since: room.clock.now(),
            messages: AtomicU32::new(0),
            tls: OnceLock::new(),
            user: OnceLock::new(),
            target: target.clone(),
        });
        let party = Party {
            id: view.id,
            server: Arc::clone(&room.server),
            direction: Direction::Out,
            peer: target.at,
        };
        let client = Client::new(settings.client(target, mode), room.clock.elapsed());
        Box::new(Self {
            client,
            stream,
            target: target.clone(),
            host,
            view,
            room: Arc::clone(room),
            used: 0,
            input: Vec::new(),
            ear: room.dialogues.ear(party, room.clock.clone()),
            heard: 0,
            permits: Permits::default(),
            is_slowed: false,
            has_carried: false,
            flaw: None,
            trouble: None,
            from,
            leashed: None,
        })
    }

    /// Takes over a connection whose host is about to greet, and says hello.
    ///
    /// # Errors
    ///
    /// Why no mail can be sent by it.
    pub(super) async fn take_over(
        room: &Arc<Room>,
        settings: &Settings,
        handed: Handed,
    ) -> Result<Box<Self>, Ending> {
        let Handed { stream, session, peer, tls, leashed } = handed;
        let name = Host::Address(peer.ip());
        // What there is of TLS is there already.
        let tls_use = if tls.is_some() { TlsUse::Implicit } else { TlsUse::Off };
        let mode = Mode { helo_only: false, tls: tls_use };
        let target = Target {
            name,
            at: peer,
            helo_only: false,
            tls: tls_use,
            rule: Rule::Configured,
            smart_host: None,
            limited: None,
            site: None,
        };
        let mut connection = Self::over(room, settings, &target, mode, (stream, session));
        if let Some(protection) = &tls {
            let _first = connection.view.tls.set(protection.version.clone());
        }
        connection.host.tls = tls;
        connection.leashed = Some(leashed);
        match connection.reach_ready(settings, mode).await {
            Ok(()) => Ok(connection),
            Err(failure) => {
                connection.flush().await;
                Err(failure.ending)
            }
        }
    }

    /// Goes from the first octet to where mail can be sent.
    async fn greet(&mut self, settings: &Settings, mode: Mode) -> Result<(), Failure> {
        if mode.tls == TlsUse::Implicit {
            self.secure(settings, mode).await;
        }
        self.reach_ready(settings, mode).await
    }

    /// The same without a handshake at the beginning.
    async fn reach_ready(&mut self, settings: &Settings, mode: Mode) -> Result<(), Failure> {
        let mut exchange: Option<Exchange> = None;
        loop {
            match self.client.poll() {
                Some(Action::Ready) => return Ok(()),
                Some(Action::Failed(ending)) => {
                    return Err(self.failure(settings, ending, exchange.as_ref()));
                }
                Some(Action::StartTls) => self.secure(settings, mode).await,
                Some(Action::LogIn) => exchange = self.log_in(settings).await,
                Some(Action::Challenge(challenge)) => {
                    let answer = exchange.as_mut().map(|it| it.answer(&challenge));
                    let now = self.room.clock.elapsed();
                    match answer {
                        Some(Ok(answer)) => self.client.respond(&answer, now),
                        Some(Err(error)) => self.client.give_up_login(&error),
                        None => self.client.give_up_login(&LoginError::Challenge),
                    }
                }
                Some(Action::LoggedIn) => match exchange.take().map(Exchange::finish) {
                    Some(Err(error)) => self.client.give_up_login(&error),
                    Some(Ok(())) | None => {
                        let keys = settings.smart_host(&self.target);
                        if let Some(user) = keys.and_then(|keys| keys.auth.login_name()) {
                            let _first = self.view.user.set(user.to_owned());
                        }
                        self.client.logged_in();
                    }
                },
                Some(Action::SendBody | Action::Done(_) | Action::Answered(_) | Action::Close) => {}
                None => {
                    self.flush().await;
                    self.read().await;
                }
            }
        }
    }

    /// What is known of a refusal; a token that was refused is not used again.
    fn failure(&self, settings: &Settings, ending: Ending, exchange: Option<&Exchange>) -> Failure {
        let mut failure = Failure::from(ending);
        let ending = &mut failure.ending;
        let Some(exchange) = exchange.filter(|_| ending.stage == Stage::Login) else {
            return failure;
        };
        let was_refused = ending.code.is_some_and(|code| code.class() == Class::Permanent);
        if was_refused {
            exchange.explain(ending);
        }
        if was_refused
            && let (Some(name), Some(token)) = (&self.target.smart_host, exchange.token())
        {
            settings.tokens.refused(name, token);
            let line = self.room.log.line(Level::Warn, "token-refused");
            line.word("server", &self.room.server)
                .word("relay", &self.host)
                .word("smart_host", name)
                .word("dsn", ending.status)
                .text("reply", &ending.text)
                .send();
            failure.token_is_old = !token.is_new;
        }
        failure
    }

    /// How else the host may be called after this ending; not at all where it was ours.
    fn lesser_mode(&self, ending: &Ending, mode: Mode) -> Option<Mode> {
        if self.room.is_given_up() {
            return None;
        }
        if self.client.ehlo_was_dropped() && !mode.helo_only {
            return Some(Mode { helo_only: true, ..mode });
        }
        if ending.stage == Stage::Tls && mode.tls == TlsUse::Optional {
            let line = self.room.log.line(Level::Warn, "tls-failed");
            line.word("server", &self.room.server)
                .word("relay", &self.host)
                .word("then", "clear-text")
                .text("error", &ending.text)
                .send();
            return Some(Mode { tls: TlsUse::Off, ..mode });
        }
        None
    }

    /// The certificate that the host is to know us by, if it is. A small file, read each time so that
    /// a new one works at once.
    fn identity(&self, settings: &Settings) -> Result<Option<Identity>, TlsError> {
        let keys = settings.smart_host(&self.target);
        let Some(place) = keys.and_then(|keys| keys.certificate.as_ref()) else {
            return Ok(None);
        };
        let text = settings.secrets.read_lines(place);
        let text = text.map_err(|error| TlsError::Identity(error.to_string()))?;
        Identity::from_pem(&text).map(Some)
    }

    /// Brings the connection under TLS.
    async fn secure(&mut self, settings: &Settings, mode: Mode) {
        let pins = settings.smart_host(&self.target).map_or(&[][..], |keys| &keys.pin);
        let rule = self.target.rule.clone();
        let proof = match (&rule, mode.tls.is_verified()) {
            (Rule::Dane(dane), _) => dane.proof(),
            (Rule::Remembered, _) => Proof::Name,
            (_, true) if pins.is_empty() => Proof::Name,
            (_, true) => Proof::Key(pins),
            (_, false) => Proof::None,
        };
        let identity = match self.identity(settings) {
            Ok(identity) => identity,
            Err(error) => return self.insecure(error.flaw()),
        };
        self.flush().await;
        // While the handshake has the connection, this one stands in its place.
        let (nobody, _) = tokio::io::duplex(1);
        let stream = std::mem::replace(&mut self.stream, Stream::Memory(nobody));
        let patience = settings.timeouts.command.min(HANDSHAKE_WAIT_MAX);
        let base = match &rule {
            Rule::Dane(dane) => Some(dane.base()),
            _ => None,
        };
        let name = base.as_ref().unwrap_or(&self.target.name);
        let oldest = settings.smart_host(&self.target).and_then(|keys| keys.min_version);
        let own = oldest.map(|oldest| settings.tls.from_version(oldest));
        let tls = own.as_ref().unwrap_or(&settings.tls);
        let handshake = tls.secure(stream, name, proof, identity);
        let done = tokio::select! {
            done = timeout(patience, handshake) => done,
            // It says nothing of the host.
            ending = given_up(&self.room, &mut self.leashed) => return self.client.abandon(&ending),
        };
        match done {
            Ok(Ok(Secured { stream, mut protection, flaw })) => {
                self.stream = stream;
                self.flaw = flaw;
                if let (Some(recall), Host::Name(host), Verified::Name) =
                    (&settings.recall, &self.target.name, protection.verified)
                {
                    recall.saw(host);
                }
                if rule == Rule::Sts && protection.verified == Verified::Name {
                    protection.verified = Verified::Sts;
                }
                let _first = self.view.tls.set(protection.version.clone());
                self.host.tls = Some(protection);
                if mode.tls != TlsUse::Implicit {
                    self.client.secured(self.room.clock.elapsed());
                }
            }
            Ok(Err(error)) => self.insecure(error.flaw()),
            Err(_) => {
                let text = format!("no end of the handshake within {}s", patience.as_secs());
                self.insecure(Flaw { kind: FailureKind::ValidationFailure, text });
            }
        }
    }

    /// It did not come under TLS.
    fn insecure(&mut self, flaw: Flaw) {
        self.client.not_secured(&flaw.text);
        self.trouble = Some(Trouble { flaw, from: self.from });
    }

    /// Begins a login.
    async fn log_in(&mut self, settings: &Settings) -> Option<Exchange> {
        let keys = settings.smart_host(&self.target)?;
        let begun = match Form::of(keys.auth.method) {
            Some(form) => self.with_token(settings, keys, form).await,
            None => {
                let offered = &self.client.peer().auth;
                Exchange::begin(&keys.auth, offered, &settings.secrets, &self.target.name).await
            }
        };
        let begun = begun.and_then(|mut exchange| Ok((exchange.first()?, exchange)));
        match begun {
            Ok((first, exchange)) => {
                let now = self.room.clock.elapsed();
                self.client.authenticate(exchange.name(), first.as_deref(), now);
                Some(exchange)
            }
            Err(error) => {
                self.client.give_up_login(&error);
                None
            }
        }
    }

    /// Has a token given, and begins to show it.
    async fn with_token(
        &self,
        settings: &Settings,
        keys: &SmartHostKeys,
        form: Form,
    ) -> Result<Exchange, LoginError> {
        can_show(form, &self.client.peer().auth)?;
        let (Some(name), Some(source), Some(mailbox)) =
            (&self.target.smart_host, keys.token_source(), keys.auth.login_name())
        else {
            let why = "no mailbox or no application is configured";
            return Err(LoginError::Token(why.to_owned()));
        };
        let token = tokio::select! {
            token = settings.tokens.get(name, &source) => {
                token.map_err(|error| LoginError::Token(error.to_string()))?
            }
            () = self.room.given_up() => {
                return Err(LoginError::Token("this server is stopping".to_owned()));
            }
        };
        let (host, port) = (self.target.name.to_string(), self.target.at.port());
        Ok(Exchange::with_token(Showing { form, mailbox, host: &host, port }, token))
    }
}

async fn connect(room: &Room, settings: &Settings, target: &Target) -> Result<Stream, Ending> {
    let source =
        settings.sources.iter().find(|source| source.is_ipv4() == target.at.is_ipv4()).copied();
    let status = EnhancedCode::transient(4, 1);
    let failed = |text: String| {
        room.counters.outbound_failures.add_one();
        Ending::local(Stage::Connect, status, text)
    };
    match timeout(settings.connect_timeout, room.net.connect(target.at, source)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failed(words_of(&error))),
        Err(_) => {
            let seconds = settings.connect_timeout.as_secs();
            Err(failed(format!("connection timed out: no answer within {seconds}s")))
        }
    }
}
