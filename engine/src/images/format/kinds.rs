//! All kinds of images that a service of ours can have, by name.

/// What an image looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::images) enum Layout {
    /// Exactly one message.
    One(&'static str),
    /// Any number of messages.
    Many(&'static str),
    /// One message, then many of another kind.
    Headed(&'static str, &'static str),
    /// Messages, each with a payload whose length is the sum of these fields of it.
    Paid(&'static str, &'static [&'static str]),
    /// A file that has no name any more: a message and the rest, or a message and pieces with their places.
    Ghost,
    /// Message queues of System V: a message, and its messages with their content.
    Queues,
    /// Semaphores of System V: a message, and a value of two bytes for each, filled up to eight.
    Semaphores,
    /// Shared memory of System V: a message, and its content filled up to four bytes, if it is not in a page map.
    Segments,
    /// Pages: their content is the service's.
    Pages,
    /// An archive of what was in a tmpfs.
    Archive,
}

/// The number in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    None,
    Decimal,
    Hexadecimal,
}

/// A kind of image.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::images) struct Kind {
    /// Its name, without number and ending.
    pub(in crate::images) stem: &'static str,
    number: Number,
    /// The word of the kind.
    pub(in crate::images) magic: u32,
    /// Whether the word of all images stands before it.
    pub(in crate::images) common: bool,
    /// What follows.
    pub(in crate::images) layout: Layout,
}

const fn single(stem: &'static str, magic: u32, layout: Layout) -> Kind {
    Kind { stem, number: Number::None, magic, common: true, layout }
}

const fn numbered(stem: &'static str, magic: u32, layout: Layout) -> Kind {
    Kind { stem, number: Number::Decimal, magic, common: true, layout }
}

const fn by_id(stem: &'static str, magic: u32, layout: Layout) -> Kind {
    Kind { stem, number: Number::Hexadecimal, magic, common: true, layout }
}

use Layout::{Archive, Ghost, Headed, Many, One, Pages, Paid, Queues, Segments, Semaphores};

/// The list. Other kinds (devices and rules of a network, packet sockets, TUN devices, BPF maps, automounters, files of
/// AppArmor) belong to what a service does not have, and are refused by their names.
const KINDS: [Kind; 35] = [
    Kind { common: false, ..single("inventory", 0x5831_3116, One("inventory_entry")) },
    single("pstree", 0x5027_3030, Many("pstree_entry")),
    numbered("core", 0x5505_3847, One("core_entry")),
    numbered("ids", 0x5443_2030, One("task_kobj_ids_entry")),
    numbered("mm", 0x5749_2820, One("mm_entry")),
    numbered("fs", 0x5140_3912, One("fs_entry")),
    numbered("fdinfo", 0x5621_3732, Many("fdinfo_entry")),
    single("files", 0x5630_3138, Many("file_entry")),
    single("seccomp", 0x6441_3049, One("seccomp_entry")),
    numbered("pagemap", 0x5608_4025, Headed("pagemap_head", "pagemap_entry")),
    numbered("pagemap-shmem", 0x5608_4025, Headed("pagemap_head", "pagemap_entry")),
    numbered("pages", 0, Pages),
    single("pipes-data", 0x5645_3709, Paid("pipe_data_entry", &["bytes"])),
    single("fifo-data", 0x5933_3054, Paid("pipe_data_entry", &["bytes"])),
    single("sk-queues", 0x5626_4026, Paid("sk_packet_entry", &["length"])),
    by_id("tcp-stream", 0x5146_5506, Paid("tcp_stream_entry", &["inq_len", "outq_len"])),
    single("remap-fpath", 0x5913_3954, Many("remap_file_path_entry")),
    by_id("ghost-file", 0x5258_3605, Ghost),
    single("memfd", 0x4845_3499, Many("memfd_inode_entry")),
    single("filelocks", 0x5432_3616, Many("file_lock_entry")),
    single("tty-info", 0x5945_3036, Many("tty_info_entry")),
    single("tty-data", 0x5941_3026, Many("tty_data_entry")),
    numbered("mountpoints", 0x5556_3928, Many("mnt_entry")),
    single("cgroup", 0x5938_3330, One("cgroup_entry")),
    numbered("userns", 0x5547_4906, One("userns_entry")),
    numbered("netns", 0x5593_3752, One("netns_entry")),
    numbered("utsns", 0x5447_3203, One("utsns_entry")),
    numbered("timens", 0x4311_4433, One("timens_entry")),
    numbered("pidns", 0x6115_7326, One("pidns_entry")),
    numbered("ipcns-var", 0x5311_5007, One("ipc_var_entry")),
    numbered("ipcns-shm", 0x4628_3044, Segments),
    numbered("ipcns-msg", 0x5545_3737, Queues),
    numbered("ipcns-sem", 0x5957_3019, Semaphores),
    Kind { common: false, ..numbered("tmpfs-dev", 0, Archive) },
    Kind { common: false, ..numbered("tmpfs", 0, Archive) },
];

impl Kind {
    /// The kind of an image by its file name, and the number in that. `None` for names that no image of ours has,
    /// and for numbers that are not written as CRIU writes them.
    pub(in crate::images) fn of(name: &str) -> Option<(&'static Self, u64)> {
        let name = name.strip_suffix(".img")?;
        KINDS.iter().find_map(|kind| {
            let rest = name.strip_prefix(kind.stem)?;
            let rest = if kind.layout == Archive { rest.strip_suffix(".tar.gz")? } else { rest };
            Some((kind, kind.number(rest)?))
        })
    }

    fn number(&self, text: &str) -> Option<u64> {
        let digits = || text.strip_prefix('-');
        let (number, written) = match self.number {
            Number::None => return text.is_empty().then_some(0),
            Number::Decimal => digits()?.parse::<u64>().ok().map(|number| (number, number.to_string()))?,
            Number::Hexadecimal => {
                u64::from_str_radix(digits()?, 16).ok().map(|number| (number, format!("{number:x}")))?
            }
        };
        (Some(written.as_str()) == digits()).then_some(number)
    }
}
