//! Ends and removes what killed test runs left on this machine: processes, cgroups, mounts, network namespaces and
//! temporary directories. What belongs to a run that is still alive is not touched.

fn main() -> anyhow::Result<()> {
    ums_testbed::sweep::leftovers()
}
