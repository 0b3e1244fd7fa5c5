-- End a queue's pause and drain; see howdah.resume.
-- params: tenant_id; name.
-- returns: is_changed: there was one of them.
-- locks: the queue's row.
SELECT howdah.resume_queue(%(tenant_id)b::integer, %(name)b::text) AS is_changed
