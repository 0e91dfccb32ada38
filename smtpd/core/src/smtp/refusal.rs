//! Every "no" we ever say to a client: reason, code, enhanced code and words, in one table.
//!
//! The words go to strangers, so they say what to do and nothing about our disk or our rules. The
//! reason is the word of the log (`reason=relay-denied`) and never changes its spelling.

use mailroot_common::status::{EnhancedCode, ReplyCode};

use crate::policy::Reason;

/// Defines the refusals once.
macro_rules! refusals {
    ($($(#[doc = $doc:literal])* $name:ident: $code:literal $class:ident $subject:literal $detail:literal,
       $after:ident, $reason:literal, $words:literal;)*) => {
        /// Why we say no.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[doc = $doc])* $name,)*
        }

        impl Refusal {
            /// Every refusal, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reply code.
            #[must_use]
            pub const fn code(self) -> ReplyCode {
                match self { $(Self::$name => ReplyCode::new($code),)* }
            }

            /// The enhanced status code (RFC 3463).
            #[must_use]
            pub const fn enhanced(self) -> EnhancedCode {
                match self { $(Self::$name => EnhancedCode::$class($subject, $detail),)* }
            }

            /// What becomes of the session.
            #[must_use]
            pub const fn after(self) -> After {
                match self { $(Self::$name => After::$after,)* }
            }

            /// The word of the log.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$name => $reason,)* }
            }

            /// What the client reads after the codes.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self { $(Self::$name => $words,)* }
            }
        }
    };
}

/// What becomes of a session after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It goes on, and this counts as an error of the client.
    Error,
    /// It goes on; the client did nothing wrong.
    GoOn,
    /// It is closed: a limit was met, or it is not known what the next octets mean.
    Close,
}

refusals! {
    // Lines and commands.
    /// A CR or LF stood alone in a command.
    BareLineEndInCommand: 500 permanent 5 2, Close, "bare-line-end",
        "a line ends with CR LF; closing";
    /// A command line was longer than the limit.
    LineTooLong: 500 permanent 5 2, Error, "line-too-long", "line too long";
    /// A NUL or another octet that no command has.
    BadOctet: 500 permanent 5 2, Error, "bad-octet", "command has an octet that is not allowed";
    /// A verb nobody knows.
    UnknownCommand: 500 permanent 5 1, Error, "unknown-command", "command not known; try HELP";
    /// A request of another protocol, such as HTTP.
    OtherProtocol: 500 permanent 5 1, Close, "other-protocol", "this is SMTP; closing";
    /// A verb of SMTP that we do not offer.
    NotOffered: 502 permanent 5 1, Error, "not-offered", "command not offered";
    /// The command breaks the grammar.
    Syntax: 501 permanent 5 2, Error, "syntax", "syntax error";
    /// The verb takes no argument.
    NoArgument: 501 permanent 5 4, Error, "argument", "this command takes no argument";
    /// The verb needs an argument.
    ArgumentMissing: 501 permanent 5 4, Error, "argument", "this command needs an argument";
    /// HELO or EHLO without a usable name.
    BadHello: 501 permanent 5 4, Error, "bad-hello", "give one host name or address literal";
    /// ETRN with neither a domain nor a queue.
    BadNode: 501 permanent 5 4, Error, "bad-node", "give a domain, @domain or #queue";
    /// ATRN with something other than domains (RFC 2645 section 5.2).
    BadDomains: 501 permanent 5 4, Error, "bad-node", "give domains with commas between, or none";
    /// MAIL FROM with a bad address.
    BadSender: 501 permanent 1 7, Error, "bad-sender-address", "sender address has bad syntax";
    /// RCPT TO with a bad address.
    BadRecipient: 501 permanent 1 3, Error, "bad-recipient-address",
        "recipient address has bad syntax";
    /// An address beyond ASCII without SMTPUTF8 (RFC 6531 section 3.5).
    NeedsSmtpUtf8: 553 permanent 6 7, Error, "needs-smtputf8",
        "address beyond ASCII needs SMTPUTF8 with MAIL";
    /// A parameter we do not know or do not offer.
    UnknownParameter: 555 permanent 5 4, Error, "unknown-parameter", "parameter not known";
    /// A parameter that came twice.
    DuplicateParameter: 501 permanent 5 4, Error, "duplicate-parameter", "parameter given twice";
    /// A parameter with a bad value.
    BadParameter: 501 permanent 5 4, Error, "bad-parameter", "parameter has a bad value";
    /// HOLDFOR or HOLDUNTIL with a moment that is past or too far away (RFC 4865).
    BadRelease: 501 permanent 5 4, Error, "bad-release",
        "that moment is past, or later than mail is held here";
    /// HOLDFOR or HOLDUNTIL with a moment that comes after the time of BY (RFC 4865 section 5.2.2).
    ReleaseTooLate: 501 permanent 5 4, Error, "bad-release",
        "the message would be sent only when the time of BY is up";
    /// BY that would have the message returned sooner than it may be (RFC 2852 section 4).
    BadDeadline: 555 permanent 5 4, Error, "bad-deadline",
        "mail that is to come back so soon is not taken; EHLO tells how many seconds it must have";
    /// BDAT whose size cannot be read: what follows cannot be told from commands.
    BadChunkSize: 501 permanent 5 4, Close, "bad-chunk-size",
        "BDAT needs a size in octets and may have LAST; closing";
    /// BDAT with more octets than we would ever swallow.
    ChunkTooLarge: 552 permanent 3 4, Close, "size", "chunk too large; closing";

    // Order.
    /// MAIL before HELO or EHLO.
    HelloFirst: 503 permanent 5 1, Error, "out-of-order", "send HELO or EHLO first";
    /// RCPT, DATA or BDAT before MAIL.
    MailFirst: 503 permanent 5 1, Error, "out-of-order", "send MAIL first";
    /// DATA or BDAT before RCPT.
    RecipientFirst: 503 permanent 5 1, Error, "out-of-order", "send RCPT first";
    /// A second MAIL in a transaction.
    MailTwice: 503 permanent 5 1, Error, "out-of-order", "a sender was given already; send RSET";
    /// A command that may not stand within a transaction.
    TransactionOpen: 503 permanent 5 1, Error, "out-of-order",
        "not between MAIL and the message; send RSET";
    /// Something other than BDAT, RSET, NOOP or QUIT between chunks.
    ChunksPending: 503 permanent 5 1, Error, "out-of-order", "BDAT or RSET must follow BDAT";
    /// DATA for a body declared as BINARYMIME (RFC 3030 section 3).
    BinaryNeedsBdat: 503 permanent 5 1, Error, "out-of-order", "BINARYMIME needs BDAT";
    /// DATA after all recipients were refused.
    NoValidRecipients: 554 permanent 5 1, Error, "no-valid-recipients", "no valid recipients";

    // TLS.
    /// Octets came behind STARTTLS before the answer: they may be somebody else's.
    OctetsBehindStartTls: 503 permanent 5 1, Close, "octets-behind-starttls",
        "wait for the answer to STARTTLS; closing";
    /// STARTTLS within TLS.
    TlsActive: 503 permanent 5 1, Error, "out-of-order", "TLS is active already";
    /// Mail before STARTTLS where that is required (RFC 3207 section 4).
    TlsRequired: 530 permanent 7 0, Error, "tls-required", "send STARTTLS first";
    /// There is no certificate at this moment (RFC 3207 section 4).
    TlsUnavailable: 454 transient 7 0, GoOn, "tls-unavailable", "TLS is not available now";

    // Logins (RFC 4954 sections 4 and 6).
    /// A mechanism that we do not have or do not offer.
    MechanismUnknown: 504 permanent 5 4, Error, "mechanism-unknown", "mechanism not offered";
    /// AUTH in clear text where that is not wanted.
    LoginNeedsTls: 538 permanent 7 11, Error, "login-needs-tls", "send STARTTLS before AUTH";
    /// AUTH after a login.
    LoginTwice: 503 permanent 5 1, Error, "out-of-order", "a login was made already";
    /// The client took its login back.
    LoginCancelled: 501 permanent 7 0, Error, "login-cancelled", "login cancelled";
    /// What the client said within AUTH is not base64, or not what the mechanism wants.
    BadResponse: 501 permanent 5 2, Error, "bad-login", "the login cannot be read";
    /// A line within AUTH was longer than the limit.
    ResponseTooLong: 500 permanent 5 6, Error, "line-too-long", "line of the login too long";
    /// Wrong, for whatever reason: there is no user of the name, or another password.
    LoginFailed: 535 permanent 7 8, Error, "login-failed", "name or password is wrong";
    /// The login is bound to another connection, or was kept from being bound to this one (RFC 5802
    /// section 6).
    ChannelDiffers: 535 permanent 7 8, Error, "channel-differs",
        "the login is not bound to this connection";
    /// Logins cannot be judged at this moment.
    LoginUnavailable: 454 transient 7 0, GoOn, "login-unavailable",
        "cannot judge logins now; try again later";
    /// More wrong logins than `access.auth_failures.max`.
    TooManyLogins: 421 transient 7 0, Close, "too-many-logins", "too many wrong logins; closing";
    /// The user may send as other addresses only.
    SenderNotAllowed: 553 permanent 7 1, Error, "sender-not-allowed",
        "you may not send as this address";

    // Who may do what.
    /// The client may not connect.
    AccessDenied: 554 permanent 7 1, Close, "access-denied", "access denied";
    /// The client must log in before it may send.
    AuthenticationRequired: 530 permanent 7 0, Error, "authentication-required",
        "authentication required";
    /// The client may not send to this domain.
    RelayDenied: 550 permanent 7 1, Error, "relay-denied", "relaying is not allowed";
    /// The directory knows no such recipient in a domain of ours.
    UnknownRecipient: 550 permanent 1 1, Error, "unknown-recipient", "no such recipient here";
    /// No directory says whether there is such a recipient (RFC 3463 section 3.5, X.4.3).
    DirectoryUnavailable: 451 transient 4 3, GoOn, "directory-unavailable",
        "cannot look the recipient up now; try again later";
    /// ETRN for mail that is not held, or not for this client (RFC 1985 section 5.3).
    NodeNotAllowed: 459 transient 7 1, Error, "etrn-denied", "not allowed to ask for this mail";
    /// ATRN or TURN for mail that the user may not fetch (RFC 2645 section 5.2.1).
    FetchDenied: 450 transient 7 1, Error, "fetch-denied", "not allowed to fetch this mail";
    /// Another session fetches the same mail.
    FetchBusy: 450 transient 3 2, GoOn, "fetch-busy",
        "this mail is being fetched already; try again later";
    /// It is not known yet what waits.
    FetchUnavailable: 451 transient 3 2, GoOn, "fetch-unavailable",
        "cannot tell yet which mail waits; try again later";
    /// There is none.
    NoMailWaits: 453 transient 2 0, GoOn, "no-mail-waits", "no mail waits for you";
    /// Octets came behind ATRN or TURN before the answer: by then the other side speaks.
    OctetsBehindReversal: 503 permanent 5 1, Close, "octets-behind-reversal",
        "wait for the answer before you go on; closing";
    /// What the decision needs could not be looked up.
    PolicyUnavailable: 451 transient 7 0, GoOn, "policy-unavailable",
        "cannot decide now; try again later";

    /// The same before the greeting, where only 421 and 554 may be said.
    ConnectUnavailable: 421 transient 7 0, Close, "policy-unavailable",
        "cannot decide now; try again later";

    // Sizes and counts.
    /// The message is larger than `messages.max_size`.
    TooLarge: 552 permanent 3 4, GoOn, "size", "message larger than this server takes";
    /// The session carried more than `messages.max_session_size`.
    SessionTooLarge: 421 transient 3 4, Close, "session-size",
        "session carried as much as is allowed; open a new one";
    /// More recipients than `messages.max_recipients`.
    TooManyRecipients: 452 transient 5 3, GoOn, "recipients",
        "too many recipients; send the message again for the others";
    /// More recipients, or messages, than the quota of the user or of the client.
    QuotaReached: 450 transient 7 1, GoOn, "quota",
        "you have sent as much as you may for now; try again later";
    /// More errors than `general.max_errors`.
    TooManyErrors: 421 transient 7 0, Close, "too-many-errors", "too many errors; closing";
    /// More commands that carry no mail than `limits.idle_commands`.
    TooManyCommands: 421 transient 7 0, Close, "too-many-commands",
        "too many commands without mail; closing";
    /// All connections are in use.
    TooManyConnections: 421 transient 3 2, Close, "connections",
        "too many connections; try again later";
    /// This client has as many connections as one may have.
    TooManyFromClient: 421 transient 7 0, Close, "connections-per-client",
        "too many connections from your address; try again later";
    /// This client has connected as often as one may (`access.quota.connections`).
    ConnectsTooOften: 421 transient 7 0, Close, "connection-rate",
        "too many connections from your address of late; try again later";

    // The message itself.
    /// A CR or LF stood alone in the message (RFC 5321 section 2.3.8).
    BareLineEnd: 550 permanent 6 0, Close, "bare-line-end",
        "message has a bare CR or LF; lines end with CR LF; closing";
    /// The same within BDAT, where the end of the message is beyond doubt.
    BareLineEndInChunk: 550 permanent 6 0, Error, "bare-line-end",
        "message has a bare CR or LF and was not declared BINARYMIME";
    /// A NUL in a message that is not BINARYMIME (RFC 2045 section 2.8).
    NulInMessage: 550 permanent 6 0, Error, "nul",
        "message has a NUL octet and was not declared BINARYMIME";
    /// A line of the message is longer than the limit.
    MessageLineTooLong: 550 permanent 6 0, Error, "message-line-too-long",
        "message has a line that is too long";
    /// The header is larger than the limit.
    HeaderTooLarge: 552 permanent 3 4, Error, "header-too-large", "message header too large";
    /// More Received fields than `delivery.max_hops`.
    TooManyHops: 554 permanent 4 6, Error, "hops", "too many hops: the message is in a loop";
    /// Envelope and outcomes of the message would not fit into one record of the queue.
    EnvelopeTooLarge: 552 permanent 3 4, GoOn, "envelope-too-large",
        "the message has more recipients than this server can record; send it to fewer at once";
    /// SPF says that the client may not send for the sender's domain (RFC 7208 section 8.4, RFC 7372).
    SpfFailed: 550 permanent 7 23, Error, "spf-failed",
        "the sender's domain says in DNS that your address may not send for it (SPF)";
    /// The domain in From wants mail refused that nobody vouches for (RFC 7489, RFC 7372).
    DmarcFailed: 550 permanent 7 26, Error, "dmarc-failed",
        "neither SPF nor DKIM vouches for the domain in From, which wants such mail refused (DMARC)";
    /// DMARC refuses mail, and there is no author to ask about (RFC 7489 section 6.6.1).
    AuthorUnreadable: 550 permanent 7 1, Error, "author-unreadable",
        "From must name one author whose address can be read: without one nobody can vouch for it (DMARC)";
    /// A recipient is an alias that stands for more addresses than one may.
    AliasTooLarge: 451 transient 3 5, GoOn, "alias-too-large",
        "an alias leads to too many addresses; try again later";

    // Filters.
    /// A milter refuses it.
    FilterRefused: 550 permanent 7 1, GoOn, "filter-refused", "refused by a filter of this server";
    /// A milter puts it off.
    FilterDeferred: 451 transient 7 1, GoOn, "filter-deferred",
        "put off by a filter of this server; try again later";
    /// A milter cannot be heard, and its entry says that mail waits for it.
    FilterUnavailable: 451 transient 7 1, GoOn, "filter-unavailable",
        "cannot look at mail now; try again later";
    /// A milter wants the session ended.
    FilterClosed: 421 transient 7 0, Close, "filter-closed", "closing; try again later";

    // Our own state.
    /// Less room on disk than `store.min_free`.
    StorageFull: 452 transient 3 1, GoOn, "store-full", "not enough room; try again later";
    /// The message could not be made durable, or something else of ours is broken.
    LocalTrouble: 451 transient 3 0, GoOn, "local-trouble", "local trouble; try again later";
    /// The virtual server stops, is paused, or an operator ended the session.
    Stopping: 421 transient 3 2, Close, "stopping", "service not available now; closing";
    /// A fault of ours in this session.
    Fault: 421 transient 3 0, Close, "fault", "local trouble; closing";
    /// Nothing came for `general.idle_timeout`.
    Idle: 421 transient 4 2, Close, "idle", "nothing came for too long; closing";
    /// The session lasted longer than `general.max_session_time`.
    SessionTooLong: 421 transient 4 2, Close, "session-time",
        "session lasted as long as is allowed; closing";
    /// The message came more slowly than `limits.min_rate`.
    TooSlow: 421 transient 4 2, Close, "too-slow", "message comes too slowly; closing";
}

/// What a client is told when policy turns it away.
impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::AccessDenied => Self::AccessDenied,
            Reason::RelayDenied => Self::RelayDenied,
            Reason::NameUnknown => Self::PolicyUnavailable,
            Reason::TooManyConnections => Self::TooManyConnections,
            Reason::TooManyFromClient => Self::TooManyFromClient,
            Reason::AnonymousForbidden => Self::AuthenticationRequired,
        }
    }
}

impl Refusal {
    /// Appends the reply, CRLF included.
    pub fn write(self, out: &mut Vec<u8>) {
        self.write_about(None, out);
    }

    /// Appends the reply with what it is about (an address, a keyword) in front of the words.
    /// Anything but printable ASCII in `about` is left out, so that a reply is one line.
    pub fn write_about(self, about: Option<&str>, out: &mut Vec<u8>) {
        use std::io::Write;
        let written = write!(out, "{} {} ", self.code(), self.enhanced());
        debug_assert!(written.is_ok(), "writing into a Vec cannot fail");
        if let Some(about) = about.filter(|text| !text.is_empty() && text.len() <= ABOUT_MAX) {
            out.extend(about.bytes().filter(|o| (b' '..=b'~').contains(o)));
            out.extend_from_slice(b": ");
        }
        out.extend_from_slice(self.words().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// A reply line has 512 octets (RFC 5321 section 4.5.3.1.5); longer addresses are not repeated.
const ABOUT_MAX: usize = 340;

#[cfg(test)]
mod tests {
    use mailroot_common::status::Class;

    use super::*;

    #[test]
    fn codes_of_a_refusal_agree_with_each_other() {
        for &refusal in Refusal::ALL {
            assert_ne!(refusal.code().class(), Class::Success, "{refusal:?}");
            assert_eq!(refusal.code().class(), refusal.enhanced().class(), "{refusal:?}");
            if refusal.code().as_u16() == 421 {
                assert_eq!(refusal.after(), After::Close, "{refusal:?}: RFC 5321 section 3.8");
            }
        }
    }

    #[test]
    fn every_reply_is_one_short_line_of_printable_text() {
        for &refusal in Refusal::ALL {
            let mut out = Vec::new();
            refusal.write_about(Some(&"a\r\n\u{7f}é".repeat(60)), &mut out);
            let line = out.strip_suffix(b"\r\n").unwrap();
            assert!(line.iter().all(|o| (b' '..=b'~').contains(o)), "{refusal:?}");
            assert!(out.len() <= 512, "{refusal:?}");
            let reason = refusal.reason();
            assert!(
                reason.bytes().all(|o| o.is_ascii_lowercase() || o == b'-' || o.is_ascii_digit())
            );
        }
    }

    #[test]
    fn a_reply_names_what_it_is_about() {
        let mut out = Vec::new();
        Refusal::RelayDenied.write_about(Some("<a@b.example>"), &mut out);
        assert_eq!(out, b"550 5.7.1 <a@b.example>: relaying is not allowed\r\n");
    }
}
