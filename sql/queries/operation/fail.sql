-- Record that a page of an operation could not be done. It is tried again after a pause that doubles each time; after the
-- last try the operation has failed.
-- params: tenant_id; id; error; retry_s: the first pause; failures_max: so many pages in a row end it.
-- returns: one row: the state of the operation.
-- locks: the operation's row, which is locked already.
-- index: operations_pkey
UPDATE howdah.operations AS o
SET failures = o.failures + 1,
    last_error = %(error)b::text,
    worked_at = howdah.now(),
    due_at = howdah.now() + make_interval(secs => %(retry_s)b::double precision * power(2, o.failures)),
    state = CASE WHEN o.failures + 1 >= %(failures_max)b::integer THEN 'failed' ELSE o.state END,
    finished_at = CASE WHEN o.failures + 1 >= %(failures_max)b::integer THEN howdah.now() END
WHERE o.tenant_id = %(tenant_id)b::integer AND o.id = %(id)b::uuid
RETURNING o.state
