-- How the periodic chores of the scheduler are doing.
CREATE OR REPLACE VIEW howdah.chores AS
SELECT
    m.chore,
    m.last_good_at,
    round(extract(epoch FROM howdah.now() - m.last_good_at), 3) AS last_good_age_s,
    m.last_cost_s,
    m.next_at,
    greatest(round(extract(epoch FROM howdah.now() - greatest(m.next_at, m.leased_until)), 3), 0) AS overdue_s,
    coalesce(m.leased_until > howdah.now(), false) AS is_leased,
    m.failures,
    m.last_error
FROM howdah.maintenance AS m;

COMMENT ON VIEW howdah.chores IS 'Periodic chores of the scheduler. If overdue_s grows, no scheduler runs or the chore fails.';
COMMENT ON COLUMN howdah.chores.chore IS 'Name of the chore.';
COMMENT ON COLUMN howdah.chores.last_good_at IS 'Last time it ran to its end; NULL if never.';
COMMENT ON COLUMN howdah.chores.last_good_age_s IS 'Seconds since then.';
COMMENT ON COLUMN howdah.chores.last_cost_s IS 'Seconds that took.';
COMMENT ON COLUMN howdah.chores.next_at IS 'When it is due again.';
COMMENT ON COLUMN howdah.chores.overdue_s IS 'Seconds that it has been due without being done, 0 if it is not.';
COMMENT ON COLUMN howdah.chores.is_leased IS 'Whether a process is at it over several transactions.';
COMMENT ON COLUMN howdah.chores.failures IS 'Failures since the last good run.';
COMMENT ON COLUMN howdah.chores.last_error IS 'Message of the last failure, NULL after a good run.';
