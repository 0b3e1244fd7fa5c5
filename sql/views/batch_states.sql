-- Batches: how far they are, or what they came to.
CREATE OR REPLACE VIEW howdah.batch_states AS
SELECT
    n.name AS tenant,
    b.id AS batch_id,
    howdah.batch_state(b.closed_at, b.completed_at) AS state,
    coalesce(b.task_count, c.task_count) AS tasks,
    coalesce(c.pending, 0) AS pending,
    coalesce(b.succeeded, c.succeeded) AS succeeded,
    coalesce(b.failed, c.failed) AS failed,
    coalesce(b.cancelled, c.cancelled) AS cancelled,
    coalesce(b.expired, c.expired) AS expired,
    b.created_at,
    b.closed_at,
    b.completed_at,
    b.created_by
FROM howdah.batches AS b
JOIN howdah.tenants AS n ON n.id = b.tenant_id
LEFT JOIN LATERAL (
    SELECT k.task_count, k.pending, k.succeeded, k.failed, k.cancelled, k.expired
    FROM howdah.batch_counts(b.tenant_id, b.id, b.created_at) AS k
    WHERE b.completed_at IS NULL
) AS c ON true;

COMMENT ON VIEW howdah.batch_states IS 'Batches: those that are open or running, counted now, and complete ones of the retention time.';
COMMENT ON COLUMN howdah.batch_states.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.batch_states.batch_id IS 'What howdah.open_batch returned.';
COMMENT ON COLUMN howdah.batch_states.state IS 'open: takes tasks. running: closed, some of its tasks have not ended. complete.';
COMMENT ON COLUMN howdah.batch_states.tasks IS 'Its tasks. This and the next columns: of a complete one as they stood when it was completed.';
COMMENT ON COLUMN howdah.batch_states.pending IS 'Those that have not ended.';
COMMENT ON COLUMN howdah.batch_states.succeeded IS 'Those that succeeded.';
COMMENT ON COLUMN howdah.batch_states.failed IS 'Those that were given up.';
COMMENT ON COLUMN howdah.batch_states.cancelled IS 'Those that were cancelled, or replaced.';
COMMENT ON COLUMN howdah.batch_states.expired IS 'Those that were not started in time.';
COMMENT ON COLUMN howdah.batch_states.created_at IS 'When it was opened.';
COMMENT ON COLUMN howdah.batch_states.closed_at IS 'From when on it takes no more tasks.';
COMMENT ON COLUMN howdah.batch_states.completed_at IS 'When it was complete; its follow-ups were enqueued then.';
COMMENT ON COLUMN howdah.batch_states.created_by IS 'The id of an API key, or a role of the database.';
