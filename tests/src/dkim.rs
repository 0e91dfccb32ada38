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
    let out = ask(PROGRAM, records, messages);
    let answers: Vec<Vec<serde_json::Value>> = serde_json::from_str(&out).unwrap();
    let holds = |answer: &serde_json::Value| *answer == serde_json::Value::Bool(true);
    answers.iter().map(|holding| holding.iter().map(holds).collect()).collect()
}

/// What a program says about messages and records.
fn ask(words: &str, records: &[(String, String)], messages: &[&[u8]]) -> String {
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
    program::run(python.args(["-c", words]).arg(asked.path()), b"").ok()
}

/// Says for each message what its ARC chain comes to, and how many sets it has.
const CHAINS: &str = "
import sys, json, dkim
asked = json.load(open(sys.argv[1]))
records = {(name + '.').encode(): text.encode() for name, text in asked['records'].items()}
answers = []
for path in asked['messages']:
    status, sets, reason = dkim.arc_verify(open(path, 'rb').read(), dnsfunc=lambda name, timeout=5: records.get(name))
    holds = [[one['instance'], one['ams-valid'], one['as-valid'], (one['cv'] or b'').decode()] for one in sets]
    answers.append([status.decode() if status else 'ended', holds, reason])
json.dump(answers, sys.stdout)
";

/// A set of an ARC chain: its number, whether its signature of the message and its seal hold, and what it
/// says of those before it.
pub type JudgedSet = (u64, bool, bool, String);

/// What the ARC chain of a message comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// `none`, `pass`, `fail`, or `ended` if its last seal says that it failed before.
    pub status: String,
    /// Its sets, the newest first.
    pub sets: Vec<JudgedSet>,
    /// Why.
    pub reason: String,
}

/// For each message, what its ARC chain comes to by these records.
///
/// # Panics
///
/// When Python does not answer.
#[must_use]
pub fn judge_chains(records: &[(String, String)], messages: &[&[u8]]) -> Vec<Judged> {
    let out = ask(CHAINS, records, messages);
    let answers: Vec<(String, Vec<JudgedSet>, String)> = serde_json::from_str(&out).unwrap();
    answers.into_iter().map(|(status, sets, reason)| Judged { status, sets, reason }).collect()
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

/// How a message is to be signed.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// Without signatures.
    pub message: &'a [u8],
    /// The domain that signs; its selectors are `rsa` and `ed25519`.
    pub domain: &'a str,
    /// `rsa`, `ed25519`, or `arc` for a set of ARC fields by the RSA key.
    pub kind: &'static str,
    /// The canonical forms of header and body, `relaxed/simple` and so on.
    pub forms: &'static str,
    /// Whether only so much of the body is signed as there is (`l=`).
    pub length: bool,
}

/// Signs in the order of the wishes, with keys of its own: one pair for all domains.
const SIGNER: &str = "
import sys, json, base64, subprocess, dkim, nacl.signing, nacl.encoding
def openssl(words, octets=b''):
    return subprocess.run(['openssl'] + words, input=octets, capture_output=True, check=True).stdout
rsa = openssl(['genrsa', '-traditional', '2048'])
public = base64.b64encode(openssl(['rsa', '-pubout', '-outform', 'DER'], rsa)).decode()
small = nacl.signing.SigningKey.generate()
keys = {'rsa': rsa, 'ed25519': small.encode(encoder=nacl.encoding.Base64Encoder)}
texts = {'rsa': 'v=DKIM1; k=rsa; p=' + public, 'ed25519': 'v=DKIM1; k=ed25519; p='
         + small.verify_key.encode(encoder=nacl.encoding.Base64Encoder).decode()}
records, messages = {}, []
for wish in json.load(open(sys.argv[1])):
    octets, domain, kind = open(wish['path'], 'rb').read(), wish['domain'], wish['kind']
    key = 'ed25519' if kind == 'ed25519' else 'rsa'
    records[key + '._domainkey.' + domain] = texts[key]
    if kind == 'arc':
        fields = dkim.arc_sign(octets, b'rsa', domain.encode(), keys['rsa'], domain.encode())
        field = b''.join(fields)
    else:
        field = dkim.sign(octets, key.encode(), domain.encode(), keys[key],
            canonicalize=tuple(form.encode() for form in wish['forms'].split('/')),
            signature_algorithm=(key + '-sha256').encode(), length=wish['length'])
    messages.append((field + octets).hex())
json.dump({'records': records, 'messages': messages}, sys.stdout)
";

/// The records that publish the keys (name without final dot, and text), and the messages as signed.
///
/// # Panics
///
/// When Python does not answer.
#[must_use]
pub fn sign(wishes: &[Wish<'_>]) -> (Vec<(String, String)>, Vec<Vec<u8>>) {
    let mut files = Vec::new();
    let mut asked = Vec::new();
    for wish in wishes {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(wish.message).unwrap();
        asked.push(json!({
            "path": file.path().display().to_string(),
            "domain": wish.domain,
            "kind": wish.kind,
            "forms": wish.forms,
            "length": wish.length,
        }));
        files.push(file);
    }
    let mut list = NamedTempFile::new().unwrap();
    list.write_all(serde_json::Value::from(asked).to_string().as_bytes()).unwrap();
    let mut python = Command::new(PYTHON);
    let out = program::run(python.args(["-c", SIGNER]).arg(list.path()), b"").ok();
    let done: serde_json::Value = serde_json::from_str(&out).unwrap();
    let records = done["records"].as_object().unwrap().iter();
    let records =
        records.map(|(name, text)| (name.clone(), text.as_str().unwrap().to_owned())).collect();
    let unhex = |text: &str| -> Vec<u8> {
        let pairs = (0..text.len()).step_by(2);
        pairs.map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let messages = done["messages"].as_array().unwrap().iter();
    (records, messages.map(|text| unhex(text.as_str().unwrap())).collect())
}
