//! The stable codes of everything the programs complain of: what each means and what cures it.
//!
//! mailroot-errors(7) and `smtpctl explain` are made from these rows, and a test holds them against
//! the codes that stand in the source. What is wrong in a case at hand is said where it is found;
//! here stands what is true of every case of the code.

mod config;
mod problem;

use serde::Serialize;

pub use config::DIAGNOSTICS;
pub use problem::PROBLEMS;

/// What is true of every case of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The code, such as `E0107` or `server.exists`.
    pub code: &'static str,
    /// What happened, or what is wrong.
    pub cause: &'static str,
    /// What to do about it.
    pub cure: &'static str,
}

/// The row of a code; `e0107` is found as well as `E0107`.
#[must_use]
pub fn find(code: &str) -> Option<&'static Explained> {
    all().find(|row| row.code.eq_ignore_ascii_case(code))
}

/// Every row, those of the configuration first.
pub fn all() -> impl Iterator<Item = &'static Explained> {
    DIAGNOSTICS.iter().chain(PROBLEMS)
}

/// Rows in the order of their codes, each `code: cause; cure;`.
macro_rules! codes {
    ($(#[doc = $about:literal])+ $NAME:ident: $($code:literal: $cause:literal; $cure:literal;)+) => {
        $(#[doc = $about])+
        pub const $NAME: &[$crate::codes::Explained] = &[$(
            $crate::codes::Explained { code: $code, cause: $cause, cure: $cure },
        )+];
    };
}

use codes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_order_and_say_each_thing_once() {
        for rows in [DIAGNOSTICS, PROBLEMS] {
            assert!(rows.is_sorted_by_key(|row| row.code), "the rows are not in order");
        }
        let mut texts: Vec<&str> = all().map(|row| row.cause).collect();
        let rows = texts.len();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), rows, "two codes have one cause");
        for row in all() {
            for text in [row.cause, row.cure] {
                assert!(text.ends_with('.'), "{}: {text}", row.code);
            }
        }
    }

    #[test]
    fn codes_are_found_in_any_case() {
        assert_eq!(find("e0310").map(|row| row.code), Some("E0310"));
        assert_eq!(find("Server.Exists").map(|row| row.code), Some("server.exists"));
        assert_eq!(find("E9999"), None);
    }
}
