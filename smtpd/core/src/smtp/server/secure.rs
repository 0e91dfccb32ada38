//! STARTTLS (RFC 3207): what is agreed to, and what is forgotten with it.
//!
//! Whatever was said before the handshake could have been said by somebody in between. So nothing of
//! it survives, and a client that sends more behind STARTTLS without waiting for our answer is cut
//! off: read as clear text its octets would be a stranger's words in a session that is trusted.

use std::time::Duration;

use super::{Question, Server, Stage, State, Tls};
use crate::smtp::line::LineReader;
use crate::smtp::refusal::Refusal;

impl Server {
    /// Whether the session is under TLS.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.secured
    }

    /// Does away with [`super::Action::Handshake`]: the session is under TLS now and begins anew. Also
    /// said of a session that is under TLS from its first octet on, before anything has come.
    pub fn secured(&mut self, now: Duration) {
        self.quiet_since = now;
        self.secured = true;
        self.hello = None;
        self.login.forget();
        self.forget_transaction();
        self.lines = LineReader::default();
        if self.end().is_none() {
            self.state = State::Commands;
        }
        self.stop_if_asked();
    }

    pub(super) fn on_secure_verdict(&mut self, verdict: Result<(), Refusal>) {
        match verdict {
            Ok(()) => {
                self.say(format_args!("220 2.0.0 begin the handshake"));
                self.state = State::Handshake;
            }
            Err(refusal) => {
                self.state = State::Commands;
                self.refuse(Stage::Command, refusal, None);
            }
        }
    }

    /// Whether STARTTLS is offered.
    pub(super) fn offers_tls(&self) -> bool {
        self.settings.tls != Tls::Off && !self.secured
    }

    /// Whether no mail may come before TLS.
    pub(super) fn wants_tls(&self) -> bool {
        self.settings.tls == Tls::Required && !self.secured
    }

    pub(super) fn on_starttls(&mut self) {
        if self.settings.tls == Tls::Off {
            self.refuse(Stage::Command, Refusal::NotOffered, None);
        } else if self.secured {
            self.refuse(Stage::Command, Refusal::TlsActive, None);
        } else if self.more_behind {
            self.refuse(Stage::Command, Refusal::OctetsBehindStartTls, None);
        } else {
            self.idle_commands += 1;
            self.forget_transaction();
            self.state = State::Asking(Question::Secure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::super::transcript::{Player, settings};
    use super::*;

    fn player(tls: Tls) -> Player {
        let mut player = Player::new(Settings { tls, ..settings() });
        player.replies();
        player
    }

    fn codes(player: &mut Player) -> Vec<String> {
        player.replies().iter().map(|reply| reply[..3].to_owned()).collect()
    }

    #[test]
    fn nothing_said_before_the_handshake_survives_it() {
        let mut player = player(Tls::Optional);
        player.feed(b"EHLO a\r\n", 1);
        assert!(player.replies()[0].contains("\r\n250-STARTTLS\r\n"));
        player.feed(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@example.com>\r\nSTARTTLS\r\n", 1000);
        assert_eq!(codes(&mut player), ["250", "250", "220"]);
        assert!(player.server.is_secured() && player.server.hello().is_none());
        player.feed(b"DATA\r\nMAIL FROM:<a@x>\r\nEHLO a\r\n", 1000);
        let replies = player.replies();
        assert!(replies[0].starts_with("503 5.5.1 send MAIL"), "{replies:?}");
        assert!(replies[1].starts_with("503 5.5.1 send HELO"), "{replies:?}");
        assert!(!replies[2].contains("STARTTLS"), "{replies:?}");
        player.feed(b"STARTTLS\r\n", 1);
        assert_eq!(codes(&mut player), ["503"]);
    }

    #[test]
    fn octets_behind_starttls_end_the_session_unread() {
        for behind in ["EHLO injected\r\n", "MAIL FROM:<a@x>\r\n", "x", "\r\n"] {
            let mut player = player(Tls::Optional);
            player.feed(format!("EHLO a\r\nSTARTTLS\r\n{behind}").as_bytes(), 1000);
            assert_eq!(codes(&mut player), ["250", "503"], "{behind:?}");
            assert!(player.server.end().is_some() && !player.server.is_secured());
            assert_eq!(player.rejections.last(), Some(&("command", "octets-behind-starttls")));
        }
    }

    #[test]
    fn mail_waits_for_tls_where_it_is_required() {
        let mut player = player(Tls::Required);
        player.feed(b"EHLO a\r\nNOOP\r\nMAIL FROM:<a@x>\r\nETRN x\r\nSTARTTLS\r\n", 1000);
        assert_eq!(codes(&mut player), ["250", "250", "530", "502", "220"]);
        player.feed(b"EHLO a\r\nMAIL FROM:<a@x>\r\n", 1);
        assert_eq!(codes(&mut player), ["250", "250"]);
    }

    #[test]
    fn what_is_not_there_is_not_offered() {
        let mut player = player(Tls::Off);
        player.feed(b"EHLO a\r\nSTARTTLS\r\n", 1);
        let replies = player.replies();
        assert!(!replies[0].contains("STARTTLS") && replies[1].starts_with("502"), "{replies:?}");
    }

    #[test]
    fn a_handshake_waits_for_no_order_and_ends_with_one() {
        let mut player = player(Tls::Optional);
        player.feed(b"EHLO a\r\n", 1);
        player.server.stop();
        assert!(player.server.end().is_some());
    }
}
