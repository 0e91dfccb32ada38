//! A configuration text as a tree whose every value knows its place.

use std::ops::Range;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Octets from the start of the text; for a list or a mapping, from its first item on.
    pub span: Range<usize>,
    /// What it is.
    pub kind: Kind,
}

/// What a value is. The schema gives a scalar its type, never its spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text; `plain` if it had no quotes.
    Scalar {
        /// The text without quotes and escapes.
        text: String,
        /// Whether it stood without quotes.
        plain: bool,
    },
    /// Items in order.
    List(Vec<Node>),
    /// Keys and values in order; no key stands twice.
    Map(Vec<(Key, Node)>),
}

/// The key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its text.
    pub text: String,
    /// Where it stands.
    pub span: Range<usize>,
}

impl Node {
    /// The text of a scalar.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// Whether nothing stands here: `key:` without a value, or `~`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The items of a list; anything else is a list of itself.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::List(items) => items,
            Kind::Scalar { .. } | Kind::Map(_) => std::slice::from_ref(self),
        }
    }

    /// What people call this kind of value.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar { .. } if self.is_empty() => "nothing",
            Kind::Scalar { .. } => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }
}
