-- How the chores are doing.
-- params: none.
-- returns: one row per chore.
SELECT
    m.chore, m.next_at, m.leased_until, m.hold_until, m.last_good_at, m.last_cost_s, m.last_error, m.failures,
    extract(epoch FROM howdah.now() - m.next_at)::double precision AS overdue_s
FROM howdah.maintenance AS m
ORDER BY m.chore
