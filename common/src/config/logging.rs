//! `logging:` - where the log goes and how it is written.

use std::path::PathBuf;

use super::choice::choice;
use super::section::section;

section! {
    /// The log of what happens to mail, sessions and the service.
    pub struct Logging {
        /// Where lines go. Under systemd standard output is the journal.
        target: Target = Target::Stdout, Target::Stdout;
        /// How a line is written. In a file each begins with its moment.
        format: Format = Format::Logfmt, Format::Logfmt;
        /// The least important lines that are written.
        level: Level = Level::Info, Level::Info;
        /// The file, where target is file. It is opened anew on reload, and by smtpctl logs reopen.
        file: Option<PathBuf> = None, None;
    }
}

choice! {
    /// Where lines go.
    pub enum Target {
        /// Standard output.
        Stdout = "stdout",
        /// The file named by logging.file.
        File = "file",
    }
}

choice! {
    /// How a line is written.
    pub enum Format {
        /// `key=value` pairs.
        Logfmt = "logfmt",
        /// One JSON object per line.
        Json = "json",
    }
}

choice! {
    /// How important a line is.
    pub enum Level {
        /// Something is broken.
        Error = "error",
        /// Something needs a look.
        Warn = "warn",
        /// What happened to mail.
        Info = "info",
        /// Every step.
        Debug = "debug",
    }
}
