//! The message that `send` makes of a subject, a text and files.

use std::path::{Path, PathBuf};

use mail_builder::MessageBuilder;
use mail_builder::headers::raw::Raw;
use mailroot_common::control::{Kind, Problem};
use mailroot_common::units::Timestamp;

/// The most that attached files hold together.
const ATTACHED_OCTETS_MAX: u64 = 256 << 20;

/// What is said, to whom.
pub(super) struct Wanted<'a> {
    pub(super) sender: &'a str,
    pub(super) to: &'a [String],
    pub(super) subject: &'a str,
    pub(super) text: String,
    pub(super) attach: &'a [PathBuf],
}

/// The octets of the message.
pub(super) fn compose(wanted: Wanted<'_>, now: Timestamp) -> Result<Vec<u8>, Problem> {
    if wanted.subject.contains(|c: char| c.is_control()) {
        let detail = "--subject: a subject is one line without control characters";
        return Err(Problem::new("send", Kind::Usage, detail));
    }
    let from = match wanted.sender {
        "" => Raw::new("smtpctl <>").into(),
        sender => mail_builder::headers::HeaderType::from(Raw::new(sender)),
    };
    let seconds = i64::try_from(now.as_millis() / 1_000).unwrap_or_default();
    let mut message = MessageBuilder::new()
        .header("From", from)
        .header("To", Raw::new(wanted.to.join(", ")))
        .subject(wanted.subject)
        .date(seconds)
        .message_id(format!("{}.{}@smtpctl.invalid", now.as_millis(), std::process::id()))
        .text_body(wanted.text);
    let mut left = ATTACHED_OCTETS_MAX;
    for file in wanted.attach {
        let octets = read(file, &mut left)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kind = kind_of(file);
        // Base64 in any case: what is in the file arrives as it is, its line ends included.
        message = message.attachment(kind, name, octets);
    }
    message.write_to_vec().map_err(|error| {
        Problem::new("send", Kind::Failed, format!("cannot make the message: {error}"))
    })
}

fn read(file: &Path, left: &mut u64) -> Result<Vec<u8>, Problem> {
    let usage = |why: String| {
        Problem::new("send", Kind::Usage, format!("--attach {}: {why}", file.display()))
    };
    let size = std::fs::metadata(file).map_err(|error| usage(error.to_string()))?.len();
    *left = left.checked_sub(size).ok_or_else(|| {
        usage(format!("files of more than {ATTACHED_OCTETS_MAX} octets are not attached"))
    })?;
    let octets = std::fs::read(file).map_err(|error| usage(error.to_string()))?;
    if octets.len() as u64 > size {
        return Err(usage("it grows while it is read".to_owned()));
    }
    Ok(octets)
}

/// The kind of a file by the end of its name; what is not known is octets.
fn kind_of(file: &Path) -> &'static str {
    let end = file.extension().map(|end| end.to_string_lossy().to_lowercase());
    match end.as_deref() {
        Some("csv") => "text/csv",
        Some("gif") => "image/gif",
        Some("html" | "htm") => "text/html",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("json") => "application/json",
        Some("log" | "txt" | "md") => "text/plain",
        Some("pdf") => "application/pdf",
        Some("png") => "image/png",
        Some("tif" | "tiff") => "image/tiff",
        Some("xml") => "application/xml",
        Some("zip") => "application/zip",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(wanted: Wanted<'_>) -> String {
        let now = Timestamp::parse("2026-11-24T09:30:00Z").unwrap();
        String::from_utf8(compose(wanted, now).unwrap()).unwrap()
    }

    #[test]
    fn a_message_has_its_header_and_every_octet_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("Über \"x\".PDF");
        std::fs::write(&file, b"\0\r\n.\n\xff").unwrap();
        let to = ["a@x.example".to_owned(), "b@x.example".to_owned()];
        let wanted = |attach| Wanted {
            sender: "c@x.example",
            to: &to,
            subject: "Grüße",
            text: "Guten Tag\n".to_owned(),
            attach,
        };
        let plain = text(wanted(&[]));
        assert!(plain.contains("From: c@x.example\r\n") && !plain.contains("multipart"), "{plain}");
        assert!(plain.contains("Date: Tue, 24 Nov 2026 09:30:00 +0000\r\n"), "{plain}");
        assert!(plain.contains("To: a@x.example, b@x.example\r\n") && plain.is_ascii(), "{plain}");
        let attach = [file.clone()];
        let whole = text(wanted(&attach));
        assert!(whole.contains("multipart/mixed") && whole.contains("application/pdf"), "{whole}");
        assert!(whole.contains("AA0KLgr/") && whole.is_ascii(), "{whole}");
        let missing = [dir.path().join("none")];
        let problem = compose(wanted(&missing), Timestamp::from_millis(0)).unwrap_err();
        assert!(problem.exit == 2 && problem.detail.contains("none"), "{problem:?}");
    }

    #[test]
    fn a_subject_is_one_line() {
        let wanted =
            Wanted { sender: "", to: &[], subject: "a\nb", text: String::new(), attach: &[] };
        assert_eq!(compose(wanted, Timestamp::from_millis(0)).unwrap_err().exit, 2);
    }
}
