//! One connection to a directory server: opened, protected, bound, asked one thing after the other.

mod user;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::Host;
use mailroot_common::config::Secret;
use mailroot_common::config::ldap::{Ldap, LdapBind, LdapServer, LdapTls};
use smtpd_core::ldap::ber::{self, BerError};
use smtpd_core::ldap::message::{self, Answer, Ended, Entry, Search, code};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use super::Means;
use crate::config::SecretError;
use crate::net::Stream;
use crate::observe::Counters;
use crate::resolve::{Allowance, Family, LookupError};
#[cfg(feature = "gssapi")]
use crate::tls::end_point;
use crate::tls::{Proof, TlsError};

/// The longest message of a server that is read, and the most octets of all answers to one search.
const MESSAGE_MAX: u64 = 4 << 20;
const ANSWERS_MAX: usize = 8 << 20;
/// What is read at once.
const PIECE: usize = 16 << 10;

/// Why a server does not answer.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Its name.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// No address of it could be called.
    #[error("cannot connect to {at}: {source}")]
    Connect {
        /// The last that was tried.
        at: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// What it says is no LDAP.
    #[error("it does not speak LDAP: {0}")]
    Nonsense(#[from] BerError),
    /// It says more than is read.
    #[error("its answer has more than {0} octets")]
    TooLong(u64),
    /// It says something else than an answer.
    #[error("it answers with something else")]
    Unexpected,
    /// It has announced the end of the connection.
    #[error("it ends the connection")]
    Ending,
    /// It will not begin TLS.
    #[error("it refuses StartTLS: {0}")]
    NoTls(Ended),
    /// Octets came behind its answer to StartTLS: they may be somebody else's.
    #[error("octets came before TLS began")]
    OctetsBeforeTls,
    /// It is not proved to be the server that is meant.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The password cannot be had.
    #[error("{0}")]
    Secret(#[from] SecretError),
    /// A user's password would go there in clear text.
    #[error("no password of a user is sent in clear text")]
    Clear,
    /// A bind without a name or a password, which proves nothing.
    #[error("a bind without a name or a password proves nothing")]
    Unnamed,
    /// It does not let us in.
    #[error("the bind is refused: {0}")]
    Bind(Ended),
    /// There is no ticket for it, or it does not show who it is.
    #[error("the login by Kerberos failed: {0}")]
    Ticket(String),
    /// The realm that gives tickets does not let us in.
    #[error("the login by Kerberos failed: {0}")]
    Realm(String),
    /// It refuses a search.
    #[error("the search is refused: {0}")]
    Search(Ended),
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

impl DirectoryError {
    /// Whether our name and password are wrong, by the server's word or by that of its realm.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Realm(_) | Self::Bind(Ended { code: code::INVALID_CREDENTIALS, .. }))
    }

    /// Whether it is the answer to a question, after which the connection can be used on.
    pub(super) const fn is_answer(&self) -> bool {
        matches!(self, Self::Search(_))
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    /// There are more than were asked for.
    pub(super) has_more: bool,
    /// The entry that was asked for by its name lies in another directory.
    pub(super) is_elsewhere: bool,
}

/// A connection that there is, as long as this is kept.
#[derive(Debug)]
struct Counted(Arc<Counters>);

impl Counted {
    fn new(counters: &Arc<Counters>) -> Self {
        counters.ldap_open.add_one();
        Self(Arc::clone(counters))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.ldap_open.take_one();
    }
}

/// A connection that is bound.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    _counted: Counted,
    last_id: u32,
    buffer: Vec<u8>,
    /// How it is protected, in words.
    pub(super) protection: String,
}

impl Connection {
    /// Opens one within this time.
    pub(super) async fn open(
        means: &Means,
        keys: &Ldap,
        server: &LdapServer,
        patience: Duration,
    ) -> Result<Self, DirectoryError> {
        let opening = Self::open_now(means, keys, server);
        let opened = tokio::time::timeout(patience, opening).await;
        opened.unwrap_or(Err(DirectoryError::TimedOut(patience)))
    }

    async fn open_now(
        means: &Means,
        keys: &Ldap,
        server: &LdapServer,
    ) -> Result<Self, DirectoryError> {
        let mut it = Self::reach(means, keys, server).await?;
        if keys.bind == LdapBind::Gssapi {
            it.bind_by_ticket(means, keys, server).await?;
        } else {
            it.bind(means, keys).await?;
        }
        Ok(it)
    }

    /// Connects, and comes under TLS where that is wanted.
    async fn reach(
        means: &Means,
        keys: &Ldap,
        server: &LdapServer,
    ) -> Result<Self, DirectoryError> {
        let stream = connect(means, server).await?;
        let protection = "in clear text".to_owned();
        let _counted = Counted::new(&means.counters);
        let mut it = Self { stream, _counted, last_id: 0, buffer: Vec::new(), protection };
        if !server.is_secure && keys.tls == LdapTls::Starttls {
            it.start_tls().await?;
        }
        if server.is_secure || keys.tls == LdapTls::Starttls {
            let stream = std::mem::replace(&mut it.stream, Stream::Gone);
            let secured = means.tls.secure(stream, &server.host, Proof::Name, None).await?;
            it.stream = secured.stream;
            it.protection = secured.protection.to_string();
        }
        Ok(it)
    }

    async fn start_tls(&mut self) -> Result<(), DirectoryError> {
        let id = self.next_id();
        self.stream.write_all(&message::start_tls(id)).await?;
        match self.read(id).await? {
            (Answer::Extended(ended), _) if ended.code == code::SUCCESS => {}
            (Answer::Extended(ended), _) => return Err(DirectoryError::NoTls(ended)),
            _ => return Err(DirectoryError::Unexpected),
        }
        if self.buffer.is_empty() { Ok(()) } else { Err(DirectoryError::OctetsBeforeTls) }
    }

    async fn bind(&mut self, means: &Means, keys: &Ldap) -> Result<(), DirectoryError> {
        let id = self.next_id();
        let request = match (keys.bind, keys.bind_name(), &keys.password) {
            (LdapBind::Simple, Some(name), Some(password)) => {
                let password = read_password(means, password).await?;
                Zeroizing::new(message::bind(id, &name, &password))
            }
            _ => Zeroizing::new(message::bind(id, "", "")),
        };
        self.stream.write_all(&request).await?;
        self.stream.flush().await?;
        match self.read(id).await? {
            (Answer::Bind(ended, _), _) if ended.code == code::SUCCESS => Ok(()),
            (Answer::Bind(ended, _), _) => Err(DirectoryError::Bind(ended)),
            _ => Err(DirectoryError::Unexpected),
        }
    }

    /// What a login here is bound to, under TLS.
    #[cfg(feature = "gssapi")]
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        end_point(&self.stream)
    }

    /// One step of a bind by a mechanism of SASL: what is said, and what is answered.
    #[cfg(feature = "gssapi")]
    pub(super) async fn step(
        &mut self,
        mechanism: &str,
        words: &[u8],
    ) -> Result<(Ended, Vec<u8>), DirectoryError> {
        let id = self.next_id();
        self.stream.write_all(&message::sasl_bind(id, mechanism, words)).await?;
        self.stream.flush().await?;
        match self.read(id).await? {
            (Answer::Bind(ended, words), _) => Ok((ended, words)),
            _ => Err(DirectoryError::Unexpected),
        }
    }

    /// Asks within the time that a server may take. After an error that is no answer the connection is
    /// of no use.
    pub(super) async fn search(
        &mut self,
        wanted: &Search<'_>,
        patience: Duration,
    ) -> Result<Found, DirectoryError> {
        let done = tokio::time::timeout(patience, self.search_now(wanted)).await;
        done.unwrap_or(Err(DirectoryError::TimedOut(patience)))
    }

    async fn search_now(&mut self, wanted: &Search<'_>) -> Result<Found, DirectoryError> {
        let id = self.next_id();
        self.stream.write_all(&message::search(id, wanted)).await?;
        self.stream.flush().await?;
        let mut found = Found::default();
        let mut octets = 0;
        loop {
            let (answer, size) = self.read(id).await?;
            octets += size;
            if octets > ANSWERS_MAX {
                return Err(DirectoryError::TooLong(ANSWERS_MAX as u64));
            }
            match answer {
                Answer::Entry(entry) if found.entries.len() < wanted.entries as usize => {
                    found.entries.push(entry);
                }
                Answer::Entry(_) => found.has_more = true,
                Answer::Reference => {}
                Answer::Done(ended) => match (ended.code, wanted.filter) {
                    (code::SUCCESS, _) => return Ok(found),
                    (code::SIZE_LIMIT, _) => {
                        found.has_more = true;
                        return Ok(found);
                    }
                    // A member that is gone is no trouble; a base that is gone is.
                    (code::NO_SUCH_OBJECT | code::INVALID_DN, None) => return Ok(found),
                    (code::REFERRAL, None) => {
                        found.is_elsewhere = true;
                        return Ok(found);
                    }
                    _ => return Err(DirectoryError::Search(ended)),
                },
                _ => return Err(DirectoryError::Unexpected),
            }
        }
    }

    fn next_id(&mut self) -> u32 {
        self.last_id = self.last_id % 0x7fff_ffff + 1;
        self.last_id
    }

    /// Reads the next message, which must answer this request, and tells its size.
    async fn read(&mut self, id: u32) -> Result<(Answer, usize), DirectoryError> {
        loop {
            // Whoever greets us in words of another protocol need not be waited for.
            if self.buffer.first().is_some_and(|first| *first != ber::tag::SEQUENCE) {
                return Err(BerError::Tag.into());
            }
            if let Some(extent) = ber::extent(&self.buffer)? {
                let size = usize::try_from(extent).unwrap_or(usize::MAX);
                if extent > MESSAGE_MAX {
                    return Err(DirectoryError::TooLong(MESSAGE_MAX));
                }
                if self.buffer.len() >= size {
                    let (found, answer) =
                        message::read(self.buffer.get(..size).unwrap_or_default())?;
                    self.buffer.drain(..size);
                    return match found {
                        0 => Err(DirectoryError::Ending),
                        found if found == id => Ok((answer, size)),
                        _ => Err(DirectoryError::Unexpected),
                    };
                }
            }
            self.buffer.reserve(PIECE);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Takes leave; whoever does not hear it loses nothing.
    pub(super) async fn close(mut self, patience: Duration) {
        let request = message::unbind(self.next_id());
        let leaving = async {
            self.stream.write_all(&request).await?;
            self.stream.shutdown().await
        };
        let _late = tokio::time::timeout(patience, leaving).await;
    }
}

/// Reads the password from where it is kept.
pub(super) async fn read_password(
    means: &Means,
    place: &Secret,
) -> Result<Zeroizing<String>, DirectoryError> {
    let (secrets, place) = (means.secrets.clone(), place.clone());
    let reading = tokio::task::spawn_blocking(move || secrets.read(&place));
    Ok(reading.await.map_err(io::Error::other)??)
}

async fn connect(means: &Means, server: &LdapServer) -> Result<Stream, DirectoryError> {
    let allowance = Allowance::default();
    let addresses: Vec<IpAddr> = match &server.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => means.resolver.addresses(name, Family::Any, &allowance).await?,
    };
    let mut last = None;
    for address in addresses {
        let at = SocketAddr::new(address, server.port);
        match means.net.connect(at, None).await {
            Ok(stream) => return Ok(stream),
            Err(source) => last = Some(DirectoryError::Connect { at, source }),
        }
    }
    Err(last.unwrap_or_else(|| LookupError::NoData(server.to_string()).into()))
}
