//! A connection to one milter: frames out, answers in, each within its time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mailroot_common::address::Host;
use mailroot_common::config::milter::{Milter, MilterAddress};
use smtpd_core::milter::answer::{Answer, Change, Verdict};
use smtpd_core::milter::command::Command;
use smtpd_core::milter::offer::{Agreed, Stage, offer};
use smtpd_core::milter::{Frame, MilterError, PIECE_OCTETS_MAX, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use super::Reach;
use crate::net::Stream;
use crate::resolve::{Allowance, Family};

/// How often in a row a milter may ask for more time.
const PROGRESS_MAX: usize = 20;
/// How many times as long as one answer all that is said of a message may take.
const WAITS_MAX: u32 = 10;
/// The most changes of one message.
const CHANGES_MAX: usize = 2_000;
/// The most octets of all of them: another body is held in memory.
const CHANGED_OCTETS_MAX: usize = 32 * 1024 * 1024;

/// What a milter may be told about a session and a message, by the names that libmilter has for it.
pub type Values<'a> = [(&'static str, &'a str)];

/// Why a milter cannot be heard.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// It broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// It ended.
    #[error("it hung up")]
    Closed,
    /// It did not answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// No time was left for this command or message.
    #[error("it, or all milters together, took too long over this command or message")]
    Late,
    /// It answered what makes no sense.
    #[error(transparent)]
    Answer(#[from] MilterError),
}

/// A connection whose terms are agreed on.
#[derive(Debug)]
pub(super) struct Talk {
    stream: Stream,
    heard: Vec<u8>,
    said: Vec<u8>,
    agreed: Agreed,
    wait: Duration,
    /// When its time for this command or message is up.
    until: Instant,
    /// Whether it has answered anything since the message under way began.
    proved: bool,
}

impl Talk {
    /// Connects, and agrees on what is told and answered.
    pub(super) async fn open(milter: &Milter, reach: &Reach<'_>) -> Result<Self, Trouble> {
        let wait = milter.timeout.as_duration();
        let opening = async {
            let mut stream = connect(&milter.address, reach).await?;
            stream.write_all(&offer()).await?;
            stream.flush().await?;
            let mut heard = Vec::new();
            let (letter, content) = next(&mut stream, &mut heard).await?;
            let agreed = Agreed::read(letter, &content)?;
            let until = Instant::now() + wait * WAITS_MAX;
            Ok(Self { stream, heard, said: Vec::new(), agreed, wait, until, proved: true })
        };
        timeout(wait, opening).await.map_err(|_| Trouble::TimedOut(wait))?
    }

    /// Gives it time for another command or message.
    pub(super) fn renew(&mut self) {
        self.until = Instant::now() + self.wait * WAITS_MAX;
    }

    /// Tells of a stage, if it wants to hear of it; what it says to that.
    pub(super) async fn tell(
        &mut self,
        stage: Stage,
        values: &Values<'_>,
        command: Command<'_>,
    ) -> Result<Verdict, Trouble> {
        if !self.agreed.wants(stage) {
            return Ok(Verdict::Continue);
        }
        if !values.is_empty() {
            Command::Macros(command.letter(), values).write(&mut self.said);
        }
        command.write(&mut self.said);
        if !self.agreed.answers(stage) {
            return Ok(Verdict::Continue);
        }
        match self.answer().await?.0 {
            Answer::Verdict(verdict) => Ok(verdict),
            Answer::Progress | Answer::Change(_) => Err(MilterError::Unexpected('p').into()),
        }
    }

    /// Tells of the header, field by field, and of its end. It has time for the message until then at most.
    pub(super) async fn header(
        &mut self,
        header: &[u8],
        values: &Values<'_>,
        until: Instant,
    ) -> Result<Verdict, Trouble> {
        self.renew();
        self.until = self.until.min(until);
        let verdict = self.tell(Stage::Data, values, Command::Data).await?;
        if verdict != Verdict::Continue {
            return Ok(verdict);
        }
        if self.agreed.wants(Stage::Header) {
            for field in mailroot_common::message::header::fields(header) {
                let value = header.get(field.value.clone()).unwrap_or_default();
                let bare = value.strip_prefix(b" ").filter(|_| !self.agreed.keeps_blanks());
                let command = Command::Header(field.name, bare.unwrap_or(value));
                let verdict = self.tell(Stage::Header, &[], command).await?;
                if verdict != Verdict::Continue {
                    return Ok(verdict);
                }
            }
        }
        self.tell(Stage::EndOfHeader, values, Command::EndOfHeader).await
    }

    /// Whether it wants to see the body.
    pub(super) const fn wants_body(&self) -> bool {
        self.agreed.wants(Stage::Body)
    }

    /// Tells of a piece of the body.
    pub(super) async fn body(&mut self, piece: &[u8]) -> Result<Verdict, Trouble> {
        for piece in piece.chunks(PIECE_OCTETS_MAX) {
            let verdict = self.tell(Stage::Body, &[], Command::Body(piece)).await?;
            self.flush().await?;
            if verdict != Verdict::Continue {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Continue)
    }

    /// Tells of the end of the message; what it says to all of it, and what it wants changed.
    pub(super) async fn end(
        &mut self,
        values: &Values<'_>,
    ) -> Result<(Verdict, Vec<Change>), Trouble> {
        Command::Macros(b'E', values).write(&mut self.said);
        Command::EndOfMessage.write(&mut self.said);
        let (mut changes, mut octets) = (Vec::new(), 0);
        loop {
            let (answer, said) = self.answer().await?;
            match answer {
                Answer::Progress => return Err(MilterError::Unexpected('p').into()),
                Answer::Verdict(verdict) => return Ok((verdict, changes)),
                Answer::Change(change) => {
                    octets += said;
                    changes.push(change);
                    if changes.len() > CHANGES_MAX || octets > CHANGED_OCTETS_MAX {
                        return Err(MilterError::TooMuch.into());
                    }
                }
            }
        }
    }

    /// Whether values of fields keep the blank behind the colon.
    pub(super) const fn keeps_blanks(&self) -> bool {
        self.agreed.keeps_blanks()
    }

    /// Whether it has shown since the message under way began that it is there.
    pub(super) const fn is_proved(&self) -> bool {
        self.proved
    }

    /// Has it forget the message.
    pub(super) fn abort(&mut self) {
        self.proved = false;
        let mut abort = Vec::new();
        Command::Abort.write(&mut abort);
        if !self.said.ends_with(&abort) {
            self.said.append(&mut abort);
        }
    }

    /// Whether it hung up, or said what nobody asked for, while there was nothing to say.
    pub(super) async fn is_over(&mut self) -> bool {
        let hearing = self.stream.read_buf(&mut self.heard);
        timeout(Duration::ZERO, hearing).await.is_ok() || !self.heard.is_empty()
    }

    /// Says goodbye, as far as it can be said at once.
    pub(super) async fn quit(mut self) {
        Command::Quit.write(&mut self.said);
        // Whether it hears that is of no interest to us.
        let _said = self.flush().await;
    }

    async fn flush(&mut self) -> Result<(), Trouble> {
        let (wait, late) = self.left();
        let (stream, said) = (&mut self.stream, &mut self.said);
        let sending = async {
            stream.write_all(said).await?;
            stream.flush().await
        };
        timeout(wait, sending).await.map_err(|_| late)??;
        said.clear();
        Ok(())
    }

    /// How long it may take for what is next, and what it means if that is over.
    fn left(&self) -> (Duration, Trouble) {
        let left = self.until.saturating_duration_since(Instant::now());
        if left < self.wait {
            (left, Trouble::Late)
        } else {
            (self.wait, Trouble::TimedOut(self.wait))
        }
    }

    /// The next answer that is more than a wish for time, and of how many octets it is.
    async fn answer(&mut self) -> Result<(Answer, usize), Trouble> {
        self.flush().await?;
        for _ in 0..PROGRESS_MAX {
            let (wait, late) = self.left();
            let hearing = next(&mut self.stream, &mut self.heard);
            let heard = timeout(wait, hearing).await;
            let (letter, content) = heard.map_err(|_| late)??;
            self.proved = true;
            match Answer::read(letter, &content, &self.agreed)? {
                Answer::Progress => {}
                answer => return Ok((answer, content.len())),
            }
        }
        Err(Trouble::TimedOut(self.wait))
    }
}

/// The next frame.
async fn next(stream: &mut Stream, heard: &mut Vec<u8>) -> Result<(u8, Vec<u8>), Trouble> {
    loop {
        if let Some(Frame { letter, content, used }) = frame(heard)? {
            let answer = (letter, content.to_vec());
            heard.drain(..used);
            return Ok(answer);
        }
        if stream.read_buf(heard).await? == 0 {
            return Err(Trouble::Closed);
        }
    }
}

async fn connect(address: &MilterAddress, reach: &Reach<'_>) -> Result<Stream, Trouble> {
    let failed = |error: io::Error| Trouble::Connect(error.to_string());
    let at = match address {
        MilterAddress::Unix(path) => {
            return UnixStream::connect(path).await.map(Stream::Unix).map_err(failed);
        }
        MilterAddress::Inet(at) => at,
    };
    let addresses: Vec<IpAddr> = match &at.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) if name.as_str() == "localhost" => {
            vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        }
        Host::Name(name) => {
            let found = reach.resolver.addresses(name, Family::Any, &Allowance::default()).await;
            found.map_err(|error| Trouble::Connect(error.to_string()))?
        }
    };
    let mut last = Trouble::Connect("it has no address".to_owned());
    for address in addresses {
        let at = SocketAddr::new(address, at.port.unwrap_or_default());
        match reach.net.connect(at, None).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = failed(error),
        }
    }
    Err(last)
}
