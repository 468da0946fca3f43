//! Services made of a few lines of Perl, in the Debian image: they count to a witness as `ums-workload` does, and do what
//! else a test needs.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use ums_testbed::cli::Outcome;
use ums_testbed::command::{Finished, finish};
use ums_testbed::net::SiteIndex;
use ums_testbed::rootfs::{WITNESS, redis_rootfs};
use ums_testbed::site::Site;
use ums_testbed::witness::{Recorder, Verdict};

use crate::PATIENCE;
use crate::rig::{Rig, typed};

/// Appends one number to the witness, as one write to a file opened for it.
const TICK: &str = r#"
    sub tick {
        our ($run, $number);
        $run //= sprintf("%08x%08x", int(rand(2**32)), $$);
        $number++;
        open(my $witness, ">>", $ENV{WITNESS}) or die "witness: $!";
        syswrite($witness, "$run $number\n");
        close($witness);
        select(undef, undef, undef, 0.01);
    }
"#;

/// A service with a witness whose name the test chose.
#[derive(Debug)]
pub(crate) struct Script<'a> {
    rig: &'a Rig,
    name: String,
    recorder: Recorder,
    path: Mutex<Vec<SiteIndex>>,
}

impl<'a> Script<'a> {
    /// Starts a service that runs `prepare` once, and then counts and runs `again` for ever. `options` are for `ums run`.
    pub(crate) fn start(
        rig: &'a Rig,
        site: SiteIndex,
        name: &str,
        prepare: &str,
        again: &str,
        options: &[&str],
    ) -> Result<Self> {
        let program = format!("$| = 1; {TICK} {prepare}; while (1) {{ tick(); {again} }}");
        let rootfs = redis_rootfs()?.display().to_string();
        let mut image = vec!["--rootfs", &rootfs];
        image.extend(options);
        Self::run(rig, site, name, &image, &["perl", "-e", &program])
    }

    /// Starts any service that writes to the witness. `options` say which image.
    pub(crate) fn run(
        rig: &'a Rig,
        site: SiteIndex,
        name: &str,
        options: &[&str],
        command: &[&str],
    ) -> Result<Self> {
        let file = |site: &Site| (site.index(), site.witness_directory().join(name));
        let recorder = Recorder::start(&rig.sites().iter().map(file).collect::<Vec<_>>())?;
        let witness = format!("witness:{WITNESS}");
        let variable = format!("WITNESS={WITNESS}/{name}");
        let mut args = vec!["run", "--name", name, "--site-mount", &witness, "--env", &variable];
        args.extend(options);
        args.push("--");
        args.extend(command);
        rig.site(site).ums(&args)?.success()?;
        let script = Self { rig, name: name.to_owned(), recorder, path: Mutex::new(vec![site]) };
        script.recorder.wait_for_life(site, PATIENCE).with_context(|| script.last_words())?;
        Ok(script)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub(crate) fn site(&self) -> &'a Site {
        self.rig.site(*self.lock().last().expect("it was started somewhere"))
    }

    /// Moves it.
    pub(crate) fn migrate(&self, destination: SiteIndex) -> Result<Outcome> {
        let outcome = self.try_migrate(destination)?.success()?;
        self.lock().push(destination);
        Ok(outcome)
    }

    /// Tries to move it; the service is taken to be where it was.
    pub(crate) fn try_migrate(&self, destination: SiteIndex) -> Result<Outcome> {
        self.site().ums(&["migrate", &self.name, "--to", destination.name()])
    }

    /// Proves that it goes on where it should be, and that there was one of it all the time.
    pub(crate) fn check(&self) -> Result<Verdict> {
        let here = self.site().index();
        self.recorder.wait_for_life(here, PATIENCE).with_context(|| self.last_words())?;
        self.recorder.check(&self.lock()).or_else(|violations| {
            let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
            bail!("{} is not one service: {}", self.name, list.join("; "))
        })
    }

    /// Runs a command in it, with `input` on its standard input.
    pub(crate) fn exec(&self, command: &[&str], input: &str) -> Result<Finished> {
        let mut args = vec!["exec", self.name.as_str(), "--"];
        args.extend(command);
        typed(self.site(), &args, input)
    }

    /// What a shell in it says to `script`; an exit code other than 0 is an error.
    pub(crate) fn shell(&self, script: &str) -> Result<String> {
        let said = self.exec(&["sh", "-c", script], "")?;
        if !said.status.success() {
            bail!("`{script}` in {} ended with {}: {}", self.name, said.status, said.stderr);
        }
        Ok(said.stdout)
    }

    fn last_words(&self) -> String {
        let mut logs = Command::new(self.site().program());
        logs.arg("--socket").arg(self.site().socket()).args(["logs", &self.name]);
        let said = finish(logs, "", PATIENCE).map(|said| said.stdout).unwrap_or_default();
        format!("{} at site {}; it said: {said}", self.name, self.site().name())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SiteIndex>> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
