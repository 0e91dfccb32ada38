//! One milter of a session: whether it is called, what it has said, and what is made of that.
//!
//! A connection stays open between messages. Its other end may vanish without a word, and nothing shows that
//! but that no answer comes. So a connection proves itself anew with each message, by its first answer; one
//! that does not is given up, and the milter is called once more and told all of the message again.

use mailroot_common::config::milter::{Milter, MilterAddress, OnFailure};
use smtpd_core::milter::answer::{Change, Reply, Verdict};
use smtpd_core::milter::command::Command;
use smtpd_core::milter::offer::Stage;
use tokio::time::{Instant, timeout_at};

use super::talk::{Talk, Trouble, Values};
use super::{No, Reach, Who};
use crate::observe::Level;

/// A milter and how it stands.
#[derive(Debug)]
pub(super) struct Peer {
    milter: Milter,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    /// It was not called yet, or is to be called again.
    Closed,
    /// It hears of the message under way.
    Open(Box<Talk>),
    /// It needs to hear no more of this message.
    Rests(Box<Talk>),
    /// It needs to hear no more of this session, or was not to be had for this message.
    Gone(Gone),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    Satisfied,
    Unheard,
    /// It refused the client as such.
    Refused(No),
    /// It was called once more, and refused what it was told again of this message.
    RefusedAgain(No),
}

impl State {
    /// What one says that hears nothing more.
    fn verdict(&self) -> Verdict {
        let Self::Gone(Gone::Refused(no) | Gone::RefusedAgain(no)) = self else {
            return Verdict::Continue;
        };
        match no {
            No::Said(reply) => Verdict::Reply(reply.clone()),
            No::Deferred | No::Unheard => Verdict::Defer,
            No::Refused => Verdict::Reject,
            No::Close => Verdict::Close,
        }
    }
}

/// What milters were told of the message under way.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) sender: Option<Told>,
    pub(super) recipients: Vec<Told>,
}

/// One thing that they were told.
#[derive(Debug)]
pub(super) struct Told {
    argument: String,
    values: Vec<(&'static str, String)>,
}

impl Told {
    pub(super) fn new(argument: &str, values: &Values<'_>) -> Self {
        let values = values.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { argument: argument.to_owned(), values }
    }

    fn values(&self) -> Vec<(&'static str, &str)> {
        self.values.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}

/// What a milter that is called once more is told, by which means, and until when.
pub(super) struct Again<'a> {
    pub(super) who: &'a Who,
    pub(super) said: &'a Said,
    pub(super) until: Instant,
    pub(super) reach: &'a Reach<'a>,
}

impl Peer {
    /// One that is not called yet.
    pub(super) fn new(milter: &Milter) -> Self {
        Self { milter: milter.clone(), state: State::Closed }
    }

    pub(super) fn address(&self) -> &MilterAddress {
        &self.milter.address
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether its connection is of an earlier message, and has not shown yet that it still holds.
    pub(super) fn is_unproved(&self) -> bool {
        matches!(&self.state, State::Open(talk) if !talk.is_proved())
    }

    /// Whether it wants to see the body.
    pub(super) fn wants_body(&self) -> bool {
        matches!(&self.state, State::Open(talk) if talk.wants_body())
    }

    /// Whether values of fields keep the blank behind the colon.
    pub(super) fn keeps_blanks(&self) -> bool {
        matches!(&self.state, State::Open(talk) if talk.keeps_blanks())
    }

    /// Makes it ready for another message.
    pub(super) async fn rewind(&mut self, anew: bool) {
        let was = std::mem::replace(&mut self.state, State::Closed);
        self.state = match was {
            State::Open(talk) | State::Rests(talk) if anew => {
                talk.quit().await;
                State::Closed
            }
            State::Open(mut talk) | State::Rests(mut talk) => {
                talk.abort();
                if talk.is_over().await { State::Closed } else { State::Open(talk) }
            }
            State::Gone(Gone::Satisfied | Gone::Refused(_)) if !anew => was,
            State::Gone(_) | State::Closed => State::Closed,
        };
    }

    /// Calls it, and tells it of the connection and the greeting.
    pub(super) async fn begin(&mut self, who: &Who, reach: &Reach<'_>) -> Result<Verdict, Trouble> {
        let mut talk = Box::new(Talk::open(&self.milter, reach).await?);
        let address = who.address.to_string();
        let port = who.port.to_string();
        let values = [
            ("j", reach.host),
            ("{daemon_name}", reach.server),
            ("v", "Mailroot"),
            ("_", who.name.as_str()),
            ("{client_name}", who.name.as_str()),
            ("{client_ptr}", who.name.as_str()),
            ("{client_addr}", address.as_str()),
            ("{client_port}", port.as_str()),
        ];
        let connect = Command::Connect(&who.name, who.address, who.port);
        let mut verdict = talk.tell(Stage::Connect, &values, connect).await?;
        if verdict == Verdict::Continue {
            let (version, cipher) = who.tls.unwrap_or_default();
            let tls = [("{tls_version}", version), ("{cipher}", cipher)];
            let values = if who.tls.is_some() { &tls[..] } else { &[] };
            verdict = talk.tell(Stage::Hello, values, Command::Hello(&who.helo)).await?;
        }
        self.state = match verdict {
            Verdict::Continue | Verdict::Skip => State::Open(talk),
            Verdict::Accept | Verdict::Discard => {
                talk.quit().await;
                State::Gone(Gone::Satisfied)
            }
            Verdict::Reject | Verdict::Defer | Verdict::Reply(_) | Verdict::Close => {
                talk.quit().await;
                State::Gone(Gone::Refused(refusal(&verdict).unwrap_or(No::Refused)))
            }
        };
        Ok(Verdict::Continue)
    }

    /// Calls it once more, because of this trouble, and tells it again what it was told.
    pub(super) async fn call_again(
        &mut self,
        trouble: &Trouble,
        again: &Again<'_>,
    ) -> Result<Verdict, Trouble> {
        let Again { who, said, until, reach } = again;
        let line = reach.log.line(Level::Info, "milter-called-again").word("server", reach.server);
        let line = line.word("milter", &self.milter.address);
        line.text("reason", trouble).send();
        self.state = State::Closed;
        let telling = async {
            self.begin(who, reach).await?;
            let sender = said.sender.iter().map(|told| (Stage::Mail, told));
            let recipients = said.recipients.iter().map(|told| (Stage::Rcpt, told));
            for (stage, told) in sender.chain(recipients) {
                let command = match stage {
                    Stage::Mail => Command::Mail(&told.argument),
                    _ => Command::Rcpt(&told.argument),
                };
                let verdict = self.stage(stage, &told.values(), command).await?;
                // What was told again is not what is at hand: a "no" to it is one to the whole message.
                if let (true, Some(no)) = (self.is_open(), refusal(&verdict)) {
                    self.state = State::Gone(Gone::RefusedAgain(no));
                }
                if verdict != Verdict::Continue {
                    return Ok(verdict);
                }
            }
            Ok(Verdict::Continue)
        };
        timeout_at(*until, telling).await.unwrap_or(Err(Trouble::Late))
    }

    /// Tells it of a stage, and once more on a connection of its own if the old one does not hold.
    pub(super) async fn tell(
        &mut self,
        stage: Stage,
        values: &Values<'_>,
        command: Command<'_>,
        again: &Again<'_>,
    ) -> Result<Verdict, Trouble> {
        let trouble = match self.stage(stage, values, command).await {
            Err(trouble) if self.is_unproved() => trouble,
            heard => return heard,
        };
        match self.call_again(&trouble, again).await? {
            Verdict::Continue => self.stage(stage, values, command).await,
            verdict => Ok(verdict),
        }
    }

    async fn stage(
        &mut self,
        stage: Stage,
        values: &Values<'_>,
        command: Command<'_>,
    ) -> Result<Verdict, Trouble> {
        match &mut self.state {
            State::Open(talk) => {
                talk.renew();
                talk.tell(stage, values, command).await
            }
            other => Ok(other.verdict()),
        }
    }

    /// Shows it the header; it has time for the message until then at most.
    pub(super) async fn header(
        &mut self,
        header: &[u8],
        values: &Values<'_>,
        until: Instant,
    ) -> Result<Verdict, Trouble> {
        match &mut self.state {
            State::Open(talk) => talk.header(header, values, until).await,
            other => Ok(other.verdict()),
        }
    }

    /// Shows it a piece of the body.
    pub(super) async fn body(&mut self, piece: &[u8]) -> Result<Verdict, Trouble> {
        match &mut self.state {
            State::Open(talk) => talk.body(piece).await,
            other => Ok(other.verdict()),
        }
    }

    /// Tells it that the message is complete; what it says to all of it, and what it wants changed.
    pub(super) async fn end(
        &mut self,
        values: &Values<'_>,
    ) -> Result<(Verdict, Vec<Change>), Trouble> {
        match &mut self.state {
            State::Open(talk) => talk.end(values).await,
            other => Ok((other.verdict(), vec![])),
        }
    }

    /// Says goodbye.
    pub(super) async fn quit(&mut self) {
        let was = std::mem::replace(&mut self.state, State::Closed);
        if let State::Open(talk) | State::Rests(talk) = was {
            talk.quit().await;
        }
    }

    /// Remembers that it wants the message forgotten, if it does.
    pub(super) fn note_discard(
        &self,
        heard: &Result<Verdict, Trouble>,
        discarded_by: &mut Option<String>,
    ) {
        if matches!(heard, Ok(Verdict::Discard)) {
            discarded_by.get_or_insert_with(|| self.milter.address.to_string());
        }
    }

    /// Goes by what it said, or by what its entry says where it cannot be heard.
    pub(super) fn settle(
        &mut self,
        heard: Result<Verdict, Trouble>,
        reach: &Reach<'_>,
    ) -> Result<(), No> {
        match heard {
            Ok(Verdict::Continue | Verdict::Skip) => Ok(()),
            Ok(Verdict::Accept | Verdict::Discard) => {
                self.state = match std::mem::replace(&mut self.state, State::Closed) {
                    State::Open(talk) => State::Rests(talk),
                    other => other,
                };
                Ok(())
            }
            Ok(verdict) => {
                if let Verdict::Reply(Reply { code, enhanced, words }) = &verdict {
                    let line = reach.log.line(Level::Info, "milter").word("server", reach.server);
                    let line = line.word("milter", &self.milter.address);
                    line.text("said", format_args!("{code} {enhanced} {words}")).send();
                }
                Err(refusal(&verdict).unwrap_or(No::Refused))
            }
            Err(trouble) => {
                self.state = State::Gone(Gone::Unheard);
                let on_failure = self.milter.on_failure;
                let line = reach.log.line(Level::Warn, "milter-failed");
                let line = line.word("server", reach.server).word("milter", &self.milter.address);
                let line = line.text("reason", &trouble);
                line.word("then", on_failure.word()).send();
                match on_failure {
                    OnFailure::Accept => Ok(()),
                    OnFailure::Defer => Err(No::Unheard),
                }
            }
        }
    }
}

/// The "no" in a verdict.
fn refusal(verdict: &Verdict) -> Option<No> {
    match verdict {
        Verdict::Reject => Some(No::Refused),
        Verdict::Defer => Some(No::Deferred),
        Verdict::Reply(reply) => Some(No::Said(reply.clone())),
        Verdict::Close => Some(No::Close),
        Verdict::Continue | Verdict::Accept | Verdict::Skip | Verdict::Discard => None,
    }
}
