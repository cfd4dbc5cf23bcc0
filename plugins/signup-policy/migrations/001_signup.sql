-- Who may sign up: one row for each mail domain, filled by you.
CREATE TABLE signup_domains (
    -- In lower case: example.com.
    domain TEXT NOT NULL PRIMARY KEY,
    organization_id TEXT NOT NULL,
    -- 1 if organization_id is the id that you gave the organization, 0 if it is the sender's.
    external BIGINT NOT NULL DEFAULT 0,
    -- The roles of a new member, as a JSON array: ["member"].
    roles TEXT NOT NULL DEFAULT '[]'
);

-- How many people of an organization may sign up, filled by you. No row: any number.
CREATE TABLE signup_seats (
    organization_id TEXT NOT NULL PRIMARY KEY,
    seats BIGINT NOT NULL,
    -- How many of them are reserved. Only the plugin changes it.
    taken BIGINT NOT NULL DEFAULT 0
);

-- A seat for each person who was allowed to sign up. To free a seat, delete its row and lower `taken`.
CREATE TABLE signup_reservations (
    organization_id TEXT NOT NULL,
    -- In lower case.
    email TEXT NOT NULL,
    -- The id of the request that reserved it.
    request TEXT NOT NULL,
    PRIMARY KEY (organization_id, email)
);
