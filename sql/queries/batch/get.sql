-- One batch of a tenant.
-- params: tenant_id; id.
-- returns: the batch, or no row; of one that is not complete, counts of this moment.
-- index: batches_pkey
SELECT
    b.id, howdah.batch_state(b.closed_at, b.completed_at) AS state, b.created_at, b.closed_at, b.completed_at, b.created_by,
    coalesce(b.task_count, c.task_count) AS task_count, coalesce(c.pending, 0) AS pending,
    coalesce(b.succeeded, c.succeeded) AS succeeded, coalesce(b.failed, c.failed) AS failed,
    coalesce(b.cancelled, c.cancelled) AS cancelled, coalesce(b.expired, c.expired) AS expired, b.follow_ups
FROM howdah.batches AS b
LEFT JOIN LATERAL (
    SELECT k.task_count, k.pending, k.succeeded, k.failed, k.cancelled, k.expired
    FROM howdah.batch_counts(b.tenant_id, b.id, b.created_at) AS k
    WHERE b.completed_at IS NULL
) AS c ON true
WHERE b.tenant_id = %(tenant_id)b::integer AND b.id = %(id)b::uuid
