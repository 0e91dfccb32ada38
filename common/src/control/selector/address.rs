//! Patterns of addresses for the configuration, in the form that selectors have.

use super::SelectorError;
use super::pattern::Pattern;

/// A glob of whole addresses, or an expression between slashes.
#[derive(Clone, Debug)]
pub struct AddressPattern {
    text: Box<str>,
    pattern: Pattern,
}

impl AddressPattern {
    /// Reads a pattern. The null path is none: it has no other name.
    ///
    /// # Errors
    ///
    /// [`SelectorError::Pattern`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let pattern = Pattern::parse("from", text, false)?;
        if matches!(pattern, Pattern::Null) {
            let why = "<> is nobody, and stays so".to_owned();
            return Err(SelectorError::Pattern { condition: "from", text: text.to_owned(), why });
        }
        Ok(Self { text: text.into(), pattern })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether an address fits; capitals do not matter.
    #[must_use]
    pub fn matches(&self, address: &str) -> bool {
        self.pattern.matches(address)
    }
}

impl PartialEq for AddressPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for AddressPattern {}
