//! ETRN: what a host asks for that comes to fetch mail (RFC 1985).
//!
//! In: the argument of the command, or the words of an operator who has us ask. Out: an [`Etrn`],
//! which says whether it means the mail of a domain; of ATRN (RFC 2645) the domains.

use std::fmt;

use mailroot_common::address::Domain;

/// Whose mail is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Etrn {
    /// That of one domain.
    Domain(Domain),
    /// That of a domain and of all below it; written `@domain`.
    Below(Domain),
    /// That of a queue by its name; written `#name`.
    Queue(String),
}

/// Octets of a queue's name.
const QUEUE_OCTETS_MAX: usize = 64;

impl Etrn {
    /// Reads `example.net`, `@example.net` or `#name`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix('#') {
            return is_queue(name).then(|| Self::Queue(name.to_ascii_lowercase()));
        }
        match text.strip_prefix('@') {
            Some(name) => Domain::parse(name).ok().map(Self::Below),
            None => Domain::parse(text).ok().map(Self::Domain),
        }
    }

    /// Whether it asks for the mail of a domain that belongs to this queue, if to any.
    #[must_use]
    pub fn means(&self, domain: &Domain, queue: Option<&str>) -> bool {
        match self {
            Self::Domain(name) => name == domain,
            Self::Below(name) => name == domain || domain.is_below(name),
            Self::Queue(name) => queue.is_some_and(|queue| queue.eq_ignore_ascii_case(name)),
        }
    }
}

/// Domains that one ATRN may name.
pub const ATRN_DOMAINS_MAX: usize = 100;

/// Reads the argument of ATRN, domains with commas between (RFC 2645 section 5.2); none stands for all
/// that the client may have.
#[must_use]
pub fn atrn_domains(argument: &str) -> Option<Vec<Domain>> {
    if argument.is_empty() {
        return Some(Vec::new());
    }
    let names = argument.split(',').map(|name| Domain::parse(name).ok());
    names
        .take(ATRN_DOMAINS_MAX + 1)
        .collect::<Option<Vec<_>>>()
        .filter(|it| it.len() <= ATRN_DOMAINS_MAX)
}

/// Whether a text can be the name of a queue: letters, digits, dots and dashes.
#[must_use]
pub fn is_queue(name: &str) -> bool {
    let good = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
    (1..=QUEUE_OCTETS_MAX).contains(&name.len()) && name.bytes().all(good)
}

/// The argument of the command.
impl fmt::Display for Etrn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(name) => name.fmt(f),
            Self::Below(name) => write!(f, "@{name}"),
            Self::Queue(name) => write!(f, "#{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_means_what_the_standard_says() {
        let domain = |text: &str| Domain::parse(text).unwrap();
        for (asked, name, queue, meant) in [
            ("branch.example", "branch.example", None, true),
            ("BRANCH.example", "branch.example", None, true),
            ("branch.example", "a.branch.example", None, false),
            ("@branch.example", "branch.example", None, true),
            ("@branch.example", "a.branch.example", None, true),
            ("@branch.example", "badbranch.example", None, false),
            ("#Night", "any.example", Some("night"), true),
            ("#night", "any.example", Some("day"), false),
            ("#night", "night", None, false),
        ] {
            let read = Etrn::parse(asked).unwrap();
            assert_eq!(read.means(&domain(name), queue), meant, "{asked} {name}");
            assert_eq!(Etrn::parse(&read.to_string()), Some(read));
        }
        for bad in ["", "@", "#", "a b", "@a b", "#a b", "#a\u{7f}", "-a.example", "[192.0.2.1]"] {
            assert_eq!(Etrn::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn atrn_names_domains_with_commas_between() {
        let read = |text: &str| {
            atrn_domains(text).map(|all| all.iter().map(|it| it.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(read(""), Some(Vec::new()));
        assert_eq!(read("A.example,b.example").unwrap(), ["a.example", "b.example"]);
        for bad in
            [",", "a.example,", "a.example, b.example", "@a.example", "#a", "a b", "../x", "\"a\""]
        {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        let many = vec!["a.example"; ATRN_DOMAINS_MAX].join(",");
        assert_eq!(read(&many).unwrap().len(), ATRN_DOMAINS_MAX);
        assert_eq!(read(&format!("{many},b.example")), None);
    }
}
