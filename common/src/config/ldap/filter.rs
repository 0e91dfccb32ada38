//! Filters with places for an address, or for the name of a user (RFC 4515).
//!
//! A filter is read once, into a tree. What fills a place is put into the leaves of that tree as octets, so
//! that nothing in it can become a parenthesis or an asterisk: there is no text to break out of.
//! Where a filter is shown, its values are escaped.

use std::fmt;

use crate::address::Mailbox;

/// The longest filter, in octets.
const TEXT_MAX: usize = 500;
/// How deep parentheses may stand in each other.
const DEPTH_MAX: usize = 16;

/// A filter in which an address can stand, or stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LdapFilter(pub Node);

/// A part of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// All of them.
    And(Vec<Self>),
    /// One of them.
    Or(Vec<Self>),
    /// Not this.
    Not(Box<Self>),
    /// The attribute compares so with the value.
    Compare(Comparison, Box<str>, Value),
    /// The attribute has a value.
    Present(Box<str>),
    /// The attribute has a value with these pieces in this order; a piece that is absent at an end
    /// leaves that end open.
    Pieces {
        /// The attribute.
        attribute: Box<str>,
        /// How it begins.
        first: Option<Value>,
        /// What is within.
        within: Vec<Value>,
        /// How it ends.
        last: Option<Value>,
    },
    /// A rule of the directory decides.
    Rule {
        /// The attribute.
        attribute: Option<Box<str>>,
        /// Whether the parts of distinguished names count as well.
        with_dn: bool,
        /// The rule.
        rule: Option<Box<str>>,
        /// What it is given.
        value: Value,
    },
}

/// How an attribute and a value are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
    /// `~=`
    About,
}

impl Comparison {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
            Self::About => "~=",
        }
    }
}

/// A value: octets, and places for an address or a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Value(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Octets(Vec<u8>),
    Address,
    Local,
    Domain,
    User,
}

/// What may stand for something else in a filter.
type Places = [(&'static str, Part)];

const PLACES: &Places =
    &[("{address}", Part::Address), ("{local}", Part::Local), ("{domain}", Part::Domain)];
const USER: &Places = &[("{user}", Part::User)];

/// What fills the places.
#[derive(Clone, Copy)]
enum Filling<'f> {
    Address(&'f Mailbox),
    User(&'f str),
}

impl Filling<'_> {
    /// A place that there is nothing for stays empty; no filter that was read has one.
    fn octets(self, part: &Part) -> Vec<u8> {
        match (part, self) {
            (Part::Octets(octets), _) => octets.clone(),
            (Part::Address, Self::Address(address)) => address.to_string().into_bytes(),
            (Part::Local, Self::Address(address)) => address.local().unquoted().into_bytes(),
            (Part::Domain, Self::Address(address)) => address.host().to_string().into_bytes(),
            (Part::User, Self::User(name)) => name.as_bytes().to_vec(),
            (Part::User, Self::Address(_))
            | (Part::Address | Part::Local | Part::Domain, Self::User(_)) => Vec::new(),
        }
    }
}

impl Value {
    /// These octets.
    #[must_use]
    pub fn of(octets: &[u8]) -> Self {
        Self(vec![Part::Octets(octets.to_vec())])
    }

    /// Its octets; a place that was not filled has none.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for part in &self.0 {
            if let Part::Octets(octets) = part {
                out.extend_from_slice(octets);
            }
        }
        out
    }

    fn names_somebody(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Address | Part::Local | Part::User))
    }

    fn fill(&self, with: Filling<'_>) -> Self {
        Self(vec![Part::Octets(self.0.iter().flat_map(|part| with.octets(part)).collect())])
    }
}

/// Escaped as RFC 4515 section 3 wants it, and everything beyond printable ASCII as well.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            let Part::Octets(octets) = part else {
                let place = PLACES.iter().chain(USER).find(|(_, known)| known == part);
                f.write_str(place.map_or("", |(text, _)| text))?;
                continue;
            };
            for &octet in octets {
                match octet {
                    b'*' | b'(' | b')' | b'\\' | b'{' | b'}' => write!(f, "\\{octet:02x}")?,
                    b' '..=b'~' => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:02x}")?,
                }
            }
        }
        Ok(())
    }
}

/// Why a text is no filter, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Too much of it.
    #[error("it is longer than {TEXT_MAX} octets, or its parentheses stand too deep")]
    TooLarge,
    /// At this octet something else belongs.
    #[error("{wanted} belongs at octet {at}")]
    Syntax {
        /// What.
        wanted: &'static str,
        /// Where, from 0.
        at: usize,
    },
    /// Nothing that differs decides what is found.
    #[error("no {0} stands in it: it would find the same for everybody")]
    Nobody(&'static str),
}

impl LdapFilter {
    /// Reads a filter.
    ///
    /// # Errors
    ///
    /// [`FilterError`], with the place.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let node = Node::parse(text, (PLACES, "{address}, {local} or {domain}"))?;
        if !node.names_somebody() {
            return Err(FilterError::Nobody("{address} or {local}"));
        }
        Ok(Self(node))
    }

    /// The filter for one address.
    #[must_use]
    pub fn fill(&self, address: &Mailbox) -> Self {
        Self(self.0.fill(Filling::Address(address)))
    }
}

impl fmt::Display for LdapFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A filter in which the name of a user can stand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoginFilter(Node);

impl LoginFilter {
    /// Reads a filter.
    ///
    /// # Errors
    ///
    /// [`FilterError`], with the place.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let node = Node::parse(text, (USER, "{user}"))?;
        if !node.names_somebody() {
            return Err(FilterError::Nobody("{user}"));
        }
        Ok(Self(node))
    }

    /// The filter for one user.
    #[must_use]
    pub fn fill(&self, name: &str) -> LdapFilter {
        LdapFilter(self.0.fill(Filling::User(name)))
    }
}

impl fmt::Display for LoginFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Node {
    fn parse(text: &str, places: (&'static Places, &'static str)) -> Result<Self, FilterError> {
        if text.len() > TEXT_MAX {
            return Err(FilterError::TooLarge);
        }
        let mut reader = Reader { text, at: 0, places };
        let node = reader.node(0)?;
        if reader.at < text.len() {
            return Err(FilterError::Syntax { wanted: "the end", at: reader.at });
        }
        Ok(node)
    }

    fn names_somebody(&self) -> bool {
        match self {
            Self::And(nodes) | Self::Or(nodes) => nodes.iter().any(Self::names_somebody),
            Self::Not(node) => node.names_somebody(),
            Self::Compare(_, _, value) | Self::Rule { value, .. } => value.names_somebody(),
            Self::Present(_) => false,
            Self::Pieces { first, within, last, .. } => {
                first.iter().chain(within).chain(last).any(Value::names_somebody)
            }
        }
    }

    fn fill(&self, with: Filling<'_>) -> Self {
        let all = |nodes: &[Self]| nodes.iter().map(|node| node.fill(with)).collect();
        match self {
            Self::And(nodes) => Self::And(all(nodes)),
            Self::Or(nodes) => Self::Or(all(nodes)),
            Self::Not(node) => Self::Not(Box::new(node.fill(with))),
            Self::Compare(how, attribute, value) => {
                Self::Compare(*how, attribute.clone(), value.fill(with))
            }
            Self::Present(attribute) => Self::Present(attribute.clone()),
            Self::Pieces { attribute, first, within, last } => Self::Pieces {
                attribute: attribute.clone(),
                first: first.as_ref().map(|value| value.fill(with)),
                within: within.iter().map(|value| value.fill(with)).collect(),
                last: last.as_ref().map(|value| value.fill(with)),
            },
            Self::Rule { attribute, with_dn, rule, value } => Self::Rule {
                attribute: attribute.clone(),
                with_dn: *with_dn,
                rule: rule.clone(),
                value: value.fill(with),
            },
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |nodes: &[Self], f: &mut fmt::Formatter<'_>| {
            nodes.iter().try_for_each(|node| node.fmt(f))
        };
        f.write_str("(")?;
        match self {
            Self::And(nodes) => {
                f.write_str("&")?;
                all(nodes, f)?;
            }
            Self::Or(nodes) => {
                f.write_str("|")?;
                all(nodes, f)?;
            }
            Self::Not(node) => write!(f, "!{node}")?,
            Self::Compare(how, attribute, value) => {
                write!(f, "{attribute}{}{value}", how.as_str())?;
            }
            Self::Present(attribute) => write!(f, "{attribute}=*")?,
            Self::Pieces { attribute, first, within, last } => {
                write!(f, "{attribute}=")?;
                first.iter().try_for_each(|value| value.fmt(f))?;
                within.iter().try_for_each(|value| write!(f, "*{value}"))?;
                f.write_str("*")?;
                last.iter().try_for_each(|value| value.fmt(f))?;
            }
            Self::Rule { attribute, with_dn, rule, value } => {
                f.write_str(attribute.as_deref().unwrap_or_default())?;
                f.write_str(if *with_dn { ":dn" } else { "" })?;
                rule.iter().try_for_each(|rule| write!(f, ":{rule}"))?;
                write!(f, ":={value}")?;
            }
        }
        f.write_str(")")
    }
}

/// Reads a text from left to right.
struct Reader<'t> {
    text: &'t str,
    at: usize,
    /// What may stand for something else, and how people are told.
    places: (&'static Places, &'static str),
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    const fn wants(&self, wanted: &'static str) -> FilterError {
        FilterError::Syntax { wanted, at: self.at }
    }

    fn take(&mut self, text: &str) -> bool {
        let is_next = self.rest().starts_with(text);
        self.at += if is_next { text.len() } else { 0 };
        is_next
    }

    fn node(&mut self, depth: usize) -> Result<Node, FilterError> {
        if depth > DEPTH_MAX {
            return Err(FilterError::TooLarge);
        }
        if !self.take("(") {
            return Err(self.wants("an opening parenthesis"));
        }
        let node = if self.take("&") {
            Node::And(self.nodes(depth)?)
        } else if self.take("|") {
            Node::Or(self.nodes(depth)?)
        } else if self.take("!") {
            Node::Not(Box::new(self.node(depth + 1)?))
        } else {
            self.leaf()?
        };
        if !self.take(")") {
            return Err(self.wants("a closing parenthesis"));
        }
        Ok(node)
    }

    fn nodes(&mut self, depth: usize) -> Result<Vec<Node>, FilterError> {
        let mut nodes = vec![self.node(depth + 1)?];
        while self.rest().starts_with('(') {
            nodes.push(self.node(depth + 1)?);
        }
        Ok(nodes)
    }

    /// A name of an attribute or a rule, options included; perhaps nothing.
    fn name(&mut self) -> &'t str {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-.;".contains(c);
        let rest = self.rest();
        let name = rest.split(|c| !is_name(c)).next().unwrap_or_default();
        self.at += name.len();
        name
    }

    fn leaf(&mut self) -> Result<Node, FilterError> {
        let attribute: Box<str> = self.name().into();
        if self.rest().starts_with(':') {
            return self.rule(attribute);
        }
        if attribute.is_empty() {
            return Err(self.wants("the name of an attribute"));
        }
        let all = [Comparison::AtLeast, Comparison::AtMost, Comparison::About, Comparison::Equal];
        let Some(how) = all.into_iter().find(|how| self.take(how.as_str())) else {
            return Err(self.wants("=, >=, <= or ~="));
        };
        if how != Comparison::Equal {
            return Ok(Node::Compare(how, attribute, self.value()?));
        }
        let mut pieces = vec![self.value()?];
        while self.take("*") {
            pieces.push(self.value()?);
        }
        let last = pieces.pop().unwrap_or_default();
        if pieces.is_empty() {
            return Ok(Node::Compare(how, attribute, last));
        }
        let first = pieces.remove(0);
        let some = |value: Value| (!value.0.is_empty()).then_some(value);
        if pieces.iter().any(|value| value.0.is_empty()) {
            return Err(self.wants("something between two asterisks"));
        }
        let (first, last) = (some(first), some(last));
        if pieces.is_empty() && first.is_none() && last.is_none() {
            return Ok(Node::Present(attribute));
        }
        Ok(Node::Pieces { attribute, first, within: pieces, last })
    }

    fn rule(&mut self, attribute: Box<str>) -> Result<Node, FilterError> {
        let with_dn = self.take(":dn:") || self.take(":DN:");
        if with_dn {
            self.at -= 1;
        }
        let rule: Option<Box<str>> = match self.rest().starts_with(":=") {
            true => None,
            false => {
                self.take(":");
                Some(self.name().into())
            }
        };
        let attribute = (!attribute.is_empty()).then_some(attribute);
        let is_empty = rule.as_deref().is_some_and(str::is_empty);
        if is_empty || (attribute.is_none() && rule.is_none()) {
            return Err(self.wants("the name of a rule"));
        }
        if !self.take(":=") {
            return Err(self.wants(":="));
        }
        Ok(Node::Rule { attribute, with_dn, rule, value: self.value()? })
    }

    /// A value up to an asterisk or a parenthesis.
    fn value(&mut self) -> Result<Value, FilterError> {
        let mut parts: Vec<Part> = Vec::new();
        let mut octets = Vec::new();
        while let Some(c) = self.rest().chars().next() {
            match c {
                '*' | ')' => break,
                '(' | '\0' | '}' => return Err(self.wants("an escape such as \\28")),
                '{' => {
                    let (places, wanted) = self.places;
                    let found = places.iter().find(|(text, _)| self.rest().starts_with(text));
                    let Some((text, part)) = found else { return Err(self.wants(wanted)) };
                    self.at += text.len();
                    if !octets.is_empty() {
                        parts.push(Part::Octets(std::mem::take(&mut octets)));
                    }
                    parts.push(part.clone());
                }
                '\\' => {
                    let digits = self.rest().get(1..3).unwrap_or_default();
                    let is_hex = digits.bytes().all(|o| o.is_ascii_hexdigit());
                    let octet = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex);
                    octets.push(octet.ok_or_else(|| self.wants("two hexadecimal digits"))?);
                    self.at += 3;
                }
                c => {
                    octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    self.at += c.len_utf8();
                }
            }
        }
        if !octets.is_empty() {
            parts.push(Part::Octets(octets));
        }
        Ok(Value(parts))
    }
}

#[cfg(test)]
#[path = "filter/tests.rs"]
mod tests;
