//! The YAML that configuration files may use, read into a tree with places.
//!
//! It is a small part of the language: mappings, lists and one-line values, in block and in flow
//! style, with comments. Anchors, aliases, tags, merge keys, directives, several documents and values
//! that go on over lines are refused by name, so that nothing in a file can mean more than it
//! shows. `serde_yaml` reads the text as well, and a file on which the two readers differ is
//! refused: whoever edits it with another tool reads the same values as we do.
//!
//! Time and memory are bounded by [`FILE_OCTETS_MAX`] and [`DEPTH_MAX`].

mod cursor;
mod format;
mod structure;

use std::sync::Arc;

use super::diagnostic::{Diagnostic, Source};
use super::node::{Kind, Node};
use super::section::SHOWN_MAX;
use crate::units::ByteSize;
use cursor::Cursor;
pub use format::format;

/// The largest file, in octets: room for some forty thousand entries of an access list.
pub const FILE_OCTETS_MAX: usize = 1 << 20;

/// How deep values may lie within each other.
pub const DEPTH_MAX: usize = 32;

/// Reads a text. Duplicate keys come back beside the tree, in which the first one stands.
///
/// # Errors
///
/// The first error of the syntax, after at most 99 keys that stand twice before it.
pub fn parse(source: &Arc<Source>) -> Result<(Node, Vec<Diagnostic>), Vec<Diagnostic>> {
    guard(source).map_err(|diagnostic| vec![*diagnostic])?;
    let mut cursor = Cursor::new(source);
    let node = match cursor.document() {
        Ok(node) => node,
        Err(diagnostic) => {
            // The rest of the file is unread; its syntax error must be among what is told.
            cursor.duplicates.truncate(SHOWN_MAX - 1);
            cursor.duplicates.push(*diagnostic);
            return Err(cursor.duplicates);
        }
    };
    if cursor.duplicates.is_empty() {
        confirm(source, &node).map_err(|diagnostic| vec![*diagnostic])?;
    }
    Ok((node, cursor.duplicates))
}

/// What is said of a file beyond [`FILE_OCTETS_MAX`].
#[must_use]
pub fn too_large(name: &str) -> Diagnostic {
    let title = format!("{name} is larger than {}", ByteSize::bytes(FILE_OCTETS_MAX as u64));
    Diagnostic::error("E0001", title)
        .help("a configuration file is text of a few pages; see what it is")
}

/// Refuses texts that are too large or have characters that no configuration needs.
fn guard(source: &Arc<Source>) -> Result<(), Box<Diagnostic>> {
    let text = &source.text;
    if text.len() > FILE_OCTETS_MAX {
        return Err(Box::new(too_large(&source.name)));
    }
    if text.starts_with('\u{feff}') {
        return Err(Box::new(
            Diagnostic::error("E0003", "the file begins with a byte order mark")
                .at(source, 0..3, "invisible character")
                .help("save it as UTF-8 without BOM"),
        ));
    }
    let Some((at, c)) = text.char_indices().find(|&(at, c)| is_forbidden(text, at, c)) else {
        return Ok(());
    };
    let title = format!("the character U+{:04X} may not stand in a configuration", u32::from(c));
    Err(Box::new(
        Diagnostic::error("E0002", title)
            .at(source, at..at + c.len_utf8(), "here")
            .help("remove it; in double quotes it can be written as an escape"),
    ))
}

/// Control characters but tab and line end; characters that some readers of YAML take for line
/// ends; marks that change the order of what is shown.
fn is_forbidden(text: &str, at: usize, c: char) -> bool {
    match c {
        ' '..='~' | '\t' | '\n' => false,
        '\r' => text.as_bytes().get(at + 1) != Some(&b'\n'),
        _ => {
            c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        }
    }
}

/// Makes sure that `serde_yaml` reads the same values.
fn confirm(source: &Arc<Source>, node: &Node) -> Result<(), Box<Diagnostic>> {
    let differs = |span: std::ops::Range<usize>, label: String| {
        Box::new(
            Diagnostic::error("E0008", "this is not understood alike by all readers of YAML")
                .at(source, span, label)
                .help("write it in quotes, or one key on each line"),
        )
    };
    match serde_yaml::from_str::<serde_yaml::Value>(&source.text) {
        Ok(value) => match difference(node, &value) {
            None => Ok(()),
            Some(span) => Err(differs(span, "differs".to_owned())),
        },
        Err(error) => {
            let at = error.location().map_or(0, |location| location.index());
            Err(differs(at..at + 1, error.to_string()))
        }
    }
}

/// The first place where the two trees differ.
fn difference(node: &Node, value: &serde_yaml::Value) -> Option<std::ops::Range<usize>> {
    use serde_yaml::Value;
    let here = Some(node.span.clone());
    match (&node.kind, value) {
        (Kind::Scalar { text, .. }, Value::String(other)) if text == other => None,
        (Kind::Scalar { plain: true, .. }, Value::Null) if node.is_empty() => None,
        (Kind::Scalar { plain: true, text }, Value::Bool(other)) => {
            if text.eq_ignore_ascii_case(if *other { "true" } else { "false" }) {
                None
            } else {
                here
            }
        }
        (Kind::Scalar { plain: true, .. }, Value::Number(_)) => None,
        (Kind::List(items), Value::Sequence(others)) if items.len() == others.len() => {
            items.iter().zip(others).find_map(|(item, other)| difference(item, other))
        }
        (Kind::Map(pairs), Value::Mapping(others)) if pairs.len() == others.len() => {
            pairs.iter().zip(others).find_map(|((key, item), (other_key, other))| {
                let kind = Kind::Scalar { text: key.text.clone(), plain: true };
                let key = Node { span: key.span.clone(), kind };
                difference(&key, other_key).or_else(|| difference(item, other))
            })
        }
        (Kind::Map(pairs), Value::Null) if pairs.is_empty() => None,
        _ => here,
    }
}

#[cfg(test)]
mod tests;
