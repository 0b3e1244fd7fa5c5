-- Take the mark of deletion from queues in which runs wait: they were enqueued while the queue was being deleted.
-- params: queue_ids: those in which runs wait.
-- returns: id of each that was marked.
-- locks: those rows by id, SKIP LOCKED: who has one locked makes the queue anew.
-- index: queues_pkey
WITH marked AS MATERIALIZED (
    SELECT q.id
    FROM howdah.queues AS q
    WHERE q.id = ANY (%(queue_ids)b::integer[]) AND q.deleted_at IS NOT NULL
    ORDER BY q.id
    FOR UPDATE OF q SKIP LOCKED
)
UPDATE howdah.queues AS q
SET deleted_at = NULL,
    updated_at = howdah.now()
FROM marked
WHERE q.id = marked.id
RETURNING q.id
