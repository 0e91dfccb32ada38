//! Changes of keys as a person words them, made to the text of a file.
//!
//! In: `messages.max_size` and `50MiB`, and which keys there are. Out: the new text. Whether the
//! value is a good one is said by the check of the whole configuration that follows, with the line
//! and a caret.

use mailroot_common::config::node::{Kind, Node};
use mailroot_common::config::{EffectiveKey, KeyDoc};
use mailroot_common::control::KeyEdit;

use super::edit::{self, TextError};
use super::spec::{flow_list, quoted};

/// Why a key was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AssignError {
    /// There is no such key.
    #[error("there is no key {key}{}", .near.as_ref().map(|near| format!("; did you mean {near}?")).unwrap_or_default())]
    NoKey {
        /// What was asked for.
        key: String,
        /// What may have been meant.
        near: Option<String>,
    },
    /// The key has one value, not a list.
    #[error("{0} takes one value: write {0}=VALUE")]
    NoList(String),
    /// The list has no such item.
    #[error("{key} has no item {item}")]
    NoItem {
        /// The list.
        key: String,
        /// What was to be removed.
        item: String,
    },
    /// No value was given.
    #[error("{0} was given no value: write a value, or unset the key")]
    Empty(String),
    /// The file cannot be edited safely.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// The keys of a file, and what is in force where it says nothing.
pub(super) struct Keys {
    docs: Vec<KeyDoc>,
    effective: Vec<EffectiveKey>,
}

impl Keys {
    /// Those of a file. Keys of list items (`domains[]`) are changed by other ways.
    pub(super) fn new(docs: Vec<KeyDoc>, effective: Vec<EffectiveKey>) -> Self {
        let plain = |doc: &KeyDoc| !doc.key.contains("[]") && doc.key != "version";
        Self { docs: docs.into_iter().filter(plain).collect(), effective }
    }

    /// Those of one item of a list, by their names within it: `domains[]` and `domains[2]`.
    pub(super) fn of_item(
        docs: &[KeyDoc],
        effective: &[EffectiveKey],
        all: &str,
        one: &str,
    ) -> Self {
        let within = |key: &str, path: &str| {
            key.strip_prefix(path).and_then(|rest| rest.strip_prefix('.')).map(str::to_owned)
        };
        let doc = |doc: &KeyDoc| Some(KeyDoc { key: within(&doc.key, all)?, ..doc.clone() });
        let key =
            |key: &EffectiveKey| Some(EffectiveKey { key: within(&key.key, one)?, ..key.clone() });
        Self {
            docs: docs.iter().filter_map(doc).collect(),
            effective: effective.iter().filter_map(key).collect(),
        }
    }

    fn doc(&self, key: &str) -> Result<&KeyDoc, AssignError> {
        self.docs.iter().find(|doc| doc.key == key).ok_or_else(|| {
            let known: Vec<&str> = self.docs.iter().map(|doc| doc.key.as_str()).collect();
            AssignError::NoKey { key: key.to_owned(), near: near(key, &known) }
        })
    }

    /// The items of the list as they are in force.
    fn items(&self, key: &str) -> Vec<String> {
        let found = self.effective.iter().find(|effective| effective.key == key);
        found.map(|effective| effective.items.clone()).unwrap_or_default()
    }
}

/// The key that was probably meant: one that ends alike, or is spelled alike.
fn near(key: &str, known: &[&str]) -> Option<String> {
    let last = format!(".{}", key.rsplit('.').next().unwrap_or(key));
    let mut ending = known.iter().filter(|candidate| candidate.ends_with(&last));
    if let (Some(only), None) = (ending.next(), ending.next()) {
        return Some((*only).to_owned());
    }
    mailroot_common::config::closest(key, known).map(str::to_owned)
}

fn is_list(doc: &KeyDoc) -> bool {
    doc.type_name.contains("list: ")
}

/// Makes the changes, in order, to a text. `below` is the path that the keys lie below, such as
/// `domains[2]`; empty for the file itself.
pub(super) fn assign(
    text: &str,
    below: &str,
    keys: &Keys,
    edits: &[KeyEdit],
) -> Result<String, AssignError> {
    let mut text = text.to_owned();
    for edit in edits {
        let (KeyEdit::Set { key, .. }
        | KeyEdit::Add { key, .. }
        | KeyEdit::Remove { key, .. }
        | KeyEdit::Unset { key }) = edit;
        let doc = keys.doc(key)?;
        let path = if below.is_empty() { key.clone() } else { format!("{below}.{key}") };
        text = match edit {
            KeyEdit::Set { value, .. } => set(&text, &path, doc, value)?,
            KeyEdit::Unset { .. } => edit::unset(&text, &path)?,
            KeyEdit::Add { item, .. } => add(&text, &path, doc, keys, item)?,
            KeyEdit::Remove { item, .. } => remove(&text, &path, doc, keys, item)?,
        };
    }
    Ok(text)
}

fn set(text: &str, path: &str, doc: &KeyDoc, value: &str) -> Result<String, AssignError> {
    let value = value.trim();
    let flow = if is_list(doc) {
        let items = words(value);
        // A word such as `mx` or `system` is no list of one.
        if items.is_empty() { "[]".to_owned() } else { written_list(&items) }
    } else if value.is_empty() {
        return Err(AssignError::Empty(doc.key.clone()));
    } else if value.starts_with('{') && doc.type_name.starts_with('{') {
        value.to_owned()
    } else {
        written_scalar(doc, value)
    };
    Ok(edit::set(text, path, &flow)?)
}

/// Numbers and switches as YAML and the schema have them, everything else as text.
fn written_scalar(doc: &KeyDoc, value: &str) -> String {
    let is_number = doc.type_name.starts_with("number");
    let is_switch = doc.type_name == "true or false";
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" if is_switch => "true".to_owned(),
        "false" | "no" | "off" if is_switch => "false".to_owned(),
        _ if is_number && value.bytes().all(|octet| octet.is_ascii_digit()) => value.to_owned(),
        _ => quoted(value),
    }
}

fn add(
    text: &str,
    path: &str,
    doc: &KeyDoc,
    keys: &Keys,
    item: &str,
) -> Result<String, AssignError> {
    if !is_list(doc) {
        return Err(AssignError::NoList(doc.key.clone()));
    }
    let added = words(item.trim());
    if added.is_empty() {
        return Err(AssignError::Empty(doc.key.clone()));
    }
    let mut text = text.to_owned();
    for item in added {
        text = add_one(&text, path, doc, keys, &item)?;
    }
    Ok(text)
}

fn add_one(
    text: &str,
    path: &str,
    doc: &KeyDoc,
    keys: &Keys,
    item: &str,
) -> Result<String, AssignError> {
    let Some(node) = edit::get(text, path)? else {
        // What was in force by default stays in force beside the new item.
        let mut items = keys.items(&doc.key);
        if items.iter().any(|other| is_same(other, item)) {
            return Ok(text.to_owned());
        }
        items.push(item.to_owned());
        return Ok(edit::set(text, path, &written_list(&items))?);
    };
    if node
        .items()
        .iter()
        .any(|other| named(other).is_some_and(|other| is_same(other, &name(item))))
    {
        return Ok(text.to_owned());
    }
    if let Kind::List(_) = node.kind {
        return Ok(edit::push(text, path, &written(item))?);
    }
    let first = text[node.span.clone()].to_owned();
    Ok(edit::set(text, path, &format!("[{first}, {}]", written(item)))?)
}

fn remove(
    text: &str,
    path: &str,
    doc: &KeyDoc,
    keys: &Keys,
    item: &str,
) -> Result<String, AssignError> {
    if !is_list(doc) {
        return Err(AssignError::NoList(doc.key.clone()));
    }
    let no_item = || AssignError::NoItem { key: doc.key.clone(), item: item.to_owned() };
    let in_force = keys.items(&doc.key);
    let Some(node) = edit::get(text, path)? else {
        let rest: Vec<String> =
            in_force.iter().filter(|other| !is_same(other, item)).cloned().collect();
        if rest.len() == in_force.len() {
            return Err(no_item());
        }
        return set(text, path, doc, &rest.join(","));
    };
    let items = node.items();
    // As it is written, or as it is understood: `::1` may be written `::1/128`.
    let number = items
        .iter()
        .position(|other| named(other).is_some_and(|other| is_same(other, item)))
        .or_else(|| {
            let understood = in_force.iter().position(|other| is_same(other, item));
            understood.filter(|_| in_force.len() == items.len())
        })
        .ok_or_else(no_item)?;
    Ok(edit::remove_item(text, path, number)?)
}

fn is_same(one: &str, other: &str) -> bool {
    one.trim().eq_ignore_ascii_case(other.trim())
}

/// What an item is known by: its text, or the value of its `net`, `who`, `name` or `from`.
fn named(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Scalar { text, .. } => Some(text),
        Kind::Map(pairs) => {
            let is_name = |key: &str| matches!(key, "net" | "who" | "name" | "from");
            pairs.iter().find(|(key, _)| is_name(&key.text)).and_then(|(_, value)| value.text())
        }
        Kind::List(_) => None,
    }
}

/// What a worded item will be known by.
fn name(item: &str) -> String {
    let tree = edit::tree(&format!("item: {}\n", written(item)));
    let found = tree.ok().and_then(|tree| match tree.kind {
        Kind::Map(pairs) => pairs.first().and_then(|(_, value)| named(value).map(str::to_owned)),
        Kind::Scalar { .. } | Kind::List(_) => None,
    });
    found.unwrap_or_else(|| item.to_owned())
}

/// An item in flow style: a mapping as it stands, anything else quoted where it must be.
fn written(item: &str) -> String {
    if item.starts_with('{') { item.to_owned() } else { quoted(item) }
}

fn written_list(items: &[String]) -> String {
    if items.iter().any(|item| item.starts_with('{')) {
        let items: Vec<String> = items.iter().map(|item| written(item)).collect();
        return format!("[{}]", items.join(", "));
    }
    flow_list(items)
}

/// The items of `a, b, {c: d, e: f}`, with or without brackets around them.
fn words(text: &str) -> Vec<String> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    // `[::1]:25` begins with a bracket and is no list; `[::1]` is an address in brackets. Mappings may
    // have lists of their own.
    let is_list = |inner: &&str| {
        let is_address = inner.contains(['[', ']']) || inner.parse::<std::net::IpAddr>().is_ok();
        inner.trim_start().starts_with('{') || !is_address
    };
    let inner = inner.filter(is_list);
    let mut out = vec![String::new()];
    let (mut depth, mut is_quoted) = (0_u32, false);
    for c in inner.unwrap_or(text).chars() {
        match c {
            '"' if depth > 0 => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c == ',' && depth == 0 {
            out.push(String::new());
        } else if let Some(last) = out.last_mut() {
            last.push(c);
        }
    }
    let items = out.into_iter().map(|item| item.trim().trim_matches('"').to_owned());
    items.filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use mailroot_common::config::{ServerConfig, ServerName, parse_server};

    use super::*;

    const TEXT: &str = "version: 1\ngeneral:\n  listen: 127.0.0.1:25\naccess:\n  relay:\n    \
                        list:\n      - {net: 10.0.0.0/8, comment: lan}\n      - ::1/128\n\
                        domains: [{name: a.example, type: default}]\n";

    fn keys(text: &str) -> Keys {
        let name = ServerName::parse("default").unwrap();
        let (config, _) = parse_server(&name, text, "default.yaml").unwrap();
        Keys::new(ServerConfig::keys(), config.effective())
    }

    fn make(edit: KeyEdit) -> Result<String, AssignError> {
        assign(TEXT, "", &keys(TEXT), &[edit])
    }

    fn set(key: &str, value: &str) -> Result<String, AssignError> {
        make(KeyEdit::Set { key: key.to_owned(), value: value.to_owned() })
    }

    fn add(key: &str, item: &str) -> Result<String, AssignError> {
        make(KeyEdit::Add { key: key.to_owned(), item: item.to_owned() })
    }

    fn remove(key: &str, item: &str) -> Result<String, AssignError> {
        make(KeyEdit::Remove { key: key.to_owned(), item: item.to_owned() })
    }

    #[test]
    fn values_are_written_as_their_type_wants() {
        let end = |text: &str| format!("{TEXT}{text}\n");
        for (edited, expected) in [
            (set("messages.max_size", "50MiB"), end("messages:\n  max_size: 50MiB")),
            (
                set("delivery.outbound.retry", "15m, 30m"),
                end("delivery:\n  outbound:\n    retry: [15m, 30m]"),
            ),
            (set("description", "no"), end("description: \"no\"")),
            (set("description", "25"), end("description: \"25\"")),
            (set("enabled", "No"), end("enabled: false")),
            (set("enabled", "perhaps"), end("enabled: perhaps")),
            (set("delivery.max_hops", "77"), end("delivery:\n  max_hops: 77")),
            (set("delivery.max_hops", "7.5"), end("delivery:\n  max_hops: \"7.5\"")),
            (set("delivery.smart_host", ""), end("delivery:\n  smart_host: []")),
            (set("general.listen", "[::1]:25"), TEXT.replace("127.0.0.1:25", "\"[::1]:25\"")),
            (
                add("general.listen", "10.0.0.1:25"),
                TEXT.replace("127.0.0.1:25", "[127.0.0.1:25, 10.0.0.1:25]"),
            ),
            (
                add("access.relay.list", "{net: 192.0.2.0/24, comment: a, b}"),
                TEXT.replace("::1/128\n", "::1/128\n      - {net: 192.0.2.0/24, comment: a, b}\n"),
            ),
            (
                set(
                    "delivery.sender_routes",
                    "[{from: \"/a{2,}}/\", route: mx}, {from: b@*, route: [\"[::1]:25\", c]}]",
                ),
                end("delivery:\n  sender_routes: [{from: \"/a{2,}}/\", route: mx}, \
                     {from: b@*, route: [\"[::1]:25\", c]}]"),
            ),
            (add("access.relay.list", "10.0.0.0/8"), TEXT.to_owned()),
            (remove("access.relay.list", "::1"), TEXT.replace("      - ::1/128\n", "")),
            (
                remove("access.relay.list", "10.0.0.0/8"),
                TEXT.replace("      - {net: 10.0.0.0/8, comment: lan}\n", ""),
            ),
            (remove("general.listen", "127.0.0.1:25"), TEXT.replace("127.0.0.1:25", "[]")),
            (
                add("delivery.outbound.retry", "8h"),
                end("delivery:\n  outbound:\n    retry: [1m, 5m, 15m, 30m, 1h, 4h, 8h]"),
            ),
        ] {
            assert_eq!(edited.as_deref(), Ok(expected.as_str()));
        }
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (done, said) in [
            (
                set("messages.max_recipient", "5"),
                "there is no key messages.max_recipient; did you mean messages.max_recipients?",
            ),
            (set("max_size", "5MiB"), "there is no key max_size"),
            (set("domains", "x"), "there is no key domains"),
            (set("version", "1"), "there is no key version"),
            (set("messages.max_size", ""), "messages.max_size was given no value"),
            (add("messages.max_size", "5MiB"), "messages.max_size takes one value"),
            (remove("access.relay.list", "192.0.2.1"), "access.relay.list has no item 192.0.2.1"),
            (remove("general.extensions", "X"), "general.extensions has no item X"),
        ] {
            let error = done.unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
