-- How a running task was asked to stop.
-- params: tenant_id; id.
-- returns: one row while it has a live run: cancel_mode (soft, hard, or NULL if it was not asked).
-- index: runs_pkey
SELECT r.cancel_mode
FROM howdah.runs AS r
WHERE r.tenant_id = %(tenant_id)b::integer AND r.task_id = %(id)b::uuid
