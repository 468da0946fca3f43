//! What `plan` needs to know of the running service, read without stopping it.

use ums_engine::facts::{ServiceProcesses, ServiceQuery, service_facts};
use ums_engine::files::{Limits, open_root, tree_size};
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::Bytes;
use ums_model::phase::Approach;
use ums_model::plan::ServiceFacts;
use ums_model::policy::SpecialFiles;

use crate::parcel::Tree;
use crate::server::{Nest, failure};

/// Looks at the service. Touches nothing. What only the site knows (migration, image) is left at "no".
pub(crate) fn observe(nest: &Nest) -> Result<ServiceFacts, WireError> {
    let internal = |error: &dyn std::error::Error| failure(ErrorCode::Internal, error);
    let pids = nest.cgroup.procs().map_err(|error| internal(&error))?;
    let (mut files, mut special_files) = (0, SpecialFiles::default());
    for (tree, root) in Tree::of_source(&nest.recipe, nest.dir.upper()) {
        let root = open_root(&root).map_err(|error| internal(&error))?;
        let size = tree_size(root, Limits::default()).map_err(|error| internal(&error))?;
        files += size.bytes.get();
        let here = |path: String| format!("{path} in {tree}");
        special_files.set_uid = special_files.set_uid.or(size.set_uid.map(here));
        special_files.device = special_files.device.or(size.device.map(here));
    }
    let query = ServiceQuery { sockets: nest.deadlines().sockets, ..ServiceQuery::default() };
    let processes = match nest.service_pid() {
        Some(first) => {
            service_facts(first.as_raw_nonzero().get(), &pids, &query).map_err(|error| internal(&error))?
        }
        None => ServiceProcesses::default(),
    };
    for unchecked in &processes.unchecked {
        tracing::info!(unchecked, "not everything about the service could be looked at");
    }
    Ok(ServiceFacts {
        running: nest.is_alive() && !crate::harm::is_known(&crate::layout::harm()),
        migrating: None,
        approach: Approach::Container,
        memory: processes.memory,
        files: Bytes(files),
        tasks: processes.tasks,
        threads: processes.threads,
        image_at_source: false,
        image_at_destination: false,
        image_bytes: Bytes(0),
        special_files,
        blockers: processes.blockers,
    })
}
