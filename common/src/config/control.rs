//! `control:` - the socket of smtpctl and who may use it.

use std::fmt;
use std::path::PathBuf;

use super::choice::choice;
use super::node::{Kind, Node};
use super::section::{Reader, Setting, section};
use super::value::scalar;

section! {
    /// The control socket and the people who may give orders through it.
    pub struct Control {
        /// The socket that smtpctl talks to.
        socket: Option<PathBuf> = None, None, shown "/run/mailroot/control.sock";
        /// Users, and groups written with a leading %. A name alone is an admin.
        operators: Vec<Operator> = Operator::defaults(), Operator::defaults();
    }
}

choice! {
    /// What an operator may do.
    pub enum Role {
        /// See status, queues and sessions, but no message.
        Viewer = "viewer",
        /// Also act on queues and sessions.
        Operator = "operator",
        /// Also change the configuration.
        Admin = "admin",
    }
}

/// Whom an entry of the operators' list means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Person {
    /// A user by name.
    User(String),
    /// The members of a group.
    Group(String),
}

/// An entry of the operators' list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operator {
    /// Whom it means.
    pub who: Person,
    /// What they may do.
    pub role: Role,
}

impl Operator {
    fn defaults() -> Vec<Self> {
        vec![
            Self { who: Person::User("root".to_owned()), role: Role::Admin },
            Self { who: Person::Group("mailroot-operators".to_owned()), role: Role::Admin },
        ]
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => f.write_str(name),
            Self::Group(name) => write!(f, "%{name}"),
        }
    }
}

impl Person {
    /// Whether that is somebody of this login name and in these groups.
    #[must_use]
    pub fn means(&self, login: &str, groups: &[String]) -> bool {
        match self {
            Self::User(name) => name == login,
            Self::Group(name) => groups.contains(name),
        }
    }
}

impl Setting for Person {
    type Quantity = u8;

    fn type_name() -> String {
        "user or %group".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        read_person(node, reader)
    }
}

impl Setting for Operator {
    type Quantity = u8;

    fn type_name() -> String {
        "user or %group, or {who, role}".to_owned()
    }

    fn show(&self) -> String {
        match self.role {
            Role::Admin => self.who.to_string(),
            role => format!("{} ({})", self.who, role.word()),
        }
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Kind::Map(_) = node.kind else {
            return Some(Self { who: read_person(node, reader)?, role: Role::Admin });
        };
        let (mut who, mut role, mut named) = (None, Some(Role::Admin), false);
        for (key, value) in reader.entries(node, "this entry", &["who", "role"]) {
            if key == "who" {
                named = true;
                who = read_person(value, reader);
            } else {
                role = Role::read(value, reader);
            }
        }
        if !named {
            let diagnostic =
                reader.error_at("E0104", "this entry names nobody", node, "who is missing");
            reader.report(diagnostic.help("write {who: anna, role: viewer}"));
        }
        Some(Self { who: who?, role: role? })
    }
}

/// A name as login names are: what `useradd` takes, and the capitals directories have.
fn read_person(node: &Node, reader: &mut Reader) -> Option<Person> {
    let text = scalar(node, reader, "a user or a %group")?;
    let (name, group) = text.strip_prefix('%').map_or((text, false), |name| (name, true));
    let good = !name.is_empty()
        && name.len() <= 256
        && !name.starts_with('-')
        && name.chars().all(|c| c.is_alphanumeric() || "_-.@\\$+".contains(c));
    if !good {
        let diagnostic = reader.error_at(
            "E0308",
            format!("{text:?} is not a user or group"),
            node,
            "not a name",
        );
        reader.report(diagnostic.help("write a user's name, or \"%group\" in quotes"));
        return None;
    }
    Some(if group { Person::Group(name.to_owned()) } else { Person::User(name.to_owned()) })
}
