//! ATRN (RFC 2645) and TURN (RFC 821 section 3.8): a client that comes for its mail gets it over the
//! connection it has made.
//!
//! Only who has logged in may ask. Whether he may have what he asks for is a question for the house;
//! when it is granted this machine has said its last word, and the client greets. What it says before
//! it has heard the answer would be taken for that greeting, and ends the session.

use std::time::Duration;

use mailroot_common::address::Domain;

use super::{End, Question, Server, Stage, State};
use crate::smtp::extension::{Extension, Offer};
use crate::smtp::refusal::Refusal;

impl Server {
    /// The domains that [`Question::Reverse`] is about; empty stands for all that the client may have.
    #[must_use]
    pub fn fetched(&self) -> Option<&[Domain]> {
        self.fetched.as_deref()
    }

    /// Answers [`Question::Reverse`]: the connection is handed over, or why not.
    pub fn reversed(&mut self, verdict: Result<(), Refusal>, now: Duration) {
        self.quiet_since = now;
        if self.state != State::Asking(Question::Reverse) {
            debug_assert!(false, "the question is not open");
            return;
        }
        self.fetched = None;
        self.idle_commands += 1;
        self.state = State::Commands;
        match verdict {
            Ok(()) if !self.stopping => {
                self.say(format_args!("250 2.0.0 now you are the server"));
                self.state = State::Closed(End::Reversed);
            }
            Ok(()) => {}
            Err(refusal) => self.refuse(Stage::Reverse, refusal, None),
        }
        self.stop_if_asked();
    }

    pub(super) fn on_reverse(&mut self, domains: Vec<Domain>) {
        let refusal = if self.hello.is_none() {
            Refusal::HelloFirst
        } else if self.wants_tls() {
            Refusal::TlsRequired
        } else if self.user().is_none() {
            Refusal::AuthenticationRequired
        } else if self.transaction.is_some() {
            Refusal::TransactionOpen
        } else if self.more_behind {
            Refusal::OctetsBehindReversal
        } else {
            self.fetched = Some(domains);
            self.state = State::Asking(Question::Reverse);
            return;
        };
        self.refuse(Stage::Reverse, refusal, None);
    }

    /// What is offered of all at this point of the session: nothing that could not be used, such as
    /// fetching mail where there is no way to log in.
    pub(super) fn offer_now(&self) -> Offer {
        let mut offer = self.settings.grammar.offer;
        let has_fetching = offer.has(Extension::Atrn) || offer.has(Extension::Turn);
        if has_fetching && self.user().is_none() && self.offered_logins().is_none() {
            offer = offer.without(Extension::Atrn).without(Extension::Turn);
        }
        if !self.is_secured() {
            offer = offer.without(Extension::RequireTls);
        }
        offer
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::super::transcript::{Player, settings};
    use super::super::{Logins, Settings, Standing, Tls};
    use super::*;
    use crate::smtp::auth::Mechanism;

    fn player(only_under_tls: bool) -> Player {
        let logins = Logins { mechanisms: vec![Mechanism::Plain], only_under_tls, failures_max: 3 };
        let mut settings = Settings { logins, tls: Tls::Optional, ..settings() };
        settings.grammar.auth = true;
        settings.grammar.offer = Offer::all();
        let mut player = Player::new(settings);
        player.replies();
        player
    }

    fn say(player: &mut Player, line: &str) -> String {
        player.feed(format!("{line}\r\n").as_bytes(), 1000);
        player.replies().concat()
    }

    fn log_in(player: &mut Player) {
        let said = say(player, &format!("AUTH PLAIN {}", STANDARD.encode("\0ada\0secret")));
        assert!(said.starts_with("235"), "{said}");
    }

    #[test]
    fn whoever_has_logged_in_gets_the_connection_reversed() {
        for line in ["ATRN", "atrn branch.example,other.example", "TURN"] {
            let mut player = player(false);
            let offered = say(&mut player, "EHLO a");
            assert!(offered.contains("250-ATRN") && offered.contains("250-TURN"), "{offered}");
            assert!(!offered.contains("REQUIRETLS"), "{offered}");
            assert!(say(&mut player, line).starts_with("530 5.7.0"), "{line}");
            log_in(&mut player);
            assert!(say(&mut player, line).starts_with("250 2.0.0 "), "{line}");
            assert_eq!(player.server.end(), Some(End::Reversed));
            assert_eq!(player.server.standing(), Standing::Reversed);
        }
    }

    #[test]
    fn nothing_is_offered_where_there_is_no_login() {
        let mut player = player(true);
        let offered = say(&mut player, "EHLO a");
        assert!(!offered.contains("ATRN") && !offered.contains("TURN"), "{offered}");
        say(&mut player, "STARTTLS");
        let offered = say(&mut player, "EHLO a");
        assert!(offered.contains("250-ATRN") && offered.contains("250-REQUIRETLS"), "{offered}");
    }

    #[test]
    fn what_is_refused_leaves_the_session_and_what_comes_too_soon_ends_it() {
        let mut player = player(false);
        assert!(say(&mut player, "ATRN").starts_with("503 5.5.1 send HELO"));
        say(&mut player, "EHLO a");
        log_in(&mut player);
        for (line, code) in [
            ("ATRN nobody.example", "450 4.7.1"),
            ("ATRN empty.example", "453 4.2.0"),
            ("ATRN a b", "501 5.5.4"),
            ("TURN a", "501 5.5.4"),
            ("MAIL FROM:<a@x>", "250"),
            ("ATRN branch.example", "503 5.5.1 not between"),
            ("RSET", "250"),
        ] {
            let said = say(&mut player, line);
            assert!(said.starts_with(code), "{line}: {said}");
        }
        player.feed(b"ATRN branch.example\r\n220 mine\r\n", 1000);
        let said = player.replies().concat();
        assert!(said.starts_with("503 5.5.1 wait for"), "{said}");
        assert!(matches!(player.server.end(), Some(End::Refused(_))));
    }
}
