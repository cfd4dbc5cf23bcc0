-- What is due is leased by plugin, so that one whose items wait for long holds back no other.
DROP INDEX outbox_due;
CREATE INDEX outbox_due ON outbox (kind, plugin, due_at, id) WHERE state IN (0, 2);
DROP INDEX outbox_leased;
CREATE INDEX outbox_leased ON outbox (kind, plugin) WHERE state = 1;
