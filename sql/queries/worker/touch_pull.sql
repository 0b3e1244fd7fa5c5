-- Record signs of life of consumers that claim over HTTP.
-- params: ids.
-- locks: their rows, SKIP LOCKED: whoever has one locked records the same.
-- index: workers_pkey
UPDATE howdah.workers AS w
SET heartbeat_at = howdah.now()
WHERE w.id IN (
    SELECT p.id
    FROM howdah.workers AS p
    WHERE p.id = ANY (%(ids)b::integer[]) AND p.kind = 'pull'
    FOR UPDATE OF p SKIP LOCKED
)
