//! Edits of one file's text that keep comments, order, quoting and every untouched octet.
//!
//! In: a text that was accepted. Out: the new text. `yaml-edit` changes the text; then two proofs
//! are made, and an edit that fails one is refused: the values of the new text, read by
//! `serde_yaml`, are those of the old one with the change made to them; and no line differs but
//! those of the value that was meant.

use std::ops::Range;
use std::str::FromStr;

use mailroot_common::address::Domain;
use mailroot_common::config::{DomainName, HostPort, Profile};
use serde_yaml::Value;
use yaml_edit::{Document, Sequence};

/// A remote domain to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteDomainSpec {
    /// The domain.
    pub name: DomainName,
    /// Take mail for it from anyone.
    pub relay: bool,
    /// Greet its hosts with HELO.
    pub helo_only: bool,
    /// The hosts that take its mail; none means those of DNS.
    pub route: Vec<HostPort>,
}

/// A virtual server to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// Where it listens, as it is written in a file; none means the default.
    pub listen: Vec<String>,
    /// Its default domain.
    pub domain: Domain,
    /// Its mail root, if not the usual one.
    pub root: Option<String>,
    /// The hosts that take all its mail for other domains.
    pub smart_host: Vec<HostPort>,
    /// Whose defaults it has.
    pub profile: Profile,
    /// Whether it starts with the service.
    pub enabled: bool,
}

/// Why a text was not edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TextError {
    /// The text has a form that cannot be edited safely.
    #[error("{0}")]
    Form(&'static str),
    /// A proof failed.
    #[error("the edit would have changed more than was asked for")]
    Proof,
}

/// A text in double quotes where YAML could take it for something else.
fn quoted(text: &str) -> String {
    let safe = text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._-/".contains(&octet))
        && text.bytes().any(|octet| octet.is_ascii_alphabetic())
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && matches!(serde_yaml::from_str(text), Ok(Value::String(_)));
    if safe { text.to_owned() } else { format!("{text:?}") }
}

/// One value or a list in flow style.
fn flow_list(items: &[String]) -> String {
    match items {
        [one] => quoted(one),
        _ => format!("[{}]", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", ")),
    }
}

/// The entry of an alias, in flow style.
pub(super) fn alias_entry(domain: &Domain) -> String {
    format!("{{name: {}, type: alias}}", quoted(domain.as_str()))
}

/// The entry of a remote domain, in flow style.
pub(super) fn remote_entry(spec: &RemoteDomainSpec) -> String {
    let mut out = format!("{{name: {}, type: remote", quoted(&spec.name.to_string()));
    for (key, on) in [("relay", spec.relay), ("helo_only", spec.helo_only)] {
        if on {
            out.push_str(&format!(", {key}: true"));
        }
    }
    if !spec.route.is_empty() {
        let hosts: Vec<String> = spec.route.iter().map(HostPort::to_string).collect();
        out.push_str(&format!(", route: {}", flow_list(&hosts)));
    }
    out.push('}');
    out
}

/// The file of a new server.
pub(super) fn server_text(name: &str, spec: &ServerSpec) -> String {
    let mut out = format!(
        "# The virtual server \"{name}\". Every key and its default: man 5 mailroot-server.yaml\n\
         version: 1\n"
    );
    if !spec.enabled {
        out.push_str("enabled: false\n");
    }
    if spec.profile == Profile::Iis6 {
        out.push_str("profile: iis6\n");
    }
    if !spec.listen.is_empty() {
        out.push_str(&format!("\ngeneral:\n  listen: {}\n", flow_list(&spec.listen)));
    }
    if !spec.smart_host.is_empty() {
        let hosts: Vec<String> = spec.smart_host.iter().map(HostPort::to_string).collect();
        out.push_str(&format!("\ndelivery:\n  smart_host: {}\n", flow_list(&hosts)));
    }
    if let Some(root) = &spec.root {
        out.push_str(&format!("\nstore:\n  root: {}\n", quoted(root)));
    }
    let domain = quoted(spec.domain.as_str());
    out.push_str(&format!("\ndomains:\n  - {{name: {domain}, type: default}}\n"));
    out
}

fn sequence(document: &Document) -> Result<Sequence, TextError> {
    document
        .as_mapping()
        .and_then(|root| root.get_sequence("domains"))
        .ok_or(TextError::Form("domains is not written as a list"))
}

fn document(text: &str) -> Result<Document, TextError> {
    let document =
        Document::from_str(text).map_err(|_| TextError::Form("the editor cannot read the file"))?;
    if document.to_string() == text { Ok(document) } else { Err(TextError::Proof) }
}

fn value(text: &str) -> Result<Value, TextError> {
    serde_yaml::from_str(text).map_err(|_| TextError::Proof)
}

/// Adds an entry, given in flow style, at the end of `domains`, whose value stands at `span`.
pub(super) fn add_domain(text: &str, entry: &str, span: Range<usize>) -> Result<String, TextError> {
    // A flow list is extended within its lines; a block list only gains lines.
    let flow = text.as_bytes().get(span.start) == Some(&b'[');
    let touched = if flow { lines_of(text, span) } else { 0..0 };
    let document = document(text)?;
    let item = Document::from_str(entry).ok().and_then(|item| item.as_mapping());
    sequence(&document)?.push(item.ok_or(TextError::Proof)?);
    let mut expected = value(text)?;
    domains(&mut expected)?.push(value(entry)?);
    prove(text, document.to_string(), &expected, &touched)
}

/// Removes the entry with this place in `domains`, which stands at `span`.
pub(super) fn remove_domain(
    text: &str,
    number: usize,
    span: Range<usize>,
) -> Result<String, TextError> {
    let document = document(text)?;
    sequence(&document)?.remove(number).ok_or(TextError::Proof)?;
    let mut expected = value(text)?;
    let list = domains(&mut expected)?;
    if number >= list.len() {
        return Err(TextError::Proof);
    }
    list.remove(number);
    prove(text, document.to_string(), &expected, &lines_of(text, span))
}

fn domains(value: &mut Value) -> Result<&mut Vec<Value>, TextError> {
    value.get_mut("domains").and_then(Value::as_sequence_mut).ok_or(TextError::Proof)
}

/// The lines, counted from zero, that a value stands on.
fn lines_of(text: &str, span: Range<usize>) -> Range<usize> {
    let line = |at: usize| text[..at].matches('\n').count();
    line(span.start)..line(span.end) + 1
}

/// Checks that the new text has these values, and that of the old one only touched lines are gone.
fn prove(
    old: &str,
    new: String,
    expected: &Value,
    touched: &Range<usize>,
) -> Result<String, TextError> {
    let gone = changed_lines(old, &new);
    let within = gone.is_empty() || (gone.start >= touched.start && gone.end <= touched.end);
    if within && value(&new)? == *expected { Ok(new) } else { Err(TextError::Proof) }
}

/// The lines of the old text that are not in the new one, counted from zero: what remains after
/// the lines that both begin and end with.
fn changed_lines(old: &str, new: &str) -> Range<usize> {
    let (old, new) = (lines(old), lines(new));
    let front = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let room = old.len().min(new.len()) - front;
    let back =
        old.iter().rev().zip(new.iter().rev()).take(room).take_while(|(a, b)| a == b).count();
    front..old.len() - back
}

/// The lines with their ends, so that an end that changes counts; a last line without one is
/// whole as it stands.
fn lines(text: &str) -> Vec<&str> {
    text.split('\n').collect()
}

/// The change between two texts of a file, as `diff -u` would print it with two lines around.
#[must_use]
pub(super) fn diff(file: &str, old: &str, new: &str) -> String {
    const AROUND: usize = 2;
    let (from, to) = (changed_lines(old, new), changed_lines(new, old));
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let clip = |range: &Range<usize>, len: usize| range.start.min(len)..range.end.min(len);
    let (from, to) = (clip(&from, old.len()), clip(&to, new.len()));
    let start = to.start.saturating_sub(AROUND);
    let end = (to.end + AROUND).min(new.len());
    let mut out = format!("--- {file}\n+++ {file}\n@@ line {} @@\n", start + 1);
    for (sign, lines) in [
        (' ', &new[start..to.start]),
        ('-', &old[from]),
        ('+', &new[to.clone()]),
        (' ', &new[to.end..end]),
    ] {
        for line in lines {
            out.push_str(&format!("{sign}{line}\n"));
        }
    }
    out
}
