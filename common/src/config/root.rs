//! `mailroot.yaml`: what all virtual servers share.

use std::sync::Arc;

use super::acme;
use super::control::Control;
use super::diagnostic::{Diagnostic, Severity, Source};
use super::dns::Dns;
use super::logging::{Logging, Target};
use super::node::{Kind, Node};
use super::place::PathOrOff;
use super::section::{EffectiveKey, KeyDoc, Origins, Profile, Reader, Section};
use super::service::Service;
use super::smart_hosts::{self, SmartHosts};
use super::submission::Submission;
use super::tls::{Tls, Trust};
use super::trace::Trace;
use super::yaml;

/// What a good file says, and what may surprise about it.
pub type Parsed<T> = Result<(T, Vec<Diagnostic>), Vec<Diagnostic>>;

/// The service-wide configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceConfig {
    /// Names, spool and process.
    pub service: Service,
    /// The control socket and its users.
    pub control: Control,
    /// `submission:`
    pub submission: Submission,
    /// Resolvers.
    pub dns: Dns,
    /// `tls:`
    pub tls: Tls,
    /// `smart_hosts:`
    pub smart_hosts: SmartHosts,
    /// The log.
    pub logging: Logging,
    /// What is remembered of mail.
    pub trace: Trace,
    /// Where the keys stand.
    pub origins: Origins,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            service: Service::defaults(Profile::Modern),
            control: Control::defaults(Profile::Modern),
            submission: Submission::defaults(Profile::Modern),
            dns: Dns::defaults(Profile::Modern),
            tls: Tls::defaults(Profile::Modern),
            smart_hosts: SmartHosts::new(),
            logging: Logging::defaults(Profile::Modern),
            trace: Trace::defaults(Profile::Modern),
            origins: Origins::default(),
        }
    }
}

impl ServiceConfig {
    const KEYS: &'static [&'static str] = &[
        "version",
        "service",
        "control",
        "submission",
        "dns",
        "tls",
        "smart_hosts",
        "logging",
        "trace",
    ];

    /// Every key of the file with its documentation, in the order of the manual.
    #[must_use]
    pub fn keys() -> Vec<KeyDoc> {
        let mut out = vec![version_key()];
        Service::describe("service", &mut out);
        Control::describe("control", &mut out);
        Submission::describe("submission", &mut out);
        Dns::describe("dns", &mut out);
        Tls::describe("tls", &mut out);
        smart_hosts::describe(&mut out);
        Logging::describe("logging", &mut out);
        Trace::describe("trace", &mut out);
        out
    }

    /// Every key with its value in force.
    #[must_use]
    pub fn effective(&self) -> Vec<EffectiveKey> {
        let mut out = Vec::new();
        self.service.list("service", Profile::Modern, &self.origins, &mut out);
        self.control.list("control", Profile::Modern, &self.origins, &mut out);
        self.submission.list("submission", Profile::Modern, &self.origins, &mut out);
        self.dns.list("dns", Profile::Modern, &self.origins, &mut out);
        self.tls.list("tls", Profile::Modern, &self.origins, &mut out);
        smart_hosts::list(&self.smart_hosts, &self.origins, &mut out);
        self.logging.list("logging", Profile::Modern, &self.origins, &mut out);
        self.trace.list("trace", Profile::Modern, &self.origins, &mut out);
        out
    }
}

/// Reads `mailroot.yaml`. `name` is how errors call the file.
///
/// # Errors
///
/// Every error of the text; warnings are among them.
pub fn parse_service(text: &str, name: &str) -> Parsed<ServiceConfig> {
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    let (node, duplicates) = yaml::parse(&source)?;
    let mut reader = Reader::new(source, duplicates);
    let mut config = ServiceConfig::default();
    for (key, value) in reader.entries(&node, "", ServiceConfig::KEYS) {
        reader.remember(key, value);
        match key {
            "service" => config.service.read(value, key, &mut reader),
            "control" => config.control.read(value, key, &mut reader),
            "submission" => config.submission.read(value, key, &mut reader),
            "dns" => config.dns.read(value, key, &mut reader),
            "tls" => config.tls.read(value, key, &mut reader),
            smart_hosts::PATH => config.smart_hosts = smart_hosts::read(value, &mut reader),
            "logging" => config.logging.read(value, key, &mut reader),
            "trace" => config.trace.read(value, key, &mut reader),
            _ => check_version(value, &mut reader),
        }
    }
    require_version(&node, &mut reader);
    check(&config, &mut reader);
    let (diagnostics, origins) = reader.finish();
    config.origins = origins;
    outcome(config, diagnostics)
}

fn check(config: &ServiceConfig, reader: &mut Reader) {
    if config.logging.target == Target::File
        && config.logging.file.is_none()
        && let Some(span) = reader.origins.get("logging.target").cloned()
    {
        let diagnostic = Diagnostic::error("E0104", "logging.file is missing")
            .at(&reader.source, span, "which file?")
            .help("add  file: /var/log/mailroot/mailroot.log  below it");
        reader.report(diagnostic);
    }
    acme::check(&config.tls.acme, reader);
    let file = |trust: &Trust| match trust {
        Trust::System => None,
        Trust::File(path) => Some(path.clone()),
    };
    let (trust, acme_trust) = (file(&config.tls.trust), file(&config.tls.acme.trust));
    let aliases = config.service.aliases.as_ref().and_then(PathOrOff::path).cloned();
    let mailname = config.service.mailname.as_ref().and_then(PathOrOff::path).cloned();
    let w3c = config.logging.w3c.path().cloned();
    for (key, path) in [
        ("tls.trust", &trust),
        ("tls.acme.trust", &acme_trust),
        ("service.aliases", &aliases),
        ("service.mailname", &mailname),
        ("service.store", &config.service.store),
        ("control.socket", &config.control.socket),
        ("logging.file", &config.logging.file),
        ("logging.w3c", &w3c),
    ] {
        if path.as_ref().is_some_and(|path| path.is_relative()) {
            let span = reader.origins.get(key).cloned().unwrap_or_default();
            let diagnostic = Diagnostic::error("E0210", format!("{key} must be a whole path"))
                .at(&reader.source, span, "does not begin with /")
                .help("write the path from / on");
            reader.report(diagnostic);
        }
    }
}

/// The `version` key, which both kinds of file begin with.
pub(crate) fn version_key() -> KeyDoc {
    KeyDoc {
        key: "version".to_owned(),
        type_name: "number".to_owned(),
        modern: "required".to_owned(),
        iis6: "required".to_owned(),
        bounds: Some((VERSION.to_owned(), VERSION.to_owned())),
        doc: "The version of the file's form.".to_owned(),
        section: String::new(),
    }
}

const VERSION: &str = "1";

pub(crate) fn check_version(node: &Node, reader: &mut Reader) {
    if node.text() != Some(VERSION) {
        let title = "this version of the file's form is not known";
        let diagnostic = reader.error_at("E0102", title, node, "not 1");
        reader.report(diagnostic.help("write  version: 1"));
    }
}

pub(crate) fn require_version(node: &Node, reader: &mut Reader) {
    let Kind::Map(pairs) = &node.kind else { return };
    if !pairs.iter().any(|(key, _)| key.text == "version") {
        let span = pairs.first().map_or_else(|| node.span.clone(), |(key, _)| key.span.clone());
        let diagnostic = Diagnostic::error("E0101", "the file does not say its version")
            .at(&reader.source, span, "expected before this")
            .help("begin the file with  version: 1");
        reader.report(diagnostic);
    }
}

impl Reader {
    /// All that was found, errors first where places are the same, and where keys stand.
    pub(crate) fn finish(mut self) -> (Vec<Diagnostic>, Origins) {
        self.diagnostics.sort_by_key(|diagnostic| {
            (diagnostic.labels.first().map_or(0, |label| label.span.start), diagnostic.severity)
        });
        let title = |unshown: usize| format!("{unshown} more in {}", self.source.name);
        if self.unshown_errors > 0 {
            let more = Diagnostic::error("E0199", title(self.unshown_errors));
            self.diagnostics.push(more.help("correct those above first"));
        }
        if self.unshown_warnings > 0 {
            let more = Diagnostic::warning("W0199", title(self.unshown_warnings));
            self.diagnostics.push(more.help("settle those above first"));
        }
        (self.diagnostics, Origins { source: Some(self.source), spans: self.origins })
    }
}

/// A configuration with warnings, or all that is wrong.
pub(crate) fn outcome<T>(config: T, diagnostics: Vec<Diagnostic>) -> Parsed<T> {
    if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        Err(diagnostics)
    } else {
        Ok((config, diagnostics))
    }
}

/// The whole key of an item of a list.
pub(crate) fn item(path: &str, number: usize) -> String {
    format!("{path}[{number}]")
}
