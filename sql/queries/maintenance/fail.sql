-- Record a failed run of a chore, and try it again after a pause that doubles with each failure.
-- params: chore; retry_s: the first pause; retry_s_max: the longest; error.
-- returns: one row: failures since the last good run.
-- locks: the chore's row.
UPDATE howdah.maintenance AS m
SET next_at = howdah.now() + make_interval(secs => least(
        %(retry_s)b::double precision * power(2, least(m.failures, 16)), %(retry_s_max)b::double precision
    )),
    leased_until = NULL,
    last_error = %(error)b::text,
    failures = m.failures + 1
WHERE m.chore = %(chore)b::text
RETURNING m.failures
