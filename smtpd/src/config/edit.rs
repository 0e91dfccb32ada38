//! Edits of one file's text that keep comments, order, quoting and every untouched octet.
//!
//! In: a text that was accepted. Out: the new text. `yaml-edit` changes the text; then two proofs
//! are made, and an edit that fails one is refused: the values of the new text, read by
//! `serde_yaml`, are those of the old one with the change made to them; and no line differs but
//! those of the value that was meant.

use std::ops::Range;
use std::str::FromStr;

use mailroot_common::address::Domain;
use mailroot_common::config::delivery::InDoubt;
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
    /// What is done with its recipients in doubt, if not the same as for other domains.
    pub in_doubt: Option<InDoubt>,
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
        && !["y", "n", "yes", "no", "on", "off"].contains(&&*text.to_ascii_lowercase())
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
    if let Some(in_doubt) = spec.in_doubt {
        out.push_str(&format!(", in_doubt: {}", in_doubt.word()));
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

/// The text with an end to its last line: an edit there must not be mistaken for one of that line.
fn ended(text: &str) -> std::borrow::Cow<'_, str> {
    if text.ends_with('\n') {
        return text.into();
    }
    format!("{text}{}", if text.contains("\r\n") { "\r\n" } else { "\n" }).into()
}

/// Adds an entry, given in flow style, at the end of `domains`, whose value stands at `span`.
pub(super) fn add_domain(text: &str, entry: &str, span: Range<usize>) -> Result<String, TextError> {
    let text = &*ended(text);
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
    let text = &*ended(text);
    let new = match own_lines(text, &span) {
        Some(lines) => format!("{}{}", &text[..lines.start], &text[lines.end..]),
        None => {
            let document = document(text)?;
            sequence(&document)?.remove(number).ok_or(TextError::Proof)?;
            document.to_string()
        }
    };
    let mut expected = value(text)?;
    let list = domains(&mut expected)?;
    if number >= list.len() {
        return Err(TextError::Proof);
    }
    list.remove(number);
    prove(text, new, &expected, &lines_of(text, span))
}

/// The octets of the lines that an entry behind a dash has to itself. They are cut out as they
/// stand: `yaml-edit` would take empty lines around them as well.
fn own_lines(text: &str, span: &Range<usize>) -> Option<Range<usize>> {
    let start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let end = span.end + text[span.end..].find('\n')? + 1;
    let rest = text[span.end..end].trim();
    let alone = text[start..span.start].trim() == "-" && (rest.is_empty() || rest.starts_with('#'));
    alone.then_some(start..end)
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

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use mailroot_common::config::{ServerName, parse_server};
    use proptest::prelude::*;

    use super::*;

    const ENTRY: &str = "{name: new.example, type: alias}";

    /// Where `domains`, and each of its entries, stands.
    fn spans(text: &str) -> (Range<usize>, Vec<Range<usize>>) {
        let name = ServerName::parse("default").unwrap();
        let (config, _) = parse_server(&name, text, "default.yaml").unwrap();
        let item = |number| config.origins.span(&format!("domains[{number}]"));
        (config.origins.span("domains"), (0..config.domains.len()).map(item).collect())
    }

    /// A server file as people write them: comments anywhere, items in either style.
    fn file() -> impl Strategy<Value = String> {
        let comment = prop_oneof![
            3 => Just(""),
            1 => Just("# c: [x"),
            1 => Just("#"),
            1 => Just("# - {name: off.example}"),
        ];
        let gap =
            prop::collection::vec(prop_oneof![Just(""), Just("# note"), Just("  # deep")], 0..3);
        let item = (0..4_u8, comment, gap);
        let items = prop::collection::vec(item, 1..6);
        (items, 0..3_usize, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(items, indent, crlf, tail, newline)| {
                let pad = " ".repeat(indent * 2);
                let mut text = String::from(
                    "# head\nversion: 1\ngeneral: {banner: 'a  b'}   # x\n\ndomains:\n",
                );
                for (number, (form, comment, gap)) in items.into_iter().enumerate() {
                    for line in gap {
                        let _ = writeln!(text, "{line}");
                    }
                    let kind = if number == 0 { "default" } else { "alias" };
                    let c =
                        if comment.is_empty() { String::new() } else { format!("   {comment}") };
                    let _ = match form {
                        0 => writeln!(text, "{pad}- {{name: d{number}.example, type: {kind}}}{c}"),
                        1 => writeln!(
                            text,
                            "{pad}- name: 'd{number}.example'{c}\n{pad}  type: {kind}"
                        ),
                        2 => writeln!(
                            text,
                            "{pad}-   name: d{number}.example\n\n{pad}    type:   {kind}{c}"
                        ),
                        _ => writeln!(
                            text,
                            "{pad}- {{\"name\": d{number}.example,\n{pad}    type: {kind} }}{c}"
                        ),
                    };
                }
                if tail {
                    text.push_str("\n# after\nstore: {segment_size: 1MiB}\n\n# end\n");
                }
                if !newline {
                    text.truncate(text.trim_end_matches('\n').len());
                }
                if crlf { text.replace('\n', "\r\n") } else { text }
            },
        )
    }

    /// `text` without these lines.
    fn without(text: &str, gone: &Range<usize>) -> Vec<String> {
        let kept = text.lines().enumerate().filter(|(number, _)| !gone.contains(number));
        kept.map(|(_, line)| line.to_owned()).collect()
    }

    proptest! {
        #[test]
        fn adding_a_domain_adds_one_line_and_touches_no_other(text in file()) {
            let new = add_domain(&text, ENTRY, spans(&text).0).unwrap();
            let place = new.lines().position(|line| line.contains("new.example")).unwrap();
            prop_assert_eq!(new.lines().nth(place).unwrap().trim(), format!("- {ENTRY}"));
            prop_assert_eq!(without(&new, &(place..place + 1)), without(&text, &(0..0)));
            let bare = |text: &str| text.lines().count() - text.matches("\r\n").count();
            prop_assert!(!text.contains('\r') || bare(&new) == 0);
        }

        #[test]
        fn removing_a_domain_removes_its_lines_and_touches_no_other(
            text in file(),
            choice in any::<prop::sample::Index>(),
        ) {
            let (_, items) = spans(&text);
            if items.len() > 1 {
                let number = 1 + choice.index(items.len() - 1);
                let lines = lines_of(&text, items[number].clone());
                let new = remove_domain(&text, number, items[number].clone()).unwrap();
                let kept = without(&text, &lines);
                prop_assert_eq!(without(&new, &(0..0)), kept, "{}", new);
            }
        }
    }

    #[test]
    fn a_list_in_brackets_is_edited_within_its_line() {
        let text = "version: 1\ndomains: [{name: a.example, type: default}, {name: b.example, type: alias}] # c\n";
        let (list, items) = spans(text);
        let added = add_domain(text, ENTRY, list).unwrap();
        assert_eq!(added, text.replace("}] #", &format!("}}, {ENTRY}] #")));
        let removed = remove_domain(text, 1, items[1].clone()).unwrap();
        assert_eq!(removed, text.replace(", {name: b.example, type: alias}", ""));
    }

    #[test]
    fn a_single_entry_without_dash_is_left_to_people() {
        let text = "version: 1\ndomains: {name: a.example, type: default}\n";
        let said = add_domain(text, ENTRY, spans(text).0).unwrap_err();
        assert_eq!(said.to_string(), "domains is not written as a list");
    }

    #[test]
    fn an_edit_that_changes_other_lines_or_values_is_refused() {
        let old = "a: 1\nb: 2\nc: 3\n";
        let expected = value("a: 1\nc: 3").unwrap();
        let prove = |new: &str, lines: Range<usize>| prove(old, new.to_owned(), &expected, &lines);
        assert!(prove("a: 1\nc: 3\n", 1..2).is_ok());
        assert_eq!(prove("a: 1\nc: 3\n", 0..1), Err(TextError::Proof));
        assert_eq!(prove("a:  1\nc: 3\n", 1..2), Err(TextError::Proof));
        assert_eq!(prove("a: 1\nc: 4\n", 0..3), Err(TextError::Proof));
    }

    #[test]
    fn text_is_quoted_where_yaml_would_take_it_for_something_else() {
        for (text, written) in [
            ("example.net", "example.net"),
            ("no", "\"no\""),
            ("1.2", "\"1.2\""),
            ("1e5", "\"1e5\""),
            ("*.a.example", "\"*.a.example\""),
            ("hub.example:26", "\"hub.example:26\""),
            ("a b", "\"a b\""),
            ("a\"b", "\"a\\\"b\""),
        ] {
            assert_eq!(quoted(text), written);
            assert_eq!(value(&format!("[{written}]")).unwrap()[0], Value::from(text));
        }
    }
}
