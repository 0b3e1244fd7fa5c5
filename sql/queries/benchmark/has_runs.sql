-- Whether a tenant has tasks that have not ended.
-- params: tenant_id.
-- returns: one row: has_runs.
-- index: runs_pkey
SELECT EXISTS (SELECT FROM howdah.runs AS r WHERE r.tenant_id = %(tenant_id)b::integer) AS has_runs
