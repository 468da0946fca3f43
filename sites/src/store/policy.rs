//! What an image may cost and what of it is believed: bounds, and the trust put in whoever sent it.

use std::time::Duration;

use ums_model::names::Bytes;
use ums_model::policy::FilePolicy;

/// Upper bounds of everything that is read from an image. An image that exceeds one is refused as a whole.
///
/// The defaults admit every image seen in practice and keep a hostile one from filling memory; a disk is kept from
/// being filled by lowering [`Limits::blob`] and [`Limits::unpacked`] to what the site can spare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// One blob, as stored (layers are usually compressed).
    pub blob: Bytes,
    /// One JSON document: manifest, index, configuration. They are held in memory.
    pub document: Bytes,
    /// Layers of one image.
    pub layers: usize,
    /// All layers of one image together, unpacked. This is what stops a decompression bomb.
    pub unpacked: Bytes,
    /// Entries of one archive.
    pub entries: u64,
    /// Length of one entry's path, in bytes. Linux itself takes no longer path in one call than 4095.
    pub path_bytes: usize,
    /// Components of one entry's path. A directory is open for each while a tree is walked.
    pub path_depth: usize,
    /// One extended header of an archive: long names and extended attributes. It is held in memory.
    pub header: Bytes,
    /// How long to wait for another process that is changing the store's index.
    pub lock_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blob: Bytes::gib(32),
            document: Bytes::mib(4),
            layers: 256,
            unpacked: Bytes::gib(64),
            entries: 2_000_000,
            path_bytes: 4095,
            path_depth: 256,
            header: Bytes::mib(1),
            lock_wait: crate::deadlines::Deadlines::default().store,
        }
    }
}

/// Who vouches for the content of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trust {
    /// The operator of this site imported it: set-uid bits and file capabilities are kept.
    Local,
    /// It came from a paired site.
    Peer {
        /// Whether set-uid bits, set-gid bits of files and file capabilities are kept. Otherwise they are taken off
        /// while unpacking; the file itself stays, so that the image goes on working for everything else.
        setuid: bool,
    },
}

/// What to do about device nodes in a layer. Overlay whiteouts are made by the store itself and are not meant here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Devices {
    /// Nodes below `/dev` are left out, because a container gets its own `/dev` mounted over them (every root made by
    /// debootstrap has some). A node anywhere else is a way to the host's hardware: the image is refused.
    #[default]
    Refuse,
    /// All nodes are made as they are in the image.
    Allow,
}

/// How to unpack an image. Trees unpacked under different policies are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnpackPolicy {
    /// Who vouches for the content.
    pub trust: Trust,
    /// What to do about device nodes.
    pub devices: Devices,
}

impl UnpackPolicy {
    /// For images that the operator of this site imported.
    pub const LOCAL: Self = Self { trust: Trust::Local, devices: Devices::Refuse };

    /// For images of a paired site whose set-uid programs are not believed.
    pub const STRANGER: Self = Self { trust: Trust::Peer { setuid: false }, devices: Devices::Refuse };

    /// For images of a paired site of whose files so much is accepted.
    pub const fn of_peer(files: FilePolicy) -> Self {
        let devices = if files.devices { Devices::Allow } else { Devices::Refuse };
        Self { trust: Trust::Peer { setuid: files.set_uid }, devices }
    }

    pub(super) const fn keeps_privilege(self) -> bool {
        match self.trust {
            Trust::Local => true,
            Trust::Peer { setuid } => setuid,
        }
    }

    /// What distinguishes the names of trees that were unpacked under policies with different outcomes.
    pub(super) const fn suffix(self) -> &'static str {
        match (self.keeps_privilege(), self.devices) {
            (true, Devices::Refuse) => "",
            (false, Devices::Refuse) => ".plain",
            (true, Devices::Allow) => ".devices",
            (false, Devices::Allow) => ".plain-devices",
        }
    }
}
