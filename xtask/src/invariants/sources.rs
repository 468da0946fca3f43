//! What a Rust file may contain, and how long it may be.

use std::path::{Path, PathBuf};

use super::rust_text::code_only;

/// A longer file holds more than one idea.
const LONGEST: usize = 500;

/// How many of the longest files the report names.
const NAMED: usize = 3;

/// The only member with `unsafe` code: wrappers of system calls.
const UNSAFE_OWNER: &str = "ums-engine";

/// One sentence per broken rule in a file of a member.
pub(super) fn breaches(path: &Path, text: &str, member: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > LONGEST {
        found.push(format!("{} has {lines} lines: split it ({LONGEST} at most)", path.display()));
    }
    if member != UNSAFE_OWNER {
        found.extend(unsafe_lines(text).into_iter().map(|line| {
            format!("{}:{line} uses unsafe code: only {UNSAFE_OWNER} may, give it a wrapper", path.display())
        }));
    }
    found
}

/// The sizes of all files in one line: median, longest, and the names of the longest.
pub(super) fn sizes(mut files: Vec<(usize, PathBuf)>) -> String {
    files.sort_by(|one, other| other.cmp(one));
    let (Some((longest, _)), Some((median, _))) = (files.first(), files.get(files.len() / 2)) else {
        return "no source files".to_owned();
    };
    let names: Vec<String> =
        files.iter().take(NAMED).map(|(lines, path)| format!("{} ({lines})", path.display())).collect();
    format!(
        "{} source files, {median} lines in the median, {longest} at most: {}",
        files.len(),
        names.join(", ")
    )
}

/// Numbers of the lines on which the keyword stands. The lint `unsafe_code` says the same, but can be switched off
/// in the file itself.
fn unsafe_lines(text: &str) -> Vec<usize> {
    let code = code_only(text);
    let lines = code.lines().enumerate();
    lines.filter(|(_, line)| has_keyword(line)).map(|(index, _)| index + 1).collect()
}

fn has_keyword(code: &str) -> bool {
    code.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').any(|word| word == "unsafe")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_code_is_found_and_talk_about_it_is_not() {
        let text = concat!(
            "//! unsafe\n",
            "#![forbid(unsafe_code)]\n",
            "let message = \"an unsafe thing\"; // unsafe\n",
            "let safe = unsafe { call() };\n",
            "unsafe extern \"C\" {}\n",
            "#[unsafe(no_mangle)]\n",
        );
        assert_eq!(unsafe_lines(text), [4, 5, 6]);
        let path = Path::new("nest/src/lib.rs");
        assert_eq!(breaches(path, text, "ums-nest").len(), 3);
        assert!(breaches(path, text, UNSAFE_OWNER).is_empty());
    }

    #[test]
    fn a_file_that_is_too_long_is_told() {
        let path = Path::new("a.rs");
        assert!(breaches(path, &"\n".repeat(LONGEST), "ums").is_empty());
        assert_eq!(
            breaches(path, &"\n".repeat(LONGEST + 1), "ums"),
            ["a.rs has 501 lines: split it (500 at most)"]
        );
    }

    #[test]
    fn sizes_are_summed_up() {
        let files = vec![(3, "c.rs".into()), (100, "a.rs".into()), (20, "b.rs".into())];
        let expected = "3 source files, 20 lines in the median, 100 at most: a.rs (100), b.rs (20), c.rs (3)";
        assert_eq!(sizes(files), expected);
        assert_eq!(sizes(Vec::new()), "no source files");
    }
}
