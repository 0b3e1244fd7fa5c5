-- A page of a tenant's batches, newest first.
-- params: tenant_id; before: the last id seen; row_count.
-- returns: batches as batch/get returns them, at most row_count; counts are NULL of those that are not complete, because
--   counting them takes as long as they are large.
-- index: batches_pkey
SELECT
    b.id, howdah.batch_state(b.closed_at, b.completed_at) AS state, b.created_at, b.closed_at, b.completed_at, b.created_by,
    b.task_count, CASE WHEN b.completed_at IS NOT NULL THEN 0 END AS pending, b.succeeded, b.failed, b.cancelled, b.expired, b.follow_ups
FROM howdah.batches AS b
WHERE b.tenant_id = %(tenant_id)b::integer AND b.id < %(before)b::uuid
ORDER BY b.id DESC
LIMIT %(row_count)b::integer
