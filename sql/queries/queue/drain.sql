-- Let a queue take no new tasks; see howdah.drain.
-- params: tenant_id; name; actor: who asks.
-- returns: is_changed: it was not drained before.
-- locks: the queue's row.
SELECT howdah.drain_queue(%(tenant_id)b::integer, %(name)b::text, %(actor)b::text) AS is_changed
