-- Of an outbox item: 0 a mail, 1 a request. Each kind is leased by itself, so that one that is slow to
-- send holds back no other.
ALTER TABLE outbox ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;
DROP INDEX outbox_due;
CREATE INDEX outbox_due ON outbox (kind, due_at, id) WHERE state IN (0, 2);
