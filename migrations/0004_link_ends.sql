-- Both ends of the node's last link, as the console and the node see them, a JSON list: no packet filter may drop them unasked, also before
-- the node is back at a console that was restarted.
ALTER TABLE nodes ADD COLUMN link_ends TEXT NOT NULL DEFAULT '[]';
