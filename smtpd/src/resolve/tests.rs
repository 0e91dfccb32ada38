//! Questions to a name server on loopback that answers as each test wants.

use hickory_resolver::proto::op::{Message, OpCode, Query};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, PTR};
use tokio::net::UdpSocket;

use super::*;

/// What the server does with a question.
enum Answer {
    Records(Vec<RData>),
    Code(ResponseCode),
    Silence,
}

/// Serves until the test's runtime ends.
async fn serve(answer: impl Fn(&str, RecordType) -> Answer + Send + 'static) -> Resolver {
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
    let timeout = Duration::from_millis(200);
    Resolver::new(&Settings { name_servers: vec![at], timeout }).unwrap()
}

fn reply(id: u16, query: &Query, answer: &impl Fn(&str, RecordType) -> Answer) -> Option<Message> {
    let mut message = Message::response(id, OpCode::Query);
    message.add_query(query.clone());
    let name = query.name().to_ascii().to_ascii_lowercase();
    match answer(&name, query.query_type()) {
        Answer::Silence => return None,
        Answer::Code(code) => message.metadata.response_code = code,
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
    let found = resolver.mx(&domain("x.test")).await.unwrap();
    assert_eq!(
        found,
        [
            MxRecord { preference: 10, exchange: Some(domain("mx1.x.test")) },
            MxRecord { preference: 0, exchange: None },
        ]
    );
    assert!(resolver.mx(&domain("odd.test")).await.unwrap_err().is_temporary());
    assert_eq!(resolver.mx(&domain("none.test")).await, Ok(Vec::new()));
}

#[tokio::test]
async fn three_kinds_of_no_are_told_apart() {
    let resolver = serve(|name_asked, _| match name_asked {
        "nx.test." => Answer::Code(ResponseCode::NXDomain),
        "fail.test." => Answer::Code(ResponseCode::ServFail),
        "refused.test." => Answer::Code(ResponseCode::Refused),
        "slow.test." => Answer::Silence,
        _ => Answer::Records(Vec::new()),
    })
    .await;
    for (host, temporary) in
        [("nx.test", false), ("fail.test", true), ("refused.test", true), ("slow.test", true)]
    {
        let mx = resolver.mx(&domain(host)).await.unwrap_err();
        let addresses = resolver.addresses(&domain(host), Family::Any).await.unwrap_err();
        assert_eq!(mx.is_temporary(), temporary, "{host}: {mx}");
        assert_eq!(addresses.is_temporary(), temporary, "{host}: {addresses}");
    }
    let nx = resolver.mx(&domain("nx.test")).await.unwrap_err();
    assert_eq!(nx, LookupError::NoSuchName("nx.test".into()));
    let none = resolver.addresses(&domain("none.test"), Family::V4).await.unwrap_err();
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
    let timeout = Duration::from_millis(200);
    Resolver::new(&Settings { name_servers: vec![at], timeout }).unwrap()
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
    let believed = lie(|asked| good(&asked)).await.mx(&x).await.unwrap();
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
        let asked = tokio::time::timeout(Duration::from_secs(30), resolver.mx(&x)).await;
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
        assert_eq!(resolver.addresses(&domain(host), family).await, Ok(expected), "{host}");
    }
    let many = resolver.addresses(&domain("many.test"), Family::Any).await.unwrap();
    assert_eq!(many.len(), 16);
    let unknown = resolver.addresses(&domain("six.test"), Family::V4).await.unwrap_err();
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
    let found = resolver.addresses(&domain("alias.test"), Family::V4).await;
    assert_eq!(found, Ok(vec!["192.0.2.1".parse().unwrap()]));
    assert!(resolver.addresses(&domain("ping.test"), Family::V4).await.is_err());
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
async fn simulated_names_answer_like_real_ones() {
    let dns = SimulatedDns::default();
    let resolver = Resolver::Simulated(dns.clone());
    let (x, mx) = (domain("x.test"), domain("mx.test"));
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    dns.add_mx(&x, 10, Some(mx.clone()));
    dns.add_address(&mx, address);
    assert_eq!(resolver.mx(&x).await.unwrap().len(), 1);
    assert_eq!(resolver.mx(&mx).await, Ok(Vec::new()));
    assert_eq!(resolver.addresses(&mx, Family::Any).await, Ok(vec![address]));
    assert_eq!(resolver.names(address).await, Ok(vec![mx.clone()]));
    dns.set_out_of_order(&mx, true);
    assert!(resolver.addresses(&mx, Family::Any).await.unwrap_err().is_temporary());
    assert!(!resolver.mx(&domain("none.test")).await.unwrap_err().is_temporary());
}
