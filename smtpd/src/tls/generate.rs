//! Certificates that we make ourselves, signed by nobody else.

use mailroot_common::units::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use zeroize::Zeroizing;

use super::certificates::Texts;

/// For how many years one is good.
const YEARS: i32 = 3;

/// Makes a key (P-256) and a certificate for these names, good from yesterday on, so that clocks
/// which are late take it as well.
///
/// # Errors
///
/// Why a name cannot stand in a certificate.
pub fn self_signed(names: &[String], now: Timestamp) -> Result<Texts, String> {
    let words = |error: rcgen::Error| error.to_string();
    let mut params = CertificateParams::new(names.to_vec()).map_err(words)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(first) = names.first() {
        // RFC 5280 appendix A.1: a common name has 64 characters at most.
        let short: String = first.chars().take(64).collect();
        params.distinguished_name.push(DnType::CommonName, short);
    }
    let (year, month, day) = date(now).ok_or("the clock cannot be right")?;
    params.not_before = date_time_ymd(year, month, day);
    params.not_after = date_time_ymd(year + YEARS, month, day.min(28));
    let key = KeyPair::generate().map_err(words)?;
    let certificate = params.self_signed(&key).map_err(words)?;
    let key = Zeroizing::new(key.serialize_pem().into_bytes());
    Ok(Texts { chain: certificate.pem().into_bytes(), key })
}

/// The day before, as year, month and day.
fn date(now: Timestamp) -> Option<(i32, u8, u8)> {
    let day = Timestamp::from_millis(now.as_millis().saturating_sub(24 * 3600 * 1000));
    let text = day.to_string();
    let mut parts = text.get(..10)?.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    Some((year.parse().ok()?, month.parse().ok()?, day.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::tls::{Certificate, Files};

    #[test]
    fn one_that_is_made_can_be_shown() {
        let now = Timestamp::parse("2027-02-28T12:00:00Z").unwrap();
        let names = ["mx.example.net".to_owned(), "192.0.2.1".to_owned()];
        let texts = self_signed(&names, now).unwrap();
        let files = Files { chain: PathBuf::from("c"), key: PathBuf::from("k") };
        let made = Certificate::of(&texts, &files).unwrap();
        assert_eq!(made.facts.names, names);
        assert!(made.facts.self_signed && made.facts.not_before < now);
        assert_eq!(&made.facts.not_after.to_string()[..10], "2030-02-27");
    }
}
