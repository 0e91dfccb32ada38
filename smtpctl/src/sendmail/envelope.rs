//! Who a message is from and who gets it, as the command line says it.
//!
//! In: arguments, each written as a header would have it: with names and comments, several with commas between them.
//! Out: addresses that stand in a command as they are, and words for what is none.

use std::collections::HashSet;

use mailroot_common::message::address_list::{every_named, locate_named};

use super::{DATA_ERROR, Failure};

/// Recipients, and what is wrong with those that are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recipients {
    /// Each once.
    pub(super) named: Vec<String>,
    /// Words for people.
    pub(super) refused: Vec<String>,
}

impl Recipients {
    /// Those of arguments.
    pub(super) fn of(arguments: &[String]) -> Self {
        let mut all = Self::default();
        for argument in arguments {
            let (named, faults) = every_named(argument.as_bytes());
            let refused = faults.iter().map(|fault| format!("{argument:?}: {fault}")).collect();
            all.extend(Self { named: named.iter().map(ToString::to_string).collect(), refused });
        }
        all
    }

    /// Takes others in; who is there already stays where he is.
    pub(super) fn extend(&mut self, others: Self) {
        self.named.extend(others.named);
        self.refused.extend(others.refused);
        let mut seen = HashSet::new();
        self.named.retain(|to| seen.insert(to.clone()));
    }

    /// That there is somebody.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match (self.named.is_empty(), self.refused.is_empty()) {
            (false, _) => Ok(()),
            (true, false) => Err(Failure { code: DATA_ERROR, words: self.refused.join("; ") }),
            (true, true) => Err(Failure {
                code: DATA_ERROR,
                words: "the message names no recipients".to_owned(),
            }),
        }
    }
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
            let all = of(&arguments);
            assert_eq!((all.named.join(" ").as_str(), all.refused.len()), (expected, 0));
            all.check().unwrap();
        }
    }

    #[test]
    fn what_is_no_address_is_named_and_cannot_carry_commands() {
        for bad in
            ["a@x.test>\r\nDATA", "a b>", "<a@x.test", "a@x.test\0", "a@@x.test", "a\r\nDATA"]
        {
            let all = of(&["good@x.test", bad]);
            let words = all.refused.join("");
            assert!(all.named == ["good@x.test"] && words.contains(&format!("{bad:?}")), "{all:?}");
            assert_eq!(of(&[bad]).check().unwrap_err().code, DATA_ERROR);
        }
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
