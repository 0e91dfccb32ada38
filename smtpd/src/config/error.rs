//! Why a change of the configuration was not made.

use std::io;
use std::path::PathBuf;

use mailroot_common::address::Domain;
use mailroot_common::config::tls::CertificateName;
use mailroot_common::config::{DomainName, Selector, ServerName, SmartHostName};

use super::commit::WriteError;
use super::load::Failed;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The files are broken as they lie there.
    #[error("the configuration files have errors; correct them first\n\n{0}")]
    Broken(Failed),
    /// The configuration would be refused with the change.
    #[error("the change would make the configuration wrong\n\n{0}")]
    Refused(Failed),
    /// There is no such server.
    #[error("there is no virtual server {0}")]
    NoServer(ServerName),
    /// There is such a server.
    #[error("there is a virtual server {0} already")]
    ServerExists(ServerName),
    /// The server has no such domain.
    #[error("server {server} has no domain {domain}")]
    NoDomain {
        /// The server.
        server: ServerName,
        /// What was asked for.
        domain: DomainName,
    },
    /// The server has the domain.
    #[error("server {server} has the domain {domain} already")]
    DomainExists {
        /// The server.
        server: ServerName,
        /// What was asked for.
        domain: DomainName,
    },
    /// The default domain stays.
    #[error("{domain} is the default domain of server {server} and cannot be removed")]
    DefaultDomain {
        /// The server.
        server: ServerName,
        /// Its default domain.
        domain: DomainName,
    },
    /// There is no such smart host.
    #[error("there is no smart host {0}")]
    NoSmartHost(SmartHostName),
    /// There is no such certificate.
    #[error("there is no certificate {0}")]
    NoCertificate(CertificateName),
    /// A certificate lies in files that are not the daemon's.
    #[error("certificate {0} lies in files of your own; put a new one in their place")]
    CertificateElsewhere(CertificateName),
    /// A certificate that was given cannot be used.
    #[error("the certificate cannot be used: {0}")]
    CertificateUnfit(String),
    /// The server has such a key.
    #[error("there is a DKIM key {0} already")]
    DkimExists(String),
    /// The server has no such key.
    #[error("server {server} has no DKIM key {}of {domain}", .selector.as_ref().map(|it| format!("{it} ")).unwrap_or_default())]
    NoDkim {
        /// The server.
        server: ServerName,
        /// Whose key was asked for.
        domain: Domain,
        /// Which, if one was asked for.
        selector: Option<Selector>,
    },
    /// Only an alias can become the default domain.
    #[error("{0} is a remote domain: only an alias can become the default domain")]
    NoAlias(DomainName),
    /// A key or an item of a list is not there, or has another form.
    #[error("{0}")]
    Key(String),
    /// A list has no such item.
    #[error("{0}")]
    NoItem(String),
    /// Somebody else changed the configuration meanwhile.
    #[error("the configuration is at revision {newest}, not {expected}")]
    Changed {
        /// What was expected.
        expected: u64,
        /// What is there.
        newest: u64,
    },
    /// There is no such revision.
    #[error("there is no revision {0} in the history")]
    NoRevision(u64),
    /// Edits are not wanted here.
    #[error("the configuration is locked: {0}")]
    Sealed(String),
    /// A directory has the name that a mail root is to get.
    #[error("{} is there already: move it away", .0.display())]
    InTheWay(PathBuf),
    /// The file has a form that cannot be edited without risk.
    #[error("cannot edit {}: {reason}; change it by hand and reload", .path.display())]
    ByHand {
        /// The file.
        path: PathBuf,
        /// What stands in the way.
        reason: String,
    },
    /// Another change is under way.
    #[error("another change of the configuration is under way; try again")]
    Busy,
    /// The file could not be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl From<WriteError> for EditError {
    fn from(WriteError { path, source }: WriteError) -> Self {
        Self::Write { path, source }
    }
}
