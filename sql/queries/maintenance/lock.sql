-- Take a chore that is due, for as long as the transaction lasts.
-- params: chore.
-- returns: the chore's row with the time since its last good run (a hold counts as one until it ends)
--   and since the server's start, or no row if it is not due or another process has it.
-- locks: the chore's row, SKIP LOCKED.
-- index: maintenance_pkey
SELECT
    m.chore, m.hold_until, m.state, m.failures,
    extract(epoch FROM howdah.now() - greatest(m.last_good_at, m.hold_until))::double precision AS since_good_s,
    extract(epoch FROM howdah.now() - pg_postmaster_start_time())::double precision AS since_start_s
FROM howdah.maintenance AS m
WHERE m.chore = %(chore)b::text
    AND m.next_at <= howdah.now()
    AND (m.leased_until IS NULL OR m.leased_until <= howdah.now())
FOR UPDATE OF m SKIP LOCKED
