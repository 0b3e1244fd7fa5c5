-- Durable bulk operations, and the dead letter that an edited task was made from.
-- reason: replaying or purging a million dead letters must outlive the session that asked for it.

CREATE TABLE howdah.operations (
    tenant_id integer NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL,
    queue_id integer,
    mode text,
    rate double precision,
    state text NOT NULL DEFAULT 'running',
    failures smallint NOT NULL DEFAULT 0,
    matched bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    worked_at timestamptz NOT NULL,
    finished_at timestamptz,
    after_task_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    created_by text NOT NULL,
    last_error text,
    filter jsonb NOT NULL,
    edits json,
    CONSTRAINT operations_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT operations_kind_check CHECK (
        kind IN ('replay_dead_letters', 'purge_dead_letters', 'purge_queue', 'cancel_tasks')
    ),
    CONSTRAINT operations_queue_check CHECK (queue_id IS NOT NULL OR kind = 'cancel_tasks'),
    CONSTRAINT operations_mode_check CHECK ((mode IS NOT NULL) = (kind = 'cancel_tasks') AND mode IN ('soft', 'hard')),
    CONSTRAINT operations_edits_check CHECK (edits IS NULL OR kind = 'replay_dead_letters'),
    CONSTRAINT operations_rate_check CHECK (rate BETWEEN 0.01 AND 10000),
    CONSTRAINT operations_state_check CHECK (
        state IN ('running', 'done', 'cancelled', 'failed') AND (state = 'running') = (finished_at IS NULL)
    )
);
CREATE INDEX operations_running_idx ON howdah.operations (worked_at) WHERE state = 'running';
CREATE INDEX operations_finished_idx ON howdah.operations (finished_at) WHERE state <> 'running';

ALTER TABLE howdah.tasks ADD COLUMN replayed_from uuid;

INSERT INTO howdah.maintenance (chore) VALUES ('operations');

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

COMMENT ON COLUMN howdah.tasks.replayed_from IS 'The dead letter that this task was made from, by a replay with edits.';
