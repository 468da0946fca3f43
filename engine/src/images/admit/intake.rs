//! Images as they arrive: page content goes straight to its place, everything else is held back until all is known and
//! has been found right, and then written by us.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::archive::Archive;
use super::files::Look;
use super::set::{Set, refused};
use super::{Admission, Refused, files, memory, mounts, surroundings, tasks};
use crate::images::format::{Image, Kind, Layout};
use crate::images::sink::{Sink, SinkError};

/// Most bytes of all images but pages: what waits in pipes and sockets is the largest part.
const MAX_HELD: usize = 512 << 20;
/// Most images but pages.
const MAX_IMAGES: usize = 300_000;

/// Images that are arriving.
#[derive(Debug)]
pub struct Intake {
    admission: Admission,
    sink: Sink,
    /// Names that have come: what is added to an image later would be believed as if it were its.
    begun: BTreeSet<String>,
    open: BTreeMap<String, Vec<u8>>,
    held: usize,
    set: Set,
}

/// Images cannot be taken. None of them may be restored.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// They are not what they must be.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// They cannot be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl Intake {
    /// Takes images into an empty directory.
    pub fn open(directory: &Path, admission: Admission) -> Result<Self, IntakeError> {
        let sink = Sink::open(directory, admission.memory)?;
        Ok(Self {
            admission,
            sink,
            begun: BTreeSet::new(),
            open: BTreeMap::new(),
            held: 0,
            set: Set::default(),
        })
    }

    /// An image begins. Nothing of it is written, unless it has pages.
    pub fn begin(&mut self, name: &str) -> Result<(), IntakeError> {
        let shown = || name.chars().take(100).collect::<String>();
        let (kind, number) = Kind::of(name)
            .ok_or_else(|| refused(&shown(), "no service of ours has an image of this name"))?;
        let twice = !self.begun.insert(name.to_owned());
        if twice {
            return Err(refused(name, "it came twice").into());
        }
        if self.begun.len() > MAX_IMAGES {
            return Err(refused(name, "there are too many images").into());
        }
        if kind.layout == Layout::Pages {
            self.set.pages.insert(number, 0);
            self.sink.write(name, &[])?;
        } else {
            self.open.insert(name.to_owned(), Vec::new());
        }
        Ok(())
    }

    /// More of an image that has begun.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), IntakeError> {
        if let Some(held) = self.open.get_mut(name) {
            self.held += bytes.len();
            if self.held > MAX_HELD {
                return Err(
                    refused(name, format!("all images together have more than {MAX_HELD} bytes")).into()
                );
            }
            held.extend_from_slice(bytes);
            return Ok(());
        }
        let pages = Kind::of(name).filter(|(kind, _)| kind.layout == Layout::Pages);
        let size = pages.and_then(|(_, number)| self.set.pages.get_mut(&number));
        let size = size.ok_or_else(|| refused(name, "it has not begun"))?;
        *size += bytes.len() as u64;
        Ok(self.sink.write(name, bytes)?)
    }

    /// An image is complete: it is decoded.
    pub fn end(&mut self, name: &str) -> Result<(), IntakeError> {
        let Some(bytes) = self.open.remove(name) else {
            self.sink.end(name);
            return Ok(());
        };
        let (kind, number) = Kind::of(name).ok_or_else(|| refused(name, "it has not begun"))?;
        if kind.layout == Layout::Archive {
            let archive = Archive::read(&bytes).map_err(|rule| refused(name, rule))?;
            self.set.archives.push((name.to_owned(), number, archive));
        } else {
            let image = Image::read(name, &bytes);
            let image =
                image.map_err(|error| Refused { field: error.field, ..refused(name, error.reason) })?;
            self.set.images.insert((kind.stem, number), image);
        }
        Ok(())
    }

    /// All images are here. On `Ok` they stand in the directory, written by us, and say nothing that this service may
    /// not have. On `Err` none but pages does.
    pub fn finish(mut self) -> Result<(), IntakeError> {
        if let Some(name) = self.open.keys().next() {
            return Err(refused(name, "it did not come to its end").into());
        }
        check(&self.set, &self.admission)?;
        surroundings::settle(&mut self.set, &self.admission);
        for image in self.set.images.values() {
            self.sink.write(&image.name, &image.write())?;
            self.sink.end(&image.name);
        }
        for (name, _, archive) in &self.set.archives {
            self.sink.write(name, &archive.write())?;
            self.sink.end(name);
        }
        self.sink.finish();
        Ok(())
    }
}

/// All rules, in an order in which each knows what it needs of the ones before.
pub(super) fn check(set: &Set, admission: &Admission) -> Result<(), Refused> {
    let tree = tasks::check(set, admission)?;
    let mounts = mounts::check(set, admission, tree.namespace("mnt_ns_id"))?;
    let look = Look { admission, tree: &tree, mounts: &mounts, set };
    let files = files::check(&look)?;
    memory::check(&look, &files)?;
    surroundings::check(set, admission, &tree)
}
