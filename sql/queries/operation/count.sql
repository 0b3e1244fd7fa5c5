-- Count what an operation would touch; see howdah.count_matches.
-- params: kind; queue (name or NULL); filter (JSON text); tenant (name).
-- returns: one row: matched; is_complete.
SELECT c.matched, c.is_complete
FROM howdah.count_matches(%(kind)b::text, %(queue)b::text, %(filter)b::text::jsonb, %(tenant)b::text) AS c
