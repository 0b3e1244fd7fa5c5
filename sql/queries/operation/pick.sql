-- Take the bulk operation that has waited longest for its next page, for as long as the transaction lasts.
-- params: page_rows: most tasks of a page.
-- returns: the operation, or no row if none is due: tenant_id, id, kind, queue_id, mode, filter, has_edits, created_at,
--   after_task_id; row_max: how many tasks its rate lets it touch now, 1 to page_rows.
-- locks: the operation's row, SKIP LOCKED: one that is being cancelled has its turn later.
-- index: operations_running_idx
-- A rate that nobody could keep up with, because there was no scheduler, is made up for by one second of it at most.
SELECT
    o.tenant_id, o.id, o.kind, o.queue_id, o.mode, o.filter::text AS filter, o.edits IS NOT NULL AS has_edits, o.created_at,
    o.after_task_id,
    CASE
        WHEN o.rate IS NULL THEN %(page_rows)b::integer
        ELSE least(
            1 + floor(o.rate * extract(epoch FROM howdah.now() - greatest(o.due_at, howdah.now() - interval '1 second'))),
            %(page_rows)b::integer
        )::integer
    END AS row_max
FROM howdah.operations AS o
WHERE o.state = 'running' AND o.due_at <= howdah.now()
ORDER BY o.worked_at
LIMIT 1
FOR UPDATE OF o SKIP LOCKED
