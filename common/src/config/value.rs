//! The kinds of values a key can have, each with its one way of being read and written.
//!
//! The schema gives a scalar its type: `no` is a word where a word belongs and a boolean only
//! where a boolean belongs. Durations and sizes need a unit; a bare number is refused with both
//! readings, because the original counted minutes and kilobytes.

use std::path::PathBuf;

use super::node::{Kind, Node};
use super::section::{Reader, Setting};
use crate::net::Network;
use crate::rate::Rate;
use crate::units::{ByteSize, Span, UnitError};

/// A bound, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit<T> {
    /// Written `unlimited`.
    Unlimited,
    /// At most this.
    At(T),
}

impl<T: Copy> Limit<T> {
    /// The bound, if there is one.
    #[must_use]
    pub const fn value(self) -> Option<T> {
        match self {
            Self::Unlimited => None,
            Self::At(value) => Some(value),
        }
    }
}

/// Something that happens after a time, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Written `never`.
    Never,
    /// After this.
    After(Span),
}

impl Wait {
    /// The time, unless it is never.
    #[must_use]
    pub const fn value(self) -> Option<Span> {
        match self {
            Self::Never => None,
            Self::After(span) => Some(span),
        }
    }
}

/// A count that Mailroot chooses itself unless told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auto {
    /// Written `auto`.
    Auto,
    /// This many.
    Count(u16),
}

/// An absolute path, or one below the directory that the key names.
impl Setting for PathBuf {
    type Quantity = u8;

    fn type_name() -> String {
        "path".to_owned()
    }

    fn show(&self) -> String {
        self.display().to_string()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, reader, &Self::type_name())?;
        if text.contains('\0') || text.split('/').any(|part| part == "..") {
            let diagnostic = reader.error_at(
                "E0210",
                format!("{text:?} is not a usable path"),
                node,
                "has .. in it",
            );
            reader.report(diagnostic.help("write the whole path, beginning with /"));
            return None;
        }
        Some(Self::from(text))
    }
}

impl Setting for String {
    type Quantity = u8;

    fn type_name() -> String {
        "text".to_owned()
    }

    fn show(&self) -> String {
        self.clone()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, reader, "text")?;
        if text.chars().any(char::is_control) || text.len() > 500 {
            let title = "text must be one line of at most 500 octets without control characters";
            let diagnostic = reader.error_at("E0211", title, node, "not such a text");
            reader.report(diagnostic.help("write it shorter, without escapes such as \\n"));
            return None;
        }
        Some(text.to_owned())
    }
}

impl Setting for bool {
    type Quantity = u8;

    fn type_name() -> String {
        "true or false".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match scalar(node, reader, "true or false")?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => {
                let title = "this key is either true or false";
                let diagnostic = reader.error_at("E0201", title, node, "neither true nor false");
                reader.report(diagnostic.help("write true or false"));
                None
            }
        }
    }
}

/// Whole numbers of several widths.
macro_rules! whole_number {
    ($($ty:ty),*) => {$(
        impl Setting for $ty {
            type Quantity = $ty;

            fn type_name() -> String {
                "number".to_owned()
            }

            fn show(&self) -> String {
                self.to_string()
            }

            fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
                let text = scalar(node, reader, "a whole number")?;
                let digits = text.bytes().all(|octet| octet.is_ascii_digit());
                let octal = text.len() > 1 && text.starts_with('0');
                if let (true, false, Ok(number)) = (digits, octal, text.parse()) {
                    return Some(number);
                }
                let (label, help) = if octal && digits {
                    ("begins with 0", "write the number without leading zeros")
                } else if digits {
                    ("too large", "write a smaller number")
                } else {
                    ("not a whole number", "write digits only")
                };
                let diagnostic = reader.error_at("E0202", "a whole number belongs here", node, label);
                reader.report(diagnostic.help(help));
                None
            }

            fn quantities(&self) -> Vec<$ty> {
                vec![*self]
            }
        }
    )*};
}

whole_number!(u16, u32);

impl Setting for Span {
    type Quantity = Self;

    fn type_name() -> String {
        "duration".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, reader, "a duration")?;
        Self::parse(text).map_err(|error| reader.report_unit(&error, node, "E0203")).ok()
    }

    /// A list of bare numbers is one mistake, not one for each number.
    fn read_items(items: &[Node], reader: &mut Reader) -> Option<Vec<Self>> {
        let bare = |item: &&Node| item.text().is_some_and(is_bare_number);
        if let (Some(first), 2..) = (items.iter().find(bare), items.len()) {
            let meant = items.iter().filter_map(Node::text).map(|text| {
                let minutes = if is_bare_number(text) {
                    Self::parse(&format!("{text}m"))
                } else {
                    Self::parse(text)
                };
                minutes.map_or_else(|_| text.to_owned(), |span| span.to_string())
            });
            let meant: Vec<String> = meant.collect();
            let diagnostic = reader
                .error_at("E0203", "a duration needs a unit", first, "seconds? minutes?")
                .help(format!("IIS counted minutes; write [{}]", meant.join(", ")));
            reader.report(diagnostic);
            return None;
        }
        let values: Vec<Self> = items.iter().filter_map(|item| Self::read(item, reader)).collect();
        (values.len() == items.len()).then_some(values)
    }

    fn quantities(&self) -> Vec<Self> {
        vec![*self]
    }
}

impl Setting for ByteSize {
    type Quantity = Self;

    fn type_name() -> String {
        "size".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, reader, "a size")?;
        Self::parse(text).map_err(|error| reader.report_unit(&error, node, "E0205")).ok()
    }

    fn quantities(&self) -> Vec<Self> {
        vec![*self]
    }
}

fn is_bare_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

impl Reader {
    /// Says what is wrong with a duration (`E0203`) or a size (`E0205`).
    fn report_unit(&mut self, error: &UnitError, node: &Node, code: &'static str) {
        let duration = code == "E0203";
        let diagnostic = match error {
            UnitError::Bare { text, .. } if duration => self
                .error_at(code, "a duration needs a unit", node, "seconds? minutes?")
                .help(format!("IIS counted minutes; write {text}m, or {text}s for seconds")),
            UnitError::Bare { text, .. } => self
                .error_at(code, "a size needs a unit", node, "KiB? MiB?")
                .help(format!("IIS counted KB; write {text}KiB, or {text}MiB")),
            UnitError::Shape { kind, example, .. } => self
                .error_at(code, format!("this is not {kind}"), node, "not a number with a unit")
                .help(format!("write it as in {example}")),
            UnitError::Range(_) => self
                .error_at(code, "this is too large", node, "too large")
                .help("write a smaller value, or unlimited where the key allows it"),
        };
        self.report(diagnostic);
    }
}

impl<T: Setting> Setting for Option<T> {
    type Quantity = T::Quantity;

    fn type_name() -> String {
        T::type_name()
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), T::show)
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        T::read(node, reader).map(Some)
    }

    fn quantities(&self) -> Vec<T::Quantity> {
        self.as_ref().map(T::quantities).unwrap_or_default()
    }
}

impl<T: Setting> Setting for Vec<T> {
    type Quantity = T::Quantity;

    fn type_name() -> String {
        format!("list: {}", T::type_name())
    }

    fn show(&self) -> String {
        if self.is_empty() {
            return "none".to_owned();
        }
        self.items().join(", ")
    }

    fn items(&self) -> Vec<String> {
        self.iter().map(T::show).collect()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        T::read_items(node.items(), reader)
    }

    fn quantities(&self) -> Vec<T::Quantity> {
        self.iter().flat_map(T::quantities).collect()
    }
}

impl<T: Setting> Setting for Limit<T> {
    type Quantity = T::Quantity;

    fn type_name() -> String {
        format!("{} or unlimited", T::type_name())
    }

    fn show(&self) -> String {
        match self {
            Self::Unlimited => "unlimited".to_owned(),
            Self::At(value) => value.show(),
        }
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match node.text() {
            Some("unlimited") => Some(Self::Unlimited),
            _ => T::read(node, reader).map(Self::At),
        }
    }

    fn quantities(&self) -> Vec<T::Quantity> {
        match self {
            Self::Unlimited => Vec::new(),
            Self::At(value) => value.quantities(),
        }
    }
}

impl Setting for Wait {
    type Quantity = Span;

    fn type_name() -> String {
        "duration or never".to_owned()
    }

    fn show(&self) -> String {
        match self {
            Self::Never => "never".to_owned(),
            Self::After(span) => span.show(),
        }
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match node.text() {
            Some("never") => Some(Self::Never),
            _ => Span::read(node, reader).map(Self::After),
        }
    }

    fn quantities(&self) -> Vec<Span> {
        self.value().into_iter().collect()
    }
}

impl Setting for Rate {
    type Quantity = u8;

    fn type_name() -> String {
        "number/time".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, reader, "a rate")?;
        Self::parse(text)
            .map_err(|error| {
                let diagnostic = reader.error_at("E0208", error.to_string(), node, "how many?");
                reader.report(diagnostic.help("write 30/min; also per s, h and d"));
            })
            .ok()
    }
}

impl Setting for Network {
    type Quantity = u8;

    fn type_name() -> String {
        "address or network".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, reader, "an address or a network")?;
        Self::parse(text)
            .map_err(|error| {
                let diagnostic = reader.error_at("E0314", error.to_string(), node, "not a network");
                reader.report(diagnostic.help("write 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32"));
            })
            .ok()
    }
}

impl Setting for Auto {
    type Quantity = u16;

    fn type_name() -> String {
        "number or auto".to_owned()
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Count(count) => count.show(),
        }
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match node.text() {
            Some("auto") => Some(Self::Auto),
            _ => u16::read(node, reader).map(Self::Count),
        }
    }

    fn quantities(&self) -> Vec<u16> {
        match self {
            Self::Auto => Vec::new(),
            Self::Count(count) => vec![*count],
        }
    }
}

/// The text of a value that must be a single one.
pub(crate) fn scalar<'n>(node: &'n Node, reader: &mut Reader, what: &str) -> Option<&'n str> {
    if let Kind::Scalar { text, .. } = &node.kind {
        if node.is_empty() {
            let diagnostic = reader.error_at(
                "E0103",
                format!("{what} belongs here"),
                node,
                "nothing stands here",
            );
            reader.report(diagnostic.help("write a value, or remove the line"));
            return None;
        }
        return Some(text);
    }
    let label = format!("this is {}", node.kind_name());
    let diagnostic = reader.error_at("E0106", format!("{what} belongs here"), node, label);
    reader.report(diagnostic.help("write one value behind the key"));
    None
}
