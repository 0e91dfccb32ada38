//! Certificates for hosts of a test: an authority of its own, and what it signs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CrlDistributionPoint, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
    date_time_ymd,
};
use tempfile::TempDir;

use crate::program;

/// An authority with a directory for its files; all of it goes when dropped.
pub struct Authority {
    place: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// When a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valid {
    /// Now.
    Now,
    /// Only in the past.
    Before,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    ///
    /// When there is no room for its files.
    #[must_use]
    pub fn new() -> Self {
        Self::named(Vec::new())
    }

    /// One whose own certificate is for this host as well.
    ///
    /// # Panics
    ///
    /// When there is no room for its files.
    #[must_use]
    pub fn of(host: &str) -> Self {
        Self::named(vec![host.to_owned()])
    }

    fn named(names: Vec<String>) -> Self {
        let place = tempfile::Builder::new().prefix("mailroot-ca-").tempdir().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        fs::write(place.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { place, issuer }
    }

    /// The file that others trust it by.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.place.path().join("ca.pem")
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    /// A file with its own key and certificate, in the order that Postfix wants.
    ///
    /// # Panics
    ///
    /// When there is no room for it.
    #[must_use]
    pub fn itself(&self) -> Identity {
        let (key, path) = (self.issuer.key(), self.place.path().join("itself.pem"));
        fs::write(&path, format!("{}{}", key.serialize_pem(), self.issuer.pem())).unwrap();
        Identity { path, public_key: key.subject_public_key_info() }
    }

    /// A file with a key and a certificate for this name, in the order that Postfix wants.
    ///
    /// # Panics
    ///
    /// When there is no room for it.
    #[must_use]
    pub fn sign(&self, name: &str, valid: Valid) -> Identity {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        self.issue(name, params, valid)
    }

    /// The same as the world's authorities make them: for ninety days, for servers alone, and it says where the
    /// list of those would be that are no good any more.
    ///
    /// # Panics
    ///
    /// When there is no room for it.
    #[must_use]
    pub fn sign_server(&self, host: &str) -> Identity {
        const DAY: Duration = Duration::from_hours(24);
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = (SystemTime::now() - DAY).into();
        params.not_after = (SystemTime::now() + DAY * 89).into();
        params.distinguished_name.push(DnType::CommonName, host);
        params.key_usages.push(KeyUsagePurpose::DigitalSignature);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        params.use_authority_key_identifier_extension = true;
        let list = "http://ca.test/list.crl".to_owned();
        params.crl_distribution_points.push(CrlDistributionPoint { uris: vec![list] });
        self.issue(host, params, Valid::Now)
    }

    /// The same for a client: the certificate is for this mail address, and for nothing but clients.
    ///
    /// # Panics
    ///
    /// When there is no room for it.
    #[must_use]
    pub fn sign_client(&self, email: &str, valid: Valid) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names.push(SanType::Rfc822Name(email.try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, format!("client {email}"));
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        self.issue(email, params, valid)
    }

    fn issue(&self, name: &str, mut params: CertificateParams, valid: Valid) -> Identity {
        if valid == Valid::Before {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = self.place.path().join(format!("{name}-{valid:?}.pem"));
        fs::write(&path, format!("{}{}", key.serialize_pem(), certificate.pem())).unwrap();
        Identity { path, public_key: key.subject_public_key_info() }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// A key and its certificate.
#[derive(Debug)]
pub struct Identity {
    path: PathBuf,
    public_key: Vec<u8>,
}

impl Identity {
    /// The file of both.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The certificate and its key as files of their own in this directory, which begin with `called`.
    ///
    /// # Panics
    ///
    /// When they cannot be written.
    #[must_use]
    pub fn apart(&self, place: &Path, called: &str) -> (PathBuf, PathBuf) {
        let both = fs::read_to_string(&self.path).unwrap();
        let at = both.find("-----BEGIN CERTIFICATE").unwrap();
        let chain = place.join(format!("{called}.pem"));
        let key = place.join(format!("{called}.key"));
        fs::write(&key, &both[..at]).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&chain, &both[at..]).unwrap();
        (chain, key)
    }

    /// SHA-256 of the certificate, as `openssl` prints it.
    ///
    /// # Panics
    ///
    /// When `openssl` cannot read it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&self.path);
        let said = program::run(&mut openssl, b"").ok();
        said.trim().rsplit('=').next().unwrap().to_owned()
    }

    /// The public key as it stands in the certificate.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}
