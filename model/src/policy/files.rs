//! What the files of a service may be that comes from a paired site.
//!
//! A program that is set-uid or has file capabilities gives whoever runs it rights that its file's owner has. In a user
//! namespace these are rights over the service's own files and processes, and ordinary images are full of such programs
//! (`su`, `mount`, `ping`). Without one they are rights of the host. A device node is a way to the host's hardware in
//! either case; a service with a user namespace cannot make one, so none of an honest one has any.

use serde::{Deserialize, Serialize};

use super::{Policy, Wish};
use crate::names::SiteName;
use crate::spec::ServiceSpec;

/// What a site accepts among the files of one service. By default nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FilePolicy {
    /// Set-uid and set-gid programs, and file capabilities.
    pub set_uid: bool,
    /// Character and block devices.
    pub devices: bool,
}

/// What of a service's own files another site may not accept: the first of each kind. What its image has of them is seen
/// when the image is unpacked, before anything is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SpecialFiles {
    /// What [`FilePolicy::set_uid`] is about.
    pub set_uid: Option<String>,
    /// What [`FilePolicy::devices`] is about.
    pub device: Option<String>,
}

impl FilePolicy {
    /// The option that allows [`FilePolicy::set_uid`] where it is missing: the hint of who refuses a file and knows no
    /// other site.
    pub const SET_UID: &str = "--allow-set-uid yes";
    /// The option that allows [`FilePolicy::devices`].
    pub const DEVICES: &str = "--allow-devices yes";

    /// What to do at site `here` about a file of site `peer` that was refused, if `hint` is one of the options.
    pub fn remedy(hint: &str, peer: &SiteName, here: &SiteName) -> Option<String> {
        [Self::SET_UID, Self::DEVICES].contains(&hint).then(|| super::remedy(here, peer, hint))
    }
}

impl Policy {
    /// What it accepts among the files of a service that comes from there.
    pub fn files(&self, spec: &ServiceSpec) -> FilePolicy {
        self.accepted(spec.user_namespace)
    }

    fn accepted(&self, user_namespace: bool) -> FilePolicy {
        FilePolicy { set_uid: user_namespace || self.allow_set_uid, devices: self.allow_devices }
    }

    /// Files of a service that it does not accept, each with what it is and the option that allows it.
    pub(super) fn unaccepted<'a>(&self, wish: &'a Wish) -> Vec<(&'a str, &'static str, &'static str)> {
        let accepted = self.accepted(wish.user_namespace);
        let set_uid = wish.special_files.set_uid.as_deref().filter(|_| !accepted.set_uid);
        let device = wish.special_files.device.as_deref().filter(|_| !accepted.devices);
        let set_uid =
            set_uid.map(|path| (path, "set-uid, set-gid or has file capabilities", FilePolicy::SET_UID));
        set_uid.into_iter().chain(device.map(|path| (path, "a device", FilePolicy::DEVICES))).collect()
    }
}
