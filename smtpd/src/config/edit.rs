//! Edits of one file's text that keep comments, order, quoting and every untouched octet.
//!
//! In: a text that was accepted, and a path such as `domains[1].route`. Out: the new text.
//! `yaml-edit` changes the text; then two proofs are made, and an edit that fails one is refused:
//! the values of the new text, read by `serde_yaml`, are those of the old one with the change
//! made to them; and no line differs but those of the value that was meant.

use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use mailroot_common::config::node::{Kind, Node};
use mailroot_common::config::{Source, yaml};
use serde_yaml::{Mapping, Value};
use yaml_edit::path::YamlPath;
use yaml_edit::{Document, YamlNode};

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

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Item(usize),
}

/// `domains[1].route` as its steps.
fn steps(path: &str) -> Result<Vec<Step>, TextError> {
    const BAD: TextError = TextError::Form("there can be no such key");
    let mut out = Vec::new();
    for part in path.split('.') {
        let (key, items) =
            part.split_once('[').map_or((part, None), |(key, rest)| (key, Some(rest)));
        if key.is_empty() {
            return Err(BAD);
        }
        out.push(Step::Key(key.to_owned()));
        for item in items.into_iter().flat_map(|items| items.split('[')) {
            let number = item.strip_suffix(']').and_then(|number| number.parse().ok());
            out.push(Step::Item(number.ok_or(BAD)?));
        }
    }
    Ok(out)
}

/// The value at a path, as far as it is there.
struct Found<'n> {
    /// The nodes on the way, the root first.
    way: Vec<&'n Node>,
    /// Where the last of them begins, with its key.
    start: usize,
    /// Whether all steps were gone.
    whole: bool,
}

fn find<'n>(root: &'n Node, steps: &[Step]) -> Found<'n> {
    let mut found = Found { way: vec![root], start: root.span.start, whole: false };
    let mut node = root;
    for step in steps {
        let next = match (step, &node.kind) {
            (Step::Key(name), Kind::Map(pairs)) => pairs
                .iter()
                .find(|(key, _)| key.text == *name)
                .map(|(key, value)| (key.span.start, value)),
            (Step::Item(number), Kind::List(items)) => {
                items.get(*number).map(|item| (item.span.start, item))
            }
            _ => None,
        };
        let Some((start, next)) = next else { return found };
        node = next;
        found.start = start;
        found.way.push(node);
    }
    found.whole = true;
    found
}

impl Found<'_> {
    fn node(&self) -> &Node {
        self.way.last().expect("the root is always there")
    }

    /// The lines of the last value and its key, if an edit in it changes lines at all: a mapping
    /// in block style only gains some.
    fn touched(&self, text: &str) -> Range<usize> {
        let node = self.node();
        let is_flow = matches!(text.as_bytes().get(node.span.start), Some(b'{' | b'['));
        let is_scalar = matches!(node.kind, Kind::Scalar { .. });
        if self.whole || is_flow || is_scalar {
            lines_of(text, self.start..node.span.end.max(self.start))
        } else {
            0..0
        }
    }
}

/// Reads a text into its tree.
pub(super) fn tree(text: &str) -> Result<Node, TextError> {
    let source = Arc::new(Source { name: String::new(), text: text.to_owned() });
    match yaml::parse(&source) {
        Ok((node, duplicates)) if duplicates.is_empty() => Ok(node),
        _ => Err(TextError::Form("the file cannot be read")),
    }
}

/// The text of a value at a path and its tree; `None` if nothing stands there.
pub(super) fn get(text: &str, path: &str) -> Result<Option<Node>, TextError> {
    let root = tree(text)?;
    let found = find(&root, &steps(path)?);
    Ok((found.whole && !found.node().is_empty()).then(|| found.node().clone()))
}

fn document(text: &str) -> Result<Document, TextError> {
    let document =
        Document::from_str(text).map_err(|_| TextError::Form("the editor cannot read the file"))?;
    if document.to_string() == text { Ok(document) } else { Err(TextError::Proof) }
}

/// A value in flow style as the editor takes it.
fn flow(text: &str) -> Result<YamlNode, TextError> {
    let document = Document::from_str(text).map_err(|_| TextError::Proof)?;
    let mapping = document.as_mapping().map(YamlNode::Mapping);
    let sequence = || document.as_sequence().map(YamlNode::Sequence);
    let scalar = || document.as_scalar().map(YamlNode::Scalar);
    mapping.or_else(sequence).or_else(scalar).ok_or(TextError::Proof)
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

/// Gives the key at `path` a value, written in flow style. Sections that are missing are made.
pub(super) fn set(text: &str, path: &str, flow_text: &str) -> Result<String, TextError> {
    let text = &*ended(text);
    let (root, steps) = (tree(text)?, steps(path)?);
    let found = find(&root, &steps);
    let wanted = value(flow_text)?;
    let mut expected = value(text)?;
    place(&mut expected, &steps, wanted)?;
    let new = if let Some(new) = put_in_braces(text, &found, &steps, flow_text) {
        new
    } else {
        let document = document(text)?;
        let done = document.try_set_path(path, flow(flow_text)?);
        done.map_err(|_| TextError::Form("the key's section is not written as a section"))?;
        document.to_string()
    };
    prove(text, new, &expected, &found.touched(text))
}

/// Adds a key behind the last one of a mapping in braces, if the path leads into one. `yaml-edit`
/// does not find that place where the braces stand on several lines.
fn put_in_braces(text: &str, found: &Found, steps: &[Step], flow_text: &str) -> Option<String> {
    let node = found.node();
    let Kind::Map(pairs) = &node.kind else { return None };
    let (_, last) = pairs.last().filter(|_| !found.whole)?;
    if text.as_bytes().get(node.span.start) != Some(&b'{') {
        return None;
    }
    let mut entry = flow_text.to_owned();
    for (depth, step) in steps[found.way.len() - 1..].iter().rev().enumerate() {
        let Step::Key(key) = step else { return None };
        entry = if depth == 0 { format!("{key}: {entry}") } else { format!("{key}: {{{entry}}}") };
    }
    Some(format!("{}, {entry}{}", &text[..last.span.end], &text[last.span.end..]))
}

/// Takes the key at `path` out of the text, and with it the sections that hold nothing else.
pub(super) fn unset(text: &str, path: &str) -> Result<String, TextError> {
    let text = &*ended(text);
    let (root, mut steps) = (tree(text)?, steps(path)?);
    if !find(&root, &steps).whole {
        return Ok(text.to_owned());
    }
    while let [above @ .., _] = &steps[..]
        && matches!(above.last(), Some(Step::Key(_)))
        && matches!(&find(&root, above).node().kind, Kind::Map(pairs) if pairs.len() == 1)
    {
        steps.pop();
    }
    let found = find(&root, &steps);
    let mut expected = value(text)?;
    take(&mut expected, &steps)?;
    let new = if let Some(new) = take_from_braces(text, &found, &steps) {
        new
    } else {
        let document = document(text)?;
        let gone = document.try_remove_path(&written(&steps));
        gone.map_err(|_| TextError::Form("the key's section is not written as a section"))?;
        document.to_string()
    };
    prove(text, new, &expected, &found.touched(text))
}

/// Cuts a key with its value and one comma out of a mapping in braces, if it stands in one.
fn take_from_braces(text: &str, found: &Found, steps: &[Step]) -> Option<String> {
    let above = found.way.len().checked_sub(2).map(|at| found.way[at])?;
    let (Kind::Map(pairs), Some(Step::Key(name))) = (&above.kind, steps.last()) else {
        return None;
    };
    if text.as_bytes().get(above.span.start) != Some(&b'{') {
        return None;
    }
    let at = pairs.iter().position(|(key, _)| key.text == *name)?;
    let (key, value) = &pairs[at];
    let cut = match (at.checked_sub(1).map(|at| &pairs[at]), pairs.get(at + 1)) {
        (Some((_, before)), _) => before.span.end..value.span.end,
        (None, Some((next, _))) => key.span.start..next.span.start,
        (None, None) => key.span.start..value.span.end,
    };
    Some(format!("{}{}", &text[..cut.start], &text[cut.end..]))
}

fn written(steps: &[Step]) -> String {
    let mut out = String::new();
    for step in steps {
        match step {
            Step::Key(key) if out.is_empty() => out.push_str(key),
            Step::Key(key) => out.push_str(&format!(".{key}")),
            Step::Item(number) => out.push_str(&format!("[{number}]")),
        }
    }
    out
}

/// Adds an item, given in flow style, at the end of the list at `path`.
pub(super) fn push(text: &str, path: &str, item: &str) -> Result<String, TextError> {
    let text = &*ended(text);
    let (root, steps) = (tree(text)?, steps(path)?);
    let found = find(&root, &steps);
    let Kind::List(items) = &found.node().kind else {
        return Err(TextError::Form("it is not written as a list"));
    };
    if items.is_empty() {
        return set(text, path, &format!("[{item}]"));
    }
    // A flow list is extended within its lines; a block list only gains lines.
    let is_flow = text.as_bytes().get(found.node().span.start) == Some(&b'[');
    let touched = if is_flow { found.touched(text) } else { 0..0 };
    let document = document(text)?;
    let Ok(YamlNode::Sequence(sequence)) = document.try_get_path(path) else {
        return Err(TextError::Proof);
    };
    sequence.push(flow(item)?);
    let mut expected = value(text)?;
    list(&mut expected, &steps)?.push(value(item)?);
    prove(text, document.to_string(), &expected, &touched)
}

/// Removes the item with this place in the list at `path`. A list without items is written `[]`.
pub(super) fn remove_item(text: &str, path: &str, number: usize) -> Result<String, TextError> {
    let text = &*ended(text);
    let (root, steps) = (tree(text)?, steps(path)?);
    let found = find(&root, &steps);
    let items = found.node().items();
    let span = items.get(number).ok_or(TextError::Proof)?.span.clone();
    if items.len() == 1 {
        return set(text, path, "[]");
    }
    let new = match own_lines(text, &span) {
        Some(lines) => format!("{}{}", &text[..lines.start], &text[lines.end..]),
        None => {
            let document = document(text)?;
            let Ok(YamlNode::Sequence(sequence)) = document.try_get_path(path) else {
                return Err(TextError::Proof);
            };
            sequence.remove(number).ok_or(TextError::Proof)?;
            document.to_string()
        }
    };
    let mut expected = value(text)?;
    let list = list(&mut expected, &steps)?;
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

/// Puts a value at a path of the expected values.
fn place(root: &mut Value, steps: &[Step], wanted: Value) -> Result<(), TextError> {
    let Some((step, rest)) = steps.split_first() else {
        *root = wanted;
        return Ok(());
    };
    if root.is_null() {
        *root = Value::Mapping(Mapping::new());
    }
    let inner = match (step, root) {
        (Step::Key(key), Value::Mapping(map)) => {
            map.entry(Value::from(key.as_str())).or_insert(Value::Null)
        }
        (Step::Item(number), Value::Sequence(items)) => {
            items.get_mut(*number).ok_or(TextError::Proof)?
        }
        _ => return Err(TextError::Form("the key's section is not written as a section")),
    };
    place(inner, rest, wanted)
}

/// Takes a key out of the expected values.
fn take(root: &mut Value, steps: &[Step]) -> Result<(), TextError> {
    let Some((Step::Key(last), above)) = steps.split_last() else { return Err(TextError::Proof) };
    let map = at(root, above)?.as_mapping_mut().ok_or(TextError::Proof)?;
    map.remove(last.as_str()).map(|_| ()).ok_or(TextError::Proof)
}

fn at<'v>(root: &'v mut Value, steps: &[Step]) -> Result<&'v mut Value, TextError> {
    steps.iter().try_fold(root, |value, step| {
        let inner = match step {
            Step::Key(key) => value.get_mut(key.as_str()),
            Step::Item(number) => value.get_mut(*number),
        };
        inner.ok_or(TextError::Proof)
    })
}

fn list<'v>(root: &'v mut Value, steps: &[Step]) -> Result<&'v mut Vec<Value>, TextError> {
    at(root, steps)?.as_sequence_mut().ok_or(TextError::Proof)
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

#[cfg(test)]
mod tests;
