-- What interceptors were asked, and what they answered. The ids are numbers of the same sequence as those of deliveries.
-- `state` is 0 while a decision is under way, 1 once the plugin has decided, and 2 where posthouse answered in its place.
-- `run` counts how often it began; only the last one may end it. `decided` is what the plugin decided: 1 is ALLOW, 0 is
-- DENY. `answer` is what the sender got, and `cause` is why it did not get a decision of the plugin.
CREATE TABLE decision (
    id INTEGER PRIMARY KEY,
    interceptor TEXT NOT NULL,
    request TEXT NOT NULL,
    point TEXT NOT NULL,
    plugin INTEGER,
    organization TEXT,
    state INTEGER NOT NULL,
    run INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    finished_at INTEGER,
    took_us INTEGER,
    decided INTEGER,
    answer TEXT,
    cause TEXT,
    late INTEGER NOT NULL DEFAULT 0,
    revision TEXT,
    error TEXT,
    trace TEXT,
    logs TEXT,
    did TEXT,
    body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX decision_once ON decision (interceptor, request);
CREATE INDEX decision_open ON decision (id) WHERE state = 0;
