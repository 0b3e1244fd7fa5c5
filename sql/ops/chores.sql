-- Do the scheduler's chores get done?
-- Look for overdue_s above a minute: no scheduler runs, or last_error says what is wrong. A chore that has
-- never run has no last_good_at.
-- Needs: howdah_readonly.
SELECT c.chore, c.last_good_age_s, c.last_cost_s, c.overdue_s, c.is_leased, c.failures, left(c.last_error, 80) AS last_error
FROM howdah.chores AS c
ORDER BY c.overdue_s DESC, c.chore;
