//! Where this machine gets its Debian packages from, read from its own apt configuration.
//!
//! apt knows two formats: `.sources` files in paragraphs ("deb822") and `.list` files with one entry per line. Both
//! are read, entries that are switched off are left out, and those are kept that carry the installed release itself,
//! not its security or update pockets: a mirror of the release also carries the newer releases beside it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// One archive: a place with releases in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Archive {
    /// Where it is, as apt wants it.
    pub(crate) uri: String,
    /// Whose signature is trusted.
    pub(crate) signed_by: SignedBy,
    /// Whether the administrator said to trust it without a signature.
    pub(crate) trusted: bool,
}

/// The `Signed-By` of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignedBy {
    /// Not said: the keys that the whole machine trusts.
    Machine,
    /// Files or fingerprints, separated by commas.
    Keys(String),
    /// The key itself, in ASCII armour.
    Armoured(String),
}

/// One entry of the configuration: an archive and what is taken from it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    archive: Archive,
    suites: Vec<String>,
    components: Vec<String>,
}

/// The archives that carry the Debian release `codename`, the likeliest first. `apt` is normally `/etc/apt`.
pub(crate) fn archives(apt: &Path, codename: &str) -> Result<Vec<Archive>> {
    let archives = choose(&read(apt)?, codename);
    if archives.is_empty() {
        bail!(
            "no entry in {0}/sources.list and {0}/sources.list.d has the suite `{codename}` with the component \
             `main`: add the Debian mirror that this machine should use, run `apt-get update`, and try again",
            apt.display()
        );
    }
    Ok(archives)
}

/// The code name of the installed release, from the text of `/etc/os-release`.
pub(crate) fn codename(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim().trim_matches('"').to_owned()).filter(|name| !name.is_empty())
}

/// An entry counts if it has the release and `main`. Vendors use Debian's code names for their own archives too, so
/// those come first that name Debian's keys, then those whose place is called `debian`; the order in the files decides the rest.
fn choose(entries: &[Entry], codename: &str) -> Vec<Archive> {
    let mut found: Vec<&Archive> = entries
        .iter()
        .filter(|entry| entry.suites.iter().any(|suite| suite == codename))
        .filter(|entry| entry.components.iter().any(|component| component == "main"))
        .map(|entry| &entry.archive)
        .filter(|archive| !archive.uri.starts_with("cdrom:"))
        .collect();
    found.sort_by_key(|archive| {
        let debian_keys =
            matches!(&archive.signed_by, SignedBy::Keys(keys) if keys.contains("debian-archive"));
        (!debian_keys, !archive.uri.trim_end_matches('/').ends_with("debian"))
    });
    let mut archives: Vec<Archive> = Vec::new();
    for archive in found {
        if !archives.contains(archive) {
            archives.push(archive.clone());
        }
    }
    archives
}

fn read(apt: &Path) -> Result<Vec<Entry>> {
    let mut files = vec![apt.join("sources.list")];
    let folder = apt.join("sources.list.d");
    match fs::read_dir(&folder) {
        Ok(list) => {
            let mut parts = list
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<Vec<_>, _>>()
                .with_context(|| format!("cannot list {}", folder.display()))?;
            parts.sort();
            files.extend(parts);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", folder.display())),
    }
    let mut entries = Vec::new();
    for file in files {
        let parse = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => parse_lines,
            Some("sources") => parse_paragraphs,
            _ => continue,
        };
        match fs::read_to_string(&file) {
            Ok(text) => entries.extend(parse(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }
    Ok(entries)
}

/// The one-line format: `deb [option=value ...] URI SUITE COMPONENT...`.
fn parse_lines(text: &str) -> Vec<Entry> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '[']))?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(open) => open.split_once(']')?,
        None => ("", rest),
    };
    let option = |name: &str| {
        options
            .split_whitespace()
            .find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
            .map(str::to_owned)
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let archive = Archive {
        uri: words.next()?,
        signed_by: option("signed-by").map_or(SignedBy::Machine, SignedBy::Keys),
        trusted: option("trusted").is_some_and(|value| is_yes(&value)),
    };
    Some(Entry { archive, suites: vec![words.next()?], components: words.collect() })
}

/// The paragraph format: fields `Name: value`, continued on lines that begin with white space.
fn parse_paragraphs(text: &str) -> Vec<Entry> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).flat_map(parse_paragraph).collect()
}

fn parse_paragraph(lines: &[&str]) -> Vec<Entry> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let words = |name: &str| -> Vec<String> {
        field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    if !words("types").iter().any(|kind| kind == "deb") || !field("enabled").is_none_or(is_yes) {
        return Vec::new();
    }
    let signed_by = field("signed-by").map_or(SignedBy::Machine, parse_signed_by);
    let trusted = field("trusted").is_some_and(is_yes);
    words("uris")
        .into_iter()
        .map(|uri| Entry {
            archive: Archive { uri, signed_by: signed_by.clone(), trusted },
            suites: words("suites"),
            components: words("components"),
        })
        .collect()
}

/// In a paragraph a key may stand in the configuration itself; a line with a single dot is an empty one there.
fn parse_signed_by(value: &str) -> SignedBy {
    if !value.contains("-----BEGIN") {
        let keys: Vec<&str> = value.split([' ', '\t', '\n', ',']).filter(|key| !key.is_empty()).collect();
        return if keys.is_empty() { SignedBy::Machine } else { SignedBy::Keys(keys.join(",")) };
    }
    let lines = value.trim_start().lines().map(|line| if line == "." { "" } else { line });
    SignedBy::Armoured(lines.fold(String::new(), |text, line| text + line + "\n"))
}

fn is_yes(value: &str) -> bool {
    matches!(value.trim().to_ascii_lowercase().as_str(), "yes" | "true" | "on" | "1" | "with" | "enable")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

    const PARAGRAPHS: &str = "\
# What the installer wrote
Types: deb deb-src
# A comment between two fields
URIs: http://mirror.example/debian http://second.example/debian/
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg


Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://only-source.example/debian
Suites: bookworm
Components: main
";

    fn keys(keys: &str) -> SignedBy {
        SignedBy::Keys(keys.to_owned())
    }

    fn archive(uri: &str, signed_by: SignedBy) -> Archive {
        Archive { uri: uri.to_owned(), signed_by, trusted: false }
    }

    #[test]
    fn paragraphs_are_read_and_only_the_release_itself_is_chosen() {
        let chosen = choose(&parse_paragraphs(PARAGRAPHS), "bookworm");
        let expected = [
            archive("http://mirror.example/debian", keys(KEYRING)),
            archive("http://second.example/debian/", keys(KEYRING)),
        ];
        assert_eq!(chosen, expected);
    }

    #[test]
    fn continued_fields_and_field_names_in_any_case_are_read() {
        let text = "TYPES: deb\nuris:\n\thttp://mirror.example/debian\nSuites:\n trixie\n bookworm\nComponents: main";
        let entries = parse_paragraphs(text);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].suites, ["trixie", "bookworm"]);
        assert_eq!(entries[0].archive, archive("http://mirror.example/debian", SignedBy::Machine));
    }

    #[test]
    fn a_key_inside_the_configuration_is_taken_out_of_it() {
        let text = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n \
                    -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEXxx\n -----END PGP PUBLIC KEY BLOCK-----\n";
        let key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEXxx\n-----END PGP PUBLIC KEY BLOCK-----\n";
        let chosen = choose(&parse_paragraphs(text), "bookworm");
        assert_eq!(chosen, [archive("http://mirror.example/debian", SignedBy::Armoured(key.to_owned()))]);
    }

    #[test]
    fn several_keyrings_become_one_list() {
        assert_eq!(parse_signed_by("/a.gpg /b.gpg,\n/c.gpg"), keys("/a.gpg,/b.gpg,/c.gpg"));
        assert_eq!(parse_signed_by(""), SignedBy::Machine);
    }

    #[test]
    fn lines_are_read_with_and_without_options() {
        let text = "\
# deb http://commented.example/debian bookworm main
deb cdrom:[Debian GNU/Linux 12]/ bookworm main
deb http://mirror.example/debian bookworm main contrib # the first
deb-src http://only-source.example/debian bookworm main
deb [ arch=amd64 signed-by=/k.gpg,/l.gpg trusted=yes ]\thttp://second.example/debian bookworm main
deb[arch=amd64] http://third.example/debian bookworm main
deb http://mirror.example/debian bookworm-updates main
deb http://flat.example/debian ./
debbie http://wrong.example/debian bookworm main
deb [broken http://broken.example/debian bookworm main
";
        let chosen = choose(&parse_lines(text), "bookworm");
        let expected = [
            archive("http://mirror.example/debian", SignedBy::Machine),
            Archive {
                uri: "http://second.example/debian".to_owned(),
                signed_by: keys("/k.gpg,/l.gpg"),
                trusted: true,
            },
            archive("http://third.example/debian", SignedBy::Machine),
        ];
        assert_eq!(chosen, expected);
    }

    #[test]
    fn archives_of_vendors_come_after_those_of_debian() {
        let text = format!(
            "deb [signed-by=/vendor.gpg] http://vendor.example/prod bookworm main\n\
             deb http://mirror.example/debian bookworm main\n\
             deb [signed-by={KEYRING}] http://signed.example/mirrors/deb bookworm main\n\
             deb http://mirror.example/debian bookworm main\n\
             deb http://other.example/linux/debian bookworm stable\n"
        );
        let order: Vec<String> =
            choose(&parse_lines(&text), "bookworm").into_iter().map(|archive| archive.uri).collect();
        let expected = [
            "http://signed.example/mirrors/deb",
            "http://mirror.example/debian",
            "http://vendor.example/prod",
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn both_kinds_of_files_are_found_and_others_left_alone() {
        let folder = std::env::temp_dir().join(format!("xtask-{}-apt", std::process::id()));
        fs::create_dir_all(folder.join("sources.list.d")).unwrap();
        fs::write(folder.join("sources.list"), "deb http://a.example/x bookworm main\n").unwrap();
        fs::write(folder.join("sources.list.d/b.sources"), PARAGRAPHS).unwrap();
        fs::write(folder.join("sources.list.d/c.list"), "deb http://c.example/x bookworm main\n").unwrap();
        fs::write(folder.join("sources.list.d/d.list.off"), "deb http://d.example/x bookworm main\n")
            .unwrap();
        let found = archives(&folder, "bookworm");
        let nothing = archives(&folder, "trixie");
        fs::remove_dir_all(&folder).unwrap();
        let found: Vec<String> = found.unwrap().into_iter().map(|archive| archive.uri).collect();
        let expected = [
            "http://mirror.example/debian",
            "http://second.example/debian/",
            "http://a.example/x",
            "http://c.example/x",
        ];
        assert_eq!(found, expected);
        assert!(nothing.unwrap_err().to_string().contains("has the suite `trixie`"));
    }

    #[test]
    fn the_code_name_is_read() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
        assert_eq!(codename("VERSION_CODENAME=\"noble\"\n").as_deref(), Some("noble"));
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=\n"), None);
    }
}
