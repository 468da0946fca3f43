//! What a site can find out when it has to decide: about the copy that it has, and about the other site.

words! {
    /// The copy of the service at this site, as its cgroup and process table show it *now*.
    pub enum CopyState ("copy state") {
        /// At least one of its tasks can run.
        Running = "running",
        /// It is complete and its cgroup reads back frozen.
        Frozen = "frozen",
        /// Proven: no task of it exists. Also said where there never was a copy.
        Gone = "gone",
        /// It could not be found out. Nothing that needs a proof is decided on this.
        Unknown = "unknown",
    }
}

impl CopyState {
    /// Whether a copy certainly exists.
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Frozen)
    }
}

words! {
    /// What a site says about one epoch `E` of a service, derived from its journal and nothing else.
    ///
    /// An answer that arrives late stays true in the ways that matter: `running`, `refused`, `aborted`, `committed`,
    /// `over` and `lost` are final, `held` ends only by a decision of the source, and no decision is ever taken on the
    /// others.
    pub enum Answer ("answer") {
        /// No record of `E` or anything newer.
        NeverHeard = "never-heard",
        /// It is the source of `E` and has neither committed nor aborted; or it is about to write a decision.
        Undecided = "undecided",
        /// It is the destination of `E` and has reserved or is restoring.
        Preparing = "preparing",
        /// HELD(`E`): the copy stands frozen at the destination and waits for the decision, without a lease.
        Held = "held",
        /// COMMIT(`E`) is durable at the source.
        Committed = "committed",
        /// GRANTED(`E`) is durable at the destination, RUNNING(`E`) is not yet.
        Granted = "granted",
        /// RUNNING(`E`) is durable: the service came here with `E`. Final.
        Running = "running",
        /// REFUSED(`E`): the destination never runs `E`. Final.
        Refused = "refused",
        /// ABORTED(`E`): the source decided against, or the reservation ended. This site never runs `E`. Final.
        Aborted = "aborted",
        /// `E` is past here: something newer was seen, `E` never ran at this site by a grant, and never will. To a
        /// source that is as good as `refused`, to a destination as good as `aborted`. Final.
        Over = "over",
        /// This is the destination of `E`, never ran it, and the source said that no copy of `E` is left anywhere. To a
        /// source that is as good as `refused`. Final.
        Lost = "lost",
        /// An operator must decide; nothing moves by itself.
        Stuck = "stuck",
    }
}

impl Answer {
    /// The same in the words of a site that does not know that a service can be lost at both: there the tombstone is all
    /// that is said.
    #[must_use]
    pub const fn without_lost(self) -> Self {
        match self {
            Self::Lost => Self::Aborted,
            answer => answer,
        }
    }
}
