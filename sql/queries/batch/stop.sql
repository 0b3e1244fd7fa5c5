-- Close a batch and cancel its tasks; see howdah.cancel_batch.
-- params: tenant (name); id; mode; created_by.
-- returns: one row: operation_id.
SELECT howdah.stop_batch(%(tenant)b::text, %(id)b::uuid, %(mode)b::text, %(created_by)b::text) AS operation_id
