//! A report as JSON (RFC 8460 section 4.4).

use std::net::IpAddr;

use mailroot_common::address::{Domain, Mailbox};
use mailroot_common::units::{Span, Timestamp};
use serde::Serialize;

use super::count::{Counted, Failed, FailureKind, PolicyKind, Tally};

/// Who reports, about whom and when.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The organisation that reports.
    pub organization: &'a str,
    /// Who answers questions about the report.
    pub contact: &'a Mailbox,
    /// The domain that is told.
    pub domain: &'a Domain,
    /// When counting began.
    pub begins: Timestamp,
    /// When it ended.
    pub ends: Timestamp,
    /// Our own name; reports are named after it.
    pub host: &'a Domain,
}

impl About<'_> {
    /// The name of the report: the same however often it is written.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}.{}@{}", self.begins.as_millis(), self.domain, self.host)
    }

    /// What the file of the report is called (RFC 8460 section 5.1), times in seconds.
    #[must_use]
    pub fn file_name(&self) -> String {
        let Self { host, domain, .. } = self;
        let (begins, ends) = (self.begins.as_millis() / 1_000, self.last().as_millis() / 1_000);
        format!("{host}!{domain}!{begins}!{ends}.json.gz")
    }

    /// The last second that is reported of.
    fn last(&self) -> Timestamp {
        let before = self.ends.as_millis().saturating_sub(Span::seconds(1).as_millis());
        Timestamp::from_millis(before.max(self.begins.as_millis()))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report<'a> {
    organization_name: &'a str,
    date_range: DateRange,
    contact_info: String,
    report_id: String,
    policies: Vec<PolicyReport<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DateRange {
    start_datetime: String,
    end_datetime: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct PolicyReport<'a> {
    policy: PolicyTold<'a>,
    summary: Summary,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failure_details: Vec<Details<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct PolicyTold<'a> {
    policy_type: PolicyKind,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    policy_string: &'a [String],
    policy_domain: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    mx_host: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    total_successful_session_count: u64,
    total_failure_session_count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Details<'a> {
    result_type: FailureKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    sending_mta_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_mx_hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_ip: Option<IpAddr>,
    failed_session_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason_code: Option<&'a str>,
}

impl<'a> Details<'a> {
    fn of(failed: &'a Failed) -> Self {
        let failure = &failed.failure;
        Self {
            result_type: failure.kind,
            sending_mta_ip: failure.sending_ip,
            receiving_mx_hostname: failure.host.as_deref(),
            receiving_ip: failure.receiving_ip,
            failed_session_count: failed.count,
            failure_reason_code: failure.reason.as_deref(),
        }
    }
}

/// The report about a domain.
#[must_use]
pub fn json(about: &About<'_>, counted: &Counted) -> String {
    let policies = counted.tallies.iter().map(|tally: &Tally| PolicyReport {
        policy: PolicyTold {
            policy_type: tally.policy.kind,
            policy_string: &tally.policy.lines,
            policy_domain: about.domain.as_str(),
            mx_host: &tally.policy.hosts,
        },
        summary: Summary {
            total_successful_session_count: tally.successes,
            total_failure_session_count: tally.failures,
        },
        failure_details: tally.failed.iter().map(Details::of).collect(),
    });
    let report = Report {
        organization_name: about.organization,
        date_range: DateRange {
            start_datetime: seconds(about.begins),
            end_datetime: seconds(about.last()),
        },
        contact_info: about.contact.to_string(),
        report_id: about.id(),
        policies: policies.collect(),
    };
    // Nothing in it has a form that JSON lacks.
    serde_json::to_string(&report).unwrap_or_default()
}

/// A moment without fractions of a second, as the standard's examples have it.
fn seconds(at: Timestamp) -> String {
    Timestamp::from_millis(at.as_millis() / 1_000 * 1_000).to_string().replace(".000Z", "Z")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use serde_json::json as value;

    use super::*;
    use crate::route::sts;
    use crate::tls_report::count::{Failure, Policy};

    #[test]
    fn a_report_has_the_form_of_its_standard() {
        let policy = b"version: STSv1\nmode: enforce\nmx: *.mail.a.test\nmax_age: 604800";
        let policy = Policy::sts(Some(&sts::Policy::parse(policy).unwrap()));
        let mut counted = Counted::default();
        counted.add(policy.clone(), None, usize::MAX);
        let failure = Failure {
            sending_ip: Some("2001:db8::1".parse().unwrap()),
            host: Some("mx1.mail.a.test".to_owned()),
            receiving_ip: Some("203.0.113.56".parse().unwrap()),
            ..Failure::of(FailureKind::StartTlsNotSupported)
        };
        counted.add(policy, Some(failure.because("no STARTTLS")), usize::MAX);
        let about = About {
            organization: "Company-X",
            contact: &Mailbox::parse("tls@x.test").unwrap(),
            domain: &Domain::parse("a.test").unwrap(),
            begins: Timestamp::parse("2026-11-29T00:00:00Z").unwrap(),
            ends: Timestamp::parse("2026-11-30T00:00:00Z").unwrap(),
            host: &Domain::parse("mx.x.test").unwrap(),
        };
        let told: serde_json::Value = serde_json::from_str(&json(&about, &counted)).unwrap();
        let expected = value!({
            "organization-name": "Company-X",
            "date-range": {
                "start-datetime": "2026-11-29T00:00:00Z",
                "end-datetime": "2026-11-29T23:59:59Z"
            },
            "contact-info": "tls@x.test",
            "report-id": format!("{}.a.test@mx.x.test", about.begins.as_millis()),
            "policies": [{
                "policy": {
                    "policy-type": "sts",
                    "policy-string": [
                        "version: STSv1", "mode: enforce", "mx: *.mail.a.test", "max_age: 604800"
                    ],
                    "policy-domain": "a.test",
                    "mx-host": ["*.mail.a.test"]
                },
                "summary": {
                    "total-successful-session-count": 1,
                    "total-failure-session-count": 1
                },
                "failure-details": [{
                    "result-type": "starttls-not-supported",
                    "sending-mta-ip": "2001:db8::1",
                    "receiving-mx-hostname": "mx1.mail.a.test",
                    "receiving-ip": "203.0.113.56",
                    "failed-session-count": 1,
                    "failure-reason-code": "no STARTTLS"
                }]
            }]
        });
        assert_eq!(told, expected);
        let name = about.file_name();
        assert_eq!(name, "mx.x.test!a.test!1795910400!1795996799.json.gz");
    }
}
