//! Messages come into Badmail, are read there, leave it, and its bounds hold.

use std::io::Read;
use std::path::Path;

use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::id::QueueId;
use mailroot_common::status::EnhancedCode;
use smtpd_core::queue::outcome::{Outcome, RemoteHost, Stage};

use super::*;
use crate::observe::{Format, Sink};

fn record(id: u64, places: &[usize]) -> Record {
    let at = Timestamp::from_millis(1_763_648_550_000);
    let mut outcome =
        Outcome::local(at, Stage::Rcpt, EnhancedCode::permanent(1, 1), "user unknown\nforged: x");
    outcome.host = Some(RemoteHost { name: "mx1".to_owned(), address: None, port: 25, tls: None });
    let concerned = |&place: &usize| Concerned {
        mailbox: Mailbox::parse("web@example.net").unwrap(),
        place,
        outcome: Some(outcome.clone()),
    };
    Record {
        id: QueueId::from_u64(id),
        at,
        reason: Reason::NdrOfDsn,
        detail: "554 5.1.1 user\r\nunknown".to_owned(),
        sender: Some(ReversePath::Null),
        recipients: places.iter().map(concerned).collect(),
        source: None,
        envelope: None,
    }
}

fn badmail(path: &Path, keep: Option<Span>, max_size: Option<u64>) -> (Badmail, Sink) {
    let (log, lines) = Log::captured(Format::Logfmt, Level::Info, Clock::real());
    let settings = Settings {
        server: "default".to_owned(),
        directory: path.to_owned(),
        keep,
        max_size: max_size.map(ByteSize::bytes),
    };
    (Badmail::new(settings, Clock::real(), log, Arc::default()), lines)
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn message_is_kept_as_three_text_files_and_logged() {
    let root = tempfile::tempdir().unwrap();
    let (badmail, lines) = badmail(root.path(), None, None);

    let name = badmail.keep(record(1, &[0]), b"Subject: x\r\n\r\n".to_vec()).await.unwrap();

    assert_eq!(name, "000000000001");
    let expected = ["000000000001.eml", "000000000001.envelope", "000000000001.reason"];
    assert_eq!(names(root.path()), expected);
    let report = std::fs::read_to_string(root.path().join(expected[2])).unwrap();
    assert!(
        report.starts_with("reason  ndr-of-dsn\ndetail  554 5.1.1 user??unknown\n"),
        "{report}"
    );
    assert!(report.contains("\n        5.1.1 user unknown / forged: x\n        said by mx1:25"));
    assert_eq!(
        lines.text(),
        "event=badmail server=default id=000000000001 reason=ndr-of-dsn \
         detail=\"554 5.1.1 user\\r\\nunknown\"\n"
    );
    let (entry, shown) = badmail.show(&name).await.unwrap();
    assert_eq!((entry.record, entry.size), (Some(record(1, &[0])), 14));
    assert_eq!(shown, report);
}

#[tokio::test]
async fn same_message_for_other_recipients_has_another_name_and_a_redo_the_same() {
    let root = tempfile::tempdir().unwrap();
    let (badmail, _) = badmail(root.path(), None, None);
    for places in [[0], [2], [2]] {
        badmail.keep(record(1, &places), b"x".to_vec()).await.unwrap();
    }
    let list = badmail.list(None, 10).await.unwrap();
    let found: Vec<_> = list.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(found, ["000000000001-3", "000000000001"]);
}

#[tokio::test]
async fn list_is_paged_newest_first_and_shows_what_has_no_envelope() {
    let root = tempfile::tempdir().unwrap();
    let (badmail, _) = badmail(root.path(), None, None);
    for id in 1..=5 {
        badmail.keep(record(id, &[0]), b"x".to_vec()).await.unwrap();
    }
    std::fs::write(root.path().join("000000000009.eml"), "stray").unwrap();
    let first = badmail.list(None, 3).await.unwrap();
    let rest = badmail.list(Some(first[2].name.clone()), 10).await.unwrap();
    let found: Vec<_> =
        first.iter().chain(&rest).map(|e| (&e.name[11..], e.record.is_some())).collect();
    assert_eq!(
        found,
        [("9", false), ("5", true), ("4", true), ("3", true), ("2", true), ("1", true)]
    );
}

#[tokio::test]
async fn large_message_comes_back_whole() {
    let root = tempfile::tempdir().unwrap();
    let (badmail, _) = badmail(root.path(), None, None);
    let body: Vec<u8> = (0..900_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut incoming = badmail.begin(record(1, &[0]));
    for chunk in body.chunks(10_000) {
        incoming.append(chunk).await.unwrap();
    }
    let name = incoming.finish().await.unwrap();

    let (entry, mut file) = badmail.requeue(&name).await.unwrap();
    let mut read = Vec::new();
    file.read_to_end(&mut read).unwrap();
    assert_eq!(read, body);
    assert_eq!(entry.size, 900_000);
    badmail.remove(&name).await.unwrap();
    assert!(names(root.path()).is_empty());
    assert!(matches!(badmail.show(&name).await, Err(BadmailError::Unknown(_))));
    assert!(badmail.show("../x").await.is_err());
}

fn age(path: &Path, name: &str, hours: u64) {
    let file = File::options().write(true).open(path.join(format!("{name}.eml"))).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_hours(hours)).unwrap();
}

#[tokio::test]
async fn old_messages_go_first_and_the_rest_fits() {
    let root = tempfile::tempdir().unwrap();
    let (keeper, _) = badmail(root.path(), None, None);
    for id in 1..=4 {
        let name = keeper.keep(record(id, &[0]), vec![b'x'; 10_000]).await.unwrap();
        age(root.path(), &name, 100 / id);
    }
    let one = keeper.totals().await.unwrap().octets / 4;

    let (by_age, lines) = badmail(root.path(), Some(Span::hours(60)), None);
    assert_eq!(by_age.prune().await.unwrap().messages, 1);
    assert!(lines.text().contains("event=badmail-pruned server=default messages=1"));
    let (by_size, _) = badmail(root.path(), None, Some(2 * one + 100));
    assert_eq!(by_size.prune().await.unwrap().messages, 1);
    assert_eq!(by_size.prune().await.unwrap().messages, 0);
    let left: Vec<_> =
        keeper.list(None, 9).await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(left, ["000000000004", "000000000003"]);
    assert_eq!(names(root.path()).len(), 6);
    let before = Timestamp::from_millis(u64::MAX);
    assert_eq!(keeper.purge(before).await.unwrap().messages, 2);
    assert!(names(root.path()).is_empty());
}

#[tokio::test]
async fn missing_directory_is_named_and_nothing_is_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let (badmail, lines) = badmail(&root.path().join("Badmail"), None, None);
    let error = badmail.keep(record(1, &[0]), b"x".to_vec()).await.unwrap_err();
    assert!(error.to_string().contains("Badmail"), "{error}");
    assert!(lines.text().contains("event=badmail-failed level=error"));
    std::fs::create_dir(root.path().join("Badmail")).unwrap();
    badmail.keep(record(1, &[0]), b"x".to_vec()).await.unwrap();
}
