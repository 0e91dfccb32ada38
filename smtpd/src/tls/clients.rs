//! What clients prove by certificates: which are good, and why the others are not.
//!
//! Where a certificate is only asked for, one that is not good counts as none: hosts of strangers show
//! theirs to whoever asks, and their mail must not stay out for it. Where one is required, the handshake
//! fails. Either way the client has its key, because the handshake shows that.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use mailroot_common::config::client_certificates::{
    CertificateMode, ClientCertificates, ExpiredCrl,
};
use mailroot_common::config::smart_hosts::Pin;
use mailroot_common::config::tls::Trust;
use mailroot_common::units::Timestamp;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use smtpd_core::certificate::Facts;
use smtpd_core::policy::Certified;

use super::client::roots;
use super::revoked;

/// A certificate that a client has shown; the handshake has shown that it has the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// SHA-256 of the whole certificate, by which it is listed.
    pub fingerprint: Pin,
    /// Whose it says that it is, as the client wrote it.
    pub subject: String,
    /// Why it is good, or why not in words for the log.
    pub standing: Result<Standing, String>,
}

/// Why a certificate is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is listed, perhaps as a user's.
    Pinned {
        /// Whose.
        user: Option<String>,
    },
    /// A trusted issuer vouches for it and for these mail addresses.
    Trusted {
        /// As they are written in it.
        emails: Vec<String>,
    },
}

impl ClientCertificate {
    /// The same for policy; nothing if it is not good.
    #[must_use]
    pub fn certified(&self) -> Option<Certified> {
        match self.standing {
            Ok(Standing::Pinned { .. }) => Some(Certified::Pinned),
            Ok(Standing::Trusted { .. }) => Some(Certified::Trusted),
            Err(_) => None,
        }
    }
}

/// Asks clients for certificates and looks at them.
#[derive(Debug)]
pub struct Clients {
    is_required: bool,
    pinned: HashMap<Pin, Option<String>>,
    issuers: Option<Issuers>,
    provider: Arc<CryptoProvider>,
}

impl Clients {
    /// As the configuration has it; nothing where no client is asked.
    #[must_use]
    pub fn new(keys: &ClientCertificates) -> Option<Self> {
        let pinned = keys.pinned.iter().map(|it| (it.sha256, it.user.clone()));
        (keys.mode != CertificateMode::Off).then(|| Self {
            is_required: keys.mode == CertificateMode::Require,
            pinned: pinned.collect(),
            issuers: keys.trust.clone().map(|trust| Issuers {
                trust,
                revoked: keys.crl.clone(),
                bears_old_lists: keys.crl_expired == ExpiredCrl::Accept,
                read: Mutex::default(),
            }),
            provider: Arc::new(super::certificates::provider()),
        })
    }

    /// Why no issuer can be trusted, if that is so.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.issuers.as_ref()?.current(&self.provider).err().map(|why| why.to_string())
    }

    /// Which lists of revoked certificates have expired, in words.
    ///
    /// # Errors
    ///
    /// Words for people, if they cannot be read.
    pub fn old_lists(&self, now: Timestamp) -> Result<Vec<String>, String> {
        let Some(issuers) = &self.issuers else { return Ok(Vec::new()) };
        revoked::expired(&issuers.revoked, now)
    }

    /// What a certificate proves.
    pub(super) fn judge(&self, chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
        let (first, others) = chain.split_first()?;
        let facts = Facts::read(first);
        let standing = self.check(first, others, facts.as_ref(), UnixTime::now());
        Some(ClientCertificate {
            fingerprint: fingerprint(first),
            subject: facts.map(|facts| facts.subject).unwrap_or_default(),
            standing: standing.map_err(|error| words(&error)),
        })
    }

    /// Whether a certificate is required, and so must be a good one.
    pub(super) const fn are_required(&self) -> bool {
        self.is_required
    }

    fn check(
        &self,
        first: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        facts: Option<&Facts>,
        now: UnixTime,
    ) -> Result<Standing, Error> {
        let facts = facts.ok_or(CertificateError::BadEncoding)?;
        if let Some(user) = self.pinned.get(&fingerprint(first)) {
            is_now(facts, now)?;
            return Ok(Standing::Pinned { user: user.clone() });
        }
        let Some(issuers) = &self.issuers else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let issuers =
            issuers.current(&self.provider).map_err(|why| Error::General(why.to_string()))?;
        issuers.verify_client_cert(first, others, now)?;
        Ok(Standing::Trusted { emails: facts.emails.clone() })
    }
}

fn fingerprint(certificate: &[u8]) -> Pin {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, certificate).as_ref());
    Pin(out)
}

fn is_now(facts: &Facts, now: UnixTime) -> Result<(), Error> {
    let now = Timestamp::from_millis(now.as_secs().saturating_mul(1_000));
    if now > facts.not_after {
        return Err(CertificateError::Expired.into());
    }
    if now < facts.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    Ok(())
}

/// What is wrong with a certificate, as an administrator would say it.
pub(super) fn words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the client's certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the client's certificate is not valid yet".to_owned()
            }
            // An issuer of the same name with another key is another issuer.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the client's certificate is not listed, and nobody trusted vouches for it"
                    .to_owned()
            }
            CertificateError::Revoked => {
                "the client's certificate was revoked by its issuer".to_owned()
            }
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => {
                "the issuer's list of revoked certificates has expired".to_owned()
            }
            other => format!("the client's certificate is not good: {other}"),
        },
        Error::InvalidCertRevocationList(why) => {
            format!("the issuer's list of revoked certificates is not good: {why:?}")
        }
        Error::NoCertificatesPresented => "the client showed no certificate".to_owned(),
        other => other.to_string(),
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    /// No names: a client that has one that is listed could not know by them that it is wanted.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        first: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.is_required {
            self.check(first, others, Facts::read(first).as_ref(), now)?;
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

type Verifier = Result<Arc<dyn ClientCertVerifier>, Arc<str>>;

/// Who may vouch for clients; the file is read anew when it has changed.
struct Issuers {
    trust: Trust,
    revoked: Vec<PathBuf>,
    /// Whether a list counts on after its time.
    bears_old_lists: bool,
    read: Mutex<Option<(Vec<Option<Look>>, Verifier)>>,
}

/// By what a change of a file shows.
type Look = (u64, u64, i64, i64);

/// Authorities are many.
impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Issuers").field(&self.trust).finish()
    }
}

impl Issuers {
    fn current(&self, provider: &Arc<CryptoProvider>) -> Verifier {
        let trust = match &self.trust {
            // What the system trusts is read once: it takes long, and lies in many files.
            Trust::System => None,
            Trust::File(path) => Some(path),
        };
        let look: Vec<Option<Look>> =
            trust.into_iter().chain(&self.revoked).map(|path| look(path)).collect();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match &*read {
            Some((before, verifier)) if *before == look => verifier.clone(),
            _ => {
                let verifier = self.verifier(provider);
                *read = Some((look, verifier.clone()));
                verifier
            }
        }
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Verifier {
        let roots = roots(&self.trust, "access.certificates.trust")?;
        let lists = revoked::read(&self.revoked)?;
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider))
                .allow_unknown_revocation_status()
                .with_crls(lists.into_iter().map(|list| list.der));
        if !self.bears_old_lists {
            builder = builder.enforce_revocation_expiration();
        }
        builder.build().map_err(|error| error.to_string().into())
    }
}

fn look(path: &Path) -> Option<Look> {
    let about = fs::metadata(path).ok()?;
    Some((about.ino(), about.size(), about.ctime(), about.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use mailroot_common::config::client_certificates::PinnedCertificate;
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
        ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SanType,
        SerialNumber, date_time_ymd,
    };

    use super::*;

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn issuer() -> Issuer {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn certificate(
        issuer: &Issuer,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names.push(SanType::Rfc822Name("ada@corp.example".try_into().unwrap()));
        change(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().into()
    }

    fn keys(mode: CertificateMode, trust: Option<&Path>, pinned: &[&[u8]]) -> ClientCertificates {
        let pin = |der: &&[u8]| PinnedCertificate {
            sha256: fingerprint(der),
            user: Some("ada".to_owned()),
            comment: None,
        };
        ClientCertificates {
            mode,
            trust: trust.map(|path| Trust::File(path.to_owned())),
            pinned: pinned.iter().map(pin).collect(),
            login: false,
            crl: Vec::new(),
            crl_expired: ExpiredCrl::Refuse,
        }
    }

    fn of(clients: &Clients, der: &CertificateDer<'_>) -> Result<Standing, String> {
        clients.judge(std::slice::from_ref(der)).unwrap().standing
    }

    #[test]
    fn a_certificate_is_good_by_its_issuer_or_by_itself_and_for_its_time() {
        let place = tempfile::tempdir().unwrap();
        let (ours, other) = (issuer(), issuer());
        let file = place.path().join("issuers.pem");
        fs::write(&file, ours.pem()).unwrap();
        let good = certificate(&ours, |_| {});
        let old = certificate(&ours, |it| {
            (it.not_before, it.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        });
        let host = certificate(&ours, |it| {
            it.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        });
        let (foreign, listed) = (certificate(&other, |_| {}), certificate(&other, |_| {}));
        let pins = [&*listed, &*old];
        let clients = Clients::new(&keys(CertificateMode::Request, Some(&file), &pins)).unwrap();
        let emails = vec!["ada@corp.example".to_owned()];
        assert_eq!(of(&clients, &good), Ok(Standing::Trusted { emails }));
        assert_eq!(of(&clients, &listed), Ok(Standing::Pinned { user: Some("ada".to_owned()) }));
        assert!(of(&clients, &old).unwrap_err().contains("has expired"));
        assert!(of(&clients, &foreign).unwrap_err().contains("nobody trusted vouches"));
        assert!(of(&clients, &host).unwrap_err().contains("not good"), "it is for hosts alone");
        assert!(of(&clients, &CertificateDer::from(vec![0x30, 0])).is_err());
        assert!(clients.judge(&[]).is_none());
        assert!(clients.verify_client_cert(&foreign, &[], UnixTime::now()).is_ok());

        // Another issuer in the file counts from the next client on.
        fs::write(&file, other.pem()).unwrap();
        assert!(of(&clients, &good).is_err() && of(&clients, &foreign).is_ok());
        fs::remove_file(&file).unwrap();
        assert!(of(&clients, &foreign).unwrap_err().contains("cannot read"));
        assert!(clients.trouble().is_some_and(|why| why.contains("access.certificates.trust")));
        assert!(of(&clients, &listed).is_ok(), "the list needs no issuer");

        let required = Clients::new(&keys(CertificateMode::Require, None, &pins)).unwrap();
        assert!(required.client_auth_mandatory() && required.are_required());
        assert!(required.verify_client_cert(&listed, &[], UnixTime::now()).is_ok());
        assert!(required.verify_client_cert(&foreign, &[], UnixTime::now()).is_err());
        assert!(Clients::new(&keys(CertificateMode::Off, Some(&file), &pins)).is_none());
    }

    #[test]
    fn of_several_lists_of_an_issuer_the_newest_counts() {
        let place = tempfile::tempdir().unwrap();
        let ours = issuer();
        let serial = || SerialNumber::from(7_u64);
        let list = |years: (i32, i32), revokes: bool| {
            let revoked = RevokedCertParams {
                serial_number: serial(),
                revocation_time: date_time_ymd(2021, 1, 1),
                reason_code: None,
                invalidity_date: None,
            };
            let params = CertificateRevocationListParams {
                this_update: date_time_ymd(years.0, 1, 1),
                next_update: date_time_ymd(years.1, 1, 1),
                crl_number: SerialNumber::from(1_u64),
                issuing_distribution_point: None,
                revoked_certs: revokes.then_some(revoked).into_iter().collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            params.signed_by(&ours).unwrap().pem().unwrap()
        };
        let files = ["issuers.pem", "crl.pem"].map(|name| place.path().join(name));
        fs::write(&files[0], ours.pem()).unwrap();
        fs::write(&files[1], list((2020, 2021), false) + &list((2022, 2099), true)).unwrap();
        let mut keys = keys(CertificateMode::Request, Some(&files[0]), &[]);
        keys.crl = vec![files[1].clone()];
        let clients = Clients::new(&keys).unwrap();
        let gone = certificate(&ours, |it| it.serial_number = Some(serial()));
        assert!(of(&clients, &gone).unwrap_err().contains("revoked"));
        assert!(of(&clients, &certificate(&ours, |_| {})).is_ok());
        let now = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        assert_eq!(clients.old_lists(now), Ok(Vec::new()));
        let later = Timestamp::parse("2100-01-01T00:00:00Z").unwrap();
        assert_eq!(clients.old_lists(later).unwrap().len(), 1, "one of each issuer");
        fs::remove_file(&files[1]).unwrap();
        assert!(clients.old_lists(now).unwrap_err().contains("crl.pem"));
    }
}
