//! The closed list of failure codes, each with its HTTP status and its usual hint.

words! {
    /// What kind of failure. Programs may rely on these words; they are never renamed, only added to. A word that this
    /// version does not know reads as `internal`; the message beside it still says what happened.
    ///
    /// | HTTP status | codes |
    /// | --- | --- |
    /// | 400 | bad-request |
    /// | 403 | not-paired, wrong-identity, not-root |
    /// | 404 | unknown-site, service-not-found, image-missing, migration-not-found |
    /// | 409 | port-taken, name-taken, volume-taken, already-migrating, aborted, refused, epoch-too-old |
    /// | 412 | criu-missing, criu-too-old, runc-missing, runc-too-old, mount-missing |
    /// | 422 | process-blocked, invalid-spec, unsupported, image-refused |
    /// | 500 | internal, dump-failed, restore-failed, lost |
    /// | 502 | unreachable, link-cut |
    /// | 503 | stuck, in-doubt, busy |
    /// | 504 | timeout |
    /// | 507 | disk-too-small, memory-too-small |
    pub enum ErrorCode ("error code") {
        /// The site has no CRIU.
        CriuMissing = "criu-missing",
        /// The site's CRIU is older than 4.2.1.
        CriuTooOld = "criu-too-old",
        /// The site has no runc.
        RuncMissing = "runc-missing",
        /// The site's runc is older than 1.2.
        RuncTooOld = "runc-too-old",
        /// The site's daemon lacks privileges.
        NotRoot = "not-root",
        /// No site of this name is known here.
        UnknownSite = "unknown-site",
        /// The two sites were never introduced to each other.
        NotPaired = "not-paired",
        /// The other side's key is not the one that was paired.
        WrongIdentity = "wrong-identity",
        /// The other site does not answer.
        Unreachable = "unreachable",
        /// The destination has too little disk.
        DiskTooSmall = "disk-too-small",
        /// The destination has too little memory.
        MemoryTooSmall = "memory-too-small",
        /// A port that the service publishes is in use at the destination.
        PortTaken = "port-taken",
        /// Another service has this name at the destination.
        NameTaken = "name-taken",
        /// A volume of this name that is not this service's exists at the destination.
        VolumeTaken = "volume-taken",
        /// The site has no such service.
        ServiceNotFound = "service-not-found",
        /// The site knows no such migration.
        MigrationNotFound = "migration-not-found",
        /// The service is in a migration already.
        AlreadyMigrating = "already-migrating",
        /// The image is at neither site, or its content is incomplete.
        ImageMissing = "image-missing",
        /// A site mount of the service has no meaning at the destination.
        MountMissing = "mount-missing",
        /// Something about the service's processes cannot be dumped.
        ProcessBlocked = "process-blocked",
        /// The service description contradicts itself.
        InvalidSpec = "invalid-spec",
        /// The service could not be written down; it runs on at the source.
        DumpFailed = "dump-failed",
        /// The copy could not be built; the service runs on at the source.
        RestoreFailed = "restore-failed",
        /// The link between the sites broke in the middle.
        LinkCut = "link-cut",
        /// Somebody ended the migration before its commit.
        Aborted = "aborted",
        /// The other site declined, by policy or because its state does not allow it.
        Refused = "refused",
        /// The epoch is not newer than what the other site has already seen.
        EpochTooOld = "epoch-too-old",
        /// The site does too much at once.
        Busy = "busy",
        /// Nobody may run the service before the other site answers or an operator decides.
        Stuck = "stuck",
        /// The state of the service exists nowhere any more.
        Lost = "lost",
        /// The request makes no sense.
        BadRequest = "bad-request",
        /// The request makes sense but this version or machine cannot do it.
        Unsupported = "unsupported",
        /// Something took longer than its deadline.
        Timeout = "timeout",
        /// A defect of UMS or an unforeseen state of the machine.
        Internal = "internal",
        /// The decision was sent and its result is not known yet; recovery goes on by itself.
        InDoubt = "in-doubt",
        /// What the source sent of the service's processes asks for more than the service may have at the destination.
        ImageRefused = "image-refused",
    }
    else Internal
}

impl ErrorCode {
    /// The HTTP status with which the API answers; the table stands at the enum.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NotPaired | Self::WrongIdentity | Self::NotRoot => 403,
            Self::UnknownSite | Self::ServiceNotFound | Self::ImageMissing | Self::MigrationNotFound => 404,
            Self::PortTaken
            | Self::NameTaken
            | Self::VolumeTaken
            | Self::AlreadyMigrating
            | Self::Aborted
            | Self::Refused
            | Self::EpochTooOld => 409,
            Self::CriuMissing
            | Self::CriuTooOld
            | Self::RuncMissing
            | Self::RuncTooOld
            | Self::MountMissing => 412,
            Self::ProcessBlocked | Self::InvalidSpec | Self::Unsupported | Self::ImageRefused => 422,
            Self::Internal | Self::DumpFailed | Self::RestoreFailed | Self::Lost => 500,
            Self::Unreachable | Self::LinkCut => 502,
            Self::Stuck | Self::InDoubt | Self::Busy => 503,
            Self::Timeout => 504,
            Self::DiskTooSmall | Self::MemoryTooSmall => 507,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Unreachable
                | Self::LinkCut
                | Self::Timeout
                | Self::Busy
                | Self::AlreadyMigrating
                | Self::InDoubt
                | Self::Stuck
                | Self::EpochTooOld
                | Self::Aborted
        )
    }

    /// What to do next, where nothing better is known about the case at hand.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::CriuMissing | Self::CriuTooOld => {
                "put CRIU 4.2.1 or newer on that site, then check it there: ums doctor"
            }
            Self::RuncMissing | Self::RuncTooOld => {
                "put runc 1.2 or newer on that site, then check it there: ums doctor"
            }
            Self::NotRoot => "start the daemon of that site as root: ums site",
            Self::UnknownSite => "list the sites that are known here: ums sites",
            Self::NotPaired => "introduce the two sites to each other: ums pair",
            Self::WrongIdentity => {
                "compare the fingerprints: ums sites; if the key was changed on purpose, pair again: ums pair"
            }
            Self::Unreachable => "check address and daemon of the other site: ums sites; there: ums doctor",
            Self::DiskTooSmall => {
                "free disk space there, or look at another site: ums plan SERVICE --to SITE"
            }
            Self::MemoryTooSmall => "free memory there, or look at another site: ums plan SERVICE --to SITE",
            Self::PortTaken => {
                "free the port at the destination; what UMS publishes there is shown by: ums ps"
            }
            Self::NameTaken => "remove the other service at the destination: ums ps, ums rm",
            Self::VolumeTaken => {
                "move the content of the other volume away at the destination, then again: ums migrate"
            }
            Self::ServiceNotFound => "list the services of this site: ums ps",
            Self::MigrationNotFound => "list the migrations of this site: ums history",
            Self::AlreadyMigrating => "watch the migration that is under way: ums watch",
            Self::ImageMissing => "import the image again: ums run --image",
            Self::MountMissing => {
                "define the mount at the destination: ums site --site-mount NAME=DIR, or run the service without it"
            }
            Self::ProcessBlocked => "see which process blocks, and the remedy: ums plan SERVICE --to SITE",
            Self::InvalidSpec => "correct the description of the service and try again: ums run --help",
            Self::DumpFailed => "see what blocks: ums plan SERVICE --to SITE",
            Self::RestoreFailed => "check the destination, there: ums doctor",
            Self::LinkCut => "check the link, see who runs the service: ums status; then again: ums migrate",
            Self::Aborted => "the service runs on at the source; to try again: ums migrate",
            Self::Refused => "see the reason at the other site: ums history",
            Self::EpochTooOld => "try again: ums migrate takes a newer epoch by itself",
            Self::Busy => "see what is under way: ums history; then try again",
            Self::Stuck => "bring the other site back, recovery then goes on by itself; watch it: ums status",
            Self::Lost => "start the service anew from its volumes: ums run",
            Self::BadRequest => "see how it is used: ums --help",
            Self::Unsupported => "see what the site can do: ums doctor",
            Self::Timeout => "see where it stands: ums status; then try again",
            Self::Internal => "look into the log of the site's daemon, and check the host: ums doctor",
            Self::ImageRefused => {
                "compare the service with its description: ums plan SERVICE --to SITE; if it is what you started, start it anew there: ums run"
            }
            Self::InDoubt => "wait, recovery goes on by itself; watch it: ums status",
        }
    }
}
