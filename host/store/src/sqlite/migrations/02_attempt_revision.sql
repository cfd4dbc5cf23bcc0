-- Which revision of the plugin ran: the first digits of its SHA-256. NULL in what version 1 wrote.
ALTER TABLE attempt ADD COLUMN revision TEXT;
