//! What is around the tasks: cgroups, names, clocks, the network, user ids.

use std::collections::BTreeSet;

use super::set::{Set, missing, refused};
use super::tasks::Tree;
use super::{Admission, Refused};
use crate::images::format::Image;
use crate::images::schema::{Message, Value};

/// Most hierarchies and controllers that a host has.
const MAX_CONTROLLERS: usize = 64;
/// Most sets of cgroups, one for each thread.
const MAX_SETS: usize = 65_536;
/// Images of namespaces, and the field that names the namespace.
const NAMESPACES: [(&str, &str, bool); 8] = [
    ("utsns", "uts_ns_id", true),
    ("timens", "time_ns_id", true),
    ("netns", "net_ns_id", true),
    ("ipcns-var", "ipc_ns_id", true),
    ("ipcns-shm", "ipc_ns_id", false),
    ("ipcns-sem", "ipc_ns_id", false),
    ("ipcns-msg", "ipc_ns_id", false),
    ("pidns", "pid_ns_id", false),
];

pub(super) fn check(set: &Set, admission: &Admission, tree: &Tree) -> Result<(), Refused> {
    for (stem, field, required) in NAMESPACES {
        let id = tree.namespace(field);
        if let Some(image) = set.all(stem).find(|image| image.number != id) {
            return Err(refused(&image.name, "it belongs to another namespace"));
        }
        if required && set.maybe(stem).is_none() {
            return Err(missing(format!("{stem}-{id}.img")));
        }
    }
    for (at, names) in set.entries("utsns") {
        let name = names.text("nodename");
        at.require(
            name == admission.hostname,
            "nodename",
            format_args!("{name:?} is not {:?}", admission.hostname),
        )?;
        let domain = names.text("domainname");
        let plain = domain.len() <= 64 && !domain.chars().any(char::is_control);
        at.require(plain, "domainname", format_args!("{domain:?} is no name"))?;
    }
    for (at, clocks) in set.entries("timens") {
        for field in ["monotonic", "boottime"] {
            let whole = clocks
                .list(field)
                .all(|time| time.number("tv_nsec") < 1_000_000_000 && time.number("tv_sec") >> 62 == 0);
            at.require(whole, field, format_args!("it is no time"))?;
        }
    }
    for (at, network) in set.entries("netns") {
        let key = network.text("ext_key");
        at.require(
            key == admission.network,
            "ext_key",
            format_args!("{key:?} is not the network of a service"),
        )?;
    }
    user_ids(set, admission, tree)?;
    set.need("cgroup").and_then(|image| cgroups(image, admission))
}

fn user_ids(set: &Set, admission: &Admission, tree: &Tree) -> Result<(), Refused> {
    let Some(count) = admission.ids else {
        let unexpected = set.maybe("userns");
        return unexpected
            .map_or(Ok(()), |image| Err(refused(&image.name, "the service has no user namespace")));
    };
    let image = set.need("userns")?;
    if image.number != tree.namespace("user_ns_id") {
        return Err(refused(&image.name, "it belongs to another namespace"));
    }
    let (at, map) = image.only();
    for field in ["uid_map", "gid_map"] {
        let pieces: Vec<&Message> = map.list(field).collect();
        let whole = matches!(pieces.as_slice(), [piece] if piece.number("first") == 0 && piece.number("count") == u64::from(count));
        at.require(whole, field, format_args!("a service has the ids from 0 to {} in one piece", count - 1))?;
    }
    Ok(())
}

/// A service is in one cgroup, which is the root of what it sees of them. Where that is one of version 2, there may be
/// hierarchies of version 1 beside it that sites do not use: where it was in those means nothing, see [`settle`].
fn cgroups(image: &Image, admission: &Admission) -> Result<(), Refused> {
    let (at, cgroup) = image.only();
    // CRIU writes the same set for several threads.
    let mut sets = BTreeSet::new();
    for set in cgroup.list("sets") {
        let id = set.number("id");
        at.require(
            sets.insert(id) && sets.len() <= MAX_SETS,
            "sets.id",
            format_args!("{id} is there twice, or one too many"),
        )?;
    }
    let mut own = None;
    for member in cgroup.list("sets").flat_map(|set| set.list("ctls")) {
        let (name, path) = (member.text("name"), member.text("path"));
        at.require(is_controller(name), "sets.ctls.name", format_args!("{name:?} is no controller"))?;
        if is_unused(admission, [name]) {
            continue;
        }
        let same = *own.get_or_insert(path) == path;
        at.require(
            same && is_cgroup(path),
            "sets.ctls.path",
            format_args!("{path:?} is not the cgroup of a service"),
        )?;
        let prefix = member.number("cgns_prefix");
        at.require(
            prefix == path.len() as u64,
            "sets.ctls.cgns_prefix",
            format_args!("it is not the root of what the service sees"),
        )?;
    }
    let own = own.ok_or_else(|| at.refuse("sets.ctls", "a service is in a cgroup"))?;
    at.require(
        cgroup.list("controllers").count() <= MAX_CONTROLLERS,
        "controllers",
        format_args!("there are too many"),
    )?;
    for controller in cgroup.list("controllers") {
        let named = controller.texts("cnames").count() <= MAX_CONTROLLERS
            && controller.texts("cnames").all(is_controller);
        at.require(named, "controllers.cnames", format_args!("one is no controller"))?;
        if is_unused(admission, controller.texts("cnames")) {
            continue;
        }
        for directory in controller.list("dirs") {
            let name = directory.text("dir_name");
            let is_own = own.strip_prefix('/') == Some(name.trim_start_matches('/'));
            at.require(
                is_own,
                "controllers.dirs.dir_name",
                format_args!("{name:?} is not the cgroup of the service"),
            )?;
            let single = directory.list("children").next().is_none();
            at.require(
                single,
                "controllers.dirs.children",
                format_args!("a service has no cgroups below its own"),
            )?;
            for property in directory.list("properties") {
                let name = property.text("name");
                let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
                at.require(
                    plain && !name.starts_with('.'),
                    "controllers.dirs.properties.name",
                    format_args!("{name:?} is no file of a cgroup"),
                )?;
            }
        }
    }
    Ok(())
}

/// Whether controllers are those of a hierarchy of version 1 that is not used here. That of version 2 has no name.
fn is_unused<'a>(admission: &Admission, names: impl IntoIterator<Item = &'a str>) -> bool {
    admission.unified && names.into_iter().all(|name| !name.is_empty())
}

fn is_controller(name: &str) -> bool {
    name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_=.,-".contains(&byte))
}

fn is_cgroup(path: &str) -> bool {
    path.len() > 1 && super::set::is_path(path) && !path.contains("//")
}

/// Puts in what is decided here and not at the source: the cgroup, and that its properties are those it has. In a hierarchy
/// that is not used here the service stays where its nest is.
pub(super) fn settle(set: &mut Set, admission: &Admission) {
    for image in set.all_mut("cgroup") {
        for entry in &mut image.entries {
            settle_cgroup(&mut entry.message, admission);
        }
    }
    // Whom an audit of this host names is not for the source to say, and a zombie has no thread but itself.
    let mut dead = Vec::new();
    for image in set.all_mut("core") {
        for task in image.entries.iter_mut().filter_map(|entry| entry.message.one_mut("tc")) {
            task.set("loginuid", []);
            if task.number("task_state") == 2 {
                dead.push(image.number);
            }
        }
    }
    for image in set.all_mut("pstree") {
        for entry in &mut image.entries {
            let pid = entry.message.number("pid");
            if dead.contains(&pid) {
                entry.message.set("threads", [Value::Number(pid)]);
            }
        }
    }
}

fn settle_cgroup(message: &mut Message, admission: &Admission) {
    let own = &admission.cgroup;
    let path = format!("/{own}");
    for set in message.all_mut("sets") {
        let used = |member: &&Message| !is_unused(admission, [member.text("name")]);
        let members: Vec<Value> = set.list("ctls").filter(used).map(kept).collect();
        set.set("ctls", members);
        for member in set.all_mut("ctls") {
            member.set("path", [Value::Bytes(path.as_bytes().into())]);
            member.set("cgns_prefix", [Value::Number(path.len() as u64)]);
        }
    }
    let used = |controller: &&Message| !is_unused(admission, controller.texts("cnames"));
    let controllers: Vec<Value> = message.list("controllers").filter(used).map(kept).collect();
    message.set("controllers", controllers);
    for controller in message.all_mut("controllers") {
        for directory in controller.all_mut("dirs") {
            directory.set("dir_name", [Value::Bytes(own.as_bytes().into())]);
            directory.set("properties", []);
        }
    }
}

fn kept(message: &Message) -> Value {
    Value::Message(Box::new(message.clone()))
}
