//! The few words of SMTP that it takes to hand a message to our own daemon.
//!
//! In: an envelope, octets, and perhaps a login. Out: the daemon's replies, or its refusal. Not a client
//! for other hosts: TLS where it is offered, no pipelining, every wait bounded.

mod tls;

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailroot_common::control::{Kind, Problem};

/// How long the daemon may take for a reply.
const WAIT: Duration = Duration::from_secs(60);
/// How long it may take for the reply to a message (RFC 5321 section 4.5.3.2.6).
const MESSAGE_WAIT: Duration = Duration::from_mins(10);
/// A reply line is shorter than this.
const LINE_OCTETS_MAX: u64 = 2_048;
/// A reply has fewer lines than this.
const LINES_MAX: usize = 100;

/// A parameter of MAIL, and the extension that must be offered for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) extension: &'static str,
    pub(crate) parameter: String,
}

/// Who a message is from, who gets it, and what it is.
pub(crate) struct Parcel {
    /// The sender; empty for the null path.
    pub(crate) sender: String,
    /// The recipients.
    pub(crate) recipients: Vec<String>,
    /// The octets, with any line ends.
    pub(crate) message: Vec<u8>,
    /// What the sender wants besides.
    pub(crate) wishes: Vec<Wish>,
}

/// A user and the password.
pub(crate) struct Login {
    /// The name.
    pub(crate) user: String,
    /// The password.
    pub(crate) password: String,
}

/// Hands a message over; the last reply, lines joined by blanks.
pub(crate) fn hand_over(
    address: SocketAddr,
    parcel: &Parcel,
    login: Option<&Login>,
) -> Result<String, Problem> {
    let Parcel { sender, recipients, message, wishes } = parcel;
    let mut dialogue = Dialogue::begin(address)?;
    if let Some(login) = login {
        dialogue.log_in(login)?;
    }
    for wish in wishes {
        let is_it = |line: &String| line.split_whitespace().next() == Some(wish.extension);
        if !dialogue.offers.iter().any(is_it) {
            let detail = format!("the listener at {address} does not offer {}", wish.extension);
            return Err(Problem::new("send", Kind::Failed, detail));
        }
    }
    let wishes: String = wishes.iter().map(|wish| format!(" {}", wish.parameter)).collect();
    // SMTPUTF8 is asked for when an address needs it; a header may need it as well.
    let is_plain = sender.is_ascii() && recipients.iter().all(|to| to.is_ascii());
    let utf8 = if is_plain { "" } else { " SMTPUTF8" };
    let body = if message.is_ascii() { "" } else { " BODY=8BITMIME" };
    let mail = format!("MAIL FROM:<{sender}>{body}{utf8}{wishes}");
    dialogue.say(&mail, 2).map_err(with_hint)?;
    for recipient in recipients {
        dialogue.say(&format!("RCPT TO:<{recipient}>"), 2).map_err(with_hint)?;
    }
    dialogue.say("DATA", 3)?;
    dialogue.write(&dotted(message))?;
    dialogue.wait_at_most(MESSAGE_WAIT)?;
    let reply = dialogue.expect(2)?;
    // The message is accepted: what QUIT is answered no longer matters.
    let _ = dialogue.wait_at_most(WAIT).and_then(|()| dialogue.say("QUIT", 2));
    Ok(reply)
}

/// What to do where the server wants to know who we are.
fn with_hint(problem: Problem) -> Problem {
    let wants_login = problem.detail.contains("530") || problem.detail.contains("5.7.0");
    if wants_login {
        problem.hint("the server wants a login: smtpctl send --user NAME asks for the password")
    } else {
        problem
    }
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Its code.
    pub(crate) code: u16,
    /// Its lines without their codes.
    pub(crate) lines: Vec<String>,
}

impl Reply {
    /// Whether the code begins with this digit.
    pub(crate) const fn is(&self, digit: u16) -> bool {
        self.code / 100 == digit
    }
}

/// The reply in one line, as it is told to people.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.lines.join(" "))
    }
}

/// What octets come and go by.
pub(crate) trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// A conversation over a connection.
pub(crate) struct Dialogue {
    stream: BufReader<Box<dyn Stream>>,
    /// The connection below, where its waits are bounded here.
    socket: Option<TcpStream>,
    /// What EHLO was answered, a line for each extension, in capitals.
    offers: Vec<String>,
}

impl Dialogue {
    /// Nothing was said yet.
    pub(crate) fn over(stream: impl Stream + 'static) -> Self {
        Self { stream: BufReader::new(Box::new(stream)), socket: None, offers: Vec::new() }
    }

    /// Says a line and hears the reply.
    pub(crate) fn ask(&mut self, line: &str) -> io::Result<Reply> {
        self.put(format!("{line}\r\n").as_bytes())?;
        self.hear()
    }

    /// Sends octets.
    pub(crate) fn put(&mut self, octets: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(octets).and_then(|()| stream.flush())
    }

    /// Hears a reply.
    pub(crate) fn hear(&mut self) -> io::Result<Reply> {
        let mut reply = Reply { code: 0, lines: Vec::new() };
        while reply.lines.len() < LINES_MAX {
            let mut line = Vec::new();
            self.stream.by_ref().take(LINE_OCTETS_MAX).read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            reply.code = line.get(..3).and_then(|code| code.parse().ok()).unwrap_or_default();
            reply.lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(reply);
            }
        }
        Err(io::Error::other("the reply has no end"))
    }

    /// Connects and greets, under TLS if that is offered.
    fn begin(address: SocketAddr) -> Result<Self, Problem> {
        let socket = TcpStream::connect_timeout(&address, WAIT).map_err(|error| {
            let detail = format!("cannot connect to the listener at {address}: {error}");
            Problem::new("send", Kind::Unavailable, detail)
        })?;
        let timeouts =
            socket.set_read_timeout(Some(WAIT)).and_then(|()| socket.set_write_timeout(Some(WAIT)));
        timeouts.map_err(|error| broken(&error))?;
        let plain = socket.try_clone().map_err(|error| broken(&error))?;
        let mut dialogue = Self::over(plain);
        dialogue.socket = Some(socket.try_clone().map_err(|error| broken(&error))?);
        dialogue.expect(2)?;
        dialogue.greet()?;
        if dialogue.offered("STARTTLS").is_none() {
            return Ok(dialogue);
        }
        dialogue.say("STARTTLS", 2)?;
        let secured = tls::begin(socket, address).map_err(|error| {
            Problem::new("send", Kind::Failed, format!("TLS with the listener failed: {error}"))
        })?;
        // What was read ahead of the handshake belongs to nobody and goes with the old reader.
        dialogue.stream = BufReader::new(Box::new(secured));
        dialogue.greet()?;
        Ok(dialogue)
    }

    /// How long the daemon may take for replies from now on.
    fn wait_at_most(&self, wait: Duration) -> Result<(), Problem> {
        let Some(socket) = &self.socket else { return Ok(()) };
        socket.set_read_timeout(Some(wait)).map_err(|error| broken(&error))
    }

    fn greet(&mut self) -> Result<(), Problem> {
        self.write(b"EHLO localhost\r\n")?;
        let lines = self.reply(2)?.lines;
        self.offers = lines.iter().skip(1).map(|line| line.to_ascii_uppercase()).collect();
        Ok(())
    }

    /// What stands behind the name of an extension, if it is offered.
    fn offered(&self, name: &str) -> Option<Vec<&str>> {
        let mut lines = self.offers.iter().map(|line| line.split_whitespace());
        lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.collect()))
    }

    fn log_in(&mut self, login: &Login) -> Result<(), Problem> {
        let Login { user, password } = login;
        let offered = |name| self.offered("AUTH").is_some_and(|words| words.contains(&name));
        let (plain, one_by_one) = (offered("PLAIN"), offered("LOGIN"));
        if plain {
            let secret = STANDARD.encode(format!("\0{user}\0{password}"));
            self.tell(&format!("AUTH PLAIN {secret}"), 2, "AUTH PLAIN")?;
        } else if one_by_one {
            self.say("AUTH LOGIN", 3)?;
            self.tell(&STANDARD.encode(user), 3, "the user's name")?;
            self.tell(&STANDARD.encode(password), 2, "the password")?;
        } else {
            let detail = "the server offers no login by PLAIN or LOGIN here";
            return Err(Problem::new("send", Kind::Failed, detail)
                .hint("look at access.basic: smtpctl server show default --tab access"));
        }
        Ok(())
    }

    fn say(&mut self, line: &str, digit: u8) -> Result<String, Problem> {
        self.tell(line, digit, line)
    }

    /// Says a line that errors call by another name: it may hold a secret.
    fn tell(&mut self, line: &str, digit: u8, called: &str) -> Result<String, Problem> {
        self.write(format!("{line}\r\n").as_bytes())?;
        self.expect(digit).map_err(|mut problem| {
            problem.detail = format!("{} (to {called})", problem.detail).into();
            problem
        })
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), Problem> {
        self.put(octets).map_err(|error| broken(&error))
    }

    /// Reads a reply whose code begins with this digit, as one line.
    fn expect(&mut self, digit: u8) -> Result<String, Problem> {
        self.reply(digit).map(|reply| reply.to_string())
    }

    fn reply(&mut self, digit: u8) -> Result<Reply, Problem> {
        let reply = self.hear().map_err(|error| broken(&error))?;
        let refused = || Problem::new("send", Kind::Failed, format!("refused: {reply}"));
        if reply.is(digit.into()) { Ok(reply) } else { Err(refused()) }
    }
}

fn broken(error: &io::Error) -> Problem {
    Problem::new("send", Kind::Failed, format!("the SMTP session broke off: {error}"))
}

/// Every line ends with CRLF, a dot at its start is doubled, a lone dot ends it all (RFC 5321
/// section 4.5.2).
pub(crate) fn dotted(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|&octet| octet == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn bodies_go_out_with_crlf_and_doubled_dots() {
        assert_eq!(dotted(b"a\n.b\r\n..\nend"), b"a\r\n..b\r\n...\r\nend\r\n.\r\n");
        assert_eq!(dotted(b""), b".\r\n");
    }

    /// Serves one client with these replies; what it heard.
    fn served(
        replies: &'static [&'static str],
        logs_in: bool,
    ) -> (Result<String, Problem>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            for reply in replies {
                stream.write_all(reply.as_bytes()).unwrap();
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap_or(0) > 0 {
                    let in_body = reply.starts_with("354") && !line.ends_with("\r\n.\r\n");
                    if !in_body {
                        break;
                    }
                }
                heard.push_str(&line);
            }
            heard
        });
        let parcel = Parcel {
            sender: "a@x.example".to_owned(),
            recipients: vec!["b@x.example".to_owned()],
            message: b"Subject: x\n\n.\n".to_vec(),
            wishes: Vec::new(),
        };
        let login = Login { user: "erp".to_owned(), password: "secret".to_owned() };
        let result = hand_over(address, &parcel, logs_in.then_some(&login));
        (result, server.join().unwrap())
    }

    #[test]
    fn a_message_is_handed_over() {
        let replies = &[
            "220 hi\r\n",
            "250-one\r\n250 two\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "354 go\r\n",
            "250 2.0.0 queued as 6FZK5D3VYE2S\r\n",
            "221 bye\r\n",
        ];
        let (result, heard) = served(replies, false);
        assert_eq!(result.unwrap(), "250 2.0.0 queued as 6FZK5D3VYE2S");
        assert_eq!(
            heard,
            "EHLO localhost\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\nSubject: x\r\n\r\n..\r\n.\r\nQUIT\r\n"
        );
    }

    #[test]
    fn refusals_keep_their_words_and_a_lost_connection_is_told() {
        let (result, _) =
            served(&["220 hi\r\n", "250 ok\r\n", "250 ok\r\n", "550 5.7.1 no relay\r\n"], false);
        let problem = result.unwrap_err();
        assert!(
            problem.detail.contains("550 5.7.1 no relay (to RCPT TO:<b@x.example>)"),
            "{problem}"
        );
        let (result, _) = served(&["220 hi\r\n"], false);
        assert_eq!(result.unwrap_err().exit, 1);
    }

    #[test]
    fn a_login_is_said_in_the_words_that_are_offered_and_never_told() {
        let plain = &["220 hi\r\n", "250-x\r\n250 AUTH LOGIN PLAIN\r\n", "535 5.7.8 wrong\r\n"];
        let (result, heard) = served(plain, true);
        let told = result.unwrap_err().detail.to_string();
        assert_eq!(told, "refused: 535 5.7.8 wrong (to AUTH PLAIN)");
        assert_eq!(heard, "EHLO localhost\r\nAUTH PLAIN AGVycABzZWNyZXQ=\r\n");
        let login = &[
            "220 hi\r\n",
            "250-x\r\n250 auth login\r\n",
            "334 VXNlcm5hbWU6\r\n",
            "334 UGFzc3dvcmQ6\r\n",
            "235 ok\r\n",
            "530 5.7.0 no\r\n",
        ];
        let (result, heard) = served(login, true);
        assert!(heard.contains("AUTH LOGIN\r\nZXJw\r\nc2VjcmV0\r\nMAIL FROM"), "{heard}");
        assert!(result.unwrap_err().hint.unwrap().contains("--user"));
        let (result, _) = served(&["220 hi\r\n", "250 x\r\n"], true);
        assert!(result.unwrap_err().detail.contains("no login by PLAIN or LOGIN"));
    }
}
