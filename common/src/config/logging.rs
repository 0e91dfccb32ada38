//! `logging:` - where the log goes and how it is written.

use std::path::PathBuf;

use super::choice::choice;
use super::place::PathOrOff;
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
        /// What lines show of the addresses of senders and recipients, in every form, and in the words of other
        /// hosts as well. Message-IDs are no addresses. See Addresses in the log.
        addresses: Addresses = Addresses::Full, Addresses::Full;
        /// A directory for log files in the W3C extended format, as the original wrote them; off is none. See W3C
        /// log files. It is independent of the keys above but for addresses.
        w3c: PathOrOff = PathOrOff::Off, PathOrOff::Off;
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
        /// Lines of Postfix, for programs that read those, such as pflogsumm.
        Postfix = "postfix",
    }
}

choice! {
    /// What is shown of addresses.
    pub enum Addresses {
        /// All of them.
        Full = "full",
        /// A digest, always the same for one address, and the domain.
        Hashed = "hashed",
        /// The domain.
        DomainOnly = "domain-only",
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
