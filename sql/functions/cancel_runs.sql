-- Cancel tasks of one tenant, as a set: those that wait end at once, with a history row of claim number 0; running ones
-- are asked to stop, a hard request staying hard. stage waiting leaves running ones alone, running those that wait, NULL
-- neither. One row for each task that has a live run in that stage: its state after the call, cancelled or running,
-- whether the request is news to a running one, and its worker, whom the caller wakes. One whose receiver owes its
-- outcome has no worker, and ends at once; a later callback is told so.
--
-- What limits of queues and flow keys counted them for goes to the next ones, in this transaction; and a batch of which
-- they were the last is complete.
--
-- The runs are locked by a statement of its own. In one with what follows, a run that was claimed meanwhile was seen as
-- it is by the lock, and as it was by the UPDATE. Locked rows cannot move, so they are found again by ctid: a join by
-- keys began with all runs of the tenant where statistics said that they are few.
--
-- moves: waiting -> cancelled (cancel)
-- moves: blocked -> cancelled (cancel)
-- moves: awaiting -> cancelled (cancel)
-- moves: running -> running (cancel_request)
CREATE OR REPLACE FUNCTION howdah.cancel_runs(tenant_id integer, ids uuid[], mode text, stage text)
RETURNS TABLE (task_id uuid, state text, is_news boolean, worker_id integer)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- Runs are found by their keys, whatever the statistics say.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    tenant ALIAS FOR tenant_id;
    wanted_mode ALIAS FOR mode;
    wanted_stage ALIAS FOR stage;
    held uuid[];
    left_queue_ids integer[];
    left_key_ids bigint[];
    left_batch_ids uuid[];
BEGIN
    SELECT
        array_agg(run.task_id),
        array_agg(DISTINCT run.queue_id) FILTER (WHERE run.awaiting_at IS NOT NULL),
        array_agg(DISTINCT run.flow_key_id) FILTER (
            WHERE run.flow_state = 2 AND (run.lease_token IS NULL OR run.awaiting_at IS NOT NULL)
        ),
        array_agg(DISTINCT run.batch_id) FILTER (
            WHERE run.batch_id IS NOT NULL AND (run.lease_token IS NULL OR run.awaiting_at IS NOT NULL)
        )
    INTO held, left_queue_ids, left_key_ids, left_batch_ids
    FROM (SELECT u.id FROM unnest(ids) AS u (id) ORDER BY u.id) AS i
    CROSS JOIN LATERAL (
        SELECT r.task_id, r.queue_id, r.lease_token, r.awaiting_at, r.flow_key_id, r.flow_state, r.batch_id
        FROM howdah.runs AS r
        WHERE r.tenant_id = tenant
            AND r.task_id = i.id
            AND (wanted_stage IS NULL OR (r.lease_token IS NOT NULL) = (wanted_stage = 'running'))
        FOR UPDATE OF r
    ) AS run;
    RETURN QUERY
    WITH run AS MATERIALIZED (
        SELECT l.*
        FROM unnest(held) AS h (id)
        CROSS JOIN LATERAL (
            SELECT
                r.ctid, r.task_id, r.queue_id, r.claim_no, r.attempt, r.queued_at, r.claimed_at, r.awaiting_at, r.worker_id,
                r.batch_id, r.lease_token, r.lease_token IS NOT NULL AND r.awaiting_at IS NULL AS is_leased,
                r.cancel_mode IS NULL OR (r.cancel_mode = 'soft' AND wanted_mode = 'hard') AS is_news
            FROM howdah.runs AS r
            WHERE r.tenant_id = tenant AND r.task_id = h.id
            OFFSET 0
        ) AS l
    ),
    ended AS (
        DELETE FROM howdah.runs AS r
        USING run
        WHERE NOT run.is_leased AND r.ctid = run.ctid
    ),
    history AS (
        INSERT INTO howdah.finished_runs (
            tenant_id, task_id, claim_no, attempt, queue_id, worker_id, outcome, is_final, duration_s, queued_at,
            claimed_at, finished_at, lease_token, batch_id
        )
        -- With its token, by which a later callback is recognised. The columns of a claim are NULL while it waits.
        SELECT
            tenant, run.task_id, CASE WHEN run.awaiting_at IS NULL THEN 0 ELSE run.claim_no END, run.attempt, run.queue_id,
            run.worker_id, 'cancelled', true, extract(epoch FROM howdah.now() - run.claimed_at), run.queued_at,
            run.claimed_at, (SELECT howdah.now()), run.lease_token, run.batch_id
        FROM run
        WHERE NOT run.is_leased
    ),
    asked AS (
        UPDATE howdah.runs AS r
        SET cancel_mode = wanted_mode
        FROM run
        WHERE run.is_leased AND run.is_news AND r.ctid = run.ctid
    )
    SELECT run.task_id, CASE WHEN run.is_leased THEN 'running' ELSE 'cancelled' END, run.is_news, run.worker_id
    FROM run;
    IF left_queue_ids IS NOT NULL OR left_key_ids IS NOT NULL THEN
        PERFORM pg_notify('howdah_wake', howdah.lane_word(s.queue_id, s.priority, s.run_at))
        FROM howdah.settle(coalesce(left_queue_ids, '{}'), coalesce(left_key_ids, '{}')) AS s;
    END IF;
    IF left_batch_ids IS NOT NULL THEN
        PERFORM FROM howdah.complete_batches(array_fill(tenant, ARRAY[cardinality(left_batch_ids)]), left_batch_ids);
    END IF;
END
$$;
COMMENT ON FUNCTION howdah.cancel_runs(integer, uuid[], text, text) IS 'Internal: cancels tasks that wait, and asks running ones to stop.';
