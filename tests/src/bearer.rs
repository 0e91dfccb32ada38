//! A client that shows a token, and says what it hears.

use std::process::Command;

use crate::program;
use crate::site::Site;

const CLIENT: &str = "
import base64, smtplib, ssl, sys
port, mechanism, user, token = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
client = smtplib.SMTP('127.0.0.1', port)
client.ehlo('before.test')
print('before', client.esmtp_features.get('auth', '-').strip())
client.starttls(context=ssl._create_unverified_context())
client.ehlo('under.test')
print('offered', client.esmtp_features.get('auth', '-').strip())
head = 'user=' + user if mechanism == 'XOAUTH2' else 'n,' + ('a=' + user if user else '') + ','
said = (head + '\\x01auth=Bearer ' + token + '\\x01\\x01').encode()
code, words = client.docmd('AUTH', mechanism + ' ' + base64.b64encode(said).decode())
if code == 334:
    print('told', base64.b64decode(words).decode())
    code, words = client.docmd('' if mechanism == 'XOAUTH2' else 'AQ==')
print('code', code)
client.docmd('MAIL', 'FROM:<a@client.test>')
print('rcpt', client.docmd('RCPT', 'TO:<b@far.test>')[0])
";

/// What is offered before TLS and under it, and the codes of all answers to a login with a token and to RCPT
/// after it, the words of the first answer in JSON.
///
/// # Panics
///
/// When the client does not come to its end.
#[must_use]
pub fn client(site: &Site, mechanism: &str, user: &str, token: &str) -> String {
    let port = site.address().port().to_string();
    let mut python = Command::new("/usr/bin/python3");
    program::run(python.args(["-c", CLIENT, &port, mechanism, user, token]), b"").ok()
}
