-- Remove a benchmark's tenant with everything that it has. Only for tenants that nobody else uses, once
-- their worker has ended.
-- params: tenant_id.
-- locks: all rows of the tenant.
-- index: runs_pkey, tasks_pkey, finished_runs_pkey
WITH queue AS MATERIALIZED (
    DELETE FROM howdah.queues AS q
    WHERE q.tenant_id = %(tenant_id)b::integer
    RETURNING q.id
),
stats AS (
    DELETE FROM howdah.queue_stats AS s USING queue AS q
    WHERE s.queue_id = q.id
),
runs AS (
    DELETE FROM howdah.runs AS r
    WHERE r.tenant_id = %(tenant_id)b::integer
),
tasks AS (
    DELETE FROM howdah.tasks AS t
    WHERE t.tenant_id = %(tenant_id)b::integer
),
history AS (
    DELETE FROM howdah.finished_runs AS f
    WHERE f.tenant_id = %(tenant_id)b::integer
),
targets AS (
    DELETE FROM howdah.targets AS t
    WHERE t.tenant_id = %(tenant_id)b::integer
)
DELETE FROM howdah.tenants AS t
WHERE t.id = %(tenant_id)b::integer
