//! Lists of revoked certificates (RFC 5280 section 5), as their issuers publish them: read from files.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use mailroot_common::units::Timestamp;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use smtpd_core::certificate::ListFacts;

/// The most octets of a file. The largest lists of public authorities have a few million.
const FILE_OCTETS_MAX: u64 = 16 << 20;
/// The most lists in all files.
const LISTS_MAX: usize = 256;
/// What a file in PEM has somewhere, and none in DER.
const PEM: &[u8] = b"-----BEGIN ";

/// One of them. Whether it was signed by its issuer shows when it is needed.
pub(super) struct List {
    file: PathBuf,
    facts: ListFacts,
    pub(super) der: CertificateRevocationListDer<'static>,
}

impl List {
    /// That it has expired, if it has.
    fn expired(&self, now: Timestamp) -> Option<String> {
        let end = self.facts.next_update.filter(|end| *end <= now)?;
        let (issuer, file) = (&self.facts.issuer, self.file.display());
        Some(format!("the list of revoked certificates of {issuer} in {file} has expired ({end})"))
    }
}

/// All lists of these files, the newest first: of several of one issuer the first counts.
///
/// # Errors
///
/// Words for people, if a file cannot be read or holds something else.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<List>, String> {
    let mut lists = Vec::new();
    for file in files {
        let found = read_file(file).map_err(|why| {
            format!("access.certificates.crl: cannot read {}: {why}", file.display())
        })?;
        lists.extend(found);
    }
    if lists.len() > LISTS_MAX {
        let more = lists.len();
        return Err(format!("access.certificates.crl: {more} lists are more than {LISTS_MAX}"));
    }
    lists.sort_by_key(|list: &List| std::cmp::Reverse(list.facts.this_update));
    Ok(lists)
}

/// Those that have expired and that no newer one of the same issuer has taken the place of, in words.
pub(super) fn expired(files: &[PathBuf], now: Timestamp) -> Result<Vec<String>, String> {
    let lists = read(files)?;
    let mut seen = HashSet::new();
    let newest = lists.iter().filter(|list| seen.insert(&list.facts.issuer_name));
    Ok(newest.filter_map(|list| list.expired(now)).collect())
}

fn read_file(file: &Path) -> Result<Vec<List>, String> {
    let size = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if size > FILE_OCTETS_MAX {
        return Err("it is too large to be a list of revoked certificates".to_owned());
    }
    let octets = std::fs::read(file).map_err(|error| error.to_string())?;
    let ders = if octets.windows(PEM.len()).any(|part| part == PEM) {
        let all = CertificateRevocationListDer::pem_slice_iter(&octets);
        all.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?
    } else {
        vec![CertificateRevocationListDer::from(octets)]
    };
    if ders.is_empty() {
        return Err("it holds no list of revoked certificates".to_owned());
    }
    let list = |der: CertificateRevocationListDer<'static>| {
        let facts = ListFacts::read(&der).ok_or("it is no list of revoked certificates")?;
        Ok(List { file: file.to_owned(), facts, der })
    };
    ders.into_iter().map(list).collect()
}
