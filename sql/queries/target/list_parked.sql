-- The targets whose due runs are parked, because no live worker serves them.
-- params: none.
-- returns: id of each.
SELECT t.id
FROM howdah.targets AS t
WHERE t.is_parked
ORDER BY t.id
