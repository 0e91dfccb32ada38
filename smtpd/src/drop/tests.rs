//! The Drop directory under good and bad circumstances.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::status::Class;
use smtpd_core::queue::envelope::{BodyKind, Origin, Recipient, Via};

use super::*;

fn envelope() -> Envelope {
    let mailbox = |text| Mailbox::parse(text).unwrap();
    Envelope {
        hold: None,
        tls_optional: false,
        sender: ReversePath::Mailbox(mailbox("a@b.example")),
        recipients: vec![Recipient::plain(mailbox("c@d.example"))],
        accepted_at: Timestamp::from_millis(1_763_648_550_000),
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        hops: 1,
        origin: Origin {
            via: Via::Smtp,
            client: None,
            helo: None,
            session: None,
            source: None,
            user: None,
            uid: None,
            checks: None,
        },
        message_id: None,
        subject: None,
        wishes: smtpd_core::queue::wishes::Wishes::default(),
    }
}

fn drop_into(path: &Path, format: Format, quota: Option<u64>) -> DropDirectory {
    let settings = Settings {
        server: "default".to_owned(),
        directory: path.to_owned(),
        format,
        quota: quota.map(ByteSize::bytes),
        host: "mail.example.net".to_owned(),
    };
    DropDirectory::new(settings, Clock::real(), Log::quiet())
}

async fn deliver(drop: &DropDirectory, id: u64, body: &[u8]) -> Result<String, DropError> {
    let mut incoming = drop.begin(QueueId::from_u64(id), &envelope(), &[0], body.len() as u64);
    for chunk in body.chunks(64 * 1024) {
        incoming.append(chunk).await?;
    }
    incoming.finish().await
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

const PREFIX: &str =
    "X-Sender: a@b.example\r\nX-Receiver: c@d.example\r\nReturn-Path: <a@b.example>\r\n";

#[tokio::test]
async fn message_becomes_one_file_named_by_its_id_and_a_redo_replaces_it() {
    let root = tempfile::tempdir().unwrap();
    let drop = drop_into(root.path(), Format::Eml, None);
    assert_eq!(deliver(&drop, 1, b"Subject: old\r\n\r\n").await.unwrap(), "000000000001.eml");
    deliver(&drop, 1, b"Subject: x\r\n\r\nhi\r\n").await.unwrap();

    assert_eq!(names(root.path()), ["000000000001.eml"]);
    let path = root.path().join("000000000001.eml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, format!("{PREFIX}Subject: x\r\n\r\nhi\r\n"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
}

#[tokio::test]
async fn large_message_is_written_as_it_comes() {
    let root = tempfile::tempdir().unwrap();
    let drop = drop_into(root.path(), Format::Eml, Some(2 << 20));
    let body: Vec<u8> = (0..1_500_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    deliver(&drop, 1, &body).await.unwrap();
    let file = std::fs::read(root.path().join("000000000001.eml")).unwrap();
    assert_eq!(file[PREFIX.len()..], body);
    let error = deliver(&drop, 2, &body).await.unwrap_err();
    assert!(matches!(error, DropError::Quota { .. }));
    assert_eq!(names(root.path()), ["000000000001.eml"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_at_once_each_become_a_file() {
    let root = tempfile::tempdir().unwrap();
    let drop = drop_into(root.path(), Format::Eml, None);
    let mut tasks = tokio::task::JoinSet::new();
    for id in 0..300 {
        let drop = drop.clone();
        tasks.spawn(async move { deliver(&drop, id, format!("N: {id}\r\n\r\n").as_bytes()).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(names(root.path()).len(), 300);
    let text = std::fs::read_to_string(root.path().join(format!("{}.eml", QueueId::from_u64(299))));
    assert!(text.unwrap().ends_with("N: 299\r\n\r\n"));
}

#[tokio::test]
async fn maildir_files_are_written_in_tmp_and_end_in_new() {
    let root = tempfile::tempdir().unwrap();
    let drop = drop_into(root.path(), Format::Maildir, None);
    let name = deliver(&drop, 1, b"\r\nhi\r\n").await.unwrap();
    assert_eq!(name, "1763648550.000000000001.mail.example.net");
    assert_eq!(names(root.path()), ["cur", "new", "tmp"]);
    assert_eq!(names(&root.path().join("new")), [name]);
    assert!(names(&root.path().join("tmp")).is_empty());
}

#[tokio::test]
async fn quota_defers_until_files_are_taken_out() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("old.eml"), [0; 1000]).unwrap();
    let drop = drop_into(root.path(), Format::Eml, Some(1050));
    let error = deliver(&drop, 1, b"\r\nhi\r\n").await.unwrap_err();
    let outcome = error.outcome(Timestamp::from_millis(0));
    assert_eq!(outcome.to_string(), "4.2.2 Drop directory quota exceeded");
    assert!(error.to_string().contains("holds 1000B of 1050B"), "{error}");
    assert_eq!(names(root.path()), ["old.eml"]);

    std::fs::remove_file(root.path().join("old.eml")).unwrap();
    let again = drop_into(root.path(), Format::Eml, Some(1050));
    deliver(&again, 1, b"\r\nhi\r\n").await.unwrap();
}

#[tokio::test]
async fn directory_replaced_by_a_link_is_refused_and_nothing_is_written_behind_it() {
    let root = tempfile::tempdir().unwrap();
    let (outside, path) = (root.path().join("outside"), root.path().join("Drop"));
    std::fs::create_dir(&outside).unwrap();
    let drop = drop_into(&path, Format::Eml, None);
    let missing = deliver(&drop, 1, b"\r\n").await.unwrap_err();
    assert_eq!(missing.outcome(Timestamp::from_millis(0)).status.class(), Class::Transient);
    assert!(missing.to_string().contains("Drop"), "{missing}");

    symlink(&outside, &path).unwrap();
    assert!(matches!(deliver(&drop, 1, b"\r\n").await, Err(DropError::Directory { .. })));
    assert!(names(&outside).is_empty());

    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    deliver(&drop, 1, b"\r\n").await.unwrap();
    assert_eq!(names(&path), ["000000000001.eml"]);
}

#[tokio::test]
async fn what_others_put_in_the_way_is_not_written_through() {
    let root = tempfile::tempdir().unwrap();
    let (outside, path) = (root.path().join("outside"), root.path().join("Drop"));
    std::fs::create_dir(&path).unwrap();
    std::fs::write(&outside, "secret").unwrap();
    symlink(&outside, path.join(".000000000001.tmp")).unwrap();
    symlink(&outside, path.join("000000000001.eml")).unwrap();
    std::fs::create_dir(path.join("000000000002.eml")).unwrap();
    let drop = drop_into(&path, Format::Eml, None);

    deliver(&drop, 1, b"\r\n").await.unwrap();
    let error = deliver(&drop, 2, b"\r\n").await.unwrap_err();

    assert!(matches!(error, DropError::Write { .. }), "{error}");
    assert_eq!(std::fs::read(&outside).unwrap(), b"secret");
    assert!(!std::fs::symlink_metadata(path.join("000000000001.eml")).unwrap().is_symlink());
    assert_eq!(names(&path), ["000000000001.eml", "000000000002.eml"]);
}
