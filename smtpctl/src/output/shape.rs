//! The wishes of `-o`, `--columns`, `--no-headers`, `--sort`, `--limit`, `--time` and `--utc`.

use std::str::FromStr;

use mailroot_common::units::Timestamp;

use super::{Column, Row, Show, TimeForm};

/// The value of `-o`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// Columns for people.
    #[default]
    Table,
    /// More columns for people.
    Wide,
    /// Values separated by tabs, no header, nothing cut.
    Plain,
    /// One array, or one object.
    Json,
    /// One object per line.
    Jsonl,
    /// One document.
    Yaml,
    /// RFC 4180, with a header.
    Csv,
    /// Ids only.
    Name,
    /// A text with `{column}` in it.
    Template(String),
    /// The line of a plug-in of Nagios; `doctor` alone has it.
    Nagios,
}

/// Wishes that cannot be met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormError {
    /// No such form.
    #[error(
        "{0:?} is not a form: table, wide, plain, json, jsonl, yaml, csv, name or template=TEXT"
    )]
    Unknown(String),
    /// No such column.
    #[error("there is no column {name:?}; there are {known}")]
    Column {
        /// What was asked for.
        name: String,
        /// What could be.
        known: String,
    },
    /// A brace without its partner.
    #[error("the template {0:?} has a brace without its partner; a plain brace is written twice")]
    Brace(String),
}

impl FromStr for Form {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        Ok(match text {
            "table" => Self::Table,
            "wide" => Self::Wide,
            "plain" => Self::Plain,
            "json" => Self::Json,
            "jsonl" => Self::Jsonl,
            "yaml" => Self::Yaml,
            "csv" => Self::Csv,
            "name" => Self::Name,
            "nagios" => Self::Nagios,
            _ => match text.strip_prefix("template=") {
                Some(template) => Self::Template(template.to_owned()),
                None => return Err(FormError::Unknown(text.to_owned())),
            },
        })
    }
}

/// Everything that is wished of the output.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    /// The form.
    pub(crate) form: Form,
    /// `a,b`, `+c`, `-d`.
    pub(crate) columns: Option<String>,
    /// No header in tables and CSV.
    pub(crate) no_headers: bool,
    /// A column, with `-` before it for the other way round.
    pub(crate) sort: Option<String>,
    /// At most so many rows.
    pub(crate) limit: Option<u64>,
    /// How moments are written.
    pub(crate) time: TimeForm,
    /// Moments in UTC.
    pub(crate) utc: bool,
    /// The terminal's width, if standard output is one.
    pub(crate) width: Option<u16>,
    /// Whether words of states have their colour.
    pub(crate) colour: bool,
    /// The moment that ages are counted to.
    pub(crate) now: Timestamp,
}

impl Shape {
    /// The columns to show.
    ///
    /// # Errors
    ///
    /// [`FormError::Column`].
    pub(crate) fn choose<T: Row>(&self) -> Result<Vec<&'static Column<T>>, FormError> {
        let wide = matches!(self.form, Form::Wide | Form::Csv);
        let usual = |column: &&'static Column<T>| match column.show {
            Show::Always => true,
            Show::Wide => wide,
            Show::Asked => false,
        };
        let mut chosen: Vec<_> = T::COLUMNS.iter().filter(usual).collect();
        let Some(wish) = &self.columns else {
            return Ok(chosen);
        };
        let mut words = wish.split(',').map(str::trim).filter(|word| !word.is_empty()).peekable();
        if words.peek().is_some_and(|word| !word.starts_with(['+', '-'])) {
            chosen.clear();
        }
        for word in words {
            let column = find::<T>(word.trim_start_matches(['+', '-']))?;
            chosen.retain(|other| other.name != column.name);
            if !word.starts_with('-') {
                chosen.push(column);
            }
        }
        Ok(chosen)
    }

    /// The column to sort by, and whether the other way round.
    ///
    /// # Errors
    ///
    /// [`FormError::Column`].
    pub(crate) fn order<T: Row>(&self) -> Result<Option<(&'static Column<T>, bool)>, FormError> {
        let Some(wish) = &self.sort else {
            return Ok(None);
        };
        let name = wish.strip_prefix('-');
        Ok(Some((find::<T>(name.unwrap_or(wish))?, name.is_some())))
    }
}

/// The column of this name.
///
/// # Errors
///
/// [`FormError::Column`].
pub(super) fn find<T: Row>(name: &str) -> Result<&'static Column<T>, FormError> {
    T::COLUMNS.iter().find(|column| column.name == name).ok_or_else(|| {
        let known: Vec<_> = T::COLUMNS.iter().map(|column| column.name).collect();
        FormError::Column { name: name.to_owned(), known: known.join(", ") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_by_name() {
        assert_eq!("jsonl".parse(), Ok(Form::Jsonl));
        assert_eq!("template={id}".parse(), Ok(Form::Template("{id}".to_owned())));
        assert!("JSON".parse::<Form>().is_err());
        assert!("template".parse::<Form>().is_err());
    }
}
