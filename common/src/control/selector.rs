//! How objects are chosen: the conditions of `--from`, `--older-than` and their like.
//!
//! In: texts as a person wrote them. [`Selector::compile`] checks them, on the client's side so
//! that a mistake is told at once, and again in the daemon, which asks [`Matcher::matches`] of
//! every object. All conditions must hold; those about a recipient must hold for one and the same
//! recipient.
//!
//! A pattern is a glob (`*`, `?`) or, between slashes, a regular expression; both ignore case and
//! take time linear in the text, whatever the pattern, because operators' mistakes must not stop
//! the daemon. Patterns are bounded by [`PATTERN_OCTETS_MAX`].

mod address;
mod facts;
mod pattern;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

pub use self::address::AddressPattern;
pub use self::facts::{Facts, RecipientFacts};
use self::pattern::{Pattern, SizeRule};
use super::path;
use crate::id::QueueId;
use crate::net::{Network, NetworkError};
use crate::units::{Span, Timestamp, UnitError};

/// The longest pattern, in octets.
pub const PATTERN_OCTETS_MAX: usize = 1_000;
/// The shortest beginning of an id that may stand for it.
pub const ID_PREFIX_MIN: usize = 4;
/// How many ids one request may name.
pub const IDS_MAX: usize = 10_000;

/// Which objects are meant. Every condition is optional; none at all chooses everything in a list
/// and is refused in a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Selector {
    /// Ids, or beginnings of ids with at least [`ID_PREFIX_MIN`] characters.
    #[serde(deserialize_with = "read_ids", skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Pattern of the envelope's sender; `<>` for the null path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Pattern of a recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Pattern of a recipient's domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Pattern of the Subject, found anywhere in it unless it has wildcards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Address or network of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// A span: older than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than: Option<String>,
    /// A span: not older than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newer_than: Option<String>,
    /// States, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Pattern of the last words, found anywhere in them unless it has wildcards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Pattern of the last enhanced code, such as `4.7.*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// A size with `>`, `>=`, `<` or `<=` before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Pattern of a destination as pauses name it: a domain, a host, or `drop`, which no wildcard means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Only what the network failed last: no host was reached, or the connection broke.
    #[serde(skip_serializing_if = "is_false")]
    pub network_errors: bool,
    /// The virtual server, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Everything, said in so many words.
    #[serde(skip_serializing_if = "is_false")]
    pub all: bool,
}

/// Why a selector makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A change must name what it changes.
    #[error("nothing is chosen: give an id, a condition, or --all")]
    Empty,
    /// More ids than one request may name.
    #[error("{0} ids in one request, at most {IDS_MAX} are taken")]
    TooManyIds(usize),
    /// A text that cannot be the beginning of an id.
    #[error("{0:?} is not an id: 4 to 12 letters and digits are expected")]
    Id(String),
    /// A pattern that is too long or not a regular expression.
    #[error("--{condition} {text:?} is not a pattern: {why}")]
    Pattern {
        /// The condition's name.
        condition: &'static str,
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A state that does not exist.
    #[error("--state {0:?} is not a state; there are queued, active, retry, held and in_doubt")]
    State(String),
    /// A size without its comparison.
    #[error("--size {0:?} needs a comparison: write '>{0}' or '<{0}'")]
    Comparison(String),
    /// A size or a span.
    #[error("--{condition}: {source}")]
    Unit {
        /// The condition's name.
        condition: &'static str,
        /// What is wrong.
        source: UnitError,
    },
    /// An address or a network.
    #[error("--client: {0}")]
    Network(#[from] NetworkError),
}

impl Selector {
    /// The object with this id, or beginning of an id.
    #[must_use]
    pub fn id(id: impl Into<String>) -> Self {
        Self { ids: vec![id.into()], ..Self::default() }
    }

    /// Whether nothing but possibly a server is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let plain = Self { server: None, ..self.clone() };
        plain == Self::default()
    }

    /// Whether ids and nothing else choose.
    #[must_use]
    pub fn is_ids_only(&self) -> bool {
        let rest = Self { ids: Vec::new(), ..self.clone() };
        !self.ids.is_empty() && rest.is_empty()
    }

    /// Writes the selector as the query of a URL, without the question mark.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut out = String::new();
        let mut add = |name: &str, value: &str| {
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(name);
            out.push('=');
            path::encode(value, &mut out);
        };
        if !self.ids.is_empty() {
            add("ids", &self.ids.join(","));
        }
        for (name, value) in self.texts() {
            if let Some(value) = value {
                add(name, value);
            }
        }
        for (name, is_set) in [("network_errors", self.network_errors), ("all", self.all)] {
            if is_set {
                add(name, "true");
            }
        }
        out
    }

    /// The conditions on texts for people, as `from: *@a.example, to: bob@b.example`.
    #[must_use]
    pub fn words(&self) -> String {
        let texts = self.texts().into_iter();
        let said = texts.filter_map(|(name, value)| Some(format!("{name}: {}", value?)));
        said.collect::<Vec<_>>().join(", ")
    }

    fn texts(&self) -> [(&'static str, Option<&str>); 13] {
        [
            ("from", self.from.as_deref()),
            ("to", self.to.as_deref()),
            ("domain", self.domain.as_deref()),
            ("subject", self.subject.as_deref()),
            ("client", self.client.as_deref()),
            ("older_than", self.older_than.as_deref()),
            ("newer_than", self.newer_than.as_deref()),
            ("state", self.state.as_deref()),
            ("reason", self.reason.as_deref()),
            ("code", self.code.as_deref()),
            ("size", self.size.as_deref()),
            ("destination", self.destination.as_deref()),
            ("server", self.server.as_deref()),
        ]
    }

    /// Checks the conditions and makes them ready to be asked.
    ///
    /// # Errors
    ///
    /// [`SelectorError`], naming the condition.
    pub fn compile(&self) -> Result<Matcher, SelectorError> {
        if self.ids.len() > IDS_MAX {
            return Err(SelectorError::TooManyIds(self.ids.len()));
        }
        let whole = |condition, text: &Option<String>| {
            text.as_deref().map(|text| Pattern::parse(condition, text, false)).transpose()
        };
        let inside = |condition, text: &Option<String>| {
            text.as_deref().map(|text| Pattern::parse(condition, text, true)).transpose()
        };
        let span = |condition, text: &Option<String>| {
            let parsed = text.as_deref().map(Span::parse).transpose();
            parsed.map_err(|source| SelectorError::Unit { condition, source })
        };
        Ok(Matcher {
            takes_everything: Self { all: false, ..self.clone() }.is_empty(),
            ids: self.ids.iter().map(|id| normal_id(id)).collect::<Result<_, _>>()?,
            from: whole("from", &self.from)?,
            to: whole("to", &self.to)?,
            domain: whole("domain", &self.domain)?,
            subject: inside("subject", &self.subject)?,
            client: self.client.as_deref().map(Network::parse).transpose()?,
            older_than: span("older-than", &self.older_than)?,
            newer_than: span("newer-than", &self.newer_than)?,
            states: self.state.as_deref().map(read_states).transpose()?.unwrap_or_default(),
            reason: inside("reason", &self.reason)?,
            code: whole("code", &self.code)?,
            size: self.size.as_deref().map(SizeRule::parse).transpose()?,
            destination: whole("destination", &self.destination)?,
            network_errors: self.network_errors,
            server: self.server.clone(),
        })
    }

    /// As [`Selector::compile`], for a change: it must choose something.
    ///
    /// # Errors
    ///
    /// [`SelectorError::Empty`] as well.
    pub fn compile_for_change(&self) -> Result<Matcher, SelectorError> {
        if self.is_empty() { Err(SelectorError::Empty) } else { self.compile() }
    }
}

const STATES: [&str; 5] = ["queued", "active", "retry", "held", "in_doubt"];

fn read_states(text: &str) -> Result<Vec<&'static str>, SelectorError> {
    text.split(',')
        .map(|word| {
            let word = word.trim().replace('-', "_");
            let known = STATES.into_iter().find(|state| word.eq_ignore_ascii_case(state));
            known.ok_or(SelectorError::State(word))
        })
        .collect()
}

/// Upper case, look-alikes replaced, as ids are written. A message in Badmail may have a hyphen
/// and a number after its id.
fn normal_id(text: &str) -> Result<String, SelectorError> {
    let bad = || SelectorError::Id(text.to_owned());
    let (id, suffix) = match text.split_once('-') {
        Some((id, number)) => (id, Some(number)),
        None => (text, None),
    };
    let mut out: String = id
        .chars()
        .map(|c| match c.to_ascii_uppercase() {
            'I' | 'L' => '1',
            'O' => '0',
            upper => upper,
        })
        .collect();
    let is_id = (ID_PREFIX_MIN..=QueueId::DIGITS).contains(&out.len())
        && out.bytes().all(|o| o.is_ascii_alphanumeric() && o != b'U');
    if !is_id {
        return Err(bad());
    }
    if let Some(number) = suffix {
        let is_number = (1..=9).contains(&number.len())
            && number.bytes().all(|o| o.is_ascii_digit())
            && out.len() == QueueId::DIGITS;
        if !is_number {
            return Err(bad());
        }
        out.push('-');
        out.push_str(number);
    }
    Ok(out)
}

/// The first and the last id that begin with these characters.
///
/// # Errors
///
/// [`SelectorError::Id`].
pub fn id_range(prefix: &str) -> Result<(QueueId, QueueId), SelectorError> {
    let prefix = normal_id(prefix)?;
    let bound = |filler: char| {
        let mut text = prefix.clone();
        while text.len() < QueueId::DIGITS {
            text.push(filler);
        }
        QueueId::parse(&text).map_err(|_| SelectorError::Id(prefix.clone()))
    };
    Ok((bound('0')?, bound('Z')?))
}

/// A selector whose texts have been understood.
#[derive(Clone, Debug)]
pub struct Matcher {
    takes_everything: bool,
    ids: Vec<String>,
    from: Option<Pattern>,
    to: Option<Pattern>,
    domain: Option<Pattern>,
    subject: Option<Pattern>,
    client: Option<Network>,
    older_than: Option<Span>,
    newer_than: Option<Span>,
    states: Vec<&'static str>,
    reason: Option<Pattern>,
    code: Option<Pattern>,
    size: Option<SizeRule>,
    destination: Option<Pattern>,
    network_errors: bool,
    server: Option<String>,
}

/// See [`Matcher::must_have`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MustHave {
    /// Senders or recipients, in small letters; the empty text is the null path.
    pub addresses: Vec<String>,
    /// Domains of them, in small letters.
    pub domains: Vec<String>,
    /// The network of the client.
    pub client: Option<Network>,
    /// Texts in small letters that stand in the subject.
    pub subject: Vec<String>,
}

impl Matcher {
    /// The ids and beginnings of ids, in capitals; empty if any will do.
    #[must_use]
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Whether every object on its server is chosen, so that none needs to be looked at.
    #[must_use]
    pub const fn takes_everything(&self) -> bool {
        self.takes_everything
    }

    /// The virtual server asked for.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// Whether anything is asked that only a message's details can answer, not its place in the
    /// index.
    #[must_use]
    pub fn asks_recipients(&self) -> bool {
        let texts = [&self.to, &self.domain, &self.reason, &self.code, &self.destination];
        self.network_errors || texts.into_iter().any(Option::is_some)
    }

    /// The one domain that a recipient of every chosen object has, where the conditions say so. Who
    /// knows objects by domain need not look at others.
    #[must_use]
    pub fn domain(&self) -> Option<String> {
        let of = |pattern: &Option<Pattern>| pattern.as_ref().and_then(Pattern::domain);
        let (of_domain, of_address) = (of(&self.domain), of(&self.to));
        let of_address = of_address.filter(|(has_at, _)| *has_at);
        of_domain.filter(|(has_at, _)| !has_at).or(of_address).map(|(_, domain)| domain)
    }

    /// What every chosen object must have, where the conditions say it without wildcards. Who knows
    /// objects by it need not look at others.
    #[must_use]
    pub fn must_have(&self) -> MustHave {
        let plain = |pattern: &Option<Pattern>| pattern.as_ref().and_then(Pattern::plain);
        let domain = |pattern: &Option<Pattern>| {
            let found = pattern.as_ref().and_then(Pattern::domain)?;
            Some(found).filter(|(has_at, _)| *has_at).map(|(_, domain)| domain)
        };
        MustHave {
            addresses: [plain(&self.from), plain(&self.to)].into_iter().flatten().collect(),
            domains: [self.domain(), domain(&self.from)].into_iter().flatten().collect(),
            client: self.client,
            subject: self.subject.as_ref().map(Pattern::literals).unwrap_or_default(),
        }
    }

    /// Whether it asks for the client.
    #[must_use]
    pub const fn asks_client(&self) -> bool {
        self.client.is_some()
    }

    /// Whether it asks for what only a message has, so that no refusal can be chosen.
    #[must_use]
    pub fn asks_message(&self) -> bool {
        !self.ids.is_empty()
            || !self.states.is_empty()
            || self.subject.is_some()
            || self.size.is_some()
    }

    /// The moments between which a chosen object was accepted, both included, as far as they are
    /// bounded.
    #[must_use]
    pub fn accepted_between(&self, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
        let ago =
            |span: Span| Timestamp::from_millis(now.as_millis().saturating_sub(span.as_millis()));
        (self.newer_than.map(ago), self.older_than.map(ago))
    }

    /// Whether the object is chosen. `recipients` are those still waiting.
    pub fn matches<'a>(
        &self,
        facts: &Facts<'_>,
        recipients: impl IntoIterator<Item = RecipientFacts<'a>>,
        now: Timestamp,
    ) -> bool {
        self.matches_object(facts, now)
            && (!self.asks_recipients()
                || recipients.into_iter().any(|recipient| self.matches_recipient(&recipient)))
    }

    fn matches_object(&self, facts: &Facts<'_>, now: Timestamp) -> bool {
        let text = |pattern: &Option<Pattern>, text: Option<&str>| {
            pattern.as_ref().is_none_or(|pattern| text.is_some_and(|text| pattern.matches(text)))
        };
        let age = facts.at.map(|at| now.since(at));
        (self.ids.is_empty() || self.ids.iter().any(|id| facts.id.starts_with(id.as_str())))
            && self.server.as_ref().is_none_or(|server| server == facts.server)
            && (self.states.is_empty() || self.states.contains(&facts.state))
            && self.older_than.is_none_or(|span| age.is_some_and(|age| age > span))
            && self.newer_than.is_none_or(|span| age.is_some_and(|age| age <= span))
            && self.size.is_none_or(|rule| facts.size.is_some_and(|size| rule.holds(size)))
            && self.client.is_none_or(|net| facts.client.is_some_and(|ip| net.contains(ip)))
            && text(&self.from, facts.from)
            && text(&self.subject, facts.subject)
    }

    fn matches_recipient(&self, recipient: &RecipientFacts<'_>) -> bool {
        let text = |pattern: &Option<Pattern>, text: Option<&str>| {
            pattern.as_ref().is_none_or(|pattern| text.is_some_and(|text| pattern.matches(text)))
        };
        let domain = recipient.address.rsplit_once('@').map(|(_, domain)| domain);
        text(&self.to, Some(recipient.address))
            && text(&self.domain, domain)
            && text(&self.reason, recipient.reason)
            && text(&self.code, recipient.code)
            && (!self.network_errors || recipient.network_error)
            && self.destination.as_ref().is_none_or(|pattern| {
                recipient.destinations.iter().any(|name| is_meant(pattern, name))
            })
    }
}

/// Local mail is meant by its own name only: whoever writes `*` means other hosts.
fn is_meant(pattern: &Pattern, destination: &str) -> bool {
    const DROP: &str = "drop";
    let is_open = destination != DROP || pattern.plain().as_deref() == Some(DROP);
    is_open && pattern.matches(destination)
}

/// Takes a list, or one text separated by commas as a query of a URL has it.
fn read_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Ids {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Ids::deserialize(deserializer)? {
        Ids::List(list) => list,
        Ids::Text(text) => text.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect(),
    })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn facts() -> Facts<'static> {
        Facts {
            id: "6FZK3QB27N5C",
            server: "default",
            state: "retry",
            at: Some(Timestamp::from_millis(1_000_000)),
            size: Some(6 << 20),
            from: Some("App@example.net"),
            subject: Some("Invoice 2291"),
            client: Some(IpAddr::from([10, 1, 0, 7])),
        }
    }

    const RECIPIENTS: [RecipientFacts<'static>; 2] = [
        RecipientFacts {
            address: "al@slow.example",
            reason: Some("connect timed out"),
            code: Some("4.4.1"),
            destinations: &[],
            network_error: false,
        },
        RecipientFacts {
            address: "bob@partner.example",
            reason: Some("451 4.7.1 Greylisted, try again"),
            code: Some("4.7.1"),
            destinations: &[],
            network_error: false,
        },
    ];

    fn now() -> Timestamp {
        Timestamp::from_millis(1_000_000 + 7_200_000)
    }

    fn chosen(query: &str) -> bool {
        let selector = of_query(query);
        selector.compile().unwrap().matches(&facts(), RECIPIENTS, now())
    }

    /// A table's shorthand: `name=value` separated by blanks, blanks in values written `+`.
    fn of_query(query: &str) -> Selector {
        let mut map = serde_json::Map::new();
        for pair in query.split_whitespace() {
            let (name, value) = pair.split_once('=').unwrap();
            let value = if name == "all" { true.into() } else { value.replace('+', " ").into() };
            map.insert(name.to_owned(), value);
        }
        serde_json::from_value(map.into()).unwrap()
    }

    #[test]
    fn conditions_that_name_one_domain_say_which() {
        for (query, domain) in [
            ("domain=Slow.Example", Some("slow.example")),
            ("domain=slow.example to=*@other.example", Some("slow.example")),
            ("to=*@slow.example", Some("slow.example")),
            ("to=al@slow.example", Some("slow.example")),
            ("to=*@*@slow.example", Some("slow.example")),
            ("to=al@*.example", None),
            ("to=slow.example", None),
            ("to=/@slow.example$/", None),
            ("domain=*.example", None),
            ("domain=sl?w.example", None),
            ("domain=<>", None),
            ("from=a@slow.example", None),
        ] {
            let found = of_query(query).compile().unwrap().domain();
            assert_eq!(found.as_deref(), domain, "{query}");
        }
    }

    #[test]
    fn conditions_without_wildcards_say_what_must_be_there() {
        let must = |query: &str| of_query(query).compile().unwrap().must_have();
        let text = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let all = must("from=App@x.example to=al@slow.example");
        assert_eq!(all.addresses, text(&["app@x.example", "al@slow.example"]));
        assert_eq!(all.domains, text(&["slow.example", "x.example"]));
        let wide = must("from=*@x.example to=/al/ subject=x");
        assert_eq!((wide.addresses, wide.domains), (text(&[]), text(&["x.example"])));
        assert_eq!(must("from=<>").addresses, text(&[""]));
        assert_eq!(must("subject=*Invoice*22?1").subject, text(&["invoice", "22", "1"]));
        assert_eq!(must("subject=/invoice/").subject, text(&["invoice"]));
        let (from, until) = of_query("newer_than=1h older_than=30m")
            .compile()
            .unwrap()
            .accepted_between(Timestamp::from_millis(7_200_000));
        assert_eq!(from, Some(Timestamp::from_millis(3_600_000)));
        assert_eq!(until, Some(Timestamp::from_millis(5_400_000)));
    }

    #[test]
    fn conditions_choose_what_they_say() {
        for query in [
            "",
            "all=true",
            "ids=6FZK3QB27N5C",
            "ids=6fzk,7000",
            "from=app@example.net",
            "from=*@EXAMPLE.net",
            "from=/^app@/",
            "to=al@*",
            "to=/BOB/",
            "domain=slow.example",
            "domain=*.example",
            "subject=invoice",
            "subject=Inv*",
            "client=10.1.0.0/16",
            "older_than=1h",
            "newer_than=3h",
            "state=held,retry",
            "reason=greylist",
            "code=4.7.*",
            "size=>5MiB",
            "size=<=6MiB",
            "server=default",
            "domain=slow.example reason=timed+out older_than=1h59m",
        ] {
            assert!(chosen(query), "{query}");
        }
    }

    #[test]
    fn conditions_leave_out_the_rest() {
        for query in [
            "ids=7000",
            "from=other@*",
            "from=<>",
            "from=app",
            "to=al",
            "to=/^eve/",
            "domain=example",
            "client=10.2.0.0/16",
            "older_than=2h",
            "newer_than=1h",
            "state=held",
            "reason=greylist*",
            "code=5.*",
            "size=>6MiB",
            "size=<6MiB",
            "server=printers",
        ] {
            assert!(!chosen(query), "{query}");
        }
    }

    #[test]
    fn conditions_about_recipients_must_hold_for_the_same_one() {
        assert!(chosen("domain=slow.example code=4.4.1"));
        assert!(!chosen("domain=slow.example code=4.7.1"));
    }

    #[test]
    fn the_null_path_is_written_with_angle_brackets() {
        let selector = of_query("from=<>");
        let facts = Facts { from: Some(""), ..facts() };
        assert!(selector.compile().unwrap().matches(&facts, RECIPIENTS, now()));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (query, word) in [
            ("ids=6FZ", "id"),
            ("ids=6FZK3QB27N5C1", "id"),
            ("ids=6FZU", "id"),
            ("ids=6FZK-2", "id"),
            ("ids=6FZK3QB27N5C-", "id"),
            ("ids=6FZK3QB27N5C-x", "id"),
            ("from=", "--from"),
            ("from=/(/", "--from"),
            ("to=/a{9999}{9999}/", "--to"),
            ("client=10.1.2.3/16", "--client"),
            ("older_than=2", "--older-than"),
            ("size=5MiB", "--size"),
            ("size=>5", "--size"),
            ("state=lost", "--state"),
        ] {
            let error = of_query(query).compile().unwrap_err().to_string();
            assert!(error.contains(word), "{query}: {error}");
        }
        let long = Selector { to: Some("a".repeat(PATTERN_OCTETS_MAX + 1)), ..Selector::default() };
        assert!(matches!(long.compile(), Err(SelectorError::Pattern { .. })));
        let many = Selector { ids: vec!["6FZK".to_owned(); IDS_MAX + 1], ..Selector::default() };
        assert!(matches!(many.compile(), Err(SelectorError::TooManyIds(_))));
    }

    #[test]
    fn a_change_must_choose_something() {
        assert_eq!(Selector::default().compile_for_change().unwrap_err(), SelectorError::Empty);
        let server = Selector { server: Some("default".to_owned()), ..Selector::default() };
        assert_eq!(server.compile_for_change().unwrap_err(), SelectorError::Empty);
        assert!(Selector { all: true, ..server }.compile_for_change().is_ok());
        assert!(Selector::id("6FZK").is_ids_only());
        assert!(!of_query("ids=6FZK from=a").is_ids_only());
    }

    #[test]
    fn a_beginning_of_an_id_is_a_range() {
        let (first, last) = id_range("6fzk").unwrap();
        assert_eq!(first.to_string(), "6FZK00000000");
        assert_eq!(last.to_string(), "6FZKZZZZZZZZ");
        assert_eq!(normal_id("6fzk3qb27n5c-12").unwrap(), "6FZK3QB27N5C-12");
        let one = id_range("6FZK3QB27N5C").unwrap();
        assert_eq!(one.0, one.1);
        assert!(id_range("6FZ").is_err());
    }

    #[test]
    fn queries_of_urls_are_encoded() {
        let selector = Selector {
            ids: vec!["6FZK".to_owned(), "7000".to_owned()],
            to: Some("*@x&y=z".to_owned()),
            all: true,
            ..Selector::default()
        };
        assert_eq!(selector.to_query(), "ids=6FZK%2C7000&to=%2A%40x%26y%3Dz&all=true");
        assert_eq!(Selector::default().to_query(), "");
    }
}
