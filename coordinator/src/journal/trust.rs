//! The tables about what paired sites may do, which keys they have, and which are out.

/// One step of the schema.
pub(super) const TABLES: &str = "
    CREATE TABLE policies (
        site   TEXT NOT NULL PRIMARY KEY,
        policy TEXT NOT NULL
    ) STRICT;

    CREATE TABLE arrivals (
        service TEXT NOT NULL PRIMARY KEY,
        site    TEXT NOT NULL,
        memory  INTEGER NOT NULL,
        disk    INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE next_keys (
        site        TEXT NOT NULL PRIMARY KEY,
        fingerprint TEXT NOT NULL UNIQUE
    ) STRICT;

    CREATE TABLE former_keys (
        fingerprint TEXT NOT NULL PRIMARY KEY,
        site        TEXT NOT NULL
    ) STRICT;

    CREATE TABLE revoked (
        fingerprint     TEXT NOT NULL PRIMARY KEY,
        name            TEXT NOT NULL,
        addresses       TEXT NOT NULL,
        revoked_unix_ms INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE rotation (
        fingerprint TEXT NOT NULL,
        site        TEXT NOT NULL,
        state       TEXT NOT NULL,
        PRIMARY KEY (fingerprint, site)
    ) STRICT, WITHOUT ROWID;

    ALTER TABLE tokens ADD COLUMN expires_unix_ms INTEGER;
";
