-- Cancel a task; see howdah.cancel.
-- params: id; mode; tenant (name).
-- returns: one row: state.
SELECT howdah.cancel(%(id)b::uuid, %(mode)b::text, %(tenant)b::text) AS state
