-- One bulk operation of a tenant.
-- params: tenant_id; id.
-- returns: the operation, or no row: edited: names of the fields that it edits, NULL if none.
-- index: operations_pkey
SELECT
    o.id, o.kind, q.name AS queue, o.mode, o.rate, o.state, o.matched, o.done, o.skipped, o.failed, o.created_at,
    o.finished_at, o.created_by, o.last_error, o.filter,
    (SELECT array_agg(k.key ORDER BY k.key) FROM json_object_keys(o.edits) AS k (key)) AS edited
FROM howdah.operations AS o
LEFT JOIN howdah.queues AS q ON q.id = o.queue_id
WHERE o.tenant_id = %(tenant_id)b::integer AND o.id = %(id)b::uuid
