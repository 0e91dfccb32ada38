//! `metrics`: what the daemon counts and measures, in the text format of Prometheus.

use std::io::Write as _;

use mailroot_common::control::{Kind, Metric, MetricKind, Problem, path};
use regex::Regex;
use serde::Serialize;

use crate::io_problem;
use crate::output::{Cell, Column, Form, Row};
use crate::tool::{Tool, stdout};

#[derive(Debug, clap::Args)]
pub(crate) struct MetricsArgs {
    /// Only values whose name or labels have this regular expression; no words about them.
    #[arg(long, value_name = "REGEX")]
    grep: Option<String>,
}

/// One value, for programs that do not read the text format.
#[derive(Debug, Serialize)]
struct Value {
    name: String,
    labels: std::collections::BTreeMap<String, String>,
    value: f64,
    kind: MetricKind,
    help: String,
    #[serde(skip)]
    line: String,
    #[serde(skip)]
    shown: [String; 2],
}

impl Row for Value {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("name", |it| Cell::text(&*it.name)),
        Column::always("labels", |it| Cell::text(&*it.shown[0])),
        Column::always("value", |it| Cell::text(&*it.shown[1])),
        Column::wide("kind", |it| Cell::text(it.kind.as_str())),
        Column::wide("help", |it| Cell::text(&*it.help)),
    ];

    fn id(&self) -> String {
        self.name.clone()
    }
}

pub(crate) async fn run(tool: &mut Tool, args: &MetricsArgs) -> Result<u8, Problem> {
    let pattern = args
        .grep
        .as_deref()
        .map(Regex::new)
        .transpose()
        .map_err(|error| Problem::new("metrics", Kind::Usage, format!("--grep: {error}")))?;
    let mut metrics: Vec<Metric> = tool.daemon().await?.get(path::METRICS).await?;
    if let Some(name) = &tool.global.server {
        let is_its = |label: Option<&String>| label.is_none_or(|label| label == name);
        for metric in &mut metrics {
            metric.samples.retain(|sample| is_its(sample.labels.get("server")));
        }
    }
    metrics.retain(|metric| !metric.samples.is_empty());
    if tool.shape.form == Form::Table && tool.shape.columns.is_none() && pattern.is_none() {
        let text: String = metrics.iter().map(Metric::to_text).collect();
        stdout().write_all(text.as_bytes()).map_err(io_problem)?;
        return Ok(0);
    }
    let all = metrics.iter().flat_map(values);
    let is_wanted = |value: &Value| pattern.as_ref().is_none_or(|it| it.is_match(&value.line));
    let wanted: Vec<Value> = all.filter(is_wanted).collect();
    let code = if wanted.is_empty() { Kind::NotFound.exit_code() } else { 0 };
    if tool.shape.form == Form::Table && tool.shape.columns.is_none() {
        let text: String = wanted.iter().map(|value| format!("{}\n", value.line)).collect();
        stdout().write_all(text.as_bytes()).map_err(io_problem)?;
    } else {
        tool.print_rows(wanted)?;
    }
    Ok(code)
}

fn values(metric: &Metric) -> impl Iterator<Item = Value> {
    metric.samples.iter().map(|sample| Value {
        name: sample.name(&metric.name),
        labels: sample.labels.clone(),
        value: sample.value,
        kind: metric.kind,
        help: metric.help.clone(),
        line: sample.to_text(&metric.name),
        shown: [sample.labels_text(), sample.value_text()],
    })
}
