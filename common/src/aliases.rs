//! Aliases: who gets mail for the local names of a machine, as `/etc/aliases` says.
//!
//! In: the text of the file, and of the files of addresses that it includes. Out: for a name the
//! addresses behind it, and all that is wrong with its line number. Whoever can write the file decides
//! about addresses and nothing else: programs and files as recipients are refused.
//!
//! A file may send names round in circles or to millions. Every name is looked at once for each
//! question, and an answer has at most [`EXPANDED_MAX`] addresses.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::address::{LocalPart, Mailbox};
use crate::message::address_list::{Named, locate_named};

/// The largest file that is read, in octets; the same for each that it includes.
pub const FILE_OCTETS_MAX: usize = 1 << 20;
/// The most addresses one name stands for.
pub const EXPANDED_MAX: usize = 1_000;
/// The most files of addresses.
pub const INCLUDES_MAX: usize = 100;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// One recipient behind a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A name of this machine, which may be an alias itself.
    Name(LocalPart),
    /// A name of this machine that is meant as it stands, whatever aliases there are (`\name`).
    Literal(LocalPart),
    /// An address.
    Address(Mailbox),
    /// The addresses in a file.
    Include(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Literal(name) => write!(f, "\\{name}"),
            Self::Address(mailbox) => mailbox.fmt(f),
            Self::Include(path) => write!(f, ":include:{}", path.display()),
        }
    }
}

/// A name and who gets its mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The name as it is written.
    pub name: String,
    /// The line it begins on, from 1.
    pub line: usize,
    /// Who gets its mail; those that cannot be used are left out.
    pub targets: Vec<Target>,
}

/// The aliases of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases {
    /// By name in small letters.
    entries: BTreeMap<String, Alias>,
    includes: BTreeMap<PathBuf, Vec<Target>>,
    faults: Vec<Fault>,
}

/// Who gets the mail of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Names of this machine that are no aliases, or meant as they stand.
    pub names: Vec<LocalPart>,
    /// Addresses.
    pub addresses: Vec<Mailbox>,
    /// There were more than [`EXPANDED_MAX`].
    pub is_cut: bool,
}

impl Aliases {
    /// Reads a file.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut aliases = Self::default();
        for (line, whole) in logical_lines(text) {
            if let Err(what) = aliases.take(line, &whole) {
                aliases.faults.push(Fault { line, what });
            }
        }
        aliases.find_loops();
        aliases
    }

    fn take(&mut self, line: usize, whole: &str) -> Result<(), String> {
        if whole.starts_with([' ', '\t']) {
            return Err("the line goes on with one that is not there".to_owned());
        }
        let (name, rest) = split_name(whole)?;
        let key = name.to_lowercase();
        if let Some(first) = self.entries.get(&key) {
            return Err(format!("{name:?} has an alias on line {} already", first.line));
        }
        let mut targets = Vec::new();
        for text in split_targets(rest)? {
            match read_target(&text) {
                Ok(target) => targets.push(target),
                Err(what) => self.faults.push(Fault { line, what }),
            }
        }
        if targets.is_empty() && rest.trim().is_empty() {
            return Err(format!("{name:?} has nobody behind it"));
        }
        self.entries.insert(key, Alias { name, line, targets });
        Ok(())
    }

    /// The files of addresses that are named, each with its line.
    pub fn include_paths(&self) -> impl Iterator<Item = (&Path, usize)> {
        self.entries.values().flat_map(|alias| {
            alias.targets.iter().filter_map(|target| match target {
                Target::Include(path) => Some((path.as_path(), alias.line)),
                Target::Name(_) | Target::Literal(_) | Target::Address(_) => None,
            })
        })
    }

    /// Puts in what a file of addresses says; `line` is where it is named.
    pub fn include(&mut self, path: &Path, line: usize, text: Result<String, String>) {
        let shown = path.display();
        let text = match text {
            Ok(text) => text,
            Err(why) => {
                self.faults.push(Fault { line, what: format!("{shown}: {why}") });
                return;
            }
        };
        let mut targets = Vec::new();
        for (inner, whole) in text.lines().enumerate() {
            let whole = whole.split('#').next().unwrap_or_default().trim();
            if whole.is_empty() {
                continue;
            }
            for text in split_targets(whole).unwrap_or_else(|_| vec![whole.to_owned()]) {
                let read = match read_target(&text) {
                    Ok(Target::Include(_)) => Err("a file of addresses names no others".to_owned()),
                    read => read,
                };
                match read {
                    Ok(target) => targets.push(target),
                    Err(what) => {
                        let what = format!("{shown}:{}: {what}", inner + 1);
                        self.faults.push(Fault { line, what });
                    }
                }
            }
        }
        self.includes.insert(path.to_owned(), targets);
    }

    /// The same of a file that could not be read now: who stood in it before stays.
    pub fn include_unread(&mut self, path: &Path, line: usize, why: String, before: &Self) {
        self.include(path, line, Err(why));
        if let Some(targets) = before.includes.get(path) {
            self.includes.insert(path.to_owned(), targets.clone());
        }
    }

    /// All that is wrong, by line.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = self.faults.clone();
        faults.sort();
        faults
    }

    /// All of them, by name.
    pub fn list(&self) -> impl Iterator<Item = &Alias> {
        self.entries.values()
    }

    /// The alias of a name; capitals do not matter.
    #[must_use]
    pub fn find(&self, name: &LocalPart) -> Option<&Alias> {
        self.find_written(&name.unquoted())
    }

    /// The alias of a name as the file has it, without its quotes.
    #[must_use]
    pub fn find_written(&self, name: &str) -> Option<&Alias> {
        self.entries.get(&name.to_lowercase())
    }

    /// Who gets the mail of a name; nothing if it is no alias. `own_name` says which addresses are
    /// names of this machine, by their domain.
    #[must_use]
    pub fn resolve(
        &self,
        name: &LocalPart,
        own_name: impl Fn(&Mailbox) -> bool,
    ) -> Option<Resolved> {
        let first = self.find(name)?;
        let mut found = Resolved::default();
        let mut seen: HashSet<String> = [first.name.to_lowercase()].into();
        let mut files: HashSet<&PathBuf> = HashSet::new();
        // Each with the alias in which it stands: one that names itself means the name as it stands.
        let mut left: Vec<(&Target, &Alias)> =
            first.targets.iter().rev().map(|target| (target, first)).collect();
        let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
        while let Some((target, within)) = left.pop() {
            if found.names.len() + found.addresses.len() > EXPANDED_MAX {
                break;
            }
            let mut add_name = |found: &mut Resolved, name: &LocalPart| {
                if names.insert(name.clone()) {
                    found.names.push(name.clone());
                }
            };
            let name = match target {
                Target::Literal(name) => {
                    add_name(&mut found, name);
                    continue;
                }
                Target::Include(path) => {
                    if files.insert(path) {
                        let listed = self.includes.get(path).into_iter().flatten().rev();
                        left.extend(listed.map(|target| (target, within)));
                    }
                    continue;
                }
                Target::Address(mailbox) if !own_name(mailbox) => {
                    if addresses.insert(mailbox.clone()) {
                        found.addresses.push(mailbox.clone());
                    }
                    continue;
                }
                Target::Address(mailbox) => mailbox.local(),
                Target::Name(name) => name,
            };
            match self.find(name) {
                Some(alias) if alias.name == within.name => add_name(&mut found, name),
                Some(alias) if seen.insert(alias.name.to_lowercase()) => {
                    left.extend(alias.targets.iter().rev().map(|target| (target, alias)));
                }
                Some(_) => {}
                None => add_name(&mut found, name),
            }
        }
        found.is_cut = found.names.len() + found.addresses.len() > EXPANDED_MAX;
        found.names.truncate(EXPANDED_MAX);
        found.addresses.truncate(EXPANDED_MAX - found.names.len());
        Some(found)
    }

    /// Aliases that lead nowhere but back to themselves: whatever leads to somebody is found from its
    /// end, so that each is looked at once.
    fn find_loops(&mut self) {
        let mut before: HashMap<String, Vec<&str>> = HashMap::new();
        let mut ends: Vec<&str> = Vec::new();
        for (key, alias) in &self.entries {
            for target in &alias.targets {
                match target {
                    Target::Name(name) => {
                        let next = name.unquoted().to_lowercase();
                        if next == *key || !self.entries.contains_key(&next) {
                            ends.push(key);
                        } else {
                            before.entry(next).or_default().push(key);
                        }
                    }
                    Target::Literal(_) | Target::Address(_) | Target::Include(_) => ends.push(key),
                }
            }
        }
        let mut leads: HashSet<&str> = HashSet::new();
        while let Some(key) = ends.pop() {
            if leads.insert(key) {
                ends.extend(before.get(key).into_iter().flatten());
            }
        }
        let is_loop = |(key, alias): &(&String, &Alias)| {
            !leads.contains(key.as_str()) && !alias.targets.is_empty()
        };
        let loops = self.entries.iter().filter(is_loop).map(|(_, alias)| Fault {
            line: alias.line,
            what: format!("{:?} leads back to itself and to nobody else", alias.name),
        });
        let loops: Vec<Fault> = loops.collect();
        self.faults.extend(loops);
    }
}

/// Lines with what continues them, each with the number of its first; without comments.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let is_empty = line.trim().is_empty() || line.starts_with('#');
        match lines.last_mut() {
            _ if is_empty => {}
            Some((_, whole)) if line.starts_with([' ', '\t']) => {
                whole.push(' ');
                whole.push_str(line.trim());
            }
            _ => lines.push((number + 1, line.trim_end().to_owned())),
        }
    }
    lines
}

/// The name and what is behind its colon.
fn split_name(whole: &str) -> Result<(String, &str), String> {
    let missing = || format!("{whole:?} has no colon: write  name: address");
    let (name, rest) = match whole.strip_prefix('"') {
        Some(quoted) => {
            let (name, rest) = quoted.split_once('"').ok_or_else(missing)?;
            (name, rest.trim_start().strip_prefix(':').ok_or_else(missing)?)
        }
        None => whole.split_once(':').ok_or_else(missing)?,
    };
    let name = name.trim();
    if name.is_empty() {
        return Err("nobody has the empty name".to_owned());
    }
    if name.contains('@') && !whole.starts_with('"') {
        return Err(format!(
            "{name}: a name stands here without its domain, which is this machine's"
        ));
    }
    // A name in quotes may have what no other name has.
    let read = LocalPart::parse(name).or_else(|_| LocalPart::parse(&format!("\"{name}\"")));
    read.map_err(|error| format!("{name:?}: {error}"))?;
    Ok((name.to_owned(), rest))
}

/// What stands between commas outside quotes.
fn split_targets(rest: &str) -> Result<Vec<String>, String> {
    let (mut parts, mut part, mut quoted) = (Vec::new(), String::new(), false);
    let mut depth = 0_usize;
    for c in rest.chars() {
        if !quoted {
            depth = match c {
                '(' => depth + 1,
                ')' => depth.saturating_sub(1),
                _ => depth,
            };
        }
        match c {
            '"' if depth == 0 => {
                quoted = !quoted;
                part.push(c);
            }
            ',' if !quoted && depth == 0 => parts.push(std::mem::take(&mut part)),
            // A comment behind the addresses.
            '#' if !quoted && part.trim().is_empty() => break,
            c => part.push(c),
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    parts.push(part);
    let parts = parts.iter().map(|part| part.trim().to_owned());
    Ok(parts.filter(|part| !part.is_empty()).collect())
}

fn read_target(text: &str) -> Result<Target, String> {
    let plain = text.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(text).trim();
    if plain.starts_with('|') {
        return Err(format!("{text}: mail is not piped into programs here; name an address"));
    }
    if plain.starts_with('/') {
        return Err(format!("{text}: mail is not written into files here; name an address"));
    }
    if let Some(path) = plain.strip_prefix(":include:") {
        let path = PathBuf::from(path.trim());
        let is_plain = path.is_absolute() && path.components().all(|part| part.as_os_str() != "..");
        return if is_plain {
            Ok(Target::Include(path))
        } else {
            Err(format!("{text}: write the whole path of the file, from / on"))
        };
    }
    if plain.starts_with(':') || plain.starts_with("error:") {
        return Err(format!("{text}: that is not known here; name an address"));
    }
    let wrong = |error: &dyn fmt::Display| format!("{text}: {error}");
    if let Some(name) = plain.strip_prefix('\\') {
        return LocalPart::parse(name).map(Target::Literal).map_err(|error| wrong(&error));
    }
    if plain.contains(['<', '(']) {
        let found = locate_named(plain.as_bytes()).map_err(|error| wrong(&error))?;
        let mut found = found.into_iter().map(|(named, _)| named);
        return match (found.next(), found.next()) {
            (Some(Named::Whole(mailbox)), None) => Ok(Target::Address(mailbox)),
            (Some(Named::Bare(name)), None) => Ok(Target::Name(name)),
            _ => Err(format!("{text}: write one address, and a comma before the next")),
        };
    }
    if plain.contains('@') {
        return Mailbox::parse(plain).map(Target::Address).map_err(|error| wrong(&error));
    }
    LocalPart::parse(plain).map(Target::Name).map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn resolved(text: &str, name: &str) -> Option<String> {
        let aliases = Aliases::parse(text);
        let own = |mailbox: &Mailbox| mailbox.to_string().ends_with("@here.test");
        let found = aliases.resolve(&LocalPart::parse(name).unwrap(), own)?;
        let names = found.names.iter().map(ToString::to_string);
        Some(
            names
                .chain(found.addresses.iter().map(ToString::to_string))
                .collect::<Vec<_>>()
                .join(" "),
        )
    }

    fn faults(text: &str) -> String {
        let faults = Aliases::parse(text).faults();
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    const FILE: &str = "# comment\npostmaster: root\nRoot: ops@x.test,\n\tanna, # not this\n\n\
        anna: \\anna, anna@else.test\nself: self, copy@x.test\nother: self\nthird: other\nhere: anna@HERE.test\n\
        \"two words\": root\nlist: anna, ben, root\n";

    #[test]
    fn names_lead_to_everybody_behind_them() {
        for (name, expected) in [
            ("postmaster", Some("anna ops@x.test anna@else.test")),
            ("POSTMASTER", Some("anna ops@x.test anna@else.test")),
            ("self", Some("self copy@x.test")),
            ("here", Some("anna anna@else.test")),
            ("other", Some("self copy@x.test")),
            ("third", Some("self copy@x.test")),
            ("list", Some("anna ben anna@else.test ops@x.test")),
            ("nobody", None),
        ] {
            assert_eq!(resolved(FILE, name).as_deref(), expected, "{name}");
        }
        assert_eq!(faults(FILE), "");
        assert_eq!(resolved(FILE, "\"two words\"").as_deref(), resolved(FILE, "root").as_deref());
    }

    #[test]
    fn an_address_may_have_a_name_and_a_comment() {
        let text = "root: \"Ops, all\" <ops@x.test>, ben@x.test (him, too), <anna>\n";
        assert_eq!(resolved(text, "root").as_deref(), Some("anna ops@x.test ben@x.test"));
        assert_eq!(faults(text), "");
    }

    #[test]
    fn circles_end_and_are_told() {
        let text = "web: www\nwww: web\nfine: web, x@y.test\n";
        assert_eq!(resolved(text, "web").as_deref(), Some(""));
        assert_eq!(resolved(text, "fine").as_deref(), Some("x@y.test"));
        assert!(faults(text).starts_with("1: \"web\" leads back"), "{}", faults(text));
        let mut deep = String::new();
        for n in 0..5_000 {
            deep.push_str(&format!("a{n}: a{}, a{}\n", n + 1, n + 2));
        }
        assert_eq!(resolved(&deep, "a0").as_deref(), Some("a5000 a5001"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_line() {
        for (text, expected) in [
            ("a: |/bin/sh\n", "1: |/bin/sh: mail is not piped"),
            ("a: \"|/bin/sh -c 'x, y'\", b\n", "1: \"|/bin/sh -c 'x, y'\": mail is not piped"),
            ("\n\na: /var/mail/x\n", "3: /var/mail/x: mail is not written"),
            ("a: :include:relative\n", "1: :include:relative: write the whole path"),
            ("a: :include:/etc/../x\n", "1: :include:/etc/../x: write the whole path"),
            ("a: :fail: no\n", "1: :fail: no: that is not known"),
            ("just words\n", "1: \"just words\" has no colon"),
            ("me@here.test: x\n", "1: me@here.test: a name stands here without"),
            ("@here.test: x\n", "1: @here.test: a name stands here without"),
            ("a: Ops <ops\n", "1: Ops <ops: a < bracket"),
            ("a: A <a@x.test>; B <b@x.test>\n", "1: A <a@x.test>; B <b@x.test>: write one"),
            ("a: b@x.test (c\n", "1: b@x.test (c: a ( comment"),
            ("a:\n", "1: \"a\" has nobody behind it"),
            ("a: b\nA: c\n", "2: \"A\" has an alias on line 1"),
            ("a: \"b\n", "1: a quote is not closed"),
            ("a: b@\n", "1: b@:"),
            (" a: b\n", "1: the line goes on"),
        ] {
            assert!(faults(text).starts_with(expected), "{text:?}: {}", faults(text));
        }
        // What is left counts.
        assert_eq!(resolved("a: |/bin/sh, b\n", "a").as_deref(), Some("b"));
    }

    #[test]
    fn files_of_addresses_are_put_in() {
        let mut aliases = Aliases::parse("a: :include:/l, b\nc: :include:/gone\n");
        let paths: Vec<_> =
            aliases.include_paths().map(|(path, line)| (path.to_owned(), line)).collect();
        assert_eq!(paths, [("/l".into(), 1), ("/gone".into(), 2)]);
        let text = "# all\none@x.test, two@x.test\n\nb # us\n:include:/m\n|cmd\n";
        aliases.include(Path::new("/l"), 1, Ok(text.to_owned()));
        aliases.include(Path::new("/gone"), 2, Err("no such file".to_owned()));
        let found = aliases.resolve(&LocalPart::parse("a").unwrap(), |_| false).unwrap();
        assert_eq!(found.addresses.len(), 2);
        assert_eq!(found.names.len(), 1);
        let faults: Vec<String> = aliases.faults().iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[1].contains("/l:6"), "{faults:?}");
    }

    #[test]
    fn an_answer_has_an_end() {
        let many: Vec<String> = (0..3_000).map(|n| format!("u{n}@x.test")).collect();
        let aliases = Aliases::parse(&format!("all: {}\n", many.join(",")));
        let found = aliases.resolve(&LocalPart::parse("all").unwrap(), |_| false).unwrap();
        assert!(found.is_cut);
        assert_eq!(found.addresses.len(), EXPANDED_MAX);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in "[a-c:,\\\\|/\"# \n\t@.]{0,120}", other in any::<String>()) {
            let _ = Aliases::parse(&other);
            let aliases = Aliases::parse(&text);
            for alias in aliases.list() {
                if let Ok(name) = LocalPart::parse(&alias.name) {
                    let _ = aliases.resolve(&name, |_| true);
                }
            }
        }
    }
}
