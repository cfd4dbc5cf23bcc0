-- Another name of the same event, where its id alone does not show that it was sent before; NULL of all others. An
-- event takes no room in this index unless it has one.
ALTER TABLE event ADD COLUMN second BLOB;
CREATE UNIQUE INDEX event_second ON event (source, second) WHERE second IS NOT NULL;
