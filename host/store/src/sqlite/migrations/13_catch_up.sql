-- How an event arrived: NULL as a webhook or from a plugin, 1 by asking its sender for what was missed.
ALTER TABLE event ADD COLUMN origin INTEGER;

-- Events of the source that were received until then may have been removed, or may lack their second key. So nothing
-- that happened before can be told to be missing.
ALTER TABLE source ADD COLUMN removed_to INTEGER;
UPDATE source SET removed_to = last_at;
-- Until when the sender's list was compared with the store, by the sender's time.
ALTER TABLE source ADD COLUMN compared_to INTEGER;

-- Events that a sender lists and the store does not have.
CREATE TABLE missing (
    source INTEGER NOT NULL,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    occurred_at INTEGER NOT NULL,
    PRIMARY KEY (source, id)
) STRICT, WITHOUT ROWID;
