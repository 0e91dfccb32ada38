//! Whether a host asks for less: what receivers say when mail comes too fast, or over too many
//! connections.
//!
//! There is no code for it that all agree on. RFC 3463 has x.4.5 for congestion; large providers answer
//! 4xx to single commands and say why in words. What is not one of these is about the message, and no
//! reason to slow down: greylisting above all. 421 closes a session, and often only because that has
//! carried enough; whether it asks for less depends on what went before it.

use mailroot_common::status::{Class, EnhancedCode, ReplyCode};

/// Microsoft's for a mailbox that sends too much.
const CONCURRENT: u16 = 432;
/// RFC 3463 section 3.5: the mail system is congested.
const CONGESTION: (u16, u16) = (4, 5);
/// Google's for a sender that is too fast.
const RATE: (u16, u16) = (7, 28);

/// Parts of the words by which receivers ask for less; small letters.
const WORDS: [&str; 13] = [
    "rate limit",
    "ratelimit",
    "rate-limit",
    "sending rate",
    "too fast",
    "too frequent",
    "too many connections",
    "too many concurrent",
    "too much mail",
    "throttl",
    "slow down",
    "unusual rate",
    "concurrent connections",
];

/// Whether a reply asks to come slower rather than being about the message.
#[must_use]
pub fn asks_for_less(code: ReplyCode, status: EnhancedCode, text: &str) -> bool {
    if code.class() != Class::Transient {
        return false;
    }
    let detail = (status.subject(), status.detail());
    if code.as_u16() == CONCURRENT || [CONGESTION, RATE].contains(&detail) {
        return true;
    }
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_for_less_is_told_from_a_word_about_the_message() {
        for (reply, expected) in [
            ("421 4.7.0 Too much mail from your network", true),
            ("421 4.7.0 Too many messages in this session", false),
            ("432 4.3.2 Concurrent connections limit exceeded", true),
            ("451 4.4.5 the mail system is congested", true),
            ("450 4.7.28 we have detected an unusual rate of mail", true),
            ("450 4.2.1 The user is receiving mail too quickly, rate limited", true),
            ("450 4.7.1 greylisted, come back in five minutes", false),
            ("450 4.2.0 mailbox busy", false),
            ("452 4.2.2 over quota", false),
            ("550 5.7.1 too many messages from you", false),
            ("554 5.4.5 congested for ever", false),
        ] {
            let mut words = reply.splitn(3, ' ');
            let code = ReplyCode::new(words.next().unwrap().parse().unwrap());
            let status = EnhancedCode::parse(words.next().unwrap()).unwrap();
            assert_eq!(asks_for_less(code, status, words.next().unwrap()), expected, "{reply}");
        }
    }
}
