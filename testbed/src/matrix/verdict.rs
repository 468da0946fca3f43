//! What must hold after a cell, and which end that is.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::sense::End;
use super::stage::Stage;
use crate::net::SiteIndex;
use crate::patience::eventually;
use crate::service::Service;
use crate::site::Site;

/// How one site tells the newest migration of a service.
#[derive(Debug, Clone)]
struct Told {
    migration: String,
    role: String,
    state: String,
    outcome: Option<String>,
    error: String,
}

impl Told {
    fn by(site: &Site, service: &str) -> Result<Option<Self>> {
        let told = site.ums(&["history", service])?.success()?;
        let newest = told.lines.iter().max_by_key(|line| line["migration"].as_str().map(str::to_owned));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(newest.map(|line| Self {
            migration: text(&line["migration"]),
            role: text(&line["role"]),
            state: text(&line["state"]),
            outcome: line["outcome"].as_str().map(str::to_owned),
            error: text(&line["report"]["error"]["message"]),
        }))
    }

    fn is(&self, outcome: &str) -> bool {
        self.outcome.as_deref() == Some(outcome)
    }
}

/// Waits for the end of the migration, and proves all that must hold. Everything is mended before.
pub(super) fn judge(
    stage: &Stage,
    service: &Service<'_>,
    source: SiteIndex,
    destination: SiteIndex,
) -> Result<End> {
    let (from, to) = (stage.rig.site(source), stage.rig.site(destination));
    let mut last = None;
    let (told, other) = eventually("an end of the migration at both sites", || {
        let told = Told::by(from, service.name())?.context("the source knows of no migration")?;
        ensure!(told.role == "source", "the source tells of an older migration: {told:?}");
        let other = Told::by(to, service.name())?.filter(|other| other.migration == told.migration);
        let waits = |told: &Told| told.state == "stuck" || told.is("stuck");
        let ended = told.outcome.is_some() && other.as_ref().is_none_or(|other| other.outcome.is_some());
        // The destination has ended as it could know, and hears of it from the source.
        let ended = ended && (!told.is("lost") || other.as_ref().is_some_and(|other| other.is("lost")));
        let stuck = waits(&told) || other.as_ref().is_some_and(waits);
        last = Some((told.clone(), other.clone()));
        Ok((ended || stuck).then_some((told, other)))
    })
    .with_context(|| format!("{last:?}"))?;

    for told in [Some(&told), other.as_ref()].into_iter().flatten().filter(|told| !told.is("done")) {
        ensure!(!told.error.is_empty() || told.outcome.is_none(), "no word about why: {told:?}");
    }
    let both = |outcome: &str| told.is(outcome) && other.as_ref().is_some_and(|other| other.is(outcome));
    let end = if both("done") {
        runs_or_died(service, to, End::Done)?
    } else if told.is("rolled-back") && other.as_ref().is_none_or(|other| other.is("rolled-back")) {
        runs_or_died(service, from, End::RolledBack)?
    } else if both("lost") {
        ensure!(from.service_pid(service.name()).is_err(), "told as lost, but it runs at {source}");
        ensure!(to.service_pid(service.name()).is_err(), "told as lost, but it runs at {destination}");
        End::Lost
    } else if told.state == "stuck" || other.as_ref().is_some_and(|other| other.is("stuck")) {
        resolve(service, from, to)?
    } else {
        bail!("the sites tell different ends: {told:?} and {other:?}");
    };
    match end {
        End::Done | End::RolledBack => {
            let (here, left) = if end == End::Done { (destination, source) } else { (source, destination) };
            ensure!(service.settle()? == here, "told as {end:?}, but it runs at {}", service.site().name());
            service.check()?;
            stage.wait_for_clean(left)?;
        }
        End::Died | End::Lost | End::Resolved => {
            // It may have been at the destination for a moment before it was killed there.
            let record = service.recorder()?;
            let journey = service.journey();
            let longer: Vec<_> = journey.iter().copied().chain([destination]).collect();
            let checked = record.check(&journey).or_else(|_| record.check(&longer));
            if let Err(violations) = checked {
                let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
                bail!("the rules of one copy are violated: {}", list.join("; "));
            }
            for site in [from, to] {
                // Where nothing is known of it, nothing has to be removed.
                let removed = site.ums(&["rm", "--force", service.name()])?;
                ensure!(matches!(removed.code, Some(0 | 1)), "{removed:?}");
                stage.wait_for_clean(site.index())?;
            }
        }
    }
    Ok(end)
}

/// `end` if the service shows life at `site`, [`End::Died`] if nothing of it runs there.
fn runs_or_died(service: &Service<'_>, site: &Site, end: End) -> Result<End> {
    let record = service.recorder()?;
    let known = record.records().len();
    eventually(&format!("life or death at {}", site.name()), || {
        let fresh = record.records();
        if fresh[known..].iter().any(|record| record.site == site.index()) {
            return Ok(Some(end));
        }
        let name = service.name();
        let is_dead = site.service_pid(name).is_err() && site.keeper_pid(name).is_err();
        Ok(is_dead.then_some(End::Died))
    })
}

/// Both sites are up and neither may decide: an operator looks whether anything was seen of the copy at the destination.
fn resolve(service: &Service<'_>, from: &Site, to: &Site) -> Result<End> {
    let arrived = service.recorder()?.records().last().is_some_and(|record| record.site == to.index());
    let word = if arrived { "--run-here" } else { "--discard" };
    to.ums(&["resolve", service.name(), word, "--yes"])?.success()?;
    let name = service.name();
    eventually("what an operator decided", || {
        let told = Told::by(from, name)?.context("the source knows of no migration")?;
        Ok(told.outcome.map(drop))
    })?;
    if !arrived {
        service.recorder()?.wait_for_life(from.index(), crate::patience::PATIENCE)?;
        service.check()?;
    }
    Ok(End::Resolved)
}
