//! The columns: what goes wrong.

use std::fmt;

/// A fault of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the words of `word` say what each is")]
pub enum Fault {
    KillSourceDaemon,
    KillDestinationDaemon,
    KillBothDaemons,
    KillSourceNest,
    KillDestinationNest,
    KillSourceKeeper,
    KillDestinationKeeper,
    FailDump,
    KillDump,
    FailRestore,
    KillRestore,
    CutBoth,
    CutToDestination,
    CutToSource,
    Slow,
    Again,
    Twice,
    FullSource,
    FullDestination,
    NoMemory,
    ClockForward,
    ClockBack,
    Restarted,
    SourceHostDies,
    DestinationHostDies,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::KillSourceDaemon,
        Self::KillDestinationDaemon,
        Self::KillBothDaemons,
        Self::KillSourceNest,
        Self::KillDestinationNest,
        Self::KillSourceKeeper,
        Self::KillDestinationKeeper,
        Self::FailDump,
        Self::KillDump,
        Self::FailRestore,
        Self::KillRestore,
        Self::CutBoth,
        Self::CutToDestination,
        Self::CutToSource,
        Self::Slow,
        Self::Again,
        Self::Twice,
        Self::FullSource,
        Self::FullDestination,
        Self::NoMemory,
        Self::ClockForward,
        Self::ClockBack,
        Self::Restarted,
        Self::SourceHostDies,
        Self::DestinationHostDies,
    ];

    /// Its name in tables and patterns.
    pub fn word(self) -> &'static str {
        match self {
            Self::KillSourceDaemon => "kill-source-daemon",
            Self::KillDestinationDaemon => "kill-destination-daemon",
            Self::KillBothDaemons => "kill-both-daemons",
            Self::KillSourceNest => "kill-source-nest",
            Self::KillDestinationNest => "kill-destination-nest",
            Self::KillSourceKeeper => "kill-source-keeper",
            Self::KillDestinationKeeper => "kill-destination-keeper",
            Self::FailDump => "criu-dump-fails",
            Self::KillDump => "criu-dump-killed",
            Self::FailRestore => "criu-restore-fails",
            Self::KillRestore => "criu-restore-killed",
            Self::CutBoth => "cut",
            Self::CutToDestination => "cut-to-destination",
            Self::CutToSource => "cut-to-source",
            Self::Slow => "slow-link",
            Self::Again => "message-twice",
            Self::Twice => "deed-twice",
            Self::FullSource => "disk-full-source",
            Self::FullDestination => "disk-full-destination",
            Self::NoMemory => "no-memory-destination",
            Self::ClockForward => "clock-forward",
            Self::ClockBack => "clock-back",
            Self::Restarted => "orchestrator-restarts",
            Self::SourceHostDies => "source-host-dies",
            Self::DestinationHostDies => "destination-host-dies",
        }
    }

    /// What the product itself has to be told to do at the step, in the words of `UMS_FAULT`; `None` where the fault
    /// comes from outside.
    pub fn act(self) -> Option<&'static str> {
        match self {
            Self::Again => Some("again"),
            Self::Twice => Some("twice"),
            Self::ClockForward => Some("jump:31536000"),
            Self::ClockBack => Some("jump:-31536000"),
            _ => None,
        }
    }

    /// Whether the fault lasts until it is mended: the migration is first given time to come to an end with it.
    pub fn lasts(self) -> bool {
        matches!(
            self,
            Self::CutBoth
                | Self::CutToDestination
                | Self::CutToSource
                | Self::Slow
                | Self::FullSource
                | Self::FullDestination
                | Self::NoMemory
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
