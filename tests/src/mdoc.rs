//! The form of manual pages.

/// Longest line of a page.
const COLUMNS: usize = 78;

/// Text as mdoc takes it: one sentence begins one line, no line too long, nothing that begins like
/// a macro.
#[must_use]
pub fn prose(text: &str) -> String {
    let mut out = String::new();
    for sentence in text.replace('\\', "\\e").replace(". ", ".\n").lines() {
        let mut width = 0;
        for (number, word) in sentence.split(' ').enumerate() {
            let breaks = number > 0 && width + word.len() + 1 > COLUMNS;
            if number > 0 {
                out.push(if breaks { '\n' } else { ' ' });
            }
            let fresh = number == 0 || breaks;
            if fresh && word.starts_with(['.', '\'']) {
                out.push_str("\\&");
            }
            out.push_str(word);
            width = word.len() + if fresh { 0 } else { width + 1 };
        }
        out.push('\n');
    }
    out
}
