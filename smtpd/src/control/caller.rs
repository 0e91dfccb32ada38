//! Who asks: the person behind a connection, and what they may do.
//!
//! In: the credentials the kernel keeps of a connection. Out: a name, a role, and the virtual
//! servers it holds for. Root and the daemon's own user are admins; everybody else is what the
//! operators' lists say of them or of their groups, the highest role of several. The system's user database may be remote and slow,
//! so it is asked off the reactor, and what it said is kept for a minute.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mailroot_common::config::ServerName;
use mailroot_common::config::control::{Operator, Person, Role};
use mailroot_common::control::{Kind, Problem};
use nix::unistd::{Gid, Group, Uid, User, geteuid, getgrouplist};

use super::endpoint::Scope;
use crate::service::Operators;

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

/// The virtual servers that a request may touch; none until the gate has said so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Reach {
    /// None.
    #[default]
    Nothing,
    /// All, and those to come.
    All,
    /// These.
    Servers(BTreeSet<ServerName>),
}

impl Reach {
    /// Whether it may touch this one.
    pub(super) fn covers(&self, server: &ServerName) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Servers(servers) => servers.contains(server),
        }
    }
}

/// What a person may do, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Roles {
    /// On everything.
    service: Option<Role>,
    /// On single virtual servers, by their own lists.
    servers: BTreeMap<ServerName, Role>,
}

impl Roles {
    /// Root, and the daemon's own user.
    fn of_ourselves() -> Self {
        Self { service: Some(Role::Admin), servers: BTreeMap::new() }
    }

    fn of(known: &Known, operators: &Operators) -> Self {
        let servers = operators.servers.iter();
        let servers =
            servers.filter_map(|(name, list)| Some((name.clone(), role_of(known, list)?)));
        Self { service: role_of(known, &operators.service), servers: servers.collect() }
    }

    /// The role a request is made in and what it may touch; or the role that is not enough.
    fn judge(
        &self,
        needed: Role,
        scope: Scope,
        named: Option<&ServerName>,
    ) -> Result<(Role, Reach), Option<Role>> {
        let highest = self.servers.values().copied().chain(self.service).max();
        let by_service = self.service.filter(|role| *role >= needed);
        match scope {
            Scope::Anyone => match highest.filter(|role| *role >= needed) {
                Some(role) => Ok((role, Reach::Nothing)),
                None => Err(highest),
            },
            Scope::Service => by_service.map(|role| (role, Reach::All)).ok_or(highest),
            Scope::Named => {
                let own = named.and_then(|name| self.servers.get(name)).copied();
                let role = own.max(self.service);
                role.filter(|role| *role >= needed).map(|role| (role, Reach::Nothing)).ok_or(role)
            }
            Scope::Chosen => {
                if let Some(role) = by_service {
                    return Ok((role, Reach::All));
                }
                let enough = self.servers.iter().filter(|(_, role)| **role >= needed);
                let reach: BTreeSet<_> = enough.map(|(name, _)| name.clone()).collect();
                if reach.is_empty() { Err(highest) } else { Ok((needed, Reach::Servers(reach))) }
            }
        }
    }
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
    /// Who it is, and whether they may do what is needed; if so, with which virtual servers.
    pub(super) async fn admit(
        &self,
        credentials: Credentials,
        operators: &Operators,
        (needed, scope): (Role, Scope),
        named: Option<&ServerName>,
    ) -> Result<(Caller, Reach), Problem> {
        let known = self.look_up(credentials).await;
        let is_ours = credentials.uid == 0 || credentials.uid == geteuid().as_raw();
        let roles = if is_ours { Roles::of_ourselves() } else { Roles::of(&known, operators) };
        let name = known.name;
        match roles.judge(needed, scope, named) {
            Ok((role, reach)) => Ok((Caller { name, role, credentials }, reach)),
            Err(Some(role)) => {
                let where_to = if scope == Scope::Service { " of the whole service" } else { "" };
                let detail = format!(
                    "{name} is {} and may not do that: it needs {}{where_to}",
                    role.word(),
                    needed.word()
                );
                Err(Problem::new("caller", Kind::NotPermitted, detail)
                    .hint("an admin changes roles with: smtpctl operator add NAME --role ROLE"))
            }
            Err(None) => {
                let what = if scope == Scope::Named && !roles.servers.is_empty() {
                    "that virtual server"
                } else {
                    "this service"
                };
                let detail = format!("{name} is no operator of {what}");
                Err(Problem::new("caller", Kind::NotPermitted, detail)
                    .hint("an admin adds people with: smtpctl operator add NAME"))
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

    fn everywhere() -> Operators {
        Operators { service: operators(), ..Operators::default() }
    }

    #[test]
    fn a_role_on_one_server_reaches_that_server_and_no_other() {
        let name = |text: &str| ServerName::parse(text).unwrap();
        let only = |text: &str| Reach::Servers([name(text)].into());
        let lan = Operator { who: Person::User("dora".to_owned()), role: Role::Operator };
        let lists = Operators {
            service: operators(),
            servers: [(name("lan"), vec![lan.clone()]), (name("wan"), Vec::new())].into(),
        };
        let dora = Roles::of(&known("dora", &[]), &lists);
        let (viewer, operator, admin) = (Role::Viewer, Role::Operator, Role::Admin);
        let (on_lan, on_wan) = (name("lan"), name("wan"));
        assert_eq!(dora.judge(viewer, Scope::Anyone, None), Ok((operator, Reach::Nothing)));
        assert_eq!(dora.judge(viewer, Scope::Service, None), Err(Some(operator)));
        let lan = dora.judge(operator, Scope::Named, Some(&on_lan));
        assert_eq!(lan, Ok((operator, Reach::Nothing)));
        assert_eq!(dora.judge(admin, Scope::Named, Some(&on_lan)), Err(Some(operator)));
        assert_eq!(dora.judge(viewer, Scope::Named, Some(&on_wan)), Err(None));
        assert_eq!(dora.judge(viewer, Scope::Named, None), Err(None));
        assert_eq!(dora.judge(viewer, Scope::Chosen, None), Ok((viewer, only("lan"))));
        assert_eq!(dora.judge(admin, Scope::Chosen, None), Err(Some(operator)));

        // Of the role on the service and that on the server the higher counts.
        let both = Roles { service: Some(viewer), ..dora };
        let lan = both.judge(operator, Scope::Named, Some(&on_lan));
        assert_eq!(lan, Ok((operator, Reach::Nothing)));
        assert_eq!(both.judge(operator, Scope::Named, Some(&on_wan)), Err(Some(viewer)));
        assert_eq!(both.judge(viewer, Scope::Chosen, None), Ok((viewer, Reach::All)));
        assert_eq!(both.judge(operator, Scope::Chosen, None), Ok((operator, only("lan"))));
        let nobody = Roles::of(&known("emil", &["users"]), &lists);
        assert_eq!(nobody.judge(viewer, Scope::Anyone, None), Err(None));
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
            let need = (needed, Scope::Service);
            let admitted = people.admit(credentials, &everywhere(), need, None).await;
            admitted.map(|(caller, _)| caller.role)
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
            let got =
                people.admit(credentials, &everywhere(), (needed, Scope::Service), None).await;
            assert_eq!(got.is_ok(), allowed, "{needed:?}");
            if let Err(problem) = got {
                assert!(problem.detail.contains("anna is viewer"), "{problem}");
            }
        }
    }
}
