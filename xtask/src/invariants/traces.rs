//! Nothing in the tree names somebody's machine or a package mirror.
//!
//! A path that exists on one machine only, or the address of a mirror that is to be read from the machine's own
//! configuration, works for the one who wrote it and fails elsewhere.

use std::path::Path;

/// Starts of absolute paths that are personal: work trees, home folders and toolchains. In two pieces each, so that
/// this file passes its own check.
const PLACES: [(&str, &str); 5] =
    [("/wo", "rk/"), ("/home", "/user"), ("/Us", "ers/"), ("/root", "/.cargo"), ("/root", "/.rustup")];

/// Names of package registries and mirrors.
const HOSTS: [(&str, &str); 6] = [
    ("deb.", "debian.org"),
    ("security.", "debian.org"),
    ("snapshot.", "debian.org"),
    ("ftp.", "debian.org"),
    ("crates", ".io"),
    ("registry.", "npmjs.org"),
];

/// Written by cargo, and names the registry on purpose.
const LOCK_FILE: &str = "Cargo.lock";

/// One sentence per trace.
pub(super) fn breaches(path: &Path, text: &str) -> Vec<String> {
    if path.file_name().is_some_and(|name| name == LOCK_FILE) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let told = |what: &str, name: &str| format!("{}:{} names {what} ({name})", path.display(), index + 1);
        for place in PLACES.map(joined) {
            if line.match_indices(&place).any(|(start, _)| begins_path(&line[..start])) {
                found.push(told("a path of somebody's machine", &place));
            }
        }
        for host in HOSTS.map(joined) {
            if line.contains(&host) {
                found.push(told("a package mirror", &host));
            }
        }
    }
    found
}

fn joined((start, end): (&str, &str)) -> String {
    format!("{start}{end}")
}

/// Whether a slash after this text begins a path, and does not go on with one: `DIR/...` and `{folder}/...` do.
fn begins_path(before: &str) -> bool {
    !before.ends_with(|letter: char| letter.is_alphanumeric() || "._-/}~$>)]".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> usize {
        breaches(Path::new("docs/some.md"), text).len()
    }

    #[test]
    fn personal_paths_are_told_with_their_line() {
        let text = format!("first\nsee `{}tree`\n", joined(PLACES[0]));
        let expected = format!("docs/some.md:2 names a path of somebody's machine ({})", joined(PLACES[0]));
        assert_eq!(breaches(Path::new("docs/some.md"), &text), [expected]);
    }

    #[test]
    fn the_end_of_another_path_is_no_personal_path() {
        let place = joined(PLACES[0]);
        assert_eq!(count(&format!("DIR{place}upper {{folder}}{place}upper a{place}b")), 0);
        assert_eq!(count(&format!("(\"{place}x\")")), 1);
    }

    #[test]
    fn mirrors_are_told_but_not_in_the_lock_file() {
        let text = format!("http://{}/debian", joined(HOSTS[0]));
        assert_eq!(count(&text), 1);
        assert!(breaches(Path::new(LOCK_FILE), &text).is_empty());
        assert_eq!(count("http://mirror.example/debian"), 0);
    }
}
