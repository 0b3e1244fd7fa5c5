-- Why a task stands where it does, above all why it is not running: one row for each reason, the first one
-- first. code is for programs, message for people; until is when the reason ends by itself, if that is known.
--
-- not_due, retry_wait: its time, or that of its next attempt, has not come.
-- paused: its queue is paused, since when, by whom, why, and until when.
-- flow_key_full: its flow key has as many tasks under way as it may; which ones.
-- flow_rate: the rate of its flow key has put it off.
-- queue_full, queue_rate: its queue has as many runs under way as it may, and which; or has started as many as its
--   rate allows for now.
-- no_worker: no live worker has its handler (or delivers callbacks); it is parked until one registers.
-- unserved: live workers have it, but none of them claims from its queue (HOWDAH_QUEUES).
-- behind: due, with so many due runs of its lane before it (10,000 means at least that).
-- next: due, and first in its lane: the next claim of a worker with a free slot takes it.
-- running, cancel_requested, lease_expired: a worker holds it, was asked to stop it, or has been silent for too
--   long, so that rescue will take it back.
-- alone: two workers were lost with it, so a worker executes it with nothing beside it: it is held for that, or will be.
-- expired: its expires_at has passed, and a scheduler ends it within a second or two.
-- expires: comes last, of one that waits: it ends at that time unless it has started by then.
-- awaiting_callback, callback_overdue: its receiver answered 202 and owes the outcome, until then; or has not
--   called in time, so that rescue will end the attempt.
-- ended: it has ended, and how.
--
-- Reads a few rows by key, the live workers, and of a due task the leased rows and at most 10,000 entries of
-- runs_ready_idx, beside what vacuum has not taken from it yet. Raises JQ404 if there is no such task.
CREATE OR REPLACE FUNCTION howdah.explain(id uuid, tenant text DEFAULT NULL)
RETURNS TABLE (code text, message text, until timestamptz, run_count integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number constant integer := howdah.tenant_number(tenant);
    task ALIAS FOR id;
    now constant timestamptz := howdah.now();
    ahead_max constant integer := 10000;
    holders_max constant integer := 5;
    run howdah.runs;
    queue text;
    is_paused boolean := false;
    target text;
    worker text;
    able integer;
    claiming integer[];
    slots integer;
    busy integer;
    ahead integer;
    last_error jsonb;
BEGIN
    SELECT r.* INTO run FROM howdah.runs AS r WHERE r.tenant_id = number AND r.task_id = task;
    IF NOT FOUND THEN
        RETURN QUERY
        SELECT
            'ended',
            format('it has ended: it is %s', s.state) || coalesce(', because of ' || d.reason, '')
                || CASE
                    WHEN s.state <> 'succeeded' OR s.is_recorded THEN ''
                    WHEN q.keep_history = 'all' THEN '; there is no record of that: its queue kept none then, or rows were deleted'
                    ELSE format('; of that, queue %s keeps no record', q.name)
                END,
            NULL::timestamptz, NULL::integer
        FROM (
            SELECT
                howdah.ended_state(number, task) AS state,
                EXISTS (
                    SELECT
                    FROM howdah.finished_runs AS f
                    WHERE f.tenant_id = number AND f.task_id = task AND f.is_final
                ) AS is_recorded
        ) AS s
        LEFT JOIN howdah.dead_letters AS d ON d.tenant_id = number AND d.task_id = task
        LEFT JOIN howdah.tasks AS t ON t.tenant_id = number AND t.id = task
        LEFT JOIN howdah.queues AS q ON q.id = t.queue_id;
        RETURN;
    END IF;
    SELECT q.name, coalesce('handler ' || t.handler, 'HTTP callbacks') INTO queue, target
    FROM howdah.queues AS q
    JOIN howdah.targets AS t ON t.id = run.target_id
    WHERE q.id = run.queue_id;

    IF run.awaiting_at IS NOT NULL THEN
        RETURN QUERY SELECT
            'awaiting_callback',
            format('its receiver accepted attempt %s at %s, and is to report the outcome', run.attempt, run.awaiting_at)
            || CASE WHEN run.lease_expires_at < run.deadline_at THEN ', or to send a heartbeat' ELSE '' END,
            run.lease_expires_at, NULL::integer;
        IF run.lease_expires_at < now THEN
            RETURN QUERY SELECT
                'callback_overdue', 'its receiver has not called in time; a scheduler ends the attempt',
                NULL::timestamptz, NULL::integer;
        END IF;
        RETURN;
    END IF;

    IF run.lease_token IS NOT NULL THEN
        SELECT w.name INTO worker FROM howdah.workers AS w WHERE w.id = run.worker_id;
        IF run.alone_state = 1 THEN
            RETURN QUERY SELECT
                'alone',
                format('%s workers were lost with it; worker %s executes it alone, once it has ended what else it has', run.crashes, worker),
                NULL::timestamptz, NULL::integer;
        ELSE
            RETURN QUERY SELECT
                'running', format('worker %s has run attempt %s since %s', worker, run.attempt, run.claimed_at),
                run.deadline_at, NULL::integer;
        END IF;
        IF run.cancel_mode IS NOT NULL THEN
            RETURN QUERY SELECT
                'cancel_requested', format('its worker was asked to stop it (%s)', run.cancel_mode),
                NULL::timestamptz, NULL::integer;
        END IF;
        IF run.lease_expires_at < now THEN
            RETURN QUERY SELECT
                'lease_expired', 'its worker has not renewed the lease; a scheduler takes the run back',
                NULL::timestamptz, NULL::integer;
        END IF;
        RETURN;
    END IF;

    IF run.expires_at <= now THEN
        RETURN QUERY SELECT
            'expired', format('it was not started before %s, and has expired; a scheduler ends it', run.expires_at),
            NULL::timestamptz, NULL::integer;
        RETURN;
    END IF;

    IF run.due_at > now THEN
        IF run.attempt > 0 THEN
            SELECT f.error INTO last_error
            FROM howdah.finished_runs AS f
            WHERE f.tenant_id = number AND f.task_id = task AND f.error IS NOT NULL
            ORDER BY f.claim_no DESC
            LIMIT 1;
            RETURN QUERY SELECT
                'retry_wait',
                format('attempt %s did not succeed%s; the next one is due at %s', run.attempt,
                    coalesce(' (' || (last_error ->> 'type') || ': ' || left(last_error ->> 'message', 200) || ')', ''), run.due_at),
                run.due_at, NULL::integer;
        ELSE
            RETURN QUERY
            SELECT
                CASE WHEN run.flow_state = 2 THEN 'flow_rate' ELSE 'not_due' END,
                CASE
                    WHEN run.flow_state = 2
                        THEN format('the rate of its flow key (%s in %s s) has put it off until %s', f.rate_limit, f.rate_period_s, run.due_at)
                    ELSE format('it is due at %s', run.due_at)
                END,
                run.due_at, NULL::integer
            FROM (SELECT 1) AS one
            LEFT JOIN howdah.flow_keys AS f ON f.id = run.flow_key_id;
        END IF;
    END IF;
    IF run.blocked_by & 4 <> 0 THEN
        RETURN QUERY
        SELECT
            'flow_key_full',
            format('flow key %s lets %s of its tasks go on at once; places are held by %s', f.key, f.concurrency, coalesce(holder.tasks, 'nobody any more')),
            NULL::timestamptz, NULL::integer
        FROM howdah.flow_keys AS f
        CROSS JOIN LATERAL (
            SELECT string_agg(h.task_id::text, ', ' ORDER BY h.task_id) AS tasks
            FROM (
                SELECT r.task_id FROM howdah.runs AS r WHERE r.flow_key_id = f.id AND r.flow_state = 2 LIMIT holders_max
            ) AS h
        ) AS holder
        WHERE f.id = run.flow_key_id;
    END IF;

    FOR message, until IN
        SELECT
            format('queue %s is paused since %s by %s%s', q.name, q.paused_at, q.paused_by, coalesce(': ' || q.pause_reason, '')),
            nullif(q.paused_until, 'infinity')
        FROM howdah.queues AS q
        WHERE q.id = run.queue_id AND q.paused_until > now
    LOOP
        is_paused := true;
        code := 'paused';
        RETURN NEXT;
    END LOOP;

    RETURN QUERY
    SELECT
        'queue_full',
        format('queue %s lets %s of its runs go on at once, and these do: %s', q.name, q.max_running, busy_with.tasks),
        NULL::timestamptz, NULL::integer
    FROM howdah.queues AS q
    CROSS JOIN LATERAL (
        SELECT
            count(*) AS count,
            array_to_string((array_agg(r.task_id::text ORDER BY r.task_id))[:holders_max], ', ')
                || CASE WHEN count(*) > holders_max THEN ', …' ELSE '' END AS tasks
        FROM howdah.runs AS r
        WHERE r.lease_expires_at IS NOT NULL AND r.queue_id = q.id
    ) AS busy_with
    WHERE q.id = run.queue_id AND q.max_running <= busy_with.count;
    RETURN QUERY
    SELECT
        'queue_rate',
        format('queue %s has started as many runs as its rate allows (%s in %s s) until %s', q.name, q.rate_limit, q.rate_period_s, gate.opens_at),
        gate.opens_at, NULL::integer
    FROM howdah.queues AS q
    CROSS JOIN LATERAL (
        SELECT howdah.gate_opens_at(q.gate_at, 1, q.rate_limit, q.rate_period_s, q.rate_burst) AS opens_at
    ) AS gate
    WHERE q.id = run.queue_id AND gate.opens_at > now;

    -- As in the view stuck: a worker is live until it is silent, and consumers over HTTP are workers for their tenant.
    SELECT count(*), array_agg(w.id) FILTER (WHERE w.claims), sum(w.concurrency) FILTER (WHERE w.claims)
    INTO able, claiming, slots
    FROM (
        SELECT l.id, l.concurrency, queue LIKE ANY (howdah.like_patterns(l.queues)) AS claims
        FROM howdah.workers AS l
        JOIN howdah.targets AS t ON t.id = run.target_id
        WHERE coalesce(l.tenant_id, number) = number
            AND l.stopped_at IS NULL
            AND l.stopping_at IS NULL
            AND l.heartbeat_at > now - make_interval(secs => l.silent_after_s)
            AND CASE WHEN t.id = 0 THEN l.serves_http ELSE t.handler = ANY (l.handlers) END
    ) AS w;
    IF able = 0 THEN
        RETURN QUERY SELECT
            'no_worker', format('no live worker serves %s', target), NULL::timestamptz, NULL::integer;
    ELSIF claiming IS NULL THEN
        RETURN QUERY SELECT
            'unserved', format('%s live workers serve %s, and none of them claims from queue %s', able, target, queue),
            NULL::timestamptz, NULL::integer;
    ELSIF run.blocked_by & 8 <> 0 THEN
        RETURN QUERY SELECT
            'no_worker', format('no live worker served %s until now; a scheduler releases it', target),
            NULL::timestamptz, NULL::integer;
    ELSIF run.due_at <= now AND run.blocked_by = 0 AND NOT is_paused THEN
        SELECT count(*) INTO ahead
        FROM (
            SELECT 1
            FROM howdah.runs AS r
            WHERE r.queue_id = run.queue_id
                AND r.priority = run.priority
                AND r.lease_token IS NULL
                AND (r.run_at, r.task_id) < (run.run_at, run.task_id)
            LIMIT ahead_max
        ) AS before;
        SELECT count(*) INTO busy
        FROM howdah.runs AS r
        WHERE r.lease_expires_at IS NOT NULL AND r.awaiting_at IS NULL AND r.worker_id = ANY (claiming);
        RETURN QUERY SELECT
            CASE WHEN ahead = 0 THEN 'next' ELSE 'behind' END,
            CASE
                WHEN ahead = 0 THEN 'it is the next of its queue and priority'
                ELSE format('%s%s due runs of its queue and priority come before it', CASE WHEN ahead = ahead_max THEN 'at least ' END, ahead)
            END || format('; %s workers claim it, and hold %s runs at %s slots', cardinality(claiming), busy, slots),
            NULL::timestamptz, ahead;
    END IF;
    IF run.crashes >= 2 AND run.target_id <> 0 THEN
        RETURN QUERY SELECT
            'alone', format('%s workers were lost with it: the next one executes it alone', run.crashes),
            NULL::timestamptz, NULL::integer;
    END IF;
    IF run.expires_at IS NOT NULL THEN
        RETURN QUERY SELECT
            'expires',
            format('it expires at %s', run.expires_at)
                || CASE WHEN run.due_at < run.expires_at THEN ' unless it has started by then' ELSE ', before it is due' END,
            run.expires_at, NULL::integer;
    END IF;
END
$$;
COMMENT ON FUNCTION howdah.explain(uuid, text) IS 'Why a task stands where it does, above all why it is not running: one row for each reason.';
