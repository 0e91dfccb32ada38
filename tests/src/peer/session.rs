//! One connection of a scripted peer: reads commands, asks the behaviour, answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Answer, Event, Received, Shared, Stage};

pub(super) struct Session<'a> {
    shared: &'a Shared,
    number: usize,
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    hello: String,
    mail: Option<String>,
    rcpt: Vec<String>,
    chunks: Vec<u8>,
}

/// The connection is over, by our wish or the client's.
pub(super) struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(stream: TcpStream, shared: &'a Shared, number: usize) -> Result<Self, Over> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        let reader = BufReader::with_capacity(64 << 10, stream.try_clone()?);
        Ok(Self {
            shared,
            number,
            stream,
            reader,
            hello: String::new(),
            mail: None,
            rcpt: Vec::new(),
            chunks: Vec::new(),
        })
    }

    fn ask(&self, stage: Stage, line: &str) -> Answer {
        let before = {
            let mut seen = self.shared.seen.lock().unwrap();
            let count = seen.entry((stage, line.to_owned())).or_default();
            *count += 1;
            *count - 1
        };
        let behaviour = Arc::clone(&self.shared.behaviour.lock().unwrap());
        behaviour(&Event { stage, line, session: self.number, before, recipients: &self.rcpt })
    }

    /// Carries out an answer; true if it was positive.
    fn answer(&mut self, answer: Answer, positive: &str) -> Result<bool, Over> {
        match answer {
            Answer::Accept => {
                self.write(positive)?;
                Ok(true)
            }
            Answer::Say(text) => {
                self.write(&text)?;
                if text.starts_with("421") {
                    return Err(Over);
                }
                Ok(text.starts_with(['2', '3']))
            }
            Answer::Close | Answer::AcceptAndClose => Err(Over),
            Answer::Endless => loop {
                self.write("250-and so on")?;
            },
            Answer::Silence => {
                self.stream.set_read_timeout(Some(Duration::from_millis(50)))?;
                let mut waste = [0; 4096];
                while !self.shared.stopping.load(Ordering::SeqCst) {
                    match self.reader.read(&mut waste) {
                        Ok(0) => break,
                        Err(error)
                            if error.kind() != io::ErrorKind::WouldBlock
                                && error.kind() != io::ErrorKind::TimedOut =>
                        {
                            break;
                        }
                        Ok(_) | Err(_) => {}
                    }
                }
                Err(Over)
            }
        }
    }

    fn write(&mut self, reply: &str) -> io::Result<()> {
        self.stream.write_all(format!("{reply}\r\n").as_bytes())
    }

    fn line(&mut self) -> Result<Vec<u8>, Over> {
        let mut octets = Vec::new();
        loop {
            if self.reader.read_until(b'\n', &mut octets)? == 0 {
                return Err(Over);
            }
            if octets.ends_with(b"\r\n") {
                return Ok(octets);
            }
            self.shared.audit.bare_lf.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub(super) fn run(&mut self) -> Result<(), Over> {
        let answer = self.ask(Stage::Connect, "");
        if !self.answer(answer, "220 peer.test ESMTP")? {
            // RFC 5321 section 3.1: after 554 only QUIT is welcome.
            return Ok(());
        }
        loop {
            let octets = self.line()?;
            let line = String::from_utf8_lossy(&octets).trim_end().to_owned();
            let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" | "HELO" => self.greet(&verb, &line)?,
                "MAIL" => self.sender(&line)?,
                "RCPT" => self.recipient(&line)?,
                "DATA" => self.data(&line)?,
                "BDAT" => self.chunk(&line)?,
                "QUIT" => {
                    self.write("221 2.0.0 bye")?;
                    return Ok(());
                }
                _ => {
                    if verb == "RSET" {
                        self.clear();
                    }
                    let answer = self.ask(Stage::Other, &line);
                    self.answer(answer, "250 2.0.0 ok")?;
                }
            }
        }
    }

    fn clear(&mut self) {
        self.mail = None;
        self.rcpt.clear();
        self.chunks.clear();
    }

    fn greet(&mut self, verb: &str, line: &str) -> Result<(), Over> {
        self.clear();
        let mut reply = "250 peer.test".to_owned();
        if verb == "EHLO" {
            let mut words = vec!["peer.test".to_owned()];
            words.extend(self.shared.keywords.iter().cloned());
            let last = words.pop().unwrap_or_default();
            reply = words.iter().map(|word| format!("250-{word}\r\n")).collect();
            reply.push_str(&format!("250 {last}"));
        }
        let answer = self.ask(Stage::Hello, line);
        if self.answer(answer, &reply)? {
            line.clone_into(&mut self.hello);
        }
        Ok(())
    }

    fn sender(&mut self, line: &str) -> Result<(), Over> {
        self.shared.attempts.lock().unwrap().push((Instant::now(), line.to_owned()));
        let answer = self.ask(Stage::Mail, line);
        if self.answer(answer, "250 2.1.0 ok")? {
            self.mail = Some(line.split_once(':').map_or("", |(_, rest)| rest.trim()).to_owned());
            self.rcpt.clear();
        }
        Ok(())
    }

    fn recipient(&mut self, line: &str) -> Result<(), Over> {
        if self.mail.is_none() {
            self.write("503 5.5.1 MAIL first")?;
            return Ok(());
        }
        let answer = self.ask(Stage::Rcpt, line);
        if self.answer(answer, "250 2.1.5 ok")? {
            self.rcpt.push(line.split_once(':').map_or("", |(_, rest)| rest.trim()).to_owned());
        }
        Ok(())
    }

    fn data(&mut self, line: &str) -> Result<(), Over> {
        if self.rcpt.is_empty() {
            self.write("503 5.5.1 no valid recipients")?;
            return Ok(());
        }
        let answer = self.ask(Stage::Data, line);
        if !self.answer(answer, "354 go on")? {
            return Ok(());
        }
        let octets = self.body()?;
        self.end(octets, false)
    }

    fn body(&mut self) -> Result<Vec<u8>, Over> {
        let mut body = Vec::new();
        let mut asked = false;
        loop {
            let line = self.line()?;
            if !asked {
                asked = true;
                if self.ask(Stage::Body, "") != Answer::Accept {
                    return Err(Over);
                }
            }
            if line == b".\r\n" {
                return Ok(body);
            }
            body.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }

    fn chunk(&mut self, line: &str) -> Result<(), Over> {
        let mut words = line.split(' ').skip(1);
        let size: usize = words.next().and_then(|word| word.parse().ok()).ok_or(Over)?;
        let last = words.next().is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        let start = self.chunks.len();
        self.chunks.resize(start + size, 0);
        self.reader.read_exact(&mut self.chunks[start..])?;
        if self.rcpt.is_empty() {
            self.chunks.clear();
            self.write("503 5.5.1 no valid recipients")?;
            return Ok(());
        }
        if start == 0 {
            let answer = self.ask(Stage::Data, "BDAT");
            if answer != Answer::Accept {
                self.chunks.clear();
                self.answer(answer, "")?;
                return Ok(());
            }
        }
        if last {
            let octets = std::mem::take(&mut self.chunks);
            return self.end(octets, true);
        }
        self.write("250 2.0.0 more")?;
        Ok(())
    }

    fn end(&mut self, octets: Vec<u8>, chunked: bool) -> Result<(), Over> {
        self.audit(&octets);
        let answer = self.ask(Stage::End, self.mail.as_deref().unwrap_or_default());
        let keeps = match &answer {
            Answer::Accept | Answer::AcceptAndClose => true,
            Answer::Say(text) => text.starts_with('2'),
            Answer::Close | Answer::Silence | Answer::Endless => false,
        };
        if keeps {
            self.shared.received.lock().unwrap().push(Received {
                mail: self.mail.take().unwrap_or_default(),
                rcpt: std::mem::take(&mut self.rcpt),
                octets,
                hello: self.hello.clone(),
                session: self.number,
                chunked,
            });
        }
        self.clear();
        self.answer(answer, "250 2.0.0 kept")?;
        Ok(())
    }

    fn audit(&self, octets: &[u8]) {
        let audit = &self.shared.audit;
        for (place, &octet) in octets.iter().enumerate() {
            let before = place.checked_sub(1).map(|at| octets[at]);
            if octet == b'\n' && before != Some(b'\r') {
                audit.bare_lf.fetch_add(1, Ordering::SeqCst);
            }
            if octet == b'\r' && octets.get(place + 1) != Some(&b'\n') {
                audit.bare_cr.fetch_add(1, Ordering::SeqCst);
            }
        }
        let long = octets.split(|&octet| octet == b'\n').filter(|line| line.len() > 999).count();
        audit.long_lines.fetch_add(long, Ordering::SeqCst);
    }
}
