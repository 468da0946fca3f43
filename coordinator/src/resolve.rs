//! An operator's word, where the rules can only wait.
//!
//! A copy is held, or a commit is in doubt, and the other site will never answer again: no rule may decide then, because
//! the other site might run the service. An operator who knows that it does not can say so. From that moment on
//! at-most-one rests on his word, and the journal says that it does: the word is a record like every decision, written
//! before anything is done about it.

use std::sync::Arc;
use std::time::Duration;

use ums_model::action::Alarm;
use ums_model::error::{ErrorCode, WireError};
use ums_model::facts::{Answer, CopyState};
use ums_model::message::About;
use ums_model::names::ServiceName;
use ums_model::source::Verdict;
use ums_model::standing::{Record, Role as Half, Standing};
use ums_model::{destination, source};
use ums_sites::adapter::SiteAdapter;

use crate::control;
use crate::core::Core;
use crate::desk::{Desk, Hold, Lane};
use crate::failure;
use crate::journal::{MigrationRow, Role};
use crate::recovery::attend;
use crate::services;
use crate::settle::{advance, conclude, is_settled, outcome};
use crate::view::ResolvedView;

/// Turns of the rules within which what follows from a verdict is done: each takes the state at least one step on.
const TURNS: usize = 8;

/// Pause before a lane that is taken is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Takes an operator's verdict on `service`. `Ok`: it is recorded and carried out. `Err`: it was not recorded, nothing
/// was touched and the rules go on; except where the error says that it is recorded and still to be carried out, which
/// then happens by itself. Refused where the rules can still decide: the other site answers.
pub(crate) async fn resolve<S: SiteAdapter>(
    core: &Arc<Core<S>>,
    service: &ServiceName,
    verdict: Verdict,
) -> Result<ResolvedView, WireError> {
    let desk = core.desks.desk(service);
    let standing = desk.standing();
    admissible(service, &standing, verdict)?;
    let row = row_of(core, service, &standing).await?;
    other_site_is_silent(core, service, &standing, row.as_ref()).await?;
    let mut lane = interrupt(core, &desk, row.as_ref()).await?;
    let result = carry_out(core, &mut lane, row.as_ref(), verdict).await;
    let settled = is_settled(&lane.standing());
    match row {
        Some(row) if core.chronicles.of(row.id).is_some() => {
            if settled {
                let outcome = outcome(&row, &lane.standing());
                conclude(core, lane, &row, outcome, None, true).await;
            } else {
                drop(lane);
                attend(core, row);
            }
        }
        _ => drop(lane),
    }
    result?;
    let standing = desk.standing().to_string();
    match services::show(core, service).await {
        Ok(service) => Ok(ResolvedView { standing, service: Some(service) }),
        Err(error) if error.code == ErrorCode::ServiceNotFound => {
            Ok(ResolvedView { standing, service: None })
        }
        Err(error) => Err(error),
    }
}

/// The record of a verdict.
fn record(standing: &Standing, verdict: Verdict) -> Record {
    let epoch = standing.epoch();
    match standing.role() {
        Half::Source(_) => Record::Source(source::Step::Resolved { verdict }.at(epoch)),
        Half::Destination(_) => Record::Destination(destination::Step::Resolved { verdict }.at(epoch)),
    }
}

fn admissible(service: &ServiceName, standing: &Standing, verdict: Verdict) -> Result<(), WireError> {
    standing.apply(record(standing, verdict)).map(drop).map_err(|error| {
        let message = format!("cannot resolve service {service}, which is {standing} here: {}", error.rule);
        WireError::new(ErrorCode::Refused, message).with_hint(format!("ums status {service}"))
    })
}

/// The migration that the service is in, or was in last.
async fn row_of<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
    standing: &Standing,
) -> Result<Option<MigrationRow>, WireError> {
    let role = match standing.role() {
        Half::Source(_) => Role::Source,
        Half::Destination(_) => Role::Destination,
    };
    let row = core.journal.migration_of(service, standing.epoch(), role).await;
    row.map_err(|error| failure::journal(&error))
}

/// Whoever answers decides by the rules; only what is final here needs no word of anybody.
async fn other_site_is_silent<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
    standing: &Standing,
    row: Option<&MigrationRow>,
) -> Result<(), WireError> {
    let Some(row) = row.filter(|_| !is_settled(standing)) else { return Ok(()) };
    let Ok(peer) = core.peer_of(row) else { return Ok(()) };
    let about = About { migration: row.id, service: service.clone(), epoch: standing.epoch() };
    match control::ask_state(core, &peer, about).await {
        Ok(Answer::Stuck) | Err(_) => Ok(()),
        Ok(answer) => {
            let message = format!(
                "cannot resolve service {service}: site {} answers ({answer}), so the rules decide, and no word of \
                 an operator is needed",
                row.peer_name
            );
            Err(WireError::new(ErrorCode::Refused, message)
                .with_hint(format!("watch it: ums watch {}", row.id)))
        }
    }
}

/// Takes the lane from who waits for the other site. Asked again and again: who has it may have taken it just now.
async fn interrupt<S: SiteAdapter>(
    core: &Arc<Core<S>>,
    desk: &Arc<Desk>,
    row: Option<&MigrationRow>,
) -> Result<Lane, WireError> {
    let migration = row.map(|row| row.id);
    let within = core.config.deadlines.act;
    let take = async {
        loop {
            let present = match desk.try_take(core.holder(migration, "being resolved", Hold::Firm)) {
                Ok(lane) => return Ok(lane),
                Err(present) => present,
            };
            if present.migration == migration {
                present.stop.cancel();
            } else if present.hold == Hold::Firm {
                let message = format!("service {} is {}", desk.name(), present.doing);
                return Err(WireError::new(ErrorCode::Busy, message));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    let lane = tokio::time::timeout(within, take).await;
    lane.unwrap_or_else(|_| Err(failure::late(&format!("get hold of service {}", desk.name()), within)))
}

async fn carry_out<S: SiteAdapter>(
    core: &Core<S>,
    lane: &mut Lane,
    row: Option<&MigrationRow>,
    verdict: Verdict,
) -> Result<(), WireError> {
    // It may have gone on by itself meanwhile.
    let standing = lane.standing();
    admissible(lane.service(), &standing, verdict)?;
    let service = lane.service().clone();
    let alive = core.look(&service).await.copy != CopyState::Gone;
    core.write(lane, row.map(|row| row.id), vec![record(&standing, verdict)]).await?;
    tracing::warn!(%service, ?verdict, was = %standing, "an operator decided: at-most-one rests on his word");
    if let Some(chronicle) = row.and_then(|row| core.chronicles.of(row.id)) {
        let text = format!("an operator decided: {}", words(verdict));
        chronicle.note(&core.journal, text).await;
    }
    lane.raise(None);
    for _ in 0..TURNS {
        advance(core, lane, row, None).await.map_err(|error| recorded(&service, &error))?;
        if is_settled(&lane.standing()) {
            break;
        }
    }
    if verdict == Verdict::RunHere && !alive && lane.standing().is_home() {
        // Nothing to thaw, but its files are at home here again.
        let doing = format!("give service {service} back its right to be started");
        let thaw = core.site.thaw(&service, lane.standing().epoch());
        core.within(core.config.deadlines.act, &doing, thaw).await.map_err(|error| {
            // A start says the same to the nest, and ends first what a dump may have harmed.
            let message = format!(
                "service {service} is at home here by the verdict, but its nest does not make it ready: {}",
                error.message
            );
            WireError::new(error.code, message).with_hint(format!("start it: ums start {service}"))
        })?;
    }
    match is_settled(&lane.standing()) {
        true => Ok(()),
        false => {
            lane.raise(Some((lane.standing().epoch(), Alarm::Stuck)));
            let message = format!("it is {} now", lane.standing());
            Err(recorded(&service, &WireError::new(ErrorCode::Stuck, message)))
        }
    }
}

fn recorded(service: &ServiceName, error: &WireError) -> WireError {
    let message = format!(
        "the verdict on service {service} is recorded and still to be carried out: {}",
        error.message
    );
    WireError::new(error.code, message)
        .with_hint(format!("it is tried again by itself: ums status {service}"))
}

fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::RunHere => "the copy here runs, the other one never will",
        Verdict::GiveUp => "the copy here is given up",
    }
}
