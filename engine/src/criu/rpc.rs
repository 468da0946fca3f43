//! The messages of CRIU's RPC protocol, as far as they are used here.
//!
//! Written by hand against the descriptors in CRIU 4.2.1: field numbers never change once released. Only what is
//! sent or read is here. A relayed message must not be decoded and encoded again, because prost drops what it does
//! not know; see `proxy::rewrite`.

/// What a [`Request`] asks for and a [`Response`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Kind {
    /// Nothing; a message that says this is broken.
    Empty = 0,
    /// Dump a process tree.
    Dump = 1,
    /// Restore one.
    Restore = 2,
    /// CRIU calls back, or the answer to such a call.
    Notify = 6,
}

/// What is to be done with cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum CgroupMode {
    /// Leave them alone.
    Ignore = 0,
    /// Restore membership; create directories that are missing, leave the settings of those that exist.
    Soft = 3,
}

/// How CRIU cuts the tree off the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum NetworkLock {
    /// Not at all: somebody else does it.
    Skip = 3,
}

/// An external mount: at dump the mount point and its name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExternalMount {
    /// Mount point inside the tree.
    #[prost(string, required, tag = "1")]
    pub key: String,
    /// The name under which restore is given the mount.
    #[prost(string, required, tag = "2")]
    pub val: String,
}

/// Options of a request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Options {
    /// Number of a descriptor *in the process that made the socket*: CRIU opens it through `/proc`.
    #[prost(int32, required, tag = "1")]
    pub images_dir_fd: i32,
    /// Root of the tree to dump.
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
    /// The tree goes on after the dump (else it is killed).
    #[prost(bool, optional, tag = "3")]
    pub leave_running: Option<bool>,
    /// Established TCP connections are dumped.
    #[prost(bool, optional, tag = "5")]
    pub tcp_established: Option<bool>,
    /// File locks are dumped.
    #[prost(bool, optional, tag = "8")]
    pub file_locks: Option<bool>,
    /// 0 to 4.
    #[prost(int32, optional, tag = "9")]
    pub log_level: Option<i32>,
    /// Name of the log in the work directory.
    #[prost(string, optional, tag = "10")]
    pub log_file: Option<String>,
    /// Call back over the socket.
    #[prost(bool, optional, tag = "12")]
    pub notify_scripts: Option<bool>,
    /// Root directory of the tree, as seen by CRIU.
    #[prost(string, optional, tag = "13")]
    pub root: Option<String>,
    /// As `images_dir_fd`; where the log goes.
    #[prost(int32, optional, tag = "17")]
    pub work_dir_fd: Option<i32>,
    /// Unlinked files that are open are linked again.
    #[prost(bool, optional, tag = "18")]
    pub link_remap: Option<bool>,
    /// Mounts whose content is not dumped.
    #[prost(message, repeated, tag = "23")]
    pub ext_mnt: Vec<ExternalMount>,
    /// Old switch; must be set for the mode to count.
    #[prost(bool, optional, tag = "24")]
    pub manage_cgroups: Option<bool>,
    /// See [`CgroupMode`].
    #[prost(enumeration = "CgroupMode", optional, tag = "34")]
    pub manage_cgroups_mode: Option<i32>,
    /// Unlinked files up to this size in bytes are put into the images.
    #[prost(uint32, optional, tag = "35")]
    pub ghost_limit: Option<u32>,
    /// Other external resources, as `net[INODE]:NAME`.
    #[prost(string, repeated, tag = "37")]
    pub external: Vec<String>,
    /// Seconds in which all tasks must have been stopped.
    #[prost(uint32, optional, tag = "45")]
    pub timeout: Option<u32>,
    /// A terminal whose other end is outside of the tree is handed over.
    #[prost(bool, optional, tag = "50")]
    pub orphan_pts_master: Option<bool>,
    /// A configuration file that CRIU reads in addition.
    #[prost(string, optional, tag = "51")]
    pub config_file: Option<String>,
    /// See [`NetworkLock`].
    #[prost(enumeration = "NetworkLock", optional, tag = "64")]
    pub network_lock: Option<i32>,
}

/// From us to CRIU.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// See [`Kind`]; other numbers exist.
    #[prost(int32, required, tag = "1")]
    pub kind: i32,
    /// For dump and restore.
    #[prost(message, optional, tag = "2")]
    pub opts: Option<Options>,
    /// For the answer to a callback.
    #[prost(bool, optional, tag = "3")]
    pub notify_success: Option<bool>,
}

/// What CRIU tells about a restore that succeeded.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Restored {
    /// The root of the tree, in CRIU's pid namespace.
    #[prost(int32, required, tag = "1")]
    pub pid: i32,
}

/// A callback.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Notify {
    /// Name of the point that has been reached, as `pre-dump`.
    #[prost(string, optional, tag = "1")]
    pub script: Option<String>,
    /// The root of the tree, where it is known.
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
}

/// From CRIU to us.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    /// See [`Kind`]; other numbers exist.
    #[prost(int32, required, tag = "1")]
    pub kind: i32,
    /// Whether the request was carried out.
    #[prost(bool, required, tag = "2")]
    pub success: bool,
    /// For a restore.
    #[prost(message, optional, tag = "4")]
    pub restore: Option<Restored>,
    /// For a callback.
    #[prost(message, optional, tag = "5")]
    pub notify: Option<Notify>,
    /// The `errno` of a failure, often 0.
    #[prost(int32, optional, tag = "7")]
    pub cr_errno: Option<i32>,
    /// First error line of the log, often a harmless one.
    #[prost(string, optional, tag = "9")]
    pub cr_errmsg: Option<String>,
}

impl Request {
    /// The answer to a callback.
    pub(crate) fn answer(go_on: bool) -> Self {
        Self { kind: Kind::Notify as i32, opts: None, notify_success: Some(go_on) }
    }
}

impl Response {
    /// A failed restore, as runc is told when the proxy refuses.
    pub(crate) fn failed_restore(message: String) -> Self {
        Self {
            kind: Kind::Restore as i32,
            success: false,
            restore: None,
            notify: None,
            cr_errno: None,
            cr_errmsg: Some(message),
        }
    }
}
