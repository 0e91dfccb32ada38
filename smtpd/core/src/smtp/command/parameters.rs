//! Parameters of MAIL and RCPT, as they are written.

use super::{Complaint, about};
use crate::smtp::refusal::Refusal;

/// The parameters of MAIL and RCPT: keyword and value.
pub(super) struct Parameters<'a>(pub(super) &'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<(&'a str, Option<&'a str>), Complaint<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.0.trim_start_matches(' ');
        if text.is_empty() {
            return None;
        }
        let (parameter, rest) = text.split_once(' ').unwrap_or((text, ""));
        self.0 = rest;
        let (keyword, value) = match parameter.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (parameter, None),
        };
        let good = keyword.bytes().all(|o| o.is_ascii_alphanumeric() || o == b'-')
            && keyword.bytes().next().is_some_and(|o| o != b'-')
            && value.is_none_or(|value| !value.is_empty() && !value.contains('='));
        Some(if good { Ok((keyword, value)) } else { Err(Refusal::BadParameter.into()) })
    }
}

/// Which parameters were there already.
#[derive(Default)]
pub(super) struct Seen(u16);

impl Seen {
    pub(super) fn once<'a>(&mut self, number: u8, keyword: &'a str) -> Result<(), Complaint<'a>> {
        if self.0 & (1 << number) != 0 {
            return Err(about(Refusal::DuplicateParameter, keyword));
        }
        self.0 |= 1 << number;
        Ok(())
    }
}
