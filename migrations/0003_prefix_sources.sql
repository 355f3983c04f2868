-- What became of fetching each prefix set's list; the list itself is in the set.
CREATE TABLE prefix_sources (
    name       TEXT    NOT NULL PRIMARY KEY,
    -- The spec's source this is about, as JSON.
    source     TEXT    NOT NULL,
    -- Of the list that was taken last.
    etag       TEXT,
    modified   TEXT,
    digest     TEXT,
    -- When the origin last had what was taken; when it was last asked.
    current_ms INTEGER,
    tried_ms   INTEGER NOT NULL,
    -- In a row; with the last one's word and sentence.
    failures   INTEGER NOT NULL,
    reason     TEXT,
    problem    TEXT
) STRICT, WITHOUT ROWID;
