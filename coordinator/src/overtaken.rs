//! A nest that knows more than the journal.
//!
//! The journal is written before a nest hears of an epoch. So a nest that has seen a newer one was told by a journal that
//! is not there any more: this one was put back to an older copy, or begun anew. What was decided since is not known here;
//! the service may have been given away. Its copy is stopped and kept, nobody may thaw or migrate it, and an operator
//! who knows where the service runs says so.

use ums_model::action::{Action, Alarm};
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{Epoch, MigrationId};
use ums_sites::adapter::SiteAdapter;

use crate::core::Core;
use crate::desk::Lane;

impl<S: SiteAdapter> Core<S> {
    /// Records that the nest of the service has seen `epoch`, which is newer than all that the journal knows, and stops
    /// the copy. `Ok`: it stands still and its standing is `Superseded`. `Err`: it has to be tried again; nothing was
    /// thawed. Safe to repeat.
    pub(crate) async fn overtaken(
        &self,
        lane: &mut Lane,
        migration: Option<MigrationId>,
        epoch: Epoch,
    ) -> Result<(), WireError> {
        let (service, standing) = (lane.service().clone(), lane.standing());
        tracing::error!(
            %service, %standing, nest = %epoch,
            "the nest of a service has seen a newer epoch than the journal: the journal was put back to an older copy"
        );
        let Some(records) = standing.overtaken(epoch) else {
            lane.raise(Some((standing.epoch(), Alarm::Stuck)));
            let message = format!(
                "the journal says that service {service} is {standing} here, but its nest has seen epoch {epoch}"
            );
            return Err(WireError::new(ErrorCode::Stuck, message)
                .with_hint(format!("find out where it runs, then: ums resolve {service}")));
        };
        self.write(lane, migration, records).await?;
        let report = Action::Report { epoch, alarm: Alarm::Superseded };
        self.perform(lane, migration, vec![Action::Freeze, report]).await.map(drop)
    }
}
