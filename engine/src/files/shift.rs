//! Owners through the map of a user namespace.
//!
//! A tree travels with the ids of the inside, because the same service has another range of the host's ids at another
//! site. Three things of an entry name ids: its owner, access control lists, and file capabilities, which belong to the
//! namespace of the user that is root for them.

use crate::userns::IdRange;

use super::{Attributes, EntryKind, FilesError, Refusal, TreeEntry, xattr};

const ACCESS_LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// What the kernel shows for owners that a namespace has no id for.
const NOBODY: u32 = 65_534;
/// Length of the version before the entries of an access control list, and of one entry.
const LIST_HEAD: usize = 4;
const LIST_ENTRY: usize = 8;
/// Kinds of entries that name a user or a group.
const NAMED: [u16; 2] = [0x02, 0x08];
/// Revision of file capabilities: without and with the user that is root for them, and their lengths.
const REVISION_2: u8 = 2;
const REVISION_3: u8 = 3;
const LENGTH_2: usize = 20;
const LENGTH_3: usize = 24;

impl TreeEntry {
    /// From the ids of the host to those of the inside. An owner that the service has no name for (the host's root, for
    /// mount points that were made for it) is nobody, as the service sees it.
    pub fn shift_inwards(&mut self, ids: IdRange) -> Result<(), FilesError> {
        self.shift(&|id| Some(ids.inside(id).unwrap_or(NOBODY)), &|id| ids.inside(id), &|value| {
            inner_capability(value, ids)
        })
    }

    /// From the ids of the inside to those of the host. Refused: an owner beyond the range.
    pub fn shift_outwards(&mut self, ids: IdRange) -> Result<(), FilesError> {
        self.shift(&|id| ids.outside(id), &|id| ids.outside(id), &|value| outer_capability(value, ids))
    }

    fn shift(
        &mut self,
        owner: &dyn Fn(u32) -> Option<u32>,
        id: &dyn Fn(u32) -> Option<u32>,
        capability: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<(), FilesError> {
        // Names of something else, or of nothing: they have no owner.
        if matches!(self.kind, EntryKind::Whiteout | EntryKind::HardLink { .. }) {
            return Ok(());
        }
        let path = &self.path;
        let invalid = |attribute| FilesError::refused(path, Refusal::InvalidAttribute { attribute });
        let Attributes { uid, gid, xattrs, .. } = &mut self.attributes;
        *uid = owner(*uid).ok_or_else(|| invalid("owner"))?;
        *gid = owner(*gid).ok_or_else(|| invalid("group"))?;
        for attribute in xattrs {
            if ACCESS_LISTS.contains(&attribute.name.as_slice()) {
                shift_list(&mut attribute.value, id).ok_or_else(|| invalid("access control list"))?;
            } else if attribute.name == xattr::CAPABILITY {
                let shifted = capability(&attribute.value);
                attribute.value = shifted.ok_or_else(|| invalid("set of file capabilities"))?;
            }
        }
        Ok(())
    }
}

fn shift_list(list: &mut [u8], id: &dyn Fn(u32) -> Option<u32>) -> Option<()> {
    let entries = list.get_mut(LIST_HEAD..)?;
    if !entries.len().is_multiple_of(LIST_ENTRY) {
        return None;
    }
    for entry in entries.as_chunks_mut::<LIST_ENTRY>().0 {
        if NAMED.contains(&u16::from_le_bytes([entry[0], entry[1]])) {
            let shifted = id(u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]))?;
            entry[4..].copy_from_slice(&shifted.to_le_bytes());
        }
    }
    Some(())
}

/// Those of the service's own root lose its number; those of another namespace's do not travel.
fn inner_capability(value: &[u8], ids: IdRange) -> Option<Vec<u8>> {
    match (value.get(3)?, value.len()) {
        (&REVISION_3, LENGTH_3) => {
            let root = u32::from_le_bytes(value[LENGTH_2..].try_into().ok()?);
            let mut inner = value[..LENGTH_2].to_vec();
            inner[3] = REVISION_2;
            (root == ids.first).then_some(inner)
        }
        // Set by the host's root, whom every namespace believes.
        (&REVISION_2, LENGTH_2) => Some(value.to_vec()),
        _ => None,
    }
}

/// They belong to the service's root, so that they are worth nothing to anybody else on the host.
fn outer_capability(value: &[u8], ids: IdRange) -> Option<Vec<u8>> {
    if value.len() != LENGTH_2 || value[3] != REVISION_2 {
        return None;
    }
    let mut outer = value.to_vec();
    outer[3] = REVISION_3;
    outer.extend_from_slice(&ids.first.to_le_bytes());
    Some(outer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::files::{TreePath, Xattr};

    const IDS: IdRange = IdRange { first: 1_879_048_192, count: 65_536 };

    fn entry(uid: u32, gid: u32, xattrs: Vec<(&[u8], Vec<u8>)>) -> TreeEntry {
        let xattrs = xattrs.into_iter().map(|(name, value)| Xattr { name: name.to_vec(), value }).collect();
        let attributes = Attributes { uid, gid, xattrs, ..Attributes::default() };
        TreeEntry { path: TreePath::root(), kind: EntryKind::Dir { opaque: false }, attributes }
    }

    fn list(user: u32) -> Vec<u8> {
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (kind, id) in [(0x01_u16, u32::MAX), (0x02, user), (0x08, user), (0x20, u32::MAX)] {
            list.extend_from_slice(&kind.to_le_bytes());
            list.extend_from_slice(&7_u16.to_le_bytes());
            list.extend_from_slice(&id.to_le_bytes());
        }
        list
    }

    fn capability() -> Vec<u8> {
        let mut value = vec![1, 0, 0, REVISION_2];
        value.resize(LENGTH_2, 9);
        value
    }

    proptest! {
        #[test]
        fn what_goes_out_comes_in_again(uid in 0..65_536_u32, gid in 0..65_536_u32) {
            let inner = entry(uid, gid, vec![
                (ACCESS_LISTS[0], list(uid)), (xattr::CAPABILITY, capability()), (b"user.x", vec![1]),
            ]);
            let mut shifted = inner.clone();
            shifted.shift_outwards(IDS).unwrap();
            prop_assert_eq!(shifted.attributes.uid, IDS.first + uid);
            prop_assert_eq!(&shifted.attributes.xattrs[0].value, &list(IDS.first + uid));
            prop_assert_eq!(shifted.attributes.xattrs[1].value.len(), LENGTH_3);
            shifted.shift_inwards(IDS).unwrap();
            prop_assert_eq!(shifted, inner);
        }

        #[test]
        fn garbage_is_refused_and_not_believed(name in 0..3_usize, value in prop::collection::vec(any::<u8>(), 0..40)) {
            let name = [ACCESS_LISTS[0], ACCESS_LISTS[1], xattr::CAPABILITY][name];
            let _ = entry(0, 0, vec![(name, value.clone())]).shift_outwards(IDS);
            let _ = entry(IDS.first, IDS.first, vec![(name, value)]).shift_inwards(IDS);
        }
    }

    #[test]
    fn owners_beyond_the_range_are_refused() {
        assert!(entry(65_536, 0, vec![]).shift_outwards(IDS).is_err());
        assert!(entry(0, 65_536, vec![]).shift_outwards(IDS).is_err());
        assert!(entry(0, 0, vec![(ACCESS_LISTS[0], list(70_000))]).shift_outwards(IDS).is_err());
        // Capabilities that another namespace's root has set.
        let mut foreign = capability();
        foreign[3] = REVISION_3;
        foreign.extend_from_slice(&7_u32.to_le_bytes());
        assert!(
            entry(IDS.first, IDS.first, vec![(xattr::CAPABILITY, foreign.clone())])
                .shift_inwards(IDS)
                .is_err()
        );
        assert!(entry(0, 0, vec![(xattr::CAPABILITY, foreign)]).shift_outwards(IDS).is_err());
    }

    #[test]
    fn what_belongs_to_nobody_inside_stays_so() {
        let mut foreign = entry(0, IDS.first + 7, vec![]);
        foreign.shift_inwards(IDS).unwrap();
        assert_eq!((foreign.attributes.uid, foreign.attributes.gid), (NOBODY, 7));
    }

    #[test]
    fn names_without_an_owner_stay_as_they_are() {
        let mut whiteout = TreeEntry::bare(TreePath::root(), EntryKind::Whiteout);
        whiteout.shift_inwards(IDS).unwrap();
        assert_eq!(whiteout.attributes, Attributes::default());
    }
}
