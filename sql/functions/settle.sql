-- Give what has become free to those who wait for it: places of flow keys, and runs at once of queues. Whoever ends
-- runs of limited queues calls it with their queues and flow keys, in a later statement than the one that ended
-- them, for it counts what is left with a snapshot of its own. Calling it too often changes nothing.
--
-- Of each key as many runs as have room get a place, by priority and then by due_at, task_id, and become ready in the
-- internal priority 4, which is claimed first. Returns the lanes that have due runs now, with the oldest run_at of
-- each, for the caller to announce: those of granted runs, and those of queues with max_running.
--
-- A key whose lock is held by a client's open transaction is left out (see howdah.lock_flow_keys), and so is a run
-- whose row somebody has locked: who has it changes or ends it, and the scheduler comes by later.
--
-- moves: blocked -> waiting (grant)
-- locks: flow_keys in id order, then runs by flow key and due_at, SKIP LOCKED.
CREATE OR REPLACE FUNCTION howdah.settle(queue_ids integer[], flow_key_ids bigint[])
RETURNS TABLE (queue_id integer, priority smallint, run_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    now constant timestamptz := howdah.now();
    granted constant smallint := 4;
    locked_keys bigint[];
    waited_for bigint[];
    granted_in integer[];
BEGIN
    IF flow_key_ids <> '{}' THEN
        locked_keys := howdah.lock_flow_keys(ARRAY(SELECT DISTINCT u.id FROM unnest(flow_key_ids) AS u (id) ORDER BY u.id));
        -- For most keys nobody waits; who holds a place of them need not be counted.
        SELECT coalesce(array_agg(l.id), '{}') INTO waited_for
        FROM unnest(locked_keys) AS l (id)
        WHERE EXISTS (SELECT FROM howdah.runs AS w WHERE w.flow_key_id = l.id AND w.flow_state = 1);
    END IF;
    IF waited_for <> '{}' THEN
        WITH next AS MATERIALIZED (
            SELECT waiting.place
            FROM howdah.flow_keys AS f
            CROSS JOIN LATERAL (
                SELECT count(*) AS count
                FROM (
                    SELECT FROM howdah.runs AS h WHERE h.flow_key_id = f.id AND h.flow_state = 2 LIMIT f.concurrency
                ) AS holder
            ) AS held
            CROSS JOIN LATERAL (
                SELECT w.ctid AS place
                FROM howdah.runs AS w
                WHERE w.flow_key_id = f.id AND w.flow_state = 1
                ORDER BY w.priority DESC, w.due_at, w.task_id
                LIMIT f.concurrency - held.count
                FOR UPDATE OF w SKIP LOCKED
            ) AS waiting
            WHERE f.id = ANY (waited_for)
        ),
        freed AS (
            UPDATE howdah.runs AS r
            SET blocked_by = r.blocked_by & ~4,
                flow_state = 2,
                priority = granted,
                run_at = CASE WHEN r.blocked_by & ~4 = 0 THEN greatest(r.due_at, now) ELSE 'infinity' END
            FROM next AS n
            WHERE r.ctid = n.place
            RETURNING r.queue_id, r.run_at
        )
        SELECT array_agg(DISTINCT d.queue_id) INTO granted_in FROM freed AS d WHERE d.run_at <= now;
        RETURN QUERY SELECT g.id, granted, now FROM unnest(granted_in) AS g (id);
    END IF;
    RETURN QUERY
    SELECT s.id, p.priority::smallint, first.run_at
    FROM howdah.queues AS s
    CROSS JOIN generate_series(0, 4) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT r.run_at
        FROM howdah.runs AS r
        WHERE r.queue_id = s.id AND r.priority = p.priority AND r.lease_token IS NULL AND r.run_at <= now
        ORDER BY r.run_at, r.task_id
        LIMIT 1
    ) AS first
    WHERE s.id = ANY (queue_ids) AND s.max_running IS NOT NULL;
END
$$;
COMMENT ON FUNCTION howdah.settle(integer[], bigint[]) IS 'Internal: gives places of flow keys and queues that have become free to runs that wait for them.';
