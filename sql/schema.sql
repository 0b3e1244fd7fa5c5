-- Tables, indexes and constraints as all migrations leave them, dumped by PostgreSQL 18. Written by
-- `make schema` and never applied; a test compares it with a migrated database. Functions, views and
-- grants stand in files of their own; the daily partitions are left out.

CREATE SCHEMA howdah;

COMMENT ON SCHEMA howdah IS 'Howdah, a job queue service. Start with the views; sql/README.md of the project explains how to read the tables.';

CREATE TABLE howdah.api_keys (
    id text NOT NULL,
    tenant_id integer NOT NULL,
    secret_hash bytea NOT NULL,
    name text NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamp with time zone DEFAULT statement_timestamp() NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    CONSTRAINT api_keys_id_check CHECK ((id ~ '^[a-z0-9]{12}$'::text)),
    CONSTRAINT api_keys_scopes_check CHECK ((scopes <@ ARRAY['viewer'::text, 'producer'::text, 'worker'::text, 'operator'::text, 'admin'::text, 'payloads'::text])),
    CONSTRAINT api_keys_secret_hash_check CHECK ((octet_length(secret_hash) = 32))
);

COMMENT ON TABLE howdah.api_keys IS 'Credentials of HTTP clients. The secret itself is not stored.';
COMMENT ON COLUMN howdah.api_keys.id IS 'Public part of the key (hwd_<id>_<secret>); found by it.';
COMMENT ON COLUMN howdah.api_keys.tenant_id IS 'The tenant that every request with this key acts for.';
COMMENT ON COLUMN howdah.api_keys.secret_hash IS 'SHA-256 of the secret part; compared in constant time.';
COMMENT ON COLUMN howdah.api_keys.name IS 'What people call the key.';
COMMENT ON COLUMN howdah.api_keys.scopes IS 'Roles: viewer, producer, worker, operator, admin; payloads allows reading them.';
COMMENT ON COLUMN howdah.api_keys.created_at IS 'When the key was made.';
COMMENT ON COLUMN howdah.api_keys.expires_at IS 'Refused from this time on; NULL never.';
COMMENT ON COLUMN howdah.api_keys.revoked_at IS 'Refused since this time; NULL not revoked.';
COMMENT ON COLUMN howdah.api_keys.last_used_at IS 'Last use, to the minute.';

CREATE TABLE howdah.batches (
    tenant_id integer NOT NULL,
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    closed_at timestamp with time zone,
    completed_at timestamp with time zone,
    task_count bigint,
    succeeded bigint,
    failed bigint,
    cancelled bigint,
    expired bigint,
    created_by text NOT NULL,
    follow_ups json NOT NULL,
    CONSTRAINT batches_completed_check CHECK ((((completed_at IS NULL) OR (closed_at IS NOT NULL)) AND ((completed_at IS NULL) = (task_count IS NULL)) AND (num_nulls(task_count, succeeded, failed, cancelled, expired) = ANY (ARRAY[0, 5]))))
);

COMMENT ON TABLE howdah.batches IS 'Sets of tasks. One is complete when it takes no more tasks and none of its tasks has a live run; howdah.complete_batches then enqueues its follow-ups, once.';
COMMENT ON COLUMN howdah.batches.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.batches.id IS 'UUIDv7, by which clients ask for it.';
COMMENT ON COLUMN howdah.batches.created_at IS 'When it was opened.';
COMMENT ON COLUMN howdah.batches.closed_at IS 'From when on it takes no more tasks, but for those that its own live tasks enqueue.';
COMMENT ON COLUMN howdah.batches.completed_at IS 'When the last of its tasks was seen to have ended; its follow-ups were enqueued in that transaction.';
COMMENT ON COLUMN howdah.batches.task_count IS 'How many tasks it had then. With the next four: as they stood then; a replay changes them no more.';
COMMENT ON COLUMN howdah.batches.succeeded IS 'How many of them had succeeded.';
COMMENT ON COLUMN howdah.batches.failed IS 'How many were dead letters, or had been and were purged.';
COMMENT ON COLUMN howdah.batches.cancelled IS 'How many had been cancelled, or replaced by another task with their dedup key.';
COMMENT ON COLUMN howdah.batches.expired IS 'How many had not been started in time.';
COMMENT ON COLUMN howdah.batches.created_by IS 'Who opened it: the id of an API key, or a role of the database.';
COMMENT ON COLUMN howdah.batches.follow_ups IS 'on_complete, on_success and on_failure: tasks that its end enqueues, with the fields of POST /v1/tasks.';

CREATE TABLE howdah.tenants (
    id integer NOT NULL,
    name text NOT NULL,
    callback_secret text DEFAULT ('whsec_'::text || encode((uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64'::text)) NOT NULL,
    payload_bytes_max integer DEFAULT 262144 NOT NULL,
    created_at timestamp with time zone DEFAULT statement_timestamp() NOT NULL,
    callback_key bytea DEFAULT (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) NOT NULL,
    CONSTRAINT tenants_callback_key_check CHECK ((octet_length(callback_key) >= 32)),
    CONSTRAINT tenants_callback_secret_check CHECK ((callback_secret ~ '^whsec_[A-Za-z0-9+/]{32,86}={0,2}$'::text)),
    CONSTRAINT tenants_name_check CHECK ((name ~ '^[a-z0-9][a-z0-9_.-]{0,127}$'::text)),
    CONSTRAINT tenants_payload_bytes_max_check CHECK (((payload_bytes_max >= 1) AND (payload_bytes_max <= 67108864)))
);

COMMENT ON TABLE howdah.tenants IS 'The unit of isolation: keys, queues and tasks belong to one tenant.';
COMMENT ON COLUMN howdah.tenants.id IS 'Internal number; never shown to clients.';
COMMENT ON COLUMN howdah.tenants.name IS 'The name that SQL callers pass as tenant; ''default'' exists from the start.';
COMMENT ON COLUMN howdah.tenants.callback_secret IS 'Standard Webhooks secret (whsec_…) that signs this tenant''s callbacks.';
COMMENT ON COLUMN howdah.tenants.payload_bytes_max IS 'Largest payload accepted, in bytes of its JSON text.';
COMMENT ON COLUMN howdah.tenants.created_at IS 'When the tenant was made.';
COMMENT ON COLUMN howdah.tenants.callback_key IS 'Signs the tokens by which receivers report outcomes; known to nobody but Howdah''s processes. Replacing it makes every token worthless that is out.';

CREATE TABLE howdah.batch_tasks (
    tenant_id integer NOT NULL,
    batch_id uuid NOT NULL,
    task_id uuid NOT NULL
);

COMMENT ON TABLE howdah.batch_tasks IS 'Which tasks a batch has; inserted with them, and deleted after the batch''s retention.';
COMMENT ON COLUMN howdah.batch_tasks.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.batch_tasks.batch_id IS 'The batch.';
COMMENT ON COLUMN howdah.batch_tasks.task_id IS 'One of its tasks.';

CREATE TABLE howdah.operations (
    tenant_id integer NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL,
    queue_id integer,
    mode text,
    rate double precision,
    state text DEFAULT 'running'::text NOT NULL,
    failures smallint DEFAULT 0 NOT NULL,
    matched bigint DEFAULT 0 NOT NULL,
    done bigint DEFAULT 0 NOT NULL,
    skipped bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone NOT NULL,
    worked_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    after_task_id uuid DEFAULT '00000000-0000-0000-0000-000000000000'::uuid NOT NULL,
    created_by text NOT NULL,
    last_error text,
    filter jsonb NOT NULL,
    edits json,
    CONSTRAINT operations_edits_check CHECK (((edits IS NULL) OR (kind = 'replay_dead_letters'::text))),
    CONSTRAINT operations_kind_check CHECK ((kind = ANY (ARRAY['replay_dead_letters'::text, 'purge_dead_letters'::text, 'purge_queue'::text, 'cancel_tasks'::text]))),
    CONSTRAINT operations_mode_check CHECK ((((mode IS NOT NULL) = (kind = 'cancel_tasks'::text)) AND (mode = ANY (ARRAY['soft'::text, 'hard'::text])))),
    CONSTRAINT operations_queue_check CHECK (((queue_id IS NOT NULL) OR (kind = 'cancel_tasks'::text))),
    CONSTRAINT operations_rate_check CHECK (((rate >= (0.01)::double precision) AND (rate <= (10000)::double precision))),
    CONSTRAINT operations_state_check CHECK (((state = ANY (ARRAY['running'::text, 'done'::text, 'cancelled'::text, 'failed'::text])) AND ((state = 'running'::text) = (finished_at IS NULL))))
);

COMMENT ON TABLE howdah.operations IS 'Bulk operations on tasks, one row each. Schedulers work them off page by page; a page and where the next one begins are one transaction.';
COMMENT ON COLUMN howdah.operations.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.operations.id IS 'UUIDv7, by which clients ask for it.';
COMMENT ON COLUMN howdah.operations.kind IS 'replay_dead_letters, purge_dead_letters, purge_queue (cancels tasks that wait) or cancel_tasks (running ones too).';
COMMENT ON COLUMN howdah.operations.queue_id IS 'The queue it is about; NULL: all queues of the tenant (cancel_tasks only).';
COMMENT ON COLUMN howdah.operations.mode IS 'Of cancel_tasks: how running tasks are asked to stop, soft or hard.';
COMMENT ON COLUMN howdah.operations.rate IS 'Most tasks a second; NULL: as fast as it goes.';
COMMENT ON COLUMN howdah.operations.state IS 'running until it is done, cancelled, or failed; what it did stays done.';
COMMENT ON COLUMN howdah.operations.failures IS 'Pages in a row that could not be done.';
COMMENT ON COLUMN howdah.operations.matched IS 'Tasks so far that fit the filter: done, skipped and failed together.';
COMMENT ON COLUMN howdah.operations.done IS 'Tasks so far that were replayed, purged, cancelled, or asked to stop.';
COMMENT ON COLUMN howdah.operations.skipped IS 'Tasks so far that somebody else moved at the same moment, or that were asked to stop before.';
COMMENT ON COLUMN howdah.operations.failed IS 'Tasks so far that could not be done: an edited task was refused, or the task of a dead letter is gone.';
COMMENT ON COLUMN howdah.operations.created_at IS 'When it was asked for. It touches only what existed then.';
COMMENT ON COLUMN howdah.operations.due_at IS 'Its next page is not done before: the rate.';
COMMENT ON COLUMN howdah.operations.worked_at IS 'Its last page; the operation that has waited longest is next.';
COMMENT ON COLUMN howdah.operations.finished_at IS 'When it was done, cancelled or failed.';
COMMENT ON COLUMN howdah.operations.after_task_id IS 'The next page begins behind this task.';
COMMENT ON COLUMN howdah.operations.created_by IS 'Who asked for it: the id of an API key, or a role of the database.';
COMMENT ON COLUMN howdah.operations.last_error IS 'Why the last page, or a task of it, could not be done.';
COMMENT ON COLUMN howdah.operations.filter IS 'Which tasks: fields as in howdah.start_operation.';
COMMENT ON COLUMN howdah.operations.edits IS 'Of replay_dead_letters: what the new tasks have instead, payload, handler or http.';

CREATE TABLE howdah.queues (
    id integer NOT NULL,
    tenant_id integer NOT NULL,
    name text NOT NULL,
    retry jsonb DEFAULT '{}'::jsonb NOT NULL,
    timeout_s real DEFAULT 60 NOT NULL,
    created_at timestamp with time zone DEFAULT statement_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT statement_timestamp() NOT NULL,
    max_running integer,
    rate_limit integer,
    rate_period_s real,
    rate_burst integer,
    gate_at timestamp with time zone,
    has_flow_keys boolean DEFAULT false NOT NULL,
    is_limited boolean GENERATED ALWAYS AS (((max_running IS NOT NULL) OR (rate_limit IS NOT NULL) OR has_flow_keys)) STORED NOT NULL,
    keep_history text DEFAULT 'all'::text NOT NULL,
    max_depth integer,
    max_age_s double precision,
    pressure text,
    pressure_until timestamp with time zone,
    paused_until timestamp with time zone,
    paused_at timestamp with time zone,
    paused_by text,
    pause_reason text,
    draining_at timestamp with time zone,
    draining_by text,
    deleted_at timestamp with time zone,
    CONSTRAINT queues_draining_check CHECK (((draining_at IS NULL) = (draining_by IS NULL))),
    CONSTRAINT queues_keep_history_check CHECK ((keep_history = ANY (ARRAY['all'::text, 'failures'::text, 'none'::text]))),
    CONSTRAINT queues_max_age_s_check CHECK (((max_age_s >= (1)::double precision) AND (max_age_s <= (31622400)::double precision))),
    CONSTRAINT queues_max_depth_check CHECK (((max_depth >= 1) AND (max_depth <= 1000000))),
    CONSTRAINT queues_max_running_check CHECK (((max_running >= 1) AND (max_running <= 1000000))),
    CONSTRAINT queues_name_check CHECK ((name ~ '^[a-z0-9][a-z0-9_.-]{0,127}$'::text)),
    CONSTRAINT queues_pause_check CHECK ((((paused_until IS NULL) = (paused_at IS NULL)) AND ((paused_until IS NULL) = (paused_by IS NULL)) AND ((pause_reason IS NULL) OR (paused_until IS NOT NULL)))),
    CONSTRAINT queues_pressure_check CHECK ((((pressure IS NULL) = (pressure_until IS NULL)) AND (pressure = ANY (ARRAY['depth'::text, 'age'::text])))),
    CONSTRAINT queues_rate_check CHECK ((((rate_limit IS NULL) = (rate_period_s IS NULL)) AND ((rate_limit IS NULL) = (rate_burst IS NULL)) AND ((rate_limit >= 1) AND (rate_limit <= 1000000)) AND ((rate_period_s >= (1)::double precision) AND (rate_period_s <= (86400)::double precision)) AND ((rate_burst >= 1) AND (rate_burst <= 1000000)))),
    CONSTRAINT queues_retry_check CHECK ((jsonb_typeof(retry) = 'object'::text)),
    CONSTRAINT queues_timeout_s_check CHECK (((timeout_s >= (0.1)::double precision) AND (timeout_s <= (86400)::double precision)))
);

COMMENT ON TABLE howdah.queues IS 'A named place within a tenant where runs wait; carries the defaults of its tasks.';
COMMENT ON COLUMN howdah.queues.id IS 'Internal number; runs carry it.';
COMMENT ON COLUMN howdah.queues.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.queues.name IS 'Unique within the tenant.';
COMMENT ON COLUMN howdah.queues.retry IS 'Retry policy of tasks that bring none; fields that are absent take howdah.retry_defaults().';
COMMENT ON COLUMN howdah.queues.timeout_s IS 'Seconds an attempt may take, for tasks that bring no timeout.';
COMMENT ON COLUMN howdah.queues.created_at IS 'When the queue was made; by its first task if nobody made it before.';
COMMENT ON COLUMN howdah.queues.updated_at IS 'When its settings last changed.';
COMMENT ON COLUMN howdah.queues.max_running IS 'At most so many runs of it hold a lease at once; NULL any number.';
COMMENT ON COLUMN howdah.queues.rate_limit IS 'At most so many runs start in a period, beside the burst; NULL any number.';
COMMENT ON COLUMN howdah.queues.rate_period_s IS 'Seconds of that period.';
COMMENT ON COLUMN howdah.queues.rate_burst IS 'Runs that may start at once after a rest.';
COMMENT ON COLUMN howdah.queues.gate_at IS 'When all starts so far would be paid for at the rate; see howdah.gate_room.';
COMMENT ON COLUMN howdah.queues.has_flow_keys IS 'True since its first task with a flow key.';
COMMENT ON COLUMN howdah.queues.is_limited IS 'Its runs are claimed by howdah.claim_limited, not by the plain claim.';
COMMENT ON COLUMN howdah.queues.keep_history IS 'What finished_runs gets of its runs: all, failures (no successes), or none (but the rows that say cancelled or expired, which are those tasks'' state).';
COMMENT ON COLUMN howdah.queues.max_depth IS 'Waiting tasks from which on it takes no more; NULL no cap.';
COMMENT ON COLUMN howdah.queues.max_age_s IS 'Seconds that its oldest due task may wait before it takes no more; NULL no cap.';
COMMENT ON COLUMN howdah.queues.pressure IS 'Which cap was reached when the chore "queues" last looked: depth or age; counts until pressure_until.';
COMMENT ON COLUMN howdah.queues.pressure_until IS 'Tasks are refused until then; the chore renews it while the cap is reached, so that no queue stays shut when no scheduler runs.';
COMMENT ON COLUMN howdah.queues.paused_until IS 'Nothing is claimed from it before this time; infinity is a pause without end, NULL no pause.';
COMMENT ON COLUMN howdah.queues.paused_at IS 'Since when it is paused.';
COMMENT ON COLUMN howdah.queues.paused_by IS 'Who paused it: the id of an API key, or a database role.';
COMMENT ON COLUMN howdah.queues.pause_reason IS 'Why it is paused, for people.';
COMMENT ON COLUMN howdah.queues.draining_at IS 'Since when it takes no new tasks; NULL if it takes them.';
COMMENT ON COLUMN howdah.queues.draining_by IS 'Who drains it: the id of an API key, or a database role.';
COMMENT ON COLUMN howdah.queues.deleted_at IS 'When it was deleted. The row stays for as long as history names it; a new task of its name brings it back.';

CREATE TABLE howdah.maintenance (
    chore text NOT NULL,
    next_at timestamp with time zone DEFAULT statement_timestamp() NOT NULL,
    leased_until timestamp with time zone,
    hold_until timestamp with time zone,
    last_good_at timestamp with time zone,
    last_cost_s real,
    last_error text,
    failures integer DEFAULT 0 NOT NULL,
    state jsonb DEFAULT '{}'::jsonb NOT NULL
);

COMMENT ON TABLE howdah.maintenance IS 'Periodic chores, one row each. A scheduler that wants to do one locks its row with SKIP LOCKED, so each is done by one process at a time.';
COMMENT ON COLUMN howdah.maintenance.chore IS 'Name of the chore.';
COMMENT ON COLUMN howdah.maintenance.next_at IS 'Due from this time on.';
COMMENT ON COLUMN howdah.maintenance.leased_until IS 'A process works on it until then (chores that cannot run in one transaction).';
COMMENT ON COLUMN howdah.maintenance.hold_until IS 'Rescue only: leases that ended before this time count no crash, since workers could not renew them either.';
COMMENT ON COLUMN howdah.maintenance.last_good_at IS 'Last time it ran to its end.';
COMMENT ON COLUMN howdah.maintenance.last_cost_s IS 'Seconds that took.';
COMMENT ON COLUMN howdah.maintenance.last_error IS 'Message of the last failure, NULL after a good run.';
COMMENT ON COLUMN howdah.maintenance.failures IS 'Failures since the last good run.';
COMMENT ON COLUMN howdah.maintenance.state IS 'Where a resumable chore goes on.';

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
    queued_at timestamp with time zone NOT NULL,
    dead_at timestamp with time zone NOT NULL,
    error jsonb,
    batch_id uuid,
    CONSTRAINT dead_letters_reason_check CHECK ((reason = ANY (ARRAY['attempts'::text, 'age'::text, 'crashes'::text, 'not_retryable'::text])))
);

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
COMMENT ON COLUMN howdah.dead_letters.batch_id IS 'The batch that its task belongs to.';

CREATE TABLE howdah.dedup_keys (
    tenant_id integer NOT NULL,
    queue_id integer NOT NULL,
    claim_no integer NOT NULL,
    task_id uuid NOT NULL,
    taken_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone,
    until text NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT dedup_keys_key_check CHECK (((length(key) >= 1) AND (length(key) <= 255))),
    CONSTRAINT dedup_keys_until_check CHECK (((until = ANY (ARRAY['started'::text, 'finished'::text, 'expiry'::text])) AND ((until = 'expiry'::text) = (expires_at IS NOT NULL))))
)
WITH (fillfactor='80');

COMMENT ON TABLE howdah.dedup_keys IS 'Which task holds, or last held, a dedup key of a queue. Whether it still does is judged by the next task that brings the key, under the row''s lock (howdah.holds_key): nothing is written here when a task starts or ends. A chore deletes rows that hold nothing any more.';
COMMENT ON COLUMN howdah.dedup_keys.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.dedup_keys.queue_id IS 'Keys of different queues have nothing to do with each other.';
COMMENT ON COLUMN howdah.dedup_keys.claim_no IS 'Claims that the task had when it took the key; it has started once it has more.';
COMMENT ON COLUMN howdah.dedup_keys.task_id IS 'The task that took the key last.';
COMMENT ON COLUMN howdah.dedup_keys.taken_at IS 'When it did.';
COMMENT ON COLUMN howdah.dedup_keys.expires_at IS 'With until = expiry: it holds the key until then, whatever becomes of it.';
COMMENT ON COLUMN howdah.dedup_keys.until IS 'How long it holds the key: started (it is claimed for the first time), finished (it has no live run any more), expiry.';
COMMENT ON COLUMN howdah.dedup_keys.key IS 'The client''s word for what must not be there twice.';

CREATE TABLE howdah.ended_leases (
    tenant_id integer NOT NULL,
    task_id uuid NOT NULL,
    lease_token uuid NOT NULL,
    outcome text NOT NULL,
    ended_at timestamp with time zone NOT NULL,
    CONSTRAINT ended_leases_outcome_check CHECK ((outcome = ANY (ARRAY['succeeded'::text, 'failed'::text, 'released'::text, 'lost'::text, 'timed_out'::text])))
);

COMMENT ON TABLE howdah.ended_leases IS 'Leases that ended without a row of history, in queues that keep less than all. Tells a repeated report from a late one, for ten minutes.';
COMMENT ON COLUMN howdah.ended_leases.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.ended_leases.task_id IS 'The task.';
COMMENT ON COLUMN howdah.ended_leases.lease_token IS 'Token of the lease.';
COMMENT ON COLUMN howdah.ended_leases.outcome IS 'What was reported, as finished_runs would have it.';
COMMENT ON COLUMN howdah.ended_leases.ended_at IS 'When it was recorded.';

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
    queued_at timestamp with time zone NOT NULL,
    claimed_at timestamp with time zone,
    finished_at timestamp with time zone NOT NULL,
    lease_token uuid,
    result json,
    error jsonb,
    response_body text,
    batch_id uuid,
    CONSTRAINT finished_runs_outcome_check CHECK ((outcome = ANY (ARRAY['succeeded'::text, 'failed'::text, 'released'::text, 'lost'::text, 'timed_out'::text, 'cancelled'::text, 'expired'::text])))
)
PARTITION BY RANGE (task_id);

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
COMMENT ON COLUMN howdah.finished_runs.batch_id IS 'Of a final row of a task that did not succeed: the batch that it belongs to. NULL in all others, so that those who succeed pay nothing for it.';

CREATE TABLE howdah.flow_keys (
    id bigint NOT NULL,
    tenant_id integer NOT NULL,
    key text NOT NULL,
    concurrency integer,
    rate_limit integer,
    rate_period_s real,
    rate_burst integer,
    gate_at timestamp with time zone,
    put_off_to timestamp with time zone,
    created_at timestamp with time zone DEFAULT statement_timestamp() NOT NULL,
    CONSTRAINT flow_keys_concurrency_check CHECK (((concurrency >= 1) AND (concurrency <= 1000000))),
    CONSTRAINT flow_keys_key_check CHECK (((length(key) >= 1) AND (length(key) <= 255))),
    CONSTRAINT flow_keys_limit_check CHECK (((concurrency IS NOT NULL) OR (rate_limit IS NOT NULL))),
    CONSTRAINT flow_keys_rate_check CHECK ((((rate_limit IS NULL) = (rate_period_s IS NULL)) AND ((rate_limit IS NULL) = (rate_burst IS NULL)) AND ((rate_limit >= 1) AND (rate_limit <= 1000000)) AND ((rate_period_s >= (1)::double precision) AND (rate_period_s <= (86400)::double precision)) AND ((rate_burst >= 1) AND (rate_burst <= 1000000))))
)
WITH (fillfactor='70');

COMMENT ON TABLE howdah.flow_keys IS 'Keys that callers chose to bound how many tasks go on at once, or how fast their runs start.';
COMMENT ON COLUMN howdah.flow_keys.id IS 'Internal number; runs carry it.';
COMMENT ON COLUMN howdah.flow_keys.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.flow_keys.key IS 'What callers named it, unique within the tenant; tasks of any queue share it.';
COMMENT ON COLUMN howdah.flow_keys.concurrency IS 'At most so many of its tasks hold a place, from their first claim to their end; as its newest task says. NULL any number.';
COMMENT ON COLUMN howdah.flow_keys.rate_limit IS 'At most so many of its runs start in a period, beside the burst; NULL any number.';
COMMENT ON COLUMN howdah.flow_keys.rate_period_s IS 'Seconds of that period.';
COMMENT ON COLUMN howdah.flow_keys.rate_burst IS 'Runs that may start at once after a rest.';
COMMENT ON COLUMN howdah.flow_keys.gate_at IS 'When all starts so far would be paid for at the rate; see howdah.gate_room.';
COMMENT ON COLUMN howdah.flow_keys.put_off_to IS 'When the last run that its rate put off is due again.';
COMMENT ON COLUMN howdah.flow_keys.created_at IS 'When its first task came, or the first one since it had none.';

ALTER TABLE howdah.flow_keys ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME howdah.flow_keys_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE howdah.idempotency_keys (
    tenant_id integer NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    status smallint,
    location text,
    answer text,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT idempotency_keys_key_check CHECK ((key ~ '^[\x21-\x7e]{1,255}$'::text)),
    CONSTRAINT idempotency_keys_request_hash_check CHECK ((octet_length(request_hash) = 32))
);

COMMENT ON TABLE howdah.idempotency_keys IS 'Answers to POST requests that carried an Idempotency-Key; replayed for 24 hours.';
COMMENT ON COLUMN howdah.idempotency_keys.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.idempotency_keys.key IS 'The header''s value.';
COMMENT ON COLUMN howdah.idempotency_keys.request_hash IS 'SHA-256 of method, path and body: the same key with another request is refused.';
COMMENT ON COLUMN howdah.idempotency_keys.status IS 'HTTP status of the stored answer; NULL only inside the transaction that makes it.';
COMMENT ON COLUMN howdah.idempotency_keys.location IS 'Location header of the stored answer.';
COMMENT ON COLUMN howdah.idempotency_keys.answer IS 'Body of the stored answer.';
COMMENT ON COLUMN howdah.idempotency_keys.created_at IS 'When the key was first used.';

CREATE TABLE howdah.migrations (
    file text NOT NULL,
    checksum bytea NOT NULL,
    is_breaking boolean NOT NULL,
    duration_s real NOT NULL,
    applied_at timestamp with time zone DEFAULT statement_timestamp() NOT NULL,
    CONSTRAINT migrations_checksum_check CHECK ((octet_length(checksum) = 32))
);

COMMENT ON TABLE howdah.migrations IS 'SQL files that howdah migrate applied: numbered ones once, functions, views and grants whenever they change.';
COMMENT ON COLUMN howdah.migrations.file IS 'Name of the file; a directory in front marks one that is applied again when it changes.';
COMMENT ON COLUMN howdah.migrations.checksum IS 'SHA-256 of the file as it was applied.';
COMMENT ON COLUMN howdah.migrations.is_breaking IS 'True if releases that do not know the file must not run any more.';
COMMENT ON COLUMN howdah.migrations.duration_s IS 'Seconds that it took.';
COMMENT ON COLUMN howdah.migrations.applied_at IS 'When it was applied, the last time.';

CREATE TABLE howdah.runs (
    tenant_id integer NOT NULL,
    task_id uuid NOT NULL,
    queue_id integer NOT NULL,
    target_id integer NOT NULL,
    worker_id integer,
    claim_no integer DEFAULT 0 NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    crashes smallint DEFAULT 0 NOT NULL,
    priority smallint NOT NULL,
    blocked_by integer DEFAULT 0 NOT NULL,
    run_at timestamp with time zone NOT NULL,
    queued_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone NOT NULL,
    claimed_at timestamp with time zone,
    lease_expires_at timestamp with time zone,
    deadline_at timestamp with time zone,
    lease_token uuid,
    cancel_mode text,
    flow_key_id bigint,
    flow_state smallint,
    awaiting_at timestamp with time zone,
    expires_at timestamp with time zone,
    batch_id uuid,
    has_follow_ups boolean,
    alone_state smallint,
    CONSTRAINT runs_attempt_check CHECK (((attempt >= 0) AND (attempt <= claim_no))),
    CONSTRAINT runs_blocked_check CHECK (((blocked_by = 0) = isfinite(run_at))),
    CONSTRAINT runs_cancel_mode_check CHECK (((cancel_mode IS NULL) OR ((cancel_mode = ANY (ARRAY['soft'::text, 'hard'::text])) AND (lease_token IS NOT NULL)))),
    CONSTRAINT runs_flow_check CHECK ((((flow_key_id IS NULL) = (flow_state IS NULL)) AND ((flow_state >= 0) AND (flow_state <= 2)) AND (COALESCE((flow_state = 1), false) = ((blocked_by & 4) <> 0)))),
    CONSTRAINT runs_lease_check CHECK ((((lease_token IS NULL) = (lease_expires_at IS NULL)) AND ((lease_token IS NULL) = (deadline_at IS NULL)) AND ((lease_token IS NULL) = (worker_id IS NULL)) AND ((lease_token IS NULL) = (claimed_at IS NULL)))),
    CONSTRAINT runs_priority_check CHECK (((priority >= 0) AND (priority <= 4)))
)
WITH (vacuum_truncate=off, autovacuum_vacuum_threshold='10000', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_cost_delay='0', autovacuum_vacuum_insert_scale_factor='0.2', autovacuum_analyze_threshold='10000', autovacuum_analyze_scale_factor='0.1');

COMMENT ON TABLE howdah.runs IS 'One row per live task: its next or current attempt. A row leaves when the task ends.';
COMMENT ON COLUMN howdah.runs.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.runs.task_id IS 'The task.';
COMMENT ON COLUMN howdah.runs.queue_id IS 'With priority: the lane it is claimed from.';
COMMENT ON COLUMN howdah.runs.target_id IS 'What it runs; a worker claims only targets that it serves.';
COMMENT ON COLUMN howdah.runs.worker_id IS 'Worker that holds the lease.';
COMMENT ON COLUMN howdah.runs.claim_no IS 'Counts every claim and never falls; the fence given to handlers and receivers.';
COMMENT ON COLUMN howdah.runs.attempt IS 'Claims that were spent; a release gives its claim back.';
COMMENT ON COLUMN howdah.runs.crashes IS 'Leases that ran out with their worker; from two on, only while it was executed alone.';
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
COMMENT ON COLUMN howdah.runs.flow_key_id IS 'Flow key of its task; NULL if it has none.';
COMMENT ON COLUMN howdah.runs.flow_state IS '0 no claim has come to it yet, 1 parked until its flow key has room (blocked_by 4), 2 holds a place of its key until the task ends.';
COMMENT ON COLUMN howdah.runs.awaiting_at IS 'When its receiver answered 202: since then it waits for the callback, and no worker renews its lease. NULL for all others.';
COMMENT ON COLUMN howdah.runs.expires_at IS 'Not claimable from this time on; the task''s.';
COMMENT ON COLUMN howdah.runs.batch_id IS 'The batch that its task belongs to.';
COMMENT ON COLUMN howdah.runs.has_follow_ups IS 'True if its task has follow_ups: whoever ends it calls howdah.follow in the same transaction. Never false.';
COMMENT ON COLUMN howdah.runs.alone_state IS 'Of a run that two workers were lost with: 1 its worker has not started it, and first ends what else it has; 2 it is executed with nothing beside it. NULL: nothing is known, as of all others.';

CREATE TABLE howdah.targets (
    id integer NOT NULL,
    tenant_id integer,
    handler text,
    served_at timestamp with time zone DEFAULT statement_timestamp() NOT NULL,
    is_parked boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT statement_timestamp() NOT NULL,
    CONSTRAINT targets_handler_check CHECK ((handler ~ '^[a-z0-9][a-z0-9_.-]{0,127}$'::text)),
    CONSTRAINT targets_http_check CHECK ((((id = 0) = (tenant_id IS NULL)) AND ((id = 0) = (handler IS NULL))))
);

COMMENT ON TABLE howdah.targets IS 'What tasks run. Row 0 stands for all HTTP callbacks; every handler name of a tenant has a row.';
COMMENT ON COLUMN howdah.targets.id IS 'Internal number; runs carry it. 0 is HTTP.';
COMMENT ON COLUMN howdah.targets.tenant_id IS 'Owner; NULL for HTTP.';
COMMENT ON COLUMN howdah.targets.handler IS 'Handler name; NULL for HTTP.';
COMMENT ON COLUMN howdah.targets.served_at IS 'When a live worker was last seen to serve it.';
COMMENT ON COLUMN howdah.targets.is_parked IS 'True while no live worker serves it: its due runs are parked (runs.blocked_by) instead of lying at the head of a lane.';
COMMENT ON COLUMN howdah.targets.created_at IS 'When the first task named it.';

CREATE TABLE howdah.queue_stats (
    bucket_at timestamp with time zone NOT NULL,
    queue_id integer NOT NULL,
    source uuid NOT NULL,
    enqueued integer DEFAULT 0 NOT NULL,
    succeeded integer DEFAULT 0 NOT NULL,
    failed integer DEFAULT 0 NOT NULL,
    retried integer DEFAULT 0 NOT NULL,
    duration_s double precision DEFAULT 0 NOT NULL
);

COMMENT ON TABLE howdah.queue_stats IS 'What happened per queue and minute, inserted by each process once a minute and never updated.';
COMMENT ON COLUMN howdah.queue_stats.bucket_at IS 'Start of the minute.';
COMMENT ON COLUMN howdah.queue_stats.queue_id IS 'The queue.';
COMMENT ON COLUMN howdah.queue_stats.source IS 'The process that counted.';
COMMENT ON COLUMN howdah.queue_stats.enqueued IS 'Tasks accepted over HTTP.';
COMMENT ON COLUMN howdah.queue_stats.succeeded IS 'Runs that succeeded.';
COMMENT ON COLUMN howdah.queue_stats.failed IS 'Tasks given up as dead letters.';
COMMENT ON COLUMN howdah.queue_stats.retried IS 'Runs that failed and wait for another attempt.';
COMMENT ON COLUMN howdah.queue_stats.duration_s IS 'Seconds that finished runs took, added up.';

ALTER TABLE howdah.queues ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME howdah.queues_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE howdah.workers (
    id integer NOT NULL,
    name text NOT NULL,
    host text,
    pid integer,
    version text,
    queues text[] NOT NULL,
    handlers text[] NOT NULL,
    serves_http boolean NOT NULL,
    concurrency integer NOT NULL,
    lease_s real NOT NULL,
    started_at timestamp with time zone NOT NULL,
    heartbeat_at timestamp with time zone NOT NULL,
    stopping_at timestamp with time zone,
    stopped_at timestamp with time zone,
    kind text DEFAULT 'worker'::text NOT NULL,
    tenant_id integer,
    pull_key uuid,
    silent_after_s real GENERATED ALWAYS AS (
CASE
    WHEN (kind = 'pull'::text) THEN (60)::double precision
    ELSE ((3)::double precision * lease_s)
END) STORED,
    CONSTRAINT workers_kind_check CHECK (((kind = ANY (ARRAY['worker'::text, 'pull'::text])) AND ((kind = 'pull'::text) = (tenant_id IS NOT NULL)) AND ((kind = 'pull'::text) = (pull_key IS NOT NULL)))),
    CONSTRAINT workers_lease_s_check CHECK (((lease_s >= (1)::double precision) AND (lease_s <= (3600)::double precision))),
    CONSTRAINT workers_process_check CHECK (((kind = 'pull'::text) OR ((host IS NOT NULL) AND (pid IS NOT NULL) AND (version IS NOT NULL))))
);

COMMENT ON TABLE howdah.workers IS 'Who holds leases: worker processes, one row per start, and consumers that claim over HTTP, one row for each queue and set of handlers. Live ones have a heartbeat of the last seconds.';
COMMENT ON COLUMN howdah.workers.id IS 'Identity: new per process, kept by a pull consumer.';
COMMENT ON COLUMN howdah.workers.name IS 'Of a process host, pid and a random part: unique over all time. Of a pull consumer what it calls itself, or the id of its API key.';
COMMENT ON COLUMN howdah.workers.host IS 'Host name; NULL for a pull consumer.';
COMMENT ON COLUMN howdah.workers.pid IS 'Process id on that host; NULL for a pull consumer.';
COMMENT ON COLUMN howdah.workers.version IS 'Version of Howdah it runs; NULL for a pull consumer.';
COMMENT ON COLUMN howdah.workers.queues IS 'Names and patterns of queues it claims from.';
COMMENT ON COLUMN howdah.workers.handlers IS 'Handlers that it has.';
COMMENT ON COLUMN howdah.workers.serves_http IS 'Whether it delivers HTTP callbacks.';
COMMENT ON COLUMN howdah.workers.concurrency IS 'Runs that it executes at once; of a pull consumer the most that it asked for in its last claim.';
COMMENT ON COLUMN howdah.workers.lease_s IS 'Seconds of the leases that it takes.';
COMMENT ON COLUMN howdah.workers.started_at IS 'When it registered.';
COMMENT ON COLUMN howdah.workers.heartbeat_at IS 'Last sign of life.';
COMMENT ON COLUMN howdah.workers.stopping_at IS 'When it began to drain.';
COMMENT ON COLUMN howdah.workers.stopped_at IS 'When it stopped cleanly.';
COMMENT ON COLUMN howdah.workers.kind IS 'worker: a process of Howdah, for all tenants. pull: claims over HTTP, for its tenant.';
COMMENT ON COLUMN howdah.workers.tenant_id IS 'The tenant of a pull consumer; NULL for workers.';
COMMENT ON COLUMN howdah.workers.pull_key IS 'Digest of a pull consumer''s name, queue and handlers, by which its next claim finds the row.';
COMMENT ON COLUMN howdah.workers.silent_after_s IS 'Seconds without a sign of life after which it counts as gone: three leases; 60 for a pull consumer, whose leases may be an hour.';

ALTER TABLE howdah.targets ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME howdah.targets_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE howdah.task_logs (
    tenant_id integer NOT NULL,
    task_id uuid NOT NULL,
    claim_no integer NOT NULL,
    seq integer NOT NULL,
    level smallint NOT NULL,
    fraction real,
    logged_at timestamp with time zone NOT NULL,
    message text NOT NULL,
    fields jsonb,
    CONSTRAINT task_logs_fraction_check CHECK (((fraction >= (0)::double precision) AND (fraction <= (1)::double precision)))
)
PARTITION BY RANGE (task_id);

COMMENT ON TABLE howdah.task_logs IS 'What handlers logged of their tasks. Rows are only ever inserted. Partitioned as tasks are, and retired with them.';
COMMENT ON COLUMN howdah.task_logs.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.task_logs.task_id IS 'The task.';
COMMENT ON COLUMN howdah.task_logs.claim_no IS 'Which claim of the task said so.';
COMMENT ON COLUMN howdah.task_logs.seq IS 'Order within the claim, from 1.';
COMMENT ON COLUMN howdah.task_logs.level IS '10 debug, 20 info, 30 warning, 40 error.';
COMMENT ON COLUMN howdah.task_logs.fraction IS 'Of an entry about progress: how much is done, 0 to 1.';
COMMENT ON COLUMN howdah.task_logs.logged_at IS 'When it was said.';
COMMENT ON COLUMN howdah.task_logs.message IS 'The text; at most 8 KiB of it.';
COMMENT ON COLUMN howdah.task_logs.fields IS 'What the handler added to it.';

CREATE TABLE howdah.tasks (
    tenant_id integer NOT NULL,
    id uuid NOT NULL,
    queue_id integer NOT NULL,
    target_id integer NOT NULL,
    priority smallint NOT NULL,
    timeout_s real,
    created_at timestamp with time zone NOT NULL,
    run_at timestamp with time zone NOT NULL,
    traceparent text,
    retry jsonb,
    tags jsonb,
    http jsonb,
    payload json,
    flow jsonb,
    replayed_from uuid,
    expires_at timestamp with time zone,
    dedup jsonb,
    parent_id uuid,
    batch_id uuid,
    follow_ups json,
    completes_batch_id uuid,
    CONSTRAINT tasks_http_check CHECK (((target_id = 0) = (http IS NOT NULL))),
    CONSTRAINT tasks_priority_check CHECK (((priority >= 0) AND (priority <= 3))),
    CONSTRAINT tasks_run_at_check CHECK (isfinite(run_at))
)
PARTITION BY RANGE (id);

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
COMMENT ON COLUMN howdah.tasks.flow IS 'Flow key with its limits, as the client gave it: key, concurrency, rate.';
COMMENT ON COLUMN howdah.tasks.replayed_from IS 'The dead letter that this task was made from, by a replay with edits.';
COMMENT ON COLUMN howdah.tasks.expires_at IS 'No attempt starts at or after this time; NULL: no such time.';
COMMENT ON COLUMN howdah.tasks.dedup IS 'key, until and on_conflict, as given: what must not be there twice.';
COMMENT ON COLUMN howdah.tasks.parent_id IS 'The task whose end enqueued this one, in the same transaction.';
COMMENT ON COLUMN howdah.tasks.batch_id IS 'The batch that it belongs to.';
COMMENT ON COLUMN howdah.tasks.follow_ups IS 'on_success and on_failure: tasks that are enqueued when this one succeeds, or fails or expires, with the fields of POST /v1/tasks.';
COMMENT ON COLUMN howdah.tasks.completes_batch_id IS 'The batch whose end enqueued this one.';

ALTER TABLE howdah.tenants ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME howdah.tenants_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE howdah.workers ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME howdah.workers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY howdah.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY howdah.batch_tasks
    ADD CONSTRAINT batch_tasks_pkey PRIMARY KEY (tenant_id, batch_id, task_id);

ALTER TABLE ONLY howdah.batches
    ADD CONSTRAINT batches_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE ONLY howdah.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (tenant_id, task_id);

ALTER TABLE ONLY howdah.dedup_keys
    ADD CONSTRAINT dedup_keys_pkey PRIMARY KEY (tenant_id, queue_id, key);

ALTER TABLE ONLY howdah.ended_leases
    ADD CONSTRAINT ended_leases_pkey PRIMARY KEY (tenant_id, task_id, lease_token);

ALTER TABLE ONLY howdah.finished_runs
    ADD CONSTRAINT finished_runs_pkey PRIMARY KEY (tenant_id, task_id, claim_no);

ALTER TABLE ONLY howdah.flow_keys
    ADD CONSTRAINT flow_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY howdah.flow_keys
    ADD CONSTRAINT flow_keys_tenant_id_key_key UNIQUE (tenant_id, key);

ALTER TABLE ONLY howdah.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, key);

ALTER TABLE ONLY howdah.maintenance
    ADD CONSTRAINT maintenance_pkey PRIMARY KEY (chore);

ALTER TABLE ONLY howdah.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (file);

ALTER TABLE ONLY howdah.operations
    ADD CONSTRAINT operations_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE ONLY howdah.queue_stats
    ADD CONSTRAINT queue_stats_pkey PRIMARY KEY (queue_id, bucket_at, source);

ALTER TABLE ONLY howdah.queues
    ADD CONSTRAINT queues_pkey PRIMARY KEY (id);

ALTER TABLE ONLY howdah.queues
    ADD CONSTRAINT queues_tenant_id_name_key UNIQUE (tenant_id, name);

ALTER TABLE howdah.runs
    ADD CONSTRAINT runs_alone_check CHECK (((alone_state IS NULL) OR (((alone_state >= 1) AND (alone_state <= 2)) AND (lease_token IS NOT NULL)))) NOT VALID;

ALTER TABLE howdah.runs
    ADD CONSTRAINT runs_awaiting_check CHECK (((awaiting_at IS NULL) OR (lease_token IS NOT NULL))) NOT VALID;

ALTER TABLE ONLY howdah.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (tenant_id, task_id);

ALTER TABLE ONLY howdah.targets
    ADD CONSTRAINT targets_pkey PRIMARY KEY (id);

ALTER TABLE ONLY howdah.targets
    ADD CONSTRAINT targets_tenant_id_handler_key UNIQUE (tenant_id, handler);

ALTER TABLE ONLY howdah.task_logs
    ADD CONSTRAINT task_logs_pkey PRIMARY KEY (tenant_id, task_id, claim_no, seq);

ALTER TABLE ONLY howdah.tasks
    ADD CONSTRAINT tasks_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE ONLY howdah.tenants
    ADD CONSTRAINT tenants_name_key UNIQUE (name);

ALTER TABLE ONLY howdah.tenants
    ADD CONSTRAINT tenants_pkey PRIMARY KEY (id);

ALTER TABLE ONLY howdah.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (id);

CREATE INDEX batches_completed_idx ON howdah.batches USING btree (completed_at) WHERE (completed_at IS NOT NULL);

CREATE INDEX batches_running_idx ON howdah.batches USING btree (tenant_id, id) WHERE ((closed_at IS NOT NULL) AND (completed_at IS NULL));

CREATE INDEX dead_letters_batch_idx ON howdah.dead_letters USING btree (tenant_id, batch_id, task_id) WHERE (batch_id IS NOT NULL);

CREATE INDEX dead_letters_queue_idx ON howdah.dead_letters USING btree (queue_id, task_id);

CREATE INDEX ended_leases_ended_idx ON howdah.ended_leases USING btree (ended_at);

CREATE INDEX finished_runs_batch_idx ON ONLY howdah.finished_runs USING btree (tenant_id, batch_id, task_id) WHERE (batch_id IS NOT NULL);

CREATE INDEX finished_runs_failed_idx ON ONLY howdah.finished_runs USING btree (finished_at) WHERE (outcome = ANY (ARRAY['failed'::text, 'timed_out'::text, 'lost'::text]));

CREATE INDEX idempotency_keys_created_idx ON howdah.idempotency_keys USING btree (created_at);

CREATE INDEX operations_finished_idx ON howdah.operations USING btree (finished_at) WHERE (state <> 'running'::text);

CREATE INDEX operations_running_idx ON howdah.operations USING btree (worked_at) WHERE (state = 'running'::text);

CREATE INDEX queues_capped_idx ON howdah.queues USING btree (id) WHERE ((max_depth IS NOT NULL) OR (max_age_s IS NOT NULL) OR (pressure IS NOT NULL));

CREATE INDEX queues_deleted_idx ON howdah.queues USING btree (deleted_at) WHERE (deleted_at IS NOT NULL);

CREATE INDEX queues_history_idx ON howdah.queues USING btree (id) WHERE (keep_history <> 'all'::text);

CREATE INDEX queues_paused_idx ON howdah.queues USING btree (paused_until) WHERE (paused_until IS NOT NULL);

CREATE INDEX runs_batch_idx ON howdah.runs USING btree (tenant_id, batch_id, task_id) WHERE (batch_id IS NOT NULL);

CREATE INDEX runs_expiry_idx ON howdah.runs USING btree (expires_at) WHERE ((expires_at IS NOT NULL) AND (lease_token IS NULL));

CREATE INDEX runs_flow_idx ON howdah.runs USING btree (flow_key_id, flow_state, priority DESC, due_at, task_id) WHERE (flow_key_id IS NOT NULL);

CREATE INDEX runs_lease_idx ON howdah.runs USING btree (lease_expires_at) WHERE (lease_expires_at IS NOT NULL);

CREATE INDEX runs_ready_idx ON howdah.runs USING btree (queue_id, priority, run_at, task_id) WHERE (lease_token IS NULL);

CREATE INDEX task_logs_progress_idx ON ONLY howdah.task_logs USING btree (tenant_id, task_id, claim_no, seq) WHERE (fraction IS NOT NULL);

CREATE INDEX workers_live_idx ON howdah.workers USING btree (heartbeat_at) WHERE (stopped_at IS NULL);

CREATE UNIQUE INDEX workers_pull_idx ON howdah.workers USING btree (tenant_id, pull_key) WHERE (pull_key IS NOT NULL);

ALTER TABLE ONLY howdah.api_keys
    ADD CONSTRAINT api_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES howdah.tenants(id);

ALTER TABLE ONLY howdah.flow_keys
    ADD CONSTRAINT flow_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES howdah.tenants(id);

ALTER TABLE ONLY howdah.queues
    ADD CONSTRAINT queues_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES howdah.tenants(id);

ALTER TABLE ONLY howdah.targets
    ADD CONSTRAINT targets_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES howdah.tenants(id);
