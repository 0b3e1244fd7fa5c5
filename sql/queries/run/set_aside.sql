-- Take note of runs that their worker holds and has not started, because it is to execute each of them alone.
-- params: tenant_ids, task_ids, lease_tokens, timeouts_s, waits_s: one element per run; how long it may take, and wait.
-- locks: runs, SKIP LOCKED: a loss of one that is passed by is judged as that of any other run.
-- index: runs_pkey
-- If the worker is lost meanwhile, that costs them nothing: see run/fail. The deadline, past which no lease is renewed,
-- counted from the claim; now it leaves time to wait.
WITH held AS MATERIALIZED (
    SELECT run.tenant_id, run.task_id, i.timeout_s + i.wait_s AS allowed_s
    FROM unnest(
        %(tenant_ids)b::integer[], %(task_ids)b::uuid[], %(lease_tokens)b::uuid[], %(timeouts_s)b::double precision[],
        %(waits_s)b::double precision[]
    ) AS i (tenant_id, task_id, lease_token, timeout_s, wait_s)
    CROSS JOIN LATERAL (
        SELECT r.tenant_id, r.task_id
        FROM howdah.runs AS r
        WHERE r.tenant_id = i.tenant_id AND r.task_id = i.task_id AND r.lease_token IS NOT DISTINCT FROM i.lease_token
        FOR UPDATE OF r SKIP LOCKED
    ) AS run
)
UPDATE howdah.runs AS r
SET alone_state = 1,
    deadline_at = howdah.now() + make_interval(secs => held.allowed_s)
FROM held
WHERE r.tenant_id = held.tenant_id AND r.task_id = held.task_id
