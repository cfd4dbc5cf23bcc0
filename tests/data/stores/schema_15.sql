-- A store of version 15 of the schema. What it contains:
--
-- Events, deliveries in every state, attempts, keys, mails in every state, plugins that serve, are paused and are gone.
-- Version 2: each attempt names the revision of its plugin.
-- Version 3: deliveries know whether an attempt that left no record may have run.
-- Version 4: an event that a plugin emitted.
-- Version 5: the audit log, the counters by minute, and the newest event of each source.
-- Version 6: requests in the outbox.
-- Version 7: order keys; a delivery that waits for its second attempt, and one that it blocks.
-- Version 8: another plugin has a mail in the outbox.
-- Version 9: a replay that waits for its turn, and a plugin whose breaker is open.
-- Version 10: the trace context of an event and of a mail.
-- Version 11: what an attempt did, and the revisions of plugins.
-- Version 12: the second key of an event.
-- Version 13: an event that its sender was asked for, how far the list of a sender was compared, and two missing events.
-- Version 14: what events keep of their requests.
-- New: decisions of an interceptor: by its plugin, in place of it, and one that did not end.
--
-- Times are within a minute after 2026-01-01T00:00:00Z (1767225600).

PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA application_id = 1886352244;
PRAGMA user_version = 15;

CREATE TABLE source (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, last_event INTEGER, last_at INTEGER, removed_to INTEGER, compared_to INTEGER) STRICT;
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
, depth INTEGER NOT NULL DEFAULT 0, trace BLOB, second BLOB, origin INTEGER, content_type TEXT, headers TEXT, original BLOB) STRICT;
CREATE UNIQUE INDEX event_once ON event (source, id);
CREATE UNIQUE INDEX event_second ON event (source, second) WHERE second IS NOT NULL;
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
, ran INTEGER NOT NULL DEFAULT 0, order_key TEXT) STRICT;
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
    logs TEXT, revision TEXT, did TEXT,
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
, kind INTEGER NOT NULL DEFAULT 0, trace BLOB) STRICT;
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
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome TEXT
) STRICT;
CREATE TABLE minute (
    minute INTEGER PRIMARY KEY,
    events INTEGER NOT NULL,
    made INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    unfinished INTEGER NOT NULL,
    histogram BLOB NOT NULL
) STRICT;
CREATE INDEX delivery_order ON delivery (plugin, order_key) WHERE order_key IS NOT NULL AND state < 3;
CREATE INDEX outbox_due ON outbox (kind, plugin, due_at, id) WHERE state IN (0, 2);
CREATE INDEX outbox_leased ON outbox (kind, plugin) WHERE state = 1;
CREATE INDEX delivery_later ON delivery (plugin, id) WHERE state = -2;
CREATE TABLE revision (
    id INTEGER PRIMARY KEY,
    plugin INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    description TEXT NOT NULL,
    loaded_at INTEGER NOT NULL,
    ended_at INTEGER,
    ending TEXT
) STRICT;
CREATE INDEX revision_of ON revision (plugin, id);
CREATE TABLE missing (
    source INTEGER NOT NULL,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    occurred_at INTEGER NOT NULL,
    PRIMARY KEY (source, id)
) STRICT, WITHOUT ROWID;
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

INSERT INTO source (id, name, last_event, last_at, removed_to, compared_to) VALUES (1, 'scalekit', 11, 1767225611000000000, 1767225590000000000, 1767225600000000000);
INSERT INTO source (id, name, last_event, last_at, removed_to, compared_to) VALUES (2, 'plugin:counter', 7, 1767225607000000000, NULL, NULL);

INSERT INTO event_type (id, name) VALUES (1, 'user.created');
INSERT INTO event_type (id, name) VALUES (2, 'user.deleted');
INSERT INTO event_type (id, name) VALUES (3, 'seat.added');

-- serves
INSERT INTO plugin (id, name, revision, description, events, requires, held, last_error, paused, loaded_at, forgotten) VALUES (1, 'counter', '0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef', 'counts events', '["*"]', '[]', NULL, NULL, 0, 1767225600000000000, 0);
-- paused by an operator
INSERT INTO plugin (id, name, revision, description, events, requires, held, last_error, paused, loaded_at, forgotten) VALUES (2, 'mailer', 'fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210', 'sends mails', '["user.created"]', '["mail"]', '{"reason":"paused"}', NULL, 1, 1767225600000000000, 0);
-- its file left the folder
INSERT INTO plugin (id, name, revision, description, events, requires, held, last_error, paused, loaded_at, forgotten) VALUES (3, 'departed', 'fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210', '', '["user.*"]', '[]', '{"reason":"gone"}', NULL, 0, 1767225600000000000, 0);
-- its breaker is open, in the words of that version
INSERT INTO plugin (id, name, revision, description, events, requires, held, last_error, paused, loaded_at, forgotten) VALUES (4, 'failing', 'fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210', '', '["user.*"]', '["http"]', '{"reason":"tripped","detail":{"failures":10,"pauses":2,"since":"2026-01-01T00:00:00Z","until":"2026-01-01T00:01:00Z","trying":false}}', NULL, 0, 1767225600000000000, 0);

INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body, depth, trace, second, origin, content_type, headers, original) VALUES (1, 1, 1, 'org_1', NULL, 1767225601000000000, 5368709120, 1, 128, 135, 'evt_done', CAST('{"spec_version":"1","id":"evt_done","type":"user.created","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB), 0, NULL, X'BF347333D633016274CAEEAC90DC8218', NULL, NULL, NULL, NULL);
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body, depth, trace, second, origin, content_type, headers, original) VALUES (2, 1, 1, 'org_1', NULL, 1767225602000000000, 5368709121, 2, 129, 136, 'evt_ready', CAST('{"spec_version":"1","id":"evt_ready","type":"user.created","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB), 0, NULL, NULL, NULL, 'application/json', '{"headers":[["x-request-id","req_1"]],"signature":[["webhook-signature","v1,AAAA"]]}', NULL);
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body, depth, trace, second, origin, content_type, headers, original) VALUES (3, 1, 1, 'org_1', NULL, 1767225603000000000, 5368709123, 1, 130, 137, 'evt_leased', CAST('{"spec_version":"1","id":"evt_leased","type":"user.created","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB), 0, NULL, NULL, NULL, 'application/x-www-form-urlencoded', NULL, CAST('n=1' AS BLOB));
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body, depth, trace, second, origin, content_type, headers, original) VALUES (4, 1, 1, 'org_1', NULL, 1767225604000000000, 5368709124, 1, 131, 138, 'evt_waiting', CAST('{"spec_version":"1","id":"evt_waiting","type":"user.created","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB), 0, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body, depth, trace, second, origin, content_type, headers, original) VALUES (5, 1, 1, 'org_1', NULL, 1767225605000000000, 5368709125, 1, 128, 135, 'evt_dead', CAST('{"spec_version":"1","id":"evt_dead","type":"user.created","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB), 0, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body, depth, trace, second, origin, content_type, headers, original) VALUES (6, 1, 2, NULL, 1767225595000000000, 1767225606000000000, 5368709126, 0, 106, 113, 'evt_unwanted', CAST('{"spec_version":"1","id":"evt_unwanted","type":"user.deleted","occurred_at":"2026-01-01T00:00:00Z","data":{"n":1}}' AS BLOB), 0, NULL, NULL, 1, NULL, NULL, NULL);
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body, depth, trace, second, origin, content_type, headers, original) VALUES (7, 2, 3, 'org_1', 1767225605000000000, 1767225607000000000, 5368709128, 1, 134, 141, 'dlv_5368709120.1', CAST('{"spec_version":"1","id":"dlv_5368709120.1","type":"seat.added","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB), 1, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body, depth, trace, second, origin, content_type, headers, original) VALUES (8, 1, 1, 'org_1', NULL, 1767225608000000000, 5368709129, 1, 129, 136, 'evt_first', CAST('{"spec_version":"1","id":"evt_first","type":"user.created","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB), 0, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body, depth, trace, second, origin, content_type, headers, original) VALUES (9, 1, 1, 'org_1', NULL, 1767225609000000000, 5368709130, 1, 130, 137, 'evt_second', CAST('{"spec_version":"1","id":"evt_second","type":"user.created","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB), 0, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body, depth, trace, second, origin, content_type, headers, original) VALUES (10, 1, 1, 'org_1', NULL, 1767225610000000000, 5368709131, 1, 132, 139, 'evt_replayed', CAST('{"spec_version":"1","id":"evt_replayed","type":"user.created","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB), 0, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO event (seq, source, type, organization, occurred_at, received_at, first_delivery, fanout, data_start, data_end, id, body, depth, trace, second, origin, content_type, headers, original) VALUES (11, 1, 1, 'org_1', NULL, 1767225611000000000, 5368709133, 1, 130, 137, 'evt_traced', CAST('{"spec_version":"1","id":"evt_traced","type":"user.created","occurred_at":"2026-01-01T00:00:00Z","organization_id":"org_1","data":{"n":1}}' AS BLOB), 0, X'0102030405060708090a0b0c0d0e0f10212223242526272803', NULL, NULL, NULL, NULL, NULL);

-- done at the second attempt
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran, order_key) VALUES (5368709120, 1, 1, 3, 2, 1767225601000000000, 1767225604000000000, 1767225605000000000, NULL, NULL, 0, NULL);
-- ready
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran, order_key) VALUES (5368709121, 2, 1, 0, 0, 1767225602000000000, 1767225602000000000, NULL, NULL, NULL, 0, NULL);
-- ready, and held with its plugin
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran, order_key) VALUES (5368709122, 2, 2, 0, 0, 1767225602000000000, 1767225602000000000, NULL, NULL, NULL, 1, NULL);
-- leased by a process that died
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran, order_key) VALUES (5368709123, 3, 1, 1, 0, 1767225603000000000, 1767225603000000000, NULL, NULL, NULL, 0, NULL);
-- waits for its second attempt
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran, order_key) VALUES (5368709124, 4, 1, 2, 1, 1767225604000000000, 1767225640000000000, NULL, NULL, 'asked to fail 1 times', 0, NULL);
-- given up
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran, order_key) VALUES (5368709125, 5, 1, 4, 1, 1767225605000000000, 1767225605000000000, 1767225607000000000, NULL, 'asked to refuse', 0, NULL);
-- a replay of the first
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran, order_key) VALUES (5368709126, 1, 1, 3, 1, 1767225615000000000, 1767225615000000000, 1767225615000000000, 5368709120, NULL, 0, NULL);
-- made later for a plugin that is gone
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran, order_key) VALUES (5368709127, 6, 3, 0, 0, 1767225615000000000, 1767225615000000000, NULL, 0, NULL, 0, NULL);
-- of an event that the plugin emitted
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran, order_key) VALUES (5368709128, 7, 1, 0, 0, 1767225607000000000, 1767225607000000000, NULL, NULL, NULL, 0, NULL);
-- the first of its order key
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran, order_key) VALUES (5368709129, 8, 1, 2, 1, 1767225608000000000, 1767225640000000000, NULL, NULL, 'asked to fail 1 times', 0, 'user/7');
-- blocked by the first of its order key
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran, order_key) VALUES (5368709130, 9, 1, -1, 0, 1767225609000000000, 1767225609000000000, NULL, NULL, NULL, 0, 'user/7');
-- given up, and replayed with others
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran, order_key) VALUES (5368709131, 10, 1, 4, 1, 1767225610000000000, 1767225610000000000, 1767225610000000000, NULL, 'asked to refuse', 0, NULL);
-- a replay that waits for its turn
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran, order_key) VALUES (5368709132, 10, 1, -2, 0, 1767225615000000000, 1767225615000000000, NULL, 5368709131, NULL, 0, NULL);
-- of an event with a recorded trace
INSERT INTO delivery (id, event, plugin, state, attempts, made_at, due_at, finished_at, replay_of, error, ran, order_key) VALUES (5368709133, 11, 1, 0, 0, 1767225611000000000, 1767225611000000000, NULL, NULL, NULL, 0, NULL);

INSERT INTO attempt (delivery, number, started_at, duration_us, outcome, error, trace, logs, revision, did) VALUES (5368709120, 1, 1767225601000000000, 25, 1, 'the guest trapped: unreachable', 'counter.wasm!handle', NULL, '0123456789ab', NULL);
INSERT INTO attempt (delivery, number, started_at, duration_us, outcome, error, trace, logs, revision, did) VALUES (5368709120, 2, 1767225604000000000, 5, 0, NULL, NULL, '[{"level":"info","message":"counted it"}]', '0123456789ab', 'add count
add seen/evt_done');
INSERT INTO attempt (delivery, number, started_at, duration_us, outcome, error, trace, logs, revision, did) VALUES (5368709124, 1, 1767225606000000000, 8, 1, 'asked to fail 1 times', NULL, NULL, '0123456789ab', NULL);
INSERT INTO attempt (delivery, number, started_at, duration_us, outcome, error, trace, logs, revision, did) VALUES (5368709125, 1, 1767225607000000000, 9, 2, 'asked to refuse', NULL, NULL, '0123456789ab', NULL);
INSERT INTO attempt (delivery, number, started_at, duration_us, outcome, error, trace, logs, revision, did) VALUES (5368709126, 1, 1767225615000000000, 6, 0, NULL, NULL, NULL, '0123456789ab', 'add count
add seen/evt_done');
INSERT INTO attempt (delivery, number, started_at, duration_us, outcome, error, trace, logs, revision, did) VALUES (5368709129, 1, 1767225608000000000, 7, 1, 'asked to fail 1 times', NULL, NULL, '0123456789ab', NULL);
INSERT INTO attempt (delivery, number, started_at, duration_us, outcome, error, trace, logs, revision, did) VALUES (5368709131, 1, 1767225610000000000, 8, 2, 'asked to refuse', NULL, NULL, '0123456789ab', NULL);

INSERT INTO kv (plugin, key, version, value) VALUES (1, 'count', 2, CAST('2' AS BLOB));
INSERT INTO kv (plugin, key, version, value) VALUES (1, 'seen/evt_done', 3, CAST('2' AS BLOB));
INSERT INTO kv (plugin, key, version, value) VALUES (3, 'profile/ada', 1, CAST('{"name":"Ada"}' AS BLOB));

-- a mail, ready
INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, finished_at, error, item, kind, trace) VALUES (1, 5368709120, 1, 0, 0, 1767225605000000000, NULL, NULL, '{"kind":"mail","message_id":"<dlv_5368709120-1@example.com>","from":"The team <team@example.com>","to":["ada@example.com"],"cc":[],"bcc":[],"reply_to":null,"subject":"ready","text":"It was counted.\n","html":null}', 0, NULL);
-- leased by a process that died
INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, finished_at, error, item, kind, trace) VALUES (2, 5368709120, 1, 1, 0, 1767225605000000000, NULL, NULL, '{"kind":"mail","message_id":"<dlv_5368709120-2@example.com>","from":"The team <team@example.com>","to":["ada@example.com"],"cc":[],"bcc":[],"reply_to":null,"subject":"leased","text":"It was counted.\n","html":null}', 0, NULL);
-- waits for its second sending
INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, finished_at, error, item, kind, trace) VALUES (3, 5368709120, 1, 2, 1, 1767225640000000000, NULL, '421 try again', '{"kind":"mail","message_id":"<dlv_5368709120-3@example.com>","from":"The team <team@example.com>","to":["ada@example.com"],"cc":[],"bcc":[],"reply_to":null,"subject":"waiting","text":"It was counted.\n","html":null}', 0, NULL);
-- sent
INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, finished_at, error, item, kind, trace) VALUES (4, 5368709120, 1, 3, 1, 1767225605000000000, 1767225606000000000, NULL, '{"kind":"mail","message_id":"<dlv_5368709120-4@example.com>","from":"The team <team@example.com>","to":["ada@example.com"],"cc":[],"bcc":[],"reply_to":null,"subject":"sent","text":"It was counted.\n","html":null}', 0, NULL);
-- given up
INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, finished_at, error, item, kind, trace) VALUES (5, 5368709120, 1, 4, 33, 1767225605000000000, 1767225608000000000, '550 no such user', '{"kind":"mail","message_id":"<dlv_5368709120-5@example.com>","from":"The team <team@example.com>","to":["ada@example.com"],"cc":[],"bcc":[],"reply_to":null,"subject":"dead","text":"It was counted.\n","html":null}', 0, NULL);
-- a request, ready
INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, finished_at, error, item, kind, trace) VALUES (6, 5368709120, 1, 0, 0, 1767225605000000000, NULL, NULL, '{"kind":"request","key":"dlv_5368709120-6","method":"POST","url":"https://hooks.example.com/ready","headers":[["content-type","application/json"]],"body":"eyJuIjoxfQ=="}', 1, NULL);
-- a request, given up
INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, finished_at, error, item, kind, trace) VALUES (7, 5368709120, 1, 4, 33, 1767225605000000000, 1767225608000000000, 'status 500', '{"kind":"request","key":"dlv_5368709120-7","method":"POST","url":"https://hooks.example.com/dead","headers":[["content-type","application/json"]],"body":"eyJuIjoxfQ=="}', 1, NULL);
-- another plugin's mail
INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, finished_at, error, item, kind, trace) VALUES (8, 5368709120, 2, 0, 0, 1767225605000000000, NULL, NULL, '{"kind":"mail","message_id":"<dlv_5368709120-8@example.com>","from":"The team <team@example.com>","to":["ada@example.com"],"cc":[],"bcc":[],"reply_to":null,"subject":"of another plugin","text":"It was counted.\n","html":null}', 0, NULL);
-- a mail of a recorded trace
INSERT INTO outbox (id, delivery, plugin, state, attempts, due_at, finished_at, error, item, kind, trace) VALUES (9, 5368709120, 1, 0, 0, 1767225605000000000, NULL, NULL, '{"kind":"mail","message_id":"<dlv_5368709120-9@example.com>","from":"The team <team@example.com>","to":["ada@example.com"],"cc":[],"bcc":[],"reply_to":null,"subject":"traced","text":"It was counted.\n","html":null}', 0, X'0102030405060708090a0b0c0d0e0f10212223242526272803');

INSERT INTO tally (plugin, ready, leased, waiting, done, dead, made, kv_bytes) VALUES (1, 3, 1, 4, 2, 2, 12, 20);
INSERT INTO tally (plugin, ready, leased, waiting, done, dead, made, kv_bytes) VALUES (2, 1, 0, 0, 0, 0, 1, 0);
INSERT INTO tally (plugin, ready, leased, waiting, done, dead, made, kv_bytes) VALUES (3, 1, 0, 0, 0, 0, 1, 25);

INSERT INTO hour (hour, type, total, completed, failed, sum_us, histogram) VALUES (490896, 1, 12, 2, 2, 28, X'000000000000000000000000000000000000000000000000000000000000000001000000010000000000000001000000010000000900000000');
INSERT INTO hour (hour, type, total, completed, failed, sum_us, histogram) VALUES (490896, 2, 1, 0, 0, 0, X'');
INSERT INTO hour (hour, type, total, completed, failed, sum_us, histogram) VALUES (490896, 3, 1, 0, 0, 0, X'');

INSERT INTO minute (minute, events, made, completed, failed, unfinished, histogram) VALUES (29453760, 11, 14, 2, 2, 10, X'000000000000000000000000000000000000000000000000000000000000000001000000010000000000000001000000010000000900000000');

INSERT INTO sequence (next_event, next_delivery, next_outbox, next_version, lease_floor, conflicts, lost_leases, outbox_ready, outbox_leased, outbox_waiting, outbox_sent, outbox_dead) VALUES (12, 5368709137, 10, 4, 5368709120, 1, 0, 4, 1, 1, 1, 2);

INSERT INTO audit (id, at, actor, action, target, outcome) VALUES (1, 1767225602000000000, 'token', 'pause plugin', 'mailer', 'paused');
-- the daemon died before the end
INSERT INTO audit (id, at, actor, action, target, outcome) VALUES (2, 1767225609000000000, 'session 1a2b3c4d', 'replay', 'evt_done', NULL);

INSERT INTO revision (id, plugin, sha256, description, loaded_at, ended_at, ending) VALUES (1, 1, 'fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210', 'counts', 1767225591000000000, 1767225600000000000, 'replaced');
-- serves
INSERT INTO revision (id, plugin, sha256, description, loaded_at, ended_at, ending) VALUES (2, 1, '0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef', 'counts events', 1767225600000000000, NULL, NULL);
INSERT INTO revision (id, plugin, sha256, description, loaded_at, ended_at, ending) VALUES (3, 2, 'fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210', 'sends mails', 1767225600000000000, NULL, NULL);

INSERT INTO missing (source, id, type, occurred_at) VALUES (1, 'evt_missed_1', 'user.created', 1767225591000000000);
INSERT INTO missing (source, id, type, occurred_at) VALUES (1, 'evt_missed_2', 'user.updated', 1767225592000000000);

INSERT INTO decision (id, interceptor, request, point, plugin, organization, state, run, received_at, finished_at, took_us, decided, answer, cause, late, revision, error, trace, logs, did, body) VALUES (5368709134, 'signup', 'req_allowed', 'PRE_SIGNUP', 1, 'org_1', 1, 1, 1767225606000000000, 1767225606010000000, 10000, 1, '{"decision":"ALLOW"}', NULL, 1, '0123456789ab', NULL, NULL, '[{"level":"info","message":"reserved a seat"}]', 'add count', CAST('{"trigger_point":"PRE_SIGNUP","interceptor_context":{"user_email":"ada@example.com"}}' AS BLOB));
-- the guest trapped
INSERT INTO decision (id, interceptor, request, point, plugin, organization, state, run, received_at, finished_at, took_us, decided, answer, cause, late, revision, error, trace, logs, did, body) VALUES (5368709135, 'signup', 'req_trapped', 'PRE_SIGNUP', 1, NULL, 2, 1, 1767225607000000000, 1767225607010000000, 10000, NULL, '{"decision":"DENY"}', 'stopped', 0, '0123456789ab', 'the guest trapped: unreachable', 'counter.wasm!decide', NULL, NULL, CAST('{"trigger_point":"PRE_SIGNUP","interceptor_context":{"user_email":"eve@example.com"}}' AS BLOB));
-- the daemon died before the end
INSERT INTO decision (id, interceptor, request, point, plugin, organization, state, run, received_at, finished_at, took_us, decided, answer, cause, late, revision, error, trace, logs, did, body) VALUES (5368709136, 'signup', 'req_open', 'PRE_SIGNUP', 1, NULL, 0, 1, 1767225608000000000, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, CAST('{"trigger_point":"PRE_SIGNUP","interceptor_context":{"user_email":"mira@example.com"}}' AS BLOB));
