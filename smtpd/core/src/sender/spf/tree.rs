//! All that a record of SPF leads to, for the domain's owner: what it includes, and how many terms ask DNS.
//!
//! An evaluation ends where a client matches; the tree goes everywhere. So it tells of a limit before a
//! client finds out, and of records that nobody has come to yet.

use super::super::book::{Book, Nothing};
use super::record::{Mechanism, Record, is_record};
use super::{TERMS_MAX, Template};

/// Records that are followed.
const RECORDS_MAX: usize = 30;

/// The records behind one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The domain's own record first; then those that it leads to, in order.
    pub branches: Vec<Branch>,
    /// Terms that ask DNS, in all of them.
    pub terms: u32,
    /// Some records are not here: there are too many, or a macro names them.
    pub is_cut: bool,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Whose it is.
    pub domain: String,
    /// The domain whose record leads here; nothing for the first.
    pub from: Option<String>,
    /// The record, or what is wrong with it.
    pub record: Result<String, &'static str>,
}

impl Tree {
    /// The most terms that may ask DNS.
    pub const TERMS_MAX: u32 = TERMS_MAX;

    /// Follows the record of a domain; nothing if the book lacks something.
    pub fn grow(book: &mut Book, domain: &str) -> Option<Self> {
        let mut tree = Self { branches: Vec::new(), terms: 0, is_cut: false };
        let mut next = vec![(None, domain.to_ascii_lowercase())];
        while let Some((from, domain)) = next.pop() {
            if tree.branches.iter().any(|known| known.domain == domain) {
                continue;
            }
            if tree.branches.len() == RECORDS_MAX {
                tree.is_cut = true;
                break;
            }
            let found = read(book, &domain)?;
            if let Ok((_, record)) = &found {
                let (targets, terms) = tree.targets(record);
                tree.terms += terms;
                let targets = targets.into_iter().map(|target| (Some(domain.clone()), target));
                next.extend(targets.rev());
            }
            tree.branches.push(Branch { domain, from, record: found.map(|(text, _)| text) });
        }
        Some(tree)
    }

    /// Where a record leads, and how many of its terms ask DNS.
    fn targets(&mut self, record: &Record) -> (Vec<String>, u32) {
        let (mut targets, mut terms) = (Vec::new(), 0);
        let mut follow = |template: &Template| match template.plain() {
            Some(name) => targets.push(name.trim_end_matches('.').to_ascii_lowercase()),
            None => self.is_cut = true,
        };
        for (_, mechanism) in &record.directives {
            match mechanism {
                Mechanism::All | Mechanism::Network(_) => continue,
                Mechanism::Include(target) => follow(target),
                Mechanism::A(..) | Mechanism::Mx(..) | Mechanism::Ptr(_) | Mechanism::Exists(_) => {
                }
            }
            terms += 1;
        }
        let ends = record.directives.iter().any(|(_, it)| *it == Mechanism::All);
        if let Some(target) = record.redirect.as_ref().filter(|_| !ends) {
            follow(target);
            terms += 1;
        }
        (targets, terms)
    }
}

fn read(book: &mut Book, domain: &str) -> Option<Result<(String, Record), &'static str>> {
    let texts = match book.texts(domain)? {
        Ok(texts) => texts,
        Err(Nothing::Absent) => return Some(Err("there is no record")),
        Err(Nothing::Unknown) => return Some(Err("DNS gives no answer")),
    };
    let mut records = texts.into_iter().filter(|text| is_record(text));
    Some(match (records.next(), records.next()) {
        (None, _) => Err("there is no record"),
        (Some(_), Some(_)) => Err("there are two records, so that neither counts"),
        (Some(text), None) => match Record::parse(&text) {
            Some(record) => Ok((text, record)),
            None => Err("the record breaks the grammar, so that none of it counts"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::Zone;
    use super::*;

    fn grown(zone: &[&str]) -> Tree {
        Zone::new(zone).settle(|book| Tree::grow(book, "A.example")).0
    }

    #[test]
    fn everything_that_a_record_leads_to_is_found_once_and_counted() {
        let tree = grown(&[
            "a.example TXT v=spf1 mx include:b.example include:c.example ~all",
            "b.example TXT v=spf1 a:x.example ip4:192.0.2.1 include:a.example -all",
            "c.example TXT v=spf1 exists:%{i}.example include:%{d}.x.example redirect=d.example",
            "d.example TXT v=spf1 moo",
        ]);
        let told: Vec<_> = tree
            .branches
            .iter()
            .map(|it| (it.domain.as_str(), it.from.as_deref().unwrap_or("-"), it.record.is_ok()))
            .collect();
        assert_eq!(
            told,
            [
                ("a.example", "-", true),
                ("b.example", "a.example", true),
                ("c.example", "a.example", true),
                ("d.example", "c.example", false),
            ]
        );
        assert_eq!((tree.terms, tree.is_cut), (3 + 2 + 3, true));
        assert_eq!(grown(&[]).branches[0].record, Err("there is no record"));
        let two = grown(&["a.example TXT v=spf1 -all", "a.example TXT v=spf1 +all"]);
        assert!(two.branches[0].record.is_err());
    }

    #[test]
    fn a_tree_without_end_is_cut() {
        let zone: Vec<String> = (0..100)
            .map(|number| {
                let name =
                    if number == 0 { "a.example".to_owned() } else { format!("n{number}.example") };
                format!("{name} TXT v=spf1 include:n{}.example -all", number + 1)
            })
            .collect();
        let zone: Vec<&str> = zone.iter().map(String::as_str).collect();
        let tree = grown(&zone);
        assert!(tree.is_cut && tree.branches.len() == RECORDS_MAX);
    }
}
