//! From a selector to questions that heads and filters of blocks can answer.

use mailroot_common::control::Matcher;
use mailroot_common::control::selector::{Facts, RecipientFacts, SelectorError, id_range};
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;

use super::block::Head;
use super::event::Event;
use super::filter::{Key, NETWORKS, may_have};

/// Ids from the first to the last; the key if they are one.
type Range = (QueueId, QueueId, Option<Key>);

/// What a block must have to be of interest.
#[derive(Clone, Debug, Default)]
pub struct Want {
    /// Every one of these.
    keys: Vec<Key>,
    /// Messages with an id in one of these ranges, if there are any; the key of one id alone.
    ids: Vec<Range>,
    /// Events not before and not after.
    from: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Want {
    /// Blocks with the beginning of a chosen message's story, or with a chosen refusal; with any
    /// part of the story where ids choose.
    ///
    /// # Errors
    ///
    /// [`SelectorError::Id`].
    pub fn of(matcher: &Matcher, now: Timestamp) -> Result<Self, SelectorError> {
        let must = matcher.must_have();
        let addresses = must.addresses.iter().map(|address| Key::address(address));
        let domains = must.domains.iter().map(|domain| Key::domain(domain));
        let client = must.client.and_then(|network| {
            let (net, bits) = (network.as_ipnet(), network.as_ipnet().max_prefix_len());
            let known = NETWORKS.iter().filter(|(family, _)| *family == bits);
            let lengths = std::iter::once(bits).chain(known.map(|(_, length)| *length));
            let length = lengths.filter(|length| *length <= net.prefix_len()).max()?;
            Some(Key::network(net.addr(), length))
        });
        let pieces = must.subject.iter().flat_map(|text| Key::pieces(text));
        let (from, until) = matcher.accepted_between(now);
        Ok(Self {
            keys: addresses.chain(domains).chain(client).chain(pieces).collect(),
            ids: matcher.ids().iter().map(|text| range(text)).collect::<Result<_, _>>()?,
            from,
            until,
        })
    }

    /// Of these blocks only those with a refusal.
    #[must_use]
    pub fn refusals(mut self) -> Self {
        self.keys.push(Key::refusal());
        self
    }

    /// Blocks with any part of the stories of these messages.
    #[must_use]
    pub fn ids(ids: &[QueueId]) -> Self {
        let ids = ids.iter().map(|&id| (id, id, Some(Key::id(id)))).collect();
        Self { ids, ..Self::default() }
    }

    /// Blocks with an event not before a moment.
    #[must_use]
    pub fn since(from: Timestamp) -> Self {
        Self { from: Some(from), ..Self::default() }
    }

    /// Whether a block may have something of it.
    #[must_use]
    pub fn may_be_in(&self, head: &Head, filter: &[u8]) -> bool {
        self.from.is_none_or(|from| head.last >= from)
            && self.until.is_none_or(|until| head.first <= until)
            && self.keys.iter().all(|&key| may_have(filter, key))
            && (self.ids.is_empty()
                || self.ids.iter().any(|id| Self::may_have_id(id, head, filter)))
    }

    fn may_have_id((first, last, key): &Range, head: &Head, filter: &[u8]) -> bool {
        *first <= head.highest
            && *last >= head.lowest
            && key.is_none_or(|key| may_have(filter, key))
    }
}

/// The first and the last id that begin with a text; the key if they are one.
fn range(text: &str) -> Result<Range, SelectorError> {
    let (first, last) = id_range(text)?;
    Ok((first, last, (first == last).then(|| Key::id(first))))
}

/// Whether what is known by this event alone is chosen: the beginning of a story with everything,
/// a refusal with its client, another event with its message's id and its recipient.
#[must_use]
pub fn is_chosen(matcher: &Matcher, event: &Event<'_>, now: Timestamp) -> bool {
    let asks_id = !matcher.ids().is_empty();
    let id = event.id().filter(|_| asks_id).map(|id| id.to_string()).unwrap_or_default();
    let accepted = event.id().map(|id| Timestamp::from_millis(id.as_millis()));
    let at = if event.is_beginning() || event.is_refusal() { Some(event.at) } else { accepted };
    let facts = Facts {
        id: &id,
        server: event.server,
        state: "",
        at,
        size: event.size,
        from: event.from,
        subject: event.subject,
        client: event.client.filter(|_| matcher.asks_client()).and_then(|it| it.parse().ok()),
    };
    let words = event.words.or(event.reason);
    let recipients = event.to.iter().map(|address| RecipientFacts {
        address,
        reason: words,
        code: event.status,
        ..RecipientFacts::default()
    });
    matcher.matches(&facts, recipients, now)
}

#[cfg(test)]
mod tests {
    use mailroot_common::control::Selector;

    use super::super::block::{Builder, Front, HEAD_OCTETS};
    use super::super::event::{Number, Text};
    use super::super::note::Note;
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_763_003_600_000);

    fn received(id: u64) -> Vec<u8> {
        Note::new("received", "default", Timestamp::from_millis(1_763_000_000_000))
            .id(QueueId::from_u64((1_763_000_000_000 << 18) + id))
            .number(Number::Size, 100)
            .text(Text::From, "App@client.example")
            .text(Text::To, "al@slow.example")
            .text(Text::To, "bob@partner.example")
            .text(Text::Client, "10.1.0.7")
            .text(Text::Subject, "Invoice 2291")
            .finish()
    }

    fn selector(name: &str, value: &str) -> Selector {
        let mut selector = Selector::default();
        let value = value.to_owned();
        match name {
            "ids" => selector.ids = vec![value],
            "from" => selector.from = Some(value),
            "to" => selector.to = Some(value),
            "domain" => selector.domain = Some(value),
            "subject" => selector.subject = Some(value),
            "client" => selector.client = Some(value),
            "newer_than" => selector.newer_than = Some(value),
            "older_than" => selector.older_than = Some(value),
            "server" => selector.server = Some(value),
            _ => {}
        }
        selector
    }

    #[test]
    fn filters_pass_what_events_match_and_stop_what_is_not_there() {
        let octets = received(1);
        let event = Event::take(&mut octets.as_slice()).unwrap();
        let id = event.id().unwrap().to_string();
        let mut builder = Builder::default();
        assert!(builder.take(&mut octets.as_slice()));
        let block = builder.seal();
        let Front::Block(head) = Head::read(&block) else { panic!("a block") };
        let filter = &block[HEAD_OCTETS..HEAD_OCTETS + head.filter];
        for (name, value, chosen, passed) in [
            ("", "", true, true),
            ("ids", &*id, true, true),
            ("ids", &id[..6], true, true),
            ("ids", "7000", false, false),
            ("from", "app@CLIENT.example", true, true),
            ("from", "*@client.example", true, true),
            ("from", "other@client.example", false, false),
            ("to", "bob@partner.example", true, true),
            ("to", "/^bob@/", true, true),
            ("to", "eve@partner.example", false, false),
            ("domain", "slow.example", true, true),
            ("domain", "fast.example", false, false),
            ("subject", "invoice", true, true),
            ("subject", "offer", false, false),
            ("subject", "off", false, true),
            ("subject", "*voice ?291", true, true),
            ("subject", "/invoice [0-9]+$/", true, true),
            ("subject", "/offer [0-9]+$/", false, false),
            ("client", "10.1.0.7", true, true),
            ("client", "10.1.0.0/24", true, true),
            ("client", "10.1.0.0/20", true, true),
            ("client", "10.0.0.0/8", true, true),
            ("client", "10.2.0.0/16", false, false),
            ("client", "11.0.0.0/8", false, false),
            ("client", "10.1.0.8", false, false),
            ("newer_than", "2h", true, true),
            ("newer_than", "30m", false, false),
            ("older_than", "30m", true, true),
            ("older_than", "2h", false, false),
            ("server", "lan", false, true),
        ] {
            let matcher = selector(name, value).compile().unwrap();
            assert_eq!(is_chosen(&matcher, &event, NOW), chosen, "{name}={value}");
            let want = Want::of(&matcher, NOW).unwrap();
            assert_eq!(want.may_be_in(&head, filter), passed, "{name}={value}");
        }
        let of_ids = Want::ids(&[QueueId::from_u64(5), event.id().unwrap()]);
        assert!(of_ids.may_be_in(&head, filter));
        assert!(!Want::ids(&[QueueId::from_u64(5)]).may_be_in(&head, filter));
    }
}
