-- A store of version 3 of the schema. What it contains:
--
-- Events, deliveries in every state, attempts, keys, mails in every state, plugins that serve, are paused and are gone.
-- Version 2: each attempt names the revision of its plugin.
-- New: deliveries know whether an attempt that left no record may have run.
--
-- Times are within a minute after 2026-01-01T00:00:00Z (1767225600).

PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA application_id = 1886352244;
PRAGMA user_version = 3;

CREATE TABLE source (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE event_type (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    type INTEGER NOT NULL,
    organization TEXT,
    occurred_at INTEGER,
    received_at INTEGER NOT NULL,
    first_delivery INTEGER NOT NULL,
    fanout INTEGER NOT NULL,
    data_start INTEGER NOT NULL,
    data_end INTEGER NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX event_once ON event (source, id);
CREATE TABLE plugin (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    revision TEXT,
    description TEXT NOT NULL DEFAULT '',
    events TEXT NOT NULL DEFAULT '[]',
    requires TEXT NOT NULL DEFAULT '[]',
    held TEXT,
    last_error TEXT,
    paused INTEGER NOT NULL DEFAULT 0,
    loaded_at INTEGER,
    forgotten INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    event INTEGER NOT NULL,
    plugin INTEGER NOT NULL,
    state INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    made_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    finished_at INTEGER,
    replay_of INTEGER,
    error TEXT
, ran INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX delivery_due ON delivery (plugin, due_at, id) WHERE state IN (0, 2);
CREATE INDEX delivery_dead ON delivery (id) WHERE state = 4;
CREATE INDEX delivery_replay ON delivery (event, replay_of) WHERE replay_of IS NOT NULL;
CREATE TABLE attempt (
    delivery INTEGER NOT NULL,
    number INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    error TEXT,
    trace TEXT,
    logs TEXT, revision TEXT,
    PRIMARY KEY (delivery, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE kv (
    plugin INTEGER NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (plugin, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    delivery INTEGER NOT NULL,
    plugin INTEGER NOT NULL,
    state INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    finished_at INTEGER,
    error TEXT,
    item TEXT NOT NULL
) STRICT;
CREATE INDEX outbox_due ON outbox (due_at, id) WHERE state IN (0, 2);
CREATE INDEX outbox_leased ON outbox (id) WHERE state = 1;
CREATE INDEX outbox_delivery ON outbox (delivery);
CREATE TABLE tally (
    plugin INTEGER PRIMARY KEY,
    ready INTEGER NOT NULL,
    leased INTEGER NOT NULL,
    waiting INTEGER NOT NULL,
    done INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    made INTEGER NOT NULL,
    kv_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE hour (
    hour INTEGER NOT NULL,
    type INTEGER NOT NULL,
    total INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    sum_us INTEGER NOT NULL,
    histogram BLOB NOT NULL,
    PRIMARY KEY (hour, type)
) STRICT, WITHOUT ROWID;
CREATE TABLE sequence (
    next_event INTEGER NOT NULL,
    next_delivery INTEGER NOT NULL,
    next_outbox INTEGER NOT NULL,
    next_version INTEGER NOT NULL,
    -- No delivery with a smaller id is leased.
    lease_floor INTEGER NOT NULL,
    conflicts INTEGER NOT NULL,
    lost_leases INTEGER NOT NULL,
    outbox_ready INTEGER NOT NULL,
    outbox_leased INTEGER NOT NULL,
    outbox_waiting INTEGER NOT NULL,
    outbox_sent INTEGER NOT NULL,
    outbox_dead INTEGER NOT NULL
) STRICT;

INSERT INTO source (id, name) VALUES (1, 'scalekit');

INSERT INTO event_type (id, name) VALUES (1, 'user.created');
INSERT INTO event_type (id, name) VALUES (2, 'user.deleted');

-- serves
INSERT INTO plugin (id, name, revision, description, events, requires, held, last_error, paused, loaded_at, forgotten) VALUES (1, 'counter', '0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef', 'counts events', '["*"]', '[]', NULL, NULL, 0, 1767225600000000000, 0);
-- paused by an operator
INSERT INTO plugin (id, name, revision, description, events, requires, held, last_error, paused, loaded_at, forgotten) VALUES (2, 'mailer', 'fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210', 'sends mails', '["user.created"]', '["mail"]', '{"reason":"paused"}', NULL, 1, 1767225600000000000, 0);
-- its file left the folder
INSERT INTO plugin (id, name, revision, description, events, requires, held, last_error, paused, loaded_at, forgotten) VALUES (3, 'departed', 'fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210', '', '["user.*"]', '[]', '{"reason":"gone"}', NULL, 0, 1767225600000000000, 0);

INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body) VALUES (1, 1, 1, 'org_1', NULL, 1767225601000000000, 5368709120, 1, 128, 135, 'evt_done', CAST('{"spec_version":"1","id":"evt_done","type":"user.created","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB));
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body) VALUES (2, 1, 1, 'org_1', NULL, 1767225602000000000, 5368709121, 2, 129, 136, 'evt_ready', CAST('{"spec_version":"1","id":"evt_ready","type":"user.created","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB));
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body) VALUES (3, 1, 1, 'org_1', NULL, 1767225603000000000, 5368709123, 1, 130, 137, 'evt_leased', CAST('{"spec_version":"1","id":"evt_leased","type":"user.created","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB));
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body) VALUES (4, 1, 1, 'org_1', NULL, 1767225604000000000, 5368709124, 1, 131, 138, 'evt_waiting', CAST('{"spec_version":"1","id":"evt_waiting","type":"user.created","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB));
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body) VALUES (5, 1, 1, 'org_1', NULL, 1767225605000000000, 5368709125, 1, 128, 135, 'evt_dead', CAST('{"spec_version":"1","id":"evt_dead","type":"user.created","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB));
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body) VALUES (6, 1, 2, NULL, 1767225595000000000, 1767225606000000000, 5368709126, 0, 106, 113, 'evt_unwanted', CAST('{"spec_version":"1","id":"evt_unwanted","type":"user.deleted","occurred_at":"2026-01-01T00:00:00Z","data":{"n":1}}' AS BLOB));

-- done at the second attempt
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran) VALUES (5368709120, 1, 1, 3, 2, 1767225601000000000, 1767225604000000000, 1767225605000000000, NULL, NULL, 0);
-- ready
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran) VALUES (5368709121, 2, 1, 0, 0, 1767225602000000000, 1767225602000000000, NULL, NULL, NULL, 0);
-- ready, and held with its plugin
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran) VALUES (5368709122, 2, 2, 0, 0, 1767225602000000000, 1767225602000000000, NULL, NULL, NULL, 1);
-- leased by a process that died
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran) VALUES (5368709123, 3, 1, 1, 0, 1767225603000000000, 1767225603000000000, NULL, NULL, NULL, 0);
-- waits for its second attempt
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran) VALUES (5368709124, 4, 1, 2, 1, 1767225604000000000, 1767225640000000000, NULL, NULL, 'asked to fail 1 times', 0);
-- given up
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran) VALUES (5368709125, 5, 1, 4, 1, 1767225605000000000, 1767225605000000000, 1767225607000000000, NULL, 'asked to refuse', 0);
-- a replay of the first
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran) VALUES (5368709126, 1, 1, 3, 1, 1767225615000000000, 1767225615000000000, 1767225615000000000, 5368709120, NULL, 0);
-- made later for a plugin that is gone
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran) VALUES (5368709127, 6, 3, 0, 0, 1767225615000000000, 1767225615000000000, NULL, 0, NULL, 0);

INSERT INTO attempt (delivery, number, started_at, duration_us, outcome, error, trace, logs, revision) VALUES (5368709120, 1, 1767225601000000000, 25, 1, 'the guest trapped: unreachable', 'counter.wasm!handle', NULL, '0123456789ab');
INSERT INTO attempt (delivery, number, started_at, duration_us, outcome, error, trace, logs, revision) VALUES (5368709120, 2, 1767225604000000000, 5, 0, NULL, NULL, '[{"level":"info","message":"counted it"}]', '0123456789ab');
INSERT INTO attempt (delivery, number, started_at, duration_us, outcome, error, trace, logs, revision) VALUES (5368709124, 1, 1767225606000000000, 8, 1, 'asked to fail 1 times', NULL, NULL, '0123456789ab');
INSERT INTO attempt (delivery, number, started_at, duration_us, outcome, error, trace, logs, revision) VALUES (5368709125, 1, 1767225607000000000, 9, 2, 'asked to refuse', NULL, NULL, '0123456789ab');
INSERT INTO attempt (delivery, number, started_at, duration_us, outcome, error, trace, logs, revision) VALUES (5368709126, 1, 1767225615000000000, 6, 0, NULL, NULL, NULL, '0123456789ab');

INSERT INTO kv (plugin, key, version, value) VALUES (1, 'count', 2, CAST('2' AS BLOB));
INSERT INTO kv (plugin, key, version, value) VALUES (1, 'seen/evt_done', 3, CAST('2' AS BLOB));
INSERT INTO kv (plugin, key, version, value) VALUES (3, 'profile/ada', 1, CAST('{"name":"Ada"}' AS BLOB));

-- a mail, ready
INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, finished_at, error, item) VALUES (1, 5368709120, 1, 0, 0, 1767225605000000000, NULL, NULL, '{"kind":"mail","message_id":"<dlv_5368709120-1@example.com>","from":"The team <team@example.com>","to":["ada@example.com"],"cc":[],"bcc":[],"reply_to":null,"subject":"ready","text":"It was counted.\n","html":null}');
-- leased by a process that died
INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, finished_at, error, item) VALUES (2, 5368709120, 1, 1, 0, 1767225605000000000, NULL, NULL, '{"kind":"mail","message_id":"<dlv_5368709120-2@example.com>","from":"The team <team@example.com>","to":["ada@example.com"],"cc":[],"bcc":[],"reply_to":null,"subject":"leased","text":"It was counted.\n","html":null}');
-- waits for its second sending
INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, finished_at, error, item) VALUES (3, 5368709120, 1, 2, 1, 1767225640000000000, NULL, '421 try again', '{"kind":"mail","message_id":"<dlv_5368709120-3@example.com>","from":"The team <team@example.com>","to":["ada@example.com"],"cc":[],"bcc":[],"reply_to":null,"subject":"waiting","text":"It was counted.\n","html":null}');
-- sent
INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, finished_at, error, item) VALUES (4, 5368709120, 1, 3, 1, 1767225605000000000, 1767225606000000000, NULL, '{"kind":"mail","message_id":"<dlv_5368709120-4@example.com>","from":"The team <team@example.com>","to":["ada@example.com"],"cc":[],"bcc":[],"reply_to":null,"subject":"sent","text":"It was counted.\n","html":null}');
-- given up
INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, finished_at, error, item) VALUES (5, 5368709120, 1, 4, 33, 1767225605000000000, 1767225608000000000, '550 no such user', '{"kind":"mail","message_id":"<dlv_5368709120-5@example.com>","from":"The team <team@example.com>","to":["ada@example.com"],"cc":[],"bcc":[],"reply_to":null,"subject":"dead","text":"It was counted.\n","html":null}');

INSERT INTO tally (plugin, ready, leased, waiting, done, dead, made, kv_bytes) VALUES (1, 1, 1, 1, 2, 1, 6, 20);
INSERT INTO tally (plugin, ready, leased, waiting, done, dead, made, kv_bytes) VALUES (2, 1, 0, 0, 0, 0, 1, 0);
INSERT INTO tally (plugin, ready, leased, waiting, done, dead, made, kv_bytes) VALUES (3, 1, 0, 0, 0, 0, 1, 25);

INSERT INTO hour (hour, type, total, completed, failed, sum_us, histogram) VALUES (490896, 1, 7, 2, 1, 20, X'00000000000000000000000000000000000000000000000000000000000000000100000001000000000000000000000001000000');
INSERT INTO hour (hour, type, total, completed, failed, sum_us, histogram) VALUES (490896, 2, 1, 0, 0, 0, X'');

INSERT INTO sequence (next_event, next_delivery, next_outbox, next_version, lease_floor, conflicts, lost_leases, outbox_ready, outbox_leased, outbox_waiting, outbox_sent, outbox_dead) VALUES (7, 5368709128, 6, 4, 5368709120, 1, 0, 1, 1, 1, 1, 1);
