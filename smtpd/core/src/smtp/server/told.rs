//! XCLIENT: from then on the session is another client's, and begins anew.
//!
//! Nothing that was proved before is the new client's: neither a login nor a certificate, which were the
//! named host's. It may be told again, because the connection is still that host's.

use std::time::Duration;

use super::{End, Hello, Question, Server, Stage, State};
use crate::smtp::refusal::Refusal;
use crate::smtp::xclient::Told;

impl Server {
    /// Whether the host at the other end may tell for whom it speaks.
    pub fn let_tell(&mut self, may: bool) {
        self.may_tell = may;
    }

    /// What [`Question::Told`] is about.
    #[must_use]
    pub fn told(&self) -> Option<&Told> {
        self.told.as_ref()
    }

    /// Answers [`Question::Told`]: the session is the other client's from now on, or why not.
    pub fn introduced(&mut self, verdict: Result<(), Refusal>, now: Duration) {
        self.quiet_since = now;
        let Some(told) = self.told.take().filter(|_| self.state == State::Asking(Question::Told))
        else {
            debug_assert!(false, "the question is not open");
            return;
        };
        self.state = State::Commands;
        match verdict {
            Ok(()) => {
                self.login.forget();
                self.hello = told.hello.map(|name| Hello { name, esmtp: told.is_esmtp });
                self.greet();
            }
            Err(refusal) => {
                // Nobody goes on as whoever was here before.
                self.refuse(Stage::Connect, refusal, None);
                if self.end().is_none() {
                    self.state = State::Closed(End::Refused(refusal));
                }
            }
        }
        self.stop_if_asked();
    }

    pub(super) fn on_xclient(&mut self, argument: &str) {
        if !self.may_tell {
            self.refuse(Stage::Command, Refusal::UnknownCommand, None);
        } else if self.transaction.is_some() {
            self.refuse(Stage::Command, Refusal::TransactionOpen, None);
        } else {
            self.idle_commands += 1;
            match Told::parse(argument) {
                Ok(told) => {
                    self.told = Some(told);
                    self.state = State::Asking(Question::Told);
                }
                Err(refusal) => self.refuse(Stage::Command, refusal, None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::transcript::{Player, settings};
    use super::super::{Logins, Settings};
    use crate::smtp::auth::Mechanism;

    fn player(may_tell: bool) -> Player {
        let logins = Logins { mechanisms: vec![Mechanism::Plain], ..Logins::default() };
        let mut settings = Settings { logins, ..settings() };
        settings.grammar.auth = true;
        let mut player = Player::new(settings);
        player.server.let_tell(may_tell);
        player.replies();
        player
    }

    fn say(player: &mut Player, lines: &str) -> Vec<String> {
        player.feed(lines.replace('|', "\r\n").as_bytes(), 9);
        player.replies()
    }

    #[test]
    fn only_a_named_host_is_offered_to_tell_and_heard() {
        let said = say(&mut player(false), "EHLO a|XCLIENT ADDR=192.0.2.7|XCLIENT|NOOP|");
        assert!(!said[0].contains("XCLIENT"), "{said:?}");
        let codes: Vec<&str> = said.iter().map(|reply| &reply[..3]).collect();
        assert_eq!(codes, ["250", "500", "500", "250"]);
        let said = say(&mut player(true), "EHLO a|XCLIENT ADDR=192.0.2.7|EHLO a|");
        assert!(said[0].contains("\r\n250-XCLIENT NAME ADDR PORT PROTO HELO\r\n"), "{said:?}");
        assert!(said[1].starts_with("220 mx.test"), "{said:?}");
        assert!(said[2].contains("\r\n250-XCLIENT "), "it may tell again: {said:?}");
    }

    #[test]
    fn a_client_that_is_told_begins_anew() {
        let mut player = player(true);
        let said = say(&mut player, "EHLO a|AUTH PLAIN AGFkYQBzZWNyZXQ=|XCLIENT ADDR=192.0.2.7|");
        assert!(said[1].starts_with("235") && said[2].starts_with("220"), "{said:?}");
        assert!(player.server.user().is_none() && player.server.hello().is_none());
        let said = say(&mut player, "MAIL FROM:<a@x>|EHLO b|");
        assert!(said[0].starts_with("503") && said[1].contains("250-AUTH PLAIN"), "{said:?}");
        // One that has greeted the host need not greet us.
        let said = say(&mut player, "XCLIENT HELO=c.test PROTO=SMTP|MAIL FROM:<a@x>|");
        assert!(said[1].starts_with("250"), "{said:?}");
        let hello = player.server.hello().unwrap();
        assert_eq!((hello.name.as_str(), hello.esmtp), ("c.test", false));
        // Not while a message is on its way, and not by halves.
        let said = say(&mut player, "XCLIENT ADDR=192.0.2.8|RSET|XCLIENT LOGIN=ada|XCLIENT|");
        let codes: Vec<&str> = said.iter().map(|reply| &reply[..3]).collect();
        assert_eq!(codes, ["503", "250", "555", "501"]);
        assert_eq!(player.server.hello().unwrap().name, "c.test");
    }
}
