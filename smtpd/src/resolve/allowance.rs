//! How many questions DNS is asked for one piece of business: an attempt at delivery, one look-up.
//!
//! What strangers publish decides how many would be asked: hosts, their aliases, their TLSA records. So
//! all of them are counted where they leave, and an answer that is known costs nothing.

use std::sync::atomic::{AtomicU32, Ordering};

use super::LookupError;

/// Questions for one piece of business; one that gets no reply is put again and counts once.
pub const QUESTIONS_MAX: u32 = 32;

/// What is left of them.
#[derive(Debug)]
pub struct Allowance {
    left: AtomicU32,
    most: u32,
}

impl Default for Allowance {
    fn default() -> Self {
        Self::of(QUESTIONS_MAX)
    }
}

impl Allowance {
    /// So many questions.
    #[must_use]
    pub const fn of(most: u32) -> Self {
        Self { left: AtomicU32::new(most), most }
    }

    /// Takes one question.
    ///
    /// # Errors
    ///
    /// [`LookupError::NoneLeft`] if none is left: it may be answered another time.
    pub(super) fn take(&self, name: &str) -> Result<(), LookupError> {
        let one_less = |left: u32| left.checked_sub(1);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        let none_left = |_| LookupError::NoneLeft { name: name.to_owned(), most: self.most };
        taken.map(drop).map_err(none_left)
    }
}
