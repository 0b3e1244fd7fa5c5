-- Bulk operations on tasks: how far they are, and what they came to.
CREATE OR REPLACE VIEW howdah.bulk_operations AS
SELECT
    t.name AS tenant,
    o.id AS operation_id,
    o.kind,
    q.name AS queue,
    o.filter - 'tags' AS filter,
    o.mode,
    o.rate,
    o.state,
    o.matched,
    o.done,
    o.skipped,
    o.failed,
    o.created_at,
    o.created_by,
    o.worked_at,
    o.finished_at,
    o.last_error
FROM howdah.operations AS o
JOIN howdah.tenants AS t ON t.id = o.tenant_id
LEFT JOIN howdah.queues AS q ON q.id = o.queue_id;

COMMENT ON VIEW howdah.bulk_operations IS 'Bulk operations on tasks, running ones and those of the retention time. Edits, which may hold a payload, and tags are left out.';
COMMENT ON COLUMN howdah.bulk_operations.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.bulk_operations.operation_id IS 'What howdah.start_operation returned.';
COMMENT ON COLUMN howdah.bulk_operations.kind IS 'replay_dead_letters, purge_dead_letters, purge_queue or cancel_tasks.';
COMMENT ON COLUMN howdah.bulk_operations.queue IS 'Name of the queue; NULL: all of them.';
COMMENT ON COLUMN howdah.bulk_operations.filter IS 'Which tasks; tags in it are left out.';
COMMENT ON COLUMN howdah.bulk_operations.mode IS 'Of cancel_tasks: soft or hard.';
COMMENT ON COLUMN howdah.bulk_operations.rate IS 'Most tasks a second; NULL: as fast as it goes.';
COMMENT ON COLUMN howdah.bulk_operations.state IS 'running, done, cancelled or failed.';
COMMENT ON COLUMN howdah.bulk_operations.matched IS 'Tasks so far that fit the filter.';
COMMENT ON COLUMN howdah.bulk_operations.done IS 'Those of them that were replayed, purged, cancelled, or asked to stop.';
COMMENT ON COLUMN howdah.bulk_operations.skipped IS 'Those that somebody else moved at the same moment, or that were asked to stop before.';
COMMENT ON COLUMN howdah.bulk_operations.failed IS 'Those that could not be done; last_error has one reason.';
COMMENT ON COLUMN howdah.bulk_operations.created_at IS 'When it was asked for; it touches only what existed then.';
COMMENT ON COLUMN howdah.bulk_operations.created_by IS 'The id of an API key, or a role of the database.';
COMMENT ON COLUMN howdah.bulk_operations.worked_at IS 'Its last page.';
COMMENT ON COLUMN howdah.bulk_operations.finished_at IS 'When it ended.';
COMMENT ON COLUMN howdah.bulk_operations.last_error IS 'Why the last page, or a task of it, could not be done.';
