//! Tokens over a simulated network and clock, against an endpoint that says what the test wants.

use std::collections::VecDeque;

use mailroot_common::config::Profile;
use mailroot_common::config::section::Section as _;
use mailroot_common::units::Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::net::{Net, SimulatedNet};
use crate::observe::{Format, Sink};
use crate::resolve::{Resolver, SimulatedDns};
use crate::tls::ClientTls;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// An endpoint, and tokens that are asked of it.
struct World {
    net: Net,
    clock: Clock,
    log: Sink,
    tokens: Tokens,
    answers: Arc<Mutex<VecDeque<(u16, String)>>>,
    heard: Arc<Mutex<Vec<String>>>,
    place: tempfile::TempDir,
}

fn name() -> SmartHostName {
    SmartHostName::parse("cloud").unwrap()
}

fn source(grant: Grant) -> TokenSource {
    TokenSource {
        grant,
        client_id: "id".to_owned(),
        client_secret: None,
        client_certificate: None,
        token_endpoint: Endpoint::parse("http://127.0.0.1:80/token").unwrap(),
        device_endpoint: Endpoint::parse("http://127.0.0.1:80/device"),
        scope: None,
    }
}

impl World {
    fn new() -> Self {
        let net = Net::Simulated(SimulatedNet::default());
        let clock = Clock::simulated(START, 1);
        let place = tempfile::tempdir().unwrap();
        let (log, sink) = Log::captured(Format::Logfmt, Level::Debug, clock.clone());
        let tokens = Self::tokens(&net, &clock, log, &place.path().join("oauth"));
        let (answers, heard) = (Arc::default(), Arc::default());
        let world = Self { net, clock, log: sink, tokens, answers, heard, place };
        world.serve();
        world
    }

    fn tokens(net: &Net, clock: &Clock, log: Log, directory: &Path) -> Tokens {
        let tls = ClientTls::new(&mailroot_common::config::tls::Tls::defaults(Profile::Modern));
        let resolver = Resolver::Simulated(SimulatedDns::default());
        let https = Https { net: net.clone(), resolver, tls };
        let secrets = Secrets::in_directory(directory);
        Tokens::new(Cache::new(directory, clock.clone(), log), https, secrets)
    }

    /// The daemon starts again.
    fn restart(&mut self) {
        let (log, sink) = Log::captured(Format::Logfmt, Level::Debug, self.clock.clone());
        self.log = sink;
        self.tokens = Self::tokens(&self.net, &self.clock, log, &self.place.path().join("oauth"));
    }

    /// Answers each request a second later; whoever has no answer left hangs up.
    fn serve(&self) {
        let listener = self.net.listen("127.0.0.1:80".parse().unwrap()).unwrap();
        let (answers, heard) = (Arc::clone(&self.answers), Arc::clone(&self.heard));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut octets = vec![0; 8_192];
                let count = stream.read(&mut octets).await.unwrap_or_default();
                let text = String::from_utf8_lossy(&octets[..count]).into_owned();
                lock(&heard).push(text.split("\r\n\r\n").last().unwrap_or_default().to_owned());
                tokio::time::sleep(Duration::from_secs(1)).await;
                let Some((status, body)) = lock(&answers).pop_front() else { continue };
                let length = body.len();
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n");
                let _sent = stream.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
    }

    fn will_say(&self, status: u16, body: &str) {
        lock(&self.answers).push_back((status, body.to_owned()));
    }

    fn asked(&self) -> usize {
        lock(&self.heard).len()
    }

    fn last(&self) -> String {
        lock(&self.heard).last().cloned().unwrap_or_default()
    }
}

fn given(token: &str, seconds: u32) -> String {
    format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":{seconds}}}")
}

#[tokio::test(start_paused = true)]
async fn one_request_is_on_its_way_however_many_wait() {
    let world = World::new();
    world.will_say(200, &given("t1", 3600));
    let source = source(Grant::ClientCredentials);
    let all = (0..20).map(|_| {
        let (tokens, source) = (world.tokens.clone(), source.clone());
        tokio::spawn(async move { tokens.get(&name(), &source).await })
    });
    for one in all.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap().unwrap().text.as_str(), "t1");
    }
    assert_eq!(world.asked(), 1);
    // Those who wait share a failure as well.
    world.tokens.refused(&name(), &world.tokens.get(&name(), &source).await.unwrap());
    world.will_say(401, r#"{"error":"invalid_client","error_description":"AADSTS7000222: x"}"#);
    let all = (0..20).map(|_| {
        let (tokens, source) = (world.tokens.clone(), source.clone());
        tokio::spawn(async move { tokens.get(&name(), &source).await })
    });
    for one in all.collect::<Vec<_>>() {
        let error = one.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("the client secret has expired"), "{error}");
    }
    assert_eq!(world.asked(), 2);
    assert!(world.log.text().contains("token-failed"), "{}", world.log.text());
}

#[tokio::test(start_paused = true)]
async fn an_ageing_token_is_renewed_and_used_while_that_fails() {
    let world = World::new();
    let source = source(Grant::ClientCredentials);
    world.will_say(200, &given("t1", 3600));
    assert!(world.tokens.get(&name(), &source).await.unwrap().is_new);
    assert!(!world.tokens.get(&name(), &source).await.unwrap().is_new);
    tokio::time::sleep(Duration::from_secs(3_100)).await;
    for _ in 0..3 {
        // Nobody answers; that is asked once a minute at most.
        assert_eq!(world.tokens.get(&name(), &source).await.unwrap().text.as_str(), "t1");
    }
    assert_eq!(world.asked(), 2);
    tokio::time::sleep(Duration::from_secs(61)).await;
    world.will_say(200, &given("t2", 3600));
    assert_eq!(world.tokens.get(&name(), &source).await.unwrap().text.as_str(), "t2");
    // When it is over there is no token without an answer.
    tokio::time::sleep(Duration::from_secs(4_000)).await;
    let error = world.tokens.get(&name(), &source).await.unwrap_err();
    assert!(matches!(error, TokenError::Unreached { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_replaced_survives_a_restart() {
    let mut world = World::new();
    let source = source(Grant::RefreshToken);
    let error = world.tokens.get(&name(), &source).await.unwrap_err();
    assert!(error.to_string().contains("smarthost login cloud"), "{error}");
    world.tokens.cache.adopt(&name(), &source, "r1").await.unwrap();
    world.will_say(200, &given("t1", 600).replace('}', ",\"refresh_token\":\"r2\"}"));
    world.tokens.get(&name(), &source).await.unwrap();
    assert!(world.last().contains("refresh_token=r1"), "{}", world.last());

    world.restart();
    assert!(world.tokens.cache.until(&name(), &source).is_some());
    assert_eq!(world.tokens.get(&name(), &source).await.unwrap().text.as_str(), "t1");
    world.will_say(200, &given("t2", 600));
    world.tokens.get_new(&name(), &source).await.unwrap();
    assert!(world.last().contains("refresh_token=r2"), "{}", world.last());

    // It is not shown to another provider, nor to another application.
    let other = TokenSource { client_id: "other".to_owned(), ..source.clone() };
    let error = world.tokens.get(&name(), &other).await.unwrap_err();
    assert_eq!(error, TokenError::NoRefreshToken(name()));
    for secret in ["t1", "t2", "r1", "r2"] {
        let debug = format!("{:?}", world.tokens.get(&name(), &source).await);
        assert!(!world.log.text().contains(secret) && !debug.contains(secret), "{secret}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_does_not_end_the_request() {
    let world = World::new();
    let source = source(Grant::RefreshToken);
    world.tokens.cache.adopt(&name(), &source, "r1").await.unwrap();
    world.will_say(200, &given("t1", 600).replace('}', ",\"refresh_token\":\"r2\"}"));
    let name = name();
    let hasty = tokio::time::timeout(Duration::from_millis(500), world.tokens.get(&name, &source));
    assert!(hasty.await.is_err());
    world.tokens.cache.settle().await;
    assert!(world.tokens.cache.until(&name, &source).is_some(), "the answer was waited for");
    assert_eq!(world.tokens.get(&name, &source).await.unwrap().text.as_str(), "t1");
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_person_signs_in_with_a_code() {
    let world = World::new();
    let source = source(Grant::RefreshToken);
    assert_eq!(world.tokens.poll_code(&name()).await.unwrap_err(), TokenError::NoCode);
    let code = r#"{"device_code":"d1","user_code":"ABCD","verification_uri":"https://x.example","expires_in":900,"interval":5}"#;
    world.will_say(200, code);
    let code = world.tokens.ask_for_code(&name(), &source).await.unwrap();
    assert_eq!((&*code.user_code, code.wait.as_secs()), ("ABCD", 5));
    // Asked too early, the endpoint is spared.
    assert!(matches!(world.tokens.poll_code(&name()).await, Ok(Polled::Pending(_))));
    assert_eq!(world.asked(), 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.will_say(400, r#"{"error":"authorization_pending"}"#);
    assert_eq!(world.tokens.poll_code(&name()).await, Ok(Polled::Pending(Duration::from_secs(5))));
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.will_say(200, &given("t1", 600).replace('}', ",\"refresh_token\":\"r1\"}"));
    assert!(matches!(world.tokens.poll_code(&name()).await, Ok(Polled::Done(_))));
    assert!(world.last().contains("device_code=d1"), "{}", world.last());
    assert_eq!(world.tokens.get(&name(), &source).await.unwrap().text.as_str(), "t1");
    assert_eq!(world.tokens.poll_code(&name()).await.unwrap_err(), TokenError::NoCode);
}

#[tokio::test(start_paused = true)]
async fn a_person_who_signs_in_for_once_only_is_told() {
    let world = World::new();
    let source = source(Grant::RefreshToken);
    let code = r#"{"device_code":"d","user_code":"u","verification_uri":"https://x.example","expires_in":900}"#;
    world.will_say(200, code);
    world.tokens.ask_for_code(&name(), &source).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.will_say(200, &given("t1", 600));
    assert_eq!(world.tokens.poll_code(&name()).await, Err(TokenError::ForOnce));
    assert_eq!(world.tokens.cache.until(&name(), &source), None);
}

#[tokio::test(start_paused = true)]
async fn a_right_that_no_mail_uses_is_used_once_a_month_and_warned_of_where_that_fails() {
    let mut world = World::new();
    let source = source(Grant::RefreshToken);
    let cache = |world: &World| world.tokens.cache.clone();
    cache(&world).adopt(&name(), &source, "r1").await.unwrap();
    world.tokens.uphold(&name(), &source).await;
    assert_eq!(world.asked(), 0, "it was given just now");
    tokio::time::advance(Duration::from_hours(24 * 31)).await;
    world.restart();
    world.will_say(200, &given("t1", 3600));
    world.tokens.uphold(&name(), &source).await;
    assert_eq!(world.asked(), 1);
    assert!(world.last().contains("refresh_token=r1"), "{}", world.last());
    world.tokens.uphold(&name(), &source).await;
    assert_eq!((world.asked(), cache(&world).lapsing(&name(), &source)), (1, None));

    // From now on nobody answers.
    tokio::time::advance(Duration::from_hours(24 * 46)).await;
    for _ in 0..5 {
        world.tokens.uphold(&name(), &source).await;
    }
    assert_eq!(world.asked(), 2, "once a day");
    let lapsing = cache(&world).lapsing(&name(), &source).unwrap();
    assert_eq!(lapsing.until, lapsing.used.after(Span::days(90)));
    assert!(lapsing.why.unwrap().contains("gives no token"));
    assert!(world.log.text().contains("event=token-right-lapses"), "{}", world.log.text());

    // What an older daemon kept says nothing of its use.
    let file = world.place.path().join("oauth/cloud");
    let kept = std::fs::read_to_string(&file).unwrap();
    let mut kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    kept.as_object_mut().unwrap().remove("right_used");
    std::fs::write(&file, kept.to_string()).unwrap();
    world.restart();
    world.tokens.uphold(&name(), &source).await;
    assert_eq!(world.asked(), 3);
    cache(&world).forget(&name()).await.unwrap();
    assert!(!file.exists());
    cache(&world).forget(&name()).await.unwrap();
    assert_eq!(cache(&world).until(&name(), &source), None);
}
