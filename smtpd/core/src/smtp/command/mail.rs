//! The parameters of MAIL: which there are, and what each may say.

use super::super::extension::Extension;
use super::{Grammar, Mail, ORCPT_OCTETS_MAX, is_xtext};
use crate::queue::envelope::{BodyKind, Ret};
use crate::queue::wishes::{By, HoldBack, Priority};

/// Octets of ENVID as it came (RFC 3461 section 4.4).
const ENVID_OCTETS_MAX: usize = 100;

/// The parameters of MAIL that we know.
#[derive(Clone, Copy)]
pub(super) enum MailParameter {
    Size,
    Body,
    SmtpUtf8,
    Ret,
    EnvId,
    By,
    HoldFor,
    HoldUntil,
    Priority,
    Auth,
    RequireTls,
}

impl MailParameter {
    /// Of each kind there may be one.
    pub(super) const fn kind(self) -> u8 {
        match self {
            Self::HoldUntil => Self::HoldFor as u8,
            Self::Priority => Self::HoldFor as u8 + 1,
            Self::Auth => Self::HoldFor as u8 + 2,
            Self::RequireTls => Self::HoldFor as u8 + 3,
            other => other as u8,
        }
    }

    pub(super) fn named(keyword: &str, grammar: &Grammar) -> Option<Self> {
        let offer = grammar.offer;
        if grammar.auth && keyword.eq_ignore_ascii_case("AUTH") {
            return Some(Self::Auth);
        }
        let table = [
            ("SIZE", Self::Size, Extension::Size),
            ("BODY", Self::Body, Extension::EightBitMime),
            ("SMTPUTF8", Self::SmtpUtf8, Extension::SmtpUtf8),
            ("RET", Self::Ret, Extension::Dsn),
            ("ENVID", Self::EnvId, Extension::Dsn),
            ("BY", Self::By, Extension::DeliverBy),
            ("HOLDFOR", Self::HoldFor, Extension::FutureRelease),
            ("HOLDUNTIL", Self::HoldUntil, Extension::FutureRelease),
            ("MT-PRIORITY", Self::Priority, Extension::MtPriority),
            ("REQUIRETLS", Self::RequireTls, Extension::RequireTls),
        ];
        let (_, known, extension) =
            table.into_iter().find(|(name, ..)| keyword.eq_ignore_ascii_case(name))?;
        let binary = matches!(known, Self::Body) && offer.has(Extension::BinaryMime);
        (offer.has(extension) || binary).then_some(known)
    }
}

impl Mail {
    pub(super) fn set(&mut self, parameter: MailParameter, value: Option<&str>) -> Option<()> {
        match parameter {
            MailParameter::Size => self.size = value.and_then(size)?,
            MailParameter::Body => self.body = value.and_then(body)?,
            MailParameter::SmtpUtf8 => {
                self.smtputf8 = true;
                return value.is_none().then_some(());
            }
            MailParameter::RequireTls => {
                self.require_tls = true;
                return value.is_none().then_some(());
            }
            MailParameter::Ret if value?.eq_ignore_ascii_case("FULL") => self.ret = Some(Ret::Full),
            MailParameter::Ret if value?.eq_ignore_ascii_case("HDRS") => {
                self.ret = Some(Ret::Headers);
            }
            MailParameter::Ret => return None,
            MailParameter::EnvId => {
                let value = value.filter(|v| v.len() <= ENVID_OCTETS_MAX && is_xtext(v))?;
                self.envid = Some(value.to_owned());
            }
            MailParameter::By => self.by = Some(By::parse(value?)?),
            MailParameter::HoldFor => self.hold = Some(HoldBack::parse_for(value?)?),
            MailParameter::HoldUntil => self.hold = Some(HoldBack::parse_until(value?)?),
            MailParameter::Priority => self.priority = Priority::parse(value?)?,
            // RFC 4954 section 5: who submitted it elsewhere. Nobody here is trusted to say so, which
            // comes to the same as "<>"; that it can be read is asked for all the same.
            MailParameter::Auth => {
                value.filter(|v| *v == "<>" || v.len() <= ORCPT_OCTETS_MAX && is_xtext(v))?;
            }
        }
        Some(())
    }
}

/// RFC 1870 section 3: one to twenty digits. Numbers beyond 64 bits are larger than any limit.
fn size(value: &str) -> Option<u64> {
    let good = value.len() <= 20 && value.bytes().all(|o| o.is_ascii_digit());
    good.then(|| value.parse().unwrap_or(u64::MAX))
}

fn body(value: &str) -> Option<BodyKind> {
    let kinds = [
        ("7BIT", BodyKind::SevenBit),
        ("8BITMIME", BodyKind::EightBitMime),
        ("BINARYMIME", BodyKind::BinaryMime),
    ];
    kinds.into_iter().find(|(name, _)| value.eq_ignore_ascii_case(name)).map(|(_, kind)| kind)
}
