//! What each reply means.

use std::sync::Arc;
use std::time::Duration;

use mailroot_common::status::{Class, EnhancedCode};

use super::super::super::extension::PeerExtensions;
use super::super::super::reply::Reply;
use super::super::transaction::{Progress, Transport};
use super::super::{Action, Ending};
use super::expect::Expect;
use super::{Client, EndedBy, Phase};
use crate::queue::outcome::Stage;

const CLOSING: u16 = 421;
const START_BODY: u16 = 354;
/// RFC 4954 section 4.
pub(super) const CHALLENGE: u16 = 334;

impl Client {
    pub(super) fn on_reply(&mut self, reply: Reply, now: Duration) {
        self.armed_at = now;
        let Some(expect) = self.expected.pop_front() else {
            self.on_unasked(reply);
            return;
        };
        if reply.code().as_u16() == CLOSING && expect != Expect::Quit {
            self.break_all(&Ending::from_reply(reply, expect.stage()), EndedBy::Peer);
            return;
        }
        // 3xx means "go on" in answer to DATA, and to a step of AUTH, only.
        let goes_on = match expect {
            Expect::Data => reply.code().as_u16() == START_BODY,
            Expect::Auth => reply.code().as_u16() == CHALLENGE,
            _ => false,
        };
        if reply.code().as_u16() / 100 == 3 && !goes_on {
            self.on_nonsense(expect, &reply);
            return;
        }
        match expect {
            Expect::Greeting => self.on_greeting(reply, now),
            Expect::Ehlo => self.on_ehlo(reply, now),
            Expect::Helo => self.on_helo(reply, now),
            Expect::StartTls => self.on_start_tls(&reply),
            Expect::Auth => self.on_auth(reply, now),
            Expect::Reset => self.on_reset(&reply),
            Expect::Mail => self.on_mail(reply),
            Expect::Rcpt(place) => {
                if let Some(first) = self.running.front_mut() {
                    first.on_rcpt(place, reply);
                }
            }
            Expect::Data => self.on_data(reply, now),
            Expect::Chunk => self.on_chunk(reply),
            Expect::End => self.on_end(reply),
            Expect::Etrn | Expect::Atrn => self.actions.push_back(Action::Answered(reply)),
            Expect::Quit => {
                self.phase = Phase::Closed;
                self.actions.push_back(Action::Close);
            }
        }
        if self.phase == Phase::Open {
            self.pump(now);
            if self.quits && self.running.is_empty() && self.expected.is_empty() {
                self.command(Expect::Quit, now, |out| out.extend_from_slice(b"QUIT\r\n"));
            }
        }
    }

    /// A reply where none is due: an early no to the body, or goodbye between transactions.
    fn on_unasked(&mut self, reply: Reply) {
        if reply.class() == Class::Success {
            let why = format!("the host said {reply}, unasked");
            self.lose(EnhancedCode::transient(5, 0), &why);
        } else {
            self.break_all(&Ending::from_reply(reply, Stage::Data), EndedBy::Peer);
        }
    }

    /// A reply that cannot answer what was asked.
    fn on_nonsense(&mut self, expect: Expect, reply: &Reply) {
        self.expected.push_front(expect);
        let why = format!("the host said {reply}, which is no answer");
        self.lose(EnhancedCode::transient(5, 0), &why);
    }

    /// The greeting or the hello was refused; QUIT leaves, nobody waits for its reply.
    pub(super) fn refuse(&mut self, reply: Reply, stage: Stage) {
        self.break_all(&Ending::from_reply(reply, stage), EndedBy::Peer);
        self.output.extend_from_slice(b"QUIT\r\n");
    }

    fn on_greeting(&mut self, reply: Reply, now: Duration) {
        if reply.class() != Class::Success {
            self.refuse(reply, Stage::Greeting);
        } else if self.settings.helo_only {
            self.say_helo(now);
        } else {
            self.say_ehlo(now);
        }
    }

    pub(super) fn say_ehlo(&mut self, now: Duration) {
        let hello = format!("EHLO {}\r\n", self.settings.name);
        self.command(Expect::Ehlo, now, |out| out.extend_from_slice(hello.as_bytes()));
    }

    fn on_ehlo(&mut self, reply: Reply, now: Duration) {
        match reply.class() {
            Class::Success => {
                self.peer = Arc::new(PeerExtensions::parse(reply.lines().skip(1)));
                self.secure(now);
            }
            Class::Transient => self.refuse(reply, Stage::Hello),
            Class::Permanent => self.say_helo(now),
        }
    }

    fn say_helo(&mut self, now: Duration) {
        let hello = format!("HELO {}\r\n", self.settings.name);
        self.command(Expect::Helo, now, |out| out.extend_from_slice(hello.as_bytes()));
    }

    fn on_helo(&mut self, reply: Reply, now: Duration) {
        if reply.class() == Class::Success {
            self.secure(now);
        } else {
            self.refuse(reply, Stage::Hello);
        }
    }

    pub(super) fn open(&mut self) {
        if let Some(ours) = self.settings.recipients_max {
            let theirs = self.peer.recipients_max.unwrap_or(u32::MAX);
            Arc::make_mut(&mut self.peer).recipients_max = Some(ours.min(theirs));
        }
        self.phase = Phase::Open;
        self.actions.push_back(Action::Ready);
    }

    /// A peer that refuses RSET is of no further use; the transaction behind it was not tried.
    fn on_reset(&mut self, reply: &Reply) {
        if reply.class() != Class::Success {
            let text = format!("the host refused RSET: {reply}");
            let cause = Ending::local(Stage::Mail, EnhancedCode::transient(5, 0), text);
            self.break_all(&cause, EndedBy::Us);
        }
    }

    fn on_mail(&mut self, reply: Reply) {
        if reply.class() == Class::Success {
            self.needs_reset = true;
            return;
        }
        self.pending.clear();
        if let Some(first) = self.running.front_mut() {
            first.end_all(&Ending::from_reply(reply, Stage::Mail));
        }
    }

    fn on_data(&mut self, reply: Reply, now: Duration) {
        let Some(first) = self.running.front_mut() else { return };
        if reply.code().as_u16() != START_BODY {
            if reply.class() == Class::Success {
                self.on_nonsense(Expect::Data, &reply);
            } else {
                first.end_all(&Ending::from_reply(reply, Stage::Data));
                self.finish_first();
            }
        } else if !first.has_accepted() {
            // Pipelined, and no recipient was accepted: an empty message takes it back.
            first.progress = Progress::End;
            self.needs_reset = false;
            self.output.extend_from_slice(b".\r\n");
            self.expect(Expect::End, now);
        }
    }

    fn on_chunk(&mut self, reply: Reply) {
        let Some(first) = self.running.front_mut() else { return };
        if reply.class() != Class::Success {
            first.end_all(&Ending::from_reply(reply, Stage::Data));
        }
        if first.progress == Progress::Body && !first.has_accepted() && self.expected.is_empty() {
            self.finish_first();
        }
    }

    fn on_end(&mut self, reply: Reply) {
        let Some(first) = self.running.front_mut() else { return };
        // Behind a pipelined transaction RSET has been said already.
        let refused_chunk = first.transport == Transport::Bdat && reply.class() != Class::Success;
        first.end_all(&Ending::from_reply(reply, Stage::End));
        self.needs_reset |= refused_chunk && self.running.len() == 1;
        self.finish_first();
    }
}
