-- Claim runs of queues that have limits (queues.is_limited): what sql/queries/run/claim.sql does for all others, and
-- the same answer. Limits are exact, since each is counted under a lock, by a statement that began after the lock was
-- had: one that waits for a lock counts with the snapshot from before its wait.
--
-- Each lane (an element of the first five arrays) is looked at up to its share, and 100 runs more if its queue has flow
-- keys. Of these runs, in the order of lanes and in each lane by run_at, task_id:
--   * one whose flow key has no room, or has others that wait for it, is parked (blocked_by 4) until howdah.settle
--     grants it a place; it keeps the place until its task ends, through retries too, so that a key of concurrency 1
--     runs its tasks one after another, in the order of the lane;
--   * one that its flow key's rate does not let start is put off to when it should;
--   * all others are claimed, up to the lane's share and to what the queue's max_running and rate leave.
--
-- A lane in which runs were parked or put off, and fewer were claimed than its share, may have more that is due: it
-- comes back as a row of its own, with nothing but its queue_id and priority.
--
-- A paused queue is passed by. Rate tokens of a queue are taken in blocks of 100 ms, so that its row is updated ten times a second at most.
--
-- A lock that cannot be had within 50 ms is held by a client's open transaction. A queue is left out then; the runs of
-- a flow key are parked, out of the way of others, and the scheduler grants them their place later.
--
-- moves: waiting -> running (claim)
-- moves: waiting -> blocked (hold)
-- moves: waiting -> waiting (put_off)
-- locks: queues in id order, then runs by run_at within each lane (SKIP LOCKED), then flow_keys in id order.
-- Its columns have changed, which CREATE OR REPLACE refuses.
DROP FUNCTION IF EXISTS howdah.claim_limited(integer[], smallint[], timestamptz[], uuid[], integer[], integer[], integer, uuid, double precision, double precision);
CREATE OR REPLACE FUNCTION howdah.claim_limited(
    queue_ids integer[], priorities smallint[], horizon_run_ats timestamptz[], horizon_task_ids uuid[],
    shares integer[], target_ids integer[], worker_id integer, lease_token uuid, lease_s double precision, grace_s double precision
)
RETURNS TABLE (
    tenant_id integer, task_id uuid, queue_id integer, target_id integer, priority smallint, claim_no integer,
    attempt integer, run_at timestamptz, queued_at timestamptz, timeout_s real, deadline_at timestamptz,
    has_task boolean, payload json, http jsonb, tags jsonb, traceparent text, parent_id uuid,
    completes_batch_id uuid, flow_key_id bigint, batch_id uuid, has_follow_ups boolean, crashes smallint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '50ms'
-- The plans with parameters are the right ones; without this a session's first five calls make one each.
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    now timestamptz := howdah.now();
    look_ahead constant integer := 100;
    -- Of the queues whose lock was had, in id order.
    locked_ids integer[];
    queue_room integer[];
    queue_used integer[];
    queue_timeout_s real[];
    -- Of the runs looked at, in order. queue_no and key_no count from 1; a run without a flow key has key_no 0.
    place tid[];
    owner_id integer[];
    task uuid[];
    lane_no integer[];
    queue_no integer[];
    key_no integer[];
    has_place boolean[];
    -- Of their flow keys, in id order.
    key_ids bigint[];
    locked_keys bigint[];
    is_any_missing boolean;
    key_room integer[];
    key_has_rate boolean[];
    key_starts integer[];
    key_used integer[];
    key_opens_at timestamptz[];
    key_line_to timestamptz[];
    key_pause interval[];
    -- What becomes of the runs.
    lane_used integer[] := array_fill(0, ARRAY[cardinality(shares)]);
    lane_passed boolean[] := array_fill(false, ARRAY[cardinality(shares)]);
    is_claimed boolean[];
    parked tid[] := '{}';
    put_off tid[] := '{}';
    put_off_to timestamptz[] := '{}';
    q integer;
    k integer;
BEGIN
    SELECT array_agg(l.id ORDER BY l.id) INTO locked_ids
    FROM (
        SELECT s.id FROM howdah.queues AS s WHERE s.id = ANY (queue_ids) ORDER BY s.id FOR NO KEY UPDATE SKIP LOCKED
    ) AS l;
    IF coalesce(cardinality(locked_ids), 0) < (SELECT count(DISTINCT i.id) FROM unnest(queue_ids) AS i (id)) THEN
        -- Another claim has it for a moment, or a client's transaction for long.
        BEGIN
            PERFORM 1 FROM howdah.queues AS s WHERE s.id = ANY (queue_ids) ORDER BY s.id FOR NO KEY UPDATE;
            SELECT array_agg(s.id ORDER BY s.id) INTO locked_ids FROM howdah.queues AS s WHERE s.id = ANY (queue_ids);
        EXCEPTION
            WHEN lock_not_available THEN
                NULL;
        END;
    END IF;
    IF locked_ids IS NULL THEN
        RETURN;
    END IF;
    now := howdah.now_exactly();

    WITH busy AS MATERIALIZED (
        SELECT r.queue_id, count(*)::integer AS running
        FROM howdah.runs AS r
        WHERE r.lease_expires_at IS NOT NULL AND r.queue_id = ANY (locked_ids)
        GROUP BY r.queue_id
    ),
    offer AS MATERIALIZED (
        SELECT w.queue_id, sum(w.share)::integer AS wanted
        FROM unnest(queue_ids, shares) AS w (queue_id, share)
        GROUP BY w.queue_id
    )
    SELECT
        array_agg(CASE WHEN s.paused_until > now THEN 0 ELSE least(offer.wanted, room.by_running, room.by_rate) END ORDER BY s.id),
        array_agg(s.timeout_s ORDER BY s.id)
    INTO queue_room, queue_timeout_s
    FROM howdah.queues AS s
    JOIN offer ON offer.queue_id = s.id
    CROSS JOIN LATERAL (
        SELECT
            -- Counted only where it matters.
            CASE WHEN s.max_running IS NOT NULL THEN
                s.max_running - coalesce((SELECT b.running FROM busy AS b WHERE b.queue_id = s.id), 0)
            END AS by_running,
            CASE WHEN s.rate_limit IS NOT NULL THEN
                howdah.gate_room(s.gate_at, s.rate_limit, s.rate_period_s, s.rate_burst, now)
            END AS by_rate
    ) AS free
    CROSS JOIN LATERAL (
        SELECT
            free.by_running,
            CASE
                WHEN free.by_rate < least(
                    offer.wanted, free.by_running, howdah.gate_block(s.rate_limit, s.rate_period_s, s.rate_burst)
                ) THEN 0
                ELSE free.by_rate
            END AS by_rate
    ) AS room
    WHERE s.id = ANY (locked_ids);
    queue_used := array_fill(0, ARRAY[cardinality(locked_ids)]);

    SELECT
        array_agg(p.place ORDER BY p.lane_no, p.run_at, p.task_id),
        array_agg(p.tenant_id ORDER BY p.lane_no, p.run_at, p.task_id),
        array_agg(p.task_id ORDER BY p.lane_no, p.run_at, p.task_id),
        array_agg(p.lane_no ORDER BY p.lane_no, p.run_at, p.task_id),
        array_agg(p.queue_no ORDER BY p.lane_no, p.run_at, p.task_id),
        array_agg(CASE WHEN p.flow_key_id IS NULL THEN 0 ELSE p.key_no END ORDER BY p.lane_no, p.run_at, p.task_id),
        array_agg(coalesce(p.flow_state = 2, false) ORDER BY p.lane_no, p.run_at, p.task_id),
        array_agg(DISTINCT p.flow_key_id ORDER BY p.flow_key_id) FILTER (WHERE p.flow_key_id IS NOT NULL)
    INTO place, owner_id, task, lane_no, queue_no, key_no, has_place, key_ids
    FROM (
        SELECT
            ready.place, ready.run_at, ready.tenant_id, ready.task_id, ready.flow_key_id, ready.flow_state,
            lane.no::integer AS lane_no, queue.no::integer AS queue_no,
            (dense_rank() OVER (ORDER BY ready.flow_key_id NULLS LAST))::integer AS key_no
        FROM unnest(queue_ids, priorities, horizon_run_ats, horizon_task_ids, shares) WITH ORDINALITY
            AS lane (queue_id, priority, horizon_run_at, horizon_task_id, share, no)
        JOIN unnest(locked_ids, queue_room) WITH ORDINALITY AS queue (id, room, no)
            ON queue.id = lane.queue_id AND queue.room > 0
        JOIN howdah.queues AS s ON s.id = queue.id
        CROSS JOIN LATERAL (
            SELECT r.ctid AS place, r.run_at, r.tenant_id, r.task_id, r.flow_key_id, r.flow_state
            FROM howdah.runs AS r
            WHERE r.queue_id = lane.queue_id
                AND r.priority = lane.priority
                AND r.lease_token IS NULL
                AND r.target_id = ANY (target_ids)
                AND r.run_at <= now
                AND (r.expires_at IS NULL OR r.expires_at > now)
                AND (r.run_at, r.task_id) >= (lane.horizon_run_at, lane.horizon_task_id)
            ORDER BY r.run_at, r.task_id
            LIMIT least(lane.share, queue.room) + CASE WHEN s.has_flow_keys THEN look_ahead ELSE 0 END
            FOR UPDATE OF r SKIP LOCKED
        ) AS ready
    ) AS p;
    IF place IS NULL THEN
        RETURN;
    END IF;

    IF key_ids IS NOT NULL THEN
        locked_keys := howdah.lock_flow_keys(key_ids);
        is_any_missing := cardinality(locked_keys) < cardinality(key_ids);
        now := howdah.now_exactly();
        -- Of a key that could not be locked nothing may start.
        SELECT
            array_agg(
                CASE
                    WHEN NOT is_locked THEN 0
                    WHEN f.concurrency IS NOT NULL THEN (
                        -- One walk of the index: those who wait come first in it, and leave no room, however few there are.
                        SELECT CASE WHEN min(h.flow_state) = 1 THEN 0 ELSE f.concurrency - count(*)::integer END
                        FROM (
                            SELECT r.flow_state
                            FROM howdah.runs AS r
                            WHERE r.flow_key_id = f.id AND r.flow_state IN (1, 2)
                            ORDER BY r.flow_state
                            LIMIT f.concurrency
                        ) AS h
                    )
                END
                ORDER BY u.id
            ),
            array_agg(f.rate_limit IS NOT NULL ORDER BY u.id),
            array_agg(CASE WHEN is_locked THEN gate.room ELSE 0 END ORDER BY u.id),
            array_agg(
                CASE WHEN f.rate_limit IS NOT NULL THEN
                    greatest(
                        howdah.gate_opens_at(
                            howdah.gate_after(f.gate_at, gate.room, f.rate_limit, f.rate_period_s, now), 1,
                            f.rate_limit, f.rate_period_s, f.rate_burst
                        ),
                        CASE WHEN NOT is_locked THEN now + gate.pause END
                    )
                END
                ORDER BY u.id
            ),
            array_agg(f.put_off_to ORDER BY u.id),
            array_agg(gate.pause ORDER BY u.id)
        INTO key_room, key_has_rate, key_starts, key_opens_at, key_line_to, key_pause
        FROM unnest(key_ids) AS u (id)
        LEFT JOIN howdah.flow_keys AS f ON f.id = u.id
        CROSS JOIN LATERAL (SELECT NOT is_any_missing OR u.id = ANY (locked_keys)) AS lock (is_locked)
        CROSS JOIN LATERAL (
            SELECT
                howdah.gate_room(f.gate_at, f.rate_limit, f.rate_period_s, f.rate_burst, now) AS room,
                make_interval(secs => f.rate_period_s::double precision / f.rate_limit) AS pause
        ) AS gate;
        key_used := array_fill(0, ARRAY[cardinality(key_ids)]);
    END IF;

    is_claimed := array_fill(false, ARRAY[cardinality(place)]);
    FOR i IN 1 .. cardinality(place) LOOP
        q := queue_no[i];
        k := key_no[i];
        CONTINUE WHEN lane_used[lane_no[i]] >= shares[lane_no[i]] OR queue_used[q] >= queue_room[q];
        IF k > 0 THEN
            IF NOT has_place[i] THEN
                IF key_room[k] <= 0 THEN
                    parked := parked || place[i];
                    lane_passed[lane_no[i]] := true;
                    CONTINUE;
                END IF;
                key_room[k] := key_room[k] - 1;
            END IF;
            IF key_has_rate[k] AND key_used[k] >= key_starts[k] THEN
                -- To the head of the line if it has its place, as what was put off before; else to its end.
                put_off := put_off || place[i];
                lane_passed[lane_no[i]] := true;
                IF has_place[i] THEN
                    put_off_to := put_off_to || key_opens_at[k];
                    key_opens_at[k] := key_opens_at[k] + key_pause[k];
                ELSE
                    key_line_to[k] := greatest(key_line_to[k] + key_pause[k], key_opens_at[k]);
                    put_off_to := put_off_to || key_line_to[k];
                END IF;
                CONTINUE;
            END IF;
            key_used[k] := key_used[k] + 1;
        END IF;
        lane_used[lane_no[i]] := lane_used[lane_no[i]] + 1;
        queue_used[q] := queue_used[q] + 1;
        is_claimed[i] := true;
    END LOOP;

    IF parked <> '{}' THEN
        UPDATE howdah.runs AS r
        SET blocked_by = r.blocked_by | 4, flow_state = 1, due_at = r.run_at, run_at = 'infinity'
        WHERE r.ctid = ANY (parked);
    END IF;
    IF put_off <> '{}' THEN
        UPDATE howdah.runs AS r
        SET flow_state = 2, due_at = o.run_at, run_at = o.run_at
        FROM unnest(put_off, put_off_to) AS o (place, run_at)
        WHERE r.ctid = o.place;
    END IF;
    IF true = ANY (key_has_rate) THEN
        UPDATE howdah.flow_keys AS f
        SET gate_at = CASE WHEN u.used > 0 THEN howdah.gate_after(f.gate_at, u.used, f.rate_limit, f.rate_period_s, now) ELSE f.gate_at END,
            put_off_to = u.line_to
        FROM unnest(key_ids, key_used, key_line_to) AS u (id, used, line_to)
        WHERE f.id = u.id
            AND f.id = ANY (locked_keys)
            AND f.rate_limit IS NOT NULL
            AND (u.used > 0 OR u.line_to IS DISTINCT FROM f.put_off_to);
    END IF;
    UPDATE howdah.queues AS s
    SET gate_at = howdah.gate_after(s.gate_at, u.used, s.rate_limit, s.rate_period_s, now)
    FROM unnest(locked_ids, queue_used) AS u (id, used)
    WHERE s.id = u.id AND s.rate_limit IS NOT NULL AND u.used > 0;

    RETURN QUERY
    UPDATE howdah.runs AS r
    SET claim_no = r.claim_no + 1,
        attempt = r.attempt + 1,
        flow_state = CASE WHEN r.flow_key_id IS NOT NULL THEN 2 END,
        lease_token = claim_limited.lease_token,
        lease_expires_at = now
            + make_interval(secs => least(lease_s, coalesce(t.timeout_s, picked.timeout_s) + grace_s)),
        deadline_at = now + make_interval(secs => coalesce(t.timeout_s, picked.timeout_s)),
        worker_id = claim_limited.worker_id,
        claimed_at = now
    FROM (
        SELECT c.place, c.owner_id, c.task, queue_timeout_s[c.queue_no] AS timeout_s
        FROM unnest(place, owner_id, task, queue_no, is_claimed) AS c (place, owner_id, task, queue_no, is_claimed)
        WHERE c.is_claimed
    ) AS picked
    LEFT JOIN howdah.tasks AS t ON t.tenant_id = picked.owner_id AND t.id = picked.task
    WHERE r.ctid = picked.place
    RETURNING
        r.tenant_id, r.task_id, r.queue_id, r.target_id, r.priority, r.claim_no, r.attempt, r.run_at, r.queued_at,
        coalesce(t.timeout_s, picked.timeout_s), r.deadline_at,
        t.id IS NOT NULL, t.payload, t.http, t.tags, t.traceparent, t.parent_id,
        t.completes_batch_id, r.flow_key_id, r.batch_id, r.has_follow_ups, r.crashes;
    RETURN QUERY
    SELECT
        NULL::integer, NULL::uuid, l.queue_id, NULL::integer, l.priority, NULL::integer, NULL::integer, NULL::timestamptz,
        NULL::timestamptz, NULL::real, NULL::timestamptz, NULL::boolean, NULL::json, NULL::jsonb, NULL::jsonb, NULL::text,
        NULL::uuid, NULL::uuid, NULL::bigint, NULL::uuid, NULL::boolean, NULL::smallint
    FROM unnest(queue_ids, priorities, shares, lane_used, lane_passed) AS l (queue_id, priority, share, used, has_passed)
    WHERE l.has_passed AND l.used < l.share;
END
$$;
COMMENT ON FUNCTION howdah.claim_limited(integer[], smallint[], timestamptz[], uuid[], integer[], integer[], integer, uuid, double precision, double precision) IS 'Internal: claims runs of queues that have limits.';
