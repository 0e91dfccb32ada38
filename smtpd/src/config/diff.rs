//! What differs between two states of the configuration: by lines, and in words.

use std::collections::BTreeMap;

use mailroot_common::config::{DkimEntry, EffectiveKey, ServerConfig};
use mailroot_common::control::ConfigDiff;
use similar::TextDiff;

use super::error::EditError;
use super::files::Files;
use super::history;
use super::load::{Loaded, check};
use super::paths::Paths;

/// How many lines of a file are shown around a change.
const AROUND: usize = 2;
/// The longest value told in words.
const VALUE_MAX: usize = 60;

/// What differs between a revision and another, or what lies on disk now.
///
/// # Errors
///
/// [`EditError::NoRevision`], or [`EditError::Broken`] where a state cannot be read.
pub fn compare(paths: &Paths, from: u64, to: Option<u64>) -> Result<ConfigDiff, EditError> {
    let state = |number| history::state(paths, number).ok_or(EditError::NoRevision(number));
    let before = state(from)?;
    let after = match to {
        Some(number) => state(number)?,
        None => Files::read(paths).map_err(EditError::Broken)?,
    };
    let diff = lines(&before, &after);
    // A state that today's rules refuse is shown by its lines alone.
    let changes = match (check(paths, before), check(paths, after)) {
        (Ok(before), Ok(after)) => words(&before, &after),
        _ => Vec::new(),
    };
    Ok(ConfigDiff { changes, diff })
}

/// The lines that differ, file by file, in the form of `diff -u`; empty if none do.
pub(super) fn lines(before: &Files, after: &Files) -> String {
    let mut out = String::new();
    for (path, old, new) in before.differences(after) {
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        let name = path.display().to_string();
        let diff = TextDiff::from_lines(old, new);
        let text = diff.unified_diff().context_radius(AROUND).header(&name, &name).to_string();
        out.push_str(&text);
        if !out.ends_with('\n') {
            out.push('\n');
        }
    }
    out
}

/// What differs, a line for each key or server.
#[must_use]
pub fn words(before: &Loaded, after: &Loaded) -> Vec<String> {
    let mut out = keys("service", &before.service.effective(), &after.service.effective());
    for (name, server) in &after.servers {
        match before.servers.get(name) {
            None => out.push(format!("{name}: added")),
            Some(old) => {
                let plain = |config: &ServerConfig| {
                    let keys = config.effective().into_iter();
                    let is_listed =
                        |key: &str| key.starts_with("domains[") || key.starts_with("dkim[");
                    keys.filter(|key| !is_listed(&key.key)).collect::<Vec<_>>()
                };
                out.extend(keys(name.as_str(), &plain(old), &plain(server)));
                out.extend(listed(name.as_str(), &DOMAINS, old, server));
                out.extend(listed(name.as_str(), &DKIM, old, server));
            }
        }
    }
    let gone = before.servers.keys().filter(|name| !after.servers.contains_key(*name));
    out.extend(gone.map(|name| format!("{name}: removed")));
    out
}

/// A list whose items are known by names.
struct Named {
    key: &'static str,
    word: &'static str,
    names: fn(&ServerConfig) -> Vec<String>,
}

const DOMAINS: Named = Named {
    key: "domains",
    word: "domain",
    names: |config| config.domains.iter().map(|entry| entry.name.to_string()).collect(),
};
const DKIM: Named = Named {
    key: "dkim",
    word: "DKIM key",
    names: |config| config.dkim.iter().map(DkimEntry::record_name).collect(),
};

/// What differs between the items of two states, by their names.
fn listed(whose: &str, list: &Named, before: &ServerConfig, after: &ServerConfig) -> Vec<String> {
    let of = |config: &ServerConfig| -> BTreeMap<String, Vec<EffectiveKey>> {
        let effective = config.effective();
        let own = |number: usize| {
            let path = format!("{}[{number}].", list.key);
            let key = |key: &EffectiveKey| {
                Some(EffectiveKey { key: key.key.strip_prefix(&path)?.to_owned(), ..key.clone() })
            };
            effective.iter().filter_map(key).collect()
        };
        let names = (list.names)(config).into_iter().enumerate();
        names.map(|(number, name)| (name, own(number))).collect()
    };
    let word = list.word;
    let (old, new) = (of(before), of(after));
    let mut out = Vec::new();
    for (name, after) in &new {
        match old.get(name) {
            None => out.push(format!("{whose}: {word} {name} added")),
            Some(before) => out.extend(keys(&format!("{whose}: {word} {name}"), before, after)),
        }
    }
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    out.extend(gone.map(|name| format!("{whose}: {word} {name} removed")));
    out
}

fn keys(whose: &str, before: &[EffectiveKey], after: &[EffectiveKey]) -> Vec<String> {
    let by_key = |keys: &'_ [EffectiveKey]| -> BTreeMap<String, EffectiveKey> {
        keys.iter().map(|key| (key.key.clone(), key.clone())).collect()
    };
    let (old, new) = (by_key(before), by_key(after));
    let mut out = Vec::new();
    for key in after {
        match old.get(&key.key) {
            None => out.push(format!("{whose}: {} {}", key.key, short(&key.value))),
            Some(was) if was.value != key.value => {
                out.push(format!("{whose}: {} {}", key.key, change(was, key)));
            }
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|key| !new.contains_key(&key.key));
    out.extend(gone.map(|key| format!("{whose}: {} gone", key.key)));
    out
}

/// `35MiB -> 50MiB`, or for a list what came and went: `+10.0.0.0/8 -::1`.
fn change(before: &EffectiveKey, after: &EffectiveKey) -> String {
    let lists = before.items.len() > 1 || after.items.len() > 1;
    if !lists {
        return format!("{} -> {}", short(&before.value), short(&after.value));
    }
    let came = after.items.iter().filter(|item| !before.items.contains(item));
    let went = before.items.iter().filter(|item| !after.items.contains(item));
    let signs: Vec<String> =
        came.map(|item| format!("+{item}")).chain(went.map(|item| format!("-{item}"))).collect();
    if signs.is_empty() { "in another order".to_owned() } else { short(&signs.join(" ")) }
}

fn short(value: &str) -> String {
    match value.char_indices().nth(VALUE_MAX) {
        Some((at, _)) => format!("{}…", &value[..at]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, items: &[&str]) -> EffectiveKey {
        EffectiveKey {
            key: name.to_owned(),
            value: items.join(", "),
            default: String::new(),
            iis_default: String::new(),
            origin: None,
            items: items.iter().map(|&item| item.to_owned()).collect(),
        }
    }

    #[test]
    fn changes_are_told_in_words() {
        let before =
            [key("a", &["1"]), key("b", &["x", "y"]), key("c", &["z"]), key("d", &["1", "2"])];
        let after =
            [key("a", &["2"]), key("b", &["y", "w"]), key("d", &["2", "1"]), key("e", &["5"])];
        assert_eq!(
            keys("lan", &before, &after),
            ["lan: a 1 -> 2", "lan: b +w -x", "lan: d in another order", "lan: e 5", "lan: c gone"]
        );
        assert_eq!(short(&"x".repeat(70)).chars().count(), VALUE_MAX + 1);
    }
}
