-- One row for each user and organization that ever belonged together, so that an older event that comes
-- later does not bring back what has ended.
CREATE TABLE access_memberships (
    organization_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    active BOOLEAN NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    -- Of the event that the row is from.
    version BIGINT NOT NULL,
    PRIMARY KEY (organization_id, user_id)
);

CREATE INDEX access_memberships_user ON access_memberships (user_id);

-- Who has, or had, which role where. A role is held while `revoked_at` is null.
CREATE TABLE access_grants (
    organization_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    role TEXT NOT NULL,
    granted_at TIMESTAMPTZ NOT NULL,
    revoked_at TIMESTAMPTZ,
    PRIMARY KEY (organization_id, user_id, role)
);

CREATE INDEX access_grants_user ON access_grants (user_id);

-- Where the grants of a user go with the user's last membership.
CREATE TABLE access_archive (
    user_id TEXT NOT NULL,
    archived_at TIMESTAMPTZ NOT NULL,
    organization_id TEXT NOT NULL,
    role TEXT NOT NULL,
    granted_at TIMESTAMPTZ NOT NULL,
    revoked_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (user_id, archived_at, organization_id, role)
);
