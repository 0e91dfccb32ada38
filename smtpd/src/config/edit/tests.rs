//! Edits of texts as people write them: only what was meant changes.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;

const ENTRY: &str = "{name: new.example, type: alias}";

/// A server file as people write them: comments anywhere, items in either style.
fn file() -> impl Strategy<Value = String> {
    let comment = prop_oneof![
        3 => Just(""),
        1 => Just("# c: [x"),
        1 => Just("#"),
        1 => Just("# - {name: off.example}"),
    ];
    let gap = prop::collection::vec(prop_oneof![Just(""), Just("# note"), Just("  # deep")], 0..3);
    let item = (0..4_u8, comment, gap);
    let items = prop::collection::vec(item, 1..6);
    let layout = (0..3_usize, any::<bool>(), any::<bool>(), any::<bool>(), 0..4_u8);
    (items, layout).prop_map(|(items, (indent, crlf, tail, newline, general))| {
        let pad = " ".repeat(indent * 2);
        let mut text = String::from("# head\nversion: 1\n");
        text.push_str(match general {
            0 => "general: {banner: 'a  b'}   # x\n\n",
            1 => "general:\n  # first\n  banner: 'a  b'   # x\n\n  max_errors: 5\n",
            2 => "general:\n    banner: 'a  b'\n    listen:   # y\n      - 127.0.0.1:25  # z\n",
            _ => "# none\n",
        });
        text.push_str("domains:\n");
        for (number, (form, comment, gap)) in items.into_iter().enumerate() {
            for line in gap {
                let _ = writeln!(text, "{line}");
            }
            let kind = if number == 0 { "default" } else { "alias" };
            let c = if comment.is_empty() { String::new() } else { format!("   {comment}") };
            let _ = match form {
                0 => writeln!(text, "{pad}- {{name: d{number}.example, type: {kind}}}{c}"),
                1 => writeln!(text, "{pad}- name: 'd{number}.example'{c}\n{pad}  type: {kind}"),
                2 => {
                    writeln!(text, "{pad}-   name: d{number}.example\n\n{pad}    type:   {kind}{c}")
                }
                _ => writeln!(
                    text,
                    "{pad}- {{\"name\": d{number}.example,\n{pad}    type: {kind} }}{c}"
                ),
            };
        }
        if tail {
            text.push_str("\n# after\nstore: {segment_size: 1MiB}\n\n# end\n");
        }
        if !newline {
            text.truncate(text.trim_end_matches('\n').len());
        }
        if crlf { text.replace('\n', "\r\n") } else { text }
    })
}

/// Where each entry of `domains` stands.
fn entries(text: &str) -> Vec<Range<usize>> {
    let list = get(text, "domains").unwrap().unwrap();
    list.items().iter().map(|item| item.span.clone()).collect()
}

/// `text` without these lines.
fn without(text: &str, gone: &Range<usize>) -> Vec<String> {
    let kept = text.lines().enumerate().filter(|(number, _)| !gone.contains(number));
    kept.map(|(_, line)| line.to_owned()).collect()
}

/// How many lines end in a bare LF although the file's end in CRLF.
fn bare(text: &str) -> usize {
    if text.contains('\r') { text.matches('\n').count() - text.matches("\r\n").count() } else { 0 }
}

/// The lines of `new` that are not in `old`.
fn added<'t>(old: &str, new: &'t str) -> Vec<&'t str> {
    new.lines().filter(|line| !old.lines().any(|other| other == *line)).collect()
}

proptest! {
    #[test]
    fn adding_an_item_adds_one_line_and_touches_no_other(text in file()) {
        let new = push(&text, "domains", ENTRY).unwrap();
        let place = new.lines().position(|line| line.contains("new.example")).unwrap();
        prop_assert_eq!(new.lines().nth(place).unwrap().trim(), format!("- {ENTRY}"));
        prop_assert_eq!(without(&new, &(place..place + 1)), without(&text, &(0..0)));
        prop_assert_eq!(bare(&new), 0);
    }

    #[test]
    fn removing_an_item_removes_its_lines_and_touches_no_other(
        text in file(),
        choice in any::<prop::sample::Index>(),
    ) {
        let items = entries(&text);
        if items.len() > 1 {
            let number = 1 + choice.index(items.len() - 1);
            let lines = lines_of(&text, items[number].clone());
            let new = remove_item(&text, "domains", number).unwrap();
            prop_assert_eq!(without(&new, &(0..0)), without(&text, &lines), "{}", new);
        }
    }

    #[test]
    fn setting_a_key_changes_its_line_or_adds_some_and_touches_no_other(
        text in file(),
        (key, flow) in prop_oneof![
            Just(("general.banner", "\"new banner\"")),
            Just(("general.max_errors", "7")),
            Just(("general.listen", "[\"[::1]:25\", 10.0.0.1:25]")),
            Just(("messages.badmail.keep", "30d")),
            Just(("domains[0].drop.quota", "1GiB")),
            Just(("description", "words")),
        ],
    ) {
        let new = set(&text, key, flow).unwrap();
        let read = get(&new, key).unwrap().unwrap();
        let expected = tree(&format!("x: {flow}\n")).unwrap();
        let Kind::Map(pairs) = &expected.kind else { panic!("a mapping") };
        let plain = |node: &Node| -> Vec<String> {
            node.items().iter().filter_map(Node::text).map(str::to_owned).collect()
        };
        prop_assert_eq!(plain(&read), plain(&pairs[0].1));
        prop_assert_eq!(bare(&new), 0);
        // Of a nested value at most its sections' lines come along.
        prop_assert!(added(&text, &new).len() <= 3, "{}", new);
        prop_assert_eq!(set(&new, key, flow).unwrap(), new.clone(), "once more changes nothing");
        let back = unset(&new, key).unwrap();
        prop_assert!(get(&back, key).unwrap().is_none(), "{}", back);
        if get(&text, key).unwrap().is_none() {
            let had = |line: &&str| text.lines().any(|other| other == *line);
            let lost = text.lines().filter(|line| !back.lines().any(|other| other == *line));
            prop_assert_eq!(lost.count(), 0, "{}", back);
            prop_assert!(back.lines().all(|line| had(&line)), "{}", back);
        }
    }
}

#[test]
fn edits_are_made_where_a_person_would_make_them() {
    const TEXT: &str = r#"version: 1   # v

general:
  # the LAN
  listen:
    - 127.0.0.1:25    # lo
    - 10.1.0.5:25

  idle_timeout: 5m   # c
store:
messages: {max_size: 35MiB}  # flow
access:
  relay:
    list: [127.0.0.0/8, "::1/128"]
domains:
  - {name: a.example, type: default}
  - name: b.example
    type: remote
"#;
    let replaced = |from: &str, to: &str| TEXT.replace(from, to);
    for (edited, expected) in [
        (set(TEXT, "general.idle_timeout", "7m"), replaced("5m ", "7m ")),
        (
            set(TEXT, "general.listen", "\"[::1]:25\""),
            replaced(":\n    - 127.0.0.1:25    # lo\n    - 10.1.0.5:25", ": \"[::1]:25\""),
        ),
        (set(TEXT, "general.banner", "x"), replaced("5m   # c\n", "5m   # c\n  banner: x\n")),
        (set(TEXT, "store.root", "/m"), replaced("store:\n", "store:\n  root: /m\n")),
        (
            set(TEXT, "messages.badmail.keep", "30d"),
            replaced("35MiB}", "35MiB, badmail: {keep: 30d}}"),
        ),
        (
            set(TEXT, "delivery.outbound.expire", "2d"),
            format!("{TEXT}delivery:\n  outbound:\n    expire: 2d\n"),
        ),
        (set(TEXT, "domains[1].relay", "true"), format!("{TEXT}    relay: true\n")),
        (
            push(TEXT, "general.listen", "10.1.0.6:25"),
            replaced("0.5:25\n", "0.5:25\n    - 10.1.0.6:25\n"),
        ),
        (
            push(TEXT, "access.relay.list", "10.0.0.0/8"),
            replaced("1/128\"]", "1/128\", 10.0.0.0/8]"),
        ),
        (remove_item(TEXT, "general.listen", 0), replaced("    - 127.0.0.1:25    # lo\n", "")),
        (remove_item(TEXT, "access.relay.list", 0), replaced("127.0.0.0/8, ", "")),
        (unset(TEXT, "general.idle_timeout"), replaced("  idle_timeout: 5m   # c\n", "")),
        (unset(TEXT, "messages.max_size"), replaced("messages: {max_size: 35MiB}  # flow\n", "")),
        (
            unset(TEXT, "access.relay.list"),
            replaced("access:\n  relay:\n    list: [127.0.0.0/8, \"::1/128\"]\n", ""),
        ),
        (unset(TEXT, "messages.max_recipients"), TEXT.to_owned()),
    ] {
        assert_eq!(edited.as_deref(), Ok(expected.as_str()));
    }
}

#[test]
fn a_list_in_brackets_is_edited_within_its_line() {
    let text = "version: 1\ndomains: [{name: a.example, type: default}, {name: b.example, type: alias}] # c\n";
    let added = push(text, "domains", ENTRY).unwrap();
    assert_eq!(added, text.replace("}] #", &format!("}}, {ENTRY}] #")));
    let removed = remove_item(text, "domains", 1).unwrap();
    assert_eq!(removed, text.replace(", {name: b.example, type: alias}", ""));
    let one = "a: [x]   # c\n";
    assert_eq!(remove_item(one, "a", 0).unwrap(), "a: []   # c\n");
    assert_eq!(push("a: []\n", "a", "y").unwrap(), "a: [y]\n");
}

#[test]
fn what_has_another_form_is_left_to_people() {
    let text = "version: 1\ndomains: {name: a.example, type: default}\ngeneral: 5\n";
    let said = push(text, "domains", ENTRY).unwrap_err();
    assert_eq!(said.to_string(), "it is not written as a list");
    let said = set(text, "general.banner", "x").unwrap_err();
    assert_eq!(said.to_string(), "the key's section is not written as a section");
    for path in ["", "a..b", "a[x]", "a[1"] {
        assert!(set(text, path, "x").is_err(), "{path}");
    }
}

#[test]
fn an_edit_that_changes_other_lines_or_values_is_refused() {
    let old = "a: 1\nb: 2\nc: 3\n";
    let expected = value("a: 1\nc: 3").unwrap();
    let prove = |new: &str, lines: Range<usize>| prove(old, new.to_owned(), &expected, &lines);
    assert!(prove("a: 1\nc: 3\n", 1..2).is_ok());
    assert_eq!(prove("a: 1\nc: 3\n", 0..1), Err(TextError::Proof));
    assert_eq!(prove("a:  1\nc: 3\n", 1..2), Err(TextError::Proof));
    assert_eq!(prove("a: 1\nc: 4\n", 0..3), Err(TextError::Proof));
}
