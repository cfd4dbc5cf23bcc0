-- One row for each user and organization that ever belonged together, so that an event that comes again,
-- or later than a newer one, changes no count.
CREATE TABLE seat_members (
    organization_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    -- 1 while the user takes a seat, else 0.
    seat BIGINT NOT NULL,
    -- By how much the last change changed the count: 1, 0 or -1.
    difference BIGINT NOT NULL,
    -- Of the event that the row is from.
    version BIGINT NOT NULL,
    PRIMARY KEY (organization_id, user_id)
);

-- The sum of `seat` of each organization. `changes` counts how often it changed.
CREATE TABLE seat_counts (
    organization_id TEXT NOT NULL PRIMARY KEY,
    seats BIGINT NOT NULL,
    changes BIGINT NOT NULL
);
