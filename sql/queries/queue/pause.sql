-- Pause a queue; see howdah.pause.
-- params: tenant_id; name; reason (or NULL); until (NULL: without end) or for_s: seconds from now; actor: who asks.
-- returns: is_changed: it was not paused before.
-- locks: the queue's row.
SELECT howdah.pause_queue(
    %(tenant_id)b::integer, %(name)b::text, %(reason)b::text,
    coalesce(%(until)b::timestamptz, howdah.now() + make_interval(secs => %(for_s)b::double precision)), %(actor)b::text
) AS is_changed
