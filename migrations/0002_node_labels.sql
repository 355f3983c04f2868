-- `labels` is the console's word, given with an enrolment or by an administrator; what a node says of itself is only shown.
ALTER TABLE nodes ADD COLUMN said_labels TEXT NOT NULL DEFAULT '{}';
