-- Enqueue what follows on the end of tasks, in the transaction that ends them; see howdah.follow.
-- params: tenant_ids, task_ids, outcomes (succeeded, failed or expired): one element per task; enqueues: for each a JSON
--   array of the tasks that its handler enqueued, or NULL.
-- returns: task_id, error of each task whose follow-up was refused by its dedup key, or by its batch.
-- moves: new -> waiting (enqueue)
SELECT f.task_id, f.error
FROM howdah.follow(
    %(tenant_ids)b::integer[], %(task_ids)b::uuid[], %(outcomes)b::text[], %(enqueues)b::text[]::json[]
) AS f
