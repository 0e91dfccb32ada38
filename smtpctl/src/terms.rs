//! The options of every command that changes the configuration, and how its outcome is told.

use std::io::Write as _;

use mailroot_common::control::{ConfigTrouble, Different, Edited, Kind, Problem, Replay, Terms};
use mailroot_common::units::Span;

use crate::io_problem;
use crate::output::{Shape, escape, human_span};
use crate::tool::{Tool, stdout};

/// Options of every change of the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct TermOptions {
    /// Check everything, show what would change, and what of the mail of late would have come out
    /// differently; change nothing.
    #[arg(long, visible_alias = "preview", help_heading = "Options")]
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
            let replay = edited.replay.as_ref().map(|replay| told(replay, &tool.shape));
            let text = text + &replay.unwrap_or_default();
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

/// How mail of late would have fared.
fn told(replay: &Replay, shape: &Shape) -> String {
    let Some(since) = replay.since else { return String::new() };
    let (events, age) = (replay.events, human_span(shape.now.since(since)));
    if replay.different.is_empty() {
        return format!("None of {events} recent decisions ({age}) would come out differently.\n");
    }
    let mut text =
        format!("Of {events} recent decisions ({age}) these would come out differently:\n");
    for it in &replay.different {
        let from = it.from.as_deref().map(|from| if from.is_empty() { "<>" } else { from });
        let ends = [it.client.as_deref(), from, it.to.as_deref()];
        let ends: Vec<&str> = ends.into_iter().flatten().collect();
        let who = if ends.is_empty() { String::new() } else { format!("{}: ", ends.join(" -> ")) };
        let Different { server, decision, count, old, new, .. } = it;
        let line = format!("{count:>7} x  {server}  {decision}  {who}{old} -> {new}");
        text.push_str(&format!("{}\n", escape(&line)));
    }
    if replay.more > 0 {
        text.push_str(&format!("{} more\n", replay.more));
    }
    text
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
    use mailroot_common::units::Timestamp;

    use super::*;

    #[test]
    fn what_would_come_out_differently_is_told_a_line_each() {
        let now = Timestamp::from_millis(7_200_000);
        let shape = Shape { now, ..Shape::default() };
        let mut replay =
            Replay { events: 9, since: Some(Timestamp::default()), ..Replay::default() };
        assert_eq!(
            told(&replay, &shape),
            "None of 9 recent decisions (2h) would come out differently.\n"
        );
        replay.different.push(Different {
            server: "default".to_owned(),
            decision: "relay".to_owned(),
            client: Some("10.1.0.7".to_owned()),
            to: Some("al@far.example".to_owned()),
            from: None,
            old: "allowed by relay list 10.1.0.0/16".to_owned(),
            new: "refused by relay list: no entry matches".to_owned(),
            count: 3,
            last: now,
        });
        replay.more = 2;
        assert_eq!(
            told(&replay, &shape),
            "Of 9 recent decisions (2h) these would come out differently:\n      \
             3 x  default  relay  10.1.0.7 -> al@far.example: allowed by relay list 10.1.0.0/16 \
             -> refused by relay list: no entry matches\n2 more\n"
        );
        assert_eq!(told(&Replay::default(), &shape), "");
    }

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
