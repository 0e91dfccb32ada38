//! `service:` - the machine's name, the spool and the process.

use std::path::PathBuf;

use super::place::PathOrOff;
use super::section::section;
use super::value::Auto;
use crate::address::Domain;
use crate::units::ByteSize;

section! {
    /// What all virtual servers share.
    pub struct Service {
        /// The name of this machine in greetings, EHLO, Received and reports.
        hostname: Option<Domain> = None, None, shown "this machine's full name";
        /// The directory below which every virtual server has its mail root.
        store: Option<PathBuf> = None, None, shown "/var/spool/mailroot";
        /// The file of aliases: who gets mail for the names of this machine, at every local domain of
        /// every virtual server. It is read anew when it has changed, and need not be there. off means
        /// that nobody has an alias.
        aliases: Option<PathOrOff> = None, None, shown "/etc/aliases";
        /// The file that names the domain of addresses without one in mail of programs on this machine,
        /// such as root. It is read anew when it has changed. The domain counts as an alias of the default
        /// domain where the server has no entry for it. Without the file, and with off, such addresses
        /// get the default domain itself.
        mailname: Option<PathOrOff> = None, None, shown "/etc/mailname";
        /// Threads for sessions; auto means one for each processor.
        threads: Auto = Auto::Auto, Auto::Auto, in 1..=1024;
        /// While the spool has less room than this, new mail is refused with 452.
        min_free: ByteSize = ByteSize::mib(512), ByteSize::mib(512),
            in ByteSize::mib(1)..=ByteSize::gib(1 << 20);
    }
}
