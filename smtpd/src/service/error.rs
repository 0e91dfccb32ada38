//! What can stand in the way of a wish.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use mailroot_common::config::tls::CertificateName;
use mailroot_common::config::{ServerName, SmartHostName};

use crate::config::{EditError, Failed};
use crate::observe::LogError;
use crate::users::UserError;
use crate::virtual_server::StartError;
use crate::{oauth, resolve};

/// Why the service did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no such virtual server.
    #[error("there is no virtual server {0}")]
    NoServer(ServerName),
    /// No virtual server is there that could call a host.
    #[error("there is no virtual server")]
    NobodyToCall,
    /// The configuration files are wrong; what ran before runs on.
    #[error("the configuration is refused, the running one stays\n\n{0}")]
    Config(Failed),
    /// A change of the configuration was refused; nothing was changed.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// A virtual server did not start.
    #[error("{server} did not start: {source}")]
    Start {
        /// The virtual server.
        server: ServerName,
        /// Why.
        source: StartError,
    },
    /// An address that the change wants to listen on cannot be had; nothing was changed.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The log cannot go where the change wants it; nothing was changed.
    #[error("{0}")]
    Log(String),
    /// Mail waits in the queue of a server that is to go.
    #[error("{server} still holds {messages} queued messages")]
    QueueLeft {
        /// The server.
        server: ServerName,
        /// How many.
        messages: u64,
    },
    /// A change would have a server leave a mail root where mail waits.
    #[error("{server} still holds {left} in {}, which the change would leave behind", .from.display())]
    QueueStays {
        /// The server.
        server: ServerName,
        /// What it holds, in words.
        left: String,
        /// Its mail root.
        from: PathBuf,
    },
    /// Another change is on trial.
    #[error("revision {revision} is on trial; confirm it, or roll back to {back_to}")]
    OnTrial {
        /// The revision on trial.
        revision: u64,
        /// The one before it.
        back_to: u64,
    },
    /// There is nothing to confirm.
    #[error("no change of the configuration is on trial")]
    NoTrial,
    /// There is no token.
    #[error("smart host {name}: {source}")]
    Token {
        /// The smart host.
        name: SmartHostName,
        /// Why.
        source: oauth::TokenError,
    },
    /// A smart host does not log in by tokens.
    #[error("smart host {0} does not log in by tokens")]
    NoTokens(SmartHostName),
    /// A certificate comes from elsewhere.
    #[error("certificate {0} is not asked for over ACME")]
    NotAskedFor(CertificateName),
    /// No reports about TLS are sent.
    #[error("no reports about TLS are sent: tls.reports is not enabled")]
    NoTlsReports,
    /// A change of users was not made.
    #[error(transparent)]
    User(#[from] UserError),
    /// Name servers of `dns.resolvers` cannot be used.
    #[error("cannot set up name resolution: {0}")]
    Resolver(resolve::SetupError),
}

impl From<LogError> for ServiceError {
    fn from(error: LogError) -> Self {
        let source = std::error::Error::source(&error);
        let words = source.map(|source| format!(": {source}")).unwrap_or_default();
        Self::Log(format!("{error}{words}"))
    }
}
