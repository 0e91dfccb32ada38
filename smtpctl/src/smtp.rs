//! The few words of SMTP that it takes to hand a message to our own daemon.
//!
//! In: an envelope and octets. Out: the daemon's replies, or its refusal. Not a client for other
//! hosts: no TLS, no pipelining, every wait bounded.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mailroot_common::control::{Kind, Problem};

/// How long the daemon may take for a reply.
const WAIT: Duration = Duration::from_secs(60);
/// A reply line is shorter than this.
const LINE_OCTETS_MAX: u64 = 2_048;
/// A reply has fewer lines than this.
const LINES_MAX: usize = 100;

/// Hands a message over; the last reply, lines joined by blanks.
pub(crate) fn hand_over(
    address: SocketAddr,
    sender: &str,
    recipients: &[String],
    message: &[u8],
) -> Result<String, Problem> {
    let stream = TcpStream::connect_timeout(&address, WAIT).map_err(|error| {
        let detail = format!("cannot connect to the listener at {address}: {error}");
        Problem::new("send", Kind::Unavailable, detail)
    })?;
    let timeouts =
        stream.set_read_timeout(Some(WAIT)).and_then(|()| stream.set_write_timeout(Some(WAIT)));
    timeouts.map_err(|error| broken(&error))?;
    let mut dialogue = Dialogue::over(stream);
    dialogue.expect(2)?;
    dialogue.say("EHLO localhost", 2)?;
    // SMTPUTF8 is asked for when an address needs it; a header may need it as well.
    let is_plain = sender.is_ascii() && recipients.iter().all(|to| to.is_ascii());
    let utf8 = if is_plain { "" } else { " SMTPUTF8" };
    let body = if message.is_ascii() { "" } else { " BODY=8BITMIME" };
    dialogue.say(&format!("MAIL FROM:<{sender}>{body}{utf8}"), 2)?;
    for recipient in recipients {
        dialogue.say(&format!("RCPT TO:<{recipient}>"), 2)?;
    }
    dialogue.say("DATA", 3)?;
    dialogue.write(&dotted(message)).map_err(|error| broken(&error))?;
    let reply = dialogue.expect(2)?;
    // The message is accepted: what QUIT is answered no longer matters.
    let _ = dialogue.say("QUIT", 2);
    Ok(reply)
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

/// A conversation over a connection.
pub(crate) struct Dialogue<S>(BufReader<S>);

impl<S: Read + Write> Dialogue<S> {
    /// Nothing was said yet.
    pub(crate) fn over(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    /// Says a line and hears the reply.
    pub(crate) fn ask(&mut self, line: &str) -> io::Result<Reply> {
        self.write(format!("{line}\r\n").as_bytes())?;
        self.hear()
    }

    /// Sends octets.
    pub(crate) fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(octets)
    }

    /// Hears a reply.
    pub(crate) fn hear(&mut self) -> io::Result<Reply> {
        let mut reply = Reply { code: 0, lines: Vec::new() };
        for _ in 0..LINES_MAX {
            let mut line = Vec::new();
            self.0.by_ref().take(LINE_OCTETS_MAX).read_until(b'\n', &mut line)?;
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

    fn say(&mut self, line: &str, digit: u16) -> Result<String, Problem> {
        self.write(format!("{line}\r\n").as_bytes()).map_err(|error| broken(&error))?;
        self.expect(digit).map_err(|mut problem| {
            problem.detail = format!("{} (to {line})", problem.detail).into();
            problem
        })
    }

    /// Hears a reply whose code begins with this digit.
    fn expect(&mut self, digit: u16) -> Result<String, Problem> {
        let reply = self.hear().map_err(|error| broken(&error))?;
        let refused = || Problem::new("send", Kind::Failed, format!("refused: {reply}"));
        if reply.is(digit) { Ok(reply.to_string()) } else { Err(refused()) }
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
    fn served(replies: &'static [&'static str]) -> (Result<String, Problem>, String) {
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
                    let in_body = reply.starts_with('3') && !line.ends_with("\r\n.\r\n");
                    if !in_body {
                        break;
                    }
                }
                heard.push_str(&line);
            }
            heard
        });
        let to = ["b@x.example".to_owned()];
        let result = hand_over(address, "a@x.example", &to, b"Subject: x\n\n.\n");
        (result, server.join().unwrap())
    }

    #[test]
    fn a_message_is_handed_over() {
        let (result, heard) = served(&[
            "220 hi\r\n",
            "250-one\r\n250 two\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "354 go\r\n",
            "250 2.0.0 queued as 6FZK5D3VYE2S\r\n",
            "221 bye\r\n",
        ]);
        assert_eq!(result.unwrap(), "250 2.0.0 queued as 6FZK5D3VYE2S");
        assert_eq!(
            heard,
            "EHLO localhost\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\nSubject: x\r\n\r\n..\r\n.\r\nQUIT\r\n"
        );
    }

    #[test]
    fn refusals_keep_their_words_and_a_lost_connection_is_told() {
        let (result, _) =
            served(&["220 hi\r\n", "250 ok\r\n", "250 ok\r\n", "550 5.7.1 no relay\r\n"]);
        let problem = result.unwrap_err();
        assert!(
            problem.detail.contains("550 5.7.1 no relay (to RCPT TO:<b@x.example>)"),
            "{problem}"
        );
        let (result, _) = served(&["220 hi\r\n"]);
        assert_eq!(result.unwrap_err().exit, 1);
    }
}
