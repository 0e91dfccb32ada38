//! Who a message is from and who gets it, as the command line says it.
//!
//! In: arguments, each written as a header would have it: with names and comments, several with commas between them.
//! Out: addresses that stand in a command as they are, and words for what is none.

use std::collections::HashSet;

use mailroot_common::message::address_list::{every_named, locate_named};

use super::{DATA_ERROR, Failure};

/// The most faults that are told.
const TOLD_MAX: usize = 20;
/// How much of an argument is told, in characters.
const SHOWN_MAX: usize = 100;

/// Recipients, and what is wrong with those that are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recipients {
    /// Addresses.
    pub(super) named: Vec<String>,
    /// Words for people.
    refused: Vec<String>,
    /// How many more are none.
    untold: usize,
}

impl Recipients {
    /// Those of arguments.
    pub(super) fn of(arguments: &[String]) -> Self {
        let mut all = Self::default();
        for argument in arguments {
            let shown: String = argument.chars().take(SHOWN_MAX).collect();
            if names_a_group(argument) && !argument.trim_end().ends_with(';') {
                all.refuse(format!("{shown:?}: that is no address"));
                continue;
            }
            let (named, faults) = every_named(argument.as_bytes());
            all.named.extend(named.iter().map(ToString::to_string));
            faults.iter().for_each(|fault| all.refuse(format!("{shown:?}: {fault}")));
        }
        all
    }

    /// Notes one that is none.
    pub(super) fn refuse(&mut self, words: String) {
        if self.refused.len() < TOLD_MAX {
            self.refused.push(words);
        } else {
            self.untold += 1;
        }
    }

    /// Takes those in whom the message names.
    pub(super) fn extend(&mut self, others: Self) {
        self.named.extend(others.named);
        others.refused.into_iter().for_each(|words| self.refuse(words));
        self.untold += others.untold;
    }

    /// What is wrong; empty if nothing is.
    pub(super) fn words(&self) -> String {
        let more = match self.untold {
            0 => String::new(),
            count => format!("; {count} more are none"),
        };
        self.refused.join("; ") + &more
    }

    /// That there is somebody; everybody is named once then.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        let mut seen = HashSet::new();
        self.named.retain(|to| seen.insert(to.clone()));
        let words = match (self.named.is_empty(), self.refused.is_empty()) {
            (false, _) => return Ok(()),
            (true, false) => self.words(),
            (true, true) => "the message names no recipients".to_owned(),
        };
        Err(Failure { code: DATA_ERROR, words })
    }
}

/// Whether a colon stands where it names a group.
fn names_a_group(text: &str) -> bool {
    let (mut close, mut escaped) = (None, false);
    text.chars().any(|c| {
        let within = close;
        match c {
            _ if std::mem::take(&mut escaped) => {}
            '\\' => escaped = true,
            _ if within == Some(c) => close = None,
            _ if within.is_some() => {}
            '"' => close = Some('"'),
            '[' => close = Some(']'),
            '(' => close = Some(')'),
            '<' => close = Some('>'),
            _ => {}
        }
        c == ':' && within.is_none()
    })
}

/// The sender that was given, as MAIL has it: one address, or `<>` for nobody.
pub(super) fn sender(given: &str) -> Result<String, Failure> {
    let bare = given.trim();
    if bare.is_empty() || bare == "<>" {
        return Ok("<>".to_owned());
    }
    let refused = |why: String| Failure {
        code: DATA_ERROR,
        words: format!("the sender {given:?} is not an address: {why}"),
    };
    let found = locate_named(bare.as_bytes()).map_err(|error| refused(error.to_string()))?;
    match found.as_slice() {
        [(one, _)] => Ok(one.to_string()),
        several => Err(refused(format!("{} addresses where one is wanted", several.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> Recipients {
        Recipients::of(&arguments.iter().map(|&it| it.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_argument_names_as_many_as_it_likes() {
        for (arguments, expected) in [
            (vec!["c1@p.test,c2@p.test"], "c1@p.test c2@p.test"),
            (vec!["a@p.test, root", "root"], "a@p.test root"),
            (vec!["Name <a@p.test>", "b@p.test (him)", "<c@p.test>"], "a@p.test b@p.test c@p.test"),
            (vec!["\"Doe, J\" <a@p.test>"], "a@p.test"),
            (vec!["ops: a@p.test, b@p.test;"], "a@p.test b@p.test"),
        ] {
            let mut all = of(&arguments);
            all.check().unwrap();
            assert_eq!((all.named.join(" "), all.words()), (expected.to_owned(), String::new()));
        }
    }

    #[test]
    fn what_is_no_address_is_named_and_cannot_carry_commands() {
        for bad in
            ["a@x.test>\r\nDATA", "a b>", "<a@x.test", "a@x.test\0", "a@@x.test", "a\r\nDATA"]
        {
            let all = of(&["good@x.test", bad]);
            let words = all.words();
            assert!(all.named == ["good@x.test"] && words.contains(&format!("{bad:?}")), "{all:?}");
            assert_eq!(of(&[bad]).check().unwrap_err().code, DATA_ERROR);
        }
        let many = of(&[&["a@@x.test"; 30].join(",")]);
        assert!(many.words().contains("10 more are none") && many.words().len() < 5000);
        assert_eq!(of(&["u@[IPv6:::1]", "\"a:b\"@x.test"]).named.len(), 2);
        assert!(of(&["", " "]).check().unwrap_err().words.contains("no recipients"));
    }

    #[test]
    fn a_sender_is_one_address_and_no_more() {
        for (given, expected) in [
            ("a@x.test", "a@x.test"),
            (" <a@x.test> ", "a@x.test"),
            ("Anna <a@x.test>", "a@x.test"),
            ("root", "root"),
            ("", "<>"),
            ("<>", "<>"),
        ] {
            assert_eq!(sender(given).unwrap(), expected, "{given:?}");
        }
        for bad in
            ["x@p.test> HOLDFOR=86400 ENVID=a", "a@x.test b@x.test", "a@x.test, b@x.test", "a\nb"]
        {
            assert_eq!(sender(bad).unwrap_err().code, DATA_ERROR, "{bad:?}");
        }
    }
}
