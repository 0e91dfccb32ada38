//! Why a message is where it is, and what can be done: rules over its story and the state of things.
//!
//! In: the story with what the queue says on top of it, the lane and the virtual server. Out: a few
//! sentences and commands, or nothing where nothing needs explaining. The remote's words are quoted,
//! never thinned; what is said besides is ours, and says no more than is known.

mod secure;

use mailroot_common::control::{Advice, Refused, ServerState, Step, TraceEntry, TraceEvent};
use mailroot_common::shell::quoted;
use mailroot_common::status::EnhancedCode;
use mailroot_common::units::{Span, Timestamp};

use crate::oauth::words::{self, Meaning};

/// What is known of the mail that travels with a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// The route.
    pub route: String,
    /// How often in a row its destination could not be reached.
    pub failures: u32,
    /// When it is asked again, after a failure.
    pub until: Option<Timestamp>,
    /// Messages that wait on it, this one included.
    pub waiting: u64,
    /// What the last failure came to.
    pub last: Option<TraceEvent>,
}

/// A message and what there is to know about it.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Its story.
    pub entry: &'a TraceEntry,
    /// What its virtual server does; absent if there is no such server any more.
    pub server: Option<ServerState>,
    /// The lane of a recipient that waits.
    pub lane: Option<&'a Lane>,
    /// Who holds it, and why.
    pub hold: Option<&'a str>,
    /// Hosts that took other mail lately, and when, the last first.
    pub elsewhere: &'a [(String, Timestamp)],
    /// The moment.
    pub now: Timestamp,
}

/// Explains; nothing for mail that was delivered or has only just come.
#[must_use]
pub fn explain(case: &Case<'_>) -> Option<Advice> {
    let entry = case.entry;
    let waits = ["queued", "active", "retry", "in_doubt", "held"].contains(&entry.state.as_str());
    if waits && let Some(state) = case.server.filter(|state| !delivers(*state)) {
        return Some(Advice {
            why: format!("The virtual server {} is {state}: it delivers nothing.", entry.server),
            steps: vec![step(format!("smtpctl server start {}", entry.server), "start it")],
        });
    }
    if let Some(hold) = case.hold {
        return Some(Advice {
            why: format!("It is held {hold}: no attempt is made until it is released."),
            steps: vec![step(format!("smtpctl queue release {}", entry.id), "let it go on")],
        });
    }
    if let Some(at) = entry.release_at {
        return Some(Advice {
            why: format!("Its sender wants it sent at {at}, and not before."),
            steps: vec![step(format!("smtpctl queue retry {}", entry.id), "send it now")],
        });
    }
    if entry.state == "unknown" {
        let why =
            "It is not in the queue, and the trace does not tell how it ended: what happened \
                   in the seconds before a crash may be missing."
                .to_owned();
        return Some(Advice { why, steps: Vec::new() });
    }
    if entry.state == "discarded" {
        let why = "A milter had it forgotten: whoever sent it was told that it was accepted, and nobody gets \
                   it. The milter's own log may say why."
            .to_owned();
        return Some(Advice { why, steps: Vec::new() });
    }
    if ["delivered", "resolved", "removed", "requeued"].contains(&entry.state.as_str()) {
        return None;
    }
    let behind = case.lane.and_then(|lane| lane.last.as_ref()).filter(|_| waits);
    let event = deciding(entry).or(behind)?;
    let mut advice = by_event(entry, event, route(case, event));
    if waits {
        if let Some(lane) = case.lane {
            advice.why.push_str(&beside(lane, case.now));
        }
        if event.stage.as_deref() == Some("connect") {
            advice.why.push_str(&elsewhere(case, event));
        }
        let retry = step(format!("smtpctl queue retry {}", entry.id), "try now");
        // A directory of our own is looked at first; of others we only know by asking.
        let place = if event.stage.as_deref() == Some("drop") { advice.steps.len() } else { 0 };
        advice.steps.insert(place, retry);
    }
    if let Some(report) = entry.events.iter().rev().find(|event| event.event == "report") {
        let told = report.other.map(|id| format!(" The sender was told by {id}."));
        advice.why.push_str(&told.unwrap_or_default());
    }
    Some(advice)
}

const fn delivers(state: ServerState) -> bool {
    matches!(state, ServerState::Running | ServerState::Paused | ServerState::Starting)
}

/// The last outcome of a recipient that did not get the message.
fn deciding(entry: &TraceEntry) -> Option<&TraceEvent> {
    let is_bad = |event: &&TraceEvent| {
        let words = ["deferred", "delayed", "in_doubt", "bounced", "expired", "badmail"];
        words.contains(&event.event.as_str())
    };
    let concerns = |event: &&TraceEvent| match &event.to {
        None => true,
        Some(to) => {
            let recipient = entry.recipients.iter().find(|recipient| recipient.address == *to);
            recipient.is_none_or(|recipient| {
                !["delivered", "resolved", "removed"].contains(&&*recipient.state)
            })
        }
    };
    entry.events.iter().rev().filter(is_bad).find(concerns)
}

fn route<'a>(case: &Case<'a>, event: &'a TraceEvent) -> &'a str {
    let of_lane = || case.lane.map(|lane| lane.route.as_str());
    event.route.as_deref().or_else(of_lane).unwrap_or_default()
}

fn step(command: impl Into<String>, purpose: &str) -> Step {
    Step { command: command.into(), purpose: purpose.to_owned() }
}

/// What an event that decided is about.
struct Facts<'a> {
    entry: &'a TraceEntry,
    event: &'a TraceEvent,
    /// The host, or who was to be asked.
    host: String,
    /// The recipient.
    to: &'a str,
    domain: &'a str,
    /// The remote's words, or ours, as they were said.
    said: String,
    /// The same in small letters.
    words: String,
    /// Whether an operator chose the host.
    is_smart: bool,
    /// The smart host's name, if it has one.
    smart_host: Option<&'a str>,
}

fn by_event(entry: &TraceEntry, event: &TraceEvent, route: &str) -> Advice {
    let to = event.to.as_deref().unwrap_or_default();
    let facts = Facts {
        entry,
        event,
        host: event.host.clone().unwrap_or_else(|| route.to_owned()),
        to,
        domain: to.rsplit_once('@').map_or(to, |(_, domain)| domain),
        said: event.to_string(),
        words: event.text.as_deref().unwrap_or_default().to_lowercase(),
        is_smart: route.starts_with("host:"),
        smart_host: route
            .strip_prefix("host:smarthost:")
            .and_then(|rest| rest.split([',', ';']).next()),
    };
    let mut advice = match (event.event.as_str(), event.stage.as_deref().unwrap_or_default()) {
        ("in_doubt", _) => facts.in_doubt(),
        ("badmail", "") => facts.pickup(),
        (_, "dns") => facts.dns(),
        (_, "sign") => facts.sign(),
        (_, "connect") => facts.connect(),
        (_, "drop") => facts.drop(),
        (_, "greeting" | "hello") => facts.greeting(),
        (_, "tls") => facts.tls(),
        (_, "login") => facts.login(),
        (_, "mail" | "rcpt" | "data" | "end") => facts.reply(),
        _ => Advice { why: format!("{}.", facts.said), steps: Vec::new() },
    };
    match event.event.as_str() {
        "expired" => {
            advice.why = format!("Its time was up, and it was given up. {}", advice.why);
            advice.steps.retain(|step| step.command.starts_with("smtpctl route"));
        }
        "badmail" if event.stage.is_some() => {
            advice.why.push_str(" It has no sender to tell, so it lies in Badmail.");
            let show = format!("smtpctl badmail show {}", entry.id);
            advice.steps.insert(0, step(show, "look at it"));
        }
        _ => {}
    }
    advice
}

impl Facts<'_> {
    fn says(&self, parts: &[&str]) -> bool {
        parts.iter().any(|part| self.words.contains(part))
    }

    fn has_status(&self, subject_and_detail: &str) -> bool {
        let status = self.event.status.as_deref().unwrap_or_default();
        status.get(1..).is_some_and(|rest| rest.strip_prefix('.') == Some(subject_and_detail))
    }

    fn is_transient(&self) -> bool {
        self.event.status.as_deref().is_some_and(|status| status.starts_with('4'))
    }

    /// A look at the line that sends mail there: of delivery, of a domain or of a sender.
    fn settings(&self, purpose: &str) -> Step {
        let from = self.entry.from.as_deref().filter(|from| !from.is_empty());
        let from = from.map(|from| format!(" --from={}", quoted(from))).unwrap_or_default();
        // No address is taken for an option.
        let end = if self.to.starts_with('-') { " --" } else { "" };
        let (server, to) = (&self.entry.server, quoted(self.to));
        let command = format!("smtpctl route show -s {server}{from}{end} {to}");
        step(command, purpose)
    }

    /// Another way for all mail to the domain.
    fn another_way(&self) -> Step {
        let command = format!("smtpctl domain add remote {} --route HOST:PORT", self.domain);
        step(command, "send it another way")
    }

    fn host_steps(&self, purpose: &str) -> Vec<Step> {
        vec![if self.is_smart { self.settings(purpose) } else { self.another_way() }]
    }

    fn connect(&self) -> Advice {
        let host = &self.host;
        let why = if self.says(&["refused"]) {
            format!(
                "{host} refuses connections: no mail server listens on this port, or a firewall \
                 is in the way."
            )
        } else if self.says(&["timed out", "no answer"]) {
            format!("{host} does not answer: the host is down, or a firewall is in the way.")
        } else {
            format!("{host} cannot be reached: {}.", self.said)
        };
        Advice {
            why,
            steps: self.host_steps("which line says so, and are its host and port right?"),
        }
    }

    fn dns(&self) -> Advice {
        let said = &self.said;
        if self.is_smart {
            let why = format!("The name of the smart host cannot be found: {said}.");
            let steps = vec![self.settings("which line says so, and is the name right?")];
            return Advice { why, steps };
        }
        let domain = self.domain;
        let dig = |purpose| step(format!("dig MX {domain}"), purpose);
        if self.is_transient() {
            let why = format!("DNS does not say where mail for {domain} goes: {said}.");
            return Advice {
                why,
                steps: vec![dig("ask DNS yourself; dns.resolvers says whom we ask")],
            };
        }
        let why = format!(
            "DNS knows no way to {domain}: the address is mistyped, or the domain is gone ({said})."
        );
        Advice { why, steps: vec![dig("ask DNS yourself")] }
    }

    fn drop(&self) -> Advice {
        let said = &self.said;
        let storage = || {
            let command = format!("smtpctl doctor storage -s {}", self.entry.server);
            vec![step(command, "look at the disk")]
        };
        let why = if self.says(&["no space left", "os error 28"]) {
            format!("The disk of the Drop directory is full: {said}.")
        } else if self.says(&["quota"]) {
            format!("The Drop directory is as full as it may be: {said}.")
        } else {
            format!("The message cannot be written into the Drop directory: {said}.")
        };
        Advice { why, steps: storage() }
    }

    fn greeting(&self) -> Advice {
        let (host, said) = (&self.host, &self.said);
        if self.says(&["no valid reply code"]) {
            let why = format!("{host} answers, but not as a mail server does: {said}.");
            return Advice {
                why,
                steps: self.host_steps("which line says so, and is the port right?"),
            };
        }
        let why = format!("{host} answers, but takes no mail from us: {said}.");
        Advice { why, steps: Vec::new() }
    }

    fn in_doubt(&self) -> Advice {
        let why = format!(
            "The connection to {} ended after the whole message was sent and before the answer: \
             {} may have it.",
            self.host, self.to
        );
        let remove = format!("smtpctl queue remove {}", self.entry.id);
        Advice { why, steps: vec![step(remove, "if you know that it arrived")] }
    }

    fn pickup(&self) -> Advice {
        let id = self.entry.id;
        Advice {
            why: format!("The Pickup file is no message that can be sent: {}.", self.said.trim()),
            steps: vec![
                step(format!("smtpctl badmail show {id}"), "look at it"),
                step(
                    format!("smtpctl badmail requeue {id} --from A --to A"),
                    "send it all the same",
                ),
            ],
        }
    }

    /// What a provider of smart hosts is known to mean by its code.
    fn meaning(&self) -> Option<&'static Meaning> {
        let status = EnhancedCode::parse(self.event.status.as_deref()?).ok()?;
        words::of_mail(status, &self.words).filter(|_| self.is_smart)
    }

    /// The remote spoke.
    fn reply(&self) -> Advice {
        let (host, said, to) = (&self.host, &self.said, self.to);
        let code = self.event.code.unwrap_or_default();
        let plain = |why: String| Advice { why, steps: Vec::new() };
        if self.is_transient()
            && (self.says(&["greylist", "graylist", "grey-list", "postgrey"])
                || self.has_status("7.1") && (code == 450 || code == 451))
        {
            return plain(format!(
                "{host} puts off senders that it does not know yet (greylisting): {said}. A later \
                 attempt will pass."
            ));
        }
        if let Some(meaning) = self.meaning() {
            let why = format!("{host}: {}; {}. It said: {said}.", meaning.cause, meaning.cure);
            return plain(why);
        }
        if self.says(&["relay"]) {
            let why = format!("{host} does not relay for us: {said}.");
            return Advice { why, steps: self.host_steps("is this the right smart host?") };
        }
        if code == 530 || code == 535 || self.says(&["authentication required", "must log in"]) {
            let why = format!("{host} wants a login: {said}.");
            let set = format!("smtpctl smarthost set {} --user NAME", self.smart_host_text());
            let steps = vec![step(set, "log in there, if it is a smart host of yours")];
            return Advice { why, steps };
        }
        if self.has_status("1.1") || self.says(&["user unknown", "unknown user", "no such user"]) {
            return plain(format!("{host} knows no mailbox {to}: {said}."));
        }
        if self.has_status("2.2") {
            return plain(format!("The mailbox of {to} is full: {said}."));
        }
        if self.has_status("3.1") || code == 452 && self.is_transient() {
            return plain(format!("{host} has no room now: {said}."));
        }
        if self.has_status("3.4") || code == 552 {
            return plain(format!("The message is larger than {host} takes: {said}."));
        }
        if self.is_transient() {
            return plain(format!("{host} does not take it now: {said}."));
        }
        plain(format!("{host} refuses it for good: {said}."))
    }
}

/// A sentence about other hosts, where one that took mail shows that the fault is not on our side.
fn elsewhere(case: &Case<'_>, event: &TraceEvent) -> String {
    let other = case.elsewhere.iter().find(|(host, _)| event.host.as_ref() != Some(host));
    let Some((host, at)) = other else { return String::new() };
    let ago = Span::seconds(case.now.since(*at).as_millis() / 1_000);
    format!(" Another host took mail {ago} ago ({host}), so the network works from here.")
}

/// A sentence about the mail beside it.
fn beside(lane: &Lane, now: Timestamp) -> String {
    let mut text = String::new();
    if lane.waiting > 1 {
        text.push_str(&format!(" Other mail to it: {} waiting.", lane.waiting - 1));
    }
    if lane.failures > 1 {
        text.push_str(&format!(" It could not be reached {} times in a row.", lane.failures));
    }
    if let Some(until) = lane.until.filter(|until| *until > now) {
        let wait = Span::seconds(until.since(now).as_millis().div_ceil(1_000));
        text.push_str(&format!(" It is asked again in {wait}."));
    }
    text
}

/// Explains why a client was turned away; nothing where the reason says it all.
#[must_use]
pub fn explain_refusal(refused: &Refused) -> Option<Advice> {
    let Refused { client, server, .. } = refused;
    let to = refused.to.as_deref().unwrap_or("the recipient");
    let look = |tab: &str, purpose: &str| {
        vec![step(format!("smtpctl server show {server} --tab {tab}"), purpose)]
    };
    let list = |which: &str, purpose: &str| {
        let test = format!("smtpctl {which} test -s {server} --client {client}");
        let allow = format!("smtpctl {which} allow -s {server} {client}");
        vec![step(test, "which line decides?"), step(allow, purpose)]
    };
    let (why, steps) = match refused.reason.as_str() {
        "relay-denied" => (
            format!("{to} is not in a domain of {server}, and {client} may not send to others."),
            list("relay", "let it, if it is one of yours"),
        ),
        "access-denied" => (
            format!("access.connect of {server} does not let {client} in."),
            list("access", "let it in, if it is one of yours"),
        ),
        "spf-failed" => (
            format!(
                "The domain of the sender says in DNS that {client} may not send for it (SPF)."
            ),
            look("senders", "what is refused: senders.spf of its file, then smtpctl reload"),
        ),
        "dmarc-failed" => (
            "The domain in From wants mail refused that neither SPF nor DKIM vouches for (DMARC)."
                .to_owned(),
            look("senders", "what is refused: senders.dmarc of its file, then smtpctl reload"),
        ),
        "policy-unavailable" => (
            format!("A list has names in it, and DNS did not say the name of {client}."),
            look("access", "networks need no DNS"),
        ),
        "stopping" => (
            format!("The virtual server {server} was paused, stopped or stopping."),
            vec![step(format!("smtpctl server resume {server}"), "take mail again")],
        ),
        "store-full" => (
            "Less room was left on the disk of the queue than service.min_free.".to_owned(),
            vec![step(format!("smtpctl doctor storage -s {server}"), "look at the disk")],
        ),
        "connections" => (
            format!("{server} had as many sessions as general.max_connections allows."),
            look("general", "raise it"),
        ),
        "connections-per-client" => (
            format!("{client} had as many sessions as general.max_connections_per_client allows."),
            look("general", "raise it"),
        ),
        "size" => (
            "The message was larger than messages.max_size.".to_owned(),
            look("messages", "raise it"),
        ),
        "recipients" => (
            "The message had more recipients than messages.max_recipients.".to_owned(),
            look("messages", "raise it"),
        ),
        "bare-line-end" => (
            format!("{client} ends lines with a bare CR or LF, which other servers may misread."),
            Vec::new(),
        ),
        _ => return None,
    };
    Some(Advice { why, steps })
}

#[cfg(test)]
mod tests {
    use mailroot_common::control::TraceRecipient;
    use mailroot_common::id::QueueId;

    use super::*;

    fn entry(state: &str, event: TraceEvent) -> TraceEntry {
        let to = "al@slow.example".to_owned();
        TraceEntry {
            id: QueueId::parse("6FZK3QB27N5C").unwrap(),
            server: "default".to_owned(),
            state: state.to_owned(),
            accepted_at: None,
            size: None,
            from: None,
            recipients: vec![TraceRecipient { address: to, state: state.to_owned() }],
            via: None,
            client: None,
            name: None,
            helo: None,
            session: None,
            user: None,
            certificate: None,
            uid: None,
            rule: None,
            checks: None,
            source: None,
            message_id: None,
            subject: None,
            wishes: None,
            events: vec![event],
            dialogues: Vec::new(),
            left_out: 0,
            next_attempt_at: None,
            release_at: None,
            told_at: None,
            expires_at: None,
            advice: None,
        }
    }

    fn event(word: &str, stage: &str, said: &str, route: &str) -> TraceEvent {
        let mut words = said.split(' ');
        let code = words.clone().next().and_then(|word| word.parse().ok());
        if code.is_some() {
            words.next();
        }
        let status = words.next().map(str::to_owned);
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        TraceEvent {
            event: word.to_owned(),
            to: text("al@slow.example"),
            stage: text(stage),
            code,
            status,
            text: text(&words.collect::<Vec<_>>().join(" ")),
            route: text(route),
            host: (stage != "dns").then(|| "mx.slow.example[192.0.2.9]:25".to_owned()),
            ..TraceEvent::default()
        }
    }

    fn told(entry: &TraceEntry, server: ServerState, hold: Option<&str>) -> Option<Advice> {
        let now = Timestamp::default();
        explain(&Case { entry, server: Some(server), lane: None, hold, elsewhere: &[], now })
    }

    const MX: &str = "mx:slow.example";
    const SMART: &str = "host:relay.example:587";
    /// State, event, stage, what was said, route; a part of why, and of a command.
    const TROUBLES: &[[&str; 7]] = &[
        [
            "retry",
            "deferred",
            "connect",
            "4.4.1 connection refused",
            MX,
            "refuses connections",
            "domain add remote slow.example",
        ],
        [
            "retry",
            "deferred",
            "connect",
            "4.4.1 connection refused",
            SMART,
            "no mail server listens",
            "smtpctl route show -s default",
        ],
        [
            "retry",
            "deferred",
            "connect",
            "4.4.1 connection timed out",
            MX,
            "does not answer",
            "queue retry 6FZK3QB27N5C",
        ],
        [
            "retry",
            "deferred",
            "dns",
            "4.4.3 there is no name relay.exmple in DNS",
            SMART,
            "name of the smart host",
            "smtpctl route show -s default",
        ],
        [
            "retry",
            "deferred",
            "dns",
            "4.4.3 DNS gives no answer",
            MX,
            "does not say where",
            "dig MX slow.example",
        ],
        [
            "returned",
            "bounced",
            "dns",
            "5.1.2 there is no name slow.example",
            MX,
            "mistyped",
            "dig MX",
        ],
        [
            "retry",
            "deferred",
            "rcpt",
            "451 4.7.1 try again in 300 seconds",
            MX,
            "greylisting",
            "queue retry",
        ],
        [
            "returned",
            "bounced",
            "rcpt",
            "550 5.7.1 Relaying denied",
            SMART,
            "does not relay for us",
            "smtpctl route show -s default",
        ],
        [
            "returned",
            "bounced",
            "mail",
            "530 5.7.0 Authentication required",
            SMART,
            "wants a login",
            "smarthost set HOST:PORT --user",
        ],
        ["returned", "bounced", "rcpt", "550 5.1.1 unknown", MX, "no mailbox al@slow.example", ""],
        ["retry", "deferred", "rcpt", "452 4.2.2 over quota", MX, "is full", "queue retry"],
        [
            "retry",
            "deferred",
            "data",
            "452 4.3.1 insufficient storage",
            MX,
            "no room",
            "queue retry",
        ],
        ["returned", "bounced", "mail", "552 5.3.4 too big", MX, "larger than", ""],
        [
            "retry",
            "deferred",
            "drop",
            "4.3.1 cannot write x: No space left on device",
            "drop",
            "disk of the Drop directory is full",
            "doctor storage -s default",
        ],
        ["retry", "in_doubt", "end", "4.4.2 the host closed", MX, "may have it", "queue retry"],
        [
            "retry",
            "deferred",
            "greeting",
            "4.5.0 a line of the reply has no valid reply code: \"SSH-2.0\" (before the greeting)",
            SMART,
            "not as a mail server does",
            "smtpctl route show -s default",
        ],
        [
            "retry",
            "deferred",
            "greeting",
            "421 4.3.2 busy",
            MX,
            "takes no mail from us",
            "queue retry",
        ],
        ["returned", "expired", "expiry", "451 4.4.7 try later", MX, "time was up", ""],
        [
            "badmail",
            "badmail",
            "rcpt",
            "550 5.7.9 no",
            MX,
            "lies in Badmail",
            "badmail show 6FZK3QB27N5C",
        ],
        [
            "badmail",
            "badmail",
            "",
            "5.6.0 report.eml: line 1 is no field",
            "",
            "no message that can be sent",
            "badmail show",
        ],
    ];

    #[test]
    fn every_common_trouble_is_named_with_what_to_do() {
        for [state, word, stage, said, route, why, command] in TROUBLES {
            let event = event(word, stage, said, route);
            let advice = told(&entry(state, event), ServerState::Running, None).unwrap();
            assert!(advice.why.contains(why) && advice.why.ends_with('.'), "{}", advice.why);
            let has = advice.steps.iter().any(|step| step.command.contains(command));
            assert!(has || command.is_empty(), "{advice:?}");
        }
    }

    #[test]
    fn who_holds_or_stops_mail_comes_before_what_was_said() {
        let deferred = || event("deferred", "rcpt", "451 4.7.1 later", "mx:slow.example");
        let stopped = told(&entry("retry", deferred()), ServerState::Stopped, None).unwrap();
        assert!(stopped.why.contains("is stopped") && stopped.steps[0].command.contains("start"));
        let held = told(&entry("held", deferred()), ServerState::Running, Some("by anna: x"));
        assert!(held.unwrap().why.contains("held by anna: x"));
        // A paused server delivers.
        let paused = told(&entry("retry", deferred()), ServerState::Paused, None).unwrap();
        assert!(paused.why.contains("greylisting"));
        assert_eq!(told(&entry("delivered", deferred()), ServerState::Running, None), None);
    }

    #[test]
    fn mail_behind_a_dead_destination_is_explained_by_its_lane() {
        let mut waiting = entry("queued", TraceEvent::default());
        waiting.events.clear();
        let lane = Lane {
            route: "mx:slow.example".to_owned(),
            failures: 3,
            until: Some(Timestamp::from_millis(90_000)),
            waiting: 9,
            last: Some(event("deferred", "connect", "4.4.1 connection timed out", "")),
        };
        let now = Timestamp::from_millis(30_500);
        let server = Some(ServerState::Running);
        let elsewhere =
            [("mx.partner.example[192.0.2.5]:25".to_owned(), Timestamp::from_millis(10_000))];
        let (lane, hold) = (Some(&lane), None);
        let case = Case { entry: &waiting, server, lane, hold, elsewhere: &elsewhere, now };
        let advice = explain(&case).unwrap();
        for part in [
            "does not answer",
            "8 waiting",
            "3 times in a row",
            "asked again in 1m",
            "took mail 20s ago",
        ] {
            assert!(advice.why.contains(part), "{part}: {}", advice.why);
        }
        assert_eq!(explain(&Case { lane: None, ..case }), None);
    }

    #[test]
    fn a_recipient_is_never_read_as_an_option_or_by_the_shell() {
        let mut refused = event("deferred", "connect", "4.4.1 connection refused", SMART);
        refused.to = Some("-Hx;id@slow.example".to_owned());
        let entry = entry("retry", refused);
        let advice = told(&entry, ServerState::Running, None).unwrap();
        let shown = advice.steps.iter().find(|step| step.command.contains("route show"));
        assert_eq!(
            shown.map(|step| step.command.as_str()),
            Some("smtpctl route show -s default -- '-Hx;id@slow.example'")
        );
    }

    #[test]
    fn refusals_say_which_rule_it_was() {
        let refused = |reason: &str| Refused {
            server: "lan".to_owned(),
            client: "10.1.0.9".to_owned(),
            reason: reason.to_owned(),
            to: Some("x@other.example".to_owned()),
            ..Refused::default()
        };
        for (reason, part) in [
            ("relay-denied", "10.1.0.9 may not send"),
            ("access-denied", "access.connect"),
            ("stopping", "paused"),
            ("store-full", "min_free"),
            ("size", "max_size"),
        ] {
            let advice = explain_refusal(&refused(reason)).unwrap();
            assert!(advice.why.contains(part), "{advice:?}");
            assert!(advice.steps.iter().all(|step| step.command.contains("lan")), "{advice:?}");
        }
        assert_eq!(explain_refusal(&refused("syntax")), None);
    }
}
