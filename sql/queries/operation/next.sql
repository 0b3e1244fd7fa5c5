-- When the next page of any operation is due.
-- params: none.
-- returns: one row: wait_s: seconds until then, not above 0 if one is due; NULL if no operation is running.
-- index: operations_running_idx
SELECT extract(epoch FROM min(o.due_at) - howdah.now())::double precision AS wait_s
FROM howdah.operations AS o
WHERE o.state = 'running'
