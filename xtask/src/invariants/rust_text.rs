//! What of a Rust file is code: neither comment nor text in quotes.

/// The file with comments, strings and characters left out and every line in its place.
pub(super) fn code_only(text: &str) -> String {
    let mut rest = text;
    let mut code = String::with_capacity(text.len());
    let mut before = ' ';
    while let Some(letter) = rest.chars().next() {
        let length = quiet_length(rest, before);
        if length == 0 {
            code.push(letter);
            before = letter;
            rest = &rest[letter.len_utf8()..];
        } else {
            code.extend(rest[..length].matches('\n'));
            // A gap, so that what stands on both sides of it does not grow together.
            code.push(' ');
            before = ' ';
            rest = &rest[length..];
        }
    }
    code
}

/// Length of the comment or literal that `rest` begins with; 0 if it begins with code. One that never ends reaches
/// to the end of the file.
fn quiet_length(rest: &str, before: char) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    let in_word = before.is_alphanumeric() || before == '_';
    if in_word { 0 } else { raw_string(rest) }
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// From an opening quote to the closing one; a backslash takes the next letter with it.
fn quoted(rest: &str, quote: char) -> usize {
    let mut letters = rest.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        if letter == '\\' {
            letters.next();
        } else if letter == quote {
            return at + letter.len_utf8();
        }
    }
    rest.len()
}

/// A character in single quotes; 0 for a lifetime, which has no closing quote after one letter.
fn character(rest: &str) -> usize {
    let mut letters = rest.chars().skip(1);
    match (letters.next(), letters.next()) {
        (Some('\\'), _) => quoted(rest, '\''),
        (Some(letter), Some('\'')) => letter.len_utf8() + 2,
        _ => 0,
    }
}

/// `r"..."`, `r#"..."#` and their forms for bytes and C strings; 0 for anything else.
fn raw_string(rest: &str) -> usize {
    let Some(prefix) = ["r", "br", "cr"].into_iter().find(|prefix| {
        rest.strip_prefix(prefix).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
    }) else {
        return 0;
    };
    let fences = &rest[prefix.len()..];
    let fences = &fences[..fences.len() - fences.trim_start_matches('#').len()];
    let open = prefix.len() + fences.len() + 1;
    let close = format!("\"{fences}");
    rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the word after the literal or comment is seen, and the one inside is not.
    fn sees_only_outside(text: &str) -> bool {
        let code = code_only(text);
        code.contains("outside") && !code.contains("inside") && code.lines().count() == text.lines().count()
    }

    #[test]
    fn comments_are_no_code() {
        assert!(sees_only_outside("// inside \"\noutside"));
        assert!(sees_only_outside("/* inside /* inside \n */ inside */ outside"));
    }

    #[test]
    fn text_in_quotes_is_no_code() {
        assert!(sees_only_outside("(\"inside \\\" // inside\n inside\", outside)"));
        assert!(sees_only_outside("(r#\"inside \" \\ inside\"#, outside)"));
        assert!(sees_only_outside("(br\"inside \\\", outside)"));
        assert!(sees_only_outside("('\"', outside, '\"', '\\'', \"inside\")"));
        assert!(sees_only_outside("(\"\u{fc}inside\", outside, '\u{fc}')"));
    }

    #[test]
    fn lifetimes_and_raw_names_are_code() {
        assert_eq!(code_only("fn f<'a>(r#type: &'a str, pr: u8)"), "fn f<'a>(r#type: &'a str, pr: u8)");
    }

    #[test]
    fn what_never_ends_reaches_to_the_end() {
        for text in ["\"inside", "/* inside", "r#\"inside\"", "'\\"] {
            assert!(!code_only(text).contains("inside"), "{text}");
        }
    }
}
