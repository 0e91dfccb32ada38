//! Keys of the configuration: shown with their origins and the original's defaults, changed, and
//! described for editors.

use std::io::Write as _;

use mailroot_common::config::schema;
use mailroot_common::control::{KeyEdit, Kind, Problem, ServerDetail, Setting, path};

use crate::io_problem;
use crate::output::json_pretty;
use crate::server::change::{edit_keys, read_assignments};
use crate::terms::TermOptions;
use crate::tool::{Tool, stdout};

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// Only this key, or the keys of this section.
    #[arg(value_name = "KEY")]
    key: Option<String>,
    /// Only keys that stand in the file.
    #[arg(long)]
    changed: bool,
    /// Show the values that are in force where a value only stands for another.
    #[arg(long, conflicts_with_all = ["defaults", "iis"])]
    effective: bool,
    /// Show the defaults beside the values.
    #[arg(long)]
    defaults: bool,
    /// Show the defaults of the original, for keys whose value differs from them.
    #[arg(long, conflicts_with = "defaults")]
    iis: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The key, such as messages.max_size.
    #[arg(value_name = "KEY")]
    key: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// KEY=VALUE, or for lists KEY+=ITEM and KEY-=ITEM.
    #[arg(value_name = "KEY=VALUE", required = true)]
    assignments: Vec<String>,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Unset {
    /// The keys.
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Schema {
    /// service for mailroot.yaml, server for a virtual server's file.
    #[arg(value_name = "FILE", value_parser = ["service", "server"], default_value = "server")]
    file: String,
}

/// The keys of the server named with `-s`, else of the service.
async fn settings(tool: &mut Tool) -> Result<Vec<Setting>, Problem> {
    match tool.global.server.clone() {
        Some(name) => {
            let path = path::fill(path::SERVER, &[&name]);
            let detail: ServerDetail = tool.daemon().await?.get(&path).await?;
            Ok(detail.settings)
        }
        None => tool.daemon().await?.get(path::CONFIG).await,
    }
}

/// Whether a key is the one meant, or lies in the section meant.
fn is_meant(key: &str, meant: &str) -> bool {
    key.strip_prefix(meant).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn no_such_key(key: &str) -> Problem {
    Problem::new("config", Kind::NotFound, format!("there is no key {key:?}"))
        .word("no_key")
        .hint("smtpctl config show lists those of the service, with -s NAME those of a server")
}

pub(crate) async fn show(tool: &mut Tool, args: &Show) -> Result<u8, Problem> {
    let mut keys = settings(tool).await?;
    if let Some(key) = &args.key {
        keys.retain(|setting| is_meant(&setting.key, key));
        if keys.is_empty() {
            return Err(no_such_key(key));
        }
    }
    if args.changed {
        keys.retain(|setting| setting.origin != "default");
    }
    if args.iis {
        keys.retain(|setting| setting.iis_default != setting.value);
    }
    if args.effective {
        keys.iter_mut().for_each(put_in_force);
    }
    if tool.shape.columns.is_none() {
        let columns = match (args.defaults, args.iis) {
            (true, _) => "key,value,default,origin",
            (_, true) => "key,value,iis_default,origin",
            _ => "key,value,origin",
        };
        tool.shape.columns = Some(columns.to_owned());
    }
    tool.print_rows(keys)?;
    Ok(0)
}

/// Writes what is in force in the place of the value.
pub(crate) fn put_in_force(setting: &mut Setting) {
    if let Some(value) = setting.in_force.take() {
        setting.value = value;
    }
}

pub(crate) async fn get(tool: &mut Tool, args: &Get) -> Result<u8, Problem> {
    let keys = settings(tool).await?;
    let found = keys.into_iter().find(|setting| setting.key == args.key);
    let setting = found.ok_or_else(|| no_such_key(&args.key))?;
    if tool.print_data(&setting)? {
        return Ok(0);
    }
    writeln!(stdout(), "{}", crate::output::escape(&setting.value)).map_err(io_problem)?;
    Ok(0)
}

fn place(tool: &Tool) -> String {
    match &tool.global.server {
        Some(name) => path::fill(path::SERVER, &[name]),
        None => path::CONFIG.to_owned(),
    }
}

pub(crate) async fn set(tool: &mut Tool, args: &Set) -> Result<u8, Problem> {
    let edits = read_assignments(&args.assignments)?;
    let path = place(tool);
    edit_keys(tool, &path, edits, &args.terms).await
}

pub(crate) async fn unset(tool: &mut Tool, args: &Unset) -> Result<u8, Problem> {
    let edits = args.keys.iter().map(|key| KeyEdit::Unset { key: key.clone() }).collect();
    let path = place(tool);
    edit_keys(tool, &path, edits, &args.terms).await
}

/// Needs no daemon: an editor on another machine may want it.
pub(crate) fn schema(args: &Schema) -> Result<u8, Problem> {
    let document = if args.file == "service" { schema::service() } else { schema::server() };
    let text = json_pretty(&document) + "\n";
    stdout().write_all(text.as_bytes()).map_err(io_problem)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_means_all_keys_in_it() {
        assert!(is_meant("delivery.outbound.retry", "delivery"));
        assert!(is_meant("domains[0].name", "domains"));
        assert!(is_meant("enabled", "enabled"));
        assert!(!is_meant("delivery.outbound.retry", "deliver"));
    }
}
