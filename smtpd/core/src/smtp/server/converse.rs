//! Commands: what each does to the session, and when it is out of order.

use std::fmt;
use std::time::Duration;

use mailroot_common::address::Mailbox;
use mailroot_common::status::Class;
use mailroot_common::units::{ByteSize, Span, Timestamp};

use super::{End, Hello, Question, Server, Stage, State, Transaction, say};
use crate::queue::envelope::{BodyKind, Recipient};
use crate::queue::wishes::{HoldBack, Wishes};
use crate::smtp::command::{self, Command, Mail, Rcpt};
use crate::smtp::etrn::Etrn;
use crate::smtp::extension::{Bounds, Extension};
use crate::smtp::refusal::Refusal;
use crate::smtp::xclient::ATTRIBUTES;

impl Server {
    pub(super) fn on_line(&mut self, line: &[u8], now: Duration) {
        let command = command::parse(line, &self.settings.grammar);
        match command {
            Ok(command) => self.on_command(command, now),
            Err(complaint) => {
                let stage = match complaint.refusal {
                    Refusal::BadSender => Stage::Mail,
                    Refusal::BadRecipient => Stage::Rcpt,
                    _ => Stage::Command,
                };
                self.refuse(stage, complaint.refusal, complaint.about);
            }
        }
        self.stop_if_asked();
    }

    fn on_command(&mut self, command: Command<'_>, now: Duration) {
        match command {
            Command::Mail(mail) => self.on_mail(mail, now),
            Command::Rcpt(rcpt) => self.on_rcpt(rcpt),
            Command::Data => self.on_data(),
            Command::Bdat(chunk) => self.on_bdat(chunk, now),
            Command::Quit => {
                self.forget_transaction();
                say(&mut self.output, format_args!("221 2.0.0 {} closing", self.settings.host));
                self.state = State::Closed(End::Quit);
            }
            Command::Query => {
                self.forget_transaction();
                self.say(format_args!("220 2.0.0 ask"));
                self.state = State::Closed(End::Inquiry);
            }
            Command::Helo(_)
            | Command::Ehlo(_)
            | Command::Rset
            | Command::Noop
            | Command::Help
            | Command::Vrfy
            | Command::StartTls
            | Command::Auth(_)
            | Command::Etrn(_)
            | Command::Reverse(_)
            | Command::Xclient(_)
                if self.idle_commands >= self.settings.idle_commands_max =>
            {
                self.refuse(Stage::Session, Refusal::TooManyCommands, None);
            }
            Command::Helo(name) => self.on_hello(name, false, now),
            Command::Ehlo(name) => self.on_hello(name, true, now),
            Command::Rset => {
                self.forget_transaction();
                self.answer_idly("250 2.0.0 forgotten");
            }
            Command::Noop => self.answer_idly("250 2.0.0 ok"),
            Command::Help => {
                let offer = self.offer_now();
                let named =
                    |it: Extension, word: &'static str| if offer.has(it) { word } else { "" };
                let etrn = named(Extension::Etrn, " ETRN");
                let atrn = named(Extension::Atrn, " ATRN");
                let turn = named(Extension::Turn, " TURN");
                let auth = if self.offered_logins().is_some() { " AUTH" } else { "" };
                let tls = if self.offers_tls() { " STARTTLS" } else { "" };
                let xclient = if self.may_tell { " XCLIENT" } else { "" };
                self.answer_idly(&format!(
                    "214 2.0.0 HELO EHLO{tls}{auth} MAIL RCPT DATA BDAT RSET NOOP VRFY{etrn}{atrn}{turn}{xclient} HELP QUIT (RFC 5321)"
                ));
            }
            Command::Etrn(etrn) => self.on_etrn(etrn),
            Command::Reverse(domains) => self.on_reverse(domains),
            Command::StartTls => self.on_starttls(),
            Command::Auth(auth) => self.on_auth(auth),
            Command::Xclient(argument) => self.on_xclient(argument),
            // RFC 5321 section 7.3: who exists is nobody's business.
            Command::Vrfy => self.answer_idly("252 2.0.0 not verified; send RCPT and mail"),
        }
    }

    fn answer_idly(&mut self, reply: &str) {
        self.idle_commands += 1;
        self.say(format_args!("{reply}"));
    }

    fn on_hello(&mut self, name: &str, esmtp: bool, now: Duration) {
        self.forget_transaction();
        self.idle_commands += 1;
        self.hello = Some(Hello { name: name.to_owned(), esmtp });
        let settings = std::sync::Arc::clone(&self.settings);
        if !esmtp {
            self.say(format_args!("250 {}", settings.host));
            return;
        }
        let size_max = Some(settings.body.size_max).filter(|&size| size != u64::MAX);
        let size_max = size_max.map(ByteSize::bytes);
        let lines = self.offer_now().lines(Bounds {
            size_max,
            recipients_max: settings.recipients_max,
            release_max: settings.release_max,
            deliver_by_min: settings.deliver_by_min,
            now: self.wall(now),
        });
        let mut lines = lines.peekable();
        let sign = |more: bool| if more { '-' } else { ' ' };
        self.say(format_args!("250{}{}", sign(lines.peek().is_some()), settings.host));
        if self.offers_tls() {
            // HELP is always offered, so that this is never the last line.
            self.say(format_args!("250-STARTTLS"));
        }
        if let Some(mechanisms) = self.offered_logins() {
            self.say(format_args!("250-AUTH {mechanisms}"));
        }
        if self.may_tell {
            self.say(format_args!("250-XCLIENT {ATTRIBUTES}"));
        }
        while let Some(line) = lines.next() {
            self.say(format_args!("250{}{line}", sign(lines.peek().is_some())));
        }
    }

    /// The wall clock at a moment of the session, unless somebody set it since.
    fn wall(&self, now: Duration) -> Timestamp {
        let passed = now.saturating_sub(self.started).as_millis();
        self.wall_at_start.after(Span::millis(u64::try_from(passed).unwrap_or(u64::MAX)))
    }

    /// RFC 1985 section 5.1: not before EHLO and not within a transaction.
    fn on_etrn(&mut self, etrn: Etrn) {
        if self.hello.is_none() {
            self.refuse(Stage::Command, Refusal::HelloFirst, None);
        } else if self.wants_tls() {
            self.refuse(Stage::Etrn, Refusal::TlsRequired, None);
        } else if self.transaction.is_some() {
            self.refuse(Stage::Command, Refusal::TransactionOpen, None);
        } else {
            self.asked_for = Some(etrn);
            self.state = State::Asking(Question::Etrn);
        }
    }
    /// Answers [`Question::Etrn`]: how many messages are on their way to the client's domain now,
    /// or why none.
    pub fn turned(&mut self, result: Result<u64, Refusal>, now: Duration) {
        self.quiet_since = now;
        if self.state != State::Asking(Question::Etrn) {
            debug_assert!(false, "the question is not open");
            return;
        }
        self.state = State::Commands;
        self.on_turn(result);
        self.stop_if_asked();
    }

    pub(super) fn on_turn(&mut self, result: Result<u64, Refusal>) {
        self.idle_commands += 1;
        let Some(asked) = self.asked_for.take().map(|asked| asked.to_string()) else { return };
        match result {
            Ok(0) => self.say(format_args!("251 2.0.0 no messages wait for {asked}")),
            Ok(1) => self.say(format_args!("253 2.0.0 1 message for {asked} started")),
            Ok(count) => self.say(format_args!("253 2.0.0 {count} messages for {asked} started")),
            Err(refusal) => self.refuse(Stage::Etrn, refusal, Some(&asked)),
        }
    }

    fn on_mail(&mut self, mail: Mail, now: Duration) {
        if mail.require_tls && !self.is_secured() {
            // Not offered here: what came in clear text was not kept from anybody (RFC 8689 section 2).
            self.refuse(Stage::Mail, Refusal::UnknownParameter, Some("REQUIRETLS"));
            return;
        }
        let out_of_order = if self.hello.is_none() {
            Some(Refusal::HelloFirst)
        } else if self.wants_tls() {
            Some(Refusal::TlsRequired)
        } else if self.decoder.is_some() {
            Some(Refusal::ChunksPending)
        } else if self.transaction.is_some() {
            Some(Refusal::MailTwice)
        } else {
            None
        };
        if let Some(refusal) = out_of_order {
            self.refuse(Stage::Mail, refusal, None);
            return;
        }
        let wall = self.wall(now);
        let wishes = Wishes {
            deliver_by: mail.by.map(|by| by.counted_from(wall)),
            release_at: mail.hold.map(|hold| hold.moment(wall)),
            held_for: mail.hold.and_then(HoldBack::span),
            priority: mail.priority.min(self.settings.priority_max),
            require_tls: mail.require_tls,
        };
        self.is_lowered = mail.priority > self.settings.priority_max;
        self.transaction = Some(Transaction {
            sender: mail.sender,
            declared_octets: mail.size,
            body: mail.body,
            smtputf8: mail.smtputf8,
            ret: mail.ret,
            envid: mail.envid,
            wishes,
            recipients: Vec::new(),
            refused: false,
        });
        let is_taken = |hold: HoldBack| hold.is_within(wall, self.settings.release_max);
        if !mail.hold.is_none_or(is_taken) {
            self.refuse_sender(Refusal::BadRelease);
        } else if wishes.are_at_odds() {
            self.refuse_sender(Refusal::ReleaseTooLate);
        } else if mail.by.is_some_and(|by| by.is_shorter_than(self.settings.deliver_by_min)) {
            self.refuse_sender(Refusal::BadDeadline);
        } else if mail.size > self.settings.body.size_max {
            self.refuse_sender(Refusal::TooLarge);
        } else if self.octets.saturating_add(mail.size) > self.settings.session_octets_max {
            self.refuse_sender(Refusal::SessionTooLarge);
        } else {
            self.state = State::Asking(Question::Sender);
        }
    }

    fn refuse_sender(&mut self, refusal: Refusal) {
        self.refuse(Stage::Mail, refusal, None);
        self.transaction = None;
        if refusal.enhanced().class() == Class::Transient {
            // The recipients and DATA that may have been sent with it.
            self.excused = self.settings.recipients_max.saturating_add(1);
        }
    }

    pub(super) fn on_sender_verdict(&mut self, verdict: Result<(), Refusal>) {
        self.state = State::Commands;
        match (verdict, &self.transaction) {
            (Ok(()), Some(transaction)) => {
                let said = Shown(transaction.sender.mailbox());
                if self.is_lowered {
                    // RFC 6710 section 4.
                    let priority = transaction.wishes.priority;
                    let reply =
                        format_args!("250 2.3.6 {said}sender ok, priority lowered to {priority}");
                    say(&mut self.output, reply);
                } else {
                    say(&mut self.output, format_args!("250 2.1.0 {said}sender ok"));
                }
            }
            (verdict, _) => {
                self.refuse_sender(verdict.err().unwrap_or(Refusal::LocalTrouble));
            }
        }
    }

    fn on_rcpt(&mut self, rcpt: Rcpt) {
        let full = usize::try_from(self.settings.recipients_max).unwrap_or(usize::MAX);
        let refusal = match &self.transaction {
            None => Some(Refusal::MailFirst),
            Some(_) if self.decoder.is_some() => Some(Refusal::ChunksPending),
            Some(transaction) if !rcpt.ascii && !transaction.smtputf8 => {
                Some(Refusal::NeedsSmtpUtf8)
            }
            Some(transaction) if transaction.recipients.len() >= full => {
                Some(Refusal::TooManyRecipients)
            }
            Some(_) => None,
        };
        self.candidate = Some(Recipient {
            mailbox: rcpt.mailbox,
            notify: rcpt.notify,
            orcpt: rcpt.orcpt,
            resolved: false,
            forwarded: false,
        });
        match refusal {
            Some(refusal) => self.refuse_recipient(refusal),
            None => self.state = State::Asking(Question::Recipient),
        }
    }

    pub(super) fn on_recipient_verdict(&mut self, verdict: Result<(), Refusal>) {
        self.state = State::Commands;
        if let Err(refusal) = verdict {
            self.refuse_recipient(refusal);
            return;
        }
        let Some((recipient, transaction)) = self.candidate.take().zip(self.transaction.as_mut())
        else {
            debug_assert!(false, "a recipient is judged within a transaction");
            return;
        };
        let said = Shown(Some(&recipient.mailbox));
        say(&mut self.output, format_args!("250 2.1.5 {said}recipient ok"));
        // One recipient named twice in the same words is one recipient.
        if !transaction.recipients.contains(&recipient) {
            transaction.recipients.push(recipient);
        }
    }

    fn refuse_recipient(&mut self, refusal: Refusal) {
        if let Some(transaction) = &mut self.transaction {
            transaction.refused = true;
        }
        let said = self.candidate.as_ref().map(|candidate| format!("<{}>", candidate.mailbox));
        let said = said.filter(|said| said.is_ascii());
        self.refuse(Stage::Rcpt, refusal, said.as_deref());
    }

    fn on_data(&mut self) {
        let binary = |transaction: &Transaction| transaction.body == BodyKind::BinaryMime;
        let refusal = match (self.why_no_body(), &self.transaction) {
            (Some(refusal), _) => Some(refusal),
            (None, Some(transaction)) if binary(transaction) => Some(Refusal::BinaryNeedsBdat),
            (None, _) if self.decoder.is_some() => Some(Refusal::ChunksPending),
            (None, _) => None,
        };
        match refusal {
            Some(refusal) => self.refuse(Stage::Data, refusal, None),
            None => self.state = State::Asking(Question::Body),
        }
    }

    /// Why no body may come now, as far as the order of commands goes.
    pub(super) fn why_no_body(&self) -> Option<Refusal> {
        match &self.transaction {
            None => Some(Refusal::MailFirst),
            Some(transaction) if !transaction.recipients.is_empty() => None,
            Some(transaction) if transaction.refused => Some(Refusal::NoValidRecipients),
            Some(_) => Some(Refusal::RecipientFirst),
        }
    }
}

/// An address in a reply, with a blank behind it; nothing if it is the null path or beyond ASCII.
/// No address is too long for a reply line.
struct Shown<'a>(Option<&'a Mailbox>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(mailbox) if mailbox.is_ascii() => write!(f, "<{mailbox}> "),
            _ => Ok(()),
        }
    }
}
