-- Of many deliveries that are replayed at once few are among those that may run; the others wait for their
-- turn, state -2, and so in no index of what is due.
CREATE INDEX delivery_later ON delivery (plugin, id) WHERE state = -2;
