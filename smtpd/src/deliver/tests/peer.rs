//! A receiving host with a fault where a test wants one.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::net::{Listener, Net, Stream};

/// What a peer does.
#[derive(Clone, Debug)]
pub(super) struct Script {
    offers: &'static [&'static str],
    /// The front of the command (or GREETING, END).
    fault_at: String,
    /// What happens then: `close`, `silence`, or a reply.
    fault: String,
    times: usize,
    after_messages: usize,
    recipients_max: usize,
    sessions_max: usize,
}

impl Script {
    pub(super) fn honest() -> Self {
        Self {
            offers: &["PIPELINING", "SIZE 10000000", "8BITMIME", "SMTPUTF8"],
            fault_at: "none".into(),
            fault: String::new(),
            times: usize::MAX,
            after_messages: 0,
            recipients_max: usize::MAX,
            sessions_max: usize::MAX,
        }
    }

    /// `RCPT 450 4.2.0 words`, `RCPT TO:<x@ 550 words`, `MAIL close`, `END silence`.
    pub(super) fn with(fault: &str) -> Self {
        let at = fault
            .match_indices(' ')
            .map(|(at, _)| at)
            .find(|at| {
                let rest = &fault[at + 1..];
                rest == "close" || rest == "silence" || rest.as_bytes()[0].is_ascii_digit()
            })
            .unwrap();
        let (fault_at, fault) = (fault[..at].to_owned(), fault[at + 1..].to_owned());
        Self { fault_at, fault, ..Self::honest() }
    }

    /// Only this often.
    pub(super) fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Only once a session has carried so many messages.
    pub(super) fn after_messages(self, after_messages: usize) -> Self {
        Self { after_messages, ..self }
    }

    pub(super) fn recipients_max(self, recipients_max: usize) -> Self {
        Self { recipients_max, ..self }
    }

    pub(super) fn sessions_max(self, sessions_max: usize) -> Self {
        Self { sessions_max, ..self }
    }

    pub(super) fn offers(self, offers: &'static [&'static str]) -> Self {
        Self { offers, ..self }
    }
}

/// A message taken.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    pub(super) sender: String,
    pub(super) recipients: Vec<String>,
    pub(super) body: String,
}

#[derive(Debug, Default)]
struct Seen {
    mail: Vec<Mail>,
    sessions: usize,
    open: usize,
    most_open: usize,
    most_in_a_session: usize,
    faults: usize,
    commands: Vec<String>,
}

/// A host that listens until the test ends.
#[derive(Clone, Debug)]
pub(super) struct Peer(Arc<Mutex<Seen>>);

impl Peer {
    pub(super) fn start(net: &Net, at: &str, script: Script) -> Self {
        Self::start_on(net.listen(at.parse().unwrap()).unwrap(), script)
    }

    pub(super) fn start_on(listener: Listener, script: Script) -> Self {
        let peer = Self(Arc::default());
        let seen = peer.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let crowded = {
                    let mut seen = seen.0.lock().unwrap();
                    seen.sessions += 1;
                    seen.open += 1;
                    seen.most_open = seen.most_open.max(seen.open);
                    seen.open > script.sessions_max
                };
                let (seen, script) = (seen.clone(), script.clone());
                tokio::spawn(async move {
                    if crowded {
                        stream.write_all(b"421 4.7.0 too many connections\r\n").await.unwrap();
                    } else {
                        converse(seen.clone(), script, stream).await;
                    }
                    seen.0.lock().unwrap().open -= 1;
                });
            }
        });
        peer
    }

    pub(super) fn mail(&self) -> Vec<Mail> {
        self.0.lock().unwrap().mail.clone()
    }

    pub(super) fn sessions(&self) -> usize {
        self.0.lock().unwrap().sessions
    }

    pub(super) fn most_open(&self) -> usize {
        self.0.lock().unwrap().most_open
    }

    pub(super) fn most_in_a_session(&self) -> usize {
        self.0.lock().unwrap().most_in_a_session
    }

    pub(super) fn saw(&self, command: &str) -> bool {
        self.0.lock().unwrap().commands.iter().any(|seen| seen.starts_with(command))
    }
}

/// The state of one session.
struct Session {
    peer: Peer,
    script: Script,
    stream: BufReader<Stream>,
    messages: usize,
    mail: Mail,
}

async fn converse(peer: Peer, script: Script, stream: Stream) {
    let mail = Mail { sender: String::new(), recipients: Vec::new(), body: String::new() };
    let stream = BufReader::new(stream);
    let mut session = Session { peer, script, stream, messages: 0, mail };
    if !session.answer("GREETING", "220 peer ESMTP\r\n").await {
        return;
    }
    let mut line = String::new();
    loop {
        line.clear();
        match session.stream.read_line(&mut line).await {
            Ok(1..) => {}
            _ => return,
        }
        let command = line.trim_end().to_owned();
        session.peer.0.lock().unwrap().commands.push(command.clone());
        if !session.obey(&command).await {
            return;
        }
    }
}

impl Session {
    /// Says the reply, or does what the script plans here; says whether the session goes on.
    async fn answer(&mut self, at: &str, reply: &str) -> bool {
        let planned = {
            let mut seen = self.peer.0.lock().unwrap();
            let planned = at.starts_with(&self.script.fault_at)
                && self.messages >= self.script.after_messages
                && seen.faults < self.script.times;
            seen.faults += usize::from(planned);
            planned
        };
        let fault = self.script.fault.clone();
        match (planned, fault.as_str()) {
            (false, _) => self.say(reply).await,
            (true, "close") => false,
            (true, "silence") => std::future::pending().await,
            (true, words) => self.say(&format!("{words}\r\n")).await && !words.starts_with("421"),
        }
    }

    async fn say(&mut self, reply: &str) -> bool {
        self.stream.get_mut().write_all(reply.as_bytes()).await.is_ok()
    }

    async fn obey(&mut self, command: &str) -> bool {
        let faults = |session: &Self| session.peer.0.lock().unwrap().faults;
        let before = faults(self);
        if command.starts_with("EHLO") {
            let offers: String =
                self.script.offers.iter().map(|offer| format!("250-{offer}\r\n")).collect();
            return self.answer(command, &format!("250-peer\r\n{offers}250 HELP\r\n")).await;
        }
        if let Some(rest) = command.strip_prefix("MAIL FROM:") {
            self.mail.sender = rest.split(' ').next().unwrap_or_default().to_owned();
            self.mail.recipients.clear();
        }
        if let Some(rest) = command.strip_prefix("RCPT TO:") {
            if self.mail.recipients.len() >= self.script.recipients_max {
                return self.say("452 4.5.3 too many recipients\r\n").await;
            }
            let goes_on = self.answer(command, "250 2.1.5 ok\r\n").await;
            if goes_on && faults(self) == before {
                let recipient = rest.split(' ').next().unwrap_or_default().to_owned();
                self.mail.recipients.push(recipient);
            }
            return goes_on;
        }
        if command == "DATA" {
            if self.mail.recipients.is_empty() {
                return self.say("503 5.5.1 no valid recipients\r\n").await;
            }
            let goes_on = self.answer(command, "354 go\r\n").await;
            return goes_on && (faults(self) != before || self.take_body().await);
        }
        if let Some(size) = command.strip_prefix("BDAT ") {
            return self.take_chunk(size).await;
        }
        if command == "QUIT" {
            self.say("221 2.0.0 bye\r\n").await;
            return false;
        }
        self.answer(command, "250 2.0.0 ok\r\n").await
    }

    async fn take_chunk(&mut self, size: &str) -> bool {
        let last = size.ends_with(" LAST");
        let size: usize = size.trim_end_matches(" LAST").parse().unwrap();
        let mut octets = vec![0; size];
        if self.stream.read_exact(&mut octets).await.is_err() {
            return false;
        }
        self.mail.body.push_str(&String::from_utf8(octets).unwrap());
        if last {
            let mut seen = self.peer.0.lock().unwrap();
            seen.mail.push(self.mail.clone());
            self.mail.body.clear();
        }
        self.say("250 2.0.0 taken\r\n").await
    }

    async fn take_body(&mut self) -> bool {
        let mut octets = Vec::new();
        while !octets.ends_with(b"\r\n.\r\n") {
            match self.stream.read_u8().await {
                Ok(octet) => octets.push(octet),
                Err(_) => return false,
            }
        }
        let faults = self.peer.0.lock().unwrap().faults;
        let goes_on = self.answer("END", "250 2.0.0 taken\r\n").await;
        let mut seen = self.peer.0.lock().unwrap();
        if goes_on && seen.faults == faults {
            octets.truncate(octets.len() - 3);
            let text = String::from_utf8(octets).unwrap();
            let body = text
                .split_inclusive("\r\n")
                .map(|line| line.strip_prefix('.').unwrap_or(line))
                .collect();
            seen.mail.push(Mail { body, ..self.mail.clone() });
            self.messages += 1;
            seen.most_in_a_session = seen.most_in_a_session.max(self.messages);
        }
        self.mail.recipients.clear();
        goes_on
    }
}
