-- Put off the rescue of runs that could not be rescued, so that those behind them get their turn.
-- params: tenant_ids, task_ids: one element per run, locked by run/lock_expired in this transaction;
--   defer_s: seconds.
-- locks: runs that are locked already.
-- index: runs_pkey
-- The lease itself does not change hands: whoever knows its token may still end the run.
UPDATE howdah.runs AS r
SET lease_expires_at = howdah.now() + make_interval(secs => %(defer_s)b::double precision)
FROM unnest(%(tenant_ids)b::integer[], %(task_ids)b::uuid[]) AS u (tenant_id, task_id)
WHERE r.tenant_id = u.tenant_id AND r.task_id = u.task_id AND r.lease_token IS NOT NULL
