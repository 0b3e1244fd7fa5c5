-- A page of the batches that are closed and not complete.
-- params: after_tenant_id, after_id: the last one seen; row_count.
-- returns: tenant_id, id of each, in this order.
-- index: batches_running_idx
SELECT b.tenant_id, b.id
FROM howdah.batches AS b
WHERE b.closed_at IS NOT NULL
    AND b.completed_at IS NULL
    AND (b.tenant_id, b.id) > (%(after_tenant_id)b::integer, %(after_id)b::uuid)
ORDER BY b.tenant_id, b.id
LIMIT %(row_count)b::integer
