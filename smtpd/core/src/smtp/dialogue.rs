//! What is said in a session, line by line, as an operator may see it.
//!
//! In: octets of either side, in whatever pieces they come, and how many octets of a message went by.
//! Out: lines without what nobody may see. Behind AUTH nothing that the client says is shown until a
//! reply other than 334 has ended the exchange; messages are counted, not shown; characters that
//! would move a terminal's cursor are written out. Whoever begins to listen in the middle does not
//! know whether a secret is just being said: until the server has replied, and ever after AUTH, DATA
//! or BDAT, only what begins with a verb is shown.

use std::fmt::Write;

/// The longest line that is shown, in octets; of a longer one the rest is counted.
pub const LINE_OCTETS_MAX: usize = 1_000;
/// What stands for a secret.
const MASK: &str = "***";
/// Verbs that a client begins its lines with, but for AUTH.
const VERBS: [&str; 14] = [
    "HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "EXPN", "HELP",
    "QUIT", "STARTTLS",
];

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who sends mail.
    Client,
    /// Who takes it.
    Server,
}

/// Something that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A line, without its end.
    Line(Side, String),
    /// Octets of a message.
    Body(u64),
}

/// A line that is not complete yet.
#[derive(Clone, Debug, Default)]
struct Part {
    octets: Vec<u8>,
    /// Octets that are not kept.
    more: usize,
}

/// What may be said of what the client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Nothing is known: somebody began to listen.
    Unknown,
    /// Commands.
    Commands,
    /// The answers of an AUTH exchange.
    Secrets,
    /// There was such an exchange, or a message; a client that did not wait for the answer may go on
    /// with either though it was refused.
    Wary,
}

/// One session as somebody listens to it.
#[derive(Clone, Debug)]
pub struct Dialogue {
    trust: Trust,
    client: Part,
    server: Part,
    body: u64,
}

impl Default for Dialogue {
    fn default() -> Self {
        let (client, server) = (Part::default(), Part::default());
        Self { trust: Trust::Unknown, client, server, body: 0 }
    }
}

impl Dialogue {
    /// Takes octets of commands or replies; hands each line to `said` when it is complete.
    pub fn take(&mut self, side: Side, octets: &[u8], mut said: impl FnMut(Said)) {
        self.end_body(&mut said);
        for piece in octets.split_inclusive(|&octet| octet == b'\n') {
            let part = match side {
                Side::Client => &mut self.client,
                Side::Server => &mut self.server,
            };
            part.add(piece);
            if piece.ends_with(b"\n") {
                let part = std::mem::take(part);
                said(Said::Line(side, self.show(side, &part)));
            }
        }
    }

    /// Counts octets of a message. They are told when something else is said.
    pub fn pass_body(&mut self, octets: u64) {
        self.body += octets;
    }

    /// Tells what was not told yet.
    pub fn finish(&mut self, mut said: impl FnMut(Said)) {
        self.end_body(&mut said);
        for side in [Side::Client, Side::Server] {
            let part = match side {
                Side::Client => std::mem::take(&mut self.client),
                Side::Server => std::mem::take(&mut self.server),
            };
            if !part.octets.is_empty() {
                said(Said::Line(side, self.show(side, &part)));
            }
        }
    }

    fn end_body(&mut self, said: &mut impl FnMut(Said)) {
        if self.body > 0 {
            said(Said::Body(std::mem::take(&mut self.body)));
        }
    }

    fn show(&mut self, side: Side, part: &Part) -> String {
        match side {
            Side::Server => {
                let code = part.octets.get(..3).unwrap_or_default();
                let is_last = part.octets.get(3).is_none_or(|sign| *sign != b'-');
                self.trust = match self.trust {
                    Trust::Unknown if is_last && code != b"334" => Trust::Commands,
                    Trust::Secrets if is_last && code != b"334" => Trust::Wary,
                    trust => trust,
                };
                // A salt and a signature are enough to try passwords elsewhere.
                match code {
                    b"334" => format!("334 {MASK}"),
                    _ => part.visible(),
                }
            }
            Side::Client => self.show_command(part),
        }
    }

    fn show_command(&mut self, part: &Part) -> String {
        let words = part.octets.split(|octet| octet.is_ascii_whitespace() || *octet == b':');
        let mut words = words.filter(|word| !word.is_empty());
        let verb = words.next().unwrap_or_default();
        if self.trust == Trust::Secrets {
            return MASK.to_owned();
        }
        if verb.eq_ignore_ascii_case(b"AUTH") {
            self.trust = Trust::Secrets;
            let mechanism = words.next().map(|word| visible(word, 0)).unwrap_or_default();
            let has_more = words.next().is_some() || part.more > 0;
            let secret = if has_more { MASK } else { "" };
            return format!("AUTH {mechanism} {secret}").trim_end().to_owned();
        }
        let is_verb = VERBS.iter().any(|known| verb.eq_ignore_ascii_case(known.as_bytes()));
        if verb.eq_ignore_ascii_case(b"DATA") || verb.eq_ignore_ascii_case(b"BDAT") {
            self.trust = Trust::Wary;
        }
        if is_verb || self.trust == Trust::Commands { part.visible() } else { MASK.to_owned() }
    }
}

impl Part {
    fn add(&mut self, octets: &[u8]) {
        let room = LINE_OCTETS_MAX - self.octets.len().min(LINE_OCTETS_MAX);
        let (kept, more) = octets.split_at(octets.len().min(room));
        self.octets.extend_from_slice(kept);
        self.more += more.len();
    }

    fn visible(&self) -> String {
        let octets = self.octets.strip_suffix(b"\n").unwrap_or(&self.octets);
        visible(octets.strip_suffix(b"\r").unwrap_or(octets), self.more)
    }
}

/// Text with what is no visible character written out as `\x1b`.
fn visible(octets: &[u8], more: usize) -> String {
    let mut text = String::with_capacity(octets.len());
    let mut out = |part: std::fmt::Arguments<'_>| {
        let done = text.write_fmt(part);
        debug_assert!(done.is_ok(), "writing into a String cannot fail");
    };
    for chunk in octets.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|o| out(format_args!("\\x{o:02x}")));
            } else {
                out(format_args!("{c}"));
            }
        }
        chunk.invalid().iter().for_each(|octet| out(format_args!("\\x{octet:02x}")));
    }
    if more > 0 {
        out(format_args!(" [{more} more octets]"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays what both sides say, piece by piece; `B:` is a count of octets of a message.
    fn shown(dialogue: &mut Dialogue, script: &[&str]) -> Vec<String> {
        let mut all = Vec::new();
        let mut said = |said: Said| {
            all.push(match said {
                Said::Line(Side::Client, text) => format!("C: {text}"),
                Said::Line(Side::Server, text) => format!("S: {text}"),
                Said::Body(octets) => format!("B: {octets}"),
            });
        };
        for line in script {
            let (side, text) = line.split_at(3);
            match side {
                "C: " => dialogue.take(Side::Client, text.as_bytes(), &mut said),
                "S: " => dialogue.take(Side::Server, text.as_bytes(), &mut said),
                _ => dialogue.pass_body(text.parse().unwrap()),
            }
        }
        dialogue.finish(&mut said);
        all
    }

    #[test]
    fn lines_are_put_together_and_bodies_counted() {
        let mut dialogue = Dialogue::default();
        let script = [
            "S: 220 mx\r\n",
            "C: MA",
            "C: IL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n",
            "S: 250 ok\r\n250 ok\r\n",
            "C: DATA\r\n",
            "S: 354 go\r\n",
            "B: 100",
            "B: 23",
            "S: 250 2.6.0 taken\r\n",
            "C: Subject: x\r\nQUIT",
        ];
        let expected = [
            "S: 220 mx",
            "C: MAIL FROM:<a@x>",
            "C: RCPT TO:<b@y>",
            "S: 250 ok",
            "S: 250 ok",
            "C: DATA",
            "S: 354 go",
            "B: 123",
            "S: 250 2.6.0 taken",
            "C: ***",
            "C: QUIT",
        ];
        assert_eq!(shown(&mut dialogue, &script), expected);
    }

    #[test]
    fn secrets_are_never_shown() {
        let mut dialogue = Dialogue::default();
        let script = [
            "S: 250 ok\r\n",
            "C: auth plain AGFsAHNlY3JldA==\r\n",
            "S: 535 no\r\n",
            "C: AUTH LOGIN\r\n",
            "S: 334 VXNlcm5hbWU6\r\n",
            "C: c2VjcmV0\r\n",
            "S: 334-more\r\n334 more\r\n",
            "C: QUIT\r\n",
            "S: 535-no\r\n535 no\r\n",
            "C: NOOP\r\n",
            "C: c2Vj\r\n",
            "C: \tAUTH:x secret\r\n",
            "C: secret\r\n",
        ];
        let expected = [
            "S: 250 ok",
            "C: AUTH plain ***",
            "S: 535 no",
            "C: AUTH LOGIN",
            "S: 334 ***",
            "C: ***",
            "S: 334 ***",
            "S: 334 ***",
            "C: ***",
            "S: 535-no",
            "S: 535 no",
            "C: NOOP",
            "C: ***",
            "C: AUTH x ***",
            "C: ***",
        ];
        assert_eq!(shown(&mut dialogue, &script), expected);
    }

    #[test]
    fn whoever_comes_in_the_middle_sees_no_secret() {
        let mut dialogue = Dialogue::default();
        let script =
            ["C: c2VjcmV0\r\n", "S: 334 \r\n", "C: c2VjcmV0\r\n", "S: 235 in\r\n", "C: x\r\n"];
        let expected = ["C: ***", "S: 334 ***", "C: ***", "S: 235 in", "C: x"];
        assert_eq!(shown(&mut dialogue, &script), expected);
        let script = ["C: Rcpt To:<b@y>\r\n", "S: 250 ok\r\n"];
        assert_eq!(shown(&mut Dialogue::default(), &script), ["C: Rcpt To:<b@y>", "S: 250 ok"]);
    }

    #[test]
    fn lines_are_bounded_and_move_no_cursor() {
        let mut dialogue = Dialogue::default();
        let mut all = Vec::new();
        dialogue
            .take(Side::Server, b"250 \x1b[2J\xff \xc3\xbc \xc2\x9b\r\n", |said| all.push(said));
        let shown = "250 \\x1b[2J\\xff \u{fc} \\xc2\\x9b".to_owned();
        assert_eq!(all, [Said::Line(Side::Server, shown)]);
        for _ in 0..100 {
            dialogue.take(Side::Client, &[b'x'; 100], |said| all.push(said));
        }
        assert_eq!(dialogue.client.octets.len(), LINE_OCTETS_MAX);
        dialogue.take(Side::Client, b"\n", |said| all.push(said));
        let Some(Said::Line(_, text)) = all.last() else { panic!("a line") };
        assert!(text.ends_with("x [9001 more octets]"), "{text}");
    }
}
