-- Go on with a leased chore, if nobody took it over in the meantime.
-- params: chore; leased_until: as the last lease or renewal returned it; lease_s.
-- returns: one row: the new leased_until; none if the lease is another's now.
-- locks: the chore's row.
UPDATE howdah.maintenance AS m
SET leased_until = howdah.now() + make_interval(secs => %(lease_s)b::double precision)
WHERE m.chore = %(chore)b::text AND m.leased_until = %(leased_until)b::timestamptz
RETURNING m.leased_until
