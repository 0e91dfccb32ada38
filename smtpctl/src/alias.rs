//! `alias`: who gets mail for the local names of this machine.
//!
//! The file is read and written here, not by the daemon: it is root's, other programs edit it, and
//! `newaliases` must work while nothing runs. The daemon reads it anew whenever it has changed.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use mailroot_common::address::LocalPart;
use mailroot_common::aliases::{Alias, Aliases, FILE_OCTETS_MAX, INCLUDES_MAX};
use mailroot_common::control::{Kind, Problem, Setting, path};
use serde::Serialize;

use crate::output::{Cell, Column, Row, escape};
use crate::service_user::ServiceUser;
use crate::tool::Tool;

/// Where the file is, unless a home is given or the configuration says otherwise.
const FILE: &str = "/etc/aliases";
/// Where it is below a home.
const FILE_BELOW_HOME: &str = "etc/aliases";

/// The verbs of `alias`.
#[derive(Debug, Subcommand)]
pub(crate) enum AliasCommand {
    /// List them.
    #[command(visible_alias = "ls")]
    List(Where),
    /// Say who gets the mail of a name; every other line of the file stays.
    Set(Set),
    /// Take aliases away; every other line of the file stays.
    #[command(visible_alias = "rm")]
    Remove(Remove),
    /// Say what is wrong in the file: exit code 0 or 10.
    Check(Where),
    /// Say who gets the mail of a name, through all aliases.
    Resolve(Resolve),
}

#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Where {
    /// The file [default: that of service.aliases, else /etc/aliases].
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// The name.
    #[arg(value_name = "NAME")]
    name: String,
    /// Addresses, names of this machine, or :include: with the path of a file of addresses.
    #[arg(value_name = "ADDRESS", required = true)]
    targets: Vec<String>,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// Names.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Names without an alias are no failure.
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Resolve {
    /// The name.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    place: Where,
}

/// An alias as it is listed.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    to: Vec<String>,
    line: usize,
}

impl From<&Alias> for Listed {
    fn from(alias: &Alias) -> Self {
        let to = alias.targets.iter().map(ToString::to_string).collect();
        Self { name: alias.name.clone(), to, line: alias.line }
    }
}

impl Row for Listed {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("name", |it| Cell::text(&*it.name)),
        Column::always("to", |it| Cell::text(it.to.join(", "))),
        Column::wide("line", |it| Cell::text(it.line.to_string())),
    ];

    fn id(&self) -> String {
        self.name.clone()
    }
}

/// A finding of `check`.
#[derive(Debug, Serialize)]
struct Finding {
    file: String,
    line: usize,
    reason: String,
}

impl Row for Finding {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("file", |it| Cell::text(&*it.file)),
        Column::always("line", |it| Cell::text(it.line.to_string())),
        Column::always("reason", |it| Cell::text(&*it.reason)),
    ];

    fn id(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// Who gets the mail of a name.
#[derive(Debug, Serialize)]
struct Answer {
    name: String,
    is_alias: bool,
    to: Vec<String>,
}

impl Row for Answer {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("name", |it| Cell::text(&*it.name)),
        Column::always("to", |it| Cell::text(it.to.join(", "))),
    ];

    fn id(&self) -> String {
        self.name.clone()
    }
}

pub(crate) async fn run(tool: &mut Tool, command: AliasCommand) -> Result<u8, Problem> {
    match command {
        AliasCommand::List(place) => {
            let (_, _, aliases) = open(tool, &place).await?;
            tool.print_rows(aliases.list().map(Listed::from).collect())?;
            Ok(0)
        }
        AliasCommand::Set(set) => {
            let (file, text, _) = open(tool, &set.place).await?;
            let line = line_of(&set.name, &set.targets)?;
            save(tool, &file, &replaced(&text, &set.name, Some(&line)), &line)
        }
        AliasCommand::Remove(remove) => {
            let (file, mut text, aliases) = open(tool, &remove.place).await?;
            for name in &remove.names {
                if aliases.find_written(name).is_none() && !remove.if_exists {
                    let detail = format!("{name} has no alias in {}", file.display());
                    return Err(Problem::new("alias", Kind::NotFound, detail)
                        .hint("smtpctl alias list names them"));
                }
                text = replaced(&text, name, None);
            }
            save(tool, &file, &text, &format!("{}: removed", remove.names.join(", ")))
        }
        AliasCommand::Check(place) => {
            let (path, _, aliases) = open(tool, &place).await?;
            let file = path.display().to_string();
            let service = ServiceUser::of(tool.global.home.as_deref());
            let unread = service.and_then(|service| service.cannot_read(&path));
            let finding = |fault: mailroot_common::aliases::Fault| Finding {
                file: file.clone(),
                line: fault.line,
                reason: fault.what,
            };
            let unread = unread.map(|what| mailroot_common::aliases::Fault { line: 1, what });
            let found: Vec<Finding> =
                unread.into_iter().chain(aliases.faults()).map(finding).collect();
            let code = if found.is_empty() { 0 } else { Kind::Found.exit_code() };
            tool.print_rows(found)?;
            Ok(code)
        }
        AliasCommand::Resolve(Resolve { name, place }) => {
            let (_, _, aliases) = open(tool, &place).await?;
            let answer = resolve(&aliases, &name)?;
            tool.print_object(answer, |answer| match (answer.is_alias, answer.to.as_slice()) {
                (false, _) => format!("{} is no alias\n", escape(&answer.name)),
                (true, []) => format!("{} leads to nobody else\n", escape(&answer.name)),
                (true, to) => escape(&format!("{} -> {}", answer.name, to.join(", "))) + "\n",
            })?;
            Ok(0)
        }
    }
}

/// Has the mail of a name go to an address; the file that says so. Nothing is written where it does.
pub(crate) async fn set(tool: &mut Tool, name: &str, address: &str) -> Result<PathBuf, Problem> {
    let (file, text, _) = open(tool, &Where::default()).await?;
    let line = line_of(name, &[address.to_owned()])?;
    let new = replaced(&text, name, Some(&line));
    if new != text {
        write(&file, &new).map_err(|error| failed(&file, &error))?;
    }
    Ok(file)
}

fn resolve(aliases: &Aliases, name: &str) -> Result<Answer, Problem> {
    let local = LocalPart::parse(name)
        .map_err(|error| Problem::new("alias", Kind::Usage, format!("{name:?}: {error}")))?;
    let found = aliases.resolve(&local, |_| false);
    let is_alias = found.is_some();
    let found = found.unwrap_or_default();
    let names = found.names.iter().map(ToString::to_string);
    let to = names.chain(found.addresses.iter().map(ToString::to_string)).collect();
    Ok(Answer { name: name.to_owned(), is_alias, to })
}

/// The file, its text and what it means.
async fn open(tool: &mut Tool, place: &Where) -> Result<(PathBuf, String, Aliases), Problem> {
    let file = match &place.file {
        Some(file) => file.clone(),
        None => find(tool).await?,
    };
    let text = match read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| failed(&file, &error))?,
    };
    let service = ServiceUser::of(tool.global.home.as_deref());
    let aliases = understand(&text, service.as_ref());
    Ok((file, text, aliases))
}

/// Where the daemon looks for it; where no daemon can be asked, the usual place.
async fn find(tool: &mut Tool) -> Result<PathBuf, Problem> {
    let usual = usual_file(tool.global.home.as_deref());
    let Ok(daemon) = tool.daemon().await else { return Ok(usual) };
    let Ok(settings) = daemon.get::<Vec<Setting>>(path::CONFIG).await else { return Ok(usual) };
    let written = settings.into_iter().find(|it| it.key == "service.aliases");
    match written.filter(|it| it.origin != "default") {
        None => Ok(usual),
        Some(setting) if setting.value == "off" => {
            let detail = "service.aliases is off: nobody has an alias";
            Err(Problem::new("alias", Kind::Unavailable, detail)
                .hint("smtpctl config set service.aliases=/etc/aliases, or say --file"))
        }
        Some(setting) => Ok(setting.value.into()),
    }
}

/// Where the file is if nobody says otherwise.
fn usual_file(home: Option<&Path>) -> PathBuf {
    home.map_or_else(|| PathBuf::from(FILE), |home| home.join(FILE_BELOW_HOME))
}

/// Reads a file that is not too large.
pub(crate) fn read(file: &Path) -> io::Result<String> {
    let octets = fs::read(file)?;
    if octets.len() > FILE_OCTETS_MAX {
        return Err(io::Error::other(format!("it has more than {FILE_OCTETS_MAX} octets")));
    }
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// What a text means to the service, with the files of addresses that it names.
pub(crate) fn understand(text: &str, service: Option<&ServiceUser>) -> Aliases {
    let mut aliases = Aliases::parse(text);
    let paths: Vec<(PathBuf, usize)> =
        aliases.include_paths().map(|(path, line)| (path.to_owned(), line)).collect();
    for (number, (path, line)) in paths.into_iter().enumerate() {
        // Each look at one starts a program.
        let text = if number >= INCLUDES_MAX {
            Err(format!("more than {INCLUDES_MAX} files of addresses"))
        } else if let Some(why) = service.and_then(|service| service.cannot_read(&path)) {
            Err(why)
        } else {
            read(&path).map_err(|error| error.to_string())
        };
        aliases.include(&path, line, text);
    }
    aliases
}

/// The line of an alias that is good.
fn line_of(name: &str, targets: &[String]) -> Result<String, Problem> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    let shown = if name.chars().all(is_plain) { name.to_owned() } else { format!("\"{name}\"") };
    let line = format!("{shown}: {}", targets.join(", "));
    let aliases = Aliases::parse(&line);
    let is_one = aliases.list().count() == 1 && !line.contains(['\n', '\r']);
    match aliases.faults().first() {
        None if is_one => Ok(line),
        fault => {
            let what = fault.map_or("that is no alias", |fault| &fault.what);
            Err(Problem::new("alias", Kind::Usage, what.to_owned()))
        }
    }
}

/// The text with another line for a name, or none.
fn replaced(text: &str, name: &str, line: Option<&str>) -> String {
    let known = Aliases::parse(text);
    let found = known.find_written(name).map(|alias| alias.line);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut out = String::with_capacity(text.len() + 80);
    let Some(first) = found.map(|line| line - 1) else {
        out.push_str(text);
        if let Some(line) = line {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push('\n');
            }
            out.push_str(line);
            out.push('\n');
        }
        return out;
    };
    // An alias ends with the last line that continues it; comments between go with it.
    let goes_on = |line: &str| line.starts_with([' ', '\t']) && !line.trim().is_empty();
    let behind = lines.iter().enumerate().skip(first + 1);
    let behind = behind
        .take_while(|(_, line)| goes_on(line) || line.trim().is_empty() || line.starts_with('#'));
    let last = behind.filter(|(_, line)| goes_on(line)).map(|(at, _)| at).last().unwrap_or(first);
    for (at, old) in lines.iter().enumerate() {
        if at == first
            && let Some(line) = line
        {
            out.push_str(line);
            out.push('\n');
        }
        if at < first || at > last {
            out.push_str(old);
        }
    }
    out
}

/// Writes the file and says so.
fn save(tool: &Tool, file: &Path, text: &str, words: &str) -> Result<u8, Problem> {
    let file = &write(file, text).map_err(|error| failed(file, &error))?;
    tool.say_done(
        &serde_json::json!({ "file": file, "changed": true }),
        &format!("{}: {words}", file.display()),
    )?;
    Ok(0)
}

/// Replaces the file whole; its owner and mode stay. What a link leads to is replaced, not the link.
fn write(file: &Path, text: &str) -> io::Result<PathBuf> {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let folder = file.parent().unwrap_or_else(|| Path::new("/"));
    let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
    fresh.write_all(text.as_bytes())?;
    let mode = match fs::metadata(&file) {
        Ok(found) => {
            fchown(fresh.as_file(), Some(found.uid()), Some(found.gid()))?;
            found.permissions()
        }
        Err(_) => std::os::unix::fs::PermissionsExt::from_mode(0o644),
    };
    fresh.as_file().set_permissions(mode)?;
    fresh.as_file().sync_all()?;
    fresh.persist(&file)?;
    fs::File::open(folder)?.sync_all()?;
    Ok(file)
}

fn failed(file: &Path, error: &io::Error) -> Problem {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => Kind::NotPermitted,
        _ => Kind::Failed,
    };
    Problem::new("alias", kind, format!("{}: {error}", file.display()))
}

/// `newaliases`: says what is wrong in the file. There is nothing to be built.
pub(crate) fn report(home: Option<&Path>, err: &mut impl Write) -> io::Result<()> {
    let (file, service) = (usual_file(home), ServiceUser::of(home));
    let text = match read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    if let Some(why) = service.as_ref().and_then(|service| service.cannot_read(&file)) {
        writeln!(err, "newaliases: {}: {}", file.display(), escape(&why))?;
    }
    for fault in understand(&text, service.as_ref()).faults() {
        writeln!(err, "newaliases: {}:{}", file.display(), escape(&fault.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alias_is_replaced_and_every_other_octet_stays() {
        let text =
            "# top\npostmaster: root\nroot: a@x.test,\n\t# within\n\tb@x.test\n\n# end\nx: y";
        for (name, line, expected) in [
            (
                "ROOT",
                Some("root: c@x.test"),
                "# top\npostmaster: root\nroot: c@x.test\n\n# end\nx: y",
            ),
            ("root", None, "# top\npostmaster: root\n\n# end\nx: y"),
            ("postmaster", None, "# top\nroot: a@x.test,\n\t# within\n\tb@x.test\n\n# end\nx: y"),
        ] {
            assert_eq!(replaced(text, name, line), expected, "{name}");
        }
        assert_eq!(replaced(text, "new", Some("new: z")), format!("{text}\nnew: z\n"));
        assert_eq!(replaced(text, "gone", None), text);
        assert_eq!(replaced("", "a", Some("a: b")), "a: b\n");
    }

    #[test]
    fn only_good_lines_are_written() {
        let targets =
            |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(line_of("root", &targets(&["a@x.test", "b"])).unwrap(), "root: a@x.test, b");
        assert_eq!(line_of("a:b", &targets(&["c"])).unwrap(), "\"a:b\": c");
        for (name, to) in [("a", "|cmd"), ("a", "/file"), ("a", "b@"), ("", "b"), ("a", "b\nc: d")]
        {
            assert_eq!(line_of(name, &targets(&[to])).unwrap_err().exit, 2, "{name} {to}");
        }
    }
}
