-- Record a page of an operation: what it came to, and where the next one begins.
-- params: tenant_id; id; after_task_id (or NULL: as before); done, skipped, failed: tasks of this page; error: why a task
--   of it failed, or NULL; is_end.
-- returns: one row: the state of the operation.
-- locks: the operation's row, which is locked already.
-- index: operations_pkey
UPDATE howdah.operations AS o
SET after_task_id = coalesce(%(after_task_id)b::uuid, o.after_task_id),
    matched = o.matched + %(done)b::integer + %(skipped)b::integer + %(failed)b::integer,
    done = o.done + %(done)b::integer,
    skipped = o.skipped + %(skipped)b::integer,
    failed = o.failed + %(failed)b::integer,
    failures = 0,
    last_error = CASE WHEN o.failures > 0 THEN %(error)b::text ELSE coalesce(%(error)b::text, o.last_error) END,
    worked_at = howdah.now(),
    due_at = CASE
        WHEN o.rate IS NULL THEN o.due_at
        ELSE greatest(o.due_at, howdah.now() - interval '1 second')
            + make_interval(secs => (%(done)b::integer + %(failed)b::integer) / o.rate)
    END,
    state = CASE WHEN %(is_end)b::boolean THEN 'done' ELSE o.state END,
    finished_at = CASE WHEN %(is_end)b::boolean THEN howdah.now() END
WHERE o.tenant_id = %(tenant_id)b::integer AND o.id = %(id)b::uuid
RETURNING o.state
