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
) STRICT;
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
    logs TEXT,
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

-- The ledger: deliveries ever in each state by plugin, and the bytes of its keys and values.
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

-- What became of the deliveries of one event type within one hour.
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

-- One row: the next numbers, which retention must not make start over, and counters of the whole.
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
