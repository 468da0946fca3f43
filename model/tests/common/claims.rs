//! What both searches demand of two sites, by what their Coordinators have written down.

use ums_model::action::{Action, Word};
use ums_model::destination::{self, Tree};
use ums_model::facts::Answer;
use ums_model::names::Epoch;
use ums_model::source::{self, Own};
use ums_model::standing::{Role, Standing};

/// Rounds of talking after which a repaired pair of sites must have come to rest.
pub(crate) const REPAIR_ROUNDS: usize = 20;

/// How a repaired world came to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// At the site where it was created, without ever having left.
    RolledBack,
    /// At the site to which the last migration took it.
    Moved,
    /// Both copies are gone and both sites say so.
    Lost,
    /// It waits for an operator, as it should.
    Stuck,
}

/// A world whose sites have nothing more to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rested<'a> {
    pub(crate) standings: [&'a Standing; 2],
    /// Where a copy runs.
    pub(crate) running: Option<usize>,
    /// Whether a copy with a claim to run was left when the repair began.
    pub(crate) good: bool,
    /// Whether a copy died where the service was at home: only then may the service be lost.
    pub(crate) original_died: bool,
}

impl Rested<'_> {
    /// Exactly one runs, or none was left and both sites say so. `name` tells all about a site.
    pub(crate) fn judge(self, name: impl Fn(usize) -> String) -> Result<Rest, String> {
        let Self { standings, running, good, original_died } = self;
        let home = (0..2).find(|at| standings[*at].is_home());
        let lost = (0..2).find(|at| is_lost_source(standings[*at]));
        match (running, home) {
            (Some(at), Some(home)) if at == home => {}
            // It ended by itself at home; its restart policy takes over.
            (None, Some(_)) if !good => {}
            (None, None) if !good && lost.is_some() => {
                return match lost.filter(|at| is_lost_destination(standings[1 - at])) {
                    None => Err(format!("lost, and only one site says so: {} and {}", name(0), name(1))),
                    Some(_) if !original_died => Err("lost, though no original ever died".into()),
                    Some(_) => Ok(Rest::Lost),
                };
            }
            _ => {
                let rest = format!("{} and {}", name(0), name(1));
                return Err(format!(
                    "after repair nobody runs the service, though a good copy was left: {rest}"
                ));
            }
        }
        Ok(if home == Some(0) { Rest::RolledBack } else { Rest::Moved })
    }
}

/// A destination says that the service is lost only where the source has said so before.
pub(crate) fn lost_at_both(standings: [&Standing; 2]) -> Result<(), String> {
    for at in [0, 1] {
        let (own, source) = (standings[at], standings[1 - at]);
        if is_lost_destination(own) && !(is_lost_source(source) && source.epoch() == own.epoch()) {
            return Err(format!("site {at} says that it is lost, the source says {source}"));
        }
    }
    Ok(())
}

fn is_lost_source(standing: &Standing) -> bool {
    matches!(standing.role(), Role::Source(half) if half.stage() == source::Stage::Lost)
}

fn is_lost_destination(standing: &Standing) -> bool {
    matches!(standing.role(), Role::Destination(half) if half.stage() == destination::Stage::Lost)
}

/// Whether a copy that is there has a claim to run: not given up by a decision, not outlived by a later one. `aborted`:
/// the source has aborted the epoch.
pub(crate) fn has_claim(own: &Standing, other: &Standing, aborted: bool) -> bool {
    match own.role() {
        Role::Source(half) => {
            use source::Stage;
            let has_claim = !matches!(
                half.stage(),
                Stage::Moved
                    | Stage::Released
                    | Stage::Superseded
                    | Stage::Lost
                    | Stage::Stuck
                    | Stage::Held { own: Own::Dead }
                    | Stage::Committed { own: Own::Dead }
                    | Stage::Refused { own: Own::Dead }
            );
            has_claim && other.answer(own.epoch()) != Answer::Running
        }
        Role::Destination(half) => {
            use destination::Stage;
            match half.stage() {
                Stage::Held { tree: Tree::Alive } => !aborted,
                Stage::CommitSeen { tree: Tree::Alive }
                | Stage::Granted { tree: Tree::Alive, .. }
                | Stage::Running => true,
                _ => false,
            }
        }
    }
}

/// Nothing that can be said about an epoch which both sites have left behind leads to more than an answer. `receive`: what
/// a site does because of a word.
pub(crate) fn the_past_is_over(
    present: Epoch,
    words: &[Word],
    receive: impl Fn(usize, Epoch, Word) -> Vec<Action>,
) -> Result<(), String> {
    for epoch in (1..present.0).map(Epoch) {
        for (at, word) in [0, 1].into_iter().flat_map(|at| words.iter().map(move |word| (at, *word))) {
            let actions = receive(at, epoch, word);
            let answers =
                |action: &Action| matches!(action, Action::Tell { epoch: about, .. } if *about == epoch);
            if !actions.iter().all(answers) {
                return Err(format!(
                    "site {at} does {actions:?} because of {word:?} about {epoch}, which is over"
                ));
            }
        }
    }
    Ok(())
}
