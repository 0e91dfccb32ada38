//! Who asks: the person behind a connection, and what they may do.
//!
//! In: the credentials the kernel keeps of a connection. Out: a name, a role, and the virtual
//! servers it holds for. Root and the daemon's own user are admins; everybody else is what the
//! operators' lists say of them or of their groups, the highest role of several. Whoever asks over
//! the submit socket has no role at all there, whoever he is: he sees his own mail.

use std::collections::{BTreeMap, BTreeSet};

use mailroot_common::config::ServerName;
use mailroot_common::config::control::{Operator, Role};
use mailroot_common::control::{Kind, Problem};

use super::endpoint::Scope;
use crate::local::{Credentials, Known, People};
use crate::service::Operators;

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
    /// All, but of their mail only what this user handed in over the submit socket.
    Own(u32),
}

impl Reach {
    /// Whether it may touch this one.
    pub(super) fn covers(&self, server: &ServerName) -> bool {
        match self {
            Self::Nothing => false,
            Self::All | Self::Own(_) => true,
            Self::Servers(servers) => servers.contains(server),
        }
    }

    /// Whether it may see a message that this user handed in, or nobody of this machine.
    pub(super) fn sees_mail_of(&self, uid: Option<u32>) -> bool {
        match self {
            Self::Own(owner) => uid == Some(*owner),
            Self::Nothing | Self::All | Self::Servers(_) => true,
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

/// Who may do what.
#[derive(Clone, Debug, Default)]
pub(super) struct Judge(People);

impl Judge {
    /// Somebody who asks about his own mail.
    pub(super) async fn owner(&self, credentials: Credentials) -> (Caller, Reach) {
        let name = self.0.look_up(credentials).await.name;
        (Caller { name, role: Role::Viewer, credentials }, Reach::Own(credentials.uid))
    }

    /// Who it is, and whether they may do what is needed; if so, with which virtual servers.
    pub(super) async fn admit(
        &self,
        credentials: Credentials,
        operators: &Operators,
        (needed, scope): (Role, Scope),
        named: Option<&ServerName>,
    ) -> Result<(Caller, Reach), Problem> {
        let known = self.0.look_up(credentials).await;
        let roles = if credentials.is_ours() {
            Roles::of_ourselves()
        } else {
            Roles::of(&known, operators)
        };
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
}

/// The highest role any entry gives.
fn role_of(known: &Known, operators: &[Operator]) -> Option<Role> {
    let means = |operator: &&Operator| operator.who.means(&known.name, &known.groups);
    operators.iter().filter(means).map(|operator| operator.role).max()
}

#[cfg(test)]
mod tests {
    use mailroot_common::config::control::Person;
    use nix::unistd::geteuid;

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
        Known { name: name.to_owned(), groups, is_certain: true }
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

    #[tokio::test]
    async fn root_and_our_own_user_are_admins_and_strangers_are_refused() {
        let people = Judge::default();
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
    }

    #[tokio::test]
    async fn a_role_that_is_too_low_is_told() {
        let people = Judge::default();
        let credentials = Credentials { uid: 4_000_002, gid: 7, pid: None };
        people.0.keep(credentials, known("anna", &[]));
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
