//! Where messages are: what was sent, what was said to it, and every place where it may have ended.
//!
//! A place that holds a message holds all of it: whoever looks here compares bodies octet for octet, and a
//! file under a final name that is half a message fails the test.

use std::fs;
use std::path::Path;

use crate::account::tag;
use crate::message::{Stored, body};
use crate::peer::Peer;
use crate::setup::LOCAL_DOMAIN;
use crate::site::Site;
use crate::talk::Talk;

/// How a message is handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By SMTP, from this sender.
    Smtp(&'static str),
    /// As a file that is moved into Pickup whole.
    Pickup,
}

/// Where a message has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the remote peer.
    Peer,
    /// In Drop.
    Drop,
    /// In a report to its sender, in Drop. Its recipient is called `TAG.` and something.
    Returned,
    /// In Badmail.
    Badmail,
}

/// What whoever sent a message knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// It was not sent yet.
    Unsent,
    /// 250, or it stood in Pickup under its final name.
    Acknowledged,
    /// This was the reply.
    Refused(u16),
    /// The connection ended before a reply: both ends are right.
    Open,
}

/// A message of a test, from the hand that sends it.
#[derive(Clone, Debug)]
pub struct Letter {
    /// What no other message of the site carries.
    pub tag: String,
    /// As it is sent.
    pub octets: Vec<u8>,
    /// How it is handed in.
    pub way: Way,
    /// Whom it is for, if it goes by SMTP.
    pub to: String,
    /// Where it has to end.
    pub end: End,
    /// What was said to it.
    pub word: Word,
}

impl Letter {
    /// A message by SMTP with `filling` more octets in its body.
    #[must_use]
    pub fn smtp(tag: &str, from: &'static str, to: &str, end: End, filling: usize) -> Self {
        let octets = filled(tag, filling);
        let (tag, to) = (tag.to_owned(), to.to_owned());
        Self { tag, octets, way: Way::Smtp(from), to, end, word: Word::Unsent }
    }

    /// A message by SMTP to somebody of Drop.
    #[must_use]
    pub fn local(tag: &str, filling: usize) -> Self {
        let to = format!("{tag}@{LOCAL_DOMAIN}");
        Self::smtp(tag, "sender@client.test", &to, End::Drop, filling)
    }

    /// A file of Pickup to somebody of Drop.
    #[must_use]
    pub fn file(tag: &str, filling: usize) -> Self {
        let head = format!("X-Sender: a@client.test\r\nX-Receiver: {tag}@{LOCAL_DOMAIN}\r\n");
        let octets = [head.into_bytes(), filled(tag, filling)].concat();
        let (tag, to) = (tag.to_owned(), String::new());
        Self { tag, octets, way: Way::Pickup, to, end: End::Drop, word: Word::Unsent }
    }

    /// A file of Pickup that says to nobody where it goes.
    #[must_use]
    pub fn bad_file(tag: &str, filling: usize) -> Self {
        let octets = [format!("X-Tag: {tag}\r\n\r\n").into_bytes(), lines(filling)].concat();
        Self { octets, end: End::Badmail, ..Self::file(tag, 0) }
    }

    /// Hands it in. A connection that broke before is made anew.
    ///
    /// # Panics
    ///
    /// When a file cannot be put into Pickup.
    pub fn send(&mut self, site: &Site, talk: &mut Option<Talk>) {
        let Way::Smtp(from) = self.way else {
            let staged = site.home().join(&self.tag);
            fs::write(&staged, &self.octets).unwrap();
            let last = site.spool("default", "Pickup").join(format!("{}.eml", self.tag));
            fs::rename(staged, last).unwrap();
            self.word = Word::Acknowledged;
            return;
        };
        self.word = Word::Open;
        let spoken = match talk.take() {
            Some(open) => Ok(open),
            None => Talk::try_to(site.address()).and_then(|mut open| {
                open.try_say("EHLO client.test")?;
                Ok(open)
            }),
        };
        let Ok(mut open) = spoken else { return };
        let Ok(reply) = open.message(from, &[&self.to], &self.octets) else { return };
        self.word = match reply.code {
            250 => Word::Acknowledged,
            code => Word::Refused(code),
        };
        if reply.code == 250 || open.try_say("RSET").is_ok() {
            *talk = Some(open);
        }
    }
}

fn lines(octets: usize) -> Vec<u8> {
    b"every line of it is counted\r\n".iter().copied().cycle().take(octets / 29 * 29).collect()
}

fn filled(tag: &str, filling: usize) -> Vec<u8> {
    let mut octets = crate::message::tagged(tag);
    octets.extend(lines(filling));
    octets
}

/// A message in a place.
#[derive(Clone, Debug)]
pub struct Found {
    /// The place.
    pub end: End,
    /// Which message it is.
    pub tag: String,
    /// As it was found.
    pub octets: Vec<u8>,
}

/// Everything that has reached an end.
///
/// # Panics
///
/// When something stands under a final name that is not whole.
#[must_use]
pub fn search(site: &Site, peer: &Peer) -> Vec<Found> {
    let mut found: Vec<Found> = site.dropped("default").into_iter().map(filed).collect();
    found.extend(peer.received().into_iter().map(|message| Found {
        end: End::Peer,
        tag: tag(&message.octets),
        octets: message.octets,
    }));
    let kept = Stored::read_all(&site.spool("default", "Badmail"), "eml");
    found.extend(kept.into_iter().map(|stored| {
        let read = |ending: &str| fs::read(stored.path.with_extension(ending)).unwrap_or_default();
        let envelope: Result<serde_json::Value, _> = serde_json::from_slice(&read("envelope"));
        let name = stored.path.display();
        assert!(envelope.is_ok(), "{name} has no whole envelope: {envelope:?}");
        assert!(read("reason").ends_with(b"\n"), "{name} has no whole reason");
        Found { end: End::Badmail, tag: tag(&stored.octets), octets: stored.octets }
    }));
    found
}

/// A file of Drop: a message, or a report that returns one.
fn filed(stored: Stored) -> Found {
    let kind = stored.fields("Content-Type").join(" ");
    if !kind.starts_with("multipart/report") {
        return Found { end: End::Drop, tag: tag(&stored.octets), octets: stored.octets };
    }
    let text = stored.text();
    let boundary = kind.split("boundary=\"").nth(1).and_then(|rest| rest.split('"').next());
    let last = format!("--{}--", boundary.unwrap_or_default());
    assert!(text.trim_end().ends_with(&last), "half a report: {text}");
    // It names the recipient even where the message could not be read again.
    let recipient = text.split("Final-Recipient: rfc822;").nth(1).unwrap_or_default();
    let tag = recipient.split('.').next().unwrap_or_default().trim().to_owned();
    Found { end: End::Returned, tag, octets: stored.octets }
}

/// What the books of one run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Messages that were acknowledged.
    pub acknowledged: usize,
    /// Arrivals beyond the first of each message.
    pub duplicates: usize,
    /// How often the message came that came most often.
    pub most: usize,
}

/// Compares what was said to the letters with what was found. `settled` when everything must have come to
/// its end by now; before that only what is there is looked at.
///
/// # Panics
///
/// When something acknowledged is nowhere, something refused is somewhere, or anything is altered.
#[must_use]
pub fn balance(letters: &[Letter], found: &[Found], settled: bool) -> Sum {
    let mut sum = Sum::default();
    for one in found {
        assert!(letters.iter().any(|letter| letter.tag == one.tag), "never sent: {one:?}");
    }
    for letter in letters {
        let copies: Vec<&Found> = found.iter().filter(|one| one.tag == letter.tag).collect();
        for copy in &copies {
            assert_eq!(copy.end, letter.end, "{} ended where it should not", letter.tag);
            let is_same = copy.end == End::Returned || body(&copy.octets) == body(&letter.octets);
            assert!(is_same, "{} is altered or cut in {:?}", letter.tag, copy.end);
        }
        if letter.word == Word::Acknowledged {
            sum.acknowledged += 1;
            assert!(!settled || !copies.is_empty(), "{} is lost", letter.tag);
        }
        let may_be = matches!(letter.word, Word::Acknowledged | Word::Open);
        assert!(may_be || copies.is_empty(), "{} arrived after {:?}", letter.tag, letter.word);
        sum.duplicates += copies.len().saturating_sub(1);
        sum.most = sum.most.max(copies.len());
    }
    sum
}

/// Whether nothing is on its way any more: no file in Pickup or claimed, no message queued.
#[must_use]
pub fn is_settled(site: &Site) -> bool {
    let pickup = site.spool("default", "Pickup");
    is_empty(&pickup) && is_empty(&pickup.join(".claimed")) && {
        let listed = site.ctl(&["queue", "list", "-o", "name"]);
        listed.code == 0 && listed.out.trim().is_empty()
    }
}

fn is_empty(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_file()).count() == 0
}

/// Whether every acknowledged letter has been found.
#[must_use]
pub fn all_arrived(letters: &[Letter], found: &[Found]) -> bool {
    letters
        .iter()
        .filter(|letter| letter.word == Word::Acknowledged)
        .all(|letter| found.iter().any(|one| one.tag == letter.tag))
}
