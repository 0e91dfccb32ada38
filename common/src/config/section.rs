//! The table behind every section: one line per key with both profiles' defaults.
//!
//! [`section!`] turns such a table into the struct, its defaults, the list of known keys, the
//! reading with bounds, the manual's table and the listing of `server show`. There is no second
//! list to forget.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::diagnostic::{Diagnostic, Severity, Source};
use super::node::{Key, Kind, Node};

/// Whose defaults a virtual server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Profile {
    /// Ours: safe and generous enough for today's mail.
    #[default]
    Modern,
    /// Those of the SMTP service of IIS 6.
    Iis6,
}

/// A type that a key can have.
pub trait Setting: Sized + Clone + PartialEq {
    /// What bounds are given in.
    type Quantity: Ord + Copy + std::fmt::Display;

    /// The type as the manual names it.
    fn type_name() -> String;
    /// The value as it is written in a file.
    fn show(&self) -> String;
    /// The items of a list as they are written; anything else is a list of itself.
    fn items(&self) -> Vec<String> {
        vec![self.show()]
    }
    /// Reads the value; what is wrong goes to the reader.
    fn read(node: &Node, reader: &mut Reader) -> Option<Self>;
    /// Reads the items of a list; a type that has something to say about all of them at once does
    /// so here.
    fn read_items(items: &[Node], reader: &mut Reader) -> Option<Vec<Self>> {
        let values: Vec<Self> = items.iter().filter_map(|item| Self::read(item, reader)).collect();
        (values.len() == items.len()).then_some(values)
    }
    /// The numbers to hold against the bounds, in the order of the node's items.
    fn quantities(&self) -> Vec<Self::Quantity> {
        Vec::new()
    }
}

/// One key, for the manual and for tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDoc {
    /// The whole key, such as `general.listen`; list items have `[]`.
    pub key: String,
    /// What may be written.
    pub type_name: String,
    /// Default of profile `modern`.
    pub modern: String,
    /// Default of profile `iis6`.
    pub iis6: String,
    /// Smallest and largest value.
    pub bounds: Option<(String, String)>,
    /// What it does.
    pub doc: String,
    /// What the keys of its section are for; empty outside of sections.
    pub section: String,
}

impl KeyDoc {
    /// The section that it stands in, such as `access.tls`; empty for keys of the file itself.
    #[must_use]
    pub fn parent(&self) -> &str {
        self.key.rsplit_once('.').map_or("", |(parent, _)| parent)
    }
}

/// One key of a running configuration, as `server show` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveKey {
    /// The whole key.
    pub key: String,
    /// The value in force.
    pub value: String,
    /// Default of the server's profile.
    pub default: String,
    /// Default of profile `iis6`.
    pub iis_default: String,
    /// `file:line` of the key; absent where the default is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The items of the value in force, where it is a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
}

/// Where the keys of a file stand, by whole key; items of a list by `key[number]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    pub(crate) source: Option<Arc<Source>>,
    pub(crate) spans: BTreeMap<String, Range<usize>>,
}

impl Origins {
    /// Whether the key was written.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.spans.contains_key(key)
    }

    /// Where the key's value or the list item stands, or else the whole file.
    #[must_use]
    pub fn span(&self, key: &str) -> Range<usize> {
        self.spans.get(key).cloned().unwrap_or(0..0)
    }

    /// The file; absent for a configuration that was not read from one.
    #[must_use]
    pub fn source(&self) -> Option<&Arc<Source>> {
        self.source.as_ref()
    }

    /// `file:line` of a key that was written.
    #[must_use]
    pub fn place(&self, key: &str) -> Option<String> {
        let source = self.source.as_ref()?;
        let (line, _) = source.position(self.spans.get(key)?.start);
        Some(format!("{}:{line}", source.name))
    }
}

/// Carries what reading one file needs and finds.
#[derive(Debug)]
pub struct Reader {
    pub(crate) source: Arc<Source>,
    pub(crate) profile: Profile,
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) origins: BTreeMap<String, Range<usize>>,
    pub(crate) unshown_errors: usize,
    pub(crate) unshown_warnings: usize,
}

/// How many errors of one file are told, and how many warnings; a file with more is another kind
/// of file.
pub(crate) const SHOWN_MAX: usize = 100;

impl Reader {
    /// Begins with the keys that were found to stand twice.
    pub(crate) fn new(source: Arc<Source>, duplicates: Vec<Diagnostic>) -> Self {
        let (profile, origins) = (Profile::Modern, BTreeMap::new());
        let mut reader = Self {
            source,
            profile,
            diagnostics: Vec::new(),
            origins,
            unshown_errors: 0,
            unshown_warnings: 0,
        };
        duplicates.into_iter().for_each(|diagnostic| reader.report(diagnostic));
        reader
    }

    /// Notes an error or a warning; beyond [`SHOWN_MAX`] of its kind they are only counted.
    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        let of_its_kind = |told: &&Diagnostic| told.severity == diagnostic.severity;
        if self.diagnostics.iter().filter(of_its_kind).count() < SHOWN_MAX {
            self.diagnostics.push(diagnostic);
            return;
        }
        match diagnostic.severity {
            Severity::Error => self.unshown_errors += 1,
            Severity::Warning => self.unshown_warnings += 1,
        }
    }

    /// Begins an error that points at a value.
    pub(crate) fn error_at(
        &self,
        code: &'static str,
        title: impl Into<String>,
        node: &Node,
        label: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic::error(code, title).at(&self.source, node.span.clone(), label)
    }

    /// Remembers where a key, and each item of its list, stands.
    pub(crate) fn remember(&mut self, key: &str, node: &Node) {
        self.origins.insert(key.to_owned(), node.span.clone());
        for (number, item) in node.items().iter().enumerate() {
            self.origins.insert(format!("{key}[{number}]"), item.span.clone());
        }
    }

    /// The known keys and values of a mapping; unknown keys become errors with a suggestion.
    pub(crate) fn entries<'n>(
        &mut self,
        node: &'n Node,
        path: &str,
        known: &[&str],
    ) -> Vec<(&'n str, &'n Node)> {
        let Kind::Map(pairs) = &node.kind else {
            if !node.is_empty() {
                let what = if path.is_empty() { "a configuration file" } else { path };
                let diagnostic = self
                    .error_at("E0105", format!("{what} has keys of its own"), node, "no key: value")
                    .help(format!("the keys are: {}", known.join(", ")));
                self.report(diagnostic);
            }
            return Vec::new();
        };
        let mut out = Vec::new();
        for (key, value) in pairs {
            if known.contains(&key.text.as_str()) {
                out.push((key.text.as_str(), value));
            } else {
                let diagnostic = self.unknown_key(key, path, known);
                self.report(diagnostic);
            }
        }
        out
    }

    fn unknown_key(&self, key: &Key, path: &str, known: &[&str]) -> Diagnostic {
        let place = if path.is_empty() { String::new() } else { format!(" in {path}") };
        let label = if path.is_empty() {
            "not a setting of this file"
        } else {
            "not a setting of this section"
        };
        let diagnostic = Diagnostic::error("E0107", format!("unknown key \"{}\"{place}", key.text))
            .at(&self.source, key.span.clone(), label);
        match closest(&key.text, known) {
            Some(near) => diagnostic.help(format!("did you mean \"{near}\"?")),
            None => diagnostic.help(format!("the keys are: {}", known.join(", "))),
        }
    }

    /// Reads one key into its place and holds it against its bounds.
    pub(crate) fn set<T: Setting>(
        &mut self,
        slot: &mut T,
        key: &str,
        node: &Node,
        bounds: Option<RangeInclusive<T::Quantity>>,
    ) {
        self.remember(key, node);
        if node.is_empty() {
            let diagnostic = self
                .error_at("E0103", format!("{key} has no value"), node, "nothing stands here")
                .help("write a value, or remove the line to have the default");
            self.report(diagnostic);
            return;
        }
        let Some(value) = T::read(node, self) else { return };
        if let Some(bounds) = bounds {
            for (number, quantity) in value.quantities().into_iter().enumerate() {
                if !bounds.contains(&quantity) {
                    let at = node.items().get(number).unwrap_or(node);
                    let (least, most) = bounds.clone().into_inner();
                    let title = format!("{key} is out of its bounds");
                    let label = if quantity < least { "too small" } else { "too large" };
                    let help = format!("write a value from {least} to {most}");
                    let diagnostic = self.error_at("E0204", title, at, label).help(help);
                    self.report(diagnostic);
                }
            }
        }
        *slot = value;
    }
}

/// The known word nearest to a mistyped one, if it is near enough to be meant.
#[must_use]
pub fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    const CHARS_MAX: usize = 64;
    if word.chars().count() > CHARS_MAX {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| {
            (strsim::damerau_levenshtein(&word, &candidate.replace('-', "_")), *candidate)
        })
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Joins a section's path and a key.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// What every section can do. Implemented by [`section!`] alone.
pub trait Section: Sized {
    /// What the section is for, in lines.
    const ABOUT: &'static [&'static str];
    /// The keys, in the order of the manual.
    const KEYS: &'static [&'static str];
    /// All defaults of a profile.
    fn defaults(profile: Profile) -> Self;
    /// Takes over what a mapping says; the rest keeps its value.
    fn read(&mut self, node: &Node, path: &str, reader: &mut Reader);
    /// Every key with its documentation.
    fn describe(path: &str, out: &mut Vec<KeyDoc>);
    /// Every key with its value, default and origin.
    fn list(&self, path: &str, profile: Profile, origins: &Origins, out: &mut Vec<EffectiveKey>);
}

/// The words of a doc comment as one line.
pub(crate) fn doc_text(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// A key as it is written: Rust's `r#type` is the key `type`.
pub(crate) const fn key_name(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// Declares a section as a table. Each line: doc comment (the manual's text), key, type, default
/// of `modern`, default of `iis6`, then if wanted `in` bounds and `shown` words that stand for
/// the defaults in the manual. Sub-sections follow in a block of their own.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $Name:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $ty:ty = $modern:expr, $iis6:expr
                    $(, in $bounds:expr)? $(, shown $shown:literal)?;
            )*
        }
        $(sections {
            $(
                $(#[doc = $sub_doc:literal])+
                $sub:ident: $Sub:ty;
            )+
        })?
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name {
            $($(#[doc = $doc])+ pub $field: $ty,)*
            $($($(#[doc = $sub_doc])+ pub $sub: $Sub,)+)?
        }

        impl $crate::config::section::Section for $Name {
            const ABOUT: &'static [&'static str] = &[$($about),+];
            const KEYS: &'static [&'static str] = &[
                $($crate::config::section::key_name(stringify!($field)),)*
                $($($crate::config::section::key_name(stringify!($sub)),)+)?
            ];

            fn defaults(profile: $crate::config::section::Profile) -> Self {
                use $crate::config::section::Profile;
                match profile {
                    Profile::Modern => Self {
                        $($field: $modern,)*
                        $($($sub: <$Sub>::defaults(profile),)+)?
                    },
                    Profile::Iis6 => Self {
                        $($field: $iis6,)*
                        $($($sub: <$Sub>::defaults(profile),)+)?
                    },
                }
            }

            fn read(
                &mut self,
                node: &$crate::config::node::Node,
                path: &str,
                reader: &mut $crate::config::section::Reader,
            ) {
                use $crate::config::section::{join, key_name};
                for (key, value) in reader.entries(node, path, Self::KEYS) {
                    let whole = join(path, key);
                    $(
                        if key == key_name(stringify!($field)) {
                            reader.set(
                                &mut self.$field, &whole, value,
                                $crate::config::section::bounds!($($bounds)?),
                            );
                        }
                    )*
                    $($(
                        if key == key_name(stringify!($sub)) {
                            reader.remember(&whole, value);
                            self.$sub.read(value, &whole, reader);
                        }
                    )+)?
                }
            }

            fn describe(path: &str, out: &mut Vec<$crate::config::section::KeyDoc>) {
                use $crate::config::section::{KeyDoc, Profile, Setting, doc_text, join, key_name};
                let (modern, iis6) = (Self::defaults(Profile::Modern), Self::defaults(Profile::Iis6));
                let _ = (&modern, &iis6);
                $(
                    let shown: Option<&str> = None $(.or(Some($shown)))?;
                    out.push(KeyDoc {
                        key: join(path, key_name(stringify!($field))),
                        type_name: <$ty as Setting>::type_name(),
                        modern: shown.map_or_else(|| modern.$field.show(), str::to_owned),
                        iis6: shown.map_or_else(|| iis6.$field.show(), str::to_owned),
                        bounds: $crate::config::section::bounds_text::<<$ty as Setting>::Quantity>(
                            $crate::config::section::bounds!($($bounds)?),
                        ),
                        doc: doc_text(&[$($doc),+]),
                        section: doc_text(Self::ABOUT),
                    });
                )*
                $($(<$Sub>::describe(&join(path, key_name(stringify!($sub))), out);)+)?
            }

            fn list(
                &self,
                path: &str,
                profile: $crate::config::section::Profile,
                origins: &$crate::config::section::Origins,
                out: &mut Vec<$crate::config::section::EffectiveKey>,
            ) {
                use $crate::config::section::{EffectiveKey, Profile, Setting, join, key_name};
                let (default, iis6) = (Self::defaults(profile), Self::defaults(Profile::Iis6));
                let _ = (&default, &iis6);
                $(
                    let shown: Option<&str> = None $(.or(Some($shown)))?;
                    let key = join(path, key_name(stringify!($field)));
                    let written = origins.has(&key);
                    out.push(EffectiveKey {
                        value: match shown {
                            Some(words) if !written && self.$field == default.$field => words.to_owned(),
                            _ => self.$field.show(),
                        },
                        default: shown.map_or_else(|| default.$field.show(), str::to_owned),
                        iis_default: shown.map_or_else(|| iis6.$field.show(), str::to_owned),
                        origin: origins.place(&key),
                        items: self.$field.items(),
                        key,
                    });
                )*
                $($(self.$sub.list(&join(path, key_name(stringify!($sub))), profile, origins, out);)+)?
            }
        }
    };
}

/// Optional bounds of a line of the table.
macro_rules! bounds {
    () => {
        None
    };
    ($bounds:expr) => {
        Some($bounds)
    };
}

pub(crate) use {bounds, section};

/// The two ends as the manual shows them.
pub(crate) fn bounds_text<Q: std::fmt::Display>(
    bounds: Option<RangeInclusive<Q>>,
) -> Option<(String, String)> {
    let (least, most) = bounds?.into_inner();
    Some((least.to_string(), most.to_string()))
}
