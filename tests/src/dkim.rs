//! Debian's dkimpy, which verifies signatures by the records that a test hands to it.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::NamedTempFile;

use crate::program;

/// What is to be installed where it is missing.
pub const ABSENT: &str = "python3-dkim or python3-nacl is not installed";

/// The interpreter that the system's packages belong to; another may stand before it in PATH.
const PYTHON: &str = "/usr/bin/python3";

/// Whether it is there, with Ed25519.
#[must_use]
pub fn is_here() -> bool {
    Path::new(PYTHON).exists()
        && program::run(Command::new(PYTHON).args(["-c", "import dkim, nacl"]), b"").code == 0
}

/// Says for each signature of each message whether it holds, in the order of the fields.
const PROGRAM: &str = "
import sys, json, dkim
asked = json.load(open(sys.argv[1]))
records = {(name + '.').encode(): text.encode() for name, text in asked['records'].items()}
def look_up(name, timeout=5):
    return records.get(name)
answers = []
for path in asked['messages']:
    octets = open(path, 'rb').read()
    signed = dkim.DKIM(octets)
    count = len([name for name, _ in signed.headers if name.lower() == b'dkim-signature'])
    holds = []
    for number in range(count):
        try:
            holds.append(bool(dkim.DKIM(octets).verify(idx=number, dnsfunc=look_up)))
        except Exception as error:
            holds.append(repr(error))
    answers.append(holds)
json.dump(answers, sys.stdout)
";

/// For each message, whether each of its signatures holds by these records (name without final dot, and
/// text).
///
/// # Panics
///
/// When Python does not answer.
#[must_use]
pub fn verify(records: &[(String, String)], messages: &[&[u8]]) -> Vec<Vec<bool>> {
    let files: Vec<NamedTempFile> = messages
        .iter()
        .map(|octets| {
            let mut file = NamedTempFile::new().unwrap();
            file.write_all(octets).unwrap();
            file
        })
        .collect();
    let paths: Vec<_> = files.iter().map(|file| file.path().display().to_string()).collect();
    let records: serde_json::Map<_, _> =
        records.iter().map(|(name, text)| (name.clone(), text.clone().into())).collect();
    let mut asked = NamedTempFile::new().unwrap();
    asked.write_all(json!({"records": records, "messages": paths}).to_string().as_bytes()).unwrap();
    let mut python = Command::new(PYTHON);
    let out = program::run(python.args(["-c", PROGRAM]).arg(asked.path()), b"").ok();
    let answers: Vec<Vec<serde_json::Value>> = serde_json::from_str(&out).unwrap();
    let holds = |answer: &serde_json::Value| *answer == serde_json::Value::Bool(true);
    answers.iter().map(|holding| holding.iter().map(holds).collect()).collect()
}

/// The records of a zone file's lines, as `smtpctl dkim dns` prints them.
///
/// # Panics
///
/// When a line has another form.
#[must_use]
pub fn records_of(zone: &str) -> Vec<(String, String)> {
    let record = |line: &str| {
        let (name, rest) = line.split_once(". TXT ").unwrap();
        let (strings, _) = rest.rsplit_once("   ; ").unwrap();
        let parts: Vec<&str> = strings.split(' ').collect();
        let text = strings.replace("\" \"", "");
        assert!(parts.len() > 1 && strings.split("\" \"").all(|part| part.len() <= 257), "{line}");
        (name.to_owned(), text.trim_matches('"').to_owned())
    };
    zone.lines().map(record).collect()
}
