//! `ldap`: the directory that knows a server's recipients.

use std::time::Duration;

use clap::Subcommand;
use mailroot_common::control::{
    Check, Edited, KeyEdit, Kind, LdapPassword, LdapTest, Problem, ServerDetail, path,
};

use crate::doctor;
use crate::password::PasswordOptions;
use crate::server::change::{edit_keys, read_assignments};
use crate::terms::{TermOptions, report};
use crate::tool::Tool;

/// A look may last as long as several servers that do not answer.
const TEST_WAIT: Duration = Duration::from_secs(300);
/// What stands before each key.
const SECTION: &str = "ldap.";

/// The verbs of `ldap`.
#[derive(Debug, Subcommand)]
pub(crate) enum LdapCommand {
    /// Show the settings.
    Show,
    /// Give settings other values, at once and in the file.
    Set(Set),
    /// Call the directory servers, and look an address up.
    Test(Test),
    /// Bind with a name and another password, which is asked for or read as below.
    Passwd(Passwd),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Passwd {
    /// The name to bind with, if it is to be another one.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    password: PasswordOptions,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// KEY=VALUE, or for lists KEY+=ITEM and KEY-=ITEM, without ldap. in front.
    #[arg(value_name = "KEY=VALUE", required = true)]
    assignments: Vec<String>,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// An address of the server's own domains.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
}

pub(crate) async fn run(tool: &mut Tool, command: LdapCommand) -> Result<u8, Problem> {
    match command {
        LdapCommand::Show => {
            let path = path::fill(path::SERVER, &[tool.server()]);
            let detail: ServerDetail = tool.daemon().await?.get(&path).await?;
            let mut settings = detail.settings;
            settings.retain(|setting| setting.key.starts_with(SECTION));
            tool.print_rows(settings)?;
            Ok(0)
        }
        LdapCommand::Set(Set { assignments, terms }) => {
            let edits = read_assignments(&assignments)?.into_iter().map(in_section).collect();
            let path = path::fill(path::SERVER, &[tool.server()]);
            edit_keys(tool, &path, edits, &terms).await
        }
        LdapCommand::Test(Test { address }) => {
            let path = path::fill(path::LDAP_TEST, &[tool.server()]);
            let body = LdapTest { address };
            let checks: Vec<Check> = tool.daemon().await?.post(&path, &body, TEST_WAIT).await?;
            doctor::conclude(tool, checks)
        }
        LdapCommand::Passwd(args) => passwd(tool, args).await,
    }
}

async fn passwd(tool: &mut Tool, args: Passwd) -> Result<u8, Problem> {
    let name = format!("the directory of {}", tool.server());
    let Some(password) = args.password.read(tool, &name)? else {
        let detail = "no password is given, and nobody can be asked";
        return Err(Problem::new("ldap", Kind::Usage, detail)
            .hint("pass it with --password-stdin or --password-file"));
    };
    let wish = LdapPassword { password, user: args.user };
    let path = args.terms.on(&path::fill(path::LDAP_PASSWORD, &[tool.server()]))?;
    let edited: Edited = tool.daemon().await?.put(&path, &wish).await?;
    if edited.changed || edited.dry_run {
        return report(tool, &edited);
    }
    tool.say_done(&edited, &format!("{name} is asked with another password"))?;
    Ok(0)
}

/// The same edit of the key of that name within the section.
fn in_section(edit: KeyEdit) -> KeyEdit {
    let whole = |key: String| match key.starts_with(SECTION) {
        true => key,
        false => format!("{SECTION}{key}"),
    };
    match edit {
        KeyEdit::Set { key, value } => KeyEdit::Set { key: whole(key), value },
        KeyEdit::Add { key, item } => KeyEdit::Add { key: whole(key), item },
        KeyEdit::Remove { key, item } => KeyEdit::Remove { key: whole(key), item },
        KeyEdit::Unset { key } => KeyEdit::Unset { key: whole(key) },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn keys_stand_in_their_section_whether_it_is_said_or_not() {
        let words = ["base=DC=x", "ldap.server+=ldap://a"].map(str::to_owned);
        let edits: Vec<_> = read_assignments(&words).unwrap().into_iter().map(in_section).collect();
        let base = KeyEdit::Set { key: "ldap.base".to_owned(), value: "DC=x".to_owned() };
        let server = KeyEdit::Add { key: "ldap.server".to_owned(), item: "ldap://a".to_owned() };
        assert_eq!(edits, [base, server]);
    }
}
