//! `/v1/site`, `/v1/sites`, `/v1/doctor`

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use futures_util::future::join_all;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{Bytes, Digest, ServiceName, SiteName};
use ums_model::phase::Approach;
use ums_model::plan::{ServiceFacts, plan};
use ums_model::policy::{Policy, SpecialFiles};
use ums_model::spec::{ImageRef, ServiceSpec};
use ums_sites::adapter::SiteAdapter;
use ums_transfer::link::Purpose;

use super::extract::{Answer, Body, Failure, Named, json};
use crate::core::Core;
use crate::journal::PairedRow;
use crate::view::{
    AcceptInvite, AcceptedView, Check, DoctorView, InviteView, PairedView, RevokedView, RotateKey,
    RotationView, SiteView,
};
use crate::{pairing, revoke, rotation};

pub(super) async fn own<S: SiteAdapter>(State(core): State<Arc<Core<S>>>) -> Answer<SiteView> {
    json(SiteView {
        name: core.config.name.clone(),
        fingerprint: core.identity().fingerprint(),
        addresses: core.addresses(),
        software: core.greeting.software.clone(),
        pid: std::process::id(),
    })
}

pub(super) async fn list<S: SiteAdapter>(State(core): State<Arc<Core<S>>>) -> Answer<Vec<PairedView>> {
    json(core.peers.all().into_iter().map(pairing::view).collect())
}

pub(super) async fn invite<S: SiteAdapter>(State(core): State<Arc<Core<S>>>) -> Answer<InviteView> {
    json(pairing::invite(&core).await?)
}

pub(super) async fn accept<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Body(wanted): Body<AcceptInvite>,
) -> Answer<AcceptedView> {
    json(pairing::accept(&core, &wanted.token).await?)
}

pub(super) async fn remove<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(name): Named<SiteName>,
) -> Result<StatusCode, Failure> {
    pairing::unpair(&core, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn revoke<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(name): Named<SiteName>,
) -> Answer<RevokedView> {
    // In a task of its own: a client that goes away must not leave half of it undone.
    let revoke = core.tasks.clone().spawn(async move { revoke::revoke(&core, &name).await });
    json(revoke.await.map_err(|error| internal(&error))??)
}

pub(super) async fn rotate<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Body(wanted): Body<RotateKey>,
) -> Answer<RotationView> {
    let rotate = core.tasks.clone().spawn(async move { rotation::rotate(&core, wanted.forget).await });
    json(rotate.await.map_err(|error| internal(&error))??)
}

fn internal(error: &tokio::task::JoinError) -> WireError {
    WireError::new(ErrorCode::Internal, format!("the request did not come to its end: {error}"))
}

pub(super) async fn policy<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(name): Named<SiteName>,
) -> Answer<Policy> {
    json(core.policies.of(&core.peers.by_name(&name)?.fingerprint))
}

pub(super) async fn set_policy<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(name): Named<SiteName>,
    Body(policy): Body<Policy>,
) -> Answer<Policy> {
    let peer = core.peers.by_name(&name)?;
    core.set_policy(&peer, policy).await?;
    json(core.policies.of(&peer.fingerprint))
}

/// The checks that a plan makes of any site, made on this one, and a call at every paired site.
pub(super) async fn doctor<S: SiteAdapter>(State(core): State<Arc<Core<S>>>) -> Answer<DoctorView> {
    let peers = core.peers.all();
    let (site, calls) = tokio::join!(core.facts(), join_all(peers.iter().map(|peer| call(&core, peer))));
    let site = site?;
    let mut other = site.clone();
    other.fingerprint.0[0] ^= 1;
    let found = plan(&nothing()?, &no_facts(), &other, &site, None);
    let check = |name: &str, detail: String, codes: &[ErrorCode]| {
        let blocker = found.blockers.iter().find(|blocker| codes.contains(&blocker.code));
        Check {
            name: name.to_owned(),
            ok: blocker.is_none(),
            detail: blocker.map_or(detail, |blocker| blocker.message.clone()),
            remedy: blocker.map(|blocker| blocker.remedy.clone()).unwrap_or_default(),
        }
    };
    let version = |version: &Option<String>| version.clone().unwrap_or_default();
    let mut checks = vec![
        check("criu", version(&site.criu), &[ErrorCode::CriuMissing, ErrorCode::CriuTooOld]),
        check("runc", version(&site.runc), &[ErrorCode::RuncMissing, ErrorCode::RuncTooOld]),
        check("privileges", "root".to_owned(), &[ErrorCode::NotRoot]),
        check("kernel", format!("{} on {}", site.kernel, site.arch), &[ErrorCode::Unsupported]),
        check("memory", format!("{} available", site.memory_available), &[ErrorCode::MemoryTooSmall]),
        check("disk", format!("{} available", site.disk_available), &[ErrorCode::DiskTooSmall]),
    ];
    let ok = checks.iter().all(|check| check.ok);
    checks.extend(calls);
    let mut warnings = found.warnings;
    warnings.dedup();
    json(DoctorView { ok, checks, warnings, site })
}

async fn call<S: SiteAdapter>(core: &Core<S>, peer: &PairedRow) -> Check {
    let name = format!("site {}", peer.name);
    match core.dial(peer, Purpose::Probe).await {
        Ok(_) => Check { name, ok: true, detail: "answers".to_owned(), remedy: String::new() },
        Err(error) => Check { name, ok: false, detail: error.message, remedy: error.hint },
    }
}

/// A service that wants nothing, to ask the plan's checks about the site alone.
fn nothing() -> Result<ServiceSpec, WireError> {
    let name =
        ServiceName::new("doctor").map_err(|error| WireError::new(ErrorCode::Internal, error.to_string()))?;
    Ok(ServiceSpec::new(name, ImageRef { digest: Digest::sha256([0; 32]), name: "none".to_owned() }))
}

fn no_facts() -> ServiceFacts {
    ServiceFacts {
        running: true,
        migrating: None,
        approach: Approach::Container,
        memory: Bytes::ZERO,
        files: Bytes::ZERO,
        tasks: 0,
        threads: 0,
        image_at_source: true,
        image_at_destination: true,
        image_bytes: Bytes::ZERO,
        special_files: SpecialFiles::default(),
        blockers: Vec::new(),
    }
}
