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

/// How authorities are called.
const USUAL: &str = "authority of a test";

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
        Self::named(Vec::new(), USUAL)
    }

    /// One whose own certificate is for this host as well.
    ///
    /// # Panics
    ///
    /// When there is no room for its files.
    #[must_use]
    pub fn of(host: &str) -> Self {
        Self::named(vec![host.to_owned()], USUAL)
    }

    /// One of another name than all others have.
    ///
    /// # Panics
    ///
    /// When there is no room for its files.
    #[must_use]
    pub fn called(name: &str) -> Self {
        Self::named(Vec::new(), name)
    }

    fn named(names: Vec<String>, name: &str) -> Self {
        let place = tempfile::Builder::new().prefix("mailroot-ca-").tempdir().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
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

    /// The file of its list of revoked certificates, which takes the place of the one before; made by
    /// `openssl ca`.
    ///
    /// # Panics
    ///
    /// When `openssl` does not make it.
    #[must_use]
    pub fn revoke(&self, revoked: &[&Identity], valid: Valid) -> PathBuf {
        let lines = revoked.iter().map(|it| {
            format!("R\t491231235959Z\t250101000000Z\t{}\tunknown\t/CN=x\n", it.serial())
        });
        let at = |name: &str| self.place.path().join(name);
        fs::write(at("index.txt"), lines.collect::<String>()).unwrap();
        fs::write(at("crlnumber"), "01\n").unwrap();
        let (index, number) = (at("index.txt"), at("crlnumber"));
        let settings = format!(
            "[ca]\ndefault_ca = it\n[it]\ndefault_md = sha256\ndatabase = {}\ncrlnumber = {}\n",
            index.display(),
            number.display()
        );
        fs::write(at("ca.cnf"), settings).unwrap();
        let (new, list) = (at("crl.new"), at("crl.pem"));
        let mut openssl = Command::new("openssl");
        openssl.args(["ca", "-gencrl", "-config"]).arg(at("ca.cnf"));
        openssl.arg("-keyfile").arg(self.itself().path()).arg("-cert").arg(self.file());
        openssl.arg("-out").arg(&new);
        match valid {
            Valid::Now => openssl.args(["-crldays", "30"]),
            Valid::Before => openssl.args([
                "-crl_lastupdate",
                "20200101000000Z",
                "-crl_nextupdate",
                "20210101000000Z",
            ]),
        };
        program::run(&mut openssl, b"").ok();
        fs::rename(new, &list).unwrap();
        list
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

    /// Its number at its issuer, in digits of base 16.
    fn serial(&self) -> String {
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-noout", "-serial", "-in"]).arg(&self.path);
        let said = program::run(&mut openssl, b"").ok();
        said.trim().rsplit('=').next().unwrap().to_owned()
    }

    /// The public key as it stands in the certificate.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}
