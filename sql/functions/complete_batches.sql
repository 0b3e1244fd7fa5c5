-- Complete those of some batches that are closed and have no live run any more: take their counts down and enqueue
-- their follow-ups, in one transaction and once, whoever else tries at the same moment. Whoever ends runs of batches
-- calls it with their batches, after the commit of the outcomes; calling it too often changes nothing. Two that end the
-- last two runs inside of transactions, both before either commits, leave it to the scheduler, which comes by within a
-- second.
--
-- on_complete is enqueued in any case; on_success if every task has succeeded, also where there are none; on_failure
-- if one has failed or expired. A batch of which tasks were cancelled, and none failed, has neither. A follow-up that
-- brings no payload, nor a body of its own, gets the counts as its payload, unless it is a GET or HEAD. They were promised: see howdah.enqueue_rows.
--
-- 1. Without any lock: is a run of it live? Runs end in the order of their ids, more or less, and those that have ended
--    leave dead entries at the front of the index for as long as anybody's snapshot may see them. So the last one is
--    asked for.
-- 2. The batch's row is locked, unless somebody has it, who completes it or adds a task to it.
-- 3. With a fresh snapshot, and one for both: is a run live, and what are the counts? From here on none can come to be:
--    who adds tasks to a batch locks its row and finds it closed (howdah.join_batches); what a member enqueues when it
--    ends appears together with that end; and a dead letter that is taken back is live in the snapshot or is not.
--
-- One row for each batch that was completed, or was about to be; error says why a follow-up was not enqueued, or why
-- the batch could not be completed: somebody holds a dedup key that a follow-up brings, for example, for which nobody is
-- kept waiting here. Workers are told in this transaction.
--
-- In a transaction with an older snapshot nothing is done: what it sees may be over.
--
-- moves: new -> waiting (enqueue)
-- locks: batches in (tenant_id, id) order, SKIP LOCKED; what howdah.enqueue_rows locks, for 20 ms each, and 1 ms once
--   250 ms are over.
CREATE OR REPLACE FUNCTION howdah.complete_batches(tenant_ids integer[], batch_ids uuid[])
RETURNS TABLE (tenant_id integer, batch_id uuid, is_complete boolean, error text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '20ms'
-- As in howdah.cancel_runs.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    quiet record;
    patient_until constant timestamptz := clock_timestamp() + interval '250 ms';
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RETURN;
    END IF;
    FOR quiet IN
        SELECT b.tenant_id, b.id
        FROM (
            SELECT DISTINCT u.tenant_id, u.id FROM unnest(tenant_ids, batch_ids) AS u (tenant_id, id) ORDER BY u.tenant_id, u.id
        ) AS i
        CROSS JOIN LATERAL (
            SELECT a.tenant_id, a.id
            FROM howdah.batches AS a
            WHERE a.tenant_id = i.tenant_id AND a.id = i.id AND a.closed_at IS NOT NULL AND a.completed_at IS NULL
        ) AS b
        WHERE (
            SELECT r.task_id
            FROM howdah.runs AS r
            WHERE r.tenant_id = b.tenant_id AND r.batch_id = b.id
            ORDER BY r.tenant_id DESC, r.batch_id DESC, r.task_id DESC
            LIMIT 1
        ) IS NULL
    LOOP
        tenant_id := quiet.tenant_id;
        batch_id := quiet.id;
        IF clock_timestamp() > patient_until THEN
            -- Many that are held up must not keep the others waiting for long.
            PERFORM set_config('lock_timeout', '1ms', true);
        END IF;
        BEGIN
            PERFORM 1
            FROM howdah.batches AS b
            WHERE b.tenant_id = quiet.tenant_id AND b.id = quiet.id AND b.completed_at IS NULL
            FOR NO KEY UPDATE OF b SKIP LOCKED;
            CONTINUE WHEN NOT FOUND;
            UPDATE howdah.batches AS b
            SET completed_at = howdah.now(),
                task_count = c.task_count,
                succeeded = c.succeeded,
                failed = c.failed,
                cancelled = c.cancelled,
                expired = c.expired
            FROM howdah.batches AS a
            CROSS JOIN LATERAL howdah.batch_counts(a.tenant_id, a.id, a.created_at) AS c
            WHERE a.tenant_id = quiet.tenant_id
                AND a.id = quiet.id
                AND c.pending = 0
                AND b.tenant_id = a.tenant_id
                AND b.id = a.id;
            CONTINUE WHEN NOT FOUND;
            error := howdah.follow_batch(quiet.tenant_id, quiet.id);
            is_complete := true;
        EXCEPTION
            WHEN OTHERS THEN
                error := SQLERRM;
                is_complete := false;
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION howdah.complete_batches(integer[], uuid[]) IS 'Internal: completes batches that are closed and have no live run, and enqueues their follow-ups.';
