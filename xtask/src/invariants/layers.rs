//! Dependencies point downwards only, and some crates belong to one member.

use crate::workspace::{Dependency, Kind, Package};

/// Which members a member may depend on. A member that is not named here breaks the rules: who adds a crate decides
/// where it stands.
const LAYERS: [(&str, &[&str]); 11] = [
    ("ums-model", &[]),
    ("ums-engine", &["ums-model"]),
    ("ums-transfer", &["ums-model"]),
    ("ums-frontman", &["ums-model", "ums-engine"]),
    ("ums-nest", &["ums-model", "ums-engine", "ums-transfer", "ums-frontman"]),
    ("ums-sites", &["ums-model", "ums-engine", "ums-transfer", "ums-frontman", "ums-nest"]),
    ("ums-coordinator", &["ums-model", "ums-transfer", "ums-nest", "ums-sites"]),
    ("ums", &PRODUCT),
    (TESTBED, &PRODUCT),
    ("ums-fuzz", &PRODUCT),
    ("xtask", &[]),
];

/// All libraries of the product.
const PRODUCT: [&str; 7] =
    ["ums-model", "ums-engine", "ums-transfer", "ums-frontman", "ums-nest", "ums-sites", "ums-coordinator"];

/// Made for tests: any member may use it in its tests, none in the product. It may use what the product may not,
/// for baselines that must not be built on the product.
const TESTBED: &str = "ums-testbed";

/// Crates that only one member of the product may use.
const OWNED: [(&str, &str); 3] =
    [("rustls", "ums-transfer"), ("tokio-rustls", "ums-transfer"), ("rusqlite", "ums-coordinator")];

/// `model` is pure: no input or output, no async, no clock. What it may use is therefore a list of what it may, not
/// of what it may not.
const MODEL: (&str, &[&str]) = ("ums-model", &["serde", "serde_json", "thiserror", "uuid"]);

/// One sentence per broken rule.
pub(super) fn breaches(packages: &[Package]) -> Vec<String> {
    packages.iter().flat_map(|package| of_package(package, packages)).collect()
}

fn of_package(package: &Package, packages: &[Package]) -> Vec<String> {
    let name = package.name.as_str();
    let Some((_, allowed)) = LAYERS.iter().find(|(member, _)| *member == name) else {
        return vec![format!("{name} has no place in the layers: give it one in xtask's invariants")];
    };
    let is_member = |dependency: &Dependency| packages.iter().any(|member| member.name == dependency.name);
    package
        .dependencies
        .iter()
        .filter_map(|dependency| {
            let used = dependency.name.as_str();
            let in_tests = dependency.kind == Some(Kind::Dev);
            if is_member(dependency) {
                let fine = allowed.contains(&used) || (in_tests && used == TESTBED);
                return (!fine)
                    .then(|| format!("{name} must not depend on {used}: dependencies point downwards"));
            }
            if let Some((_, owner)) = OWNED.iter().find(|(owned, _)| *owned == used)
                && name != *owner
                && name != TESTBED
            {
                return Some(format!("{name} must not depend on {used}: only {owner} may"));
            }
            let impure = name == MODEL.0 && !in_tests && !MODEL.1.contains(&used);
            impure.then(|| format!("{name} must not depend on {used}: it is pure ({})", MODEL.1.join(", ")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(package: &str, dependency: &str, kind: Option<Kind>) -> Vec<String> {
        let member = |name: &str, dependencies| Package {
            name: name.to_owned(),
            manifest_path: format!("/{name}/Cargo.toml").into(),
            dependencies,
        };
        let mut packages: Vec<Package> = LAYERS
            .iter()
            .filter(|(name, _)| *name != package)
            .map(|(name, _)| member(name, Vec::new()))
            .collect();
        packages.push(member(package, vec![Dependency { name: dependency.to_owned(), kind }]));
        breaches(&packages)
    }

    #[test]
    fn dependencies_point_downwards() {
        assert!(told("ums-nest", "ums-engine", None).is_empty());
        assert_eq!(
            told("ums-engine", "ums-nest", None),
            ["ums-engine must not depend on ums-nest: dependencies point downwards"]
        );
        assert_eq!(told("ums-engine", "ums-nest", Some(Kind::Dev)).len(), 1);
        assert_eq!(told("ums-engine", "ums-nest", Some(Kind::Build)).len(), 1);
        assert_eq!(told("ums-coordinator", "ums-engine", None).len(), 1);
    }

    #[test]
    fn the_testbed_is_for_tests() {
        assert!(told("ums-coordinator", TESTBED, Some(Kind::Dev)).is_empty());
        assert_eq!(told("ums-coordinator", TESTBED, None).len(), 1);
    }

    #[test]
    fn some_crates_have_one_owner() {
        assert!(told("ums-transfer", "tokio-rustls", None).is_empty());
        assert_eq!(
            told("ums-coordinator", "rustls", None),
            ["ums-coordinator must not depend on rustls: only ums-transfer may"]
        );
        assert_eq!(told("ums-transfer", "rusqlite", None).len(), 1);
    }

    #[test]
    fn the_model_stays_pure() {
        assert!(told("ums-model", "serde", None).is_empty());
        assert!(told("ums-model", "proptest", Some(Kind::Dev)).is_empty());
        assert_eq!(told("ums-model", "tokio", None).len(), 1);
        assert_eq!(told("ums-model", "prost-build", Some(Kind::Build)).len(), 1);
    }

    #[test]
    fn a_new_member_must_find_its_place() {
        assert_eq!(told("ums-new", "serde", None).len(), 1);
    }
}
