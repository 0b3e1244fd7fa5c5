-- Change a task that waits; see howdah.change.
-- params: id; changes (JSON text); tenant (name).
-- returns: one row: state.
SELECT howdah.change(%(id)b::uuid, %(changes)b::text::jsonb, %(tenant)b::text) AS state
