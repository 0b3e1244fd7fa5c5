-- Measure a page of the queues that have caps, and mark those that have reached one.
-- params: after_queue_id: the last one measured (0 from the start); queue_count_max; mark_s: seconds for which a mark
--   counts unless it is renewed.
-- returns: queue_id, tenant, name, pressure (depth, age, or NULL: none any more) of each whose mark changed;
--   watched_count and last_queue_id of the page. At least one row, of NULLs, that says the last two.
-- locks: the marked queues by id, SKIP LOCKED: a locked one is marked by the next look.
-- index: queues_capped_idx, runs_ready_idx
-- A count ends at its cap; a million took 1.1 s. The age is that of the oldest head of a lane; a run that was handed back lies behind
-- younger ones, and is not seen there.
WITH watched AS MATERIALIZED (
    SELECT q.id, q.max_depth, q.max_age_s
    FROM howdah.queues AS q
    WHERE (q.max_depth IS NOT NULL OR q.max_age_s IS NOT NULL OR q.pressure IS NOT NULL)
        AND q.id > %(after_queue_id)b::integer
    ORDER BY q.id
    LIMIT %(queue_count_max)b::integer
),
judged AS MATERIALIZED (
    SELECT
        w.id,
        CASE
            WHEN depth.count >= w.max_depth THEN 'depth'
            WHEN oldest.ready_at <= howdah.now() - make_interval(secs => w.max_age_s) THEN 'age'
        END AS pressure
    FROM watched AS w
    CROSS JOIN LATERAL (
        SELECT count(*) AS count
        FROM (
            SELECT 1
            FROM howdah.runs AS r
            WHERE r.queue_id = w.id AND r.lease_token IS NULL
            LIMIT coalesce(w.max_depth, 0)
        ) AS waiting
    ) AS depth
    CROSS JOIN LATERAL (
        SELECT min(greatest(head.due_at, head.queued_at)) AS ready_at
        FROM (VALUES (0::smallint), (1::smallint), (2::smallint), (3::smallint), (4::smallint)) AS p (priority)
        CROSS JOIN LATERAL (
            SELECT r.due_at, r.queued_at
            FROM howdah.runs AS r
            WHERE r.queue_id = w.id AND r.priority = p.priority AND r.lease_token IS NULL AND r.run_at <= howdah.now()
            ORDER BY r.run_at
            LIMIT 1
        ) AS head
        WHERE w.max_age_s IS NOT NULL
    ) AS oldest
),
held AS MATERIALIZED (
    SELECT q.id, q.pressure AS known
    FROM judged AS j
    JOIN howdah.queues AS q ON q.id = j.id
    WHERE q.pressure IS DISTINCT FROM j.pressure
        OR q.pressure_until < howdah.now() + make_interval(secs => %(mark_s)b::double precision / 2)
    ORDER BY q.id
    FOR UPDATE OF q SKIP LOCKED
),
marked AS (
    UPDATE howdah.queues AS q
    SET pressure = j.pressure,
        pressure_until = CASE
            WHEN j.pressure IS NOT NULL THEN howdah.now() + make_interval(secs => %(mark_s)b::double precision)
        END
    FROM held
    JOIN judged AS j ON j.id = held.id
    WHERE q.id = held.id
    RETURNING q.id, q.tenant_id, q.name, q.pressure, q.pressure IS DISTINCT FROM held.known AS has_changed
)
SELECT m.id AS queue_id, t.name AS tenant, m.name, m.pressure, page.watched_count, page.last_queue_id
FROM (SELECT count(*)::integer AS watched_count, max(w.id) AS last_queue_id FROM watched AS w) AS page
LEFT JOIN marked AS m ON m.has_changed
LEFT JOIN howdah.tenants AS t ON t.id = m.tenant_id
