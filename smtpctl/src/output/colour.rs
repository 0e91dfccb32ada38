//! Colour by meaning. The word is always there; colour only helps to find it.

use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};

/// The value of `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Whatever the output is.
    Always,
    /// Nowhere.
    Never,
}

impl When {
    /// Whether standard output gets colour.
    pub(crate) fn applies(self) -> bool {
        let variable = |name| std::env::var_os(name).unwrap_or_default();
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                std::io::stdout().is_terminal()
                    && variable("NO_COLOR").is_empty()
                    && variable("TERM") != "dumb"
            }
        }
    }
}

/// What a state means to whoever looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// As it should be.
    Good,
    /// Somebody should know.
    Attention,
    /// Something does not work.
    Bad,
}

impl Meaning {
    /// The meaning of a state's word; most have none.
    #[must_use]
    pub(crate) fn of(word: &str) -> Option<Self> {
        Some(match word {
            "running" | "active" | "ok" | "up" | "delivered" | "dropped" | "resolved" => Self::Good,
            "paused" | "held" | "retry" | "deferred" | "in_doubt" | "backoff" | "degraded"
            | "needs attention" | "starting" | "stopping" | "warn" | "warning" => Self::Attention,
            "stopped" | "down" | "fail" | "bounced" | "expired" | "badmail" => Self::Bad,
            _ => return None,
        })
    }

    const fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Attention => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// A state's word, in its colour if that is wished.
#[must_use]
pub(crate) fn painted(word: &str, colour: bool) -> String {
    match Meaning::of(word).filter(|_| colour) {
        Some(meaning) => format!("{0}{word}{0:#}", meaning.style()),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_standing_within_their_colour() {
        assert_eq!(painted("running", true), "\u{1b}[32mrunning\u{1b}[0m");
        assert_eq!(painted("running", false), "running");
        assert_eq!(painted("queued", true), "queued");
    }
}
