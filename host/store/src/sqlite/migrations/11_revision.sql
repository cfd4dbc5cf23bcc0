-- What an attempt did, a line each; NULL where it did nothing, and in what earlier versions wrote.
ALTER TABLE attempt ADD COLUMN did TEXT;

-- The contents that the file of a plugin has had. `ended_at` is NULL of the one that serves; `ending` says
-- what became of another.
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
INSERT INTO revision (plugin, sha256, description, loaded_at)
SELECT id, revision, description, ifnull(loaded_at, 0) FROM plugin WHERE revision IS NOT NULL;
