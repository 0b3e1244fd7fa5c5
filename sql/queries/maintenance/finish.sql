-- Record a good run of a chore and when it is due again.
-- params: chore; next_in_s; cost_s; state (JSON text, or NULL: keep).
-- returns: the chore.
-- locks: the chore's row.
UPDATE howdah.maintenance AS m
SET next_at = howdah.now() + make_interval(secs => %(next_in_s)b::double precision),
    leased_until = NULL,
    last_good_at = howdah.now(),
    last_cost_s = %(cost_s)b::real,
    last_error = NULL,
    failures = 0,
    state = coalesce(%(state)b::text::jsonb, m.state)
WHERE m.chore = %(chore)b::text
RETURNING m.chore
