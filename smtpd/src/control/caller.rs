//! Who asks: the person behind a connection, and what they may do.
//!
//! In: the credentials the kernel keeps of a connection. Out: a name and a role. Root and the
//! daemon's own user are admins; everybody else is what the operators' list says of them or of
//! their groups, the highest role of several. The system's user database may be remote and slow,
//! so it is asked off the reactor, and what it said is kept for a minute.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mailroot_common::config::control::{Operator, Person, Role};
use mailroot_common::control::{Kind, Problem};
use nix::unistd::{Gid, Group, Uid, User, geteuid, getgrouplist};

/// How long an answer of the user database is kept.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// How many people are kept; the socket's group is not larger.
const KEPT_MAX: usize = 1_000;

/// What the kernel says of the process at the other end, as it was when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    /// Its user.
    pub(super) uid: u32,
    /// Its group.
    pub(super) gid: u32,
    /// Its process, if the kernel knows.
    pub(super) pid: Option<i32>,
}

/// A person whose request is let in.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The login name, or the number of a user without one.
    pub(super) name: String,
    /// What they may do.
    pub(super) role: Role,
    /// Where the request came from.
    pub(super) credentials: Credentials,
}

/// What the user database says of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    name: String,
    groups: Vec<String>,
}

/// What was said, and when.
#[derive(Clone, Debug)]
struct Kept {
    at: Instant,
    known: Known,
}

/// The people seen lately, by user and group.
#[derive(Clone, Debug, Default)]
pub(super) struct People(Arc<Mutex<HashMap<(u32, u32), Kept>>>);

impl People {
    /// Who it is, and whether they may do what needs `role`.
    pub(super) async fn admit(
        &self,
        credentials: Credentials,
        operators: &[Operator],
        needed: Role,
    ) -> Result<Caller, Problem> {
        let known = self.look_up(credentials).await;
        let is_ours = credentials.uid == 0 || credentials.uid == geteuid().as_raw();
        let role = if is_ours { Some(Role::Admin) } else { role_of(&known, operators) };
        let name = known.name;
        match role {
            Some(role) if role >= needed => Ok(Caller { name, role, credentials }),
            Some(role) => {
                let detail = format!(
                    "{name} is {} and may not do that: it needs {}",
                    role.word(),
                    needed.word()
                );
                Err(Problem::new("caller", Kind::NotPermitted, detail)
                    .hint("an admin changes roles under control.operators in mailroot.yaml"))
            }
            None => {
                let detail = format!("{name} is no operator of this service");
                Err(Problem::new("caller", Kind::NotPermitted, detail)
                    .hint("an admin adds people under control.operators in mailroot.yaml"))
            }
        }
    }

    async fn look_up(&self, credentials: Credentials) -> Known {
        let key = (credentials.uid, credentials.gid);
        if let Some(known) = self.kept(key) {
            return known;
        }
        let asked = tokio::task::spawn_blocking(move || ask_system(credentials));
        let known = asked.await.unwrap_or_else(|_| nameless(credentials));
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, Kept { at: Instant::now(), known: known.clone() });
        known
    }

    fn kept(&self, key: (u32, u32)) -> Option<Known> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { at, known } = kept.get(&key)?;
        (at.elapsed() < KEPT_FOR).then(|| known.clone())
    }
}

fn nameless(credentials: Credentials) -> Known {
    Known { name: credentials.uid.to_string(), groups: Vec::new() }
}

/// Asks the user database; blocks.
fn ask_system(credentials: Credentials) -> Known {
    let gid = Gid::from_raw(credentials.gid);
    let user = User::from_uid(Uid::from_raw(credentials.uid)).ok().flatten();
    let mut gids = vec![gid];
    if let Some(user) = &user
        && let Ok(name) = CString::new(user.name.as_str())
        && let Ok(more) = getgrouplist(&name, user.gid)
    {
        gids.extend(more);
    }
    gids.sort_by_key(|gid| gid.as_raw());
    gids.dedup();
    let name_of = |gid: &Gid| Group::from_gid(*gid).ok().flatten().map(|group| group.name);
    Known {
        groups: gids.iter().filter_map(name_of).collect(),
        name: user.map_or_else(|| nameless(credentials).name, |user| user.name),
    }
}

/// The highest role any entry gives.
fn role_of(known: &Known, operators: &[Operator]) -> Option<Role> {
    let means = |operator: &&Operator| match &operator.who {
        Person::User(name) => *name == known.name,
        Person::Group(name) => known.groups.contains(name),
    };
    operators.iter().filter(means).map(|operator| operator.role).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operators() -> Vec<Operator> {
        vec![
            Operator { who: Person::User("anna".to_owned()), role: Role::Viewer },
            Operator { who: Person::Group("helpdesk".to_owned()), role: Role::Operator },
            Operator { who: Person::Group("chiefs".to_owned()), role: Role::Admin },
        ]
    }

    fn known(name: &str, groups: &[&str]) -> Known {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        Known { name: name.to_owned(), groups }
    }

    #[test]
    fn the_highest_role_of_user_and_groups_counts() {
        for (person, role) in [
            (known("anna", &[]), Some(Role::Viewer)),
            (known("anna", &["users", "helpdesk"]), Some(Role::Operator)),
            (known("ben", &["helpdesk", "chiefs"]), Some(Role::Admin)),
            (known("ben", &["users"]), None),
            (known("helpdesk", &["anna"]), None),
        ] {
            assert_eq!(role_of(&person, &operators()), role, "{person:?}");
        }
    }

    #[test]
    fn the_system_knows_root() {
        let root = ask_system(Credentials { uid: 0, gid: 0, pid: None });
        assert_eq!(root.name, "root");
        assert!(root.groups.contains(&"root".to_owned()));
        let nobody_has = ask_system(Credentials { uid: 4_000_000, gid: 4_000_000, pid: None });
        assert_eq!(nobody_has, known("4000000", &[]));
    }

    #[tokio::test]
    async fn root_and_our_own_user_are_admins_and_strangers_are_refused() {
        let people = People::default();
        let admit = async |uid: u32, needed| {
            let credentials = Credentials { uid, gid: uid, pid: None };
            people.admit(credentials, &operators(), needed).await.map(|caller| caller.role)
        };
        assert_eq!(admit(0, Role::Admin).await, Ok(Role::Admin));
        assert_eq!(admit(geteuid().as_raw(), Role::Admin).await, Ok(Role::Admin));
        let problem = admit(4_000_001, Role::Viewer).await.unwrap_err();
        assert_eq!(problem.exit, 4);
        assert!(people.kept((4_000_001, 4_000_001)).is_some(), "the answer is kept");
    }

    #[tokio::test]
    async fn a_role_that_is_too_low_is_told() {
        let people = People::default();
        let key = (4_000_002, 7);
        let kept = Kept { at: Instant::now(), known: known("anna", &[]) };
        people.0.lock().unwrap().insert(key, kept);
        let credentials = Credentials { uid: key.0, gid: key.1, pid: None };
        for (needed, allowed) in
            [(Role::Viewer, true), (Role::Operator, false), (Role::Admin, false)]
        {
            let got = people.admit(credentials, &operators(), needed).await;
            assert_eq!(got.is_ok(), allowed, "{needed:?}");
            if let Err(problem) = got {
                assert!(problem.detail.contains("anna is viewer"), "{problem}");
            }
        }
    }
}
