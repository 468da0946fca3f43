//! How long anything is waited for: every wait of the Coordinator on the world stands here, and below it those of its
//! site and its nests.

use std::time::Duration;

use serde::Deserialize;
use ums_model::seconds::deserialize as seconds;
use ums_nest::deadlines::Deadlines as NestDeadlines;
use ums_sites::deadlines::Deadlines as SiteDeadlines;

/// Every wait of the Coordinator, its site and its nests. In a configuration file each is a number of seconds, above 0
/// and up to a year.
///
/// No safety rule depends on one of them. Before COMMIT a deadline that passes ends the migration, and the service
/// runs on at the source; after it the next attempt begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    /// One TCP connect to one address of another site. Default 5 s.
    #[serde(deserialize_with = "seconds")]
    pub connect: Duration,
    /// The TLS handshake, and the handshake of versions after it, each. Default 5 s.
    #[serde(deserialize_with = "seconds")]
    pub handshake: Duration,
    /// The whole exchange in which two sites are paired. Default 20 s.
    #[serde(deserialize_with = "seconds")]
    pub pairing: Duration,
    /// Silence on a link after which it counts as cut. Default 15 s.
    #[serde(deserialize_with = "seconds")]
    pub idle: Duration,
    /// A link that takes no byte counts as cut after this. Default 30 s.
    #[serde(deserialize_with = "seconds")]
    pub stall: Duration,
    /// Pause between signs of life on a quiet link. Default 3 s.
    #[serde(deserialize_with = "seconds")]
    pub keep_alive: Duration,
    /// The answer of another site to a question that it answers from its journal or its host, and to an offer. It
    /// covers that site's `facts`; a site that is gone is noticed by `idle`. Default 60 s.
    #[serde(deserialize_with = "seconds")]
    pub answer: Duration,
    /// How long a source that comes back with a stopped original asks the other site whether an operator has decided there
    /// meanwhile, before it goes on by its own journal. Default 1 s.
    #[serde(deserialize_with = "seconds")]
    pub word: Duration,
    /// The site's own answer about a host or a service. Default 30 s.
    #[serde(deserialize_with = "seconds")]
    pub facts: Duration,
    /// The start, the stop or another change of a service that a user asked for, on top of the grace that the user
    /// gave. A start may unpack the image; importing it is not covered. Default 10 min.
    #[serde(deserialize_with = "seconds")]
    pub change: Duration,
    /// Importing an image. Default 30 min.
    #[serde(deserialize_with = "seconds")]
    pub import: Duration,
    /// Reading, sending or storing one blob of an image. Default 30 min.
    #[serde(deserialize_with = "seconds")]
    pub blob: Duration,
    /// Everything that the destination starts before the freeze; it may unpack the image first. Default 5 min.
    #[serde(deserialize_with = "seconds")]
    pub arm: Duration,
    /// From the wish to freeze to the first byte of the dump. Default 60 s.
    #[serde(deserialize_with = "seconds")]
    pub freeze: Duration,
    /// The stream of a dump, from its first byte to its last. A link that stands still is noticed long before; this
    /// ends one that is only too slow. Default 1 h.
    #[serde(deserialize_with = "seconds")]
    pub transfer: Duration,
    /// From the last byte of the dump to HELD. Default 5 min.
    #[serde(deserialize_with = "seconds")]
    pub held: Duration,
    /// One attempt to tell COMMIT, or ABORT, and to hear what became of it; it covers an `act`. Default 180 s.
    #[serde(deserialize_with = "seconds")]
    pub commit: Duration,
    /// One act on a copy: thaw, resume, open, discard, release, a look at it. Longer than the site's own `change`,
    /// whose errors say more. Default 150 s.
    #[serde(deserialize_with = "seconds")]
    pub act: Duration,
    /// The destination's reservation: how long it waits for the next step of a source that is connected but says
    /// nothing, and within an image or a dump for 4 KiB more of it. Longer than `freeze`, during which a dump may not
    /// have begun. A link that is cut ends a reservation at once. Default 2 min.
    #[serde(deserialize_with = "seconds")]
    pub lease: Duration,
    /// How long a migration waits for its turn: behind others that leave this site, and then for a destination that has
    /// as many arrivals as it allows, each. Default 1 h.
    #[serde(deserialize_with = "seconds")]
    pub turn: Duration,
    /// First pause before something that must succeed is tried again; it doubles up to `retry_most`. Default 0.2 s.
    #[serde(deserialize_with = "seconds")]
    pub retry_least: Duration,
    /// Longest pause between two attempts. Default 15 s.
    #[serde(deserialize_with = "seconds")]
    pub retry_most: Duration,
    /// How long an invite can be used. Default 15 min.
    #[serde(deserialize_with = "seconds")]
    pub invite: Duration,
    /// The head of a request to the API. Default 10 s.
    #[serde(deserialize_with = "seconds")]
    pub request: Duration,
    /// How often a followed log is looked at for more. Default 0.2 s.
    #[serde(deserialize_with = "seconds")]
    pub follow: Duration,
    /// How long a shutdown waits for what is under way. Default 10 s.
    #[serde(deserialize_with = "seconds")]
    pub drain: Duration,
    /// What the site itself waits for: `[deadlines.site]`.
    pub site: SiteDeadlines,
    /// What its nests wait for: `[deadlines.nest]`, with `[deadlines.nest.network]`, `[deadlines.nest.dump]` and
    /// `[deadlines.nest.restore]`. Nests that run learn of a change when the daemon starts.
    pub nest: NestDeadlines,
}

impl Default for Deadlines {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            connect: s(5),
            handshake: s(5),
            pairing: s(20),
            idle: s(15),
            stall: s(30),
            keep_alive: s(3),
            answer: s(60),
            word: s(1),
            facts: s(30),
            change: s(10 * 60),
            import: s(30 * 60),
            blob: s(30 * 60),
            arm: s(5 * 60),
            freeze: s(60),
            transfer: s(60 * 60),
            held: s(5 * 60),
            commit: s(180),
            act: s(150),
            lease: s(2 * 60),
            turn: s(60 * 60),
            retry_least: Duration::from_millis(200),
            retry_most: s(15),
            invite: s(15 * 60),
            request: s(10),
            follow: Duration::from_millis(200),
            drain: s(10),
            site: SiteDeadlines::default(),
            nest: NestDeadlines::default(),
        }
    }
}

impl Deadlines {
    /// Those of them that hold on a link.
    pub(crate) fn link(&self) -> ums_transfer::Deadlines {
        ums_transfer::Deadlines {
            connect: self.connect,
            tls: self.handshake,
            hello: self.handshake,
            pairing: self.pairing,
            // Within the exchange, so that its failure can still be told.
            dial_back: self.pairing / 2,
            idle: self.idle,
            stall: self.stall,
            keep_alive: self.keep_alive,
        }
    }
}
