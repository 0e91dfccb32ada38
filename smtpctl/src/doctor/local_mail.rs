//! Mail that programs of this machine send: who takes it, under which name, and where that to root ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mailroot_common::address::{Domain, LocalPart, Mailbox};
use mailroot_common::aliases::Aliases;
use mailroot_common::control::{Check, Decision, Level, Problem, Question, path};

use crate::alias;
use crate::client::WAIT;
use crate::service_user::ServiceUser;
use crate::tool::Tool;

pub(super) const TOPIC: &str = "local-mail";
/// Where programs look for it (FHS 3.0 section 4.10).
const SENDMAIL: &str = "/usr/sbin/sendmail";
/// The name of this machine in mail (Debian Policy section 11.6).
pub(super) const MAILNAME: &str = "/etc/mailname";
pub(super) const ALIASES: &str = "/etc/aliases";
/// Where dpkg keeps which files a package has.
const PACKAGES: &str = "/var/lib/dpkg/info";
/// Names of checks, by which [`super::fix`] knows what can be put right.
pub(super) const NO_MAILNAME: &str = "no_mailname";
pub(super) const NO_ALIASES: &str = "no_aliases";
/// Where the mail of root goes that nobody sends elsewhere.
const ROOT: &str = "root";

/// Looks at what lies on this machine, and asks the daemon, if it is there, where root's mail ends.
pub(super) async fn local_mail(tool: &mut Tool, is_up: bool) -> Result<Vec<Check>, Problem> {
    let root = Path::new("/");
    let mut checks = vec![sendmail(root), mailname(root)];
    let service = ServiceUser::of(tool.global.home.as_deref());
    let (found, aliases) = aliases(root, service.as_ref());
    checks.extend(found);
    // Without a file that was read nothing is known of root's mail, and that was said.
    if let Some(aliases) = aliases {
        let end = end_of_root(&aliases);
        let way = match &end {
            Some(end) if is_up => way_of(tool, end).await?,
            _ => None,
        };
        checks.push(root_mail(end.as_deref(), way.as_deref()));
    }
    Ok(checks)
}

fn check(level: Level, name: &str, text: impl Into<String>) -> Check {
    Check::new(level, TOPIC, name, text)
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Who takes the mail of programs.
fn sendmail(root: &Path) -> Check {
    let place = below(root, SENDMAIL);
    if fs::symlink_metadata(&place).is_err() {
        let text = format!("there is no {SENDMAIL}: cron and other programs cannot send mail");
        return check(Level::Warn, "sendmail", text).hint(
            "install the package mailroot-mta, or have programs speak SMTP with 127.0.0.1:25",
        );
    }
    let Ok(target) = place.canonicalize() else {
        let text = format!("{SENDMAIL} is a link to nothing");
        return check(Level::Fail, "sendmail", text)
            .hint("install the package it belonged to again");
    };
    let program = target.file_name().map(|name| name.to_string_lossy().into_owned());
    if program.as_deref().is_some_and(|name| name.starts_with("smtpctl")) {
        return check(Level::Ok, "sendmail", format!("{SENDMAIL} is Mailroot's"));
    }
    let package = owner(root).map(|name| format!(" of the package {name}")).unwrap_or_default();
    let text = format!(
        "{SENDMAIL} is {}{package}: mail of programs on this machine goes there, not here",
        target.display()
    );
    check(Level::Warn, "sendmail", text).hint(
        "install the package mailroot-mta in its place, or have it use this host as its relay",
    )
}

/// The package that has the file, where dpkg knows.
fn owner(root: &Path) -> Option<String> {
    let lists = fs::read_dir(below(root, PACKAGES)).ok()?.flatten();
    let mut names = lists.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?.strip_suffix(".list")?.to_owned();
        let text = fs::read_to_string(entry.path()).ok()?;
        text.lines().any(|line| line == SENDMAIL).then_some(name)
    });
    let found = names.next()?;
    Some(found.split(':').next().unwrap_or(&found).to_owned())
}

/// The name that addresses without a domain get.
fn mailname(root: &Path) -> Check {
    match fs::read_to_string(below(root, MAILNAME)) {
        Ok(text) => match Domain::of_mail_name(&text) {
            Ok(name) => check(Level::Ok, "mailname", format!("{MAILNAME} says {name}")),
            Err(error) => {
                let text = format!("{MAILNAME} holds no domain: {error}");
                check(Level::Fail, "mailname", text).hint("write one name such as example.net")
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("there is no {MAILNAME}, by which programs know their domain");
            check(Level::Warn, NO_MAILNAME, text).hint(format!(
                "write the domain into {MAILNAME}; smtpctl doctor local-mail --fix does"
            ))
        }
        Err(error) => check(Level::Warn, "mailname", format!("cannot read {MAILNAME}: {error}")),
    }
}

/// What is said of the aliases, and those there are.
fn aliases(root: &Path, service: Option<&ServiceUser>) -> (Vec<Check>, Option<Aliases>) {
    let text = match alias::read(&below(root, ALIASES)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("there is no {ALIASES}: nobody is told to get mail for root");
            let check = check(Level::Warn, NO_ALIASES, text);
            let hint = format!("write  root: you@example.net  into {ALIASES}");
            return (vec![check.hint(hint)], None);
        }
        Err(error) => {
            let text = format!("cannot read {ALIASES}: {error}");
            return (vec![check(Level::Warn, "aliases", text)], None);
        }
    };
    let aliases = alias::understand(&text, service);
    let unread = service.and_then(|service| service.cannot_read(&below(root, ALIASES)));
    let unread = unread.map(|why| check(Level::Fail, "aliases", format!("{ALIASES}: {why}")));
    let faults = aliases.faults();
    let faults = faults.iter().map(|fault| {
        check(Level::Warn, "aliases", format!("{ALIASES}:{fault}")).hint("correct the line")
    });
    let mut checks: Vec<Check> = unread.into_iter().chain(faults).collect();
    if checks.is_empty() {
        let count = crate::change::counted(aliases.list().count() as u64, "name");
        checks.push(check(Level::Ok, "aliases", format!("{ALIASES} has {count}")));
    }
    (checks, Some(aliases))
}

/// Where mail to root ends: the first of its addresses, else of the names of this machine behind it;
/// nothing if nobody is behind it.
fn end_of_root(aliases: &Aliases) -> Option<String> {
    let root = LocalPart::parse(ROOT).ok()?;
    let Some(found) = aliases.resolve(&root, |_| false) else { return Some(ROOT.to_owned()) };
    let address = found.addresses.first().map(ToString::to_string);
    address.or_else(|| found.names.first().map(ToString::to_string))
}

/// The route of an address by the daemon's rules, in words.
async fn way_of(tool: &mut Tool, address: &str) -> Result<Option<String>, Problem> {
    if Mailbox::parse(address).is_err() {
        return Ok(None);
    }
    let question = Question { to: Some(address.to_owned()), ..Question::default() };
    let path = path::fill(path::DECIDE, &[tool.server()]);
    match tool.daemon().await?.post::<Decision>(&path, &question, WAIT).await {
        Ok(decision) => Ok(decision.way.map(|way| way.hop)),
        // A server that was never there decides nothing.
        Err(_) => Ok(None),
    }
}

/// Whether mail to root has an end where a person reads it.
fn root_mail(end: Option<&str>, way: Option<&str>) -> Check {
    let drop = "it lies in Drop, where nobody may look";
    let hint = format!("write  root: you@example.net  into {ALIASES}");
    let Some(end) = end else {
        let text = "root has an alias behind which is nobody".to_owned();
        return check(Level::Fail, "root", text).hint(hint);
    };
    if !end.contains('@') {
        let text = format!("mail to root ends with {end}, a user of this machine: {drop}");
        return check(Level::Warn, "root", text).hint(hint);
    }
    match way {
        Some(way) if way.eq_ignore_ascii_case("drop") => {
            let text = format!("root is aliased to {end}, a domain of this host: {drop}");
            check(Level::Warn, "root", text)
                .hint("alias it to an address elsewhere, or have somebody read Drop")
        }
        Some(way) => {
            check(Level::Ok, "root", format!("root is aliased to {end}, which goes by {way}"))
        }
        None => check(Level::Ok, "root", format!("root is aliased to {end}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn whoever_has_sendmail_is_named() {
        let bare = machine(&[]);
        assert!(sendmail(bare.path()).text.starts_with("there is no"));
        let other = machine(&[
            ("usr/sbin/exim4", ""),
            ("var/lib/dpkg/info/exim4-daemon-light:amd64.list", "/.\n/usr/sbin/sendmail\n"),
            ("var/lib/dpkg/info/x.list", "/usr/sbin/sendmailer\n"),
        ]);
        symlink("exim4", other.path().join("usr/sbin/sendmail")).unwrap();
        let found = sendmail(other.path());
        assert!(
            found.level == Level::Warn && found.text.contains("exim4-daemon-light"),
            "{found:?}"
        );
        let ours = machine(&[("usr/bin/smtpctl", ""), ("usr/sbin/x", "")]);
        symlink("../bin/smtpctl", ours.path().join("usr/sbin/sendmail")).unwrap();
        assert_eq!(sendmail(ours.path()).level, Level::Ok);
        fs::remove_file(ours.path().join("usr/bin/smtpctl")).unwrap();
        assert_eq!(sendmail(ours.path()).level, Level::Fail);
    }

    #[test]
    fn a_mailname_is_a_domain() {
        assert_eq!(mailname(machine(&[]).path()).name, NO_MAILNAME);
        assert_eq!(mailname(machine(&[("etc/mailname", "a.example\n")]).path()).level, Level::Ok);
        assert_eq!(mailname(machine(&[("etc/mailname", "a b\n")]).path()).level, Level::Fail);
    }

    #[test]
    fn mail_to_root_has_an_end_or_that_is_told() {
        let of = |text: &str| {
            let (checks, found) = aliases(machine(&[("etc/aliases", text)]).path(), None);
            (checks, end_of_root(&found.unwrap()))
        };
        let (checks, end) = of("# x\npostmaster: root\nRoot: ops,\n  eve\nops: ops@a.example, b\n");
        assert_eq!((checks[0].level, end.as_deref()), (Level::Ok, Some("ops@a.example")));
        assert_eq!(of("postmaster: root\n").1.as_deref(), Some("root"));
        let (checks, end) = of("root: www\nwww: root\nno colon\n");
        assert_eq!(end, None);
        assert!(checks.iter().any(|check| check.text.contains("aliases:3")), "{checks:?}");
        assert!(checks.iter().all(|check| check.level == Level::Warn), "{checks:?}");
        assert_eq!(of("root: \"|/bin/cat\"\n").1, None);
        assert_eq!(aliases(machine(&[]).path(), None).0[0].name, NO_ALIASES);
        let level = |end, way| root_mail(end, way).level;
        assert_eq!(level(Some("ops@a.example"), Some("MX of a.example")), Level::Ok);
        assert_eq!(level(Some("ops@a.example"), Some("Drop")), Level::Warn);
        assert_eq!(level(Some("root"), None), Level::Warn);
        assert_eq!(level(None, None), Level::Fail);
    }
}
