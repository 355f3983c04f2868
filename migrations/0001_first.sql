-- Times are milliseconds since the Unix epoch; hashes are SHA-256; JSON is text.

CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE revisions (
    number         INTEGER NOT NULL PRIMARY KEY,
    epoch          INTEGER NOT NULL,
    at_ms          INTEGER NOT NULL,
    actor          TEXT    NOT NULL,
    message        TEXT    NOT NULL,
    changes        TEXT    NOT NULL,
    -- Both set while the revision waits for its confirmation.
    rollback_at_ms INTEGER,
    rollback_to    INTEGER REFERENCES revisions (number)
) STRICT;

CREATE INDEX revisions_waiting ON revisions (rollback_at_ms) WHERE rollback_at_ms IS NOT NULL;

-- One row per version: a revision has the rows with from_revision <= it < to_revision (or no to_revision).
CREATE TABLE objects (
    kind          TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    from_revision INTEGER NOT NULL REFERENCES revisions (number),
    to_revision   INTEGER REFERENCES revisions (number),
    body          TEXT    NOT NULL,
    -- Name, labels and what of the spec people search for, lower case.
    search        TEXT    NOT NULL,
    PRIMARY KEY (kind, name, from_revision)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX objects_current ON objects (kind, name) WHERE to_revision IS NULL;
CREATE INDEX objects_begun ON objects (from_revision);
CREATE INDEX objects_ended ON objects (to_revision) WHERE to_revision IS NOT NULL;

-- Private keys, PKCS#8 sealed with the master key, by the digest of their public half.
CREATE TABLE keys (
    digest     TEXT    NOT NULL PRIMARY KEY,
    sealed     BLOB    NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Packet filter rules keep their number for ever, so that kernel counters keep their meaning.
CREATE TABLE rule_ids (
    id   INTEGER NOT NULL PRIMARY KEY,
    rule TEXT    NOT NULL UNIQUE
) STRICT;

CREATE TABLE users (
    name       TEXT    NOT NULL PRIMARY KEY,
    password   TEXT    NOT NULL,
    role       TEXT    NOT NULL CHECK (role IN ('viewer', 'operator', 'administrator')),
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    hash       BLOB    NOT NULL PRIMARY KEY,
    user       TEXT    NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    csrf       TEXT    NOT NULL,
    seen_ms    INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    hash       BLOB    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    role       TEXT    NOT NULL CHECK (role IN ('viewer', 'operator', 'administrator')),
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
    name              TEXT    NOT NULL PRIMARY KEY,
    labels            TEXT    NOT NULL DEFAULT '{}',
    -- Of the enrolment token that may still be used.
    secret_hash       BLOB,
    secret_ends_ms    INTEGER,
    -- Of the certificate it was given last, hexadecimal.
    serial            TEXT,
    -- Of the one before, while it may still be in use.
    previous_serial   TEXT,
    certificate_ends_ms INTEGER,
    revoked           INTEGER NOT NULL DEFAULT 0,
    drained           INTEGER NOT NULL DEFAULT 0,
    version           TEXT    NOT NULL DEFAULT '',
    seen_ms           INTEGER,
    applied_epoch     INTEGER,
    applied_revision  INTEGER,
    refused_epoch     INTEGER,
    refused_revision  INTEGER,
    refused_reason    TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE node_answers (
    revision INTEGER NOT NULL,
    node     TEXT    NOT NULL,
    refused  TEXT,
    took_ms  INTEGER,
    at_ms    INTEGER NOT NULL,
    PRIMARY KEY (revision, node)
) STRICT, WITHOUT ROWID;

-- A minute of a route's answers; route '' is all routes together.
CREATE TABLE traffic (
    minute  INTEGER NOT NULL,
    route   TEXT    NOT NULL,
    ok      INTEGER NOT NULL,
    moved   INTEGER NOT NULL,
    client  INTEGER NOT NULL,
    server  INTEGER NOT NULL,
    added   TEXT    NOT NULL,
    total   TEXT    NOT NULL,
    PRIMARY KEY (route, minute)
) STRICT, WITHOUT ROWID;

CREATE INDEX traffic_minute ON traffic (minute);

CREATE TABLE drops (
    minute INTEGER NOT NULL,
    place  TEXT    NOT NULL,
    reason TEXT    NOT NULL,
    rule   INTEGER NOT NULL,
    count  INTEGER NOT NULL,
    PRIMARY KEY (minute, place, reason, rule)
) STRICT, WITHOUT ROWID;

-- The last leg of a route that was seen on traffic; side is 'client' or 'origin'.
CREATE TABLE legs (
    route TEXT    NOT NULL,
    side  TEXT    NOT NULL,
    leg   TEXT    NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (route, side)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id      INTEGER NOT NULL PRIMARY KEY,
    at_ms   INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    address TEXT    NOT NULL,
    act     TEXT    NOT NULL
) STRICT;
