-- Delete a page of the rows of queues that were deleted so long ago that nothing names them any more.
-- params: retention_s.
-- returns: one row per deleted queue; at most 10,000.
-- locks: the deleted rows, by id, SKIP LOCKED: who has one locked makes the queue anew.
-- index: queues_deleted_idx, runs_ready_idx, dead_letters_queue_idx
-- History and statistics are gone by then; of a queue that a task was stored in while it was deleted, the row stays.
WITH old AS MATERIALIZED (
    SELECT q.id
    FROM howdah.queues AS q
    WHERE q.deleted_at < howdah.now() - make_interval(secs => %(retention_s)b::double precision)
        AND NOT EXISTS (SELECT FROM howdah.runs AS r WHERE r.queue_id = q.id AND r.lease_token IS NULL)
        AND NOT EXISTS (SELECT FROM howdah.runs AS r WHERE r.queue_id = q.id AND r.lease_expires_at IS NOT NULL)
        AND NOT EXISTS (SELECT FROM howdah.dead_letters AS d WHERE d.queue_id = q.id)
        AND NOT EXISTS (SELECT FROM howdah.queue_stats AS s WHERE s.queue_id = q.id)
    ORDER BY q.id
    LIMIT 10000
    FOR UPDATE OF q SKIP LOCKED
)
DELETE FROM howdah.queues AS q
USING old
WHERE q.id = old.id
RETURNING q.id
