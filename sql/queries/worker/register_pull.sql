-- Record a sign of life of a consumer that claims over HTTP, under the identity that it had before or a new one.
-- params: tenant_id; pull_key: digest of its name, queue and handlers; name; queue; handlers; serves_http; concurrency:
--   the most that it asks for; lease_s: of its leases.
-- returns: id; one row.
-- locks: its row.
-- index: workers_pull_idx
-- Updated first, since an insert takes a new number also when it finds the row: with a thousand consumers there would
-- be none left after some months.
WITH known AS (
    UPDATE howdah.workers AS w
    SET heartbeat_at = howdah.now(), concurrency = %(concurrency)b::integer, lease_s = %(lease_s)b::real
    WHERE w.tenant_id = %(tenant_id)b::integer AND w.pull_key = %(pull_key)b::uuid
    RETURNING w.id
),
made AS (
    INSERT INTO howdah.workers (
        kind, tenant_id, pull_key, name, queues, handlers, serves_http, concurrency, lease_s, started_at, heartbeat_at
    )
    SELECT
        'pull', %(tenant_id)b::integer, %(pull_key)b::uuid, %(name)b::text, ARRAY[%(queue)b::text], %(handlers)b::text[],
        %(serves_http)b::boolean, %(concurrency)b::integer, %(lease_s)b::real, howdah.now(), howdah.now()
    WHERE NOT EXISTS (SELECT 1 FROM known)
    ON CONFLICT (tenant_id, pull_key) WHERE pull_key IS NOT NULL DO UPDATE SET heartbeat_at = excluded.heartbeat_at
    RETURNING id
)
SELECT k.id
FROM known AS k
UNION ALL
SELECT m.id
FROM made AS m
