//! The configuration on disk: found, read, checked, changed and kept.
//!
//! In: the files of `/etc/mailroot`, or of the directory given with `--home`. Out: one [`Loaded`]
//! that holds together, or every error of every file. Files are the only truth: a change of
//! [`Editor`] is an edit of a file that keeps comments and untouched lines, validated whole
//! before a single octet is written. What was last in force is kept in the history, so that a file
//! broken by hand does not keep the service from starting.

mod apply;
mod assign;
mod certificates;
mod check;
mod commit;
mod diff;
mod dkim;
mod edit;
mod error;
mod files;
mod first_start;
mod format;
mod history;
mod load;
mod log_style;
mod paths;
mod seal;
mod secret;
mod signing;
mod smart_host;
mod spec;
mod template;
mod trial;

pub use apply::{Change, Editor};
pub use certificates::certificate_files;
pub use diff::{compare, words as changes};
pub use error::EditError;
pub use first_start::FirstStart;
pub use history::{Note, revisions, texts};
pub use load::{Failed, Loaded, Started, load, start};
pub use log_style::log_style;
pub use paths::Paths;
pub use seal::{read as seal, write as set_seal};
pub use secret::{SecretError, Secrets};
pub use signing::{NoKey, signing_key};
pub use smart_host::{client_certificate_file, client_secret_file};
pub use spec::{RemoteDomainSpec, ServerSpec};
pub use template::{NoTemplate, Template};
pub use trial::Trial;

#[cfg(test)]
mod tests;
