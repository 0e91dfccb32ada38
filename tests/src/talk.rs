//! A raw SMTP client: what it is told to send, octet for octet, and the replies it gets.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::program;
use crate::secure::{self, Secured};
use crate::wait::PATIENCE;

/// One reply of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its code.
    pub code: u16,
    /// The text of its lines, without codes and line ends.
    pub lines: Vec<String>,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.lines.join(" | "))
    }
}

impl Reply {
    /// The enhanced status code of the last line, if it begins with one.
    #[must_use]
    pub fn enhanced(&self) -> Option<&str> {
        let word = self.lines.last()?.split(' ').next()?;
        let numbers = word.split('.').filter(|part| part.parse::<u16>().is_ok()).count();
        (numbers == 3 && word.split('.').count() == 3).then_some(word)
    }
}

#[derive(Debug)]
enum Wire {
    Clear(TcpStream),
    Secured(Box<Secured>),
}

impl Wire {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Clear(stream) => stream,
            Self::Secured(stream) => &stream.sock,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(stream) => stream.read(octets),
            Self::Secured(stream) => stream.read(octets),
        }
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Talk(BufReader<Wire>);

impl Talk {
    /// Connects and reads the greeting, which must be 220.
    ///
    /// # Panics
    ///
    /// When there is no such greeting.
    #[track_caller]
    #[must_use]
    pub fn to(address: SocketAddr) -> Self {
        Self::try_to(address).unwrap_or_else(|error| panic!("no greeting from {address}: {error}"))
    }

    /// Connects and reads the greeting.
    ///
    /// # Errors
    ///
    /// The system's error, or a greeting that is not 220.
    pub fn try_to(address: SocketAddr) -> io::Result<Self> {
        let mut talk = Self::connect(address)?;
        match talk.reply()? {
            reply if reply.code == 220 => Ok(talk),
            reply => Err(io::Error::other(reply.to_string())),
        }
    }

    /// Connects and reads nothing.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self(BufReader::new(Wire::Clear(open(address)?))))
    }

    /// Connects to a listener that speaks TLS at once and reads nothing.
    ///
    /// # Errors
    ///
    /// The system's error, or what went wrong in the handshake.
    pub fn under_tls(address: SocketAddr) -> io::Result<Self> {
        let secured = secure::connect(open(address)?)?;
        Ok(Self(BufReader::new(Wire::Secured(Box::new(secured)))))
    }

    /// Says STARTTLS, which must be answered with 220, and goes on under TLS.
    ///
    /// # Panics
    ///
    /// When there is no such answer, the handshake fails, or TLS is spoken already.
    #[must_use]
    #[track_caller]
    pub fn starttls(mut self) -> Self {
        self.expect("STARTTLS", 220);
        let secured = secure::connect(self.into_stream()).unwrap();
        Self(BufReader::new(Wire::Secured(Box::new(secured))))
    }

    /// Sets how long a reply may take before reading it fails.
    ///
    /// # Panics
    ///
    /// When the span is zero.
    pub fn wait_for_replies(&self, patience: Duration) {
        self.socket().set_read_timeout(Some(patience)).unwrap();
    }

    /// Sends octets as they are.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        match self.0.get_mut() {
            Wire::Clear(stream) => stream.write_all(octets),
            Wire::Secured(stream) => {
                stream.write_all(octets)?;
                stream.flush()
            }
        }
    }

    fn socket(&self) -> &TcpStream {
        self.0.get_ref().socket()
    }

    /// Reads one reply.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the server closed; `InvalidData` when it said something else.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut octets = Vec::new();
            if self.0.read_until(b'\n', &mut octets)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = String::from_utf8_lossy(&octets).into_owned();
            let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("{text:?}"));
            let line = text.strip_suffix("\r\n").ok_or_else(bad)?;
            let code = line.get(..3).and_then(|code| code.parse().ok()).ok_or_else(bad)?;
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            match line.as_bytes().get(3) {
                Some(b'-') => {}
                Some(b' ') | None => return Ok(Reply { code, lines }),
                Some(_) => return Err(bad()),
            }
        }
    }

    /// Sends a line and reads its reply.
    ///
    /// # Panics
    ///
    /// When the connection fails.
    #[track_caller]
    pub fn say(&mut self, line: &str) -> Reply {
        self.try_say(line).unwrap_or_else(|error| panic!("after {line:?}: {error}"))
    }

    /// Sends a line and reads its reply.
    ///
    /// # Errors
    ///
    /// As [`Self::reply`].
    pub fn try_say(&mut self, line: &str) -> io::Result<Reply> {
        self.send(line.as_bytes())?;
        self.send(b"\r\n")?;
        self.reply()
    }

    /// Sends a line whose reply must have this code.
    ///
    /// # Panics
    ///
    /// When it has another.
    #[track_caller]
    pub fn expect(&mut self, line: &str, code: u16) -> Reply {
        let reply = self.say(line);
        assert_eq!(reply.code, code, "{line:?} was answered {reply}");
        reply
    }

    /// Sends a whole message in a transaction of its own and returns the last reply: the one after the
    /// body, or the first that was not positive.
    ///
    /// # Errors
    ///
    /// As [`Self::reply`].
    pub fn message(&mut self, from: &str, to: &[&str], octets: &[u8]) -> io::Result<Reply> {
        let reply = self.try_say(&format!("MAIL FROM:<{from}>"))?;
        if reply.code != 250 {
            return Ok(reply);
        }
        for recipient in to {
            let reply = self.try_say(&format!("RCPT TO:<{recipient}>"))?;
            if reply.code != 250 {
                return Ok(reply);
            }
        }
        let reply = self.try_say("DATA")?;
        if reply.code != 354 {
            return Ok(reply);
        }
        self.send(&stuffed(octets))?;
        self.reply()
    }

    /// Reads until the server closes; what came before that.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut octets = Vec::new();
        match self.0.read_to_end(&mut octets) {
            // Under TLS, a server that hangs up need not say so.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Ok(octets)
            }
            Err(error) => Err(error),
            Ok(_) => Ok(octets),
        }
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn finish(&self) -> io::Result<()> {
        self.socket().shutdown(Shutdown::Write)
    }

    /// The connection, to go on with in another way.
    ///
    /// # Panics
    ///
    /// When it is under TLS.
    #[must_use]
    #[track_caller]
    pub fn into_stream(self) -> TcpStream {
        match self.0.into_inner() {
            Wire::Clear(stream) => stream,
            Wire::Secured(_) => panic!("the connection is under TLS"),
        }
    }

    /// Our own end of the connection.
    ///
    /// # Panics
    ///
    /// Never while connected.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.socket().local_addr().unwrap()
    }
}

/// `AUTH PLAIN` with its one word.
#[must_use]
pub fn auth_plain(user: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", base64(format!("\0{user}\0{password}").as_bytes()))
}

/// Octets as they are said in a login.
#[must_use]
pub fn base64(octets: &[u8]) -> String {
    program::run(Command::new("base64").arg("-w0"), octets).ok()
}

fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A body as DATA wants it: dots doubled at line starts, and the final dot.
#[must_use]
pub fn stuffed(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + 16);
    let mut start = true;
    for &octet in octets {
        if start && octet == b'.' {
            out.push(b'.');
        }
        out.push(octet);
        start = octet == b'\n';
    }
    if !out.ends_with(b"\r\n") && !out.is_empty() {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}
