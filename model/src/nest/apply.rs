//! Which record may follow which.

use super::{Event, IllegalNestEvent, Record, Right, Step};

impl Record {
    /// The record after `event`. On `Err` the rule that forbids it is named and nothing has changed.
    pub fn apply(self, event: Event) -> Result<Self, IllegalNestEvent> {
        let next = if event.epoch < self.epoch {
            Err("this epoch is over: a newer one was seen")
        } else {
            self.next(event)
        };
        let (right, tasks, fenced) = next.map_err(|rule| IllegalNestEvent { record: self, event, rule })?;
        Ok(Self { epoch: event.epoch, right, tasks, fenced })
    }

    /// Right, tasks and fence after `event`, whose epoch is not older.
    fn next(self, event: Event) -> Result<(Right, u32, bool), &'static str> {
        use Right::{Discarded, Dumped, Dumping, Held, Prepared, Restoring, Run};
        let newer = event.epoch > self.epoch;
        let closed = |right, tasks| Ok((right, tasks, true));
        match (self.right, event.step) {
            // Between resume and open only a newer epoch says that the copy is at home here.
            (Run, Step::DumpBegun) if newer || !self.fenced => closed(Dumping, 0),
            (_, Step::DumpBegun) => Err("only a service that is at home here is dumped"),

            (Dumping, Step::DumpComplete { tasks }) if !newer => closed(Dumped, tasks),
            (_, Step::DumpComplete { .. }) => Err("a dump ends once, in the epoch in which it began"),

            // What was restored and may not run is held again.
            (Run, Step::FreezeBegun { tasks }) if self.fenced && !newer => closed(Held, tasks),
            (Run | Dumping, Step::FreezeBegun { tasks }) => closed(Dumped, tasks),
            // As it was counted before.
            (Dumped, Step::FreezeBegun { .. }) => closed(Dumped, self.tasks),
            (Held, Step::FreezeBegun { .. }) if !newer => closed(Held, self.tasks),
            (_, Step::FreezeBegun { .. }) => Err("there is no copy that could stand still"),

            (Run | Dumping | Dumped, Step::ThawBegun) => Ok((Run, 0, false)),
            // The service was given up; a newer decision makes what is left of it at home here.
            (Discarded, Step::ThawBegun) if newer => Ok((Run, 0, false)),
            (Discarded, Step::ThawBegun) => Err("this epoch was given up here"),
            (_, Step::ThawBegun) => Err("only the original of a source is thawed"),

            (Run | Dumping | Dumped | Discarded, Step::CameHome) => Ok((Run, 0, false)),
            (_, Step::CameHome) => Err("a copy that was restored is at home here only once it was resumed"),

            (Dumped | Discarded, Step::ReleaseBegun) if !newer => closed(Discarded, self.tasks),
            (_, Step::ReleaseBegun) => Err("only the frozen original of the very epoch is released"),

            (Prepared, Step::Armed { tasks }) => closed(Prepared, tasks),
            (_, Step::Armed { .. }) => Err("a restore is prepared only where nothing of the copy exists"),

            (Prepared, Step::RestoreBegun) if !newer => closed(Restoring, self.tasks),
            (_, Step::RestoreBegun) => Err("only what was prepared for the very epoch is restored"),

            (Restoring, Step::HeldReached { tasks }) if !newer => closed(Held, tasks),
            (_, Step::HeldReached { .. }) => Err("HELD ends a restore of the very epoch"),

            (Held, Step::ResumeBegun) if !newer => closed(Run, self.tasks),
            (Run, Step::ResumeBegun) if !newer => Ok((Run, self.tasks, self.fenced)),
            (_, Step::ResumeBegun) => Err("only the held copy of the very epoch is resumed"),

            (Run, Step::Opened) if !newer => Ok((Run, self.tasks, false)),
            (_, Step::Opened) => Err("only a copy of the very epoch that may run is opened"),

            (Prepared | Restoring | Discarded, Step::DiscardBegun) => closed(Discarded, 0),
            // An undecided copy of an older epoch is not a newer one's to end.
            (Held, Step::DiscardBegun) if !newer => closed(Discarded, 0),
            (Run, Step::DiscardBegun) if self.fenced && !newer => closed(Discarded, 0),
            (_, Step::DiscardBegun) => Err("a copy that is at home here, or may be, is not discarded"),

            (Run | Dumping | Dumped | Held | Discarded, Step::GivenUp) => closed(Discarded, self.tasks),
            (Prepared | Restoring, Step::GivenUp) => Err("there is no copy yet that could have died"),
        }
    }
}
