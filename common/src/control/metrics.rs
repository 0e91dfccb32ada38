//! What is counted and measured, in the words of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// It only grows, until the daemon or the virtual server begins anew.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often something took how long: buckets, each with the longest time of what it counts.
    Histogram,
}

impl MetricKind {
    /// The word of the text format.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a value of a histogram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// How many took no longer than the label `le` says, in seconds.
    Bucket,
    /// How long all took together, in seconds.
    Sum,
    /// How many there were.
    Count,
}

impl Part {
    /// What stands behind the name of the metric.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Bucket => "_bucket",
            Self::Sum => "_sum",
            Self::Count => "_count",
        }
    }
}

/// A metric with its values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// How it behaves.
    pub kind: MetricKind,
    /// What it tells.
    pub help: String,
    /// Its values.
    pub samples: Vec<Sample>,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// What it is about, by the names of labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The value: a count, octets or seconds.
    pub value: f64,
    /// Which part of a histogram it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

impl Metric {
    /// The text format of Prometheus, version 0.0.4.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("# HELP {} {}\n", self.name, self.help.replace('\n', " "));
        let done = writeln!(text, "# TYPE {} {}", self.name, self.kind.as_str());
        debug_assert!(done.is_ok(), "writing into a String cannot fail");
        for sample in &self.samples {
            text.push_str(&sample.to_text(&self.name));
            text.push('\n');
        }
        text
    }
}

impl Sample {
    /// The name as it stands in a line: that of the metric, with the part of a histogram behind it.
    #[must_use]
    pub fn name(&self, metric: &str) -> String {
        format!("{metric}{}", self.part.map_or("", Part::suffix))
    }

    /// The labels as they stand behind a name: `{queue="held",server="lan"}`, or nothing.
    #[must_use]
    pub fn labels_text(&self) -> String {
        if self.labels.is_empty() {
            return String::new();
        }
        let label = |(name, value): (&String, &String)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{name}=\"{value}\"")
        };
        let labels: Vec<String> = self.labels.iter().map(label).collect();
        format!("{{{}}}", labels.join(","))
    }

    /// The value; whole numbers without a point.
    #[must_use]
    pub fn value_text(&self) -> String {
        self.value.to_string()
    }

    /// The line of the text format, without its end.
    #[must_use]
    pub fn to_text(&self, metric: &str) -> String {
        format!("{}{} {}", self.name(metric), self.labels_text(), self.value_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_prometheus() {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let labels = BTreeMap::from([label("server", "a\"b\\c\nd"), label("queue", "held")]);
        let metric = Metric {
            name: "mailroot_queue_messages".to_owned(),
            kind: MetricKind::Gauge,
            help: "Messages that wait.".to_owned(),
            samples: vec![
                Sample { labels, value: 12_000_000.0, part: None },
                Sample { labels: BTreeMap::new(), value: 0.5, part: Some(Part::Sum) },
            ],
        };
        assert_eq!(
            metric.to_text(),
            "# HELP mailroot_queue_messages Messages that wait.\n\
             # TYPE mailroot_queue_messages gauge\n\
             mailroot_queue_messages{queue=\"held\",server=\"a\\\"b\\\\c\\nd\"} 12000000\n\
             mailroot_queue_messages_sum 0.5\n"
        );
    }
}
