//! What was said in a session, kept for a while within a bound: the beginning, and the end.

use std::collections::VecDeque;

use smtpd_core::smtp::dialogue::{Dialogue, Said, Side};

/// How much is kept of the beginning, and of the end.
const OCTETS_MAX: usize = 8 << 10;

/// What was said since the last look.
#[derive(Debug, Default)]
pub(super) struct Tape {
    /// Knows what nobody may see.
    dialogue: Dialogue,
    lines: Lines,
    /// It began in the middle of a session, and no transaction has begun since: what is said now may be
    /// a password.
    is_late: bool,
    /// What is for the look after the next.
    behind: Option<Behind>,
}

/// Something else is being talked about, before all replies to what went before have come.
#[derive(Debug)]
struct Behind {
    /// How many of those have not.
    replies: usize,
    lines: Lines,
}

#[derive(Debug, Default)]
struct Lines {
    first: Vec<String>,
    first_octets: usize,
    last: VecDeque<String>,
    last_octets: usize,
    left_out: u64,
}

impl Tape {
    /// One that begins in the middle of a session: it keeps nothing before the next transaction.
    pub(super) fn late() -> Self {
        Self { is_late: true, ..Self::default() }
    }

    pub(super) fn hear(&mut self, side: Side, octets: &[u8]) {
        // No answer to a question about a password has a blank.
        self.is_late &= side == Side::Server || !octets.starts_with(b"MAIL FROM:");
        if self.is_late {
            return;
        }
        let Self { dialogue, lines, behind, .. } = self;
        dialogue.take(side, octets, |said| {
            let behind = behind.as_mut().and_then(|it| it.is_of_it(&said).then_some(it));
            behind.map_or(&mut *lines, |it| &mut it.lines).put(said);
        });
    }

    /// What the client says from now on is for the look after the next, and so is what the server says
    /// after so many replies.
    pub(super) fn split(&mut self, replies: usize) {
        self.behind.get_or_insert_with(|| Behind { replies, lines: Lines::default() });
    }

    pub(super) fn pass_body(&mut self, octets: usize) {
        self.dialogue.pass_body(octets as u64);
    }

    /// The lines so far, joined by LF; nothing if nothing was said. Later ones are for the next look.
    pub(super) fn take(&mut self) -> Option<String> {
        let behind = self.behind.take().map(|behind| behind.lines).unwrap_or_default();
        let Lines { mut first, last, left_out, .. } = std::mem::replace(&mut self.lines, behind);
        if left_out > 0 {
            first.push(format!("… {left_out} lines are left out"));
        }
        first.extend(last);
        (!first.is_empty()).then(|| first.join("\n"))
    }
}

impl Behind {
    /// Whether a line belongs here. Octets of a message do not: the last one's end is told when the next
    /// line is.
    fn is_of_it(&mut self, said: &Said) -> bool {
        match said {
            Said::Body(_) => false,
            Said::Line(Side::Client, _) => true,
            Said::Line(Side::Server, text) => {
                let is_of_it = self.replies == 0;
                if text.as_bytes().get(3) != Some(&b'-') {
                    self.replies = self.replies.saturating_sub(1);
                }
                is_of_it
            }
        }
    }
}

impl Lines {
    fn put(&mut self, said: Said) {
        let line = match said {
            Said::Line(Side::Client, text) => format!("C: {text}"),
            Said::Line(Side::Server, text) => format!("S: {text}"),
            Said::Body(octets) => format!("   {octets} octets of a message"),
        };
        if self.first_octets + line.len() <= OCTETS_MAX && self.last.is_empty() {
            self.first_octets += line.len();
            self.first.push(line);
            return;
        }
        self.last_octets += line.len();
        self.last.push_back(line);
        while self.last_octets > OCTETS_MAX
            && let Some(oldest) = self.last.pop_front()
        {
            self.last_octets -= oldest.len();
            self.left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tape_that_begins_late_keeps_nothing_before_a_transaction() {
        let mut tape = Tape::late();
        tape.hear(Side::Server, b"334 UGFzc3dvcmQ6\r\n");
        tape.hear(Side::Client, b"c2VjcmV0\r\n");
        assert_eq!(tape.take(), None);
        tape.hear(Side::Client, b"MAIL FROM:<>\r\n");
        tape.hear(Side::Server, b"250 ok\r\n");
        assert_eq!(tape.take().as_deref(), Some("C: MAIL FROM:<>\nS: 250 ok"));
    }

    #[test]
    fn a_tape_has_both_sides_and_no_secret_and_is_taken_once() {
        let mut tape = Tape::default();
        tape.hear(Side::Server, b"220 mx\r\n");
        tape.hear(Side::Client, b"AUTH PLAIN c2VjcmV0\r\n");
        tape.hear(Side::Server, b"235 ok\r\n");
        tape.hear(Side::Client, b"DATA\r\n");
        tape.pass_body(12);
        tape.hear(Side::Server, b"250 ok\r\n");
        assert_eq!(
            tape.take().unwrap(),
            "S: 220 mx\nC: AUTH PLAIN ***\nS: 235 ok\nC: DATA\n   12 octets of a message\nS: 250 ok"
        );
        assert_eq!(tape.take(), None);
        tape.hear(Side::Client, b"c2VjcmV0\r\n");
        assert_eq!(tape.take().unwrap(), "C: ***");
    }

    #[test]
    fn what_is_said_of_the_next_message_is_not_in_the_tape_of_the_last() {
        let mut tape = Tape::default();
        tape.hear(Side::Server, b"354 go\r\n");
        tape.pass_body(12);
        tape.split(1);
        tape.hear(Side::Client, b"MAIL FROM:<b@x>\r\nRCPT TO:<c@y>\r\n");
        tape.hear(Side::Server, b"250-taken\r\n250 ok\r\n250 sender ok\r\n550");
        let first = "S: 354 go\n   12 octets of a message\nS: 250-taken\nS: 250 ok";
        assert_eq!(tape.take().unwrap(), first);
        tape.hear(Side::Server, b" no\r\n");
        let next = "C: MAIL FROM:<b@x>\nC: RCPT TO:<c@y>\nS: 250 sender ok\nS: 550 no";
        assert_eq!(tape.take().unwrap(), next);
        assert_eq!(tape.take(), None);
    }

    #[test]
    fn a_long_tape_keeps_its_beginning_and_its_end() {
        let mut tape = Tape::default();
        for number in 0..10_000 {
            tape.hear(Side::Server, format!("250-{number}\r\n").as_bytes());
        }
        let text = tape.take().unwrap();
        assert!(text.len() < 2 * OCTETS_MAX + 4_000, "{}", text.len());
        assert!(text.starts_with("S: 250-0\n") && text.ends_with("S: 250-9999"));
        assert!(text.contains(" lines are left out\n"));
    }
}
