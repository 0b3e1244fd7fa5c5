-- Take note that a receiver is still at a run whose outcome it owes, and say until when it may be silent.
-- params: tenant_id, task_id, lease_token: the lease; extend_s: seconds until its next sign of life is due, or NULL for
--   the task's heartbeat_timeout, without which none is due before the deadline.
-- returns: one row while the lease is held: is_awaiting; lease_expires_at and deadline_at, which are the worker's own
--   until is_awaiting.
-- moves: awaiting -> awaiting (heartbeat)
-- locks: the run.
-- index: runs_pkey, tasks_pkey
-- The deadline is the client's, and stays. A receiver may be faster than the worker that has its 202: that run is
-- held by the worker still, and nothing is changed.
UPDATE howdah.runs AS r
SET lease_expires_at = CASE
    WHEN r.awaiting_at IS NULL THEN r.lease_expires_at
    ELSE least(
        r.deadline_at,
        howdah.now() + make_interval(
            secs => coalesce(
                %(extend_s)b::double precision,
                (
                    SELECT howdah.duration_s(t.http ->> 'heartbeat_timeout')
                    FROM howdah.tasks AS t
                    WHERE t.tenant_id = %(tenant_id)b::integer AND t.id = %(task_id)b::uuid
                )
            )
        )
    )
END
WHERE r.tenant_id = %(tenant_id)b::integer
    AND r.task_id = %(task_id)b::uuid
    AND r.lease_token IS NOT DISTINCT FROM %(lease_token)b::uuid
RETURNING r.awaiting_at IS NOT NULL AS is_awaiting, r.lease_expires_at, r.deadline_at
