//! Bodies: whatever the pieces, the decoder agrees with a reader of ten lines, for DATA and for
//! BDAT.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailroot_fuzz::{Choices, split};
use smtpd_core::smtp::body::{BodyDecoder, BodyLimits, Framing};
use smtpd_core::smtp::refusal::Refusal;

fuzz_target!(|input: &[u8]| {
    let (octets, mut choices) = split(input);
    let limits = match choices.below(4) {
        0 => {
            BodyLimits { size_max: u64::MAX, line_max: usize::MAX / 2, header_max: usize::MAX / 2 }
        }
        1 => BodyLimits { size_max: 64, line_max: 998, header_max: 1 << 20 },
        2 => BodyLimits { size_max: 1 << 20, line_max: 16, header_max: 1 << 20 },
        _ => BodyLimits { size_max: 1 << 20, line_max: 998, header_max: 32 },
    };
    dots(octets, limits, &mut choices);
    chunks(octets, limits, &mut choices);
    binary(octets, limits, &mut choices);
});

/// A message as plain as can be: its octets if it ends, whether a CR or LF stands alone, and how
/// many octets of the wire it took.
fn model(wire: &[u8]) -> (Vec<u8>, bool, Option<usize>) {
    let (mut bad, mut out, mut line, mut at) = (false, Vec::new(), Vec::new(), 0);
    while let Some(&octet) = wire.get(at) {
        at += 1;
        line.push(octet);
        let bare = octet == b'\n' && !line.ends_with(b"\r\n");
        let lone = line.len() >= 2 && line[line.len() - 2] == b'\r' && octet != b'\n';
        bad |= bare || lone;
        if octet == b'\n' {
            if line == b".\r\n" || line == b".\n" {
                return (out, bad, Some(at));
            }
            out.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            line.clear();
        }
    }
    (out, bad, None)
}

/// What is wrong with a message besides bare line ends, in no order.
fn faults(message: &[u8], limits: BodyLimits) -> Vec<Refusal> {
    let mut found = Vec::new();
    let text = message.strip_suffix(b"\r\n").unwrap_or(message);
    let lines: Vec<&[u8]> = text.split(|octet| *octet == b'\n').collect();
    let lines: Vec<&[u8]> = lines.iter().map(|l| l.strip_suffix(b"\r").unwrap_or(l)).collect();
    if message.contains(&0) {
        found.push(Refusal::NulInMessage);
    }
    if message.len() as u64 > limits.size_max {
        found.push(Refusal::TooLarge);
    }
    if lines.iter().any(|line| line.len() + 2 > limits.line_max) {
        found.push(Refusal::MessageLineTooLong);
    }
    let mut header = 0;
    for line in lines {
        if header + line.len() > limits.header_max {
            found.push(Refusal::HeaderTooLarge);
            break;
        }
        if line.is_empty() {
            break;
        }
        header += line.len() + 2;
    }
    found
}

fn dots(wire: &[u8], limits: BodyLimits, choices: &mut Choices<'_>) {
    let mut decoder = BodyDecoder::new(Framing::Dots, limits);
    let (mut out, mut used, mut ended, mut rest) = (Vec::new(), 0, false, wire);
    while !rest.is_empty() && !ended {
        let (piece, behind) = choices.piece(rest);
        let taken = decoder.push(piece, &mut out);
        assert!(taken.octets <= piece.len() && (taken.ended || taken.octets == piece.len()));
        (used, ended, rest) = (used + taken.octets, taken.ended, behind);
    }
    let (message, bad, end) = model(wire);
    assert_eq!(ended.then_some(used), end, "both end at one place or nowhere");
    if end.is_none() {
        return;
    }
    let others = faults(&message, limits);
    match decoder.fault() {
        None => {
            assert!(!bad && others.is_empty(), "{others:?}");
            assert_eq!(out, message);
            assert_eq!(decoder.octets(), message.len() as u64);
        }
        Some(Refusal::BareLineEnd) => assert!(bad, "only a bare line end closes the session"),
        Some(fault) => assert!(!bad && others.contains(&fault), "{fault:?} of {others:?}"),
    }
    assert!(out.len() as u64 <= limits.size_max);
}

fn chunks(octets: &[u8], limits: BodyLimits, choices: &mut Choices<'_>) {
    let mut decoder = BodyDecoder::new(Framing::Chunks, limits);
    let (mut out, mut rest) = (Vec::new(), octets);
    while !rest.is_empty() {
        let (piece, behind) = choices.piece(rest);
        let taken = decoder.push(piece, &mut out);
        assert!(!taken.ended && taken.octets == piece.len(), "a chunk has no end of its own");
        rest = behind;
    }
    decoder.finish_chunks();
    let good = |(at, octet): (usize, &u8)| match octet {
        b'\r' => octets.get(at + 1) == Some(&b'\n'),
        b'\n' => at > 0 && octets[at - 1] == b'\r',
        _ => true,
    };
    let bad = !octets.iter().enumerate().all(good);
    let others = faults(octets, limits);
    match decoder.fault() {
        None => {
            assert!(!bad && others.is_empty(), "{others:?}");
            assert_eq!(out, octets);
        }
        Some(Refusal::BareLineEndInChunk) => assert!(bad),
        // The end of a chunk is beyond doubt, so any of several faults may be named.
        Some(fault) => assert!(bad || others.contains(&fault), "{fault:?} of {others:?}"),
    }
}

fn binary(octets: &[u8], limits: BodyLimits, choices: &mut Choices<'_>) {
    let mut decoder = BodyDecoder::new(Framing::BinaryChunks, limits);
    let (mut out, mut rest) = (Vec::new(), octets);
    while !rest.is_empty() {
        let (piece, behind) = choices.piece(rest);
        decoder.push(piece, &mut out);
        rest = behind;
    }
    decoder.finish_chunks();
    let fits = octets.len() as u64 <= limits.size_max;
    assert_eq!(decoder.fault(), (!fits).then_some(Refusal::TooLarge));
    assert!(!fits || out == octets);
}
