//! What is kept over a restart: our account with the authority, and what came of requests; two files of
//! one line of JSON, each replaced whole and open to nobody else.

use std::collections::BTreeMap;
use std::io;

use instant_acme::AccountCredentials;
use mailroot_common::config::Secret;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use smtpd_core::acme::Tries;

use crate::config::{SecretError, Secrets};

/// Their names. A certificate's file ends in `.pem`.
const ACCOUNT: &str = "acme-account.json";
const TRIES: &str = "acme-tries.json";
/// The most octets of each. There is one account; tries are as many as certificates, each with the authority's words.
const ACCOUNT_OCTETS_MAX: u64 = 64 * 1024;
const TRIES_OCTETS_MAX: u64 = 64 * 1024 * 1024;

/// Our account. It holds a private key, so it has no form for debug output.
#[derive(Serialize, Deserialize)]
pub(super) struct Account {
    /// The authority that it is with.
    pub(super) directory: String,
    /// The address that the authority was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<String>,
    /// The account's address and its key.
    pub(super) credentials: AccountCredentials,
}

/// The directory of both files. It is made when it is needed.
#[derive(Clone, Debug)]
pub(super) struct Kept(Secrets);

impl Kept {
    pub(super) const fn new(files: Secrets) -> Self {
        Self(files)
    }

    /// The account; nothing if there is none.
    pub(super) fn account(&self) -> Result<Option<Account>, String> {
        self.read(ACCOUNT, ACCOUNT_OCTETS_MAX)
    }

    /// What came of requests, by the certificate's name.
    pub(super) fn tries(&self) -> Result<BTreeMap<String, Tries>, String> {
        Ok(self.read(TRIES, TRIES_OCTETS_MAX)?.unwrap_or_default())
    }

    pub(super) fn keep_account(&self, account: &Account) -> io::Result<()> {
        self.0.keep(ACCOUNT, &serde_json::to_string(account)?)
    }

    pub(super) fn keep_tries(&self, tries: &BTreeMap<String, Tries>) -> io::Result<()> {
        self.0.keep(TRIES, &serde_json::to_string(tries)?)
    }

    fn read<T: DeserializeOwned>(&self, name: &str, octets_max: u64) -> Result<Option<T>, String> {
        match self.0.read_within(&Secret::File(name.to_owned()), octets_max) {
            Ok(line) => serde_json::from_str(&line)
                .map(Some)
                .map_err(|_| format!("{} cannot be read", self.0.directory().join(name).display())),
            Err(SecretError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    }
}
