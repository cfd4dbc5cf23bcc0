-- One row a user, whether known by the sender or by an organization's directory. Who was deleted leaves
-- the id and the version, so that an older event that comes later does not bring the user back.
CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    external_id TEXT,
    email TEXT,
    email_verified BOOLEAN,
    first_name TEXT,
    last_name TEXT,
    name TEXT,
    -- False: the directory says that the user may not log in.
    active BOOLEAN NOT NULL,
    -- Of the newest event that names one.
    organization_id TEXT,
    organization_version BIGINT NOT NULL DEFAULT 0,
    -- At the service that accounts are provisioned at, if it said so.
    account_id TEXT,
    updated_at TIMESTAMPTZ NOT NULL,
    deleted_at TIMESTAMPTZ,
    -- Of the event that the row is from.
    version BIGINT NOT NULL,
    -- Whether that event made the user be there, for the first time or again.
    appeared BOOLEAN NOT NULL
);

CREATE INDEX users_organization ON users (organization_id);

-- What each user starts with. From then on it is the user's own.
CREATE TABLE user_settings (
    user_id TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (user_id, name)
);
