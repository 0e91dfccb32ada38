//! The `Authentication-Results` field (RFC 8601): our own, and those that bear our name without being
//! ours.
//!
//! A field is written in lines of bounded length; what a stranger chose stands in it only as domain
//! names and characters of base64. Where the room for it was set aside before the findings were known,
//! blanks before a line end fill it up, which a reader passes over as part of the fold (RFC 5322
//! section 3.2.2).

use std::borrow::Cow;
use std::fmt::Write as _;

use mailroot_common::address::Domain;

use super::{DkimFinding, Findings, SpfFinding};
use crate::message::header;
use crate::sender::dkim::DkimResult;

const NAME: &str = "Authentication-Results";
/// Blanks in one line, so that with its words it keeps within the 998 octets of RFC 5322.
const BLANKS_MAX: usize = 400;

impl Findings {
    /// Writes the field with its line end. Where `room` is given it takes exactly so many octets, which
    /// must be at least those it needs.
    pub fn write(&self, host: &str, room: Option<usize>, out: &mut Vec<u8>) {
        let lines = self.lines();
        let mut text = format!("{NAME}: {host};");
        let needed = text.len() + lines.iter().map(|line| line.len() + 4).sum::<usize>() + 1;
        let mut blanks = room.map_or(0, |room| room.saturating_sub(needed));
        let last = lines.len().saturating_sub(1);
        for (number, line) in lines.iter().enumerate() {
            let now = if number == last { blanks } else { blanks.min(BLANKS_MAX) };
            blanks -= now;
            text.extend(std::iter::repeat_n(' ', now));
            text.push_str("\r\n\t");
            text.push_str(line);
            if number != last {
                text.push(';');
            }
        }
        text.push_str("\r\n");
        out.extend_from_slice(text.as_bytes());
    }

    /// One line for each result.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(spf) = &self.spf {
            lines.push(spf_line(spf));
        }
        for (number, dkim) in self.dkim.iter().enumerate() {
            let mut line = dkim_line(dkim);
            if self.more_signatures && number + 1 == self.dkim.len() {
                line.push_str(" (more were not looked at)");
            }
            lines.push(line);
        }
        if let Some(dmarc) = &self.dmarc {
            let mut line = format!("dmarc={}", dmarc.result.word());
            match &dmarc.overruled_by {
                Some(sealer) => {
                    let wish = dmarc.wish.word();
                    add(&mut line, format_args!(" (p={wish}, overruled by arc=pass of {sealer})"));
                }
                None => add(&mut line, format_args!(" (p={})", dmarc.wish.word())),
            }
            domain(&mut line, "header.from", dmarc.domain.as_ref());
            lines.push(line);
        }
        if let Some(arc) = &self.arc {
            let mut line = format!("arc={}", arc.result.word());
            domain(&mut line, "header.d", arc.sealer.as_ref());
            lines.push(line);
        }
        if lines.is_empty() {
            lines.push("none".to_owned());
        }
        lines
    }

    /// The same in a few words, for people: `spf=pass dkim=pass(a.example) dmarc=pass`.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut words = Vec::new();
        if let Some(spf) = &self.spf {
            words.push(format!("spf={}", spf.result.word()));
        }
        for dkim in &self.dkim {
            words.push(match &dkim.label.domain {
                Some(domain) => format!("dkim={}({domain})", dkim.result.word()),
                None => format!("dkim={}", dkim.result.word()),
            });
        }
        if let Some(dmarc) = &self.dmarc {
            words.push(format!("dmarc={}", dmarc.result.word()));
        }
        if let Some(arc) = &self.arc {
            let overrules = self.dmarc.as_ref().and_then(|dmarc| dmarc.overruled_by.as_ref());
            words.push(match overrules {
                Some(sealer) => format!("arc={}({sealer})", arc.result.word()),
                None => format!("arc={}", arc.result.word()),
            });
        }
        words.join(" ")
    }
}

fn add(line: &mut String, words: std::fmt::Arguments<'_>) {
    let done = line.write_fmt(words);
    debug_assert!(done.is_ok(), "writing into a String cannot fail");
}

fn domain(line: &mut String, property: &str, domain: Option<&Domain>) {
    if let Some(domain) = domain {
        add(line, format_args!(" {property}={domain}"));
    }
}

fn spf_line(spf: &SpfFinding) -> String {
    let mut line = format!("spf={}", spf.result.word());
    let property = if spf.is_helo { "smtp.helo" } else { "smtp.mailfrom" };
    domain(&mut line, property, spf.domain.as_ref());
    line
}

fn dkim_line(dkim: &DkimFinding) -> String {
    let mut line = format!("dkim={}", dkim.result.word());
    if !matches!(dkim.result, DkimResult::Pass | DkimResult::None) {
        add(&mut line, format_args!(" reason=\"{}\"", dkim.reason));
    }
    domain(&mut line, "header.d", dkim.label.domain.as_ref());
    domain(&mut line, "header.s", dkim.label.selector.as_ref());
    if !dkim.label.mark.is_empty() {
        add(&mut line, format_args!(" header.b=\"{}\"", dkim.label.mark));
    }
    line
}

/// The header without `Authentication-Results` fields that bear this name, which nobody but us may give
/// (RFC 8601 section 5).
#[must_use]
pub fn without_results<'a>(octets: &'a [u8], host: &str) -> Cow<'a, [u8]> {
    header::without_where(octets, |field| {
        field.is(NAME) && says(&octets[field.value.clone()], host)
    })
}

/// Whether a value begins with this name; comments and folds may stand before it, and quotes around it.
fn says(value: &[u8], host: &str) -> bool {
    let mut rest = value;
    let mut depth = 0_usize;
    while let Some((&octet, after)) = rest.split_first() {
        match octet {
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            b'\\' if depth > 0 => {
                rest = after.get(1..).unwrap_or_default();
                continue;
            }
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ if depth > 0 => {}
            _ => break,
        }
        rest = after;
    }
    let is_end = |octet: &u8| b" \t\r\n;(/".contains(octet);
    let named: Vec<u8> = match rest.strip_prefix(b"\"") {
        Some(quoted) => {
            let mut name = Vec::new();
            let mut octets = quoted.iter();
            while let Some(&octet) = octets.next() {
                match octet {
                    b'"' => break,
                    b'\\' => name.extend(octets.next()),
                    b'\r' | b'\n' => {}
                    _ => name.push(octet),
                }
            }
            name
        }
        None => rest.iter().take_while(|octet| !is_end(octet)).copied().collect(),
    };
    let named = named.trim_ascii();
    let named = named.strip_suffix(b".").unwrap_or(named);
    named.eq_ignore_ascii_case(host.as_bytes())
}
