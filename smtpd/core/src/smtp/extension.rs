//! EHLO keywords: those we offer, and those a peer offers us.
//!
//! In: the names of extensions that the configuration allows, or the lines of a peer's EHLO reply.
//! Out: the lines of our EHLO reply, or [`PeerExtensions`]. What a peer writes is read without
//! trust: an unknown or malformed line is one extension less, never an error, so that a strange
//! server still gets its mail in plain SMTP.

use std::fmt;

use mailroot_common::units::{ByteSize, Span, Timestamp};

/// An extension that Mailroot can offer to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Extension {
    /// RFC 2920.
    Pipelining,
    /// RFC 1870.
    Size,
    /// RFC 6152.
    EightBitMime,
    /// RFC 3030; works only together with [`Extension::Chunking`].
    BinaryMime,
    /// RFC 3030.
    Chunking,
    /// RFC 6531; works only together with [`Extension::EightBitMime`].
    SmtpUtf8,
    /// RFC 3461.
    Dsn,
    /// RFC 2034.
    EnhancedStatusCodes,
    /// RFC 9422.
    Limits,
    /// RFC 1985.
    Etrn,
    /// RFC 2645; shown only to sessions that have logged in or may.
    Atrn,
    /// RFC 821 section 3.8; as [`Extension::Atrn`].
    Turn,
    /// RFC 2852.
    DeliverBy,
    /// RFC 4865.
    FutureRelease,
    /// RFC 6710.
    MtPriority,
    /// RFC 8689; shown only under TLS.
    RequireTls,
    /// RFC 5321 section 4.1.1.8; cannot be switched off.
    Help,
}

impl Extension {
    /// All of them, in the order of our EHLO reply.
    pub const ALL: [Self; 17] = [
        Self::Pipelining,
        Self::Size,
        Self::EightBitMime,
        Self::BinaryMime,
        Self::Chunking,
        Self::SmtpUtf8,
        Self::Dsn,
        Self::EnhancedStatusCodes,
        Self::Limits,
        Self::Etrn,
        Self::Atrn,
        Self::Turn,
        Self::DeliverBy,
        Self::FutureRelease,
        Self::MtPriority,
        Self::RequireTls,
        Self::Help,
    ];

    /// The keyword of the EHLO reply and of `general.extensions`.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Pipelining => "PIPELINING",
            Self::Size => "SIZE",
            Self::EightBitMime => "8BITMIME",
            Self::BinaryMime => "BINARYMIME",
            Self::Chunking => "CHUNKING",
            Self::SmtpUtf8 => "SMTPUTF8",
            Self::Dsn => "DSN",
            Self::EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Self::Limits => "LIMITS",
            Self::Etrn => "ETRN",
            Self::Atrn => "ATRN",
            Self::Turn => "TURN",
            Self::DeliverBy => "DELIVERBY",
            Self::FutureRelease => "FUTURERELEASE",
            Self::MtPriority => "MT-PRIORITY",
            Self::RequireTls => "REQUIRETLS",
            Self::Help => "HELP",
        }
    }

    /// The extension with this keyword, in capitals or not.
    #[must_use]
    pub fn named(keyword: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.keyword().eq_ignore_ascii_case(keyword))
    }

    /// The extension this one makes no sense without.
    const fn needs(self) -> Option<Self> {
        match self {
            Self::BinaryMime => Some(Self::Chunking),
            Self::SmtpUtf8 => Some(Self::EightBitMime),
            Self::Pipelining
            | Self::Size
            | Self::EightBitMime
            | Self::Chunking
            | Self::Dsn
            | Self::EnhancedStatusCodes
            | Self::Limits
            | Self::Etrn
            | Self::Atrn
            | Self::Turn
            | Self::DeliverBy
            | Self::FutureRelease
            | Self::MtPriority
            | Self::RequireTls
            | Self::Help => None,
        }
    }
}

/// The set of extensions that a virtual server offers. An extension whose companion is switched
/// off is off as well, so that nothing is offered that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer(u32);

impl Offer {
    /// Everything Mailroot can do.
    #[must_use]
    pub fn all() -> Self {
        Extension::ALL.into_iter().collect()
    }

    /// The same without one extension.
    #[must_use]
    pub fn without(self, extension: Extension) -> Self {
        Self(self.0 & !(1 << extension as u32))
    }

    /// Whether the extension is offered.
    #[must_use]
    pub fn has(self, extension: Extension) -> bool {
        let allowed = |e: Extension| self.0 & (1 << e as u32) != 0;
        allowed(extension) && extension.needs().is_none_or(allowed)
    }

    /// The lines of an EHLO reply after its first, without codes: `SIZE 36700160`, `DSN` and so on.
    pub fn lines(self, bounds: Bounds) -> impl Iterator<Item = EhloLine> {
        let offered = Extension::ALL.into_iter().filter(move |&extension| self.has(extension));
        offered.map(move |extension| EhloLine(extension, bounds))
    }
}

/// The bounds that an EHLO reply tells.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Octets of a message. Without a limit, SIZE has no number (RFC 1870 section 4).
    pub size_max: Option<ByteSize>,
    /// Recipients of a message.
    pub recipients_max: u32,
    /// How long mail may be held back.
    pub release_max: Span,
    /// The least time that mail must have that is to be returned when it is up (RFC 2852 section 2).
    pub deliver_by_min: Span,
    /// The moment of the reply.
    pub now: Timestamp,
}

/// One line of an EHLO reply: an extension with what it says about itself.
#[derive(Clone, Copy, Debug)]
pub struct EhloLine(Extension, Bounds);

impl fmt::Display for EhloLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(extension, bounds) = self;
        f.write_str(extension.keyword())?;
        match (extension, bounds.size_max) {
            (Extension::Size, Some(limit)) => write!(f, " {}", limit.as_u64()),
            (Extension::Limits, _) => write!(f, " RCPTMAX={}", bounds.recipients_max),
            (Extension::FutureRelease, _) => {
                let until = bounds.now.after(bounds.release_max).as_millis() / 1000;
                let until = Timestamp::from_millis(until * 1000).to_string();
                let seconds = bounds.release_max.as_millis() / 1000;
                write!(f, " {seconds} {}", until.replace(".000Z", "Z"))
            }
            (Extension::DeliverBy, _) if bounds.deliver_by_min > Span::ZERO => {
                write!(f, " {}", bounds.deliver_by_min.as_millis() / 1000)
            }
            _ => Ok(()),
        }
    }
}

impl FromIterator<Extension> for Offer {
    fn from_iter<I: IntoIterator<Item = Extension>>(extensions: I) -> Self {
        let always = 1 << Extension::Help as u32;
        Self(extensions.into_iter().fold(always, |bits, extension| bits | 1 << extension as u32))
    }
}

/// What a server said it can do, in its reply to EHLO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerExtensions {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870).
    pub size: PeerSize,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// BINARYMIME (RFC 3030); only together with CHUNKING.
    pub binary_mime: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// ETRN (RFC 1985).
    pub etrn: bool,
    /// ATRN (RFC 2645).
    pub atrn: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// DELIVERBY (RFC 2852): the fewest seconds for which a message is taken that is to be returned
    /// when they have passed; zero where nothing is said.
    pub deliver_by: Option<u32>,
    /// MT-PRIORITY (RFC 6710).
    pub mt_priority: bool,
    /// LIMITS RCPTMAX (RFC 9422): recipients of one transaction.
    pub recipients_max: Option<u32>,
    /// LIMITS MAILMAX (RFC 9422): transactions of one session.
    pub mails_max: Option<u32>,
    /// LIMITS RCPTDOMAINMAX (RFC 9422): different recipient domains of one transaction.
    pub recipient_domains_max: Option<u32>,
    /// Mechanisms of AUTH (RFC 4954), in capitals, in the server's order.
    pub auth: Vec<String>,
}

/// What a server said about the size of messages (RFC 1870).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerSize {
    /// SIZE was not offered; the parameter must not be sent.
    #[default]
    Unknown,
    /// SIZE was offered without a limit.
    Unlimited,
    /// No message may be larger.
    AtMost(ByteSize),
}

impl PeerExtensions {
    /// Mechanisms and words beyond this count are not looked at.
    const WORDS_MAX: usize = 64;

    /// Reads the lines of an EHLO reply after its first, without codes.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut peer = Self::default();
        for line in lines {
            peer.read(line);
        }
        peer.binary_mime &= peer.chunking;
        peer
    }

    fn read(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace().take(Self::WORDS_MAX);
        let Some(keyword) = words.next() else {
            return;
        };
        match keyword.to_ascii_uppercase().as_str() {
            "PIPELINING" => self.pipelining = true,
            "SIZE" => self.size = PeerSize::parse(words.next()),
            "8BITMIME" => self.eight_bit_mime = true,
            "BINARYMIME" => self.binary_mime = true,
            "CHUNKING" => self.chunking = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "DSN" => self.dsn = true,
            "ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            "STARTTLS" => self.starttls = true,
            "ETRN" => self.etrn = true,
            "ATRN" => self.atrn = true,
            "REQUIRETLS" => self.require_tls = true,
            "DELIVERBY" => self.deliver_by = Some(least_seconds(words.next())),
            "MT-PRIORITY" => self.mt_priority = true,
            "LIMITS" => words.for_each(|limit| self.read_limit(limit)),
            "AUTH" => words.for_each(|mechanism| self.add_mechanism(mechanism)),
            // A form older than the standard, still sent beside the right one.
            first => {
                if let Some(mechanism) = first.strip_prefix("AUTH=") {
                    self.add_mechanism(mechanism);
                    words.for_each(|mechanism| self.add_mechanism(mechanism));
                }
            }
        }
    }

    fn read_limit(&mut self, limit: &str) {
        let Some((name, number)) = limit.split_once('=') else {
            return;
        };
        // RFC 9422 section 3: six digits at most, never zero; others are to be ignored.
        let number = number.parse::<u32>().ok().filter(|n| (1..=999_999).contains(n));
        if name.eq_ignore_ascii_case("RCPTMAX") {
            self.recipients_max = number;
        } else if name.eq_ignore_ascii_case("MAILMAX") {
            self.mails_max = number;
        } else if name.eq_ignore_ascii_case("RCPTDOMAINMAX") {
            self.recipient_domains_max = number;
        }
    }

    fn add_mechanism(&mut self, mechanism: &str) {
        let mechanism = mechanism.to_ascii_uppercase();
        if !mechanism.is_empty()
            && self.auth.len() < Self::WORDS_MAX
            && !self.auth.contains(&mechanism)
        {
            self.auth.push(mechanism);
        }
    }
}

/// RFC 2852 section 4: up to nine digits, and behind a comma what is yet to be invented.
fn least_seconds(said: Option<&str>) -> u32 {
    let digits = said.and_then(|said| said.split(',').next()).unwrap_or_default();
    let good = digits.len() <= 9 && digits.bytes().all(|o| o.is_ascii_digit());
    good.then(|| digits.parse().ok()).flatten().unwrap_or(0)
}

impl PeerSize {
    /// RFC 1870 section 3: no number and zero both mean that there is no fixed limit.
    fn parse(number: Option<&str>) -> Self {
        match number.map(str::parse::<u64>) {
            Some(Ok(limit)) if limit > 0 => Self::AtMost(ByteSize::bytes(limit)),
            _ => Self::Unlimited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_offered_unless_switched_off() {
        let said = |offer: Offer, size_max| -> Vec<String> {
            let now = Timestamp::parse("2026-11-24T09:30:00.999Z").unwrap();
            let (release_max, deliver_by_min) = (Span::days(60), Span::ZERO);
            let bounds =
                Bounds { size_max, recipients_max: 1000, release_max, deliver_by_min, now };
            offer.lines(bounds).map(|line| line.to_string()).collect()
        };
        let lines = said(Offer::all(), Some(ByteSize::kib(1)));
        assert_eq!(
            lines,
            [
                "PIPELINING",
                "SIZE 1024",
                "8BITMIME",
                "BINARYMIME",
                "CHUNKING",
                "SMTPUTF8",
                "DSN",
                "ENHANCEDSTATUSCODES",
                "LIMITS RCPTMAX=1000",
                "ETRN",
                "ATRN",
                "TURN",
                "DELIVERBY",
                "FUTURERELEASE 5184000 2027-01-23T09:30:00Z",
                "MT-PRIORITY",
                "REQUIRETLS",
                "HELP"
            ]
        );
        let lines = said([Extension::Size].into_iter().collect(), None);
        assert_eq!(lines, ["SIZE", "HELP"]);
    }

    #[test]
    fn an_extension_is_off_without_its_companion() {
        let offer: Offer =
            Extension::ALL.into_iter().filter(|&e| e != Extension::Chunking).collect();
        assert!(!offer.has(Extension::Chunking) && !offer.has(Extension::BinaryMime));
        assert!(offer.has(Extension::SmtpUtf8));
    }

    #[test]
    fn keywords_are_found_in_capitals_or_not() {
        for extension in Extension::ALL {
            let small = extension.keyword().to_ascii_lowercase();
            assert_eq!(Extension::named(&small), Some(extension));
        }
        assert_eq!(Extension::named("XTURN"), None);
    }

    #[test]
    fn the_reply_of_a_real_server_is_understood() {
        let peer = PeerExtensions::parse([
            "PIPELINING",
            "SIZE 10240000",
            "VRFY",
            "STARTTLS",
            "AUTH PLAIN login",
            "AUTH=LOGIN NTLM",
            "enhancedstatuscodes",
            "8BITMIME",
            "DSN",
            "SMTPUTF8",
            "CHUNKING",
            "BINARYMIME",
            "LIMITS MAILMAX=5 RCPTMAX=50 RCPTDOMAINMAX=1",
            "DELIVERBY 240,x",
            "MT-PRIORITY MIXER",
            "ATRN",
            "requiretls",
        ]);
        assert!(peer.atrn && peer.require_tls && !peer.etrn);
        assert_eq!((peer.deliver_by, peer.mt_priority), (Some(240), true));
        assert!(peer.pipelining && peer.eight_bit_mime && peer.dsn && peer.starttls);
        assert!(peer.smtputf8 && peer.chunking && peer.binary_mime && peer.enhanced_status_codes);
        assert_eq!(peer.size, PeerSize::AtMost(ByteSize::bytes(10_240_000)));
        assert_eq!((peer.recipients_max, peer.mails_max), (Some(50), Some(5)));
        assert_eq!(peer.auth, ["PLAIN", "LOGIN", "NTLM"]);
    }

    #[test]
    fn a_host_that_names_no_least_time_takes_any() {
        let least = |line| PeerExtensions::parse([line]).deliver_by;
        let lines = ["DELIVERBY", "DELIVERBY ,y", "DELIVERBY -5", "DELIVERBY 1234567890"];
        assert_eq!(lines.map(least), [Some(0); 4]);
        assert_eq!(least("DELIVERBYE"), None);
    }

    #[test]
    fn nonsense_is_one_extension_less() {
        let peer =
            PeerExtensions::parse(["", " ", "SIZE x", "BINARYMIME", "LIMITS RCPTMAX=0 =", "XXXX"]);
        let expected = PeerExtensions { size: PeerSize::Unlimited, ..PeerExtensions::default() };
        assert_eq!(peer, expected, "BINARYMIME is of no use without CHUNKING");
    }
}
