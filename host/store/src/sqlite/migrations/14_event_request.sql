-- What an event keeps of its request besides the body, for plugins: its content type, some headers as JSON, and the body
-- of a form as it was sent. NULL where there is none, and in what earlier versions wrote.
ALTER TABLE event ADD COLUMN content_type TEXT;
ALTER TABLE event ADD COLUMN headers TEXT;
ALTER TABLE event ADD COLUMN original BLOB;
