//! `explain`: what a code of an error or a warning means, without asking the daemon.

use mailroot_common::codes::{self, Explained};
use mailroot_common::config::closest;
use mailroot_common::control::{Kind, Problem};

use crate::output::{Cell, Column, Row};
use crate::tool::Tool;

#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The code, such as E0310 or server.exists.
    #[arg(value_name = "CODE")]
    code: String,
}

impl Row for Explained {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("code", |it| Cell::text(it.code)),
        Column::always("cause", |it| Cell::text(it.cause)),
        Column::always("cure", |it| Cell::text(it.cure)),
    ];

    fn id(&self) -> String {
        self.code.to_owned()
    }
}

pub(crate) fn run(tool: &Tool, args: &Explain) -> Result<u8, Problem> {
    let found = codes::find(&args.code).copied().ok_or_else(|| {
        let known: Vec<&str> = codes::all().map(|row| row.code).collect();
        let problem = Problem::new("code", Kind::NotFound, format!("no code is {:?}", args.code));
        match closest(&args.code, &known) {
            Some(near) => problem.hint(format!("did you mean {near}?")),
            None => problem.hint("mailroot-errors(7) lists them"),
        }
    })?;
    tool.print_object(found, |it| format!("{}\n  {}\n  {}\n", it.code, it.cause, it.cure))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use mailroot_common::codes;

    use crate::args::Args;

    #[test]
    fn every_command_that_is_advised_exists() {
        let mut tool = Args::command();
        tool.build();
        for row in codes::all() {
            for rest in row.cure.split("smtpctl ").skip(1) {
                let mut command = &tool;
                for (place, said) in rest.split(' ').enumerate() {
                    let word = said.trim_end_matches([',', ';', '.', ':', ')']);
                    if let Some(option) = word.strip_prefix("--") {
                        let name = option.split('=').next();
                        let known = command.get_arguments().any(|it| it.get_long() == name);
                        assert!(known, "{}: smtpctl {rest}: no --{option}", row.code);
                    } else if let Some(below) = command.find_subcommand(word) {
                        command = below;
                    } else {
                        let is_noun = place == 0 || command.has_subcommands();
                        assert!(!is_noun, "{}: smtpctl {rest}: no {word}", row.code);
                    }
                    if word != said {
                        break;
                    }
                }
            }
        }
    }
}
