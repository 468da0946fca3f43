//! Every wait on the world is a key of the configuration: none is a constant of its own somewhere in the code. What is found
//! is what is called or written like one; the rest is for whoever reads the change.

use std::path::Path;

use super::rust_text::code_only;

/// The files in which the configuration keeps them.
const KEPT_IN: &str = "deadlines.rs";

/// Members whose waits nobody configures: they are not part of the product.
const OTHERS: [&str; 3] = ["ums-testbed", "ums-fuzz", "xtask"];

/// How a constant is called that is such a wait. A pause, or how often something is looked at, is none.
const WORDS: [&str; 3] = ["DEADLINE", "PATIENCE", "TIMEOUT"];

/// Where a wait stands without a name.
const UNNAMED: [&str; 3] =
    ["timeout(Duration::from_", "timeout_at(Duration::from_", "now() + Duration::from_"];

/// One sentence per wait that is not configured in a file of a member.
pub(super) fn breaches(path: &Path, text: &str, member: &str) -> Vec<String> {
    let is_test = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
    if OTHERS.contains(&member) || path.ends_with(KEPT_IN) || is_test {
        return Vec::new();
    }
    let code = code_only(text);
    let product = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let waits = product.lines().enumerate().filter(|(_, line)| is_wait(line));
    waits
        .map(|(index, _)| {
            format!(
                "{}:{} waits for as long as it likes: give the wait a key in a {KEPT_IN}",
                path.display(),
                index + 1
            )
        })
        .collect()
}

fn is_wait(line: &str) -> bool {
    let constant = line.split_once("const ").or_else(|| line.split_once("static "));
    let named = constant.and_then(|(_, rest)| rest.split_once(':')).is_some_and(|(name, rest)| {
        WORDS.iter().any(|word| name.contains(word)) && rest.trim_start().contains("Duration")
    });
    named || UNNAMED.iter().any(|unnamed| line.contains(unnamed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> usize {
        breaches(Path::new(path), text, "ums-nest").len()
    }

    #[test]
    fn a_wait_of_its_own_is_found() {
        let nest = "nest/src/source.rs";
        assert_eq!(lines(nest, "const FREEZE_DEADLINE: Duration = Duration::from_secs(10);"), 1);
        assert_eq!(lines(nest, "pub(crate) const PATIENCE: std::time::Duration = SOON;"), 1);
        assert_eq!(lines(nest, "tokio::time::timeout(Duration::from_secs(1), ended).await"), 1);
        assert_eq!(lines(nest, "let until = Instant::now() + Duration::from_millis(50);"), 1);
        let found = breaches(Path::new(nest), "\nconst DEADLINE: Duration = SOON;", "ums-nest");
        assert!(found[0].starts_with("nest/src/source.rs:2 "), "{found:?}");
    }

    #[test]
    fn what_is_configured_or_no_wait_is_not() {
        let nest = "nest/src/source.rs";
        let constant = "const DEADLINE: Duration = Duration::from_secs(10);";
        assert_eq!(lines(nest, "const LOOK_EVERY: Duration = Duration::from_millis(2);"), 0);
        assert_eq!(
            lines(nest, "const DEADLINES_VARIABLE: &str = \"Duration\"; // const DEADLINE: Duration"),
            0
        );
        assert_eq!(lines(nest, &format!("#[cfg(test)]\nmod tests {{\n    {constant}\n}}")), 0);
        assert_eq!(lines(nest, &format!("#[cfg(test)]\nmod tests;\n{constant}")), 1);
        assert_eq!(lines("nest/src/deadlines.rs", constant), 0);
        assert_eq!(lines("nest/src/exec/tests.rs", constant), 0);
        assert!(breaches(Path::new("testbed/src/site.rs"), constant, "ums-testbed").is_empty());
    }
}
