-- The claims of an organization's tokens, filled by you.
CREATE TABLE organization_claims (
    organization_id TEXT NOT NULL PRIMARY KEY,
    -- A JSON object: {"tier": "pro"}.
    claims TEXT NOT NULL
);

-- The claims of one user's tokens, filled by you. They come before those of the organization.
CREATE TABLE user_claims (
    user_id TEXT NOT NULL PRIMARY KEY,
    claims TEXT NOT NULL
);

-- The claims of the tokens of machines, filled by you. They come before those of the organization.
CREATE TABLE client_claims (
    client_id TEXT NOT NULL PRIMARY KEY,
    claims TEXT NOT NULL
);
