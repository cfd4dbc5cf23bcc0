-- How many events lie between an event and the webhook that it is derived of, itself included.
ALTER TABLE event ADD COLUMN depth INTEGER NOT NULL DEFAULT 0;
