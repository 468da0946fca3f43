//! The words of a migration's course: in which phase it is, how its state travels, on which level, and how it ended.

words! {
    /// The phases of a migration, in the order in which it passes them.
    pub enum Phase ("phase") {
        /// Both sites are looked at: can the service move, and what will it cost? Nothing is touched.
        Plan = "plan",
        /// The destination promises names, ports, memory and disk for a while; both journals know the epoch.
        Reserve = "reserve",
        /// What the destination lacks of the image travels.
        Image = "image",
        /// Everything that can be started early is: nest, fence, restorer and dumper wait for their cue.
        Arm = "arm",
        /// The service is stopped and cut off at the source. From here on `frozen` counts.
        Freeze = "freeze",
        /// The stopped service is written down.
        Dump = "dump",
        /// What is left of its state after the dump's end travels.
        Transfer = "transfer",
        /// The copy is built at the destination and stands frozen behind the fence: HELD.
        Restore = "restore",
        /// The one irreversible decision becomes durable at the source.
        Commit = "commit",
        /// The copy is thawed, its RUNNING becomes durable, the fence opens. `frozen` ends here.
        Resume = "resume",
        /// The source gives up its frozen original and what belonged to it.
        Release = "release",
    }
}

words! {
    /// How the state of a service travels.
    pub enum Mode ("mode") {
        /// Stop and copy: everything travels while the service is frozen.
        Cold = "cold",
        /// Memory and files travel in rounds while the service runs; only the last changes inside the freeze.
        Precopy = "precopy",
        /// Precopy, then what is left on demand after the commit.
        Hybrid = "hybrid",
    }
}

words! {
    /// On which level the core migration is done: which authority over source and destination it needs.
    pub enum Approach ("approach") {
        /// UMS is the OCI runtime of the nodes; the orchestrator itself is not changed.
        Orchestrator = "orchestrator",
        /// An outer container runs the nest, the unmodified service runs inside it.
        Container = "container",
        /// UMS is the entrypoint of the service's own image.
        Service = "service",
    }
}

words! {
    /// How a migration ended.
    pub enum Outcome ("outcome") {
        /// The service runs at the destination.
        Done = "done",
        /// The service runs at the source, as if nothing had been tried.
        RolledBack = "rolled-back",
        /// Nobody may run the service before the other site answers or an operator decides; its state exists.
        Stuck = "stuck",
        /// The state of the service exists nowhere any more.
        Lost = "lost",
    }
}

impl Outcome {
    /// Exit code of a command that ended so: 0 done, 1 failed and rolled back, 3 stuck or lost. (2 is wrong usage.)
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::RolledBack => 1,
            Self::Stuck | Self::Lost => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_ordered_words() {
        let words: Vec<_> = Phase::ALL.iter().map(|phase| phase.as_str()).collect();
        assert_eq!(
            words.join(" "),
            "plan reserve image arm freeze dump transfer restore commit resume release"
        );
        assert!(Phase::ALL.is_sorted());
        assert_eq!(serde_json::to_string(&Phase::Freeze).unwrap(), "\"freeze\"");
        assert_eq!(serde_json::from_str::<Mode>("\"precopy\"").unwrap(), Mode::Precopy);
        assert!(
            serde_json::from_str::<Mode>("\"warp\"").unwrap_err().to_string().contains("cold precopy hybrid")
        );
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.exit_code()).collect();
        assert_eq!(codes, [0, 1, 3, 3]);
    }
}
