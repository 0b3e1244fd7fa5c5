-- Decide who has which dedup key, for howdah.enqueue_rows, which calls this before it stores a batch in which
-- dedup occurs. By the ordinal of each item come back: ids, which those to be stored must get; holders, the task
-- that has the item's key instead of it; problems, why it is refused for that; dedups, as given. An item with a
-- holder and no problem is deduplicated: nothing is to be stored, and the holder is the answer. held_priorities and
-- held_run_ats name the lanes of holders that were locked: a claim that came meanwhile has passed them by, and its
-- worker does not look below it any more unless it is told.
--
-- 1. The items of a batch that bring one key: the first of them is its taker; or the last one that would replace
--    the holder, for those before it would be replaced at once. The others are judged against whoever has it then.
-- 2. The takers' keys are inserted or, if they are there, locked, in one order everywhere. Who brings a key that
--    another transaction has just taken waits here for its end.
-- 3. With a fresh snapshot: whether the task in the row still holds the key (howdah.holds_key). The rule of the
--    holder counts for that, and what is to become of the newcomer is the newcomer's. Before, the runs are locked of
--    holders that are to be replaced, so that no worker claims them, and of those that hold until they start: if the
--    caller goes on to write what the holder is to read, the holder starts after the caller's commit and sees it.
-- 4. A holder that waits and is to be replaced is cancelled, with a last row of history that names its successor. If
--    it was the last of its batch, a scheduler finds that: its successor may belong to it, and is not stored yet.
--    One that runs, or has ended and holds the key until it expires, cannot be replaced: the newcomer is refused.
--
-- An item whose task is stored already, sent again after a lost answer, has nothing to do with keys any more.
--
-- moves: waiting -> cancelled (replace)
-- moves: blocked -> cancelled (replace)
CREATE OR REPLACE FUNCTION howdah.take_keys(
    tenant_id integer, items json, payloads json[], id_low uuid, id_high uuid, bytes_max integer
)
RETURNS TABLE (
    ids uuid[], holders uuid[], problems text[], dedups jsonb[], held_priorities smallint[], held_run_ats timestamptz[]
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    tenant ALIAS FOR tenant_id;
    now constant timestamptz := howdah.now();
    -- Items with a key that may be stored, and for each key its taker, the row found, and who has the key in the end.
    keyed integer[];
    keyed_queue_ids integer[];
    takers integer[];
    queue_ids integer[];
    keys text[];
    found_ids uuid[];
    found_untils text[];
    found_claim_nos integer[];
    found_expiries timestamptz[];
    owners uuid[];
    replaced uuid[];
    successors uuid[];
    left_key_ids bigint[];
    is_repeated boolean;
BEGIN
    WITH item AS MATERIALIZED (
        SELECT
            i.ordinal,
            coalesce(i.id, howdah.new_id(i.ordinal)) AS id,
            d.dedup,
            q.id AS queue_id,
            d.dedup IS NOT NULL AND i.problem IS NULL AND q.id IS NOT NULL AND (i.http IS NOT NULL OR t.id IS NOT NULL) AS is_keyed
        FROM howdah.read_items(items, payloads, now, id_low, id_high, bytes_max) AS i
        JOIN ROWS FROM (json_to_recordset(items) AS (dedup jsonb)) WITH ORDINALITY AS d (dedup, ordinal)
            ON d.ordinal = i.ordinal
        LEFT JOIN howdah.queues AS q ON q.tenant_id = tenant AND q.name = i.queue
        LEFT JOIN howdah.targets AS t ON t.tenant_id = tenant AND t.handler = i.handler
    ),
    keyed_item AS (
        SELECT i.ordinal, i.queue_id
        FROM (
            SELECT w.ordinal, w.queue_id, w.id, row_number() OVER (PARTITION BY w.id ORDER BY w.ordinal) AS nth
            FROM item AS w
            WHERE w.is_keyed
        ) AS i
        -- A subquery each, and no join, which could read all days: the id says in which partition to look.
        WHERE i.nth = 1 AND (SELECT s.id FROM howdah.tasks AS s WHERE s.tenant_id = tenant AND s.id = i.id) IS NULL
    )
    SELECT
        array_agg(i.id ORDER BY i.ordinal), array_agg(i.dedup ORDER BY i.ordinal),
        (SELECT array_agg(k.ordinal ORDER BY k.ordinal) FROM keyed_item AS k),
        (SELECT array_agg(k.queue_id ORDER BY k.ordinal) FROM keyed_item AS k)
    INTO ids, dedups, keyed, keyed_queue_ids
    FROM item AS i;
    IF keyed IS NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;

    SELECT
        array_agg(t.ordinal ORDER BY t.queue_id, t.key), array_agg(t.queue_id ORDER BY t.queue_id, t.key),
        array_agg(t.key ORDER BY t.queue_id, t.key)
    INTO takers, queue_ids, keys
    FROM (
        SELECT DISTINCT ON (k.queue_id, k.key) k.ordinal, k.queue_id, k.key
        FROM (
            SELECT
                i.ordinal, i.queue_id,
                (dedups[i.ordinal] ->> 'key') COLLATE "C" AS key,
                coalesce(dedups[i.ordinal] ->> 'on_conflict', '') = 'replace' AS replaces
            FROM unnest(keyed, keyed_queue_ids) AS i (ordinal, queue_id)
        ) AS k
        ORDER BY k.queue_id, k.key, k.replaces DESC, CASE WHEN k.replaces THEN -k.ordinal ELSE k.ordinal END
    ) AS t;

    WITH held AS (
        INSERT INTO howdah.dedup_keys AS k (tenant_id, queue_id, claim_no, task_id, taken_at, expires_at, until, key)
        SELECT tenant, t.queue_id, 0, ids[t.ordinal], now, m.expires_at, m.until, t.key
        FROM unnest(takers, queue_ids, keys) WITH ORDINALITY AS t (ordinal, queue_id, key, nth)
        CROSS JOIN LATERAL howdah.key_term(dedups[t.ordinal], now) AS m
        ORDER BY t.nth
        -- Changes nothing, but locks the row, and returns it as it is now.
        ON CONFLICT (tenant_id, queue_id, key) DO UPDATE SET task_id = k.task_id
        RETURNING k.queue_id, k.key, k.task_id, k.until, k.claim_no, k.expires_at
    )
    SELECT
        array_agg(h.task_id ORDER BY h.queue_id, h.key), array_agg(h.until ORDER BY h.queue_id, h.key),
        array_agg(h.claim_no ORDER BY h.queue_id, h.key), array_agg(h.expires_at ORDER BY h.queue_id, h.key)
    INTO found_ids, found_untils, found_claim_nos, found_expiries
    FROM held AS h;

    -- worker_id IS NULL, for the reason given in run/park: a run that is leased must not be locked for as long as a
    -- caller's transaction lasts.
    PERFORM 1
    FROM (
        SELECT f.task_id
        FROM unnest(found_ids, found_untils, takers) AS f (task_id, until, taker)
        WHERE f.task_id <> ids[f.taker] AND (f.until = 'started' OR dedups[f.taker] ->> 'on_conflict' = 'replace')
        ORDER BY f.task_id
    ) AS w
    CROSS JOIN LATERAL (
        SELECT r.task_id
        FROM howdah.runs AS r
        WHERE r.tenant_id = tenant AND r.task_id = w.task_id AND r.worker_id IS NULL
        FOR UPDATE
    ) AS l;

    WITH judged AS MATERIALIZED (
        SELECT
            f.nth, f.task_id, ids[f.taker] AS taker_id,
            f.task_id <> ids[f.taker] AND howdah.holds_key(f.until, f.expires_at, f.claim_no, r.claim_no, now) AS is_held,
            dedups[f.taker] ->> 'on_conflict' IS NOT DISTINCT FROM 'replace' AND r.claim_no IS NOT NULL AND r.worker_id IS NULL
                AS is_replaceable,
            f.task_id <> ids[f.taker]
                AND (SELECT s.id FROM howdah.tasks AS s WHERE s.tenant_id = tenant AND s.id = ids[f.taker]) IS NOT NULL AS is_repeated
        FROM unnest(found_ids, found_untils, found_claim_nos, found_expiries, takers) WITH ORDINALITY
            AS f (task_id, until, claim_no, expires_at, taker, nth)
        LEFT JOIN LATERAL (
            SELECT u.claim_no, u.worker_id FROM howdah.runs AS u WHERE u.tenant_id = tenant AND u.task_id = f.task_id LIMIT 1
        ) AS r ON true
    )
    SELECT
        array_agg(CASE WHEN j.is_held AND NOT j.is_replaceable THEN j.task_id ELSE j.taker_id END ORDER BY j.nth),
        array_agg(j.task_id ORDER BY j.task_id) FILTER (WHERE j.is_held AND j.is_replaceable),
        array_agg(j.taker_id ORDER BY j.task_id) FILTER (WHERE j.is_held AND j.is_replaceable),
        bool_or(j.is_repeated)
    INTO owners, replaced, successors, is_repeated
    FROM judged AS j;
    IF is_repeated THEN
        -- Its first attempt was under way when this one looked for its task, and has lost the key since.
        RAISE EXCEPTION 'a task of this batch was stored at the same time' USING ERRCODE = 'serialization_failure';
    END IF;

    IF replaced IS NOT NULL THEN
        WITH gone AS (
            DELETE FROM howdah.runs AS r
            USING unnest(replaced, successors) AS p (task_id, successor)
            WHERE r.tenant_id = tenant AND r.task_id = p.task_id
            RETURNING
                r.task_id, r.attempt, r.queue_id, r.queued_at, r.batch_id, p.successor,
                CASE WHEN r.flow_state = 2 THEN r.flow_key_id END AS left_key_id
        ),
        history AS (
            INSERT INTO howdah.finished_runs (
                tenant_id, task_id, claim_no, attempt, queue_id, outcome, is_final, queued_at, finished_at, error,
                batch_id
            )
            SELECT
                tenant, g.task_id, 0, g.attempt, g.queue_id, 'cancelled', true, g.queued_at, now,
                jsonb_build_object('type', 'replaced', 'message', 'task ' || g.successor || ' with the same dedup key took its place'),
                g.batch_id
            FROM gone AS g
        )
        SELECT array_agg(g.left_key_id) FILTER (WHERE g.left_key_id IS NOT NULL) INTO left_key_ids FROM gone AS g;
        -- Places of flow keys that they held go to the next ones.
        PERFORM pg_notify('howdah_wake', howdah.lane_word(s.queue_id, s.priority, s.run_at))
        FROM howdah.settle('{}', left_key_ids) AS s
        WHERE left_key_ids IS NOT NULL;
    END IF;

    UPDATE howdah.dedup_keys AS k
    SET task_id = t.id, until = t.until, claim_no = 0, taken_at = now, expires_at = t.expires_at
    FROM (
        SELECT o.queue_id, o.key, o.id, m.until, m.expires_at
        FROM unnest(queue_ids, keys, owners, found_ids, takers) AS o (queue_id, key, id, found_id, taker)
        CROSS JOIN LATERAL howdah.key_term(dedups[o.taker], now) AS m
        WHERE o.id <> o.found_id
    ) AS t
    WHERE k.tenant_id = tenant AND k.queue_id = t.queue_id AND k.key = t.key;

    SELECT
        array_agg(a.holder ORDER BY n.ordinal), array_agg(a.problem ORDER BY n.ordinal),
        array_agg(a.priority ORDER BY n.ordinal), array_agg(a.run_at ORDER BY n.ordinal)
    INTO holders, problems, held_priorities, held_run_ats
    FROM generate_series(1, cardinality(ids)) AS n (ordinal)
    LEFT JOIN (
        SELECT
            i.ordinal, o.id AS holder,
            CASE
                WHEN dedups[i.ordinal] ->> 'on_conflict' = 'reject' THEN 'dedup_conflict /dedup/key is held by task ' || o.id
                WHEN dedups[i.ordinal] ->> 'on_conflict' = 'replace' AND o.id <> ids[o.taker]
                    THEN 'dedup_conflict /dedup/key is held by task ' || o.id || ', which does not wait any more'
            END AS problem,
            r.priority, r.run_at
        FROM unnest(keyed, keyed_queue_ids) AS i (ordinal, queue_id)
        JOIN unnest(queue_ids, keys, owners, takers, found_ids, found_untils) AS o (queue_id, key, id, taker, found_id, until)
            ON o.queue_id = i.queue_id AND o.key = (dedups[i.ordinal] ->> 'key') COLLATE "C"
        LEFT JOIN LATERAL (
            SELECT u.priority, u.run_at
            FROM howdah.runs AS u
            WHERE u.tenant_id = tenant AND u.task_id = o.id AND u.blocked_by = 0 AND o.until = 'started' AND o.id = o.found_id
            LIMIT 1
        ) AS r ON true
        WHERE o.id <> ids[i.ordinal]
    ) AS a ON a.ordinal = n.ordinal;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION howdah.take_keys(integer, json, json[], uuid, uuid, integer) IS 'Internal: who has which dedup key of a batch.';
