-- What an operator did; `outcome` is NULL while it is being done, and for ever where the daemon died.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome TEXT
) STRICT;

-- What happened within one minute, over all, and how many deliveries were unfinished at its end.
CREATE TABLE minute (
    minute INTEGER PRIMARY KEY,
    events INTEGER NOT NULL,
    made INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    unfinished INTEGER NOT NULL,
    histogram BLOB NOT NULL
) STRICT;

-- The newest event of the source, which may have left the store since.
ALTER TABLE source ADD COLUMN last_event INTEGER;
ALTER TABLE source ADD COLUMN last_at INTEGER;
