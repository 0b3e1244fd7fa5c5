-- Why a task stands where it does; see howdah.explain.
-- params: id; tenant (name).
-- returns: one row for each reason, the first one first: code, message, until, run_count.
SELECT e.code, e.message, e.until, e.run_count
FROM howdah.explain(%(id)b::uuid, %(tenant)b::text) AS e
