-- Batches: sets of tasks whose end, of all of them together, enqueues others.
-- reason: fan-out whose end nobody has to poll for

-- The indexes of tables that are there read all of them once, and find nothing.
SET LOCAL statement_timeout = '60s';

CREATE TABLE howdah.batches (
    tenant_id integer NOT NULL,
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    closed_at timestamptz,
    completed_at timestamptz,
    task_count bigint,
    succeeded bigint,
    failed bigint,
    cancelled bigint,
    expired bigint,
    created_by text NOT NULL,
    follow_ups json NOT NULL,
    CONSTRAINT batches_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT batches_completed_check CHECK (
        (completed_at IS NULL OR closed_at IS NOT NULL)
        AND (completed_at IS NULL) = (task_count IS NULL)
        AND num_nulls(task_count, succeeded, failed, cancelled, expired) IN (0, 5)
    )
);
-- What the chore walks over.
CREATE INDEX batches_running_idx ON howdah.batches (tenant_id, id) WHERE closed_at IS NOT NULL AND completed_at IS NULL;
CREATE INDEX batches_completed_idx ON howdah.batches (completed_at) WHERE completed_at IS NOT NULL;

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

-- A table of their own, because an index on all tasks would be opened by every claim, once for each day.
CREATE TABLE howdah.batch_tasks (
    tenant_id integer NOT NULL,
    batch_id uuid NOT NULL,
    task_id uuid NOT NULL,
    CONSTRAINT batch_tasks_pkey PRIMARY KEY (tenant_id, batch_id, task_id)
);

COMMENT ON TABLE howdah.batch_tasks IS 'Which tasks a batch has; inserted with them, and deleted after the batch''s retention.';
COMMENT ON COLUMN howdah.batch_tasks.tenant_id IS 'Owner.';
COMMENT ON COLUMN howdah.batch_tasks.batch_id IS 'The batch.';
COMMENT ON COLUMN howdah.batch_tasks.task_id IS 'One of its tasks.';

ALTER TABLE howdah.tasks ADD COLUMN completes_batch_id uuid;
ALTER TABLE howdah.dead_letters ADD COLUMN batch_id uuid;
ALTER TABLE howdah.finished_runs ADD COLUMN batch_id uuid;

COMMENT ON COLUMN howdah.tasks.completes_batch_id IS 'The batch whose end enqueued this one.';
COMMENT ON COLUMN howdah.dead_letters.batch_id IS 'The batch that its task belongs to.';
COMMENT ON COLUMN howdah.finished_runs.batch_id IS 'Of a final row of a task that did not succeed: the batch that it belongs to. NULL in all others, so that those who succeed pay nothing for it.';

-- All of them hold tasks of batches only.
CREATE INDEX runs_batch_idx ON howdah.runs (tenant_id, batch_id, task_id) WHERE batch_id IS NOT NULL;
CREATE INDEX dead_letters_batch_idx ON howdah.dead_letters (tenant_id, batch_id, task_id) WHERE batch_id IS NOT NULL;
CREATE INDEX finished_runs_batch_idx ON howdah.finished_runs (tenant_id, batch_id, task_id) WHERE batch_id IS NOT NULL;

INSERT INTO howdah.maintenance (chore) VALUES ('batches');
