-- One row an organization. One that was deleted stays, so that what belongs to it can be found, and so
-- that an older event that comes later does not bring it back.
CREATE TABLE workspaces (
    organization_id TEXT NOT NULL PRIMARY KEY,
    name TEXT,
    external_id TEXT,
    region_code TEXT,
    updated_at TIMESTAMPTZ NOT NULL,
    deleted_at TIMESTAMPTZ,
    -- Of the event that the row is from.
    version BIGINT NOT NULL,
    -- Whether that event made the workspace be there, for the first time or again.
    appeared BOOLEAN NOT NULL
);

-- What each workspace starts with. From then on it is the organization's own.
CREATE TABLE workspace_settings (
    organization_id TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (organization_id, name)
);
