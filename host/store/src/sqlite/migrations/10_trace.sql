-- The trace context of what is recorded, and NULL of all else: of an event the span that is the parent of
-- its deliveries, of an outbox item that of the attempt which staged it.
ALTER TABLE event ADD COLUMN trace BLOB;
ALTER TABLE outbox ADD COLUMN trace BLOB;
