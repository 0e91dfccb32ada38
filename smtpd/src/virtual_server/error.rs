//! What keeps a virtual server from starting.

use std::path::PathBuf;

use smtpd_core::route::table::TableError;

use super::RootError;
use crate::queue::OpenError;
use crate::receive::ListenError;

/// Why a virtual server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory of the mail root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] OpenError),
    /// Mail waits where the server had its mail root before.
    #[error(
        "{messages} messages wait in {}, where the mail root was before it became {}: put store.root \
         (or service.store) back, let them go or take them out with smtpctl queue export, then change it; \
         or move the directory Queue to the new mail root",
        .from.join("Queue").display(), .to.display()
    )]
    LeftBehind {
        /// How many.
        messages: u64,
        /// The mail root before.
        from: PathBuf,
        /// The mail root by the configuration.
        to: PathBuf,
    },
    /// Nobody can say whether mail waits where the server had its mail root before.
    #[error(
        "cannot look whether mail waits in {}, where the mail root was before it became {}: {source}",
        .from.join("Queue").display(), .to.display()
    )]
    Unseen {
        /// The mail root before.
        from: PathBuf,
        /// The mail root by the configuration.
        to: PathBuf,
        /// Why not.
        source: OpenError,
    },
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// TLS is a must, and there is no certificate.
    #[error(
        "no certificate can be shown, and clients must come under TLS: smtpctl cert list tells why"
    )]
    Certificate,
    /// The domains contradict each other.
    #[error(transparent)]
    Table(#[from] TableError),
    /// There is no default domain.
    #[error("no domain of the type default: add one to domains")]
    NoDefaultDomain,
}
