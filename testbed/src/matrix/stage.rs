//! Two sites on which every fault of the matrix can happen, again and again.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use ums_model::names::Bytes;

use super::memory;
use crate::fault::Step;
use crate::net::{A, B, SiteIndex};
use crate::patience::eventually;
use crate::programs;
use crate::rig::{Rig, Twist};
use crate::shaper::{Cut, Shape};
use crate::traces::Traces;

/// A site's disk: room for image, copies and journal several times over, and quick to fill.
const DISK: Bytes = Bytes(192 << 20);

/// A rig with a switch for every fault.
#[derive(Debug)]
pub struct Stage {
    /// The sites. Dropped first.
    pub rig: Rig,
    home: tempfile::TempDir,
    clean: [Traces; 2],
}

impl Stage {
    /// Sets up two paired sites. On `Err` nothing is left.
    pub fn set() -> Result<Self> {
        let home = tempfile::Builder::new().prefix("ums-matrix-").tempdir()?;
        fs::set_permissions(home.path(), Permissions::from_mode(0o755))?;
        let twists = [A, B].map(|site| {
            let at = home.path().join(site.name());
            let criu = criu(&at)?;
            let words = format!("env UMS_FAULT=from:{} UMS_CRIU={}", at.display(), criu.display());
            Ok((site, Twist { launcher: words, ..Twist::default() }))
        });
        let twists = twists.into_iter().collect::<Result<Vec<_>>>()?;
        let rig = Rig::with_disks(&twists, DISK)?;
        let clean = [Traces::of_site(&rig, rig.a())?, Traces::of_site(&rig, rig.b())?];
        Ok(Self { rig, home, clean })
    }

    /// Tells the daemon of `site` what to do when it comes to `step`.
    pub(crate) fn lay(&self, site: SiteIndex, step: Step, act: &str) -> Result<()> {
        let file = self.file(site, step);
        // What an earlier pause left would look like a daemon that has come here.
        let _ = fs::remove_file(file.with_extension("reached"));
        // In one piece: the daemon may be looking.
        let whole = file.with_extension("new");
        fs::write(&whole, act)?;
        fs::rename(&whole, &file).context("cannot lay out a fault")
    }

    /// Takes back what the daemon was told. Safe to repeat.
    pub(crate) fn lift(&self, site: SiteIndex, step: Step) -> Result<()> {
        let file = self.file(site, step);
        match fs::remove_file(&file) {
            Err(error) if file.exists() => Err(error).context("cannot take a fault back"),
            _ => Ok(()),
        }
    }

    /// Waits until the daemon pauses at `step`. `is_over` says that it will not come any more.
    pub(crate) fn wait_for_pause(
        &self,
        site: SiteIndex,
        step: Step,
        is_over: impl Fn() -> bool,
    ) -> Result<()> {
        let reached = self.file(site, step).with_extension("reached");
        self.wait(site, step, is_over, || reached.exists())
    }

    /// Waits until the daemon has done what it was told to.
    pub(crate) fn wait_for_act(&self, site: SiteIndex, step: Step, is_over: impl Fn() -> bool) -> Result<()> {
        let file = self.file(site, step);
        self.wait(site, step, is_over, || !file.exists())
    }

    fn wait(
        &self,
        site: SiteIndex,
        step: Step,
        is_over: impl Fn() -> bool,
        is_there: impl Fn() -> bool,
    ) -> Result<()> {
        eventually(&format!("site {site} at step {}", step.word()), || {
            // Looked at in this order: whoever was there and left since has been there.
            let over = is_over();
            match is_there() {
                true => Ok(Some(())),
                false if over => bail!("the migration ended before step {}", step.word()),
                false => Ok(None),
            }
        })
    }

    /// The next CRIU of `site` does `act`: `fail` or `kill`.
    pub(crate) fn spoil_criu(&self, site: SiteIndex, act: &str) -> Result<()> {
        fs::write(self.spoiled(site), act).context("cannot spoil CRIU")
    }

    /// CRIU is as good as before. Safe to repeat. `true`: what it was told has happened.
    pub(crate) fn mend_criu(&self, site: SiteIndex) -> bool {
        fs::remove_file(self.spoiled(site)).is_err()
    }

    /// Mends everything that can be mended from outside, and starts every daemon that does not run. Safe to repeat.
    pub fn repair(&self) -> Result<()> {
        for site in self.rig.sites() {
            for step in Step::ALL {
                self.lift(site.index(), step)?;
            }
            self.mend_criu(site.index());
            site.disk()?.free()?;
        }
        let link = self.rig.net().link(A, B);
        link.cut(Cut::Nothing)?;
        link.shape(Shape::open())?;
        self.rig.heal()?;
        self.rig.sites().iter().try_for_each(|site| memory::give(self.rig.net().tag(), site))
    }

    /// Waits until nothing of any service is left at `site`.
    pub fn wait_for_clean(&self, site: SiteIndex) -> Result<()> {
        Traces::wait_for_site(&self.rig, self.rig.site(site), &self.clean[site.number()])
            .with_context(|| format!("site {site}"))
    }

    fn file(&self, site: SiteIndex, step: Step) -> PathBuf {
        self.home.path().join(site.name()).join(step.word())
    }

    fn spoiled(&self, site: SiteIndex) -> PathBuf {
        self.home.path().join(site.name()).join("criu-act")
    }
}

/// A CRIU that does what `at/criu-act` says, once: `fail` at its start, or be killed as soon as it has a task in its hands:
/// one that it traces, or one that it makes.
fn criu(at: &std::path::Path) -> Result<PathBuf> {
    let directory = at.join("bin");
    fs::create_dir_all(&directory)?;
    let real = std::env::var_os("UMS_CRIU").map(PathBuf::from);
    let real = real.map_or_else(|| programs::find("criu"), Ok).context("UMS_CRIU names no CRIU")?;
    // runc asks a CRIU for its version first: the word is used up only by the kill.
    // The watcher is nobody's child, or CRIU would wonder about it, and holds nothing of CRIU's open.
    let script = format!(
        "#!/bin/sh\n\
         act='{act}'\n\
         word=; case \" $* \" in *' swrk '*) [ -e \"$act\" ] && read -r word < \"$act\";; esac\n\
         [ \"$word\" != fail ] || {{ rm -f \"$act\"; exit 1; }}\n\
         me=$$; shell=$(readlink /proc/$$/exe)\n\
         if [ \"$word\" = kill ]; then\n\
         ( ( eval \"exec $2>&-\"; while kill -0 $me 2>/dev/null; do\n\
         [ \"$(readlink /proc/$me/exe)\" != \"$shell\" ] || continue\n\
         grep -Eqs \"^(TracerPid|PPid):[[:space:]]*$me$\" /proc/[0-9]*/status && kill -9 $me && rm -f \"$act\" && break\n\
         done ) </dev/null >/dev/null 2>&1 & )\n\
         fi\n\
         exec '{real}' \"$@\"\n",
        act = at.join("criu-act").display(),
        real = real.display(),
    );
    let file = directory.join("criu");
    fs::write(&file, format!("{script}\n"))?;
    fs::set_permissions(&file, Permissions::from_mode(0o755))?;
    Ok(file)
}
