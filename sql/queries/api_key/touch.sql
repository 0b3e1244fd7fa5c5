-- Record that credentials were used, to the minute.
-- params: ids.
-- returns: id of each key that was not locked.
-- locks: the keys' rows in id order, SKIP LOCKED.
WITH used AS MATERIALIZED (
    SELECT k.id
    FROM howdah.api_keys AS k
    WHERE k.id = ANY (%(ids)b::text[])
    ORDER BY k.id
    FOR UPDATE OF k SKIP LOCKED
)
UPDATE howdah.api_keys AS k
SET last_used_at = date_trunc('minute', howdah.now())
FROM used
WHERE used.id = k.id
RETURNING k.id
