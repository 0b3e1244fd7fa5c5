-- Record a failed run of a chore and when it is tried again.
-- params: chore; next_in_s; error.
-- locks: the chore's row.
UPDATE howdah.maintenance AS m
SET next_at = howdah.now() + make_interval(secs => %(next_in_s)b::double precision),
    leased_until = NULL,
    last_error = %(error)b::text,
    failures = m.failures + 1
WHERE m.chore = %(chore)b::text
RETURNING m.failures
