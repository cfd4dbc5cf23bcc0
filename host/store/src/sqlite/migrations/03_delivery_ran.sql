-- 1: an attempt that is written down nowhere may have run. What version 2 held may have.
ALTER TABLE delivery ADD COLUMN ran INTEGER NOT NULL DEFAULT 0;
UPDATE delivery SET ran = 1 WHERE state < 3;
