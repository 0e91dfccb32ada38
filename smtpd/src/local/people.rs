//! Who somebody is: the credentials of a connection, and what the user database says of them.
//!
//! The database may be remote and slow, so it is asked off the reactor, and what it said is kept for a
//! minute.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Group, Uid, User, geteuid, getgrouplist};
use tokio::net::UnixStream;

/// How long an answer of the user database is kept.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// How many people are kept.
const KEPT_MAX: usize = 1_000;

/// What the kernel says of the process at the other end, as it was when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its process, if the kernel knows.
    pub pid: Option<i32>,
}

impl Credentials {
    /// Those of a connection; none if the kernel does not tell.
    #[must_use]
    pub fn of(stream: &UnixStream) -> Option<Self> {
        let peer = stream.peer_cred().ok()?;
        Some(Self { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() })
    }

    /// Whether it is root or the daemon's own user, who can do everything anyway.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.uid == 0 || self.uid == geteuid().as_raw()
    }
}

/// What the user database says of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The login name, or the number of a user without one.
    pub name: String,
    /// The names of its groups.
    pub groups: Vec<String>,
    /// Whether the database answered; else there may be another name, and more groups.
    pub is_certain: bool,
}

/// What was said, and when.
#[derive(Clone, Debug)]
struct Kept {
    at: Instant,
    known: Known,
}

/// The people seen lately, by user and group. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub struct People(Arc<Mutex<HashMap<(u32, u32), Kept>>>);

impl People {
    /// Who it is.
    pub async fn look_up(&self, credentials: Credentials) -> Known {
        let key = (credentials.uid, credentials.gid);
        if let Some(known) = self.kept(key) {
            return known;
        }
        let asked = tokio::task::spawn_blocking(move || ask_system(credentials));
        let known = asked.await.unwrap_or_else(|_| nameless(credentials, false));
        if known.is_certain {
            self.keep(credentials, known.clone());
        }
        known
    }

    /// Keeps an answer for as long as the system's are kept.
    pub fn keep(&self, credentials: Credentials, known: Known) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert((credentials.uid, credentials.gid), Kept { at: Instant::now(), known });
    }

    fn kept(&self, key: (u32, u32)) -> Option<Known> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { at, known } = kept.get(&key)?;
        (at.elapsed() < KEPT_FOR).then(|| known.clone())
    }
}

fn nameless(credentials: Credentials, is_certain: bool) -> Known {
    Known { name: credentials.uid.to_string(), groups: Vec::new(), is_certain }
}

/// Asks the user database; blocks.
fn ask_system(credentials: Credentials) -> Known {
    let gid = Gid::from_raw(credentials.gid);
    let Ok(user) = User::from_uid(Uid::from_raw(credentials.uid)) else {
        return nameless(credentials, false);
    };
    let (mut gids, mut is_certain) = (vec![gid], true);
    if let Some(user) = &user
        && let Ok(name) = CString::new(user.name.as_str())
    {
        match getgrouplist(&name, user.gid) {
            Ok(more) => gids.extend(more),
            Err(_) => is_certain = false,
        }
    }
    gids.sort_by_key(|gid| gid.as_raw());
    gids.dedup();
    let mut groups = Vec::new();
    for gid in gids {
        match Group::from_gid(gid) {
            Ok(group) => groups.extend(group.map(|group| group.name)),
            Err(_) => is_certain = false,
        }
    }
    let name = user.map_or_else(|| credentials.uid.to_string(), |user| user.name);
    Known { name, groups, is_certain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_root() {
        let root = ask_system(Credentials { uid: 0, gid: 0, pid: None });
        assert_eq!(root.name, "root");
        assert!(root.groups.contains(&"root".to_owned()));
        let nobody_has = ask_system(Credentials { uid: 4_000_000, gid: 4_000_000, pid: None });
        assert_eq!(
            nobody_has,
            nameless(Credentials { uid: 4_000_000, gid: 4_000_000, pid: None }, true)
        );
    }

    #[tokio::test]
    async fn an_answer_is_kept() {
        let people = People::default();
        let somebody = Credentials { uid: 4_000_001, gid: 7, pid: None };
        assert_eq!(people.look_up(somebody).await.name, "4000001");
        assert!(people.kept((4_000_001, 7)).is_some());
        let known = Known { name: "anna".to_owned(), groups: Vec::new(), is_certain: true };
        people.keep(somebody, known.clone());
        assert_eq!(people.look_up(somebody).await, known);
    }
}
