//! The options of every command that changes the configuration, and how its outcome is told.

use std::io::Write as _;

use mailroot_common::control::{ConfigTrouble, Edited, Kind, Problem, Terms};
use mailroot_common::units::Span;

use crate::io_problem;
use crate::output::escape;
use crate::tool::{Tool, stdout};

/// Options of every change of the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct TermOptions {
    /// Check everything, show what would change, and change nothing.
    #[arg(long, help_heading = "Options")]
    pub(crate) dry_run: bool,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", help_heading = "Options")]
    pub(crate) message: Option<String>,
    /// Change nothing unless this revision is the newest.
    #[arg(long, value_name = "N", help_heading = "Options")]
    pub(crate) expect_revision: Option<u64>,
    /// Take the change back after SPAN, unless "config confirm" was said.
    #[arg(long = "try", value_name = "SPAN", help_heading = "Options")]
    pub(crate) trial: Option<String>,
}

impl TermOptions {
    /// `path` with the terms in its query.
    pub(crate) fn on(&self, path: &str) -> Result<String, Problem> {
        let seconds = |text: &String| {
            let span = Span::parse(text)
                .map_err(|error| Problem::new("config", Kind::Usage, format!("--try: {error}")))?;
            Ok::<_, Problem>(span.as_duration().as_secs())
        };
        let terms = Terms {
            dry_run: self.dry_run,
            message: self.message.clone(),
            expect: self.expect_revision,
            trial: self.trial.as_ref().map(seconds).transpose()?,
        };
        Ok(format!("{path}{}", terms.to_query()))
    }
}

/// Tells what became of a change: the lines that would change after a trial run, else what did.
pub(crate) fn report(tool: &Tool, edited: &Edited) -> Result<u8, Problem> {
    for warning in &edited.warnings {
        tool.note(&escape(&place(warning)));
    }
    if edited.dry_run {
        if !tool.print_data(edited)? {
            let text: String = edited.diff.lines().map(|line| escape(line) + "\n").collect();
            stdout().write_all(text.as_bytes()).map_err(io_problem)?;
        }
        tool.note(if edited.changed {
            "valid; nothing was changed (dry run)"
        } else {
            "valid; nothing would change"
        });
        return Ok(0);
    }
    let mut words: Vec<String> = match edited.changes.as_slice() {
        [] if edited.changed => vec![format!("done (revision {})", edited.revision)],
        [] => vec!["unchanged".to_owned()],
        changes => {
            let mut words: Vec<String> = changes.iter().map(|change| escape(change)).collect();
            if let Some(last) = words.last_mut() {
                last.push_str(&format!(" (revision {})", edited.revision));
            }
            words
        }
    };
    if let Some(until) = edited.reverts_at {
        words.push(format!("on trial until {until}; keep it with: smtpctl config confirm"));
    }
    tool.say_done(edited, &words.join("\n"))?;
    if edited.troubles.is_empty() {
        return Ok(0);
    }
    let detail = "written, but not all of it could be put in force";
    Err(Problem::new("config", Kind::Partly, detail).items(&edited.troubles))
}

/// A warning in one line, with its place where it has one.
pub(crate) fn place(warning: &ConfigTrouble) -> String {
    match warning.file.as_str() {
        "" => warning.message.clone(),
        file => format!("{file}:{}: {}", warning.line, warning.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_stand_behind_the_path() {
        let options = TermOptions {
            trial: Some("2m".to_owned()),
            message: Some("x".to_owned()),
            ..TermOptions::default()
        };
        assert_eq!(options.on("/v1/config").unwrap(), "/v1/config?message=x&trial=120");
        let bare = TermOptions { trial: Some("2".to_owned()), ..TermOptions::default() };
        assert_eq!(bare.on("/v1/config").unwrap_err().exit, 2);
    }
}
