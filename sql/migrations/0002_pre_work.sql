-- Tables of the work itself: tasks, live runs, finished runs, dead letters, workers.
-- reason: first version

CREATE TABLE howdah.tasks (
    tenant_id integer NOT NULL,
    id uuid NOT NULL,
    queue_id integer NOT NULL,
    target_id integer NOT NULL,
    priority smallint NOT NULL,
    timeout_s real,
    created_at timestamptz NOT NULL,
    run_at timestamptz NOT NULL,
    traceparent text,
    retry jsonb,
    tags jsonb,
    http jsonb,
    payload json,
    CONSTRAINT tasks_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT tasks_priority_check CHECK (priority BETWEEN 0 AND 3),
    CONSTRAINT tasks_http_check CHECK ((target_id = 0) = (http IS NOT NULL)),
    CONSTRAINT tasks_run_at_check CHECK (isfinite(run_at))
) PARTITION BY RANGE (id);

-- One row per live task, about 120 bytes. No index begins with a state, and no update
-- is HOT (every transition moves the row between the partial indexes), so fillfactor
-- stays 100. vacuum_truncate is off because truncation takes an exclusive lock on the
-- hottest table. Vacuum starts at a fixed number of dead rows: a scale factor would let
-- a backlog of 10 million rows gather millions of dead index entries first. cost_delay
-- 0 lets it finish within a second or two instead of trailing behind 60,000 dead rows
-- a second. Statistics are not worth refreshing often: the claim's plan is pinned.
CREATE TABLE howdah.runs (
    tenant_id integer NOT NULL,
    task_id uuid NOT NULL,
    queue_id integer NOT NULL,
    target_id integer NOT NULL,
    worker_id integer,
    claim_no integer NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 0,
    crashes smallint NOT NULL DEFAULT 0,
    priority smallint NOT NULL,
    blocked_by integer NOT NULL DEFAULT 0,
    run_at timestamptz NOT NULL,
    queued_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    claimed_at timestamptz,
    lease_expires_at timestamptz,
    deadline_at timestamptz,
    lease_token uuid,
    cancel_mode text,
    CONSTRAINT runs_pkey PRIMARY KEY (tenant_id, task_id),
    CONSTRAINT runs_lease_check CHECK (
        (lease_token IS NULL) = (lease_expires_at IS NULL)
        AND (lease_token IS NULL) = (deadline_at IS NULL)
        AND (lease_token IS NULL) = (worker_id IS NULL)
        AND (lease_token IS NULL) = (claimed_at IS NULL)
    ),
    CONSTRAINT runs_priority_check CHECK (priority BETWEEN 0 AND 4),
    CONSTRAINT runs_blocked_check CHECK ((blocked_by = 0) = isfinite(run_at)),
    CONSTRAINT runs_attempt_check CHECK (attempt BETWEEN 0 AND claim_no),
    CONSTRAINT runs_cancel_mode_check CHECK (
        cancel_mode IS NULL OR (cancel_mode IN ('soft', 'hard') AND lease_token IS NOT NULL)
    )
) WITH (
    vacuum_truncate = off,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_scale_factor = 0.2,
    autovacuum_analyze_threshold = 10000,
    autovacuum_analyze_scale_factor = 0.1
);

CREATE INDEX runs_ready_idx ON howdah.runs (queue_id, priority, run_at, task_id) WHERE lease_token IS NULL;
-- The same rows as lease_token IS NOT NULL (runs_lease_check). Said this way, a search for expired leases
-- can use no other index, and one for a token or a queue's running runs never this one: with equal
-- predicates the planner took the wrong one whenever statistics were taken while nothing ran.
CREATE INDEX runs_lease_idx ON howdah.runs (lease_expires_at) WHERE lease_expires_at IS NOT NULL;
CREATE INDEX runs_running_idx ON howdah.runs (queue_id) WHERE lease_token IS NOT NULL;

CREATE TABLE howdah.finished_runs (
    tenant_id integer NOT NULL,
    task_id uuid NOT NULL,
    claim_no integer NOT NULL,
    attempt integer NOT NULL,
    queue_id integer NOT NULL,
    worker_id integer,
    outcome text NOT NULL,
    is_final boolean NOT NULL,
    response_status smallint,
    duration_s real,
    queued_at timestamptz NOT NULL,
    claimed_at timestamptz,
    finished_at timestamptz NOT NULL,
    lease_token uuid,
    result json,
    error jsonb,
    response_body text,
    CONSTRAINT finished_runs_pkey PRIMARY KEY (tenant_id, task_id, claim_no),
    CONSTRAINT finished_runs_outcome_check CHECK (
        outcome IN ('succeeded', 'failed', 'released', 'lost', 'timed_out', 'cancelled', 'expired')
    )
) PARTITION BY RANGE (task_id);
-- Failures of the last day may belong to tasks of any age, and without this index the view of them would
-- read the whole history. Successes only pay for its predicate (not measurable; a failure 1.4 µs of 5.5).
CREATE INDEX finished_runs_failed_idx ON howdah.finished_runs (finished_at)
WHERE outcome IN ('failed', 'timed_out', 'lost');

CREATE TABLE howdah.dead_letters (
    tenant_id integer NOT NULL,
    task_id uuid NOT NULL,
    queue_id integer NOT NULL,
    target_id integer NOT NULL,
    priority smallint NOT NULL,
    claim_no integer NOT NULL,
    attempt integer NOT NULL,
    crashes smallint NOT NULL,
    reason text NOT NULL,
    queued_at timestamptz NOT NULL,
    dead_at timestamptz NOT NULL,
    error jsonb,
    CONSTRAINT dead_letters_pkey PRIMARY KEY (tenant_id, task_id),
    CONSTRAINT dead_letters_reason_check CHECK (reason IN ('attempts', 'age', 'crashes', 'not_retryable'))
);
CREATE INDEX dead_letters_queue_idx ON howdah.dead_letters (queue_id, task_id);

CREATE TABLE howdah.workers (
    id integer GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    queues text[] NOT NULL,
    handlers text[] NOT NULL,
    serves_http boolean NOT NULL,
    concurrency integer NOT NULL,
    lease_s real NOT NULL,
    started_at timestamptz NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    stopping_at timestamptz,
    stopped_at timestamptz,
    CONSTRAINT workers_pkey PRIMARY KEY (id),
    CONSTRAINT workers_lease_s_check CHECK (lease_s BETWEEN 1 AND 3600)
);
CREATE INDEX workers_live_idx ON howdah.workers (heartbeat_at) WHERE stopped_at IS NULL;

COMMENT ON TABLE howdah.tasks IS 'What clients asked for. Immutable, apart from the few fields an operator may edit while a task waits. One partition a day, by the time in the id (UUIDv7).';
COMMENT ON COLUMN howdah.tasks.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.tasks.id IS 'UUIDv7 from the database''s clock; howdah.id_time(id) reads the time back.';
COMMENT ON COLUMN howdah.tasks.queue_id IS 'Queue it waits in.';
COMMENT ON COLUMN howdah.tasks.target_id IS 'What it runs: 0 is an HTTP callback, else a handler in targets.';
COMMENT ON COLUMN howdah.tasks.priority IS '3 critical, 2 high, 1 normal, 0 low.';
COMMENT ON COLUMN howdah.tasks.timeout_s IS 'Seconds an attempt may take; NULL takes the queue''s.';
COMMENT ON COLUMN howdah.tasks.created_at IS 'When it was accepted.';
COMMENT ON COLUMN howdah.tasks.run_at IS 'Not started before this time.';
COMMENT ON COLUMN howdah.tasks.traceparent IS 'W3C trace context of the caller, passed on to the target.';
COMMENT ON COLUMN howdah.tasks.retry IS 'Fields of the retry policy that differ from the queue''s.';
COMMENT ON COLUMN howdah.tasks.tags IS 'Names and values chosen by the client; lists filter by them.';
COMMENT ON COLUMN howdah.tasks.http IS 'HTTP target: url, method, headers, success_statuses, and body with content_type instead of a payload.';
COMMENT ON COLUMN howdah.tasks.payload IS 'JSON exactly as it came, byte for byte, so that signatures over it hold.';

COMMENT ON TABLE howdah.runs IS 'One row per live task: its next or current attempt. A row leaves when the task ends.';
COMMENT ON COLUMN howdah.runs.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.runs.task_id IS 'The task.';
COMMENT ON COLUMN howdah.runs.queue_id IS 'With priority: the lane it is claimed from.';
COMMENT ON COLUMN howdah.runs.target_id IS 'What it runs; a worker claims only targets that it serves.';
COMMENT ON COLUMN howdah.runs.worker_id IS 'Worker that holds the lease.';
COMMENT ON COLUMN howdah.runs.claim_no IS 'Counts every claim and never falls; the fence given to handlers and receivers.';
COMMENT ON COLUMN howdah.runs.attempt IS 'Claims that were spent; a release gives its claim back.';
COMMENT ON COLUMN howdah.runs.crashes IS 'Leases that ran out with their worker.';
COMMENT ON COLUMN howdah.runs.priority IS '3 critical, 2 high, 1 normal, 0 low; 4 is internal.';
COMMENT ON COLUMN howdah.runs.blocked_by IS 'Bit mask of what it waits for: 1 steps, 2 approval, 4 flow key, 8 no live worker serves its target. While not 0, run_at is infinity.';
COMMENT ON COLUMN howdah.runs.run_at IS 'Claimable from this time on.';
COMMENT ON COLUMN howdah.runs.queued_at IS 'When the task was accepted; its age.';
COMMENT ON COLUMN howdah.runs.due_at IS 'When it becomes claimable once nothing blocks it.';
COMMENT ON COLUMN howdah.runs.claimed_at IS 'When the current lease was taken.';
COMMENT ON COLUMN howdah.runs.lease_expires_at IS 'The lease ends then unless its worker renews it.';
COMMENT ON COLUMN howdah.runs.deadline_at IS 'The attempt''s timeout ends then; the lease is not renewed past it.';
COMMENT ON COLUMN howdah.runs.lease_token IS 'Random per claim; only who knows it may renew or end the run. NULL while it waits.';
COMMENT ON COLUMN howdah.runs.cancel_mode IS 'Cancel asked for while it runs: soft or hard.';

COMMENT ON TABLE howdah.finished_runs IS 'History: one row per ended claim. Rows are only ever inserted. A task that ended unclaimed has one row with claim_no 0.';
COMMENT ON COLUMN howdah.finished_runs.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.finished_runs.task_id IS 'The task.';
COMMENT ON COLUMN howdah.finished_runs.claim_no IS 'Which claim of the task this was.';
COMMENT ON COLUMN howdah.finished_runs.attempt IS 'The attempt''s number; 0 if it never started.';
COMMENT ON COLUMN howdah.finished_runs.queue_id IS 'Queue it ran in.';
COMMENT ON COLUMN howdah.finished_runs.worker_id IS 'Worker that held the lease.';
COMMENT ON COLUMN howdah.finished_runs.outcome IS 'succeeded, failed, released, lost, timed_out, cancelled or expired.';
COMMENT ON COLUMN howdah.finished_runs.is_final IS 'True on the row that ended the task.';
COMMENT ON COLUMN howdah.finished_runs.response_status IS 'HTTP status of a callback''s answer.';
COMMENT ON COLUMN howdah.finished_runs.duration_s IS 'Seconds that the handler or callback took, by the worker''s monotonic clock.';
COMMENT ON COLUMN howdah.finished_runs.queued_at IS 'When the task was accepted.';
COMMENT ON COLUMN howdah.finished_runs.claimed_at IS 'When the lease was taken.';
COMMENT ON COLUMN howdah.finished_runs.finished_at IS 'When the outcome was recorded.';
COMMENT ON COLUMN howdah.finished_runs.lease_token IS 'Token of the lease that ended; tells a repeated report from a late one.';
COMMENT ON COLUMN howdah.finished_runs.result IS 'What the handler returned.';
COMMENT ON COLUMN howdah.finished_runs.error IS 'type, message and, for handlers, traceback.';
COMMENT ON COLUMN howdah.finished_runs.response_body IS 'Start of a callback''s answer.';

COMMENT ON TABLE howdah.dead_letters IS 'Tasks that spent their attempts or age, or must not be retried; kept until replayed or purged.';
COMMENT ON COLUMN howdah.dead_letters.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.dead_letters.task_id IS 'The task.';
COMMENT ON COLUMN howdah.dead_letters.queue_id IS 'Queue it waited in.';
COMMENT ON COLUMN howdah.dead_letters.target_id IS 'What it ran.';
COMMENT ON COLUMN howdah.dead_letters.priority IS 'Priority it had.';
COMMENT ON COLUMN howdah.dead_letters.claim_no IS 'Claims it had.';
COMMENT ON COLUMN howdah.dead_letters.attempt IS 'Attempts it spent.';
COMMENT ON COLUMN howdah.dead_letters.crashes IS 'Leases it lost.';
COMMENT ON COLUMN howdah.dead_letters.reason IS 'attempts, age, crashes or not_retryable.';
COMMENT ON COLUMN howdah.dead_letters.queued_at IS 'When the task was accepted.';
COMMENT ON COLUMN howdah.dead_letters.dead_at IS 'When it was given up.';
COMMENT ON COLUMN howdah.dead_letters.error IS 'The last attempt''s error.';

COMMENT ON TABLE howdah.workers IS 'Worker processes, one row per start. Live ones have a heartbeat of the last seconds.';
COMMENT ON COLUMN howdah.workers.id IS 'Identity, new per process.';
COMMENT ON COLUMN howdah.workers.name IS 'Host, pid and a random part: unique over all time.';
COMMENT ON COLUMN howdah.workers.host IS 'Host name.';
COMMENT ON COLUMN howdah.workers.pid IS 'Process id on that host.';
COMMENT ON COLUMN howdah.workers.version IS 'Version of Howdah it runs.';
COMMENT ON COLUMN howdah.workers.queues IS 'Names and patterns of queues it claims from.';
COMMENT ON COLUMN howdah.workers.handlers IS 'Handlers that it has.';
COMMENT ON COLUMN howdah.workers.serves_http IS 'Whether it delivers HTTP callbacks.';
COMMENT ON COLUMN howdah.workers.concurrency IS 'Runs that it executes at once.';
COMMENT ON COLUMN howdah.workers.lease_s IS 'Seconds of the leases that it takes.';
COMMENT ON COLUMN howdah.workers.started_at IS 'When it registered.';
COMMENT ON COLUMN howdah.workers.heartbeat_at IS 'Last sign of life.';
COMMENT ON COLUMN howdah.workers.stopping_at IS 'When it began to drain.';
COMMENT ON COLUMN howdah.workers.stopped_at IS 'When it stopped cleanly.';
