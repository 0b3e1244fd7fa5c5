-- Take dead letters of one tenant back to their queues, as a set: the same tasks, with all their attempts. Of two
-- that do so at once the second waits for the first, and then finds nothing. died_until leaves those out that died
-- later; NULL takes all. One row for each that was found: what its lane is ready from, which the caller announces, or
-- an error, if the task itself is gone, has expired, or has lost its dedup key to another task, holder_id; then the
-- dead letter stays.
--
-- Locked rows cannot move, so dead letters are found again by ctid, as in howdah.cancel_runs.
--
-- moves: failed -> waiting (replay)
CREATE OR REPLACE FUNCTION howdah.replay_rows(tenant_id integer, ids uuid[], died_until timestamptz)
RETURNS TABLE (task_id uuid, queue_id integer, priority smallint, run_at timestamptz, error text, holder_id uuid)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- As in howdah.cancel_runs.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    tenant ALIAS FOR tenant_id;
    now constant timestamptz := howdah.now();
    places tid[];
    keyed record;
    reason text;
    holder text;
    refused uuid[] := '{}';
    reasons text[] := '{}';
    holders uuid[] := '{}';
    flow_queue_ids integer[];
    flows jsonb[];
BEGIN
    SELECT array_agg(letter.place) INTO places
    FROM (SELECT u.id FROM unnest(ids) AS u (id) ORDER BY u.id) AS i
    CROSS JOIN LATERAL (
        SELECT d.ctid AS place
        FROM howdah.dead_letters AS d
        WHERE d.tenant_id = tenant AND d.task_id = i.id AND (died_until IS NULL OR d.dead_at <= died_until)
        FOR UPDATE OF d
    ) AS letter;
    FOR keyed IN
        SELECT d.task_id, d.queue_id, d.claim_no, t.dedup
        FROM unnest(places) AS h (place)
        JOIN howdah.dead_letters AS d ON d.ctid = h.place
        JOIN howdah.tasks AS t ON t.tenant_id = tenant AND t.id = d.task_id
        WHERE t.dedup IS NOT NULL AND coalesce(t.expires_at > now, true)
        ORDER BY d.queue_id, t.dedup ->> 'key' COLLATE "C"
    LOOP
        BEGIN
            PERFORM howdah.retake_key(tenant, keyed.queue_id, keyed.task_id, keyed.dedup, keyed.claim_no);
        EXCEPTION
            WHEN SQLSTATE 'JQ409' THEN
                GET STACKED DIAGNOSTICS reason = MESSAGE_TEXT, holder = PG_EXCEPTION_DETAIL;
                refused := refused || keyed.task_id;
                reasons := reasons || reason;
                holders := holders || holder::uuid;
        END;
    END LOOP;
    SELECT array_agg(d.queue_id), array_agg(t.flow) INTO flow_queue_ids, flows
    FROM unnest(places) AS h (place)
    JOIN howdah.dead_letters AS d ON d.ctid = h.place
    JOIN howdah.tasks AS t ON t.tenant_id = tenant AND t.id = d.task_id
    WHERE t.flow IS NOT NULL;
    IF flows IS NOT NULL THEN
        PERFORM howdah.make_flow_keys(tenant, flow_queue_ids, flows);
    END IF;

    RETURN QUERY
    WITH letter AS MATERIALIZED (
        SELECT d.ctid AS place, d.task_id, d.queue_id, d.target_id, d.claim_no, d.queued_at, f.reason, f.holder
        FROM unnest(places) AS h (place)
        JOIN howdah.dead_letters AS d ON d.ctid = h.place
        LEFT JOIN unnest(refused, reasons, holders) AS f (id, reason, holder) ON f.id = d.task_id
    ),
    -- The age of its attempts counts from now. Its priority is what its client gave it: a dead letter has that of the
    -- lane in which it died. Whoever gave it an expiry said that it is not worth starting any more, or would do harm.
    retimed AS (
        UPDATE howdah.tasks AS t
        SET run_at = now
        FROM letter AS l
        WHERE t.tenant_id = tenant AND t.id = l.task_id AND l.reason IS NULL AND coalesce(t.expires_at > now, true)
        RETURNING
            l.place, l.task_id, l.queue_id, l.target_id, t.priority, l.claim_no, l.queued_at, t.expires_at,
            CASE WHEN t.flow IS NOT NULL THEN
                (SELECT k.id FROM howdah.flow_keys AS k WHERE k.tenant_id = tenant AND k.key = t.flow ->> 'key')
            END AS flow_key_id,
            t.batch_id,
            CASE WHEN t.follow_ups IS NOT NULL THEN true END AS has_follow_ups
    ),
    taken AS (
        DELETE FROM howdah.dead_letters AS d
        USING retimed AS t
        WHERE d.ctid = t.place
    ),
    armed AS (
        INSERT INTO howdah.runs AS r (
            tenant_id, task_id, queue_id, target_id, priority, claim_no, run_at, queued_at, due_at, expires_at,
            batch_id, has_follow_ups, flow_key_id, flow_state
        )
        SELECT
            tenant, t.task_id, t.queue_id, t.target_id, t.priority, t.claim_no, now, t.queued_at, now, t.expires_at,
            t.batch_id, t.has_follow_ups, t.flow_key_id, CASE WHEN t.flow_key_id IS NOT NULL THEN 0 END
        FROM retimed AS t
        RETURNING r.task_id, r.queue_id, r.priority, r.run_at
    )
    SELECT a.task_id, a.queue_id, a.priority, a.run_at, NULL::text, NULL::uuid
    FROM armed AS a
    UNION ALL
    SELECT
        l.task_id, NULL, NULL, NULL,
        coalesce(
            l.reason,
            format('the task expired at %s: it is not started any more', to_json(t.expires_at) #>> '{}'),
            'the task is gone: there is nothing to be run'
        ),
        l.holder
    FROM letter AS l
    LEFT JOIN howdah.tasks AS t ON t.tenant_id = tenant AND t.id = l.task_id
    WHERE l.task_id NOT IN (SELECT m.task_id FROM retimed AS m);
END
$$;
COMMENT ON FUNCTION howdah.replay_rows(integer, uuid[], timestamptz) IS 'Internal: takes dead letters back to their queues.';
