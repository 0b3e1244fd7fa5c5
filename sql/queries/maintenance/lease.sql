-- Keep a locked chore after the transaction ends, for work that cannot run inside one.
-- params: chore; lease_s.
-- returns: one row: leased_until, by which maintenance/renew knows the lease.
-- locks: the chore's row.
UPDATE howdah.maintenance AS m
SET leased_until = howdah.now() + make_interval(secs => %(lease_s)b::double precision)
WHERE m.chore = %(chore)b::text
RETURNING m.leased_until
