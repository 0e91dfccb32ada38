//! Servers that say strange things, over the simulated network.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;

use mailroot_common::config::Profile;
use mailroot_common::config::ldap::{LdapSchema, LdapServer, LdapTls};
use mailroot_common::config::section::Section as _;
use mailroot_common::config::tls::Tls;
use mailroot_common::units::{Span, Timestamp};
use smtpd_core::ldap::ber::{Writer, tag};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::net::{SimulatedNet, Stream};
use crate::resolve::SimulatedDns;

const AT: &str = "192.0.2.7:389";

fn directory(net: &Net, change: impl FnOnce(&mut Ldap)) -> Directory {
    let mut keys = Ldap::defaults(Profile::Modern);
    keys.enabled = true;
    keys.server = vec![LdapServer::parse("ldap://192.0.2.7").unwrap()];
    keys.tls = LdapTls::Off;
    keys.schema = LdapSchema::Openldap;
    keys.base = Some("o=x".to_owned());
    change(&mut keys);
    Directory::new(
        keys,
        Means {
            server: "default".into(),
            own_names: Vec::new(),
            clock: Clock::simulated(Timestamp::from_millis(1_000_000), 1),
            net: net.clone(),
            resolver: Resolver::Simulated(SimulatedDns::default()),
            tls: ClientTls::new(&Tls::defaults(Profile::Modern)),
            secrets: Secrets::in_directory(std::path::Path::new("/nonexistent")),
            log: Log::quiet(),
            counters: Arc::default(),
        },
    )
}

fn message(id: u32, tag: u8, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::default();
    out.inside(tag::SEQUENCE, |out| {
        out.number(tag::INTEGER, id);
        out.inside(tag, write);
    });
    out.into_octets()
}

fn ended(id: u32, tag: u8, code: u32) -> Vec<u8> {
    message(id, tag, |out| {
        out.number(tag::ENUMERATED, code);
        out.octets(tag::OCTETS, b"");
        out.octets(tag::OCTETS, b"so it is");
    })
}

fn entry(id: u32, dn: &str, attributes: &[(&str, &[&str])]) -> Vec<u8> {
    message(id, 0x64, |out| {
        out.octets(tag::OCTETS, dn.as_bytes());
        out.inside(tag::SEQUENCE, |out| {
            for (name, values) in attributes {
                out.inside(tag::SEQUENCE, |out| {
                    out.octets(tag::OCTETS, name.as_bytes());
                    out.inside(tag::SET, |out| {
                        values.iter().for_each(|it| out.octets(tag::OCTETS, it.as_bytes()));
                    });
                });
            }
        });
    })
}

/// Reads one request.
async fn request(stream: &mut Stream) -> Vec<u8> {
    let mut heard = vec![0; 2];
    stream.read_exact(&mut heard).await.unwrap();
    let long = if heard[1] < 0x80 { 0 } else { usize::from(heard[1] & 0x7f) };
    let mut more = vec![0; long];
    stream.read_exact(&mut more).await.unwrap();
    heard.extend(more);
    let extent = smtpd_core::ldap::ber::extent(&heard).unwrap().unwrap();
    let mut rest = vec![0; usize::try_from(extent).unwrap() - heard.len()];
    stream.read_exact(&mut rest).await.unwrap();
    heard.extend(rest);
    heard
}

/// A server that takes the bind and answers each search after it with the next of these octets; then it
/// falls silent.
fn serve(net: &Net, answers: Vec<Vec<u8>>) {
    let at: SocketAddr = AT.parse().unwrap();
    let listener = net.listen(at).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(&ended(1, 0x61, 0)).await.unwrap();
        for answer in answers {
            request(&mut stream).await;
            // Whoever has heard enough hangs up.
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    });
}

fn ada() -> Mailbox {
    Mailbox::parse("ada@example.net").unwrap()
}

async fn says(answer: Vec<u8>) -> Result<bool, String> {
    let net = Net::Simulated(SimulatedNet::default());
    serve(&net, vec![answer]);
    directory(&net, |_| {}).knows(&ada()).await.map_err(|outage| outage.to_string())
}

#[tokio::test(start_paused = true)]
async fn answers_are_taken_and_referrals_passed_over() {
    let found = [
        entry(2, "cn=ada", &[("mail", &["ada@example.net"])]),
        message(2, 0x73, |out| out.octets(tag::OCTETS, b"ldap://elsewhere.example/o=y")),
        ended(2, 0x65, 0),
    ];
    assert_eq!(says(found.concat()).await, Ok(true));
    let reference = message(2, 0x73, |out| out.octets(tag::OCTETS, b"ldap://elsewhere.example"));
    assert_eq!(says([reference, ended(2, 0x65, 0)].concat()).await, Ok(false));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_is_an_outage_and_never_a_no() {
    for (answer, words) in [
        (ended(2, 0x65, 10), "referral to another server"),
        (ended(2, 0x65, 32), "no such entry (32): so it is"),
        (ended(2, 0x65, 53), "unwilling to perform"),
        (ended(0, 0x78, 52), "it ends the connection"),
        (ended(7, 0x65, 0), "answers with something else"),
        (ended(2, 0x61, 0), "answers with something else"),
        (b"220 mail.example ESMTP\r\n".to_vec(), "does not speak LDAP"),
        (vec![0x30, 0x80, 0x02], "does not speak LDAP"),
        (vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff], "more than 4194304 octets"),
        (vec![0x30, 0x03, 0x02, 0x01, 0x02], "does not speak LDAP"),
        (vec![0x30; 200], "does not speak LDAP"),
        (
            [entry(2, "cn=a", &[]), entry(2, "cn=b", &[]), ended(2, 0x65, 4)].concat(),
            "several entries for ada@example.net: cn=a and cn=b and more",
        ),
    ] {
        let outage = says(answer).await.unwrap_err();
        assert!(outage.contains(words), "{words}: {outage}");
    }
    // Nothing at all, and an endless stream of entries.
    let outage = says(Vec::new()).await.unwrap_err();
    assert!(outage.contains("no answer within 5000 ms"), "{outage}");
    let large = entry(2, "cn=a", &[("mail", &[&*"x".repeat(1 << 20)])]);
    let outage = says(large.repeat(9)).await.unwrap_err();
    assert!(outage.contains("more than 8388608 octets"), "{outage}");
}

#[tokio::test(start_paused = true)]
async fn octets_before_tls_are_not_taken_for_the_servers() {
    let net = Net::Simulated(SimulatedNet::default());
    let listener = net.listen(AT.parse().unwrap()).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        let both = [ended(1, 0x78, 0), ended(2, 0x61, 0)].concat();
        stream.write_all(&both).await.unwrap();
        std::future::pending::<()>().await;
    });
    let directory = directory(&net, |keys| keys.tls = LdapTls::Starttls);
    let outage = directory.knows(&ada()).await.unwrap_err();
    assert!(outage.to_string().contains("octets came before TLS began"), "{outage}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_starttls_sends_nothing_in_clear_text() {
    let net = Net::Simulated(SimulatedNet::default());
    let listener = net.listen(AT.parse().unwrap()).unwrap();
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(&ended(1, 0x78, 2)).await.unwrap();
        let mut more = Vec::new();
        stream.read_to_end(&mut more).await.unwrap();
        more
    });
    let directory = directory(&net, |keys| keys.tls = LdapTls::Starttls);
    let outage = directory.knows(&ada()).await.unwrap_err();
    assert!(outage.to_string().contains("refuses StartTLS: protocol error (2)"), "{outage}");
    assert_eq!(heard.await.unwrap(), b"", "no bind after that");
}

#[tokio::test(start_paused = true)]
async fn no_password_of_a_user_goes_in_clear_text_and_none_without_one() {
    let net = Net::Simulated(SimulatedNet::default());
    serve(&net, vec![[entry(2, "cn=ada", &[]), ended(2, 0x65, 0)].concat()]);
    let asked = directory(&net, |_| {});
    // There is nobody else who could be called.
    assert_eq!(asked.login("ada", "").await.unwrap(), Login::Wrong);
    let outage = asked.login("ada", "secret").await.unwrap_err();
    assert!(outage.to_string().contains("no password of a user is sent in clear"), "{outage}");

    let net = Net::Simulated(SimulatedNet::default());
    serve(&net, vec![[entry(2, "", &[]), ended(2, 0x65, 0)].concat()]);
    let outage = directory(&net, |_| {}).login("ada", "secret").await.unwrap_err();
    assert!(outage.to_string().contains("entry that has no name"), "{outage}");
}

#[tokio::test(start_paused = true)]
async fn a_member_in_another_directory_is_named_and_the_others_get_their_mail() {
    let members: &[(&str, &[&str])] = &[("member", &["cn=far,dc=y", "cn=a"])];
    let net = Net::Simulated(SimulatedNet::default());
    let person = [entry(4, "cn=a", &[("mail", &["a@far.example"])]), ended(4, 0x65, 0)];
    let group = [entry(2, "cn=g", members), ended(2, 0x65, 0)];
    serve(&net, vec![group.concat(), ended(3, 0x65, 10), person.concat()]);
    let found = directory(&net, |_| {}).resolve(&ada(), &|_| true).await.unwrap();
    let Resolution::To { recipients, missing, .. } = found else { panic!("{found:?}") };
    assert_eq!(recipients.len(), 1);
    assert_eq!(missing, ["cn=far,dc=y".into()]);

    // Nobody else is there: the mail waits.
    let net = Net::Simulated(SimulatedNet::default());
    let alone: &[(&str, &[&str])] = &[("member", &["cn=far,dc=y"])];
    let group = [entry(2, "cn=g", alone), ended(2, 0x65, 0)];
    serve(&net, vec![group.concat(), ended(3, 0x65, 10)]);
    let outage = directory(&net, |_| {}).resolve(&ada(), &|_| true).await.unwrap_err();
    assert!(outage.to_string().contains("cn=far,dc=y, which lies in another"), "{outage}");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_takes_long_is_followed_on_by_the_next_attempt() {
    const MEMBERS: u32 = 25;
    let names: Vec<String> = (0..MEMBERS).map(|number| format!("cn=m{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let group = [entry(2, "cn=g", &[("member", &names)]), ended(2, 0x65, 0)].concat();
    let net = Net::Simulated(SimulatedNet::default());
    let listener = net.listen(AT.parse().unwrap()).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            stream.write_all(&ended(1, 0x61, 0)).await.unwrap();
            for id in 2.. {
                let heard = String::from_utf8_lossy(&request(&mut stream).await).into_owned();
                let member = heard.split("cn=m").nth(1);
                let digits = member.map(|it| it.chars().take_while(char::is_ascii_digit));
                let Some(number) = digits.map(Iterator::collect::<String>) else {
                    stream.write_all(&group).await.unwrap();
                    continue;
                };
                tokio::time::sleep(Duration::from_secs(4)).await;
                let mail = format!("m{number}@far.example");
                let found = entry(id, &format!("cn=m{number}"), &[("mail", &[&*mail])]);
                // Whoever has waited long enough hangs up.
                if stream.write_all(&[found, ended(id, 0x65, 0)].concat()).await.is_err() {
                    break;
                }
            }
        }
    });
    // Nothing of it is in the cache when the next attempt is made.
    let directory = directory(&net, |keys| keys.cache.positive = Span::ZERO);
    let outage = directory.resolve(&ada(), &|_| true).await.unwrap_err();
    assert!(outage.to_string().contains("the next attempt goes on"), "{outage}");
    let found = directory.resolve(&ada(), &|_| true).await;
    let Ok(Resolution::To { recipients, .. }) = found else { panic!("{found:?}") };
    assert_eq!(recipients.len(), MEMBERS as usize);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_began_later_does_not_throw_an_earlier_one_back() {
    let directory = directory(&Net::Simulated(SimulatedNet::default()), |_| {});
    for is_late_first in [false, true] {
        let early = directory.begin(&ada());
        tokio::time::advance(Duration::from_secs(1)).await;
        let late = directory.begin(&ada());
        let began = early.0;
        assert!(began < late.0);
        let both = if is_late_first { [late, early] } else { [early, late] };
        for (since, expansion) in both {
            directory.put_aside(Unfinished { address: key(&ada()), since, expansion });
        }
        assert_eq!(directory.begin(&ada()).0, began);
        assert!(directory.begin(&ada()).0 > began, "it was kept once");
    }
}

#[tokio::test(start_paused = true)]
async fn members_in_parts_are_put_together() {
    let first: &[(&str, &[&str])] = &[("member", &[]), ("member;range=0-1", &["cn=a", "cn=b"])];
    let last: &[(&str, &[&str])] = &[("member;range=2-*", &["cn=c"])];
    let person = |id, name: &str| {
        let mail = format!("{name}@far.example");
        [entry(id, &format!("cn={name}"), &[("mail", &[&*mail])]), ended(id, 0x65, 0)].concat()
    };
    let net = Net::Simulated(SimulatedNet::default());
    serve(
        &net,
        vec![
            [entry(2, "cn=g", first), ended(2, 0x65, 0)].concat(),
            [entry(3, "cn=g", last), ended(3, 0x65, 0)].concat(),
            person(4, "a"),
            ended(5, 0x65, 32),
            person(6, "c"),
        ],
    );
    let directory = directory(&net, |_| {});
    let found = directory.resolve(&ada(), &|domain| domain.as_str() == "example.net").await;
    let Resolution::To { recipients, is_group: true, .. } = found.unwrap() else { panic!() };
    let all: Vec<String> = recipients.iter().map(|it| it.mailbox.to_string()).collect();
    assert_eq!(all, ["a@far.example", "c@far.example"], "one entry is gone");
    // All of it is remembered: the server has fallen silent.
    assert!(directory.knows(&ada()).await.unwrap());
}
