//! AUTH (RFC 4954): when a client may log in, and the exchange that follows.
//!
//! Nothing about users is known here. What is refused is refused in the same words whoever is
//! named, and before TLS, where that is wanted, no name or password is even listened to.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailroot_common::password::Verifier;
use zeroize::Zeroizing;

use super::{Question, Server, Settings, Stage, State, say};
use crate::smtp::auth::{Channel, Claim, Exchange, Mechanism, RESPONSE_OCTETS_MAX, Step};
use crate::smtp::command::Auth;
use crate::smtp::line::{LINE_OCTETS_MAX, Line};
use crate::smtp::refusal::Refusal;

/// A login on its way, or done.
#[derive(Debug, Default)]
pub(super) struct Login {
    exchange: Option<Exchange>,
    claim: Option<Claim>,
    failures: u32,
    /// Who has logged in.
    user: Option<String>,
    /// Whose last word of an exchange is awaited.
    admitted: Option<String>,
    /// What logins can lean on besides words; boxed, because most sessions have nothing of it.
    channel: Option<Box<Channel>>,
}

impl Login {
    /// What was said before TLS does not count, but for what was wrong.
    pub(super) fn forget(&mut self) {
        *self = Self { failures: self.failures, ..Self::default() };
    }
}

impl Server {
    /// From now on these settings hold: a login has made another of the client.
    pub fn adopt(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    /// From now on logins may lean on what this says of the connection, until there is another handshake.
    pub fn over(&mut self, channel: Channel) {
        self.login.channel = (channel != Channel::default()).then(|| Box::new(channel));
    }

    /// What [`Question::Login`] is about.
    #[must_use]
    pub fn claim(&self) -> Option<&Claim> {
        self.login.claim.as_ref()
    }

    /// How the client logs in, while it does.
    #[must_use]
    pub fn mechanism(&self) -> Option<Mechanism> {
        self.login.exchange.as_ref().map(Exchange::mechanism)
    }

    /// Who has logged in.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.login.user.as_deref()
    }

    /// Answers [`Question::Login`] about a verifier; `nonce` is a fresh random word.
    pub fn verifier(&mut self, verifier: Verifier, nonce: &str, now: Duration) {
        self.quiet_since = now;
        let Some(exchange) = self.login.exchange.as_mut().filter(|_| asks(self.state)) else {
            debug_assert!(false, "the question is not open");
            return;
        };
        let step = exchange.on_verifier(verifier, nonce);
        self.on_step(step);
    }

    /// Answers [`Question::Login`] about a token, of which the client is to hear more first.
    pub fn challenged(&mut self, words: Vec<u8>, now: Duration) {
        self.quiet_since = now;
        let Some(exchange) = self.login.exchange.as_mut().filter(|_| asks(self.state)) else {
            debug_assert!(false, "the question is not open");
            return;
        };
        let step = exchange.on_words(words);
        self.on_step(step);
        self.stop_if_asked();
    }

    /// Answers [`Question::Login`]: by which name the client is known from now on, or why not.
    pub fn judged(&mut self, verdict: Result<String, Refusal>, now: Duration) {
        self.quiet_since = now;
        let Some(exchange) = self.login.exchange.as_mut().filter(|_| asks(self.state)) else {
            debug_assert!(false, "the question is not open");
            return;
        };
        match verdict {
            Ok(user) => {
                let step = exchange.on_admission();
                self.login.admitted = Some(user);
                self.on_step(step);
            }
            Err(Refusal::LoginFailed) => match exchange.on_refusal() {
                Some(words) => {
                    self.login.claim = None;
                    self.challenge(words);
                }
                None => self.fail_login(),
            },
            Err(refusal) => self.end_login(refusal),
        }
        self.stop_if_asked();
    }

    /// The login is wrong; with too many of these the session ends.
    fn fail_login(&mut self) {
        self.login.failures += 1;
        self.end_login(Refusal::LoginFailed);
        let most = self.settings.logins.failures_max;
        if self.login.failures >= most && self.end().is_none() {
            self.refuse(Stage::Session, Refusal::TooManyLogins, None);
        }
    }

    /// How long the next line may be: clients show tokens in the line of AUTH itself, which are longer than
    /// any command.
    pub(super) fn line_octets_max(&self, octets: &[u8]) -> usize {
        let takes_tokens = self.settings.logins.mechanisms.iter().any(|it| it.is_bearer());
        let is_auth = || octets.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "));
        if self.secured && takes_tokens && is_auth() {
            RESPONSE_OCTETS_MAX
        } else {
            LINE_OCTETS_MAX
        }
    }

    /// The words behind AUTH in the reply to EHLO; nothing where no login would be taken.
    pub(super) fn offered_logins(&self) -> Option<String> {
        let logins = &self.settings.logins;
        let in_clear_text = !self.secured && (logins.only_under_tls || self.wants_tls());
        let may = self.login.user.is_none() && !in_clear_text;
        let usable = logins.mechanisms.iter().filter(|it| may && self.can_log_in_by(**it));
        let names: Vec<&str> = usable.map(|it| it.name()).collect();
        (!names.is_empty()).then(|| names.join(" "))
    }

    /// Whether the connection is one on which this mechanism has something to lean on.
    fn can_log_in_by(&self, mechanism: Mechanism) -> bool {
        let channel = self.login.channel.as_deref().filter(|_| self.secured);
        match mechanism {
            Mechanism::External => channel.is_some_and(|channel| channel.is_users),
            Mechanism::ScramSha256Plus => channel.is_some_and(Channel::is_known),
            // Whoever has heard a token is its user from then on.
            Mechanism::OauthBearer | Mechanism::Xoauth2 => self.secured,
            Mechanism::Gssapi | Mechanism::ScramSha256 | Mechanism::Plain | Mechanism::Login => {
                true
            }
        }
    }

    pub(super) fn on_auth(&mut self, auth: Auth<'_>) {
        let logins = &self.settings.logins;
        let mechanism = Mechanism::named(auth.mechanism);
        let mechanism =
            mechanism.filter(|it| logins.mechanisms.contains(it) && self.can_log_in_by(*it));
        let refusal = if logins.mechanisms.is_empty() {
            Refusal::NotOffered
        } else if self.hello.is_none() {
            Refusal::HelloFirst
        } else if !self.secured && (logins.only_under_tls || self.wants_tls()) {
            Refusal::LoginNeedsTls
        } else if self.login.user.is_some() {
            Refusal::LoginTwice
        } else if self.transaction.is_some() {
            Refusal::TransactionOpen
        } else if let Some(mechanism) = mechanism {
            self.idle_commands += 1;
            self.begin_login(mechanism, auth.initial);
            return;
        } else {
            Refusal::MechanismUnknown
        };
        self.refuse(Stage::Auth, refusal, None);
    }

    fn begin_login(&mut self, mechanism: Mechanism, initial: Option<&str>) {
        let bound = Mechanism::ScramSha256Plus;
        let is_offered =
            self.settings.logins.mechanisms.contains(&bound) && self.can_log_in_by(bound);
        let channel = self.login.channel.as_deref().cloned().unwrap_or_default();
        let channel = Channel { is_offered, ..channel };
        let exchange = Exchange::new(mechanism, channel);
        let prompt = exchange.prompt();
        self.login.exchange = Some(exchange);
        match initial {
            None => self.challenge(prompt),
            // RFC 4954 section 4: an empty response is written so where none would be none.
            Some("=") => self.on_response(b""),
            Some(text) => self.on_encoded(text.as_bytes()),
        }
    }

    /// A line of the exchange.
    pub(super) fn take_response(&mut self, octets: &[u8], now: Duration) -> usize {
        let mechanism = self.login.exchange.as_ref().map(Exchange::mechanism);
        let max = mechanism.map_or(LINE_OCTETS_MAX, Mechanism::response_octets_max);
        match self.lines.take_up_to(max, octets) {
            Line::Partial => 0,
            Line::Skipped { octets } => octets,
            Line::TooLong { octets } => {
                self.quiet_since = now;
                self.break_login_off(Refusal::ResponseTooLong);
                octets
            }
            Line::BareEnd => {
                self.end_login(Refusal::BareLineEndInCommand);
                0
            }
            Line::Whole { text, octets } => {
                self.quiet_since = now;
                if text == b"*" {
                    self.break_login_off(Refusal::LoginCancelled);
                } else {
                    self.on_encoded(text);
                }
                self.stop_if_asked();
                octets
            }
        }
    }

    fn on_encoded(&mut self, text: &[u8]) {
        // Half a password in front of what makes no sense is wiped as well.
        let mut said = Zeroizing::new(Vec::with_capacity(text.len()));
        match STANDARD.decode_vec(text, &mut said) {
            Ok(()) => self.on_response(&said),
            Err(_) => self.break_login_off(Refusal::BadResponse),
        }
    }

    fn on_response(&mut self, said: &[u8]) {
        let Some(exchange) = &mut self.login.exchange else {
            debug_assert!(false, "a response belongs to an exchange");
            return;
        };
        let step = exchange.on_response(said);
        self.on_step(step);
    }

    fn on_step(&mut self, step: Step) {
        self.login.claim = None;
        match step {
            Step::Challenge(words) => self.challenge(&words),
            Step::Judge(claim) => {
                self.login.claim = Some(claim);
                self.state = State::Asking(Question::Login);
            }
            Step::Done => {
                self.state = State::Commands;
                self.login.exchange = None;
                self.login.user = self.login.admitted.take();
                self.say(format_args!("235 2.7.0 logged in"));
            }
            Step::Malformed => self.end_login(Refusal::BadResponse),
            Step::Unbound => self.end_login(Refusal::ChannelDiffers),
            Step::Refused => self.fail_login(),
        }
    }

    fn challenge(&mut self, words: &[u8]) {
        say(&mut self.output, format_args!("334 {}", STANDARD.encode(words)));
        self.state = State::Login;
    }

    /// The client does not go on as it should; a login that was wrong by then stays wrong.
    fn break_login_off(&mut self, refusal: Refusal) {
        match self.login.exchange.as_ref().is_some_and(Exchange::is_refused) {
            true => self.fail_login(),
            false => self.end_login(refusal),
        }
    }

    fn end_login(&mut self, refusal: Refusal) {
        self.login.exchange = None;
        self.login.claim = None;
        self.login.admitted = None;
        self.state = State::Commands;
        self.refuse(Stage::Auth, refusal, None);
    }
}

fn asks(state: State) -> bool {
    state == State::Asking(Question::Login)
}

#[cfg(test)]
mod tests {
    use super::super::transcript::{Player, settings};
    use super::super::{Logins, Settings, Tls};
    use super::*;

    fn logins(only_under_tls: bool) -> Settings {
        let mechanisms = Mechanism::ALL.to_vec();
        let logins = Logins { mechanisms, only_under_tls, failures_max: 3 };
        let mut settings = Settings { logins, tls: Tls::Optional, ..settings() };
        settings.grammar.auth = true;
        settings
    }

    fn say_all(player: &mut Player, lines: &[&str]) -> Vec<String> {
        lines.iter().for_each(|line| player.feed(format!("{line}\r\n").as_bytes(), 7));
        player.replies().iter().map(|reply| reply.trim_end().replace("\r\n", "|")).collect()
    }

    fn player(settings: Settings) -> Player {
        let mut player = Player::new(settings);
        player.feed(b"EHLO a\r\n", 100);
        player.replies();
        player
    }

    fn encoded(text: &str) -> String {
        STANDARD.encode(text)
    }

    #[test]
    fn a_client_logs_in_once_and_by_every_mechanism() {
        let plain = format!("AUTH PLAIN {}", encoded("\0ada\0secret"));
        let (ada, secret) = (encoded("ada"), encoded("secret"));
        let initial = format!("auth login {ada}");
        for lines in [
            vec![plain.as_str()],
            vec!["AUTH plain", &plain[11..]],
            vec!["AUTH LOGIN", &ada, &secret],
            vec![&initial, &secret],
        ] {
            let mut player = player(logins(false));
            let said = say_all(&mut player, &lines);
            assert_eq!(said.last().unwrap(), "235 2.7.0 logged in", "{lines:?}: {said:?}");
            assert_eq!(player.server.user(), Some("ada"));
            let said = say_all(&mut player, &["AUTH LOGIN", "EHLO a", "MAIL FROM:<a@x> AUTH=<>"]);
            assert!(said[0].starts_with("503") && !said[1].contains("AUTH"), "{said:?}");
            assert!(said[2].starts_with("250"), "{said:?}");
        }
    }

    #[test]
    fn before_tls_no_password_is_listened_to() {
        let mut player = player(logins(true));
        let plain = format!("AUTH PLAIN {}", encoded("\0ada\0secret"));
        let said = say_all(&mut player, &["EHLO a", &plain]);
        assert!(!said[0].contains("AUTH") && said[1].starts_with("538 5.7.11"), "{said:?}");
        let said = say_all(&mut player, &["STARTTLS", "EHLO a", &plain]);
        let offered = "250-AUTH GSSAPI OAUTHBEARER XOAUTH2 SCRAM-SHA-256 PLAIN LOGIN";
        assert!(said[1].contains(offered), "{said:?}");
        assert!(said[2].starts_with("235"), "{said:?}");
    }

    #[test]
    fn a_login_before_tls_is_forgotten_with_it() {
        let mut player = player(logins(false));
        let plain = format!("AUTH PLAIN {}", encoded("\0ada\0secret"));
        say_all(&mut player, &[&plain, "STARTTLS"]);
        assert!(player.server.is_secured() && player.server.user().is_none());
    }

    #[test]
    fn failures_sound_alike_and_are_counted() {
        let mut player = player(logins(false));
        let bad = |user: &str| format!("AUTH PLAIN {}", encoded(&format!("\0{user}\0wrong")));
        let said = say_all(&mut player, &[&bad("ada"), &bad("nobody"), &bad("ada")]);
        assert_eq!(said[0], "535 5.7.8 name or password is wrong");
        assert_eq!((&said[0], &said[0]), (&said[1], &said[2]));
        assert!(said[3].starts_with("421 4.7.0"), "{said:?}");
        assert!(player.server.end().is_some());
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_leaves_the_session() {
        let mut player = player(logins(false));
        let (long, longer) = ("x".repeat(3000), "x".repeat(13_000));
        for (lines, code) in [
            (vec!["AUTH"], "501"),
            (vec!["AUTH NTLM"], "504 5.5.4"),
            (vec!["AUTH PLAIN ***"], "501 5.5.2"),
            (vec!["AUTH PLAIN ="], "501 5.5.2"),
            (vec!["AUTH PLAIN x y"], "501"),
            (vec!["AUTH LOGIN", "*"], "501 5.7.0"),
            (vec!["AUTH LOGIN", "NOOP!"], "501 5.5.2"),
            (vec!["AUTH LOGIN", &long], "500 5.5.6"),
            (vec!["AUTH GSSAPI", "*"], "501 5.7.0"),
            (vec!["AUTH GSSAPI", &longer], "500 5.5.6"),
        ] {
            let said = say_all(&mut player, &lines);
            assert!(said.last().unwrap().starts_with(code), "{lines:?}: {said:?}");
            assert!(player.server.claim().is_none() && player.server.mechanism().is_none());
        }
        let said = say_all(&mut player, &["MAIL FROM:<a@x>", "AUTH LOGIN", "RSET", "NOOP"]);
        assert!(said[1].starts_with("503 5.5.1 not between"), "{said:?}");
        assert!(said[3].starts_with("250"), "{said:?}");
    }

    #[test]
    fn tickets_are_long_and_take_several_words() {
        let mut player = player(logins(false));
        let ticket = "t".repeat(9_000);
        let said = say_all(&mut player, &["AUTH GSSAPI", &encoded(&ticket)]);
        assert_eq!(said, ["334", &format!("334 {}", encoded("9000"))]);
        let said = say_all(&mut player, &["", &encoded("ada")]);
        assert_eq!(said.last().unwrap(), "235 2.7.0 logged in", "{said:?}");
        assert_eq!(player.server.user(), Some("ada"));
    }

    /// What is offered, before the handshake and behind it, to a client that proves this.
    fn offered(channel: Channel) -> (String, String) {
        let mut player = player(logins(false));
        player.channel = channel;
        let words = |player: &mut Player| {
            let said = say_all(player, &["EHLO a"]).concat();
            let line = said.split('|').find_map(|line| line.strip_prefix("250-AUTH "));
            line.unwrap_or_default().to_owned()
        };
        let before = words(&mut player);
        say_all(&mut player, &["STARTTLS"]);
        (before, words(&mut player))
    }

    #[test]
    fn what_leans_on_the_connection_is_offered_where_there_is_something_to_lean_on() {
        let plain = "GSSAPI SCRAM-SHA-256 PLAIN LOGIN".to_owned();
        let tokens = "OAUTHBEARER XOAUTH2";
        let certified = Channel { is_users: true, ..Channel::default() };
        let exporter = Channel { exporter: Some([1; 32]), ..Channel::default() };
        let end_point = Channel { end_point: Some(vec![1]), ..certified.clone() };
        let all = "GSSAPI EXTERNAL TOKENS SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN";
        for (channel, behind) in [
            (Channel::default(), "GSSAPI TOKENS SCRAM-SHA-256 PLAIN LOGIN"),
            (certified, "GSSAPI EXTERNAL TOKENS SCRAM-SHA-256 PLAIN LOGIN"),
            (exporter, "GSSAPI TOKENS SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN"),
            (end_point, all),
        ] {
            assert_eq!(offered(channel), (plain.clone(), behind.replace("TOKENS", tokens)));
        }
        let mut player = player(logins(false));
        let first = format!("AUTH SCRAM-SHA-256-PLUS {}", encoded("p=tls-exporter,,n=ada,r=abc"));
        for line in ["AUTH EXTERNAL =", "AUTH EXTERNAL", &first] {
            let said = say_all(&mut player, &[line]);
            assert!(said[0].starts_with("504"), "{line}: {said:?}");
        }
    }

    #[test]
    fn a_certificate_logs_in_whom_it_is_for_and_nobody_else() {
        let begin = || {
            let mut player = player(logins(false));
            player.channel = Channel { is_users: true, ..Channel::default() };
            say_all(&mut player, &["STARTTLS", "EHLO a"]);
            player
        };
        let ada = encoded("ada");
        let initial = format!("AUTH EXTERNAL {ada}");
        for lines in [
            vec!["AUTH EXTERNAL ="],
            vec!["AUTH EXTERNAL", ""],
            vec![&initial],
            vec!["AUTH EXTERNAL", &ada],
        ] {
            let mut player = begin();
            let said = say_all(&mut player, &lines);
            assert_eq!(said.last().unwrap(), "235 2.7.0 logged in", "{lines:?}: {said:?}");
            assert_eq!(player.server.user(), Some("ada"));
        }
        let other = format!("AUTH EXTERNAL {}", encoded("eve"));
        let odd = format!("AUTH EXTERNAL {}", STANDARD.encode([0xFF, 0, 1]));
        for (line, code) in [(&*other, "535"), (&*odd, "501"), ("AUTH EXTERNAL ?", "501")] {
            let mut player = begin();
            let said = say_all(&mut player, &[line]);
            assert!(said[0].starts_with(code), "{line}: {said:?}");
            assert_eq!(player.server.user(), None);
        }
    }

    #[test]
    fn a_login_that_was_kept_from_its_connection_is_refused() {
        let mut player = player(logins(false));
        player.channel = Channel { exporter: Some([1; 32]), ..Channel::default() };
        say_all(&mut player, &["STARTTLS", "EHLO a"]);
        let stripped = format!("AUTH SCRAM-SHA-256 {}", encoded("y,,n=ada,r=abc"));
        let unknown = format!("AUTH SCRAM-SHA-256-PLUS {}", encoded("p=tls-unique,,n=ada,r=abc"));
        for line in [&stripped, &unknown] {
            let said = say_all(&mut player, &[line]);
            assert!(said[0].starts_with("535 5.7.8"), "{line}: {said:?}");
            assert_eq!(player.rejections.last(), Some(&("auth", "channel-differs")));
        }
        let plain = format!("AUTH SCRAM-SHA-256 {}", encoded("n,,n=ada,r=abc"));
        assert!(say_all(&mut player, &[&plain])[0].starts_with("334"));
    }

    #[test]
    fn a_token_that_is_refused_is_refused_in_two_steps() {
        let mut player = player(logins(false));
        let shown = |token: &str| encoded(&format!("user=ada\u{1}auth=Bearer {token}\u{1}\u{1}"));
        let clear = say_all(&mut player, &[&format!("AUTH XOAUTH2 {}", shown("good"))]);
        assert!(clear[0].starts_with("504"), "{clear:?}");
        say_all(&mut player, &["STARTTLS", "EHLO a"]);
        let said = say_all(&mut player, &[&format!("AUTH XOAUTH2 {}", shown("bad"))]);
        let told = STANDARD.decode(&said[0][4..]).unwrap();
        assert_eq!(told, b"{\"status\":\"401\",\"schemes\":\"bearer\"}", "{said:?}");
        assert!(say_all(&mut player, &[""])[0].starts_with("535 5.7.8"));
        let said = say_all(&mut player, &["AUTH XOAUTH2", &shown("bad"), "AQ=="]);
        assert!(said[1].starts_with("334 ") && said[2].starts_with("535"), "{said:?}");
        // Longer than any command, in one line.
        let long = format!("AUTH XOAUTH2 {}", shown(&"t".repeat(6000)));
        assert!(say_all(&mut player, &[&long])[0].starts_with("334 "));
        let said = say_all(&mut player, &[""]);
        assert!(said[0].starts_with("535") && said[1].starts_with("421"), "{said:?}");
        let longer = format!("AUTH XOAUTH2 {}", shown(&"t".repeat(12_000)));
        let mut player = self::player(logins(false));
        say_all(&mut player, &["STARTTLS", "EHLO a"]);
        assert!(say_all(&mut player, &[&longer])[0].starts_with("500"));
        let said = say_all(&mut player, &[&format!("AUTH XOAUTH2 {}", shown("good"))]);
        assert_eq!(said, ["235 2.7.0 logged in"]);
        assert_eq!(player.server.user(), Some("ada"));
    }

    #[test]
    fn a_wrong_token_counts_however_its_refusal_is_answered() {
        let mut player = player(logins(false));
        say_all(&mut player, &["STARTTLS", "EHLO a"]);
        let wrong = encoded("user=ada\u{1}auth=Bearer bad\u{1}\u{1}");
        let auth = format!("AUTH XOAUTH2 {wrong}");
        for answer in ["*", "?"] {
            let said = say_all(&mut player, &[&auth, answer]);
            assert!(said[1].starts_with("535 5.7.8"), "{answer}: {said:?}");
        }
        let said = say_all(&mut player, &[&auth, &"x".repeat(20_000)]);
        assert!(said[1].starts_with("535") && said[2].starts_with("421"), "{said:?}");
    }

    #[test]
    fn scram_tells_a_wrong_proof() {
        let mut player = player(logins(false));
        let first = encoded("n,,n=ada,r=abc");
        let said = say_all(&mut player, &[&format!("AUTH SCRAM-SHA-256 {first}")]);
        let challenge = STANDARD.decode(&said[0][4..]).unwrap();
        assert!(challenge.starts_with(b"r=abcnonce,s="), "{said:?}");
        let wrong = encoded(&format!("c=biws,r=abcnonce,p={}", encoded(&"x".repeat(32))));
        let said = say_all(&mut player, &[&wrong]);
        assert!(said[0].starts_with("535 5.7.8"), "{said:?}");
    }
}
