//! Questions to a name server on loopback that answers as each test wants.

use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, PTR};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::*;

/// What the server does with a question.
enum Answer {
    Records(Vec<RData>),
    /// Records of these names, which need not be the one that was asked for.
    Of(Vec<(Name, RData)>),
    Code(ResponseCode),
    Silence,
}

const TIMEOUT: Duration = Duration::from_millis(200);

fn resolver(at: SocketAddr) -> Resolver {
    let settings = Settings { name_servers: vec![at], timeout: TIMEOUT };
    Resolver::new(&settings, Log::quiet()).unwrap()
}

async fn mx_of(resolver: &Resolver, domain: &Domain) -> Result<Vec<MxRecord>, LookupError> {
    let found = resolver.mx(domain, &Allowance::default()).await;
    found.map(|found| found.value)
}

async fn addresses_of(
    resolver: &Resolver,
    host: &Domain,
    family: Family,
) -> Result<Vec<IpAddr>, LookupError> {
    resolver.addresses(host, family, &Allowance::default()).await
}

/// Serves until the test's runtime ends.
async fn serve(answer: impl Fn(&str, RecordType) -> Answer + Send + 'static) -> Resolver {
    resolver(server(answer).await)
}

async fn server(answer: impl Fn(&str, RecordType) -> Answer + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let query = question.queries[0].clone();
            let Some(reply) = reply(question.metadata.id, &query, &answer) else { continue };
            socket.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
        }
    });
    at
}

fn reply(id: u16, query: &Query, answer: &impl Fn(&str, RecordType) -> Answer) -> Option<Message> {
    let mut message = Message::response(id, OpCode::Query);
    message.add_query(query.clone());
    let name = query.name().to_ascii().to_ascii_lowercase();
    match answer(&name, query.query_type()) {
        Answer::Silence => return None,
        Answer::Code(code) => message.metadata.response_code = code,
        Answer::Of(list) => {
            for (owner, data) in list {
                message.add_answer(Record::from_rdata(owner, 60, data));
            }
        }
        Answer::Records(list) => {
            for data in list {
                message.add_answer(Record::from_rdata(query.name().clone(), 60, data));
            }
        }
    }
    Some(message)
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

#[tokio::test]
async fn mx_records_come_with_null_and_without_names_that_are_none() {
    let resolver = serve(|name_asked, kind| match (name_asked, kind) {
        ("x.test.", RecordType::MX) => Answer::Records(vec![
            RData::MX(MX::new(10, name("MX1.x.test."))),
            RData::MX(MX::new(0, Name::root())),
            RData::MX(MX::new(20, Name::from_labels([&b"bad\nname"[..], b"test"]).unwrap())),
        ]),
        ("odd.test.", RecordType::MX) => Answer::Records(vec![RData::MX(MX::new(
            20,
            Name::from_labels([&b"bad name"[..], b"test"]).unwrap(),
        ))]),
        _ => Answer::Records(Vec::new()),
    })
    .await;
    let found = mx_of(&resolver, &domain("x.test")).await.unwrap();
    assert_eq!(
        found,
        [
            MxRecord { preference: 10, exchange: Some(domain("mx1.x.test")) },
            MxRecord { preference: 0, exchange: None },
        ]
    );
    assert!(mx_of(&resolver, &domain("odd.test")).await.unwrap_err().is_temporary());
    assert_eq!(mx_of(&resolver, &domain("none.test")).await, Ok(Vec::new()));
}

#[tokio::test]
async fn three_kinds_of_no_are_told_apart() {
    let resolver = serve(|name_asked, _| match name_asked {
        "nx.test." => Answer::Code(ResponseCode::NXDomain),
        "fail.test." => Answer::Code(ResponseCode::ServFail),
        "refused.test." => Answer::Code(ResponseCode::Refused),
        "odd.test." => Answer::Code(ResponseCode::Unknown(12)),
        "slow.test." => Answer::Silence,
        _ => Answer::Records(Vec::new()),
    })
    .await;
    for (host, temporary) in [
        ("nx.test", false),
        ("fail.test", true),
        ("refused.test", true),
        ("odd.test", true),
        ("slow.test", true),
    ] {
        let mx = mx_of(&resolver, &domain(host)).await.unwrap_err();
        let addresses = addresses_of(&resolver, &domain(host), Family::Any).await.unwrap_err();
        assert_eq!(mx.is_temporary(), temporary, "{host}: {mx}");
        assert_eq!(addresses.is_temporary(), temporary, "{host}: {addresses}");
    }
    let nx = mx_of(&resolver, &domain("nx.test")).await.unwrap_err();
    assert_eq!(nx, LookupError::NoSuchName("nx.test".into()));
    let none = addresses_of(&resolver, &domain("none.test"), Family::V4).await.unwrap_err();
    assert_eq!(none, LookupError::NoData("none.test".into()));
}

/// Makes octets from the question.
type Lie = fn(Vec<u8>) -> Vec<u8>;

/// Serves octets made from each question.
async fn lie(answer: impl Fn(Vec<u8>) -> Vec<u8> + Send + 'static) -> Resolver {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&answer(buffer[..length].to_vec()), client).await.unwrap();
        }
    });
    resolver(at)
}

/// A good answer to the question `asked`: mail for the name goes to `evil.test`.
fn good(asked: &[u8]) -> Vec<u8> {
    let question = Message::from_vec(asked).unwrap();
    let answer = |_: &str, _| Answer::Records(vec![RData::MX(MX::new(1, name("evil.test.")))]);
    reply(question.metadata.id, &question.queries[0], &answer).unwrap().to_vec().unwrap()
}

#[tokio::test]
async fn answers_that_lie_are_no_answers_and_end_in_time() {
    /// Where the question begins, and where the count of answers stands.
    const QUESTION: usize = 12;
    const ANSWERS: usize = 6;
    let x = domain("x.test");
    let believed = mx_of(&lie(|asked| good(&asked)).await, &x).await.unwrap();
    assert_eq!(believed[0].exchange, Some(domain("evil.test")), "the lies are made from this");

    let lies: [(&str, Lie); 7] = [
        ("no DNS at all", |_| b"220 mx.test ESMTP\r\n".to_vec()),
        ("half a header", |asked| asked[..5].to_vec()),
        ("another id", |asked| {
            let mut lie = good(&asked);
            lie[0] ^= 0x55;
            lie
        }),
        ("another question", |asked| {
            let mut lie = good(&asked);
            lie[QUESTION + 1] = b'y';
            lie
        }),
        ("more records than there are", |asked| {
            let mut lie = good(&asked);
            lie[ANSWERS..ANSWERS + 2].copy_from_slice(&[0xff, 0xff]);
            lie
        }),
        ("a name that points to itself", |asked| {
            let mut lie = good(&asked);
            let end = lie.len();
            lie[end - 2..].copy_from_slice(&[0xc0, u8::try_from(end - 2).unwrap()]);
            lie
        }),
        ("cut in the middle of a record", |asked| {
            let lie = good(&asked);
            lie[..lie.len() - 4].to_vec()
        }),
    ];
    for (what, made) in lies {
        let resolver = lie(made).await;
        let asked = tokio::time::timeout(Duration::from_secs(30), mx_of(&resolver, &x)).await;
        let found = asked.unwrap_or_else(|_| panic!("{what}: no end"));
        assert!(found.as_ref().is_err_and(LookupError::is_temporary), "{what}: {found:?}");
    }
}

#[tokio::test]
async fn addresses_come_in_the_order_of_the_family() {
    let resolver = serve(|name_asked, kind| match (name_asked, kind) {
        ("half.test.", RecordType::AAAA) => Answer::Code(ResponseCode::ServFail),
        ("six.test.", RecordType::A) => Answer::Code(ResponseCode::ServFail),
        ("six.test." | "x.test.", RecordType::AAAA) => {
            Answer::Records(vec![RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))])
        }
        ("x.test." | "half.test.", RecordType::A) => {
            Answer::Records(vec![RData::A(A::new(192, 0, 2, 1))])
        }
        ("many.test.", RecordType::A) => {
            Answer::Records((0..30).map(|n| RData::A(A::new(192, 0, 2, n))).collect())
        }
        _ => Answer::Records(Vec::new()),
    })
    .await;
    let four: IpAddr = "192.0.2.1".parse().unwrap();
    let six: IpAddr = "2001:db8::1".parse().unwrap();
    for (host, family, expected) in [
        ("x.test", Family::Any, vec![six, four]),
        ("x.test", Family::Prefer4, vec![four, six]),
        ("x.test", Family::V4, vec![four]),
        ("x.test", Family::V6, vec![six]),
        ("half.test", Family::Any, vec![four]),
    ] {
        assert_eq!(addresses_of(&resolver, &domain(host), family).await, Ok(expected), "{host}");
    }
    let many = addresses_of(&resolver, &domain("many.test"), Family::Any).await.unwrap();
    assert_eq!(many.len(), 16);
    let unknown = addresses_of(&resolver, &domain("six.test"), Family::V4).await.unwrap_err();
    assert!(unknown.is_temporary());
}

#[tokio::test]
async fn alias_chains_are_followed_and_loops_end() {
    let resolver = serve(|name_asked, kind| match (name_asked, kind) {
        ("alias.test.", _) => Answer::Records(vec![RData::CNAME(CNAME(name("real.test.")))]),
        ("real.test.", RecordType::A) => Answer::Records(vec![RData::A(A::new(192, 0, 2, 1))]),
        ("ping.test.", _) => Answer::Records(vec![RData::CNAME(CNAME(name("pong.test.")))]),
        ("pong.test.", _) => Answer::Records(vec![RData::CNAME(CNAME(name("ping.test.")))]),
        _ => Answer::Records(Vec::new()),
    })
    .await;
    let found = addresses_of(&resolver, &domain("alias.test"), Family::V4).await;
    assert_eq!(found, Ok(vec!["192.0.2.1".parse().unwrap()]));
    assert!(addresses_of(&resolver, &domain("ping.test"), Family::V4).await.is_err());
}

/// Aliases without an end, one for each answer: `a7.test` leads to `a8.test`.
fn endless(name_asked: &str, count: &AtomicUsize) -> Answer {
    count.fetch_add(1, Ordering::SeqCst);
    let number = name_asked.trim_start_matches('a').split('.').next().unwrap_or_default();
    let next = number.parse::<u32>().unwrap_or_default() + 1;
    Answer::Records(vec![RData::CNAME(CNAME(name(&format!("a{next}.test."))))])
}

#[tokio::test]
async fn chains_and_circles_of_aliases_end_after_few_questions() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let resolver = serve(move |name_asked, _| match name_asked {
        "self.test." | "circle.test." | "back.test." => {
            counted.fetch_add(1, Ordering::SeqCst);
            let next = if name_asked == "circle.test." { "back.test." } else { "circle.test." };
            let next = if name_asked == "self.test." { "self.test." } else { next };
            Answer::Records(vec![RData::CNAME(CNAME(name(next)))])
        }
        _ => endless(name_asked, &counted),
    })
    .await;
    for (host, questions) in [("a0.test", 8), ("circle.test", 2), ("self.test", 1)] {
        count.store(0, Ordering::SeqCst);
        let error = addresses_of(&resolver, &domain(host), Family::V4).await.unwrap_err();
        assert!(error.is_temporary() && error.to_string().contains("aliases"), "{host}: {error}");
        assert_eq!(count.load(Ordering::SeqCst), questions, "{host}");
    }
}

#[tokio::test]
async fn one_piece_of_business_asks_so_many_questions_and_no_more() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let resolver = serve(move |name_asked, _| endless(name_asked, &counted)).await;
    let allowance = Allowance::default();
    let mut last = None;
    for n in 0..30 {
        let host = domain(&format!("a{n}00.test"));
        last = resolver.addresses(&host, Family::Any, &allowance).await.err();
    }
    assert_eq!(count.load(Ordering::SeqCst), usize::try_from(QUESTIONS_MAX).unwrap());
    let last = last.unwrap();
    assert!(last.is_temporary() && last.to_string().contains("more than 32 questions"), "{last}");
    // What is known costs nothing.
    let known = domain("a000.test");
    assert!(resolver.addresses(&known, Family::Any, &allowance).await.is_err());
    assert!(addresses_of(&resolver, &domain("a9900.test"), Family::V4).await.is_err());
    assert_eq!(count.load(Ordering::SeqCst), 32 + 8, "the next one has its own");
}

#[tokio::test]
async fn records_beside_those_that_were_asked_for_count_for_nothing() {
    let evil = |kind| match kind {
        RecordType::MX => RData::MX(MX::new(0, name("evil.test."))),
        _ => RData::A(A::new(192, 0, 2, 66)),
    };
    let resolver = serve(move |name_asked, kind| match (name_asked, kind) {
        ("x.test.", RecordType::MX) => Answer::Of(vec![
            (name("y.test."), evil(RecordType::MX)),
            (name("x.test."), RData::MX(MX::new(10, name("mx.x.test.")))),
            (name("y.test."), evil(RecordType::A)),
            (name("mx.x.test."), evil(RecordType::A)),
        ]),
        ("mx.x.test." | "y.test.", RecordType::A) => Answer::Of(vec![
            (name("evil.test."), evil(RecordType::A)),
            (name(name_asked), RData::A(A::new(192, 0, 2, 1))),
        ]),
        ("z.test.", _) => Answer::Of(vec![(name("y.test."), evil(RecordType::MX))]),
        _ => Answer::Records(Vec::new()),
    })
    .await;
    let found = mx_of(&resolver, &domain("x.test")).await.unwrap();
    assert_eq!(found, [MxRecord { preference: 10, exchange: Some(domain("mx.x.test")) }]);
    assert_eq!(mx_of(&resolver, &domain("y.test")).await, Ok(Vec::new()), "it was asked for anew");
    assert_eq!(mx_of(&resolver, &domain("z.test")).await, Ok(Vec::new()));
    for host in ["mx.x.test", "y.test"] {
        let found = addresses_of(&resolver, &domain(host), Family::V4).await;
        assert_eq!(found, Ok(vec!["192.0.2.1".parse().unwrap()]), "{host}");
    }
}

/// Answers each question twice: for the name itself, and then that it is at an evil address.
async fn answering_twice() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            for last in [1, 66] {
                let answer = |_: &str, _| Answer::Records(vec![RData::A(A::new(192, 0, 2, last))]);
                let reply = reply(question.metadata.id, &question.queries[0], &answer).unwrap();
                // The one who has his answer may have closed the door.
                let _closed = socket.send_to(&reply.to_vec().unwrap(), client).await;
            }
        }
    });
    at
}

#[tokio::test]
async fn of_two_answers_the_first_counts_and_the_second_answers_no_other_question() {
    let resolver = resolver(answering_twice().await);
    for host in ["a.test", "b.test", "a.test", "c.test"] {
        let found = addresses_of(&resolver, &domain(host), Family::V4).await;
        assert_eq!(found, Ok(vec!["192.0.2.1".parse().unwrap()]), "{host}");
    }
}

#[tokio::test]
async fn names_that_are_nowhere_are_asked_of_nobody() {
    let resolver = serve(|_, _| panic!("nobody is to be asked")).await;
    for host in ["x.invalid", "x.onion"] {
        let error = mx_of(&resolver, &domain(host)).await.unwrap_err();
        assert_eq!(error, LookupError::NoSuchName(host.to_owned()));
    }
    for host in ["localhost", "x.localhost"] {
        let found = addresses_of(&resolver, &domain(host), Family::V4).await;
        assert_eq!(found, Ok(vec!["127.0.0.1".parse().unwrap()]), "{host}");
    }
}

#[tokio::test(start_paused = true)]
async fn servers_that_come_with_the_network_are_asked_without_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    let settings = Settings { name_servers: Vec::new(), timeout: TIMEOUT };
    let dns = Dns::new(&settings, &file, Log::quiet()).unwrap();
    assert_eq!(dns.asker().await.unvouched(), None, "this machine itself");
    std::fs::write(&file, "nameserver 192.0.2.53\n").unwrap();
    assert_eq!(dns.asker().await.unvouched(), None, "it is not looked at for each question");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let asker = dns.asker().await;
    assert!(asker.unvouched().unwrap().contains("192.0.2.53"));
}

#[tokio::test]
async fn a_name_that_does_not_lead_back_is_not_believed() {
    let resolver = serve(|name_asked, kind| match (name_asked, kind) {
        ("1.2.0.192.in-addr.arpa.", RecordType::PTR) => Answer::Records(vec![
            RData::PTR(PTR(name("true.test."))),
            RData::PTR(PTR(name("trusted.example."))),
            RData::PTR(PTR(Name::from_labels([&b"evil\r\nevent=x"[..]]).unwrap())),
        ]),
        ("true.test.", RecordType::A) => Answer::Records(vec![RData::A(A::new(192, 0, 2, 1))]),
        ("trusted.example.", RecordType::A) => {
            Answer::Records(vec![RData::A(A::new(198, 51, 100, 1))])
        }
        _ => Answer::Code(ResponseCode::NXDomain),
    })
    .await;
    for address in ["192.0.2.1", "::ffff:192.0.2.1"] {
        let names = resolver.names(address.parse().unwrap()).await;
        assert_eq!(names, Ok(vec![domain("true.test")]));
    }
    assert!(!resolver.names("192.0.2.9".parse().unwrap()).await.unwrap_err().is_temporary());
}

#[tokio::test]
async fn of_many_names_of_a_client_few_are_looked_at() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let resolver = serve(move |_, kind| match kind {
        RecordType::PTR => {
            let claimed = |n| RData::PTR(PTR(name(&format!("n{n}.test."))));
            Answer::Records((0..50).map(claimed).collect())
        }
        _ => {
            counted.fetch_add(1, Ordering::SeqCst);
            Answer::Code(ResponseCode::NXDomain)
        }
    })
    .await;
    let found = resolver.names("192.0.2.1".parse().unwrap()).await;
    assert_eq!(found, Err(LookupError::NoData("192.0.2.1".into())));
    assert_eq!(count.load(Ordering::SeqCst), NAMES_MAX);
}

#[tokio::test]
async fn simulated_names_answer_like_real_ones() {
    let dns = SimulatedDns::default();
    let resolver = Resolver::Simulated(dns.clone());
    let (x, mx) = (domain("x.test"), domain("mx.test"));
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    dns.add_mx(&x, 10, Some(mx.clone()));
    dns.add_address(&mx, address);
    assert_eq!(mx_of(&resolver, &x).await.unwrap().len(), 1);
    assert_eq!(mx_of(&resolver, &mx).await, Ok(Vec::new()));
    assert_eq!(addresses_of(&resolver, &mx, Family::Any).await, Ok(vec![address]));
    assert_eq!(resolver.names(address).await, Ok(vec![mx.clone()]));
    dns.set_out_of_order(&mx, true);
    assert!(addresses_of(&resolver, &mx, Family::Any).await.unwrap_err().is_temporary());
    assert!(!mx_of(&resolver, &domain("none.test")).await.unwrap_err().is_temporary());
}
