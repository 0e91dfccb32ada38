//! The few words of SMTP that `send` needs to hand one message to our own daemon.
//!
//! In: an envelope and octets. Out: the daemon's reply to the end of the body, or its refusal.
//! Not a client for other hosts: no TLS, few extensions, one message, every wait bounded.

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

/// A parameter of MAIL, and the extension that must be offered for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) extension: &'static str,
    pub(crate) parameter: String,
}

/// Hands a message over; the last reply, lines joined by blanks.
pub(crate) fn hand_over(
    address: SocketAddr,
    sender: &str,
    recipients: &[String],
    message: &[u8],
    wishes: &[Wish],
) -> Result<String, Problem> {
    let stream = TcpStream::connect_timeout(&address, WAIT).map_err(|error| {
        let detail = format!("cannot connect to the listener at {address}: {error}");
        Problem::new("send", Kind::Unavailable, detail)
    })?;
    let timeouts =
        stream.set_read_timeout(Some(WAIT)).and_then(|()| stream.set_write_timeout(Some(WAIT)));
    timeouts.map_err(|error| broken(&error))?;
    let mut dialogue = Dialogue(BufReader::new(stream));
    dialogue.expect(2)?;
    let offered = dialogue.say("EHLO localhost", 2)?;
    for wish in wishes {
        if !offered.split_whitespace().any(|word| word == wish.extension) {
            let detail = format!("the listener at {address} does not offer {}", wish.extension);
            return Err(Problem::new("send", Kind::Failed, detail));
        }
    }
    let wishes: String = wishes.iter().map(|wish| format!(" {}", wish.parameter)).collect();
    // SMTPUTF8 is asked for when an address needs it; a header may need it as well.
    let is_plain = sender.is_ascii() && recipients.iter().all(|to| to.is_ascii());
    let utf8 = if is_plain { "" } else { " SMTPUTF8" };
    let body = if message.is_ascii() { "" } else { " BODY=8BITMIME" };
    dialogue.say(&format!("MAIL FROM:<{sender}>{body}{utf8}{wishes}"), 2)?;
    for recipient in recipients {
        dialogue.say(&format!("RCPT TO:<{recipient}>"), 2)?;
    }
    dialogue.say("DATA", 3)?;
    dialogue.write(&dotted(message))?;
    let reply = dialogue.expect(2)?;
    // The message is accepted: what QUIT is answered no longer matters.
    let _ = dialogue.say("QUIT", 2);
    Ok(reply)
}

struct Dialogue(BufReader<TcpStream>);

impl Dialogue {
    fn say(&mut self, line: &str, digit: u8) -> Result<String, Problem> {
        self.write(format!("{line}\r\n").as_bytes())?;
        self.expect(digit).map_err(|mut problem| {
            problem.detail = format!("{} (to {line})", problem.detail).into();
            problem
        })
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), Problem> {
        self.0.get_mut().write_all(octets).map_err(|error| broken(&error))
    }

    /// Reads a reply whose code begins with this digit.
    fn expect(&mut self, digit: u8) -> Result<String, Problem> {
        let mut words = String::new();
        for _ in 0..LINES_MAX {
            let mut line = Vec::new();
            let mut limited = self.0.by_ref().take(LINE_OCTETS_MAX);
            limited.read_until(b'\n', &mut line).map_err(|error| broken(&error))?;
            if line.last() != Some(&b'\n') {
                return Err(broken(&io::Error::from(io::ErrorKind::UnexpectedEof)));
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(if words.is_empty() { line } else { line.get(4..).unwrap_or("") });
            if line.as_bytes().get(3) != Some(&b'-') {
                let good = line.as_bytes().first() == Some(&(b'0' + digit));
                let refused = || Problem::new("send", Kind::Failed, format!("refused: {words}"));
                return if good { Ok(words.clone()) } else { Err(refused()) };
            }
        }
        Err(broken(&io::Error::other("the reply has no end")))
    }
}

fn broken(error: &io::Error) -> Problem {
    Problem::new("send", Kind::Failed, format!("the SMTP session broke off: {error}"))
}

/// Every line ends with CRLF, a dot at its start is doubled, a lone dot ends it all (RFC 5321
/// section 4.5.2).
fn dotted(message: &[u8]) -> Vec<u8> {
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
        let result = hand_over(address, "a@x.example", &to, b"Subject: x\n\n.\n", &[]);
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
