//! Two sites that know each other, on a network that is theirs alone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::fault::Pause;
use crate::net::{A, B, Net, SiteIndex};
use crate::service::Service;
use crate::shaper::{Cut, Shape};
use crate::site::Site;
use crate::workload::{Image, Workload};
use crate::{programs, rootfs};

/// Published ports count up from here, the same at every site.
const FIRST_PORT: u16 = 20_000;

/// A lab: network, sites, and the images of the workloads. Dropping it ends and removes everything; if the test
/// failed, the ends of all logs are printed first.
#[derive(Debug)]
pub struct Lab {
    // In the order in which they must be dropped.
    sites: Vec<Site>,
    net: Net,
    images: Mutex<HashMap<Image, PathBuf>>,
    next_port: AtomicU16,
    next_pause: AtomicU16,
}

impl Lab {
    /// Two paired sites with an open link between them, running the `ums` of this build.
    pub fn two_sites() -> Result<Self> {
        Self::with(2, Shape::open(), &programs::find("ums")?)
    }

    /// Two paired sites with a shaped link between them.
    pub fn two_sites_over(shape: Shape) -> Result<Self> {
        Self::with(2, shape, &programs::find("ums")?)
    }

    /// `sites` sites, each paired with each, all links of one shape, running `program`.
    ///
    /// On `Err` nothing is left.
    pub fn with(sites: usize, shape: Shape, program: &Path) -> Result<Self> {
        Self::with_disks(sites, shape, program, None)
    }

    /// [`Lab::with`]; `disk` gives each site a disk of this size of its own, for its state.
    pub fn with_disks(
        sites: usize,
        shape: Shape,
        program: &Path,
        disk: Option<ums_model::names::Bytes>,
    ) -> Result<Self> {
        let net = Net::new(sites)?;
        let mut lab = Self {
            sites: Vec::new(),
            images: Mutex::default(),
            next_port: AtomicU16::new(FIRST_PORT),
            next_pause: AtomicU16::new(0),
            net,
        };
        for site in lab.net.sites() {
            lab.sites.push(Site::start(&lab.net, site, program, disk)?);
        }
        for (one, other) in lab.pairs() {
            lab.pair(one, other).with_context(|| format!("cannot pair {one} and {other}"))?;
            lab.net.link(one, other).shape(shape)?;
        }
        Ok(lab)
    }

    /// The network.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// One of the sites.
    ///
    /// # Panics
    /// If the lab was made with fewer sites.
    pub fn site(&self, site: SiteIndex) -> &Site {
        &self.sites[site.number()]
    }

    /// All sites.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// The first site.
    pub fn a(&self) -> &Site {
        self.site(A)
    }

    /// The second site.
    pub fn b(&self) -> &Site {
        self.site(B)
    }

    /// Starts a service; its name is that of the site and a number.
    ///
    /// On `Ok` it runs: its witness or its port has answered, or, where it has neither, `ums run` succeeded.
    pub fn start(&self, site: SiteIndex, workload: &Workload) -> Result<Service<'_>> {
        self.start_with(site, workload, &[])
    }

    /// [`Lab::start`] with more options for `ums run`, for example `["--memory", "256m"]`.
    pub fn start_with(&self, site: SiteIndex, workload: &Workload, options: &[&str]) -> Result<Service<'_>> {
        Service::start(self, site, workload, options)
    }

    /// Mends every link and starts every daemon that does not run, as an operator would after a fault.
    pub fn heal(&self) -> Result<()> {
        for (one, other) in self.pairs() {
            self.net.link(one, other).cut(Cut::Nothing)?;
        }
        for site in self.sites.iter().filter(|site| !site.is_alive()) {
            site.restart()?;
        }
        Ok(())
    }

    /// The root directory of an image, made when it is first needed.
    pub fn image(&self, image: Image) -> Result<PathBuf> {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = images.get(&image) {
            return Ok(path.clone());
        }
        let path = match image {
            Image::Redis => rootfs::redis_rootfs()?,
            Image::Postgres => rootfs::postgres_rootfs()?,
            Image::Static => {
                let path = self.net.tag().directory().join("rootfs");
                rootfs::static_rootfs(&path)?;
                path
            }
        };
        images.insert(image, path.clone());
        Ok(path)
    }

    pub(crate) fn fresh_port(&self) -> u16 {
        self.next_port.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn pause(&self, step: crate::fault::Step) -> Result<Pause> {
        let number = self.next_pause.fetch_add(1, Ordering::Relaxed);
        Pause::prepare(step, self.net.tag().directory().join(format!("pause-{number}")))
    }

    fn pairs(&self) -> Vec<(SiteIndex, SiteIndex)> {
        let all: Vec<SiteIndex> = self.net.sites().collect();
        all.iter()
            .flat_map(|one| all.iter().filter(move |other| *other > one).map(|other| (*one, *other)))
            .collect()
    }

    fn pair(&self, one: SiteIndex, other: SiteIndex) -> Result<()> {
        let invitation = self.site(other).ums(&["pair", "invite"])?.success()?;
        self.site(one).ums(&["pair", "accept", invitation.text("token")?])?.success()?;
        self.trust(one, other)
    }

    /// Lets the services of each of two paired sites use the site mounts of the other: the recorder of every service that
    /// the lab starts is one, and by default a paired site gets none.
    pub fn trust(&self, one: SiteIndex, other: SiteIndex) -> Result<()> {
        for (here, there) in [(one, other), (other, one)] {
            let name = self.site(there).name();
            self.site(here).ums(&["sites", "policy", name, "--site-mounts", "*"])?.success()?;
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for site in &self.sites {
                eprintln!("=== site {} ===\n{}", site.name(), site.logs());
            }
        }
    }
}
