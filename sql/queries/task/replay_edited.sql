-- Make a new task of a dead letter, with edits; see howdah.replay_edited.
-- params: id; edits (JSON text); tenant (name).
-- returns: one row: id of the new task.
SELECT howdah.replay_edited(%(id)b::uuid, %(edits)b::text::json, %(tenant)b::text) AS id
