-- Let a task start now; see howdah.run_now.
-- params: id; tenant (name).
-- returns: one row: state.
SELECT howdah.run_now(%(id)b::uuid, %(tenant)b::text) AS state
