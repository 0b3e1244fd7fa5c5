-- Make a chore due now that cannot wait for its time. One that fails keeps its pauses.
-- params: chore.
-- returns: one row if it was not due before.
-- locks: the chore's row.
UPDATE howdah.maintenance AS m
SET next_at = howdah.now()
WHERE m.chore = %(chore)b::text AND m.next_at > howdah.now() AND m.failures = 0
RETURNING m.chore
