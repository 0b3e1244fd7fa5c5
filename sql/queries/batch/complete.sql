-- Complete those of some batches that are closed and have no live run; see howdah.complete_batches.
-- params: tenant_ids, batch_ids: one element per batch.
-- returns: tenant_id, batch_id, is_complete, error of each that was completed, or was to be.
-- moves: new -> waiting (enqueue)
SELECT c.tenant_id, c.batch_id, c.is_complete, c.error
FROM howdah.complete_batches(%(tenant_ids)b::integer[], %(batch_ids)b::uuid[]) AS c
