//! Text of others, fit for a terminal and a line of a log.
//!
//! Messages name files, images and reasons that another site has chosen. On a terminal a control character among them
//! moves the cursor, changes a title or hides a line, and a direction mark makes a name read like another.

use std::borrow::Cow;
use std::fmt::Write;

use serde::{Deserialize, Deserializer};

/// Most characters of one text for people, as it is shown. Longer ones end with `…`.
pub const MAX_CHARS: usize = 4096;

/// Whether a character does something to the text around it instead of showing itself.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The text with every hidden character written out, as `\u{1b}`; ends of lines and tabulators become spaces.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().count() <= MAX_CHARS && !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len().min(MAX_CHARS));
    let mut left = MAX_CHARS;
    for c in text.chars() {
        let written = match c {
            '\n' | '\r' | '\t' => " ".to_owned(),
            c if is_hidden(c) => c.escape_unicode().to_string(),
            c => c.to_string(),
        };
        // One more for the sign that it goes on. So a text that was cut is not cut again.
        let length = written.chars().count();
        if length >= left {
            shown.push('…');
            break;
        }
        left -= length;
        shown.push_str(&written);
    }
    Cow::Owned(shown)
}

/// The same as an owned text; nothing is copied if nothing has to be changed.
pub(crate) fn made_printable(text: impl Into<String>) -> String {
    let text = text.into();
    match printable(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(shown) => shown,
    }
}

/// For texts for people that come over a wire.
pub(crate) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text: String| made_printable(text))
}

/// JSON in which hidden characters are written out, as `\u001b`: the same value, and nothing that a terminal obeys.
pub fn printable_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        // Ends of lines stand between tokens only; the others within strings only, and all are of one unit of UTF-16.
        match is_hidden(c) && c != '\n' {
            true => {
                let _ = write!(shown, "\\u{:04x}", u32::from(c));
            }
            false => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        assert_eq!(printable("plain, ünïcode ✓"), "plain, ünïcode ✓");
        assert_eq!(printable("a\u{1b}[2Jb\u{7f}\u{9b}"), "a\\u{1b}[2Jb\\u{7f}\\u{9b}");
        assert_eq!(printable("one\r\ntwo\tthree"), "one  two three");
        assert_eq!(printable("gpj\u{202e}exe"), "gpj\\u{202e}exe");
        assert_eq!(printable("\u{2028}\u{feff}\u{200b}\u{2066}"), "\\u{2028}\\u{feff}\\u{200b}\\u{2066}");
    }

    #[test]
    fn what_is_too_long_ends() {
        let shown = printable(&"ü".repeat(MAX_CHARS + 1)).into_owned();
        assert_eq!(shown.chars().count(), MAX_CHARS);
        assert!(shown.ends_with("ü…"));
        for hidden in ["\u{1b}".repeat(MAX_CHARS), "\n".repeat(2 * MAX_CHARS)] {
            let shown = printable(&hidden).into_owned();
            assert!(shown.chars().count() <= MAX_CHARS && shown.ends_with('…'));
            assert_eq!(printable(&shown), shown, "what is printable stays as it is");
        }
        assert!(matches!(printable(&"ü".repeat(MAX_CHARS)), Cow::Borrowed(_)));
    }

    #[test]
    fn json_says_the_same_without_what_a_terminal_obeys() {
        let value = serde_json::json!({ "command": ["\u{1b}]0;x\u{7}", "\u{85}\u{202e}", "ü"] });
        let shown = printable_json(&value.to_string());
        assert!(!shown.chars().any(is_hidden), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
