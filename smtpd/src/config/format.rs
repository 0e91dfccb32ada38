//! All files in their usual form, as one change.

use std::sync::Arc;

use mailroot_common::config::{Source, yaml};

use super::apply::{Change, Editor};
use super::error::EditError;
use super::load::Failed;

impl Editor {
    /// Gives all files their usual form. No value changes, and no comment.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn format(&self) -> Result<Change, EditError> {
        let open = self.begin()?;
        let mut files = open.before.files.clone();
        let all = std::iter::once(&mut files.service).chain(files.servers.values_mut());
        for (path, text) in all {
            let (name, old) = (path.display().to_string(), text.clone());
            let formatted = yaml::format(&Arc::new(Source { name, text: old }));
            let new =
                formatted.map_err(|diagnostics| EditError::Refused(Failed { diagnostics }))?;
            if new != *text {
                *text = self.edit_file(path, text, |_| Ok(new))?;
            }
        }
        self.validate(open, files)
    }
}
