-- With which other deliveries of its plugin one keeps to the order in which they came. Of those that are
-- unfinished the first may run; the others are behind it, state -1, and so in no index of what is due.
ALTER TABLE delivery ADD COLUMN order_key TEXT;
CREATE INDEX delivery_order ON delivery (plugin, order_key) WHERE order_key IS NOT NULL AND state < 3;
