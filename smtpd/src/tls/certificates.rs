//! The certificates that we show: read from files, looked at again, chosen by name.
//!
//! A certificate lies in one slot for as long as the configuration names it, and every virtual
//! server that shows it looks into the same slot at each handshake. So a new one counts for the next
//! client without a restart, and one that cannot be used leaves the old one in its place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use mailroot_common::config::tls::CertificateName;
use mailroot_common::units::{Span, Timestamp};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use smtpd_core::certificate::Facts;
use zeroize::Zeroizing;

/// The largest file of a chain or a key.
const FILE_OCTETS_MAX: u64 = 1024 * 1024;
/// Rights of others that a key must not grant; a group may read it.
const FOREIGN: u32 = 0o007;

/// From when on it is told that a certificate will expire.
pub const EXPIRES_SOON: Span = Span::days(14);

/// `expires in 9 days`, or that it is over.
#[must_use]
pub fn until_words(facts: &Facts, now: Timestamp) -> String {
    let left = facts.not_after.as_millis().saturating_sub(now.as_millis()) / (24 * 3600 * 1000);
    match left {
        _ if facts.not_after <= now => format!("expired at {}", facts.not_after),
        0 => "expires within a day".to_owned(),
        1 => "expires in 1 day".to_owned(),
        days => format!("expires in {days} days"),
    }
}

/// Where a certificate and its key lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate and those that vouch for it.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A file.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// Others may read the key.
    #[error("the key {} is open to others: chmod o= {}", .0.display(), .0.display())]
    Open(PathBuf),
    /// There is no certificate in the file.
    #[error("{} has no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// There is no key in the file.
    #[error("{} has no private key in PEM", .0.display())]
    NoKey(PathBuf),
    /// They do not belong together, or are of a kind that is not known.
    #[error("{0}")]
    Unfit(String),
}

/// A certificate that can be shown.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// What it says.
    pub facts: Facts,
    /// How many certificates its file has.
    pub chain: usize,
    certified: Arc<CertifiedKey>,
}

/// Text of PEM that may become a certificate.
#[derive(Debug)]
pub struct Texts {
    /// The certificate and those that vouch for it.
    pub chain: Vec<u8>,
    /// Its private key.
    pub key: Zeroizing<Vec<u8>>,
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    ///
    /// [`CertificateError`], in words for people.
    pub fn read(files: &Files) -> Result<Self, CertificateError> {
        let (chain, _) = read_file(&files.chain)?;
        let (key, mode) = read_file(&files.key)?;
        if mode & FOREIGN != 0 {
            return Err(CertificateError::Open(files.key.clone()));
        }
        Self::of(&Texts { chain: chain.to_vec(), key }, files)
    }

    /// Makes one of texts; `files` are how errors call them.
    ///
    /// # Errors
    ///
    /// [`CertificateError`], in words for people.
    pub fn of(texts: &Texts, files: &Files) -> Result<Self, CertificateError> {
        let absent = || CertificateError::NoCertificate(files.chain.clone());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&texts.chain).collect();
        let chain = chain.map_err(|_| absent())?;
        let first = chain.first().ok_or_else(absent)?;
        let facts = Facts::read(first).ok_or_else(absent)?;
        let key = PrivateKeyDer::from_pem_slice(&texts.key)
            .map_err(|_| CertificateError::NoKey(files.key.clone()))?;
        let length = chain.len();
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
            CertificateError::Unfit(match error {
                rustls::Error::InconsistentKeys(_) => format!(
                    "{} is not the key of the first certificate of {}",
                    files.key.display(),
                    files.chain.display()
                ),
                other => format!("{} cannot be used: {other}", files.chain.display()),
            })
        })?;
        Ok(Self { facts, chain: length, certified: Arc::new(certified) })
    }
}

pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

fn read_file(path: &Path) -> Result<(Zeroizing<Vec<u8>>, u32), CertificateError> {
    let cannot = |error: io::Error| CertificateError::Read {
        path: path.to_owned(),
        error: error.to_string(),
    };
    let file = File::open(path).map_err(cannot)?;
    let about = file.metadata().map_err(cannot)?;
    if !about.is_file() {
        return Err(cannot(io::Error::other("it is not a regular file")));
    }
    let mut octets = Zeroizing::new(Vec::with_capacity(
        usize::try_from(about.len().min(FILE_OCTETS_MAX)).unwrap_or(0) + 1,
    ));
    file.take(FILE_OCTETS_MAX).read_to_end(&mut octets).map_err(cannot)?;
    Ok((octets, about.mode()))
}

/// By what a change of a file shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

fn look(path: &Path) -> Option<Look> {
    let about = fs::metadata(path).ok()?;
    let changed = (about.ctime(), about.ctime_nsec());
    Some(Look { inode: about.ino(), size: about.size(), changed })
}

/// Where a certificate lies, and how it comes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its files.
    pub files: Files,
    /// Whether it is asked of an authority: until it is there, our own stands in for it.
    pub asked_for: bool,
}

/// A certificate under its name, as it stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its name.
    pub name: CertificateName,
    /// Where it lies.
    pub files: Files,
    /// Whether it is asked of an authority.
    pub asked_for: bool,
    /// Why the authority gave none when it was last asked.
    pub refused: Option<Arc<str>>,
    /// What is shown; nothing if it could not be read yet.
    pub certificate: Option<Certificate>,
    /// Why the files, as they lie there, cannot be used.
    pub trouble: Option<CertificateError>,
    /// When what is shown was read.
    pub since: Timestamp,
}

#[derive(Debug)]
struct Slot {
    standing: ArcSwap<Standing>,
    looks: Mutex<[Option<Look>; 2]>,
}

/// All certificates that are shown. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Certificates(Arc<Mutex<BTreeMap<CertificateName, Arc<Slot>>>>);

/// What became of files that changed.
#[derive(Clone, Debug)]
pub struct News {
    /// How it stands now.
    pub standing: Standing,
    /// Whether there was none before that could be shown, or there is none now that could be.
    pub first: bool,
}

impl Certificates {
    /// Goes by these files from now on; reads those that are new or changed.
    pub fn set(&self, wanted: BTreeMap<CertificateName, Place>, now: Timestamp) -> Vec<News> {
        let mut slots = self.slots();
        slots.retain(|name, slot| {
            wanted.get(name).is_some_and(|place| slot.standing.load().place() == *place)
        });
        let mut news = Vec::new();
        for (name, place) in wanted {
            if slots.contains_key(&name) {
                continue;
            }
            let looks = [look(&place.files.chain), look(&place.files.key)];
            let standing = read(name.clone(), place, None, now);
            news.push(News { standing: standing.clone(), first: true });
            let slot = Slot { standing: ArcSwap::from_pointee(standing), looks: Mutex::new(looks) };
            slots.insert(name, Arc::new(slot));
        }
        drop(slots);
        news.extend(self.look_again(now));
        news
    }

    /// Reads the files that changed since they were read.
    pub fn look_again(&self, now: Timestamp) -> Vec<News> {
        let slots: Vec<Arc<Slot>> = self.slots().values().cloned().collect();
        slots.iter().filter_map(|slot| slot.look_again(now)).collect()
    }

    /// Notes what an authority said last about a certificate that is asked for.
    pub fn set_refused(&self, name: &CertificateName, why: Option<&str>) {
        let slot = self.slots().get(name).cloned();
        let Some(slot) = slot else { return };
        let refused: Option<Arc<str>> = why.map(Into::into);
        slot.standing
            .rcu(|standing| Standing { refused: refused.clone(), ..Standing::clone(standing) });
    }

    /// How they stand, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Standing> {
        self.slots().values().map(|slot| Standing::clone(&slot.standing.load())).collect()
    }

    /// Those of these names, for handshakes.
    pub(super) fn shown(&self, names: &[CertificateName]) -> Shown {
        let slots = self.slots();
        let own: Vec<_> = names.iter().filter_map(|name| slots.get(name)).map(Arc::clone).collect();
        let awaited = own.iter().any(|slot| slot.standing.load().asked_for);
        let stand_in = slots.get(&CertificateName::auto()).filter(|_| awaited).cloned();
        Shown { own, stand_in }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<CertificateName, Arc<Slot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn look_again(&self, now: Timestamp) -> Option<News> {
        let before = self.standing.load_full();
        let found = [look(&before.files.chain), look(&before.files.key)];
        {
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            if *looks == found {
                return None;
            }
            *looks = found;
        }
        let after = read(before.name.clone(), before.place(), Some(&before), now);
        let first = before.certificate.is_none() != after.certificate.is_none();
        self.standing.store(Arc::new(after.clone()));
        Some(News { standing: after, first })
    }
}

impl Standing {
    fn place(&self) -> Place {
        Place { files: self.files.clone(), asked_for: self.asked_for }
    }
}

/// Reads a certificate; what was shown before stays where it cannot be read. One that is asked for may
/// not be there yet.
fn read(name: CertificateName, place: Place, old: Option<&Standing>, now: Timestamp) -> Standing {
    let Place { files, asked_for } = place;
    let refused = old.and_then(|old| old.refused.clone());
    let is_awaited = asked_for && look(&files.chain).is_none();
    let (certificate, trouble, since) = match Certificate::read(&files) {
        Ok(found) => (Some(found), None, now),
        Err(error) => (
            old.and_then(|old| old.certificate.clone()),
            Some(error).filter(|_| !is_awaited),
            old.map_or(now, |old| old.since),
        ),
    };
    Standing { name, files, asked_for, refused, certificate, trouble, since }
}

/// The certificates of one virtual server, the first one for whoever asks for no name.
#[derive(Debug)]
pub(super) struct Shown {
    own: Vec<Arc<Slot>>,
    /// Our own, where none of the others is there yet.
    stand_in: Option<Arc<Slot>>,
}

impl Shown {
    /// Whether there is one at this moment.
    pub(super) fn any(&self) -> bool {
        self.choose(None).is_some()
    }

    /// The one for whoever asks for this name.
    pub(super) fn choose(&self, host: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let of = |slot: &Arc<Slot>| slot.standing.load().certificate.clone();
        let all = || self.own.iter().filter_map(of);
        let fit = host.and_then(|host| all().find(|it| it.facts.is_for(host)));
        let found = fit.or_else(|| all().next());
        found.or_else(|| self.stand_in.as_ref().and_then(of)).map(|it| it.certified)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::tls::generate;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn name(text: &str) -> CertificateName {
        CertificateName::parse(text).unwrap()
    }

    fn write(place: &Path, called: &str, host: &str) -> Files {
        let texts = generate::self_signed(&[host.to_owned()], NOW).unwrap();
        let files = Files {
            chain: place.join(format!("{called}.chain")),
            key: place.join(format!("{called}.key")),
        };
        // As a careful administrator would: the new file takes the old one's place.
        for (path, text) in [(&files.chain, &texts.chain[..]), (&files.key, &texts.key[..])] {
            let beside = path.with_extension("new");
            fs::write(&beside, text).unwrap();
            fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
            fs::rename(&beside, path).unwrap();
        }
        files
    }

    fn wanted(files: &[(&str, &Files)]) -> BTreeMap<CertificateName, Place> {
        let place = |files: &Files| Place { files: files.clone(), asked_for: false };
        files.iter().map(|(called, files)| (name(called), place(files))).collect()
    }

    #[test]
    fn a_new_one_is_shown_and_a_broken_one_leaves_the_old() {
        let place = tempfile::tempdir().unwrap();
        let files = write(place.path(), "a", "one.example");
        let all = Certificates::default();
        let news = all.set(wanted(&[("a", &files)]), NOW);
        assert!(news[0].first && news[0].standing.trouble.is_none(), "{news:?}");
        let shown = all.shown(&[name("a")]);
        let is = || shown.choose(None).map(|key| Facts::read(&key.cert[0]).unwrap().names);
        assert_eq!(is(), Some(vec!["one.example".to_owned()]));
        assert!(all.look_again(NOW).is_empty(), "nothing changed");

        fs::write(&files.chain, "half a certif").unwrap();
        let news = all.look_again(NOW);
        assert!(!news[0].first && news[0].standing.trouble.is_some(), "{news:?}");
        assert_eq!(is(), Some(vec!["one.example".to_owned()]), "the old one stays");

        write(place.path(), "a", "two.example");
        assert!(all.look_again(NOW)[0].standing.trouble.is_none());
        assert_eq!(is(), Some(vec!["two.example".to_owned()]));
        all.set(BTreeMap::new(), NOW);
        assert!(all.list().is_empty());
    }

    #[test]
    fn our_own_stands_in_for_one_that_is_asked_for_until_it_is_there() {
        let place = tempfile::tempdir().unwrap();
        let auto = write(place.path(), "auto", "auto.example");
        let both = place.path().join("relay.pem");
        let asked = Files { chain: both.clone(), key: both.clone() };
        let all = Certificates::default();
        let mut all_of_them = wanted(&[("auto", &auto)]);
        all_of_them.insert(name("relay"), Place { files: asked, asked_for: true });
        let news = all.set(all_of_them, NOW);
        assert!(news.iter().all(|it| it.standing.trouble.is_none()), "{news:?}");
        let shown = all.shown(&[name("relay")]);
        let is = || shown.choose(Some("x")).map(|key| Facts::read(&key.cert[0]).unwrap().names);
        assert_eq!(is(), Some(vec!["auto.example".to_owned()]));
        all.set_refused(&name("relay"), Some("no"));
        assert_eq!(all.list()[1].refused.as_deref(), Some("no"));

        let texts = generate::self_signed(&["relay.example".to_owned()], NOW).unwrap();
        fs::write(&both, [&texts.key[..], &texts.chain[..]].concat()).unwrap();
        fs::set_permissions(&both, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(all.look_again(NOW)[0].first);
        assert_eq!(is(), Some(vec!["relay.example".to_owned()]));
        fs::write(&both, "half a certif").unwrap();
        assert!(all.look_again(NOW)[0].standing.trouble.is_some());
        assert_eq!(is(), Some(vec!["relay.example".to_owned()]), "the old one stays");
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let place = tempfile::tempdir().unwrap();
        let (one, two) =
            (write(place.path(), "a", "a.example"), write(place.path(), "b", "b.example"));
        let why = |files: &Files| Certificate::read(files).unwrap_err().to_string();
        let mixed = Files { key: two.key.clone(), ..one.clone() };
        assert!(why(&mixed).contains("is not the key of"), "{}", why(&mixed));
        let absent = Files { chain: place.path().join("none"), ..one.clone() };
        assert!(why(&absent).contains("cannot read"));
        let swapped = Files { chain: one.key.clone(), key: one.chain.clone() };
        assert!(why(&swapped).contains("no certificate"));
        let keyless = Files { key: one.chain.clone(), ..one.clone() };
        fs::set_permissions(&one.chain, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(why(&keyless).contains("no private key"));
        fs::set_permissions(&one.key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(why(&one).contains("chmod o="), "{}", why(&one));
        let files = Files { chain: place.path().to_owned(), ..two };
        assert!(why(&files).contains("cannot read"));
    }

    #[test]
    fn a_client_gets_the_one_for_the_name_it_asks_for() {
        let place = tempfile::tempdir().unwrap();
        let (one, two) =
            (write(place.path(), "a", "a.example"), write(place.path(), "b", "*.b.example"));
        let all = Certificates::default();
        all.set(wanted(&[("a", &one), ("b", &two)]), NOW);
        let shown = all.shown(&[name("a"), name("b"), name("gone")]);
        let of = |host| Facts::read(&shown.choose(host).unwrap().cert[0]).unwrap().names[0].clone();
        for (host, expected) in [
            (None, "a.example"),
            (Some("a.example"), "a.example"),
            (Some("MX.b.example"), "*.b.example"),
            (Some("c.example"), "a.example"),
        ] {
            assert_eq!(of(host), expected, "{host:?}");
        }
        assert!(shown.any() && !all.shown(&[name("gone")]).any());
    }
}
