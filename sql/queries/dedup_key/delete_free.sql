-- Forget dedup keys that no task holds any more, in the order of the primary key, a page at a time.
-- params: tenant_id, queue_id, key: where the page before ended; 0, 0 and '' for the first.
-- returns: one row: looked_count, deleted_count, and tenant_id, queue_id, key of the last row of the page (NULL if it
--   is empty).
-- locks: the deleted rows, in the order of the primary key; those that are locked are left for the next time.
-- index: dedup_keys_pkey, runs_pkey
-- What is over stays over while task_id and taken_at are the same, so the row may be locked after it was judged.
WITH page AS MATERIALIZED (
    SELECT k.tenant_id, k.queue_id, k.key, k.task_id, k.taken_at, k.until, k.expires_at, k.claim_no
    FROM howdah.dedup_keys AS k
    WHERE (k.tenant_id, k.queue_id, k.key) > (%(tenant_id)b::integer, %(queue_id)b::integer, %(key)b::text)
    ORDER BY k.tenant_id, k.queue_id, k.key
    LIMIT 10000
),
locked AS MATERIALIZED (
    SELECT l.tenant_id, l.queue_id, l.key
    FROM (
        SELECT p.tenant_id, p.queue_id, p.key, p.task_id, p.taken_at
        FROM page AS p
        WHERE NOT howdah.holds_key(
            p.until, p.expires_at, p.claim_no,
            CASE
                WHEN p.until <> 'expiry'
                    THEN (SELECT r.claim_no FROM howdah.runs AS r WHERE r.tenant_id = p.tenant_id AND r.task_id = p.task_id)
            END,
            howdah.now()
        )
        ORDER BY p.tenant_id, p.queue_id, p.key
    ) AS f
    CROSS JOIN LATERAL (
        SELECT k.tenant_id, k.queue_id, k.key
        FROM howdah.dedup_keys AS k
        WHERE k.tenant_id = f.tenant_id
            AND k.queue_id = f.queue_id
            AND k.key = f.key
            AND k.task_id = f.task_id
            AND k.taken_at = f.taken_at
        FOR UPDATE SKIP LOCKED
    ) AS l
),
deleted AS (
    DELETE FROM howdah.dedup_keys AS k
    USING locked AS l
    WHERE k.tenant_id = l.tenant_id AND k.queue_id = l.queue_id AND k.key = l.key
    RETURNING k.task_id
)
SELECT
    c.looked_count, c.deleted_count, e.tenant_id, e.queue_id, e.key
FROM (
    SELECT (SELECT count(*) FROM page) AS looked_count, (SELECT count(*) FROM deleted) AS deleted_count
) AS c
LEFT JOIN (
    SELECT p.tenant_id, p.queue_id, p.key
    FROM page AS p
    ORDER BY p.tenant_id DESC, p.queue_id DESC, p.key DESC
    LIMIT 1
) AS e ON true
