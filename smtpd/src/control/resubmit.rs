//! A waiting message made a new one: for another address, or in the queue of another virtual server.
//!
//! To another address in the same queue it is one record: the old message ends as the new one
//! begins. In another queue the new one is durable before the old one goes, so that at worst there
//! are two. Whoever is being tried is waited for, so that an attempt's end and the new message do
//! not contradict each other.

use std::time::Duration;

use mailroot_common::address::Mailbox;
use mailroot_common::control::{Kind, Problem};
use mailroot_common::id::QueueId;
use smtpd_core::queue::envelope::{Envelope, Recipient};
use smtpd_core::queue::recipient::{Phase, RecipientStatus};

use super::answer::{Refused, usage};
use super::choose::Place;
use crate::clock::Clock;
use crate::queue::{Draft, Lease};

/// How often a message that is being tried is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where the new message is for.
#[derive(Clone, Debug)]
pub(super) enum Aim {
    /// This address, instead of everybody who waits.
    Address(Mailbox),
    /// The same recipients, in another queue.
    Server(Place),
}

/// Makes the new message and ends the old one; the new id, or nothing if the old one has gone.
/// An attempt that has not ended at `until`, in the clock's time, is an error.
pub(super) async fn resubmit(
    place: &Place,
    id: QueueId,
    aim: &Aim,
    clock: &Clock,
    until: Duration,
) -> Result<Option<QueueId>, Refused> {
    if let Aim::Server(other) = aim
        && other.server == place.server
    {
        return Err(usage(format!("the message is in the queue of {} already", other.server)));
    }
    let (lease, hold) = loop {
        match place.queue.show(id).await? {
            None => return Ok(None),
            Some(message) if message.state.returning.is_some() => {
                let detail = "it is being returned to its sender";
                return Err(Problem::new("queue", Kind::Conflict, detail).into());
            }
            Some(message) if !message.active => {
                if let Some(lease) = place.queue.lease_message(id).await? {
                    break (lease, message.state.hold);
                }
            }
            Some(_) => {}
        }
        if clock.elapsed() >= until {
            let detail = "it is being tried at this moment";
            return Err(Problem::new("queue", Kind::Conflict, detail)
                .word("busy")
                .hint("try again when the attempt has ended")
                .into());
        }
        clock.sleep(LOOK_EVERY).await;
    };
    let target = match aim {
        Aim::Address(_) => &place.queue,
        Aim::Server(other) => &other.queue,
    };
    let envelope = Envelope { hold, ..new_envelope(&lease, aim) };
    let copied = target.copy_of(&lease).await;
    let body = copied
        .map_err(|error| Problem::new("queue", Kind::Failed, format!("message {id}: {error}")))?;
    let draft = Draft { envelope, body };
    let ended = |(at, status): &(usize, RecipientStatus)| {
        (*at, RecipientStatus { phase: Phase::Removed, ..status.clone() })
    };
    let changes = lease.due.iter().map(ended).collect();
    match aim {
        Aim::Address(_) => Ok(place.queue.settle(lease, changes, vec![draft]).await?.pop()),
        Aim::Server(_) => {
            let new = target.accept(draft).await?;
            place.queue.settle(lease, changes, Vec::new()).await?;
            Ok(Some(new))
        }
    }
}

/// The envelope of the new message. Its time goes on: it was accepted when the old one was.
fn new_envelope(lease: &Lease, aim: &Aim) -> Envelope {
    let mut envelope = (*lease.envelope).clone();
    let waiting: Vec<Recipient> =
        lease.places().filter_map(|place| envelope.recipients.get(place).cloned()).collect();
    envelope.recipients = match aim {
        Aim::Server(_) => waiting,
        Aim::Address(mailbox) => vec![replaced(&waiting, mailbox)],
    };
    envelope.origin.source = Some(lease.id.to_string());
    if let Aim::Address(mailbox) = aim {
        envelope.smtputf8 |= !mailbox.is_ascii();
    }
    envelope
}

/// One recipient in the place of those who waited. A single one stays known as the original, so
/// that a report names whom the sender wrote to.
fn replaced(waiting: &[Recipient], mailbox: &Mailbox) -> Recipient {
    let led = Recipient { forwarded: true, ..Recipient::plain(mailbox.clone()) };
    match waiting {
        [one] => Recipient { notify: one.notify, orcpt: one.original(), ..led },
        _ => led,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::queue::{Body, Filter, Queue};
    use crate::store::conformance::{envelope, route, start, table};

    fn place(server: &str) -> Place {
        let queue = Queue::in_memory(Clock::simulated(start(), 1), table(&[]));
        Place { server: server.to_owned(), queue }
    }

    async fn accept(place: &Place, to: &[&str]) -> QueueId {
        let body = Body::Memory(b"Subject: x\r\n\r\ny\r\n".to_vec());
        place.queue.accept(Draft { envelope: envelope(to, start()), body }).await.unwrap()
    }

    async fn all(place: &Place) -> Vec<(Vec<String>, Option<String>)> {
        let listed = place.queue.list(&Filter::default(), None, 9).await.unwrap();
        let facts = |message: &crate::queue::Message| {
            let to = message.envelope.recipients.iter();
            let to = to.map(|to| (to.mailbox.to_string(), to.orcpt.clone())).collect::<Vec<_>>();
            let orcpt = to.iter().find_map(|(_, orcpt)| orcpt.clone());
            (to.into_iter().map(|(address, _)| address).collect(), orcpt)
        };
        listed.iter().map(facts).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn another_address_takes_the_place_of_everybody_who_waits() {
        let (here, clock) = (place("default"), Clock::simulated(start(), 1));
        let aim = Aim::Address(Mailbox::parse("new@y.example").unwrap());
        let one = accept(&here, &["a@x.example"]).await;
        let new = resubmit(&here, one, &aim, &clock, Duration::ZERO).await.unwrap().unwrap();
        let original = Some("rfc822;a@x.example".to_owned());
        assert_eq!(all(&here).await, [(vec!["new@y.example".to_owned()], original)]);
        let shown = here.queue.show(new).await.unwrap().unwrap();
        assert_eq!(shown.envelope.origin.source, Some(one.to_string()));
        assert_eq!(shown.envelope.accepted_at, start());
        assert!(shown.envelope.recipients[0].forwarded, "the sender named another address");
        here.queue.remove(&[new]).await.unwrap();

        let two = accept(&here, &["a@x.example", "b@z.example"]).await;
        resubmit(&here, two, &aim, &clock, Duration::ZERO).await.unwrap().unwrap();
        assert_eq!(all(&here).await, [(vec!["new@y.example".to_owned()], None)]);
        let absent = resubmit(&here, two, &aim, &clock, Duration::ZERO).await.unwrap();
        assert_eq!(absent, None);
    }

    #[tokio::test(start_paused = true)]
    async fn another_server_gets_the_message_before_it_goes_here() {
        let (here, there) = (place("default"), place("lan"));
        let clock = Clock::simulated(start(), 1);
        let id = accept(&here, &["a@x.example", "b@z.example"]).await;
        let aim = Aim::Server(there.clone());
        there.queue.memory().unwrap().refuse(&[std::io::ErrorKind::StorageFull]);
        assert!(resubmit(&here, id, &aim, &clock, Duration::ZERO).await.is_err());
        assert_eq!((all(&here).await.len(), all(&there).await.len()), (1, 0));
        let new = resubmit(&here, id, &aim, &clock, Duration::ZERO).await.unwrap().unwrap();
        assert_eq!((all(&here).await.len(), all(&there).await.len()), (0, 1));
        let octets = there.queue.read(new).unwrap().read_all().await.unwrap();
        assert_eq!(octets, b"Subject: x\r\n\r\ny\r\n");
        let back = resubmit(&there, new, &aim, &clock, Duration::ZERO).await;
        assert_eq!(back.unwrap_err().0.exit, 2, "it is there already");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_under_way_is_waited_for_and_its_end_counts() {
        let (here, clock) = (place("default"), Clock::simulated(start(), 1));
        let id = accept(&here, &["a@x.example"]).await;
        let lease = here.queue.lease(&route("mx:x.example"), start(), 1).await.unwrap().remove(0);
        let aim = Aim::Address(Mailbox::parse("new@y.example").unwrap());
        let busy = resubmit(&here, id, &aim, &clock, Duration::ZERO).await.unwrap_err();
        assert_eq!(&*busy.0.code, "queue.busy");
        let asking = {
            let (here, aim) = (here.clone(), aim.clone());
            let clock = Arc::new(clock.clone());
            let until = clock.elapsed() + Duration::from_secs(10);
            tokio::spawn(async move { resubmit(&here, id, &aim, &clock, until).await.unwrap() })
        };
        tokio::task::yield_now().await;
        let delivered = RecipientStatus { phase: Phase::Delivered, ..lease.due[0].1.clone() };
        here.queue.settle(lease, vec![(0, delivered)], Vec::new()).await.unwrap();
        assert_eq!(asking.await.unwrap(), None, "it was delivered");
    }
}
