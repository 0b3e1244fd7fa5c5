-- Make rescue wait: workers could not renew their leases either. Leases that end before the hold does
-- count no crash.
-- params: hold_s: seconds from now.
-- returns: one row: hold_until.
-- locks: the rescue chore's row.
UPDATE howdah.maintenance AS m
SET hold_until = howdah.now() + make_interval(secs => %(hold_s)b::double precision)
WHERE m.chore = 'rescue'
RETURNING m.hold_until
