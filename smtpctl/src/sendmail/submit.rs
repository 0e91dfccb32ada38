//! Handing a message in: SMTP over the submit socket.
//!
//! In: a message and its envelope. Out: that it is durable, or why not. Whoever wants to see what becomes of it
//! stays in the session, and the daemon keeps what is said to other hosts for as long. All recipients go in one
//! transaction, so that a caller who hears of a failure and tries again sends nothing twice. While the
//! daemon restarts, or has as many connections as it may, this waits for a moment and tries again: most
//! callers never do.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::message::{Author, Message};
use super::{DATA_ERROR, Failure, NOT_PERMITTED, TRY_LATER, UNAVAILABLE};
use crate::smtp::{Dialogue, Reply, dotted};

/// How long the daemon may take for a reply. Milters may take half of it to look at a message, and whoever
/// gives up before them hands it in twice.
const WAIT: Duration = Duration::from_mins(10);
/// How long the daemon may take for its first words, for which nothing has to be done. Its socket is open even
/// while it is not there, where systemd holds it.
pub(super) const GREETING: Duration = Duration::from_mins(1);
/// How long a daemon that is not there is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// What is handed in.
#[derive(Clone, Debug)]
pub(super) struct Submission {
    /// The message as it was written.
    pub(super) message: Message,
    /// The sender that was given; absent is the user himself.
    pub(super) sender: Option<String>,
    /// The user's login name.
    pub(super) login: String,
    /// His name in people's words.
    pub(super) name: String,
    /// Who is to get it.
    pub(super) recipients: Vec<String>,
    /// BODY, if it was given.
    pub(super) body: Option<String>,
    /// NOTIFY, if it was given.
    pub(super) notify: Option<String>,
    /// RET, if it was given.
    pub(super) returned: Option<String>,
    /// ENVID, if it was given.
    pub(super) envid: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// The last words of the daemon; none if nobody gets it.
    pub(super) reply: Option<String>,
    /// Recipients that were refused, with the words.
    pub(super) refused: Vec<String>,
}

/// Who is told how it goes.
pub(super) trait Audience {
    /// What is said.
    fn hear(&mut self, line: &str);
    /// Whether it stays to see what becomes of the message.
    fn stays(&self) -> bool;
    /// The message is durable, with these words; the session lasts until this returns.
    fn see(&mut self, reply: &str);
}

/// Nobody is told.
pub(super) struct Nobody;

impl Audience for Nobody {
    fn hear(&mut self, _line: &str) {}

    fn stays(&self) -> bool {
        false
    }

    fn see(&mut self, _reply: &str) {}
}

/// Why a try failed.
enum Trouble {
    /// The daemon is not there, or has no place: it may be in a moment.
    Passing(String),
    /// For good, or for longer than one waits.
    Final(Failure),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Passing(format!("the connection broke: {error}"))
    }
}

/// Hands a message in.
pub(super) fn submit(
    socket: &Path,
    submission: &Submission,
    audience: &mut dyn Audience,
) -> Result<Taken, Failure> {
    let begun = Instant::now();
    loop {
        let why = match attempt(socket, submission, audience) {
            Ok(taken) => return Ok(taken),
            Err(Trouble::Final(failure)) => return Err(failure),
            Err(Trouble::Passing(why)) => why,
        };
        if begun.elapsed() >= PATIENCE {
            return Err(Failure { code: TRY_LATER, words: format!("not queued: {why}") });
        }
        std::thread::sleep(PAUSE);
    }
}

/// Asks whether addresses would be taken, one after the other; the worst exit code.
pub(super) fn verify(socket: &Path, recipients: &[String]) -> Result<Vec<Reply>, Failure> {
    let asked = || -> Result<Vec<Reply>, Trouble> {
        let mut nobody = Nobody;
        let mut session = Session::open(socket, &mut nobody)?;
        session.expect("MAIL FROM:<>", 2)?;
        let ask = |to: &String| session.ask(&format!("RCPT TO:<{to}>")).map_err(Trouble::from);
        recipients.iter().map(ask).collect()
    };
    asked().map_err(|trouble| match trouble {
        Trouble::Passing(why) => Failure { code: TRY_LATER, words: why },
        Trouble::Final(failure) => failure,
    })
}

/// How large a message may be; nothing where the daemon has no limit, or cannot be asked.
pub(super) fn size_max(socket: &Path) -> Option<u64> {
    let mut nobody = Nobody;
    let mut session = Session::open(socket, &mut nobody).ok()?;
    let said = session.offers.iter().find_map(|line| line.strip_prefix("SIZE "))?.trim().parse();
    // What QUIT is answered does not matter.
    let _ = session.ask("QUIT");
    said.ok().filter(|most| *most > 0)
}

/// One connection.
fn attempt(
    socket: &Path,
    submission: &Submission,
    audience: &mut dyn Audience,
) -> Result<Taken, Trouble> {
    let mut session = Session::open(socket, audience)?;
    if session.audience.stays() {
        // A daemon that does not know it keeps less to be seen.
        session.ask("VERB")?;
    }
    let login = &submission.login;
    let domain = session.domain_of(login)?;
    let own = format!("{login}@{domain}");
    let sender = match submission.sender.as_deref() {
        None => own.as_str(),
        Some("<>") => "",
        Some(given) => given,
    };
    let author = match sender {
        "" => own.clone(),
        bare if !bare.contains('@') => format!("{bare}@{domain}"),
        whole => whole.to_owned(),
    };
    let mut message = submission.message.clone();
    message.complete(Author { address: &author, name: &submission.name }, &domain);
    let taken = session.transaction(submission, &message, sender)?;
    if let Some(reply) = &taken.reply {
        session.audience.see(reply);
    }
    // All of it is durable: what QUIT is answered no longer matters.
    let _ = session.ask("QUIT");
    Ok(taken)
}

/// The first words of whoever is at the other end of the stream.
fn greeting(
    dialogue: &mut Dialogue,
    stream: &UnixStream,
    patience: Duration,
) -> Result<Reply, Trouble> {
    stream.set_read_timeout(Some(patience))?;
    dialogue.hear().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            Trouble::Passing("the service does not come; see systemctl status mailroot".to_owned())
        }
        _ => error.into(),
    })
}

/// A conversation with the daemon, and what it offers.
struct Session<'a> {
    dialogue: Dialogue,
    offers: Vec<String>,
    audience: &'a mut dyn Audience,
}

impl<'a> Session<'a> {
    fn open(socket: &Path, audience: &'a mut dyn Audience) -> Result<Self, Trouble> {
        let stream = UnixStream::connect(socket).map_err(|error| not_there(socket, &error))?;
        stream.set_write_timeout(Some(WAIT))?;
        let mut dialogue = Dialogue::over(stream.try_clone()?);
        let greeting = greeting(&mut dialogue, &stream, GREETING)?;
        stream.set_read_timeout(Some(WAIT))?;
        let mut session = Self { dialogue, offers: Vec::new(), audience };
        session.judge(greeting, 2, UNAVAILABLE)?;
        let hello = session.expect("EHLO localhost", 2)?;
        session.offers = hello.lines.into_iter().skip(1).collect();
        Ok(session)
    }

    fn offers(&self, keyword: &str) -> bool {
        let first = |line: &str| line.split(' ').next().is_some_and(|word| word == keyword);
        self.offers.iter().any(|line| first(line))
    }

    fn ask(&mut self, line: &str) -> io::Result<Reply> {
        self.audience.hear(&format!(">>> {line}"));
        let reply = self.dialogue.ask(line)?;
        self.audience.hear(&reply.to_string());
        Ok(reply)
    }

    fn expect(&mut self, line: &str, digit: u16) -> Result<Reply, Trouble> {
        let reply = self.ask(line)?;
        self.judge(reply, digit, DATA_ERROR)
    }

    /// A reply with this digit; others end the try, in this code if for good.
    fn judge(&self, reply: Reply, digit: u16, code: u8) -> Result<Reply, Trouble> {
        if reply.is(digit) {
            return Ok(reply);
        }
        if reply.code == 421 {
            return Err(Trouble::Passing(reply.to_string()));
        }
        let code = match reply.code {
            400..=499 => TRY_LATER,
            // RFC 3463: 5.7.1, delivery not authorised.
            _ if reply.lines.iter().any(|line| line.starts_with("5.7.1 "))
                && code == DATA_ERROR =>
            {
                NOT_PERMITTED
            }
            _ => code,
        };
        Err(Trouble::Final(Failure { code, words: reply.to_string() }))
    }

    /// The domain of addresses without one: the daemon repeats a sender with the domain it gave him.
    fn domain_of(&mut self, login: &str) -> Result<String, Trouble> {
        let reply = self.expect(&format!("MAIL FROM:<{login}>"), 2)?;
        self.expect("RSET", 2)?;
        let said = reply.lines.first().and_then(|line| line.split_once('<'));
        let said = said.and_then(|(_, rest)| rest.split_once('>')).map(|(address, _)| address);
        let domain = said.and_then(|address| address.rsplit_once('@')).map(|(_, domain)| domain);
        domain.map(str::to_owned).ok_or_else(|| {
            let words = format!("the daemon does not tell its domain: {reply}");
            Trouble::Final(Failure { code: UNAVAILABLE, words })
        })
    }

    /// One message to all recipients, but for those who are refused for good.
    fn transaction(
        &mut self,
        submission: &Submission,
        message: &Message,
        sender: &str,
    ) -> Result<Taken, Trouble> {
        let mail = self.mail(submission, message, sender);
        self.expect(&mail, 2)?;
        let notify = submission.notify.as_ref().filter(|_| self.offers("DSN"));
        let notify = notify.map(|notify| format!(" NOTIFY={notify}")).unwrap_or_default();
        let (mut taken, mut count) = (Taken::default(), 0);
        for to in &submission.recipients {
            let reply = self.ask(&format!("RCPT TO:<{to}>{notify}"))?;
            let is_full =
                reply.code == 452 && reply.lines.iter().any(|it| it.starts_with("4.5.3 "));
            match reply.code {
                200..=299 => count += 1,
                _ if is_full && count > 0 => return Err(too_many(count)),
                500..=599 => taken.refused.push(format!("<{to}>: {reply}")),
                // Nobody gets it now, so that nobody gets it twice.
                _ => return self.judge(reply, 2, DATA_ERROR).map(|_| taken),
            }
        }
        if count > 0 {
            self.expect("DATA", 3)?;
            self.dialogue.put(&dotted(message.octets()))?;
            let reply = self.dialogue.hear()?;
            self.audience.hear(&reply.to_string());
            taken.reply = Some(self.judge(reply, 2, DATA_ERROR)?.to_string());
        }
        Ok(taken)
    }

    /// MAIL with what is wished and offered.
    fn mail(&self, submission: &Submission, message: &Message, sender: &str) -> String {
        let mut line = format!("MAIL FROM:<{sender}>");
        let octets = message.octets();
        if self.offers("SIZE") {
            line.push_str(&format!(" SIZE={}", octets.len()));
        }
        let body = match &submission.body {
            Some(said) if said == "8BITMIME" || octets.is_ascii() => Some(said.as_str()),
            // What is no 7BIT is not called so, whatever the caller says.
            _ => (!octets.is_ascii()).then_some("8BITMIME"),
        };
        if let Some(body) = body.filter(|_| self.offers("8BITMIME")) {
            line.push_str(&format!(" BODY={body}"));
        }
        let is_plain = sender.is_ascii() && submission.recipients.iter().all(|to| to.is_ascii());
        if !is_plain && self.offers("SMTPUTF8") {
            line.push_str(" SMTPUTF8");
        }
        if self.offers("DSN") {
            for (keyword, value) in [("RET", &submission.returned), ("ENVID", &submission.envid)] {
                if let Some(value) = value {
                    line.push_str(&format!(" {keyword}={value}"));
                }
            }
        }
        line
    }
}

/// Several transactions would leave some with the message and others without it.
fn too_many(count: usize) -> Trouble {
    let words = format!(
        "more than {count} recipients, which is as many as one message may have here: nobody gets it; hand \
         it in several times, each for some of them"
    );
    Trouble::Final(Failure { code: DATA_ERROR, words })
}

fn not_there(socket: &Path, error: &io::Error) -> Trouble {
    let words = format!("cannot reach the mail system at {}: {error}", socket.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied => Trouble::Final(Failure { code: NOT_PERMITTED, words }),
        _ => Trouble::Passing(words),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn submission(to: &[&str]) -> Submission {
        Submission {
            message: Message::read(b"Subject: x\n\n.\n"),
            sender: None,
            login: "anna".to_owned(),
            name: String::new(),
            recipients: to.iter().map(|&to| to.to_owned()).collect(),
            body: None,
            notify: Some("NEVER".to_owned()),
            returned: None,
            envid: None,
        }
    }

    #[test]
    fn a_socket_without_a_service_is_not_waited_for_without_end() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut dialogue = Dialogue::over(ours.try_clone().unwrap());
        let came = greeting(&mut dialogue, &ours, Duration::from_millis(1));
        let Err(Trouble::Passing(why)) = came else { panic!("somebody came") };
        assert!(why.contains("does not come"), "{why}");
    }

    /// Serves one client with these replies; what it heard, without bodies.
    fn served(
        replies: &'static [&'static str],
        submission: &Submission,
    ) -> (Result<Taken, Failure>, String) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("submit.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            for reply in replies {
                stream.write_all(format!("{reply}\r\n").as_bytes()).unwrap();
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap_or(0) > 0 {
                    if !reply.starts_with('3') || line.ends_with("\r\n.\r\n") {
                        break;
                    }
                }
                heard.push_str(&line.replace("\r\n", "|"));
            }
            heard
        });
        let result = submit(&socket, submission, &mut Nobody);
        (result, server.join().unwrap())
    }

    const HELLO: &str = "250-relay.test\r\n250-SIZE 1000\r\n250-DSN\r\n250 HELP";
    const OWN: &str = "250 2.1.0 <anna@x.test> sender ok";

    #[test]
    fn a_message_is_handed_in_under_the_users_own_name() {
        let (result, heard) = served(
            &[
                "220 hi",
                HELLO,
                OWN,
                "250 ok",
                OWN,
                "250 ok",
                "354 go",
                "250 2.6.0 id queued",
                "221 bye",
            ],
            &submission(&["root"]),
        );
        assert_eq!(result.unwrap().reply.as_deref(), Some("250 2.6.0 id queued"));
        assert_eq!(
            heard,
            "EHLO localhost|MAIL FROM:<anna>|RSET|MAIL FROM:<anna@x.test> SIZE=36|\
             RCPT TO:<root> NOTIFY=NEVER|DATA|From: anna@x.test|Subject: x||..|.|QUIT|"
        );
    }

    #[test]
    fn beyond_the_limit_nobody_gets_it_and_else_refused_ones_are_told() {
        let (result, heard) = served(
            &["220 hi", HELLO, OWN, "250 ok", OWN, "250 ok", "452 4.5.3 too many"],
            &submission(&["a", "b", "c"]),
        );
        let failure = result.unwrap_err();
        assert_eq!(failure.code, DATA_ERROR);
        assert!(failure.words.contains("more than 1 recipients"), "{}", failure.words);
        assert!(!heard.contains("DATA"), "{heard}");
        let (result, _) = served(
            &[
                "220 hi",
                HELLO,
                OWN,
                "250 ok",
                OWN,
                "550 5.1.1 no",
                "250 ok",
                "354 go",
                "250 one",
                "221 bye",
            ],
            &submission(&["b", "c"]),
        );
        let taken = result.unwrap();
        assert_eq!(taken.reply.as_deref(), Some("250 one"));
        assert_eq!(taken.refused, ["<b>: 550 5.1.1 no"]);
    }

    #[test]
    fn refusals_become_exit_codes() {
        for (replies, code) in [
            (&["554 5.7.1 access denied"][..], UNAVAILABLE),
            (&["220 hi", HELLO, OWN, "250 ok", "553 5.7.1 not you"], NOT_PERMITTED),
            (&["220 hi", HELLO, OWN, "250 ok", "552 5.3.4 too large"], DATA_ERROR),
            (&["220 hi", HELLO, OWN, "250 ok", "452 4.3.1 full"], TRY_LATER),
            (&["220 hi", HELLO, OWN, "250 ok", OWN, "451 4.3.0 later"], TRY_LATER),
        ] {
            let (result, heard) = served(replies, &submission(&["a"]));
            assert_eq!(result.unwrap_err().code, code, "{heard}");
        }
    }
}
