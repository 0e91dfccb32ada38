//! What we say to a milter.

use std::net::IpAddr;

/// One thing that is said.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// Values that belong to the command which follows, named by its letter.
    Macros(u8, &'a [(&'static str, &'a str)]),
    /// Who has connected: name or address in brackets, address and port.
    Connect(&'a str, IpAddr, u16),
    /// What the client calls itself.
    Hello(&'a str),
    /// MAIL: the address in angle brackets.
    Mail(&'a str),
    /// RCPT: the address in angle brackets.
    Rcpt(&'a str),
    /// DATA.
    Data,
    /// A field: its name, and its value as it stands behind the colon.
    Header(&'a [u8], &'a [u8]),
    /// The end of the header.
    EndOfHeader,
    /// A piece of the body.
    Body(&'a [u8]),
    /// The end of the message.
    EndOfMessage,
    /// Forget the message.
    Abort,
    /// Goodbye.
    Quit,
}

impl Command<'_> {
    /// The letter that it begins with.
    #[must_use]
    pub const fn letter(&self) -> u8 {
        match self {
            Self::Macros(..) => b'D',
            Self::Connect(..) => b'C',
            Self::Hello(_) => b'H',
            Self::Mail(_) => b'M',
            Self::Rcpt(_) => b'R',
            Self::Data => b'T',
            Self::Header(..) => b'L',
            Self::EndOfHeader => b'N',
            Self::Body(_) => b'B',
            Self::EndOfMessage => b'E',
            Self::Abort => b'A',
            Self::Quit => b'Q',
        }
    }

    /// Appends its frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.push(self.letter());
        match *self {
            Self::Macros(of, values) => {
                out.push(of);
                for (name, value) in values {
                    push(out, name.as_bytes());
                    push(out, value.as_bytes());
                }
            }
            Self::Connect(name, client, port) => {
                push(out, name.as_bytes());
                out.push(if client.is_ipv4() { b'4' } else { b'6' });
                out.extend_from_slice(&port.to_be_bytes());
                push(out, client.to_string().as_bytes());
            }
            Self::Hello(text) | Self::Mail(text) | Self::Rcpt(text) => push(out, text.as_bytes()),
            Self::Header(name, value) => {
                push(out, name);
                push_value(out, value);
            }
            Self::Body(octets) => out.extend_from_slice(octets),
            Self::Data | Self::EndOfHeader | Self::EndOfMessage | Self::Abort | Self::Quit => {}
        }
        let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// A text ends with NUL, and so has none within.
fn push(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text.iter().filter(|octet| **octet != 0));
    out.push(0);
}

/// The value of a field: folds are told by LF alone.
fn push_value(out: &mut Vec<u8>, value: &[u8]) {
    out.extend(value.iter().filter(|octet| !matches!(octet, 0 | b'\r')));
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::super::{Frame, frame};
    use super::*;

    #[test]
    fn commands_have_the_form_of_libmilter() {
        let said = |command: Command<'_>| {
            let mut out = Vec::new();
            command.write(&mut out);
            let Frame { letter, content, used } = frame(&out).unwrap().unwrap();
            assert_eq!((letter, used), (command.letter(), out.len()));
            content.to_vec()
        };
        let client = "192.0.2.1".parse().unwrap();
        assert_eq!(
            said(Command::Connect("[192.0.2.1]", client, 258)),
            b"[192.0.2.1]\x004\x01\x02192.0.2.1\0"
        );
        assert_eq!(said(Command::Hello("a\0b")), b"ab\0");
        assert_eq!(said(Command::Macros(b'M', &[("i", "1"), ("{x}", "")])), b"Mi\x001\0{x}\0\0");
        assert_eq!(said(Command::Header(b"A", b" b\r\n\tc")), b"A\0 b\n\tc\0");
        assert_eq!(said(Command::Body(b"x\0\r\n")), b"x\0\r\n");
        assert_eq!(said(Command::EndOfMessage), b"");
    }
}
