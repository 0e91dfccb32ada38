//! What a new virtual server may be made for: keys with reasons, written into its file.
//!
//! Each template is a file of lines `key: value # reason`, the first of which says what it is for.
//! They are starting points, not modes: once written, the keys are changed like any others.

/// A line of a server's file in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The whole key.
    pub(super) key: String,
    /// The value in flow style.
    pub(super) value: String,
    /// Why it is so.
    pub(super) reason: Option<String>,
}

/// What a virtual server is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its name, such as `printers`.
    pub name: &'static str,
    text: &'static str,
}

/// All of them.
const TEMPLATES: [Template; 5] = [
    Template { name: "relay", text: include_str!("templates/relay.yaml") },
    Template { name: "printers", text: include_str!("templates/printers.yaml") },
    Template { name: "internal", text: include_str!("templates/internal.yaml") },
    Template { name: "internet", text: include_str!("templates/internet.yaml") },
    Template { name: "users", text: include_str!("templates/users.yaml") },
];

/// A name that no template has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no template: relay, printers, internal, internet or users")]
pub struct NoTemplate(String);

impl Template {
    /// The template of this name.
    ///
    /// # Errors
    ///
    /// [`NoTemplate`], naming those there are.
    pub fn named(name: &str) -> Result<Self, NoTemplate> {
        let found = TEMPLATES.iter().find(|template| template.name == name);
        found.copied().ok_or_else(|| NoTemplate(name.to_owned()))
    }

    /// What it is for, in a sentence.
    pub(super) fn about(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches("# ")
    }

    /// Its keys.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line> {
        self.text.lines().skip(1).filter_map(|line| {
            let (key, rest) = line.split_once(": ")?;
            let (value, reason) = rest.split_once(" # ").unwrap_or((rest, ""));
            let reason = Some(reason.trim().to_owned()).filter(|reason| !reason.is_empty());
            Some(Line { key: key.to_owned(), value: value.trim().to_owned(), reason })
        })
    }
}

/// The sections as a file, each key below its reason. A section begins where its first key stands.
pub(super) fn written(lines: &[Line]) -> String {
    let mut out = String::new();
    let mut open: Vec<&str> = Vec::new();
    for line in sorted(lines) {
        let path: Vec<&str> = line.key.split('.').collect();
        let Some((last, sections)) = path.split_last() else { continue };
        let same = open.iter().zip(sections).take_while(|(one, other)| one == other).count();
        if same == 0 {
            out.push('\n');
        }
        for (depth, section) in sections.iter().enumerate().skip(same) {
            out.push_str(&format!("{:1$}{section}:\n", "", depth * 2));
        }
        let indent = " ".repeat(sections.len() * 2);
        if let Some(reason) = &line.reason {
            out.push_str(&format!("{indent}# {reason}\n"));
        }
        out.push_str(&format!("{indent}{last}: {}\n", line.value));
        open = sections.to_vec();
    }
    out
}

/// The lines with those of one section together, in the order in which sections and keys come
/// first.
fn sorted(lines: &[Line]) -> Vec<&Line> {
    let above = |line: &Line, depth: usize| {
        let mut parts = line.key.split('.').collect::<Vec<_>>();
        parts.truncate(depth);
        parts.join(".")
    };
    let first = |line: &Line, depth: usize| {
        lines.iter().position(|other| above(other, depth) == above(line, depth))
    };
    let mut out: Vec<&Line> = lines.iter().collect();
    out.sort_by_key(|line| (first(line, 1), first(line, 2)));
    out
}

#[cfg(test)]
mod tests {
    use mailroot_common::config::{ServerConfig, ServerName, parse_server};

    use super::*;

    fn config(template: Template) -> ServerConfig {
        let lines: Vec<Line> = template.lines().collect();
        let text = format!(
            "version: 1\n{}\ndomains:\n  - {{name: a.example, type: default}}\n",
            written(&lines)
        );
        let name = ServerName::parse("new").unwrap();
        let (config, warnings) = parse_server(&name, &text, "new.yaml").unwrap();
        assert!(warnings.is_empty(), "{}: {warnings:?}", template.name);
        config
    }

    #[test]
    fn every_template_is_a_good_file_in_which_each_key_says_why() {
        for template in TEMPLATES {
            assert!(template.about().ends_with('.'), "{template:?}");
            let config = config(template);
            let rows = config.effective();
            for line in template.lines() {
                assert!(line.reason.is_some(), "{}: {line:?}", template.name);
                let row = rows.iter().find(|row| row.key == line.key).unwrap();
                assert!(row.origin.is_some(), "{}: {line:?}", template.name);
            }
        }
        assert!(Template::named("open-relay").is_err());
    }

    #[test]
    fn no_template_lets_anybody_relay_but_this_host() {
        for template in TEMPLATES {
            let config = config(template);
            let relay = &config.access.relay;
            assert_eq!(relay.policy, mailroot_common::config::access::Policy::Only);
            for entry in &relay.list {
                let who = entry.who.to_string();
                assert!(["127.0.0.0/8", "::1"].contains(&&*who), "{}: {who}", template.name);
            }
        }
    }

    #[test]
    fn keys_of_one_section_stand_together() {
        let line = |key: &str| Line { key: key.to_owned(), value: "1".to_owned(), reason: None };
        let lines = ["a.b.c", "d.e", "a.f", "a.b.g"].map(line);
        let text = "\na:\n  b:\n    c: 1\n    g: 1\n  f: 1\n\nd:\n  e: 1\n";
        assert_eq!(written(&lines), text);
    }
}
