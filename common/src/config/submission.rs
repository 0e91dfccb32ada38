//! `submission:` - the submit socket, by which programs of this machine hand in mail.

use super::choice::choice;
use super::control::Person;
use super::name::ServerName;
use super::section::section;

section! {
    /// The socket that sendmail and other programs of this machine hand mail in by. Who they are is
    /// known from the kernel, so that they need no password and may send to anybody.
    pub struct Submission {
        /// Whether mail is taken there.
        enabled: bool = true, true;
        /// The virtual server that takes it.
        server: Option<ServerName> = None, None, shown "default, or the only one there is";
        /// Users, and groups written with a leading %, who may hand in mail; everybody if nobody is
        /// named. Root and the service's own user always may.
        allow: Vec<Person> = Vec::new(), Vec::new(), shown "everybody";
        /// Users and groups who may not, also those that allow names.
        deny: Vec<Person> = Vec::new(), Vec::new();
        /// Which senders users may give: any; own-domain, an address at a local domain of the server;
        /// or login-name, their own login name at such a domain. The null sender is allowed to
        /// everybody, and every sender to root and to the service's own user.
        sender_policy: SenderPolicy = SenderPolicy::Any, SenderPolicy::Any;
        /// Where the user is recorded besides log and trace: header names him in the Received field
        /// as well, for everybody to read.
        record_user: RecordUser = RecordUser::Log, RecordUser::Log;
        /// Connections at the same time.
        max_connections: u32 = 500, 500, in 1..=100_000;
        /// Connections at the same time of one user. Beyond it sendmail waits for a while and tries
        /// again.
        max_connections_per_user: u32 = 250, 250, in 1..=100_000;
    }
}

choice! {
    /// Which senders users may give.
    pub enum SenderPolicy {
        /// Any.
        Any = "any",
        /// Addresses at local domains.
        OwnDomain = "own-domain",
        /// The login name at a local domain.
        LoginName = "login-name",
    }
}

choice! {
    /// Where users are recorded.
    pub enum RecordUser {
        /// In the log and the trace.
        Log = "log",
        /// In the Received field as well.
        Header = "header",
    }
}
